"""Cutting a canvas: every core pixel once, everything it needs read."""

from itertools import pairwise

import numpy as np
import pytest

from pansharpen_cli.imaging.tiling import Pixels, Reach, Span, Tile, cut, spread

RNG = np.random.default_rng(11)


def canvases(count: int) -> list[tuple[int, int, int, int, Reach, int]]:
    """Arguments of `cut`: the canvas is a multiple of ratio and multiple_of, the product lies somewhere inside."""
    cases = []
    for _ in range(count):
        ratio, multiple_of, alignment = (int(RNG.choice(values)) for values in ((2, 3, 4, 5), (1, 2, 8), (1, 4, 12)))
        grain = np.lcm(ratio, multiple_of)
        size = int(grain * RNG.integers(1, 80))
        start = int(RNG.integers(0, min(ratio, size)))
        stop = int(RNG.integers(max(start, size - grain) + 1, size + 1))
        reach = Reach(int(RNG.integers(0, 50)), alignment, multiple_of)
        cases.append((start, stop, size, int(RNG.integers(1, 90)), reach, ratio))
    return cases


CANVASES = canvases(300)


@pytest.mark.parametrize("case", CANVASES[:5] + CANVASES[-1:])
def test_spans_and_their_slices(case):
    for span in cut(*case):
        axis = np.arange(case[2])
        np.testing.assert_array_equal(axis[span.read][span.inner], axis[span.core])
        ms_axis, coarse = np.arange(case[2] // case[5]), span.coarser(case[5])
        np.testing.assert_array_equal(ms_axis[coarse.read][coarse.inner], ms_axis[coarse.core])


def test_cores_cover_every_pixel_once():
    for start, stop, size, tile, reach, ratio in CANVASES:
        owners = np.zeros(size, int)
        for span in cut(start, stop, size, tile, reach, ratio):
            owners[span.core] += 1
        assert (owners[start:stop] == 1).all()
        assert owners.sum() == stop - start


def test_cores_run_in_order_and_are_no_larger_than_a_tile():
    for start, stop, size, tile, reach, ratio in CANVASES:
        spans = cut(start, stop, size, tile, reach, ratio)
        assert spans[0].start == start
        assert spans[-1].stop == stop
        assert all(a.stop == b.start for a, b in pairwise(spans))
        assert all(s.stop - s.start == tile for s in spans[:-1])
        assert 0 < spans[-1].stop - spans[-1].start <= tile


def test_reads_hold_the_halo_or_end_with_the_canvas():
    for start, stop, size, tile, reach, ratio in CANVASES:
        for span in cut(start, stop, size, tile, reach, ratio):
            assert span.read_start == 0 or span.read_start <= span.start - reach.halo
            assert span.read_stop == size or span.read_stop >= span.stop + reach.halo
            assert 0 <= span.read_start <= span.start < span.stop <= span.read_stop <= size


def test_reads_are_aligned_and_hold_whole_ms_pixels():
    for start, stop, size, tile, reach, ratio in CANVASES:
        for span in cut(start, stop, size, tile, reach, ratio):
            for grain in (reach.alignment, reach.multiple_of, ratio):
                assert span.read_start % grain == 0
            for grain in (reach.multiple_of, ratio):
                assert span.read_stop % grain == 0


def test_reads_are_no_wider_than_needed():
    for start, stop, size, tile, reach, ratio in CANVASES:
        grain = np.lcm.reduce([reach.alignment, reach.multiple_of, ratio])
        for span in cut(start, stop, size, tile, reach, ratio):
            assert span.start - span.read_start < reach.halo + grain
            assert span.read_stop - span.stop < reach.halo + grain


def test_every_ms_pixel_of_the_product_has_one_owner():
    for start, stop, size, tile, reach, ratio in CANVASES:
        owners = np.zeros(size // ratio + 1, int)
        for span in cut(start, stop, size, tile, reach, ratio):
            coarse = span.coarser(ratio)
            owners[coarse.core] += 1
            assert coarse.read_start * ratio == span.read_start
            assert coarse.read_stop * ratio == span.read_stop
        holds_first_pan_pixel = (np.arange(len(owners)) * ratio >= start) & (np.arange(len(owners)) * ratio < stop)
        np.testing.assert_array_equal(owners, holds_first_pan_pixel)


def spreads(count: int) -> list[tuple[int, int, int, int]]:
    """Arguments of `spread`."""
    cases = []
    for _ in range(count):
        grain = int(RNG.integers(1, 9))
        cases.append((int(RNG.integers(1, 900)), grain * int(RNG.integers(1, 20)), int(RNG.integers(1, 9)), grain))
    return cases


SPREADS = spreads(300)


def test_spread_crops_stay_inside_sorted_whole_and_few():
    for size, crop, count, grain in SPREADS:
        spans = spread(size, crop, count, grain)
        assert spans == spread(size, crop, count, grain)
        assert 1 <= len(spans) <= count
        assert all(a.start < b.start for a, b in pairwise(spans))
        for span in spans:
            assert span == Span(span.read_start, span.read_stop, span.read_start, span.read_stop)
            assert 0 <= span.start < span.stop <= size
            assert span.stop - span.start == min(crop, size)
            assert span.start % grain == 0


def test_spread_crops_lie_evenly():
    for size, crop, count, grain in SPREADS:
        starts = [span.start for span in spread(size, crop, count, grain)]
        if len(starts) > 1:
            assert starts[0] == 0
            assert starts[-1] > size - crop - grain
            assert np.ptp(np.diff(starts)) <= grain


def test_a_single_crop_lies_in_the_middle():
    (span,) = spread(500, 256, 5, 4)
    assert abs((span.start + span.stop) / 2 - 250) <= 4


def test_a_tile_is_two_spans():
    tile = Tile(Span(4, 9, 0, 12), Span(10, 20, 8, 24))
    assert tile.core == (slice(4, 9), slice(10, 20))
    assert tile.read == (slice(0, 12), slice(8, 24))
    assert tile.inner == (slice(4, 9), slice(2, 12))
    assert tile.coarser(4) == Tile(Span(1, 3, 0, 3), Span(3, 5, 2, 6))


def test_an_ms_pixel_is_valid_if_all_its_pan_pixels_are():
    valid = np.ones((4, 6), bool)
    valid[3, 0] = valid[0, 5] = False
    pixels = Pixels(Tile(Span(0, 4, 0, 4), Span(0, 6, 0, 6)), np.zeros((1, 4, 6)), np.zeros((2, 2, 3)), valid)
    assert pixels.ratio == 2
    assert pixels.ms_valid.tolist() == [[True, True, False], [False, True, True]]
