"""Scenes on nested grids: every value where it belongs, however the two files lie and however the scene is cut."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyproj
import pytest
from affine import Affine
from worlds import CORNER, UTM, World

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.interpolation import KERNELS
from pansharpen_cli.imaging.registration import Shift
from pansharpen_cli.imaging.tiling import Pixels, Reach, Span, Tile
from pansharpen_cli.inputs.canvas import ArrayCanvas, Canvas, SceneCanvas
from pansharpen_cli.inputs.coregistration import measure, parse, to_apply
from pansharpen_cli.inputs.scene import Scene

SMOOTH = {"cubic": 0.03, "bicubic": 2.0, "bilinear": 1.2, "lanczos": 1.1, "sinc": 0.6}
"""DN that a kernel may miss of a ground whose shortest wave is 40 MS pixels, its amplitude 400 DN."""

NESTED = {
    "ratio 2": World(ratio=2, ms_size=(48, 64)),
    "ratio 3": World(ratio=3, ms_size=(32, 43)),
    "ratio 4": World(),
    "ratio 5": World(ratio=5, ms_size=(20, 26)),
    "one pixel off": World(offset=(1, 1)),
    "whole pixels off": World(offset=(-3, 6)),
    "whole pixels off at ratio 3": World(ratio=3, offset=(4, -2)),
    "odd sizes": World(ratio=2, pan_size=(97, 101), ms_size=(47, 53), offset=(-1, 1)),
    "PAN inside MS": World(pan_size=(61, 75), ms_size=(31, 40), offset=(-21, -18)),
    "MS inside PAN": World(ms_size=(13, 15), offset=(27, 30)),
    "across the corner": World(offset=(53, -30)),
    "south-up PAN": World(gsd=(2.0, 2.0), ms_gsd=(8.0, -8.0), ms_corner=(CORNER[0] - 8, CORNER[1] + 180)),
    "south-up MS": World(ms_gsd=(8.0, 8.0), ms_corner=(CORNER[0] + 6, CORNER[1] - 190)),
    "both south-up": World(gsd=(2.0, 2.0), offset=(2, 3)),
    "mirrored MS": World(ms_gsd=(-8.0, -8.0), ms_corner=(CORNER[0] + 250, CORNER[1] + 4)),
}
MOVED = {
    "half a pixel": World(offset=(0.5, 0.5)),
    "Landsat": World(ratio=2, pan_size=(97, 98), ms_size=(49, 50), offset=(-1.5, -0.5)),
    "Landsat the other way": World(ratio=2, pan_size=(97, 98), ms_size=(60, 41), offset=(0.5, 1.5)),
    "half a pixel at ratio 3": World(ratio=3, ms_size=(32, 42), offset=(0.5, -1.5)),
    "some fraction": World(offset=(-3.3, 2.8)),
    "ratio 1.6": World(ratio=1.6, ms_size=(60, 80)),
    "ratio 2.5": World(ratio=2.5, ms_size=(38, 51), offset=(1.2, -0.7)),
    "ratio 3.4": World(ratio=3.4, ms_size=(28, 37)),
    "inexact pixels": World(
        ratio=2, gsd=(15.0004, -14.9994), ms_gsd=(29.9976, -30.0016), offset=(-0.446, 0.331), ms_size=(60, 61)
    ),
    "whole MS pixels of drift": World(ratio=2.08, pan_size=(106, 106), ms_size=(54, 54)),
    "fraction, south-up MS": World(ms_gsd=(8.0, 8.0), ms_corner=(CORNER[0] + 6.7, CORNER[1] - 190.3)),
}
REPROJECTED = {
    "degrees": World(
        crs=UTM, ms_crs="EPSG:4326", ms_corner=(-3.6612, 40.5506), ms_gsd=(8 / 84600, -8 / 111000), ms_size=(40, 50)
    ),
    "next zone": World(ms_crs="EPSG:32629", ms_corner=(952_110.0, 4_502_530.0), ms_size=(30, 40)),
}
WORLDS = NESTED | MOVED | REPROJECTED


@dataclass
class Truth:
    """What a canvas of a world must hold, found without it: from its product's grid and the world's own geometry."""

    world: World
    canvas: SceneCanvas

    def _coordinates(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ground (x, y) in truth of positions on the canvas."""
        transform, lie = self.canvas.grid.transform, self.world.lie
        row, col = np.meshgrid(rows - self.canvas.rows.start, cols - self.canvas.cols.start, indexing="ij")
        return (
            transform.c + transform.a * (col + 0.5 + lie[0]),
            transform.f + transform.e * (row + 0.5 + lie[1]),
        )

    @cached_property
    def nested(self) -> tuple[np.ndarray, np.ndarray]:
        """Ground (x, y) of the nested MS samples."""
        axes = self.canvas.rows, self.canvas.cols
        rows, cols = (np.arange(axis.size // axis.ratio) * axis.ratio + self.canvas.phase for axis in axes)
        return self._coordinates(rows, cols)

    @cached_property
    def pan_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Ground (x, y) of the PAN pixels."""
        return self._coordinates(np.arange(self.canvas.rows.size), np.arange(self.canvas.cols.size))

    def in_ms(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column edge coordinates in the MS file."""
        if self.world.ms_crs:
            x, y = pyproj.Transformer.from_crs(self.world.crs, self.world.ms_crs, always_xy=True).transform(x, y)
        (left, top), (step_x, step_y) = self.world.ms_sheet.corner, self.world.ms_sheet.gsd
        return (y - top) / step_y, (x - left) / step_x

    def on_ms(self, x: np.ndarray, y: np.ndarray, margin: float = 0) -> np.ndarray:
        """True `margin` MS pixels or more inside the MS."""
        (row, col), (height, width) = self.in_ms(x, y), self.world.ms_size
        return (row >= margin) & (row <= height - margin) & (col >= margin) & (col <= width - margin)

    def holds(self, ms_valid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """True on MS pixels that are `ms_valid` (h, w)."""
        places = zip(self.in_ms(x, y), ms_valid.shape, strict=True)
        row, col = (np.clip(np.floor(place).astype(int), 0, size - 1) for place, size in places)
        return ms_valid[row, col] & self.on_ms(x, y)

    @property
    def product_in_pan(self) -> tuple[slice, slice]:
        """The rows and columns of the PAN file that are put out."""
        transform, (height, width) = self.canvas.grid.transform, (self.canvas.grid.height, self.canvas.grid.width)
        col, row = (round(v) for v in ~self.world.pan_sheet.transform @ (transform.c, transform.f))
        return slice(row, row + height), slice(col, col + width)

    def ms(self) -> np.ndarray:
        return self.world.at(*self.nested)

    def doubtful(self) -> np.ndarray:
        """PAN pixels whose centre lies on the border of an MS pixel: they may belong to either."""
        return np.logical_or.reduce([np.abs(p - np.round(p)) < 1e-6 for p in self.in_ms(*self.pan_pixels)])


def whole(canvas: Canvas) -> Pixels:
    return canvas.read(Tile(*(Span(0, axis.size, 0, axis.size) for axis in (canvas.rows, canvas.cols))))


def product(canvas: Canvas) -> tuple[slice, slice]:
    """The part of the canvas that is put out."""
    return slice(canvas.rows.start, canvas.rows.stop), slice(canvas.cols.start, canvas.cols.stop)


def opened(world: World, folder: Path, **options) -> SceneCanvas:
    return SceneCanvas.of(Scene.open(*world.write(folder)), **options)


# ------------------------------------------------------------------ geometry


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("phase", ["area", "toolbox"])
def test_every_ms_value_is_where_it_belongs(name: str, phase: str, tmp_path: Path):
    world = WORLDS[name]
    ratio = round(world.ratio)
    canvas = opened(world, tmp_path, phase=None if phase == "area" else ratio / 2, resampling="cubic")
    truth, pixels = Truth(world, canvas), whole(canvas)
    away = np.abs(pixels.ms - truth.ms()).max(axis=0)
    inner = truth.on_ms(*truth.nested, margin=3)
    assert inner.sum() > 40
    assert away[inner].max() < (SMOOTH["cubic"] if canvas.interpolated else 1e-3)


@pytest.mark.parametrize("name", NESTED)
def test_nested_pixels_are_taken_as_they_are(name: str, tmp_path: Path):
    world = NESTED[name]
    canvas = opened(world, tmp_path)
    assert not canvas.interpolated
    truth, pixels = Truth(world, canvas), whole(canvas)
    away = np.abs(pixels.ms - truth.ms()).max(axis=0)
    assert away[truth.on_ms(*truth.nested)].max() < 1e-3


@pytest.mark.parametrize("name", MOVED | REPROJECTED)
def test_others_are_interpolated(name: str, tmp_path: Path):
    assert opened(WORLDS[name], tmp_path).interpolated


@pytest.mark.parametrize("kernel", SMOOTH)
def test_every_kernel_puts_it_there(kernel: str, tmp_path: Path):
    world = replace(MOVED["some fraction"], pan_size=(120, 120), ms_size=(36, 36))
    canvas = opened(world, tmp_path, resampling=kernel)
    truth = Truth(world, canvas)
    away = np.abs(whole(canvas).ms - truth.ms()).max(axis=0)
    assert away[truth.on_ms(*truth.nested, margin=7)].max() < SMOOTH[kernel]


@pytest.mark.parametrize("name", WORLDS)
def test_pan_values_and_grid(name: str, tmp_path: Path):
    world = WORLDS[name]
    canvas = opened(world, tmp_path)
    grid, pan = canvas.grid, world.pan_sheet
    rows, cols = Truth(world, canvas).product_in_pan
    assert grid.transform.almost_equals(pan.transform @ Affine.translation(cols.start, rows.start), 1e-7)
    assert min(rows.start, cols.start) >= 0
    assert rows.stop <= pan.size[0]
    assert cols.stop <= pan.size[1]
    found = whole(canvas).pan[:, *product(canvas)]
    np.testing.assert_array_equal(found, world.pan_image().astype(np.float32)[:, rows, cols])


@pytest.mark.parametrize("name", NESTED | MOVED)
def test_the_product_covers_the_pan_pixels_that_lie_on_the_ms(name: str, tmp_path: Path):
    world = WORLDS[name]
    canvas = opened(world, tmp_path)
    x, y = world.pan_sheet.centres()
    (row, col), (height, width) = Truth(world, canvas).in_ms(x, y), world.ms_size
    slack = 1e-5
    rows = np.flatnonzero((row[:, 0] >= -slack) & (row[:, 0] <= height + slack))
    cols = np.flatnonzero((col[0] >= -slack) & (col[0] <= width + slack))
    assert (canvas.grid.height, canvas.grid.width) == (len(rows), len(cols))
    assert canvas.grid.transform.almost_equals(world.pan_sheet.transform @ Affine.translation(cols[0], rows[0]), 1e-7)
    assert (canvas.rows.first + canvas.rows.start, canvas.cols.first + canvas.cols.start) == (rows[0], cols[0])


@pytest.mark.parametrize("name", WORLDS)
def test_pan_and_ms_see_the_same_ground(name: str, tmp_path: Path):
    """At phase ratio // 2 MS samples sit on PAN pixels, and this PAN is the mean of the bands, plus 17."""
    world = WORLDS[name]
    ratio = round(world.ratio)
    canvas = opened(world, tmp_path, phase=ratio // 2, resampling="cubic")
    truth, pixels = Truth(world, canvas), whole(canvas)
    pan = pixels.pan[0, ratio // 2 :: ratio, ratio // 2 :: ratio]
    inner = truth.on_ms(*truth.nested, margin=3) & pixels.valid[ratio // 2 :: ratio, ratio // 2 :: ratio]
    assert inner.sum() > 40
    assert np.abs(pixels.ms.mean(axis=0) + 17 - pan)[inner].max() < SMOOTH["cubic"]


@pytest.mark.parametrize("multiple_of", [1, 8, 12, 64])
def test_canvas_sizes(multiple_of: int, tmp_path: Path):
    canvas = opened(NESTED["odd sizes"], tmp_path, reach=Reach(multiple_of=multiple_of))
    for axis in (canvas.rows, canvas.cols):
        assert axis.size % multiple_of == axis.size % axis.ratio == 0
        assert 0 <= axis.start < axis.ratio
        assert axis.stop <= axis.size < axis.stop + np.lcm(multiple_of, axis.ratio)
    pixels = whole(canvas)
    assert np.isfinite(pixels.pan).all()
    assert np.isfinite(pixels.ms).all()
    assert not pixels.valid[canvas.rows.stop + canvas.rows.ratio :].any()


def test_crops_beyond_the_pan_can_be_read(tmp_path: Path):
    world = World(pan_size=(40, 72), ms_size=(10, 18))
    canvas = opened(world, tmp_path, reach=Reach(multiple_of=64))
    crops = list(canvas.crops(16, 10))
    assert all(np.isfinite(crop.pan).all() and np.isfinite(crop.ms).all() for crop in crops)


# ------------------------------------------------------------------ co-registration


@pytest.mark.parametrize("lie", [(1.0, -2.0), (-0.6, 0.3), (2.7, 3.2), (4.0, 8.0)])
@pytest.mark.parametrize("name", ["ratio 2", "ratio 3", "Landsat", "south-up MS", "both south-up", "degrees"])
def test_the_shift_restores_the_truth(name: str, lie: tuple[float, float], tmp_path: Path):
    world = replace(WORLDS[name], lie=lie)
    ratio = round(world.ratio)
    canvas = opened(world, tmp_path, phase=ratio // 2, shift=Displacement(*lie), resampling="cubic")
    truth, pixels = Truth(world, canvas), whole(canvas)
    inner = truth.on_ms(*truth.nested, margin=3)
    assert np.abs(pixels.ms - truth.ms()).max(axis=0)[inner].max() < SMOOTH["cubic"]
    inner &= pixels.valid[ratio // 2 :: ratio, ratio // 2 :: ratio]
    pan = pixels.pan[0, ratio // 2 :: ratio, ratio // 2 :: ratio]
    assert np.abs(pixels.ms.mean(axis=0) + 17 - pan)[inner].max() < SMOOTH["cubic"]


@pytest.mark.parametrize("lie", [(1.0, -2.0), (-2.6, 0.3), (-9.0, 14.0)])
@pytest.mark.parametrize("name", ["ratio 4", "half a pixel", "PAN inside MS", "MS inside PAN"])
def test_a_shifted_pan_has_data_where_the_ms_really_has(name: str, lie: tuple[float, float], tmp_path: Path):
    world = replace(WORLDS[name], lie=lie)
    canvas = opened(world, tmp_path, shift=Displacement(*lie))
    truth = Truth(world, canvas)
    expected = truth.on_ms(*truth.pan_pixels)
    certain = ~truth.doubtful()[product(canvas)]
    np.testing.assert_array_equal(whole(canvas).valid[product(canvas)][certain], expected[product(canvas)][certain])


@pytest.mark.parametrize("whole_pixels", [(4, -8), (1, 3)])
def test_whole_pixels_of_shift_need_no_interpolation(whole_pixels: tuple[float, float], tmp_path: Path):
    assert not opened(World(), tmp_path, shift=Displacement(*whole_pixels)).interpolated
    assert opened(World(), tmp_path, shift=Displacement(0.5, 0)).interpolated


class Textured(World):
    """Random ground with a power spectrum of 1 / f^2 up to nearly the MS Nyquist frequency, the PAN a mixture of the
    bands. It repeats after 160 MS pixels."""

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        waves = np.arange(-75, 76)  # on 160 MS pixels
        frequency = np.hypot(waves[:, None], waves)
        amplitudes = np.where((frequency > 0) & (frequency < 75), 1 / np.maximum(frequency, 1), 0)
        rng = np.random.default_rng(9)
        spectra = amplitudes * (rng.normal(size=(2, 151, 151)) + 1j * rng.normal(size=(2, 151, 151)))
        turn = 2j * np.pi * waves / (160 * self.ratio * abs(self.gsd[0]))
        along_x, along_y = (np.exp(turn * (c[:, None] - o)) for c, o in zip((x[0], y[:, 0]), CORNER, strict=True))
        both = (along_y @ spectra @ along_x.T).real
        return 1000 + 30 * np.stack([both[0], both[0] + 0.5 * both[1], 0.7 * both[1], both[1] - 0.4 * both[0]])


LIE = 2.3, -1.6


@pytest.fixture(scope="module")
def misplaced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    world = Textured(pan_size=(512, 560), ms_size=(130, 144), offset=(-3, -5), lie=LIE, bands=4)
    return world.write(tmp_path_factory.mktemp("misplaced"))


def test_the_measured_shift_is_the_true_one(misplaced: tuple[Path, Path]):
    with Scene.open(*misplaced) as scene:
        found = measure(SceneCanvas.of(scene))
        assert (found.dx, found.dy) == pytest.approx(LIE, abs=0.1)
        assert found.confidence > 0.8
        assert to_apply("auto", found) == Displacement(found.dx, found.dy)
        rest = measure(SceneCanvas.of(scene, shift=to_apply("auto", found)))
        assert rest.length < 0.1
        assert not to_apply("auto", rest)


@pytest.mark.parametrize(
    ("choice", "expected"), [("off", (0, 0)), ("report", (0, 0)), ("auto", (1.5, -2)), ((7.0, 8.0), (7, 8))]
)
def test_when_a_shift_is_applied(choice, expected: tuple[float, float]):
    assert to_apply(choice, Shift(1.5, -2.0, 0.9, 0.1, 4)) == Displacement(*expected)


@pytest.mark.parametrize(
    "shift",
    [
        Shift(1.5, -2.0, 0.4, 0.1, 4), Shift(0.06, -0.06, 0.99, 0.02, 4), Shift(0.3, -0.2, 0.8, 0.4, 4),
        Shift(0.1, -0.1, 0.99, 0.0, 1),
        Shift(0, 0, 0, 0, 0),
    ],
)  # fmt: skip
def test_when_it_is_not(shift: Shift):
    assert not to_apply("auto", shift)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("off", "off"),
        ("report", "report"),
        ("auto", "auto"),
        ("1,2", (1, 2)),
        ("-1.5,+0.25", (-1.5, 0.25)),
        ("3.,0", (3, 0)),
        (".5,-.5", (0.5, -0.5)),
    ],
)
def test_coregister_option(text: str, choice):
    assert parse(text) == choice


@pytest.mark.parametrize("text", ["", "on", "1", "1,2,3", "1;2", "a,b", "nan,1", "inf,1", "--1,2", "1,,2", "auto "])
def test_coregister_option_refuses(text: str):
    with pytest.raises(UsageError, match="--coregister"):
        parse(text)


# ------------------------------------------------------------------ no data

HOLED = {
    "as it is": NESTED["whole pixels off"],
    "half a pixel": MOVED["half a pixel"],
    "Landsat": MOVED["Landsat"],
    "ratio 5": NESTED["ratio 5"],
    "south-up MS": MOVED["fraction, south-up MS"],
    "every fraction": World(ratio=4.15, pan_size=(128, 140), ms_size=(33, 36)),
    "degrees": REPROJECTED["degrees"],
}


def holes(shape: tuple[int, int], seed: int) -> np.ndarray:
    """True where data is: a slanted edge, a hole, lone pixels without data and lone pixels with data."""
    rows, cols = np.indices(shape) / np.array(shape)[:, None, None]
    valid = (cols + 0.4 * rows < 1.1) & ~((abs(rows - 0.5) < 0.12) & (abs(cols - 0.4 - 0.1 * seed) < 0.1))
    scattered = (rows > 0.55) & (cols < 0.6)
    return valid & (np.random.default_rng(seed).random(shape) > np.where(scattered, 0.6, 0.01))


@dataclass
class Holed:
    """A world with gaps in both files, in different places."""

    world: World
    flat: bool = False

    @cached_property
    def pan_valid(self) -> np.ndarray:
        return holes(self.world.pan_size, 1)

    @cached_property
    def ms_valid(self) -> np.ndarray:
        return holes(self.world.ms_size, 2)

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        pan, ms = self.world.pan_image(), self.world.ms_image()
        if self.flat:
            pan, ms = np.full_like(pan, 500), np.full_like(ms, 700)
        return np.where(self.pan_valid, pan, -7), np.where(self.ms_valid, ms, -7)

    def open(self, folder: Path, **options) -> SceneCanvas:
        return SceneCanvas.of(Scene.open(*replace(self.world, nodata=-7).write(folder, *self.images)), **options)


@pytest.mark.parametrize("name", HOLED)
def test_valid_is_where_both_have_data(name: str, tmp_path: Path):
    holed = Holed(HOLED[name])
    canvas = holed.open(tmp_path)
    truth = Truth(holed.world, canvas)
    expected = truth.holds(holed.ms_valid, *truth.pan_pixels)[product(canvas)] & holed.pan_valid[truth.product_in_pan]
    certain = ~truth.doubtful()[product(canvas)]
    assert 0.4 < expected.mean() < 0.95
    np.testing.assert_array_equal(whole(canvas).valid[product(canvas)][certain], expected[certain])


@pytest.mark.parametrize("name", HOLED)
@pytest.mark.parametrize("reach", [Reach(), Reach(13), Reach(5, 16, 8)])
def test_tiled_equals_whole(name: str, reach: Reach, tmp_path: Path):
    canvas = Holed(HOLED[name]).open(tmp_path, reach=reach)
    expected, ratio = whole(canvas), canvas.ratio
    tiles = canvas.tiles(23, reach)
    assert len(tiles) > 8
    for tile in tiles:
        pixels = canvas.read(tile)
        rows, cols = tile.read
        coarse = slice(rows.start // ratio, rows.stop // ratio), slice(cols.start // ratio, cols.stop // ratio)
        np.testing.assert_array_equal(pixels.pan, expected.pan[:, rows, cols])
        np.testing.assert_array_equal(pixels.ms, expected.ms[:, *coarse])
        np.testing.assert_array_equal(pixels.valid, expected.valid[rows, cols])


@pytest.mark.parametrize("resampling", KERNELS)
@pytest.mark.parametrize("name", HOLED)
def test_gaps_in_a_flat_world_cannot_be_seen(name: str, resampling: str, tmp_path: Path):
    pixels = whole(Holed(HOLED[name], flat=True).open(tmp_path, resampling=resampling))
    np.testing.assert_allclose(pixels.pan, 500, rtol=1e-5)
    np.testing.assert_allclose(pixels.ms, 700, rtol=1e-5)


@pytest.mark.parametrize("name", ["every fraction", "degrees"])
@pytest.mark.parametrize("kernel", ["cubic", "sinc"])
def test_values_beside_gaps_stay_in_the_range_of_the_data(kernel: str, name: str, tmp_path: Path):
    holed = Holed(HOLED[name])
    low, high = (f(holed.world.ms_image()) for f in (np.min, np.max))
    ms = whole(holed.open(tmp_path, resampling=kernel)).ms
    assert ms.min() > low - 0.5 * (high - low)
    assert ms.max() < high + 0.5 * (high - low)


def test_valid_pixels_keep_their_values(tmp_path: Path):
    holed = Holed(HOLED["as it is"])
    canvas = holed.open(tmp_path)
    assert not canvas.interpolated
    pixels, truth = whole(canvas), Truth(holed.world, canvas)
    every = pixels.ms_valid
    assert every.sum() > 100
    assert np.abs(pixels.ms - truth.ms()).max(axis=0)[every].max() < 1e-3
    valid, pan = holed.pan_valid[truth.product_in_pan], pixels.pan[0][product(canvas)]
    np.testing.assert_array_equal(pan[valid], holed.images[0][0].astype(np.float32)[truth.product_in_pan][valid])


def test_moments_ignore_gaps(tmp_path: Path):
    holed = Holed(World(nodata=-7))
    moments = holed.open(tmp_path).moments
    pan, ms = holed.images
    known = holed.ms_valid & holed.pan_valid[::4, ::4]
    samples = np.concatenate([ms, pan[:, ::4, ::4]])[:, known]
    np.testing.assert_allclose(moments.mean, samples.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(moments.std, samples.std(axis=1), rtol=1e-6)
    np.testing.assert_allclose(moments.high, np.percentile(samples, 99.9, axis=1), rtol=1e-6)


def test_data_between_the_windows_that_moments_are_taken_from():
    pan, ms = np.zeros((1, 4096, 4096), np.float32), np.zeros((3, 2048, 2048), np.float32)
    inside = np.zeros((4096, 4096), bool)
    inside[280:540, 280:540] = True
    random = np.random.default_rng(0)
    pan[:, inside], ms[:, inside[::2, ::2]] = random.random((1, 260**2)), random.random((3, 130**2))
    moments = ArrayCanvas.of(pan, ms, inside).moments
    samples = np.concatenate([ms, pan[:, ::2, ::2]], dtype=float)[:, inside[::2, ::2]]
    np.testing.assert_allclose(moments.mean, samples.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(moments.high, np.percentile(samples, 99.9, axis=1), rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 128), (96, 1), (1, 1)])
def test_a_thin_pan_between_the_first_pixels_of_the_ms_has_moments(size: tuple[int, int], tmp_path: Path):
    world = World(pan_size=size, ms_size=(26, 34), offset=(-3, -2))
    with Scene.open(*world.write(tmp_path)) as scene:
        moments = SceneCanvas.of(scene).moments
    assert moments.mean[-1] == pytest.approx(world.pan_image().mean(), rel=1e-6)
    assert moments.mean[:-1] == pytest.approx(world.at(*world.pan_sheet.centres()).mean(axis=(1, 2)), rel=0.02)


def test_no_common_data_is_refused(tmp_path: Path):
    world = World(nodata=0)
    pan, ms = world.write(tmp_path, ms=np.zeros((3, 24, 32)))
    with Scene.open(pan, ms) as scene, pytest.raises(SceneError, match="share no pixel") as caught:
        whole(SceneCanvas.of(scene))
    assert str(ms) in str(caught.value)


def test_arrays_make_the_same_canvas(tmp_path: Path):
    holed = Holed(World())
    reach = Reach(8, 4, 16)
    files = holed.open(tmp_path, reach=reach)
    valid = holed.pan_valid & holed.ms_valid.repeat(4, axis=0).repeat(4, axis=1)
    pan, ms = (image.astype(np.float32) for image in holed.images)
    arrays = ArrayCanvas.of(pan, ms, valid, reach)
    assert arrays.tiles(37, reach) == files.tiles(37, reach)
    for tile in files.tiles(37, reach):
        one, other = files.read(tile), arrays.read(tile)
        np.testing.assert_array_equal(one.valid, other.valid)
        np.testing.assert_array_equal(one.pan[:, one.valid], other.pan[:, one.valid])
        np.testing.assert_array_equal(one.ms[:, one.ms_valid], other.ms[:, one.ms_valid])


def test_arrays_without_gaps_make_the_very_same_canvas(tmp_path: Path):
    world = World(pan_size=(92, 100), ms_size=(23, 25))
    reach = Reach(8, 4, 16)
    files = opened(world, tmp_path, reach=reach)
    arrays = ArrayCanvas.of(world.pan_image().astype(np.float32), world.ms_image().astype(np.float32), reach=reach)
    one, other = whole(files), whole(arrays)
    np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_array_equal(one.pan, other.pan)
    inside = slice(0, 23), slice(0, 25)
    np.testing.assert_array_equal(one.ms[:, *inside], other.ms[:, *inside])
    np.testing.assert_allclose(files.moments.mean, arrays.moments.mean, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 96, 120), (1, 97, 128), (2, 96, 128)])
def test_arrays_that_do_not_nest_are_refused(shape: tuple[int, ...]):
    with pytest.raises(SceneError, match="does not nest"):
        ArrayCanvas.of(np.zeros(shape, np.float32), np.zeros((3, 24, 32), np.float32))


def test_what_arrays_hold_in_gaps_does_not_matter():
    rng = np.random.default_rng(6)
    pan, ms = rng.uniform(1, 9, (1, 32, 32)).astype(np.float32), rng.uniform(1, 9, (2, 8, 8)).astype(np.float32)
    valid = np.ones((32, 32), bool)
    valid[8:16, 12:24] = False
    canvases = []
    for gap in (0, np.nan):
        dirty = np.where(valid, pan, gap), np.where(valid[::4, ::4], ms, gap)
        canvases.append(whole(ArrayCanvas.of(*(image.astype(np.float32) for image in dirty), valid)))
    np.testing.assert_array_equal(canvases[1].pan, canvases[0].pan)
    np.testing.assert_array_equal(canvases[1].ms, canvases[0].ms)


# ------------------------------------------------------------------ real scenes

REAL = {
    "geoeye1_fields_w": (4, False),
    "ikonos_mixed_w": (4, False),
    "l8_madrid": (2, True),
    "l8_momotombo": (2, True),
    "l8_pamplona_w": (2, True),
    "l8_plain_a": (2, True),
    "l8_plain_b": (2, True),
    "pleiades_arena": (4, False),
    "tiny_l7": (2, True),
    "tiny_l8": (2, True),
    "wv2_park": (4, False),
    "wv2_park_misreg": (4, False),
    "wv2_rotterdam_1": (4, False),
    "wv2_rotterdam_2": (4, False),
    "wv2_urban_w": (4, False),
    "wv3_geo_n": (4, False),
    "l7/01": (2, False),
    "l7/39": (2, False),
}


def test_all_real_scenes_are_listed(data: Path):
    folders = {path.parent.name for path in data.glob("*/pan.tif")}
    assert folders == {name for name in REAL if "/" not in name}


@pytest.mark.parametrize("name", REAL)
def test_a_real_scene_is_read(name: str, data: Path):
    with Scene.open(data / name / "pan.tif", data / name / "ms.tif") as scene:
        canvas = SceneCanvas.of(scene)
        assert (canvas.ratio, canvas.interpolated) == REAL[name]
        for pixels in canvas.crops(128, 2):
            assert np.isfinite(pixels.pan).all()
            assert np.isfinite(pixels.ms).all()
            assert pixels.pan.shape[1:] == pixels.valid.shape == tuple(canvas.ratio * n for n in pixels.ms.shape[1:])
        assert (canvas.moments.std > 0).all()
