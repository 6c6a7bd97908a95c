"""The laws of geometry, tiling, radiometry and nodata, on whatever grids, ratios, offsets, gaps and tile sizes
Hypothesis thinks of. The same ones at every run; PANSHARPEN_SLOW=1 tries ten times as many."""

import os
from dataclasses import replace
from fractions import Fraction
from math import lcm

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from test_run import covered
from worlds import World, save

from pansharpen_cli.imaging.geogrid import Axis, GeoGrid, nest, overlap
from pansharpen_cli.imaging.interpolation import area_phase, toolbox_phase
from pansharpen_cli.imaging.radiometry import Moments, Radiometry, Scaling, holds, quantise
from pansharpen_cli.imaging.tiling import Reach, cut, spread
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen

SLOW = "PANSHARPEN_SLOW" in os.environ
# any example kills a mutant: there is nobody to read the smallest one
PHASES = [Phase.explicit, Phase.generate] if "MUTANT_UNDER_TEST" in os.environ else list(Phase)
EVERY = settings(deadline=None, derandomize=True, max_examples=1000 if SLOW else 100, phases=PHASES)
SCENES = settings(deadline=None, derandomize=True, max_examples=250 if SLOW else 25)

RATIOS = st.integers(2, 6)
GRAINS = st.sampled_from([1, 2, 3, 4, 8, 16, 32])
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]


# ------------------------------------------------------------------ geometry

steps = st.builds(Fraction, st.integers(1, 40), st.sampled_from([1, 2, 5, 10]))
axes = st.builds(
    lambda size, origin, step, sign: (size, Fraction(origin, 8), step * sign),
    st.integers(1, 300), st.integers(-4000, 4000), steps, st.sampled_from([1, -1]),
)  # fmt: skip


def axis(exact):
    return Axis(exact[0], float(exact[1]), float(exact[2]))


@EVERY
@given(pan=axes, ms=axes, shift=st.builds(Fraction, st.integers(-40, 40), st.just(8)))
def test_the_overlap_is_the_pan_pixels_whose_centres_lie_on_the_ms(pan, ms, shift):
    """Counted one by one, in whole numbers; a centre on the very border is on it."""
    found = overlap(axis(pan), axis(ms), float(shift))
    size, origin, step = pan
    ends = sorted((ms[1], ms[1] + ms[2] * ms[0]))
    inside = [i for i in range(size) if ends[0] <= origin + step * (i + shift + Fraction(1, 2)) <= ends[1]]
    assert list(range(found.start, found.stop)) == inside


