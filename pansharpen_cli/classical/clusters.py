"""C-BDSD: band-dependent spatial detail, learnt for each kind of ground by itself, and how the kinds are found."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pansharpen_cli.classical.bdsd import lower_scale, lower_scale_halo
from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import Moments, regression
from pansharpen_cli.errors import NothingSharedError
from pansharpen_cli.imaging.interpolation import Array, Float64
from pansharpen_cli.imaging.tiling import Pixels

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.intp]

CLUSTERS = 30
WINDOW = 51
"""PAN pixels a side of the square in which the standard deviation is a feature."""
SAMPLE = 1 << 13
"""MS pixels from which the clusters are found."""
STARTS, ROUNDS = 2, 100
"""k-means starts anew so many times, and goes so many rounds at most."""
SEED = 0
FEWEST = 2
"""MS pixels for each unknown that a cluster needs to have a model of its own."""
_STRIP = 16
"""Rows taken at once: what is computed from them stays in the cache."""


class CBdsd(Method):
    """F_b = E_b + [E_1 ... E_B, P, 1] g_kb in the pixels of cluster k: g_kb from the regression of T_b - L_b on
    [L_1 ... L_B, q, 1] in its MS pixels.

    The clusters are found by k-means, always with the same seed, in two features of a PAN pixel, each over its maximum:
    the standard deviation around it, and its value. A cluster takes the model of the whole scene if one of its gains of
    the PAN is negative, or if it has too few pixels. (In the toolbox all later clusters follow if the model of the
    whole scene has a negative one too. The order of clusters is random, so here each is judged by itself.)
    """

    title = "C-BDSD (band-dependent spatial detail by clusters)"
    citation = "Garzelli 2015, IEEE TGRS 53(4)"

    @property
    def halo(self) -> int:
        return max(lower_scale_halo(self.camera), WINDOW // 2)

    def observe(self, tiles: Iterable[Pixels]) -> None:
        self.statistics = self._find_clusters(tiles)
        self.statistics["gains"] = self._learn(tiles)

    def cluster(self, sample: Float64) -> Float64:
        """Centres (K, 2) of the clusters in a `sample` of the scene's features (n, 2)."""
        return k_means(sample, CLUSTERS)

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        labels = nearest(features(pan) / statistics["scale"], statistics["centres"])
        sources = np.concatenate([self.camera.expand(ms), pan])
        hrms = sources[:-1].copy()
        for b, gains in enumerate(statistics["gains"].T):
            for source, gain in zip(sources, gains, strict=False):  # the constant has no source
                hrms[b] += gain[labels] * source
            hrms[b] += gains[-1][labels]
        return hrms

    def _find_clusters(self, tiles: Iterable[Pixels]) -> Statistics:
        peaks, sample = np.zeros(2), Sample(SAMPLE)
        for pixels in tiles:
            found, tile = features(pixels.pan), pixels.tile
            peaks = np.maximum(peaks, found[:, *tile.inner][:, pixels.valid[tile.inner]].max(axis=1, initial=0))
            tile = tile.coarser(self.camera.ratio)
            rows, cols = np.nonzero(pixels.ms_valid[tile.inner])
            at_ms = found[self._at_ms][:, *tile.inner][:, rows, cols]
            sample.add(at_ms.T, tile.rows.start + rows, tile.cols.start + cols)
        if not len(sample.values):
            raise NothingSharedError("no whole MS pixel where both hold data")
        scale = np.where(peaks > 0, peaks, 1)
        return {"scale": scale[:, None, None], "centres": self.cluster(sample.values / scale)}

    def _learn(self, tiles: Iterable[Pixels]) -> Float64:
        """g (K, B + 2, B)."""
        scene, clusters = Moments(), [Moments() for _ in self.statistics["centres"]]
        for pixels in tiles:
            pan, ms = pixels.pan.astype(np.float64), pixels.ms.astype(np.float64)
            inner = pixels.tile.coarser(self.camera.ratio).inner
            valid = pixels.ms_valid[inner]
            labels = nearest(features(pan)[self._at_ms] / self.statistics["scale"], self.statistics["centres"])
            labels = labels[inner][valid]
            layers = lower_scale(self.camera, pan, ms)
            samples = np.concatenate(layers)[:, None, *inner][..., valid]
            for moments, own in [(scene, labels >= 0), *((c, labels == k) for k, c in enumerate(clusters))]:
                moments.add([samples], own[None])
        return _gains(scene, clusters)

    @property
    def _at_ms(self) -> tuple[slice, ...]:
        """The PAN pixels that are nearest to the MS samples."""
        every = slice(int(self.camera.phase + 0.5), None, self.camera.ratio)
        return slice(None), every, every


def _gains(scene: Moments, clusters: list[Moments]) -> Float64:
    """g (K, B + 2, B) of clusters that can have a model of their own, and else that of the scene."""
    of_scene = _model(scene)
    models = [_model(cluster) if cluster.count >= FEWEST * len(of_scene) else of_scene for cluster in clusters]
    models = [of_scene if (gains[-2] < 0).any() else gains for gains in models]
    others = sum(gains is of_scene for gains in models)
    log.info("%d of %d clusters take the model of the whole scene", others, len(models))
    return np.stack(models)


