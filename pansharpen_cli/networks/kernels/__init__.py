"""Inner loops of the networks as kernels for a GPU, written in Triton: one pass where torch takes many.
`layers.compiled_for` says when. Images are kept channels last."""

from pansharpen_cli.networks.kernels.adaptive import convolve_normalised, filter_pixels
from pansharpen_cli.networks.kernels.convolution import convolve
from pansharpen_cli.networks.kernels.focus import overwrite, weigh
from pansharpen_cli.networks.kernels.mixing import exchange

__all__ = ["convolve", "convolve_normalised", "exchange", "filter_pixels", "overwrite", "weigh"]