@EVERY
@given(
    ratio=RATIOS, pan_size=st.integers(1, 400), ms_size=st.integers(1, 120), offset=st.integers(-300, 300),
    between=st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1, 3)]), sign=st.sampled_from([1, -1]),
    multiple_of=GRAINS, phase=st.sampled_from([area_phase, toolbox_phase]),
)  # fmt: skip
def test_nested_samples_lie_where_the_ms_says(ratio, pan_size, ms_size, offset, between, sign, multiple_of, phase):
    """Sample i is at canvas position ratio * i + phase and at an MS position: both are one place on the ground."""
    pan = Axis(pan_size, 1000.0, 2.0 * sign)
    ms = Axis(ms_size, 1000.0 + 2.0 * sign * float(offset + between), 2.0 * ratio * sign)
    where = overlap(pan, ms)
    assume(where.start < where.stop)
    nested = nest(where, ratio, phase(ratio), multiple_of)
    assert nested.size % lcm(ratio, multiple_of) == 0
    assert (nested.first + nested.start, nested.first + nested.stop) == (where.start, where.stop)
    assert 0 <= nested.start < ratio
    assert nested.stop <= nested.size < nested.stop + lcm(ratio, multiple_of)
    samples = np.arange(nested.size // ratio)
    on_pan = pan.coordinate(nested.first + ratio * samples + phase(ratio) + 0.5)
    on_ms = ms.coordinate(samples * nested.scale + nested.offset + 0.5)
    np.testing.assert_allclose(on_pan, on_ms, rtol=0, atol=1e-9)
    if phase is area_phase:  # pixels that nest are read, not interpolated
        assert nested.as_is == (between == 0)


@EVERY
@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), gsd=st.sampled_from([0.3, 2.0, 30.0]),
    moved=st.floats(0, 0.01), stretched=st.floats(0, 0.01), across=st.booleans(), sign=st.sampled_from([1, -1]),
)  # fmt: skip
def test_grids_match_if_their_far_corners_do(size, gsd, moved, stretched, across, sign):
    """To a thousandth of a pixel, at the first corner and at the last one, along both axes."""
    height, width = size
    assume(abs(moved - 1e-3) > 1e-5 and abs(moved + stretched - 1e-3) > 1e-5)
    here = GeoGrid(height, width, Affine(gsd, 0, 500_000, 0, -gsd, 4_000_000), "crs")
    step = sign * gsd
    by, longer = step * moved, step * stretched / (width if across else height)
    t = here.transform
    there = Affine(t.a + longer, 0, t.c + by, 0, t.e, t.f) if across else Affine(t.a, 0, t.c, 0, t.e + longer, t.f + by)
    same = moved <= 1e-3 and moved + stretched <= 1e-3
    assert here.matches(replace(here, transform=there)) == same
    assert not here.matches(replace(here, height=height + 1))
    assert not here.matches(replace(here, width=width + 1))
    assert not here.matches(replace(here, crs=None))
    part = here.crop(slice(-3, height + 2), slice(5, 9))
    assert (part.height, part.width, part.crs) == (height + 5, 4, "crs")
    assert part.transform @ (0, 3) == here.transform @ (5, 0)


# ------------------------------------------------------------------ tiles

reaches = st.builds(Reach, st.integers(0, 60), GRAINS, GRAINS)


