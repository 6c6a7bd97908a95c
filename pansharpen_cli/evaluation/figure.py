"""One picture of a comparison: a scene's PAN, MS and truth, every product, and how far it is from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import OutputError, UsageError
from pansharpen_cli.imaging.wald import FullScene, ReducedScene
from pansharpen_cli.outputs.quicklook import STRETCH, colour_bands
from pansharpen_cli.outputs.target import check_target, partial_beside, publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FORMATS = (".png", ".pdf", ".svg")
SHOWN = 256
"""PAN pixels a side of what is shown, at most."""
COLUMNS = 5
TOP_ERROR = 99
"""Percentile of all methods' errors from which on they look alike."""
INCHES, DPI = 2.4, 150
PAPER, INK, QUIET, GAP = "#fcfbf8", "#1b1f24", "#555c65", "#d9d5ca"
"""Colours of the page that `report` makes, as its maps are: bright is good, dark blue is bad."""


@dataclass(frozen=True, eq=False)
class _View:
    """The part of a scene that is shown; `bands` are those that look red, green and blue."""

    name: str
    rows: slice
    cols: slice
    bands: list[int]
    pan: Float32
    ms: Float32
    gt: Float32 | None
    valid: Mask

    @classmethod
    def of(cls, scene: ReducedScene | FullScene) -> _View:
        rows, cols = _busiest(scene)
        low = (slice(s.start // scene.ratio, s.stop // scene.ratio) for s in (rows, cols))
        gt = scene.gt[:, rows, cols].copy() if isinstance(scene, ReducedScene) else None
        return cls(
            scene.name, rows, cols, [number - 1 for number in colour_bands(scene.band_names)],
            scene.pan[:, rows, cols].copy(), scene.ms[:, *low].copy(), gt, scene.valid[rows, cols].copy(),
        )  # fmt: skip


class Gallery:
    """What the picture will show: the same part of the first scene as every method made it."""

    def __init__(self, path: Path, overwrite: bool = True) -> None:
        """Raises UsageError if `path` is none of FORMATS, OutputError unless a file may appear there."""
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"--figure makes {', '.join(FORMATS)}, not {path}")
        check_target(path, overwrite)
        self._path, self._overwrite = path, overwrite
        self._view: _View | None = None
        self._products: dict[str, Float32] = {}

    def add(self, scene: ReducedScene | FullScene, method: str, hrms: Float32) -> None:
        """Take up a product (bands, H, W), if it is the method's first."""
        self._view = view = self._view or _View.of(scene)
        if method not in self._products:
            self._products[method] = hrms[:, view.rows, view.cols].copy()

    def write(self, methods: Sequence[str]) -> Path:
        """Draw these methods, in this order. Raises OutputError."""
        assert self._view is not None
        partial = partial_beside(self._path)
        try:
            _draw(self._view, {name: self._products[name] for name in methods}).savefig(
                partial, format=self._path.suffix[1:].lower(), dpi=DPI
            )
            check_target(self._path, self._overwrite)  # again: drawing came after much else
            publish(partial, self._path)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
        return self._path


def _busiest(scene: ReducedScene | FullScene) -> tuple[slice, slice]:
    """The window of whole MS pixels with the fewest gaps and, among equals, the most contrast in the PAN."""
    ratio = scene.ratio
    sizes = [min(SHOWN // ratio * ratio, size) for size in scene.valid.shape]
    starts = [range(0, whole - size + 1, size) for whole, size in zip(scene.valid.shape, sizes, strict=True)]
    windows = [(slice(row, row + sizes[0]), slice(col, col + sizes[1])) for row in starts[0] for col in starts[1]]
    return max(windows, key=lambda window: (scene.valid[window].mean(), scene.pan[0][window].std()))


def _draw(view: _View, products: dict[str, Float32]) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(len(products), 2 if view.gt is None else 3))
    depth = 1 if view.gt is None else 2
    rows = 1 + depth * -(-len(products) // columns)
    size = INCHES * columns + 0.8, (INCHES + 0.2) * rows
    figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
    figure.suptitle(view.name, fontsize="x-large", fontweight="bold", fontfamily="serif", color=INK)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    shades = np.percentile((view.ms if view.gt is None else view.gt)[view.bands], STRETCH, axis=(1, 2))
    pan = view.pan[[0, 0, 0]]
    _show(axes[0, 0], "PAN", pan, np.percentile(pan, STRETCH, axis=(1, 2)), view.valid)
    _show(axes[0, 1], "MS", view.ms[view.bands], shades, view.valid)
    places = [(1 + depth * (index // columns), index % columns) for index in range(len(products))]
    for (row, col), (name, hrms) in zip(places, products.items(), strict=True):
        _show(axes[row, col], name, hrms[view.bands], shades, view.valid)
    if view.gt is not None:
        _show(axes[0, 2], "truth", view.gt[view.bands], shades, view.valid)
        errors = [np.where(view.valid, np.abs(hrms - view.gt).mean(axis=0), np.nan) for hrms in products.values()]
        top = float(np.nanpercentile(errors, TOP_ERROR))
        errors_as = colormaps["cividis_r"].with_extremes(bad=GAP)
        for (row, col), error in zip(places, errors, strict=True):
            drawn = axes[row + 1, col].imshow(error, cmap=errors_as, vmin=0, vmax=top, interpolation="nearest")
        bar = figure.colorbar(drawn, ax=axes[1:], shrink=0.5)
        bar.set_label("|error|, mean of the bands (DN)", color=QUIET)
        bar.ax.tick_params(colors=QUIET)
    return figure


def _show(axes: Axes, title: str, image: Float32, shades: npt.NDArray[np.floating], valid: Mask) -> None:
    """`image` (3, h, w) as red, green and blue; `shades` (2, 3) are black and white of each. Pixels are grey that have
    nothing `valid` (H, W) in them, on the PAN's grid or the MS's: what is there was made up from the border."""
    from matplotlib.colors import to_rgb

    dark, bright = shades[:, :, None, None]
    light = np.clip((image - dark) / np.where(bright > dark, bright - dark, 1), 0, 1)
    rows, cols = light.shape[1:]
    known = valid.reshape(rows, len(valid) // rows, cols, valid.shape[1] // cols).any(axis=(1, 3))
    light[:, ~known] = np.array(to_rgb(GAP))[:, None]
    axes.imshow(light.transpose(1, 2, 0), interpolation="nearest")
    axes.set_title(title, fontsize="small", fontweight="bold", color=INK)
