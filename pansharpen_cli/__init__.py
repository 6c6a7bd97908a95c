"""Pansharpening with neural networks on real scenes: any size, seam-free, georeferenced.

    from pansharpen_cli import sharpen

    product = sharpen("pan.tif", "ms.tif", "out.tif")

Everything the command line does is here; its modules load when they are first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pansharpen_cli.errors import PansharpenError

if TYPE_CHECKING:
    from pansharpen_cli.pipeline import Product
    from pansharpen_cli.zoo import Model

__version__ = "0.1.0"

__all__ = ["PansharpenError", "__version__", "models", "sharpen"]


def sharpen(pan: str | Path, ms: str | Path | Sequence[str | Path], output: str | Path, **options: Any) -> Product:
    """Sharpen `ms` (one file, or several on one grid) with `pan` into the GeoTIFF `output`.

    `options` are the fields of `pansharpen_cli.job.Job`: model, coregister, device, nodata, overwrite, tile, ...
    Raises PansharpenError in one sentence for whatever cannot be done; `output` then does not exist.
    """
    from pansharpen_cli.job import Job
    from pansharpen_cli.pipeline import sharpen as run

    files = [ms] if isinstance(ms, str | Path) else ms
    return run(Job(pan=pan, ms=files, output=output, **options))  # type: ignore[arg-type]  # it makes a Path of it


def models() -> list[Model]:
    """The models that are found, by name; each with its `spec` and its `folder`."""
    from pansharpen_cli import zoo

    return zoo.models()
