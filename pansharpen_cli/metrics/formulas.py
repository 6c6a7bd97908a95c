"""The formulas of the metrics on arrays (..., row, col), float64. No tiles, no sums over a scene: those are elsewhere.

The definitions are those of the field's toolbox (Vivone et al. 2015, 2021; Deng et al. 2022), so that numbers compare
with published tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Real = npt.NDArray[np.floating | np.integer]
Scalar = TypeVar("Scalar", bound=np.generic)

UINT16_MAX = 65535
FLATTEST = 2.0**-52
"""What Q2n takes for the standard deviation of a flat band."""
SSIM_TAPS, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
RHO_FLOOR = 1e-20


def box_sum(image: Float64, size: int) -> Float64:
    """Sums over all size x size windows: (..., row - size + 1, col - size + 1).

    By doubling: without differences of large sums, the same for any cut of the scene, and exact where all pixels of a
    window are equal and `size` is a power of two.
    """
    return _run_sum(_run_sum(image, size, -2), size, -1)


def _run_sum(image: Float64, length: int, axis: int) -> Float64:
    if length == 1:
        return image
    half = length // 2
    part = _run_sum(image, half, axis)
    total = part[_along(axis, None, -half)] + part[_along(axis, half, None)]
    if length % 2:
        total = total[_along(axis, None, -1)] + image[_along(axis, 2 * half, None)]
    return np.asarray(total)


def _along(axis: int, start: int | None, stop: int | None) -> tuple[Any, ...]:
    return (..., slice(start, stop), slice(None)) if axis == -2 else (..., slice(start, stop))


def whole(valid: Mask, size: int) -> Mask:
    """True for the size x size windows that are valid throughout: (row - size + 1, col - size + 1)."""
    if valid.all():
        return np.ones([max(n - size + 1, 0) for n in valid.shape], bool)
    gaps = box_sum((~valid).astype(np.float64), size)
    return np.asarray(gaps == 0)


def spectral_angle(reference: Float64, fused: Float64) -> tuple[Float64, Mask]:
    """Angle in radians between the spectra (bands, row, col) of each pixel, and where neither is zero (Yuhas 1992)."""
    norms = np.sqrt((reference**2).sum(axis=0) * (fused**2).sum(axis=0))
    lit = norms != 0
    cosine = (reference * fused).sum(axis=0) / np.where(lit, norms, 1)
    return np.arccos(np.clip(cosine, -1, 1)), np.asarray(lit)


def sliding_uiqi(x: Float64, y: Float64, size: int) -> Float64:
    """Universal image quality index of all size x size windows of two bands (row, col) (Wang and Bovik 2002)."""
    count = size * size
    sum_x, sum_y = box_sum(x, size), box_sum(y, size)
    product, squares = sum_x * sum_y, sum_x**2 + sum_y**2
    spread = count * box_sum(x**2 + y**2, size) - squares
    common = count * box_sum(x * y, size) - product
    flat, dark = spread == 0, squares == 0
    quality = 2 * product / np.where(dark, 1, squares)
    quality = np.where(flat, quality, quality * 2 * common / np.where(flat, 1, spread))
    return np.asarray(np.where(dark, 1.0, quality))


@lru_cache(maxsize=1)
def _ssim_taps() -> Float64:
    x = np.arange(SSIM_TAPS) - SSIM_TAPS // 2
    taps = np.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    return np.asarray(taps / taps.sum())


def _ssim_mean(image: Float64) -> Float64:
    """Gaussian means at the positions where the window lies inside."""
    taps, last = _ssim_taps(), SSIM_TAPS - 1
    for axis in (-2, -1):
        length = max(image.shape[axis] - last, 0)
        shifted = [image[_along(axis, start, start + length)] for start in range(SSIM_TAPS)]
        total = taps[last // 2] * shifted[last // 2]
        pair = np.empty_like(total)  # one buffer: new memory for each tap costs more than the sums
        for start in range(last // 2):  # the taps are symmetric
            np.add(shifted[start], shifted[last - start], out=pair)
            pair *= taps[start]
            total += pair
        image = total
    return image


def ssim_map(x: Float64, y: Float64) -> Float64:
    """Structural similarity of two bands with peak 1, at the positions whose 11 x 11 window lies inside (Wang 2004)."""
    mean_x, mean_y = _ssim_mean(x), _ssim_mean(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    spread = _ssim_mean(x**2 + y**2) - squares
    common = _ssim_mean(x * y) - product
    return (2 * product + SSIM_C1) * (2 * common + SSIM_C2) / ((squares + SSIM_C1) * (spread + SSIM_C2))


def sobel_magnitude(image: Float64) -> Float64:
    """Gradient by the 3 x 3 Sobel pair at the positions with neighbours all round: (..., row - 2, col - 2)."""
    rows = image[..., :-2, :] + 2 * image[..., 1:-1, :] + image[..., 2:, :]
    cols = image[..., :-2] + 2 * image[..., 1:-1] + image[..., 2:]
    return np.asarray(np.sqrt((rows[..., 2:] - rows[..., :-2]) ** 2 + (cols[..., 2:, :] - cols[..., :-2, :]) ** 2))


def local_detail(image: Float64, half_width: int) -> Float64:
    """`image` minus its local mean, over offsets -w + 1 ... w; zeros outside count in the mean (Scarpa 2022)."""
    return np.asarray(image - _around(image, half_width) / (4 * half_width**2))


def local_correlation(detail_x: Float64, detail_y: Float64, half_width: int) -> Float64:
    """Correlation of two details (..., row, col) over offsets -w + 1 ... w, zeros outside."""
    energy = np.maximum(_around(detail_x**2, half_width), RHO_FLOOR)
    energy = energy * np.maximum(_around(detail_y**2, half_width), RHO_FLOOR)
    return _around(detail_x * detail_y, half_width) / (np.sqrt(energy) + RHO_FLOOR)


def _around(image: Float64, half_width: int) -> Float64:
    pad = [(0, 0)] * (image.ndim - 2) + [(half_width - 1, half_width)] * 2
    return box_sum(np.pad(image, pad), 2 * half_width)


class Moments(NamedTuple):
    """Of the bands in blocks (block row, block col): the number of `pixels` (...), their `mean` (..., bands), and
    `scatter` (..., bands, bands), the sums of products of deviations."""

    pixels: npt.NDArray[np.intp]
    mean: Float64
    scatter: Float64


def blocks(image: npt.NDArray[Scalar], size: int, shift: int) -> npt.NDArray[Scalar]:
    """Blocks of an image (..., row, col), one every `shift` pixels: a view (..., block row, block col, size, size)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(-2, -1))
    return windows[..., ::shift, ::shift, :, :]


