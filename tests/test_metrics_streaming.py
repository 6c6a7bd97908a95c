"""A score does not depend on how the scene was cut, and the scene is never in memory."""

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pansharpen_cli import metrics
from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.metrics import FULL, OPTIONAL, REDUCED, ArrayImage
from pansharpen_cli.metrics.image import Cropped, Held, Locked, pixels_beyond
from pansharpen_cli.metrics.streaming import Score, cores

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
