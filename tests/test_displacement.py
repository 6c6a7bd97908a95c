"""A PAN that lies elsewhere by another amount at every place: when windows tell so, and what a scene is then put on."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from test_canvas import Textured
from worlds import CORNER, World, save

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.evaluation.quality import judge
from pansharpen_cli.evaluation.reduced import from_truth
from pansharpen_cli.imaging.displacement import IN_PLACE, Displacement, fitted_field
from pansharpen_cli.imaging.mtf import find_sensor
from pansharpen_cli.imaging.polynomial import Polynomial
from pansharpen_cli.imaging.registration import WindowShift, combine
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.coregistration import as_tags, from_tags, given, measure, to_apply, windows
from pansharpen_cli.inputs.part import Window
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.report.gather import gather
from pansharpen_cli.report.words import alignment_sentence
from pansharpen_cli.resume import resume


def over(rows, cols):
    """x and y (rows * cols,) of windows all over a scene."""
    x, y = np.meshgrid(1000.0 * np.arange(cols), 1000.0 * np.arange(rows))
    return x.ravel(), y.ravel()


def plane(x, y):
    return np.stack([0.3 + 2 * x / np.ptp(x) - y / np.ptp(y), 1.5 * y / np.ptp(y) - 0.8], axis=-1)


def bowl(x, y):
    return plane(x, y) + np.stack([4 * (x / np.ptp(x) - 0.5) ** 2, 3 * x * y / np.ptp(x) / np.ptp(y)], axis=-1)


@pytest.mark.parametrize(
    ("rows", "cols", "true", "degree"), [(3, 4, plane, 1), (5, 3, plane, 1), (5, 5, plane, 1), (5, 5, bowl, 2)]
)
def test_a_field_is_found_whatever_some_windows_say(rows, cols, true, degree):
    x, y = over(rows, cols)
    random = np.random.default_rng(3)
    shifts = true(x, y) + random.normal(0, 0.05, (len(x), 2))
    shifts[[1, 7]] += [(5, -3), (-2, 4)]  # a ship, a cloud
    found = fitted_field(x, y, shifts, random.uniform(0.3, 1, len(x)))
    assert found.degree == degree
    assert np.abs(np.stack(found(x, y), axis=-1) - true(x, y)).max() < 0.15


def test_windows_far_from_a_field_have_no_say():
    x, y = over(5, 5)
    random = np.random.default_rng(6)
    shifts, strength = plane(x, y) + random.normal(0, 0.1, (25, 2)), random.uniform(0.3, 1, 25)
    far = [6, 8, 12, 16, 18]
    others = np.setdiff1d(np.arange(25), far)
    without = fitted_field(x[others], y[others], shifts[others], strength[others])
    shifts[far] += (3, -3)
    assert np.allclose(fitted_field(x, y, shifts, strength)(x, y), without(x, y), atol=1e-3)


def test_a_field_goes_by_distances_not_by_their_squares():
    """Some windows, within what may be scatter, all say the same wrong thing."""
    x, y = over(5, 5)
    shifts = plane(x, y)
    shifts[[1, 7, 9, 13, 15, 22]] += (0.5, 0.5)
    found = fitted_field(x, y, shifts, np.ones(25))
    assert np.abs(np.stack(found(x, y), axis=-1) - plane(x, y)).max() < 0.03


@pytest.mark.parametrize(("rows", "cols"), [(3, 4), (5, 3), (5, 5)])
@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.3])
def test_scatter_is_no_field(rows, cols, scatter):
    x, y = over(rows, cols)
    random = np.random.default_rng(4)
    fields = [
        fitted_field(x, y, random.normal(n % 2, scatter, (len(x), 2)), random.uniform(0.3, 1, len(x)))
        for n in range(60)
    ]
    assert sum(field is not None for field in fields) <= 3


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (2, 5), (5, 2), (1, 5)])
def test_few_windows_tell_no_field(rows, cols):
    x, y = over(rows, cols)
    assert fitted_field(x, y, 2 * np.stack([x, y], axis=-1) / 5000, np.ones(len(x))) is None


def test_windows_along_a_line_tell_no_field():
    x = 1000.0 * np.arange(20)
    assert fitted_field(x, x, np.stack([x, -x], axis=-1) / 5000, np.ones(20)) is None


def test_what_windows_tell_together():
    """The shift is that of the middle; scatter is what is left of them beside the field."""
    x, y = over(5, 5)
    random = np.random.default_rng(5)
    told = plane(x, y) + random.normal(0, 0.04, (25, 2))
    likely = [WindowShift(dx, dy, correlation=0.9, distinctness=3) for dx, dy in told]
    likely[4] = None
    shift = combine(likely, list(zip(x, y, strict=True)))
    assert (shift.dx, shift.dy) == pytest.approx(plane(np.array([*x, 2000]), np.array([*y, 2000]))[-1], abs=0.03)
    assert shift.windows == 24
    assert 0.02 < shift.spread < 0.06
    assert shift.confidence > 0.98
    of_one = combine(likely)
    assert of_one.field is None
    assert of_one.confidence < 0.5


FIELD = Displacement.of(Polynomial((60.0, 50.0), (60.0, 50.0), ((1.2, -0.7), (0.2, 1.1), (-0.9, 0.4))))


def test_a_field_ends_not_far_beyond_what_told_it():
    edge = FIELD.at(np.array([60 + 1.5 * 60]), np.array([50.0]))
    assert FIELD.at(np.array([1e6]), np.array([50.0])) == edge
    (left, right), (top, bottom) = FIELD.ranges((0, 1e6), (0, 1e6))
    assert max(map(abs, (left, right, top, bottom))) < 4
    across, down = FIELD.ranges((0, 120), (0, 100))
    assert across == pytest.approx((0.1, 2.3))
    assert down == pytest.approx((-2.2, 0.8))
    assert Displacement(1, -2).ranges((0, 9), (0, 9)) == ((1, 1), (-2, -2))


def test_displacements_in_words():
    assert str(Displacement(0.123, -4)) == "(0.12, -4.00)"
    assert str(FIELD) == "(0.10 to 2.30, -2.20 to 0.80)"
    assert FIELD
    assert Displacement(0, 0.1)
    assert not IN_PLACE


def test_tags_tell_a_displacement():
    for shift in (FIELD, Displacement(1.5, -2), IN_PLACE):
        assert from_tags(as_tags(shift)) == shift
    assert from_tags({}) == IN_PLACE
    assert given(FIELD, "coregister") == FIELD
    assert to_apply(FIELD, None) is FIELD


@pytest.mark.parametrize(
    "field",
    [
        "x", "[]", "{}", "null", '{"middle": [1, 2]}',
        '{"middle": [1, 2], "half": [3, 0], "coefficients": [[1, 2]]}',
        '{"middle": [1, 2], "half": [3, 4], "coefficients": []}',
        '{"middle": [1, 2], "half": [3, 4], "coefficients": [[1, 2], [3, 4]]}',
        '{"middle": [1, 2], "half": [3, 4], "coefficients": [[1, NaN]]}',
        '{"middle": [1, 2], "half": [3, 4], "coefficients": [[1, 2, 3]]}',
        '{"middle": [1, 2], "half": [3, 4], "coefficients": [["a", 2]]}',
        f'{{"middle": [1, 2], "half": [3, 4], "coefficients": [[1{400 * "0"}, 2]]}}',
    ],
)  # fmt: skip
def test_fields_that_make_no_sense_are_refused(field, tmp_path):
    with pytest.raises((ValueError, TypeError)):
        from_tags({"SHIFT_FIELD": field})
    world = World(pan_size=(160, 160), ms_size=(40, 40))
    made = sharpen(Job(*in_folder(world, tmp_path), tmp_path / "out.tif", model="exp", coregister="off"))
    with rasterio.open(made.path, "r+") as file:
        file.update_tags(ns="PANSHARPEN", SHIFT_FIELD=field)
    with pytest.raises(SceneError, match="tags that make no sense"):
        judge(made.path)


@pytest.mark.parametrize(
    "wrong",
    [
        Displacement(float("nan"), 1), Displacement("1", 2),  # type: ignore[arg-type]
        Displacement(1, 2, "x"),  # type: ignore[arg-type]
        *(Displacement(1, 2, Polynomial(*parts)) for parts in (
            ((1, 2), (0, 3), ((1, 2),)), ((1, 2), (3, 4), ((1, 2), (3, 4))), ((1, 2), (3, 4), ((float("inf"), 2),)),
        )),
    ],
)  # fmt: skip
def test_displacements_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match="coregister takes"):
        Job("pan.tif", ["ms.tif"], "out.tif", coregister=wrong)


def test_displacements_of_numpy_become_python_s():
    middle, half = np.array([[60, 50], [60, 50]], np.float32)
    of_numpy = Displacement(np.float32(0.5), 0, Polynomial(middle, half, np.array(FIELD.field.coefficients)))
    assert given(of_numpy, "coregister") == FIELD
    tags = as_tags(given(Displacement(np.float32(1.5), np.int64(2)), "coregister"))
    assert tags == {"SHIFT_APPLIED": "1.5000,2.0000"}
    assert type(given(Displacement(np.float32(1.5), 2), "coregister").dx) is float
    assert given((np.float32(1.5), np.int64(-2)), "coregister") == (1.5, -2)


def in_folder(world, folder):
    pan, ms = world.write(folder)
    return pan, [ms]


CASES = {
    "nested": World(),
    "ratio 2": World(ratio=2, pan_size=(96, 128), ms_size=(48, 64)),
    "offset": World(offset=(-7.3, 2.6), ms_size=(30, 40)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_ms_value_comes_from_where_the_field_says(name, tmp_path):
    """And all pixels that are put out have one."""
    world = CASES[name]
    canvas = SceneCanvas.of(Scene.open(*world.write(tmp_path)), shift=FIELD)
    assert canvas.interpolated
    found = canvas.raw(slice(0, canvas.rows.size), slice(0, canvas.cols.size))
    middles = (a.first + a.ratio * (np.arange(a.size // a.ratio) + 0.5) for a in (canvas.rows, canvas.cols))
    y, x = np.meshgrid(*middles, indexing="ij")
    dx, dy = FIELD.at(x, y)
    left, top = world.pan_sheet.corner
    true = world.at(left + world.gsd[0] * (x + dx), top + world.gsd[1] * (y + dy))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert np.abs(found.ms - true)[inner].max() < 0.5  # of 1000; the kernel's own error
    assert found.valid[canvas.rows.start : canvas.rows.stop, canvas.cols.start : canvas.cols.stop].all()
    assert canvas.rows.stop - canvas.rows.start >= world.pan_size[0] - 4 - 2 * world.ratio
    straight = SceneCanvas.of(Scene.open(*world.write(tmp_path)), shift=Displacement(FIELD.dx, FIELD.dy))
    off = straight.raw(slice(0, straight.rows.size), slice(0, straight.cols.size))
    assert np.abs(off.ms[inner][:, :8, :8] - true[inner][:, :8, :8]).max() > 2


@pytest.mark.parametrize(
    ("way", "world"),
    [
        (1, World(pan_size=(400, 480), ms_size=(100, 120))),
        (-1, World(pan_size=(400, 480), ms_size=(100, 120))),
        (1, World(pan_size=(400, 480), ms_size=(40, 50), offset=(60, 80))),
        (-1, World(pan_size=(400, 480), ms_size=(40, 50), offset=(60, 80))),
        (-1, World(pan_size=(400, 480), ms_size=(100, 120), ms_gsd=(8, 8), ms_corner=(CORNER[0], CORNER[1] - 800))),
    ],
)
def test_all_that_the_moved_ms_covers_is_put_out(way, world, tmp_path):
    """But for half an MS pixel; a PAN that only shrinks is covered up to its borders."""
    field = Displacement.of(Polynomial((240.0, 200.0), (240.0, 200.0), ((1.0, -1.0), (0.3, way * 6), (way * 7, 0.2))))
    with Scene.open(*world.write(tmp_path)) as scene:
        canvas, pan, ms = SceneCanvas.of(scene, shift=field), scene.pan_grid, scene.ms_grid
        found = canvas.raw(slice(0, canvas.rows.size), slice(0, canvas.cols.size))
        assert found.valid[canvas.rows.start : canvas.rows.stop, canvas.cols.start : canvas.cols.stop].all()
        y, x = np.meshgrid(np.arange(pan.height) + 0.5, np.arange(pan.width) + 0.5, indexing="ij")
        dx, dy = field.at(x, y)
        row, col = ms.rows.edge(pan.rows.coordinate(y + dy)), ms.cols.edge(pan.cols.coordinate(x + dx))
        inside = (row >= 0.5) & (row <= ms.height - 0.5) & (col >= 0.5) & (col <= ms.width - 0.5)
        for axis, place in ((canvas.rows, inside.any(axis=1)), (canvas.cols, inside.any(axis=0))):
            covered = np.flatnonzero(place)
            assert axis.first + axis.start == pytest.approx(covered[0], abs=1)
            assert axis.first + axis.stop == pytest.approx(covered[-1] + 1, abs=1)


WORLD = Textured(pan_size=(1024, 1280), ms_size=(262, 326), offset=(-12, -10), bands=4)
ACROSS, DOWN = (np.linspace(*ends, size) for ends, size in (((-2.5, 3.5), 1280), ((1.0, -2.0), 1024)))


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    """A PAN whose pixels are of another size than its file says: it drifts by several pixels."""
    return replace(WORLD, lie=(ACROSS, DOWN)).write(tmp_path_factory.mktemp("drifting"))


def test_the_measured_field_is_the_true_one(drifting):
    with Scene.open(*drifting) as scene:
        canvas = SceneCanvas.of(scene)
        found = measure(canvas)
        assert found.field.degree == 1
        assert found.confidence > 0.9
        assert found.spread < 0.05
        assert (found.dx, found.dy) == pytest.approx((ACROSS.mean(), DOWN.mean()), abs=0.1)
        col, row = np.meshgrid([64, 640, 1200], [64, 500, 960])
        dx, dy = found.displacement.at(col + 0.5, row + 0.5)
        assert np.abs(dx - ACROSS[col]).max() < 0.1
        assert np.abs(dy - DOWN[row]).max() < 0.1
        assert all(place.agrees(found) for place in windows(canvas))
        rest = measure(SceneCanvas.of(scene, shift=to_apply("auto", found)))
        assert rest.field is None
        assert rest.length < 0.05
        assert not to_apply("auto", rest)


def pixels(path):
    with rasterio.open(path) as file:
        return file.read(), file.transform


def test_cut_as_you_like_the_pixels_are_the_same(drifting, tmp_path):
    pan, ms = drifting
    job = Job(pan, [ms], tmp_path / "whole.tif", model="mtf-glp-fs", dtype="uint16", threads=1)
    whole = sharpen(replace(job, tile=2048))
    sharpen(replace(job, output=tmp_path / "tiles.tif", tile=96, threads=2))
    part = Window(333, 401, 200, 150)
    sharpen(replace(job, output=tmp_path / "part.tif", part=part, statistics="scene"))
    (one, place), (other, _), (cut, cut_place) = (pixels(tmp_path / f"{n}.tif") for n in ("whole", "tiles", "part"))
    np.testing.assert_array_equal(other, one)
    col, row = (round(v) for v in ~place @ (cut_place.c, cut_place.f))
    np.testing.assert_array_equal(cut, one[:, row : row + 150, col : col + 200])
    assert whole.shift.field


def test_a_part_by_itself_keeps_to_its_surroundings(drifting, tmp_path):
    """What is measured there says nothing of the far ends of the scene, and is not asked."""
    pan, ms = drifting
    made = sharpen(Job(pan, [ms], tmp_path / "part.tif", model="exp", part=Window(1100, 20, 150, 100), threads=1))
    assert (made.height, made.width) == (100, 150)
    here = made.shift.displacement.at(np.array([1175.5]), np.array([70.5]))
    assert np.ravel(here) == pytest.approx((ACROSS[1175], DOWN[70]), abs=0.1)


def error(product):
    """DN by which it misses what the MS's bands are where the PAN really looks, in the mean of squares."""
    hrms, transform = pixels(product)
    col, row = (round(v) for v in ~WORLD.pan_sheet.transform @ (transform.c, transform.f))
    true = WORLD.at(*WORLD.pan_sheet.centres((ACROSS, DOWN)))
    return np.sqrt(((hrms - true[:, row : row + hrms.shape[1], col : col + hrms.shape[2]]) ** 2).mean())