def block_moments(images: Sequence[Real], valid: Mask, size: int) -> Moments:
    """Moments of the blocks of all bands of `images` (bands, row, col) together, over the pixels that are `valid`."""
    every = [blocks(image, size, size) for image in images]
    shape, n = every[0].shape[1:3], size * size
    deviations = np.empty((sum(map(len, every)), *shape, n))
    np.concatenate(every, out=deviations.reshape(-1, *shape, size, size))
    gaps = None if valid.all() else ~blocks(valid, size, size).reshape(*shape, n)
    if gaps is not None:
        deviations[:, gaps] = 0
    count = np.full(shape, n) if gaps is None else n - np.count_nonzero(gaps, axis=-1)
    mean = deviations.sum(axis=-1) / np.maximum(count, 1)
    # deviations first, then products: sums of squares would lose small variances
    deviations -= mean[..., None]
    if gaps is not None:
        deviations[:, gaps] = 0
    return Moments(count, np.moveaxis(mean, 0, -1), _products(deviations))


def _products(vectors: Float64) -> Float64:
    """Sums of products of all pairs of `vectors` (number, ..., pixels): (..., number, number).

    The last is left out of one factor: NumPy would take another routine of BLAS for the product of a matrix with its
    own transpose, one that is three times slower for few rows.
    """
    result = np.empty((*vectors.shape[1:-1], len(vectors), len(vectors)))
    rows = np.moveaxis(vectors, 0, -2)
    result[..., :-1, :] = rows[..., :-1, :] @ rows.swapaxes(-1, -2)
    result[..., -1, :-1] = result[..., :-1, -1]
    result[..., -1, -1] = _squares(vectors[-1])
    return result


def _squares(vectors: Float64) -> Float64:
    return np.asarray(np.einsum("...n,...n->...", vectors, vectors))