@st.composite
def canvases(draw):
    """Size of a canvas axis, what of it is put out, a reach and a ratio."""
    ratio, reach = draw(RATIOS), draw(reaches)
    grain = lcm(ratio, reach.multiple_of)
    size = grain * draw(st.integers(1, max(1, 600 // grain)))
    start = draw(st.integers(0, min(ratio, size) - 1))
    return size, start, draw(st.integers(start + 1, size)), reach, ratio


@EVERY
@given(canvas=canvases(), tile=st.integers(1, 200))
def test_cores_are_every_pixel_once_and_halos_are_read(canvas, tile):
    size, start, stop, reach, ratio = canvas
    spans = cut(start, stop, size, tile, reach, ratio)
    assert [i for span in spans for i in range(span.start, span.stop)] == list(range(start, stop))
    owners = [i for span in spans for i in range(size)[span.coarser(ratio).core]]
    assert owners == list(range(-(-start // ratio), -(-stop // ratio)))
    for span in spans:
        assert 0 <= span.read_start <= max(0, span.start - reach.halo)
        assert min(size, span.stop + reach.halo) <= span.read_stop <= size
        assert span.read_start % lcm(reach.alignment, reach.multiple_of, ratio) == 0
        assert (span.read_stop - span.read_start) % ratio == 0
        assert list(range(size)[span.read][span.inner]) == list(range(span.start, span.stop))


@EVERY
@given(canvas=canvases(), tile=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_what_is_local_is_the_same_tile_by_tile(canvas, tile, seed):
    """A sum over neighbours as far as the halo goes, zeros beyond the canvas; of whole numbers, so it is exact."""
    size, start, stop, reach, ratio = canvas
    image = np.random.default_rng(seed).integers(0, 1000, size)
    kernel = np.arange(1, 2 * reach.halo + 2)

    def local(part):
        return np.convolve(np.pad(part, reach.halo), kernel, "valid")

    whole = local(image)[start:stop]
    tiles = [local(image[span.read])[span.inner] for span in cut(start, stop, size, tile, reach, ratio)]
    assert np.array_equal(np.concatenate(tiles), whole)


@EVERY
@given(size=st.integers(1, 5000), crop=st.integers(1, 600), count=st.integers(1, 12), grain=GRAINS)
def test_crops_lie_evenly_inside_and_on_the_grain(size, crop, count, grain):
    spans = spread(size, crop, count, grain)
    assert 1 <= len(spans) <= count
    if size <= crop:
        assert [(span.start, span.stop) for span in spans] == [(0, size)]
        return
    for span in spans:
        assert 0 <= span.start <= span.stop <= size
        assert span.stop - span.start == crop
        assert span.start % grain == 0
    starts, room = [span.start for span in spans], (size - crop) // grain
    assert len(starts) == min(count, size // crop, room + 1)  # they do not overlap if there is room
    if len(starts) == 1:
        assert abs(2 * starts[0] - (size - crop)) <= 2 * grain
    else:
        steps = np.diff(starts)
        assert (starts[0], starts[-1]) == (0, room * grain)
        assert steps.min() > 0
        assert steps.max() - steps.min() <= grain


# ------------------------------------------------------------------ radiometry

values = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-70000, 70000).map(lambda half: half / 2),  # ties
    st.sampled_from([-(2.0**31), 2.0**31 - 128, 2.0**31, 2.0**32, 65535.4, 65535.5, -0.5, 0.5]),
)


@EVERY
@given(dtype=st.sampled_from(INTEGERS), several=st.lists(values, min_size=1, max_size=30), nodata=st.data())
def test_dn_are_rounded_half_to_even_and_clipped_and_never_nodata(dtype, several, nodata):
    """Python's own `round` and whole numbers say what is right."""
    info = np.iinfo(dtype)
    mark = nodata.draw(st.one_of(st.none(), st.integers(int(info.min), int(info.max)), st.just(int(info.max))))
    found = quantise(np.array([[several]], np.float32), np.dtype(dtype), mark)[0, 0]
    assert found.dtype == dtype
    for value, dn in zip(np.array(several, np.float32).tolist(), found.tolist(), strict=True):
        right = min(max(round(value), int(info.min)), int(info.max))
        assert dn != mark
        assert dn == right or (right == mark and abs(dn - right) == 1)


@EVERY
@given(several=st.lists(values, min_size=1, max_size=30), mark=st.sampled_from([None, 0.0, -9999.0, np.nan, 0.5]))
def test_floats_stay_as_they_are_and_never_nodata(several, mark):
    given_, found = np.array(several, np.float32), quantise(np.array(several, np.float32), np.dtype("float32"), mark)
    same = found == given_
    assert not (found == np.float32(mark if mark is not None else np.nan)).any()
    assert (given_[~same] == mark).all()
    np.testing.assert_allclose(found, given_, rtol=1e-6, atol=1e-30)


@EVERY
@given(dtype=st.sampled_from([*INTEGERS, "float32", "float64"]), value=st.one_of(values, st.integers(-(2**33), 2**33)))
def test_a_type_holds_what_comes_back_from_it(dtype, value):
    if np.dtype(dtype).kind == "f":
        assert holds(np.dtype(dtype), value)
        return
    info = np.iinfo(dtype)
    assert holds(np.dtype(dtype), value) == (value == int(value) and int(info.min) <= value <= int(info.max))


@EVERY
@given(
    kind=st.sampled_from(["fixed", "scene"]), scale=st.floats(1e-3, 1e5), spread_=st.floats(0.01, 10),
    centre=st.floats(-5, 5), seed=st.integers(0, 2**32 - 1), deviation=st.sampled_from([0.0, 1e-3, 1.0, 300.0]),
)  # fmt: skip
def test_network_units_and_back_is_where_one_was(kind, scale, spread_, centre, seed, deviation):
    random = np.random.default_rng(seed)
    ms = (500 + deviation * random.standard_normal((3, 8, 8))).astype(np.float32)
    high = np.full(4, 1e4)
    moments = Moments(np.full(4, 500.0), np.full(4, deviation), high)
    scaling = Scaling.of(Radiometry(kind, scale, scale, centre, spread_), moments)
    pan, there = scaling.to_network(ms[:1], ms)
    assert np.isfinite(there).all()
    assert np.isfinite(pan).all()
    unit = float(np.max(scaling.scale))
    np.testing.assert_allclose(scaling.to_dn(there), ms, rtol=3e-6, atol=3e-6 * max(500, unit, abs(centre * unit)))


@pytest.mark.parametrize(
    "entries",
    [{"kind": "none"}, *({name: bad} for name in ("scale", "pan_scale", "spread") for bad in (0, -1, np.nan, np.inf)),
     {"centre": np.inf}, {"centre": np.nan}],
)  # fmt: skip
def test_a_radiometry_that_makes_no_sense_is_none(entries):
    with pytest.raises(ValueError, match=r"radiometry"):
        Radiometry(**entries)


def test_dn_as_they_are_are_not_touched():
    image = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
    scaling = Scaling.none()
    assert scaling.to_network(image[:1], image)[1] is image
    assert scaling.to_dn(image) is image
    assert (scaling.scale.ravel().tolist(), scaling.offset.ravel().tolist()) == ([1], [0])
    assert (scaling.pan_scale, scaling.pan_offset) == (1, 0)
    for array in (scaling.scale, scaling.offset, scaling.pan_scale, scaling.pan_offset):
        assert array.dtype == np.float32


# ------------------------------------------------------------------ nodata, from files to files


@st.composite
def scenes(draw):
    """A small world, gaps in its PAN and its MS, and tiles of a size."""
    ratio = draw(st.integers(2, 5))
    rows, cols = draw(st.integers(6, 20)), draw(st.integers(6, 20))
    offset = draw(st.integers(-7, 7)), draw(st.integers(-7, 7))
    half = draw(st.sampled_from([(0, 0), (0.5, 0), (0.25, 0.5)]))
    pan_size = draw(st.integers(8, 70)), draw(st.integers(8, 70))
    world = World(
        ratio=ratio, pan_size=pan_size, ms_size=(rows, cols), bands=2, dtype="uint16",
        offset=(offset[0] + half[0], offset[1] + half[1]),
    )  # fmt: skip
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.02, 0.3, 0.9]))
    return world, seed, share, draw(st.sampled_from([64, 70, 100])), draw(st.sampled_from(["value", "mask"]))


@SCENES
@given(scene=scenes())
def test_gaps_are_those_of_both_whatever_the_tiles(scene, tmp_path_factory):
    """A pixel has no value where PAN or MS has none under its centre, and only there, for any tile size."""
    world, seed, share, tile, kind = scene
    folder, random = tmp_path_factory.mktemp("scene"), np.random.default_rng(seed)
    files, gaps = {}, {}
    for name, image, sheet in (
        ("pan", world.pan_image(), world.pan_sheet),
        ("ms", world.ms_image(), world.ms_sheet),
    ):
        gaps[name] = random.random(image.shape[1:]) < share
        image[:, gaps[name]] = 0
        options = {"nodata": 0} if kind == "value" else {"mask": ~gaps[name]}
        files[name] = save(folder / f"{name}.tif", image, sheet, dtype="uint16", **options)
    with rasterio.open(files["pan"]) as pan, rasterio.open(files["ms"]) as ms:
        rows, cols = covered(pan, ms)
    on_rows, on_cols = rows >= 0, cols >= 0
    assume(on_rows.any() and on_cols.any())
    under = gaps["ms"][rows[on_rows][:, None], cols[on_cols]]
    expected = ~(gaps["pan"][on_rows][:, on_cols] | under)
    assume(expected[:: world.ratio, :: world.ratio].sum() > 40)  # something to take the scene's statistics from
    products = []
    for size in (tile, 512):
        job = Job(
            files["pan"], [files["ms"]], folder / f"{size}.tif", model="exp", coregister="off", tile=size, threads=1
        )
        try:
            sharpen(job)
        except Exception as error:
            pytest.fail(str(error))
        with rasterio.open(job.output) as product:
            products.append(np.concatenate([product.read(), product.read_masks(1)[None]]))
    assert np.array_equal(products[0][-1] > 0, expected)
    assert np.array_equal(products[0], products[1])