def test_a_product_is_judged_on_what_it_was_made_on(drifting, tmp_path, caplog):
    caplog.set_level("INFO", "pansharpen_cli")
    pan, ms = drifting
    job = Job(pan, [ms], tmp_path / "out.tif", model="mtf-glp-fs", dtype="uint16", threads=1)
    made = sharpen(job)
    assert "PAN lies (-1.9" in caplog.text
    with rasterio.open(made.path) as file:
        tags = file.tags(ns="PANSHARPEN")
    assert from_tags(tags) == made.shift.displacement
    assert tags["SHIFT_APPLIED"] == f"{made.applied[0]:.4f},{made.applied[1]:.4f}"
    own = judge(made.path)
    assert own.shift == made.shift.displacement
    straight = sharpen(replace(job, output=tmp_path / "straight.tif", coregister=made.applied))
    assert own.report.scores["HQNR"].value > judge(straight.path).report.scores["HQNR"].value
    assert error(made.path) < 0.5 * error(straight.path)
    kept = resume(replace(job, resume=True))
    assert kept.kept
    assert kept.shift.field == made.shift.field
    page = alignment_sentence(gather([made.path]))
    assert page.startswith("In the middle the PAN lies")
    assert "It was corrected, everywhere by what it is there." in page


def test_a_truth_stays_and_the_pan_comes_to_it(drifting, tmp_path):
    pan, _ = drifting
    truth = save(tmp_path / "gt.tif", WORLD.at(*WORLD.pan_sheet.centres()), WORLD.pan_sheet, names=WORLD.names)
    tasks = {
        choice: from_truth(pan, truth=truth, ratio=4, sensor=find_sensor("generic"), coregister=choice)
        for choice in ("off", "auto")
    }
    in_place = WORLD.pan_image()[:, 8:-8, 8:-8]
    off, auto = (np.abs(tasks[choice].pan[:, 8:-8, 8:-8] - in_place).mean() for choice in ("off", "auto"))
    assert auto < 0.1 * off
    np.testing.assert_array_equal(tasks["auto"].gt, tasks["off"].gt)


@pytest.mark.parametrize("tag", ["SHIFT", "SHIFT_APPLIED", "SHIFT_FIELD"])
def test_a_product_whose_tags_make_no_sense_is_made_again(tag, tmp_path):
    pan, ms = World(pan_size=(160, 160), ms_size=(40, 40)).write(tmp_path)
    job = Job(pan, [ms], tmp_path / "out.tif", model="exp", coregister="report", resume=True)
    sharpen(job)
    assert resume(job).kept
    with rasterio.open(job.output, "r+") as file:
        file.update_tags(ns="PANSHARPEN", **{tag: "x"})
    assert not resume(job).kept
    assert resume(job).kept
