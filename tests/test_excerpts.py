"""Of scenes that are too large to be held, excerpts are: every pixel with its own MS, and the same judgement."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World

from pansharpen_cli.classical import METHODS
from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.assessment import camera, sharpen
from pansharpen_cli.evaluation.excerpts import EXCERPTS, LOOKS, MARGIN, held
from pansharpen_cli.evaluation.reduced import load, load_full
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.inputs.canvas import ArrayCanvas
from pansharpen_cli.metrics.reduced_resolution import ergas

BORDER = 24
"""PAN pixels at reduced resolution that the MTF's filter reaches, at least."""


def numbered(height, width, ratio):
    """A canvas whose PAN pixels, and MS pixels, are called by their numbers."""
    rows, cols = height // ratio, width // ratio
    pan = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    return ArrayCanvas.of(pan, np.arange(rows * cols, dtype=np.float32).reshape(1, rows, cols))


@given(st.integers(60, 400), st.integers(60, 400), st.sampled_from([2, 3, 4]), st.integers(3000, 40000))
def test_excerpts_are_parts_of_the_scene(rows, cols, ratio, most):
    height, width, grain = rows * ratio, cols * ratio, ratio**2
    pixels = held(numbered(height, width, ratio), most, grain)
    where = pixels.pan[0].astype(int)
    y, x = where // width, where % width
    assert np.array_equal(pixels.ms[0], (y // ratio * (width // ratio) + x // ratio)[::ratio, ::ratio])
    assert where.size <= max(most, EXCERPTS * grain**2)
    assert len(np.unique(where)) == where.size
    down, across = (np.flatnonzero(np.diff(axis) != 1) + 1 for axis in (y[:, 0], x[0]))
    if height * width > most:
        assert (len(down) + 1) * (len(across) + 1) <= EXCERPTS
        assert not y[0, 0] % grain
        assert not x[0, 0] % grain
    near = MARGIN * grain
    assert not any(pixels.valid[max(0, row - near) : row + near].any() for row in down)
    assert not any(pixels.valid[:, max(0, col - near) : col + near].any() for col in across)


@pytest.mark.parametrize(("height", "width", "shape"), [(1200, 1200, (3, 3)), (4000, 400, (9, 1)), (200, 6000, (1, 9))])
def test_excerpts_are_where_the_scene_is(height, width, shape):
    where = held(numbered(height, width, 2), 90_000, 4).pan[0].astype(int)
    for places, size, count in ((where[:, 0] // width, height, shape[0]), (where[0] % width, width, shape[1])):
        assert np.count_nonzero(np.diff(places) != 1) == count - 1
        assert places.min() + places.max() == pytest.approx(size - 1, abs=4)


@settings(max_examples=10, deadline=None)
@given(st.integers(60, 200), st.integers(60, 200), st.floats(0, 0.75), st.floats(0, 0.75), st.integers(3000, 20000))
def test_excerpts_of_a_scene_with_gaps_are_apart(rows, cols, above, left, most):
    """Wherever they are moved to: every pixel once, and none from beyond the scene."""
    canvas = numbered(4 * rows, 4 * cols, 4)
    canvas.valid[: int(above * 4 * rows), : int(left * 4 * cols)] = False
    pixels = held(canvas, most, 16)
    where = pixels.pan[0][pixels.valid].astype(int)
    assert len(np.unique(where)) == where.size
    assert canvas.valid.flat[where].all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 300), (300, 300)])
def test_excerpts_are_where_data_is(corner):
    """A ninth of the scene holds a square, at its border, that is twice as wide as an excerpt."""
    canvas = numbered(900, 900, 2)
    canvas.valid[:] = False
    square = tuple(slice(start, start + 100) for start in corner)
    canvas.valid[square] = True
    pixels = held(canvas, 9 * 50**2, 2)
    near = 2 * MARGIN
    assert np.count_nonzero(pixels.valid) >= (50 - 2 * near) ** 2
    assert set(pixels.pan[0][pixels.valid]) <= set(canvas.pan[0][square].ravel())


def test_excerpts_with_gaps_move_no_farther_than_they_must():
    """A stripe without data runs down the middle part."""
    canvas = numbered(900, 900, 2)
    canvas.valid[300:600, 440:450] = False
    pixels, near = held(canvas, 9 * 50**2, 2), 2 * MARGIN
    central = (slice(50 + near, 100 - near),) * 2
    assert pixels.valid[central].all()
    y, x = np.divmod(pixels.pan[0][central].astype(int), 900)
    assert y.mean() == pytest.approx(450, abs=2)
    assert x.mean() == pytest.approx(450, abs=50)


def test_looking_for_data_costs_as_much_in_any_scene():
    """Only where the middle has gaps, and then so many windows of one MS pixel."""
    canvas = numbered(1800, 1800, 2)
    canvas.valid[:] = False
    canvas.valid[600:] = True
    seen = []
    raw = ArrayCanvas.raw

    def counted(self, rows, cols):
        seen.append((rows.stop - rows.start, cols.stop - cols.start))
        return raw(self, rows, cols)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArrayCanvas, "raw", counted)
        held(canvas, 90_000, 4)
    assert seen.count((2, 2)) == 3 * LOOKS**2


