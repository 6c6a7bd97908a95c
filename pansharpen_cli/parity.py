"""Is it the same model elsewhere? Torch on the CPU against another backend or device, on a real scene, in DN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.errors import ModelError, UsageError
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.tiling import Reach, Tile
from pansharpen_cli.inputs.canvas import ArrayCanvas, Canvas, SceneCanvas
from pansharpen_cli.inputs.scene import RATIO_TOLERANCE, Scene
from pansharpen_cli.method import BackendName, Means, Method, choose
from pansharpen_cli.zoo import Model

Float32 = npt.NDArray[np.float32]

TILE = 384
"""PAN pixels a side: several tiles even of a small scene."""
MOST_TILES = 9
EXAMPLE = Path(__file__).parents[1] / "examples" / "l8_madrid"
"""The scene that came with the program; a checkout has it, an installed package does not."""


@dataclass(frozen=True)
class Difference:
    """Of one band, in DN: the largest and the mean, and which part of its pixels is another whole number."""

    band: str
    largest: float
    mean: float
    rounded: float


@dataclass(frozen=True)
class Parity:
    """What torch on the CPU, and another `backend` and `device`, make of the same tiles."""

    model: str
    scene: str
    backend: str
    device: str
    tiles: int
    bands: tuple[Difference, ...]

    @property
    def largest(self) -> float:
        return max(band.largest for band in self.bands)

    def check(self, tolerance: float) -> None:
        """Raises ModelError if any pixel differs by more than `tolerance` DN."""
        if not self.largest <= tolerance:  # nor may it be NaN
            raise ModelError(
                f"{self.model} by {self.backend} on {self.device} differs from torch on the cpu by up to "
                f"{self.largest:.3g} DN, and {tolerance:g} are allowed; export it again, or allow more with --tolerance"
            )

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "bands": [asdict(band) for band in self.bands], "largest": self.largest}

    def as_text(self) -> str:
        """A table for people."""
        head = (
            f"{self.model}: {self.backend} on {self.device} against torch on the cpu ({self.tiles} tiles, {self.scene})"
        )
        width = max(len("band"), *(len(band.band) for band in self.bands))
        rows = [f"{'band':{width}}  max DN    mean DN   other when rounded"]
        rows += [f"{b.band:{width}}  {b.largest:<8.2g}  {b.mean:<8.2g}  {b.rounded:.4%}" for b in self.bands]
        return "\n".join([head, *rows])


def verify(
    model: Model, scene: tuple[str, str] | None = None, *, exported: Path | None = None,
    backend: BackendName = "onnx", device: str = "cpu",
) -> Parity:  # fmt: skip
    """Compare a model's weights in torch on the CPU with the same model by `backend` on `device`, on tiles of a `scene`
    (PAN, MS), or of the scene that came with the program. Each of the two observes the scene by itself.

    `exported`: the ONNX file; default: the one in the model's folder, or one made for this.
    Raises PansharpenError if there is nothing to compare, or if the scene does not fit.
    """
    other = model if exported is None else replace(model, lone=exported)
    with _given(model, *scene) if scene else _example(model) as (method, names, canvas, told):
        tiles = _spread(canvas.tiles(TILE, model.spec.reach))
        subject = _Subject(tuple(names), method.ratio)
        ours, _ = _in_dn(replace(method, model=model), subject, canvas, tiles, "cpu", "torch")
        theirs, means = _in_dn(replace(method, model=other), subject, canvas, tiles, device, backend)
    bands = tuple(map(_difference, names, ours, theirs))
    return Parity(model.name, told, means.backend, means.device, len(tiles), bands)


@dataclass(frozen=True)
class _Subject:
    """What a method asks of a scene."""

    band_names: tuple[str, ...]
    ratio: int

    @property
    def exact_ratio(self) -> float:
        return self.ratio


Setting = tuple[Method, list[str], Canvas, str]
"""The method, the scene's bands, its pixels, and what to call it."""


@contextmanager
def _given(model: Model, pan: str, ms: str) -> Iterator[Setting]:
    with Scene.open(pan, ms) as scene:
        chosen = choose(str(model.lone or model.folder), scene)
        reach = model.spec.reach
        canvas = SceneCanvas.of(scene, ratio=chosen.ratio, phase=chosen.phase, reach=reach)
        yield replace(chosen, model=model), list(scene.band_names), canvas, str(pan)


@contextmanager
def _example(model: Model) -> Iterator[Setting]:
    """The scene that came with the program; where a model does not fit it, made to fit: the MS averaged to the model's
    ratio, the bands repeated."""
    if not EXAMPLE.is_dir():
        raise UsageError("there is no example scene here to compare on; give --scene PAN MS")
    paths = str(EXAMPLE / "pan.tif"), str(EXAMPLE / "ms.tif")
    with Scene.open(*paths) as scene:
        fits = model.spec.misfit(len(scene.band_names), scene.exact_ratio, RATIO_TOLERANCE) is None
        pan, ms = _whole(scene)
        names = list(scene.band_names)
    if fits:
        with _given(model, *paths) as setting:
            yield setting
        return
    names = model.spec.band_names or names
    pan, ms = _fitted(pan, ms, len(names), model.spec.ratio)
    method = Method(model.name, "as asked", model.spec.ratio, model.spec.phase, tuple(range(len(names))), model)
    yield method, names, ArrayCanvas.of(pan, ms, reach=model.spec.reach), f"{EXAMPLE.name}, made to fit"


def _whole(scene: Scene) -> tuple[Float32, Float32]:
    """PAN (1, ratio h, ratio w) and MS (bands, h, w) of a small scene."""
    canvas = SceneCanvas.of(scene)
    (tile,) = canvas.tiles(max(canvas.rows.size, canvas.cols.size), Reach())
    pixels = canvas.read(tile)
    return pixels.pan, pixels.ms


def _fitted(pan: Float32, ms: Float32, bands: int, ratio: int) -> tuple[Float32, Float32]:
    """The same scene at another ratio, of so many bands."""
    have = pan.shape[-1] // ms.shape[-1]
    fine = ms.repeat(have, axis=1).repeat(have, axis=2)
    rows, cols = (size // ratio for size in pan.shape[1:])
    blocks = fine[:, : rows * ratio, : cols * ratio].reshape(len(ms), rows, ratio, cols, ratio)
    coarse = blocks.mean(axis=(2, 4), dtype=np.float32)
    return pan[:, : rows * ratio, : cols * ratio], coarse[np.arange(bands) % len(ms)]


def _spread(tiles: list[Tile]) -> list[Tile]:
    """At most MOST_TILES of them, from the first to the last."""
    places = np.linspace(0, len(tiles) - 1, min(len(tiles), MOST_TILES)).round().astype(int)
    return [tiles[place] for place in places]


def _in_dn(
    method: Method, subject: _Subject, canvas: Canvas, tiles: list[Tile], device: str, name: BackendName
) -> tuple[Float32, Means]:
    """Of each band all pixels of the tiles, (bands, P), and what made them."""
    backend, means = method.backend(subject, SENSORS["generic"], device, 0, name)
    sharpener = Sharpener.observing(backend, method.radiometry, canvas, method.order, TILE)
    cores = [hrms.reshape(len(hrms), -1) for _, hrms in sharpener.all(canvas, tiles)]
    return np.concatenate(cores, axis=1), means


def _difference(band: str, ours: Float32, theirs: Float32) -> Difference:
    off = np.abs(theirs - ours)
    return Difference(band, float(off.max()), float(off.mean()), float((np.rint(theirs) != np.rint(ours)).mean()))