def uiqi_matrix(mean: Float64, covariance: Float64, flat: float) -> Float64:
    """UIQI of all pairs of bands: `mean` (..., bands) and `covariance` (..., bands, bands) -> (..., bands, bands).

    NaN where it is undefined: both bands are zero on average, or both flat. A band is flat if its standard deviation
    is at most `flat` times its mean.
    """
    variance = np.einsum("...ii->...i", covariance)
    variance = np.where(variance <= (flat * mean) ** 2, 0, variance)
    squares = mean[..., :, None] ** 2 + mean[..., None, :] ** 2
    product = mean[..., :, None] * mean[..., None, :]
    below = (variance[..., :, None] + variance[..., None, :]) * squares
    defined = below > 0
    return np.where(defined, 4 * covariance * product / np.where(defined, below, 1), np.nan)


@lru_cache(maxsize=8)
def hypercomplex_signs(components: int) -> Float64:
    """Signs of a_i b_j in the product of a and the conjugate of b; it adds to component i xor j.

    `components` is a power of two; (components, components), row i of a, column j of b (Garzelli and Nencini 2009).
    """
    signs = np.ones((1, 1))
    while len(signs) < components:
        conjugate = np.where(np.arange(len(signs)) == 0, 1.0, -1.0)
        signs = np.block(
            [[signs, signs * np.outer(conjugate, conjugate)],
             [signs.T * conjugate[:, None], -signs.T * conjugate]]
        )  # fmt: skip
    signs[:, 1:] *= -1  # the conjugate of b
    return signs


def whole_numbers(image: Float64, size: int, shift: int) -> Float64:
    """Blocks (bands, block row, block col, pixels) of an image (bands, row, col), rounded half up and clipped to uint16
    as the toolbox does before Q2n."""
    every = blocks(image, size, shift)
    result = np.empty(every.shape)
    for band, block in zip(every, result, strict=True):  # one fits into the processor's cache
        np.add(band, 0.5, out=block)
        np.floor(block, out=block)
        np.clip(block, 0, UINT16_MAX, out=block)
    return result.reshape(*result.shape[:3], -1)


def q2n(reference: Float64, fused: Float64) -> tuple[Float64, Mask]:
    """Q2n of blocks of `whole_numbers`, and where a band is flat in the reference (Garzelli and Nencini 2009).

    Both images are normalised by the reference's mean and deviation, band by band, to a = (g - mean) / s + 1. The
    product of hypercomplex numbers is bilinear, so a block needs only the matrix of its bands' cross products.
    """
    bands, n = len(reference), reference.shape[-1]
    # nothing is lost in these differences: whole uint16 numbers, and n is a power of two up to 1024
    mean, variance = _spread(reference)
    fused_mean, fused_variance = _spread(fused)
    products = np.moveaxis(reference, 0, -2) @ np.moveaxis(fused, 0, -1)
    covariance = products / n - mean[..., :, None] * fused_mean[..., None, :]

    unbias = n / (n - 1)
    scale = np.where(variance > 0, np.sqrt(unbias * variance), FLATTEST)
    fused_scale = np.where(mean == 0, 1, scale)  # a band without signal in the reference stays in DN
    level = (fused_mean - mean) / fused_scale + 1
    cross = covariance / scale[..., :, None] / fused_scale[..., None, :]
    spread = unbias * (variance / scale**2 + fused_variance / fused_scale**2).sum(axis=-1)

    components = 1 << (bands - 1).bit_length()
    empty = components - bands  # bands of zeros are added: both normalised images are 1 there
    norms = np.sqrt(components), np.sqrt((level**2).sum(axis=-1) + empty)
    bias = 2 * norms[0] * norms[1] / (norms[0] ** 2 + norms[1] ** 2)
    common = 2 * unbias * np.linalg.norm(_components(cross, components), axis=-1)
    quality = np.where(spread > 0, bias * common / np.where(spread > 0, spread, 1), bias)
    return quality, np.asarray((variance == 0).any(axis=-1))


def _spread(numbers: Float64) -> tuple[Float64, Float64]:
    """Mean and variance (..., bands) of blocks of `whole_numbers`."""
    n = numbers.shape[-1]
    mean = numbers.sum(axis=-1) / n
    return np.moveaxis(mean, 0, -1), np.moveaxis(_squares(numbers) / n - mean**2, 0, -1)


def _components(covariance: Float64, components: int) -> Float64:
    """Hypercomplex covariance (..., components) from the matrix of the bands' covariances."""
    bands = covariance.shape[-1]
    signed = np.zeros((*covariance.shape[:-2], components, components))
    signed[..., :bands, :bands] = covariance * hypercomplex_signs(components)[:bands, :bands]
    i = np.arange(components)
    return np.asarray(signed[..., i[:, None], i[:, None] ^ i].sum(axis=-2))