def test_a_small_scene_is_whole():
    assert held(numbered(120, 200, 4), 24_000, 16).valid.all()
    assert held(numbered(120, 200, 4), None, 16).pan.shape == (1, 120, 200)
    assert held(numbered(120, 200, 4), 23_999, 16).pan.shape != (1, 120, 200)


def test_they_judge_as_the_whole_does(data, caplog):
    """A real scene: by a third of it methods are found as good as by all, and it is said that it was a third."""
    caplog.set_level(logging.INFO, "pansharpen_cli")
    files = data / "l8_madrid" / "pan.tif", data / "l8_madrid" / "ms.tif"
    scenes = [load(*files, sensor=SENSORS["generic"], most=most) for most in (None, 150_000)]
    assert "of the 2 MPix" in caplog.text
    assert scenes[0].grid is not None
    assert scenes[1].grid is None
    found = {}
    for name in ("exp", "gsa", "mtf-glp-hpm"):
        products = [sharpen(scene, METHODS[name](camera(scene, SENSORS["generic"])), None) for scene in scenes]
        found[name] = [ergas(s.gt, p, s.ratio, s.valid) for s, p in zip(scenes, products, strict=True)]
    whole, parts = np.array(list(found.values())).T
    assert parts == pytest.approx(whole, rel=0.15)
    assert parts / parts[0] == pytest.approx(whole / whole[0], rel=0.05)


def test_what_is_valid_in_them_has_seen_no_joint(data):
    """Truth and degraded PAN are, to the last bit, those of the whole scene, but for the outer border, at which an
    excerpt is mirrored as any scene is."""
    files = data / "l8_madrid" / "pan.tif", data / "l8_madrid" / "ms.tif"
    whole, parts = (load(*files, sensor=SENSORS["generic"], most=most) for most in (None, 150_000))
    pixels = np.concatenate([whole.pan, whole.gt])[:, whole.valid]
    known = {column.tobytes() for column in pixels.T}
    inside = np.zeros(parts.valid.shape, bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    seen = np.concatenate([parts.pan, parts.gt])[:, parts.valid & inside].T
    assert len(seen) > 30_000
    assert all(column.tobytes() in known for column in seen)


def test_at_full_resolution(data):
    files = data / "l8_madrid" / "pan.tif", data / "l8_madrid" / "ms.tif"
    whole, parts = (load_full(*files, most=most) for most in (None, 400_000))
    assert parts.grid is None
    assert 200_000 < parts.valid.sum() < parts.valid.size <= 400_000
    known = set(whole.pan[0, whole.valid].tolist())
    assert set(parts.pan[0, parts.valid].tolist()) <= known


def test_a_scene_with_data_beside_the_middles_is_judged(tmp_path):
    world = World(bands=3, ratio=2, pan_size=(1800, 1800), ms_size=(900, 900), nodata=0)
    pan = world.pan_image()
    pan[:, :, 200:] = 0
    scene = load(*world.write(tmp_path, pan=pan), sensor=SENSORS["generic"], coregister="off", most=80_000)
    assert scene.valid.sum() > 8_000


def test_excerpts_without_data_are_told(tmp_path):
    """All of it lies between them, in a stripe too narrow to be judged by."""
    world = World(bands=3, ratio=2, pan_size=(600, 600), ms_size=(300, 300), nodata=0)
    pan = world.pan_image()
    pan[:, :192] = pan[:, 208:] = 0
    files = world.write(tmp_path, pan=pan)
    with pytest.raises(SceneError, match=r"none of the excerpts of .*pan.tif holds data"):
        load(*files, sensor=SENSORS["generic"], coregister="off", most=20_000)
