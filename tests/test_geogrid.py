"""Grids on the ground and the MS nested in the PAN: what one way to a place says, the other ways say too."""

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine

from pansharpen_cli.imaging.geogrid import Axis, GeoGrid, NestedAxis, nest, overlap
from pansharpen_cli.imaging.interpolation import area_phase, toolbox_phase

RATIO = 4


def canvas(offset: float, drift: float, sign: int = 1, phase: float = area_phase(RATIO)) -> NestedAxis:
    """Of 203 PAN pixels and 41 MS pixels `RATIO` * `drift` times as wide, from `offset` PAN pixels further on."""
    pan, ms = Axis(203, 1000.0, 2.0 * sign), Axis(41, 1000.0 + 2.0 * sign * offset, 2.0 * RATIO * drift * sign)
    return nest(overlap(pan, ms), RATIO, phase, 16)


CANVASES = pytest.mark.parametrize(("offset", "drift"), [(8, 1), (-6, 1), (9.3, 1.004)])


@pytest.mark.parametrize("sign", [1, -1])
@CANVASES
@pytest.mark.parametrize(("start", "stop"), [(0, 16), (12, 100), (60, 160), (0, 160)])
def test_a_stretch_is_a_part_of_the_canvas(start: int, stop: int, offset: float, drift: float, sign: int):
    whole = canvas(offset, drift, sign)
    part = whole.stretch(start, stop)
    assert part.ratio == whole.ratio
    assert part.scale == whole.scale
    assert (part.first, part.size) == (whole.first + start, stop - start)
    put_out = set(range(whole.first + whole.start, whole.first + whole.stop))
    assert set(range(part.first + part.start, part.first + part.stop)) == put_out & {
        whole.first + pixel for pixel in range(start, stop)
    }
    samples = whole.ms_positions(start // RATIO, stop // RATIO)
    np.testing.assert_allclose(part.ms_positions(0, part.size // RATIO), samples, rtol=0, atol=1e-9)


@pytest.mark.parametrize("phase", [area_phase(RATIO), toolbox_phase(RATIO)])
@CANVASES
def test_nested_samples_and_their_pan_pixels_are_at_one_ms_position(offset: float, drift: float, phase: float):
    axis = canvas(offset, drift, phase=phase)
    samples = np.arange(3, 20)
    by_pan = axis.ms_position_of_pan(RATIO * samples + phase, phase)
    np.testing.assert_allclose(axis.ms_positions(3, 20), by_pan, rtol=0, atol=1e-9)
    steps = np.diff(axis.ms_position_of_pan(np.arange(40.0), phase))
    np.testing.assert_allclose(steps, 1 / (RATIO * drift), rtol=0, atol=1e-9)


def test_ms_positions_are_whole_only_where_the_samples_are_read_as_they_are():
    drifting = NestedAxis(4, 0, 80, 0, 80, scale=1.0005, offset=3.008)
    assert drifting.as_is
    assert drifting.ms_positions(2, 20).tolist() == list(range(5, 23))
    between = replace(drifting, offset=3.03)
    assert not between.as_is
    np.testing.assert_allclose(between.ms_positions(2, 5), [5.031, 6.0315, 7.032], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ratio", "as_is"), [(2, True), (5, True), (6, False), (15, False), (32, False)])
def test_large_ms_pixels_are_read_as_they_are_only_if_no_pan_pixel_sees_that(ratio: int, as_is: bool):
    axis = NestedAxis(ratio, 0, 20 * ratio, 0, 20 * ratio, scale=1.0, offset=3.019)
    assert axis.as_is == as_is
    assert replace(axis, offset=3 + min(0.019, 0.09 / ratio)).as_is


@pytest.mark.parametrize("sign", [1, -1])
def test_a_pan_pixel_whose_centre_is_on_the_very_border_of_the_ms_is_on_it(sign: int):
    pan, ms = Axis(100, 1000.0, 2.0 * sign), Axis(5, 1000.0 + 2.0 * sign * 10.5, 8.0 * sign)
    where = overlap(pan, ms)
    assert (where.start, where.stop) == (10, 31)
    moved = overlap(pan, ms, shift=0.01)
    assert (moved.start, moved.stop) == (10, 30)


@pytest.mark.parametrize("drift", [0.995, 1.0, 1.007])
@pytest.mark.parametrize("offset", [-90.4, 0.9, 150.4])
def test_samples_of_an_ms_that_drifts_are_met_best_in_the_middle(offset: float, drift: float):
    """Its pixels are not quite `RATIO` PAN pixels wide: no other start of the canvas does better there."""
    pan, ms = Axis(403, 1000.0, 2.0), Axis(110, 1000.0 + 2.0 * offset, 2.0 * RATIO * drift)
    where, phase = overlap(pan, ms), area_phase(RATIO)

    def miss(first: int) -> float:
        middle = first + RATIO * ((where.stop - first) // (2 * RATIO)) + phase
        position = ms.edge(pan.coordinate(middle + 0.5)) - 0.5
        return abs(position - round(position))

    chosen = nest(where, RATIO, phase, 1).first
    possible = range(where.start - RATIO + 1, where.start + 1)
    assert chosen in possible
    assert miss(chosen) == pytest.approx(min(miss(first) for first in possible), abs=1e-6)


@pytest.mark.parametrize(("moved", "same"), [(0.0005, True), (0.0015, False)])
def test_grids_whose_far_corner_agrees_match_only_if_the_first_does(moved: float, same: bool):
    """Two pixels a side: a pixel away from the first corner only half of what it has moved is left."""
    here = GeoGrid(2, 2, Affine(3, 0, 500, 0, -3, 800))
    for across, down in ((moved, 0), (0, moved)):
        there = Affine(3 - 3 * across / 2, 0, 500 + 3 * across, 0, -3 + 3 * down / 2, 800 - 3 * down)
        assert here.matches(replace(here, transform=there)) == same


def test_an_axis_goes_from_coordinates_to_edges_and_back():
    axis = Axis(100, 4000.0, -2.0)
    assert axis.ends == (3800.0, 4000.0)
    assert [axis.edge(4000.0), axis.edge(3999.0), axis.edge(3800.0)] == [0, 0.5, 100]
    edges = np.array([0, 12.5, 100])
    np.testing.assert_array_equal(axis.edge(axis.coordinate(edges)), edges)
    grid = GeoGrid(100, 30, Affine(3, 0, 500, 0, -2, 4000))
    assert (grid.rows, grid.cols, grid.gsd) == (axis, Axis(30, 500, 3), (3, 2))
