"""Pansharpening with neural networks on real scenes: any size, seam-free, georeferenced."""

__version__ = "0.1.0"