def _model(moments: Moments) -> Float64:
    """g (B + 2, B): regression of the last B values on the B + 1 before them and a constant, which is last."""
    bands = len(moments.mean) // 2
    covariance, mean = moments.covariance, moments.mean
    gains = regression(covariance[: bands + 1, : bands + 1], covariance[: bands + 1, bands + 1 :])
    return np.vstack([gains, mean[bands + 1 :] - mean[: bands + 1] @ gains])


def features(pan: Array) -> Float64:
    """Of PAN pixels (1, H, W): the standard deviation in the square around them (n - 1, the border mirrored), and their
    value: (2, H, W). To the last bit the same however the scene is cut, so that no pixel changes its cluster.
    """
    value = pan[0].astype(np.float64)
    count = WINDOW**2
    total = _in_windows(value)
    squares = _in_windows(value**2) - total**2 / count
    return np.stack([np.sqrt(np.maximum(squares, 0) / (count - 1)), value])


def _in_windows(image: Float64) -> Float64:
    """Sums over squares of WINDOW pixels a side around each pixel.

    Put together from sums of 1, 2, 4 ... pixels: the same additions for every pixel, unlike running sums.
    """
    half = WINDOW // 2
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 0)
        size = len(lines)
        run = np.pad(lines, [(half, half), (0, 0)], mode="symmetric")
        total, start = np.zeros_like(lines), 0
        for length in (1 << bit for bit in range(WINDOW.bit_length())):
            if WINDOW & length:
                total += run[start : start + size]
                start += length
            run = run[:-length] + run[length:]
        image = np.moveaxis(total, 0, axis)
    return image


def nearest(features: Array, centres: Array) -> Labels:
    """Which of the `centres` (K, 2) is nearest to each pixel of `features` (2, H, W), or the first of them: (H, W)."""
    labels = np.zeros(features.shape[1:], np.intp)
    for row in range(0, len(labels), _STRIP):
        strip, of_strip = features[:, row : row + _STRIP], labels[row : row + _STRIP]
        least = np.full(of_strip.shape, np.inf)
        for k, (deviation, value) in enumerate(centres):
            distance = (strip[0] - deviation) ** 2 + (strip[1] - value) ** 2
            of_strip[distance < least] = k
            np.minimum(least, distance, out=least)
    return labels


class Sample:
    """At most `size` vectors from evenly all over the scene: the same ones, in the same order, however it is cut."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: Float64 = np.zeros((0, 0))
        self._keys = np.zeros(0, np.uint64)

    def add(self, values: Float64, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> None:
        """Take in vectors (n, d) and their places in the scene; those with the lowest keys are kept."""
        keys = np.concatenate([self._keys, _scrambled(rows, cols)])
        order = np.argsort(keys)[: self.size]
        self.values = np.concatenate([self.values.reshape(-1, values.shape[1]), values])[order]
        self._keys = keys[order]


def _scrambled(rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
    """A number for each place, as if drawn by chance; no two alike (splitmix64, Steele et al. 2014)."""
    x = (rows.astype(np.uint64) << np.uint64(32)) + cols.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def k_means(points: Float64, clusters: int) -> Float64:
    """Centres (clusters, d) of `points` (n, d): Lloyd's algorithm from k-means++ starts (Arthur & Vassilvitskii 2007),
    the best of them. A cluster that loses all its points keeps its centre.
    """
    random = np.random.default_rng(SEED)
    found = [_lloyd(points, _start(points, clusters, random)) for _ in range(STARTS)]
    return min(found, key=lambda centres: float(_distances(points, centres).min(axis=1).sum()))


def _start(points: Float64, clusters: int, random: np.random.Generator) -> Float64:
    """Points, each drawn with a chance in proportion to its squared distance from those drawn before."""
    drawn = [int(random.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    while len(drawn) < clusters:
        distance = np.minimum(distance, ((points - points[drawn[-1]]) ** 2).sum(axis=1))
        reach = distance.cumsum()
        place = int(np.searchsorted(reach, random.random() * reach[-1], side="right"))
        drawn.append(min(place, len(points) - 1))  # beyond the last if all points are drawn
    return points[drawn]


def _lloyd(points: Float64, centres: Float64) -> Float64:
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        before, labels = labels, _distances(points, centres).argmin(axis=1)
        if (labels == before).all():
            break
        counts = np.bincount(labels, minlength=len(centres))
        sums = np.stack([np.bincount(labels, weights=axis, minlength=len(centres)) for axis in points.T], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return centres


def _distances(points: Float64, centres: Float64) -> Float64:
    """(n, clusters): squared, less what is the same for all centres."""
    return np.asarray((centres**2).sum(axis=1) - 2 * points @ centres.T)
