"""A score does not depend on how the scene was cut, and the scene is never in memory."""

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pansharpen_cli import metrics
from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.interpolation import area_phase, expand, polyphase
from pansharpen_cli.imaging.tiling import Span, Tile
from pansharpen_cli.metrics import FULL, OPTIONAL, REDUCED, ArrayImage, derived, formulas
from pansharpen_cli.metrics.image import Cropped, Held, Locked, Pixels, cleared, pixels, pixels_beyond
from pansharpen_cli.metrics.streaming import BlockMap, Scatter, Score, Window, cores, gather, tiles

CUTS: list[int | tuple[int, int]] = [32, 96, (64, 1024), (1024, 64)]


def scene(rows: int, cols: int, gaps: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Product, PAN, MS, and truth of a rough scene, and where its pixels are valid."""
    rng = np.random.default_rng(8)
    y, x = np.arange(rows)[:, None], np.arange(cols)
    truth = np.stack([600 + 200 * np.sin((x + y * b) / 9) + 100 * np.cos(x * y / 900) for b in (1, 2, 3)])
    truth = np.rint(truth + rng.normal(0, 30, truth.shape))
    pan = truth.mean(axis=0, keepdims=True) + rng.normal(0, 5, (1, rows, cols))
    ms = truth.reshape(3, rows // 4, 4, cols // 4, 4).mean(axis=(2, 4))
    fused = truth + rng.normal(0, 20, truth.shape)
    valid = np.ones((rows, cols), bool)
    if gaps:
        valid[72:76, 80:84] = False
        valid[: rows // 3, -8:] = False
    return fused, pan, ms, truth, valid


def alike(one: dict[str, Score], other: dict[str, Score]) -> None:
    for name, score in one.items():
        assert other[name].value == pytest.approx(score.value, rel=1e-12, abs=1e-12), name
        assert other[name].bands == pytest.approx(score.bands, rel=1e-12), name
        assert replace(score, value=0, bands=()) == replace(other[name], value=0, bands=()), name


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("cut", [0, 21])
@pytest.mark.parametrize("shift", [32, 16])
def test_tiles_equal_the_whole_with_a_truth(gaps: bool, cut: int, shift: int):
    fused, _, _, gt, valid = scene(204, 172, gaps)
    images = ArrayImage(gt, valid), ArrayImage(fused, valid)
    whole = metrics.reduced(*images, 4, maxval=2047, cut=cut, shift=shift, tile=1024)
    assert None not in [score.value for score in whole.scores.values()]
    for tile in CUTS:
        tiled = metrics.reduced(*images, 4, maxval=2047, cut=cut, shift=shift, tile=tile)
        alike(whole.scores, tiled.scores)
        np.testing.assert_allclose(tiled.maps["Q2n"], whole.maps["Q2n"], rtol=1e-12)


@pytest.mark.parametrize(
    ("gaps", "phase", "cuts"), [(False, 2.0, [96, (64, 1024)]), (True, 2.0, [32]), (True, 1.5, [(1024, 64)])]
)
def test_tiles_equal_the_whole_without_a_truth(gaps: bool, phase: float, cuts: list[int | tuple[int, int]]):
    fused, pan, ms, _, valid = scene(260, 292, gaps)
    images = ArrayImage(fused, valid), ArrayImage(pan, valid), ArrayImage(ms, valid[::4, ::4])
    options: dict[str, Any] = {"gains": [0.3, 0.28, 0.34], "metrics": [*FULL, *OPTIONAL], "maps": True}
    whole = metrics.full(*images, phase=phase, tile=1024, **options)
    assert None not in [score.value for score in whole.scores.values()]
    for tile in cuts:
        tiled = metrics.full(*images, phase=phase, tile=tile, **options)
        alike(whole.scores, tiled.scores)
        for name, values in whole.maps.items():
            np.testing.assert_allclose(tiled.maps[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_threads_change_not_a_bit():
    fused, pan, ms, gt, valid = scene(260, 292, True)
    images = ArrayImage(fused, valid), ArrayImage(pan, valid), ArrayImage(ms, valid[::4, ::4])
    options: dict[str, Any] = {"gains": [0.3, 0.28, 0.34], "phase": 2.0, "metrics": [*FULL, *OPTIONAL], "tile": 32}
    alone, together = (metrics.full(*images, threads=threads, **options) for threads in (1, 5))
    assert alone == together
    pair = ArrayImage(gt, valid), ArrayImage(fused, valid)
    alone, together = (metrics.reduced(*pair, 4, maxval=2047, tile=32, threads=threads) for threads in (1, 5))
    assert alone.scores == together.scores


def test_an_error_in_a_thread_ends_the_pass():
    class Broken(ArrayImage):
        def read(self, rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
            if rows.start >= 64:
                raise SceneError("no.tif cannot be read")
            return super().read(rows, cols)

    image = np.ones((1, 256, 64))
    with pytest.raises(SceneError, match=r"no\.tif"):
        metrics.reduced(Broken(image), ArrayImage(image), 4, metrics=["SAM"], tile=32, threads=3)


def test_a_locked_image_is_read_by_one_thread_at_a_time():
    class Alone(ArrayImage):
        busy = False

        def read(self, rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
            assert not self.busy
            object.__setattr__(self, "busy", True)
            time.sleep(0.001)
            object.__setattr__(self, "busy", False)
            return super().read(rows, cols)

    image = Locked(Alone(np.ones((1, 256, 256))), threading.Lock())
    assert metrics.reduced(image, image, 4, metrics=["RMSE"], tile=32, threads=8).scores["RMSE"].value == 0


@pytest.mark.parametrize(("size", "tile"), [(204, 64), (31, 64), (64, 64), (97, 32), (128, 96)])
def test_cores_cover_the_axis_once_and_hold_a_block(size: int, tile: int):
    spans = cores(size, tile, 32)
    assert [pixel for span in spans for pixel in range(span.start, span.stop)] == list(range(size))
    assert all(span.start % 32 == 0 for span in spans)
    assert all(span.stop - span.start >= min(32, size) for span in spans)


def test_tiles_that_would_cut_blocks_are_refused():
    image = ArrayImage(np.ones((1, 64, 64)))
    with pytest.raises(UsageError, match="multiple of 32"):
        metrics.reduced(image, image, 4, tile=100)


@pytest.mark.parametrize("border", ["wrap", "edge", "symmetric"])
@pytest.mark.parametrize(("rows", "cols"), [((-5, 8), (3, 25)), ((2, 31), (-19, 39)), ((4, 9), (5, 11))])
def test_beyond_the_border(border: str, rows: tuple[int, int], cols: tuple[int, int]):
    image = np.arange(2 * 17 * 20, dtype=float).reshape(2, 17, 20)
    valid = np.random.default_rng(1).random((17, 20)) > 0.2
    window = pixels_beyond(ArrayImage(image, valid), slice(*rows), slice(*cols), border)
    pad = [(20, 20), (20, 20)]
    inside = np.s_[rows[0] + 20 : rows[1] + 20, cols[0] + 20 : cols[1] + 20]
    np.testing.assert_array_equal(window.valid, np.pad(valid, pad, mode=border)[inside])
    np.testing.assert_array_equal(window.data, np.pad(image * valid, [(0, 0), *pad], mode=border)[:, *inside])


class Virtual:
    """An image that is made where it is read, and remembers how much of it was asked for at once."""

    def __init__(self, bands: int, size: int) -> None:
        self.bands, self.shape = bands, (size, size)
        self.reads: list[int] = []

    def read(self, rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.arange(rows.start, rows.stop)[:, None], np.arange(cols.start, cols.stop)
        self.reads.append(y.size * x.size)
        image = np.stack([500 + 100 * np.sin(x / (7 + b)) * np.cos(y / (5 + b)) for b in range(self.bands)])
        return image.astype(np.float32), np.ones(image.shape[1:], bool)


def test_reads_stay_small_and_few():
    gt, fused = Virtual(2, 512), Virtual(2, 512)
    metrics.reduced(gt, fused, 4, maxval=2047, metrics=REDUCED, tile=128)
    assert max(gt.reads) <= (128 + 1 + 31) ** 2
    assert len(gt.reads) == len(fused.reads) == 16
    fused, pan, ms = Virtual(2, 512), Virtual(1, 512), Virtual(2, 128)
    metrics.full(fused, pan, ms, gains=[0.3, 0.3], phase=2.0, tile=128)
    assert max(fused.reads) == (128 + 40) ** 2
    assert max(pan.reads) <= (128 + 2 * (32 + 9)) ** 2
    assert sum(fused.reads) < 2 * 512**2
    assert max(ms.reads) <= (32 + 2 * 8) ** 2


def test_a_held_window_is_read_once():
    virtual = Virtual(1, 100)
    held = Held(Cropped(virtual, slice(10, 90), slice(20, 80)))
    wide, _ = held.read(slice(0, 50), slice(5, 60))
    narrow, valid = held.read(slice(3, 40), slice(10, 60))
    np.testing.assert_array_equal(narrow, wide[:, 3:40, 5:])
    assert valid.shape == narrow.shape[1:]
    assert virtual.reads == [50 * 55]
    held.read(slice(3, 51), slice(10, 60))
    assert len(virtual.reads) == 2


def test_progress_is_told():
    image = ArrayImage(np.ones((1, 128, 96)) * np.arange(96))
    told: list[tuple[int, int]] = []
    metrics.reduced(image, image, 4, metrics=["SAM"], tile=(64, 96), on_tile=lambda *now: told.append(now))
    assert told == [(1, 2), (2, 2)]
    told.clear()
    pan, ms = ArrayImage(image.array), ArrayImage(image.array[:, ::4, ::4])
    metrics.full(image, pan, ms, gains=[0.3], phase=2.0, tile=32, on_tile=lambda *now: told.append(now))
    assert told[-1] == (12, 12)


def test_scatters_add_up_to_that_of_all_pixels():
    rng = np.random.default_rng(3)
    image = rng.normal(1e6, 30, (3, 64, 96)) * np.array([1, 2, -1])[:, None, None]
    valid = rng.random((64, 96)) > 0.3
    whole = Scatter.of(image, valid)
    expected = np.cov(image[:, valid], bias=True) * valid.sum()
    assert whole.count == valid.sum()
    np.testing.assert_allclose(whole.mean, image[:, valid].mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(whole.matrix, expected, rtol=1e-9)
    parts = [Scatter.of(image[:, rows], valid[rows]) for rows in (slice(0, 5), slice(5, 40), slice(40, 64))]
    empty = Scatter.of(image, np.zeros_like(valid))
    assert (empty.count, empty.mean.any(), empty.matrix.any()) == (0, False, False)
    for total in (parts[0] + parts[1] + parts[2], empty + whole, whole + empty):
        assert total.count == whole.count
        np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(total.matrix, whole.matrix, rtol=1e-9)
    assert (empty + empty).count == 0
    blocks = formulas.block_moments(image[:2], image[2:], valid, 32, 32)
    by_blocks = Scatter.of_blocks(blocks)
    assert by_blocks.count == whole.count
    np.testing.assert_allclose(by_blocks.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(by_blocks.matrix, whole.matrix, rtol=1e-9)
    full = Scatter.of(image, np.ones_like(valid))
    np.testing.assert_allclose(full.matrix, np.cov(image.reshape(3, -1), bias=True) * 64 * 96, rtol=1e-9)


def test_only_finite_scores_leave_the_program():
    fine, absent = Score(0.5, 9, bands=(0.4, 0.6)), Score(None, 3, reason="why")
    for strict in (False, True):
        assert fine.published(strict) is fine
        assert absent.published(strict) is absent
    for value in (np.inf, np.nan):
        score = Score(value, 9, 1, 2, (value, 1.0))
        assert score.published(True) is score
        assert score.published(False) == Score(None, 9, 1, 2, (), "the value is not finite")
        assert replace(score, reason="why").published(False).reason == "why"
        assert replace(score, counted=0).published(False).reason == "no valid pixels to measure"


def test_tiles_run_row_by_row_and_read_their_margins_as_far_as_the_image_goes():
    found = tiles((100, 200), (64, 128), 32, 3, 5)
    rows, cols = [(0, 64, 0, 69), (64, 100, 61, 100)], [(0, 128, 0, 133), (128, 200, 125, 200)]
    assert found == [Tile(Span(*row), Span(*col)) for row in rows for col in cols]
    assert tiles((100, 200), 64, 32, 3, 5) == tiles((100, 200), (64, 64), 32, 3, 5)
    assert [span.stop for span in cores(96 + 31, 32, 32)] == [32, 64, 127]
    assert [span.stop for span in cores(96 + 32, 32, 32)] == [32, 64, 96, 128]
    for tile in (16, 48):
        with pytest.raises(UsageError, match=f"tiles of {tile} pixels: the metrics need a multiple of 32"):
            cores(100, tile, 32)


def test_a_window_gives_the_core_and_what_is_asked_for_around():
    rng = np.random.default_rng(3)
    image, other, valid = rng.normal(size=(2, 100, 200)), rng.normal(size=(2, 100, 200)), rng.random((100, 200)) > 0.1
    for tile in tiles((100, 200), 64, 32, 7, 9):
        known = valid[tile.read], ~(rng.random(valid[tile.read].shape) < 0.1)
        data = [part[:, *tile.read] * here for part, here in zip((image, other), known, strict=True)]
        window = Window.of(tile, (100, 200), Pixels(data[0], known[0]), Pixels(data[1], known[1]))
        both = known[0] & known[1]
        assert window.invalid == (~both).sum()
        np.testing.assert_array_equal(window.reference, data[0] * both)
        np.testing.assert_array_equal(window.fused, data[1] * both)
        for before, after in ((0, 0), (2, 4), (7, 9)):
            around = window.around(before, after)
            rows, cols = around.tile.rows, around.tile.cols
            assert (rows.start, rows.stop) == (tile.rows.start, tile.rows.stop)
            assert (rows.read_start, rows.read_stop) == (max(0, rows.start - before), min(100, rows.stop + after))
            assert (cols.read_start, cols.read_stop) == (max(0, cols.start - before), min(200, cols.stop + after))
            clear = around.valid
            np.testing.assert_array_equal(around.reference, image[:, *around.tile.read] * clear)
            np.testing.assert_array_equal(around.fused, other[:, *around.tile.read] * clear)


def test_totals_are_sums_over_the_tiles_whatever_the_threads():
    todo, told = tiles((100, 200), 32, 32, 0, 0), []

    def measure(tile: Tile) -> list[tuple[Any, ...]]:
        return [(1, np.array([tile.rows.start, tile.cols.start])), (tile.rows.stop,)]

    for threads in (1, 3):
        told.clear()
        totals = gather(measure, todo, threads, lambda *now: told.append(now))
        assert told == [(done, len(todo)) for done in range(1, len(todo) + 1)]
        assert totals[0][0] == len(todo)
        assert totals[0][1].tolist() == [sum(t.rows.start for t in todo), sum(t.cols.start for t in todo)]
        assert totals[1] == (sum(tile.rows.stop for tile in todo),)


@pytest.mark.parametrize(("shift", "shape"), [(32, (4, 7)), (16, (7, 13))])
def test_a_map_has_a_place_for_every_block_that_starts(shift: int, shape: tuple[int, int]):
    blocks = BlockMap((100, 200), shift)
    assert blocks.values.shape == shape
    assert np.isnan(blocks.values).all()
    blocks.put(Tile(Span(32, 64, 0, 96), Span(96, 160, 64, 192)), np.ones((32 // shift, 64 // shift)))
    put = np.argwhere(np.isfinite(blocks.values))
    assert (put.min(axis=0) * shift).tolist() == [32, 96]
    assert ((put.max(axis=0) + 1) * shift).tolist() == [64, 160]
    assert len(put) == 32 // shift * 64 // shift


def test_windows_of_images_are_cleared_where_there_is_no_data():
    array = np.arange(60, dtype=np.float32).reshape(1, 6, 10)
    valid = np.ones((6, 10), bool)
    valid[2, 3] = False
    array[0, 2, 3] = np.nan
    image = Cropped(ArrayImage(array, valid), slice(1, 6), slice(2, 9))
    assert (image.bands, image.shape) == (1, (5, 7))
    data, known = pixels(image, slice(0, 3), slice(1, 5))
    assert data.dtype == np.float64
    assert known.tolist() == [[True] * 4, [False] + [True] * 3, [True] * 4]
    np.testing.assert_array_equal(data[0], np.where(valid, array[0], 0)[1:4, 3:7])
    own, _ = cleared(image, slice(0, 3), slice(1, 5))
    assert own.dtype == np.float32
    np.testing.assert_array_equal(own, data)
    for wrapped in (Held(image), Locked(image, threading.Lock())):
        assert (wrapped.bands, wrapped.shape) == (1, (5, 7))
        np.testing.assert_array_equal(wrapped.read(slice(2, 4), slice(0, 7))[0], array[:, 3:5, 2:9])
    everywhere = ArrayImage(array)
    assert (everywhere.bands, everywhere.shape) == (1, (6, 10))
    assert everywhere.read(slice(1, 3), slice(4, 9))[1].shape == (2, 5)
    assert everywhere.read(slice(1, 3), slice(4, 9))[1].all()


@pytest.mark.parametrize(("border", "most"), [("wrap", 5 * 5), ("edge", 3 * 4), ("symmetric", 3 * 4)])
def test_of_far_edges_only_what_stands_in_the_window_is_read(border: str, most: int):
    image = Virtual(1, 100)
    pixels_beyond(image, slice(-2, 3), slice(97, 102), border)
    assert sum(image.reads) <= most
    image.reads.clear()
    pixels_beyond(image, slice(0, 3), slice(97, 100), border)
    assert image.reads == [9]


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_a_window_of_a_derived_image_is_a_part_of_the_whole(ratio: int):
    rng = np.random.default_rng(5)
    size = 40 * ratio, 44 * ratio
    fine_valid, coarse_valid = np.ones(size, bool), np.ones((40, 44), bool)
    fine_valid[25 * ratio, 3] = coarse_valid[25, 43] = False
    fine = ArrayImage(rng.normal(500, 90, (2, *size)), fine_valid)
    coarse = ArrayImage(rng.normal(500, 90, (2, 40, 44)), coarse_valid)
    for image, shape in (
        (derived.Expanded(coarse, ratio, area_phase(ratio)), size),
        (derived.Reduced(fine, ratio), (40, 44)),
    ):
        assert (image.bands, image.shape) == (2, shape)
        data, valid = image.read(slice(0, shape[0]), slice(0, shape[1]))
        assert data.shape == (2, *shape)
        assert 0.5 < valid.mean() < 1
        for rows, cols in (
            (slice(0, 7), slice(3, shape[1])),
            (slice(5, 11), slice(6, 13)),
            (slice(20, 40), slice(0, 1)),
        ):
            part = image.read(rows, cols)
            np.testing.assert_array_equal(part.valid, valid[rows, cols])
            np.testing.assert_allclose(part.data, data[:, rows, cols], rtol=1e-12)


@pytest.mark.parametrize("phase", [1.5, 2.0])
def test_exp_and_reduction_by_plain_filters(phase: float):
    """EXP wraps round and needs all MS pixels under its filter; the reduction mirrors."""
    rng = np.random.default_rng(5)
    ms, pan = rng.normal(500, 90, (1, 26, 28)), rng.normal(500, 90, (64, 72))
    gap = np.zeros(ms.shape)
    gap[0, 3, 11] = 1
    exp = derived.Expanded(ArrayImage(ms, gap[0] == 0), 4, phase).read(slice(0, 104), slice(0, 112))
    clear, touched = (expand(image, 4, phase, border="wrap") for image in (ms * (gap == 0), gap))
    np.testing.assert_allclose(exp.data, clear, rtol=0, atol=1e-9)
    assert not exp.valid[touched[0] != 0].any()
    rows, cols = (np.flatnonzero(~exp.valid.all(axis=axis)) for axis in (1, 0))
    most = 4 * sum(polyphase("23tap", 4, phase).margins) + 4
    assert len(rows) == len(cols) == most
    assert (~exp.valid).sum() == most**2
    taps = np.array([-7, -45, -75, -49, 93, 399, 745, 987, 987, 745, 399, 93, -49, -75, -45, -7]) / 4096
    mirrored = np.pad(pan, (6, 6), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, (16, 16))[::4, ::4]
    low = derived.Reduced(ArrayImage(pan[None]), 4).read(slice(0, 16), slice(0, 18))
    np.testing.assert_allclose(low.data[0], (windows * np.outer(taps, taps)).sum(axis=(2, 3)), rtol=0, atol=1e-9)
    assert low.valid.all()
