"""The formulas of the metrics on arrays (..., row, col), float64. No tiles, no sums over a scene: those are elsewhere.

The definitions are those of the field's toolbox (Vivone et al. 2015, 2021; Deng et al. 2022), so that numbers compare
with published tables.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pansharpen_cli.metrics import loops

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Real = npt.NDArray[np.floating | np.integer]
Scalar = TypeVar("Scalar", bound=np.generic)

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


def block_moments(one: Real, other: Real, valid: Mask, size: int, shift: int, whole: bool = False) -> Moments:
    """Moments of the blocks of all bands of two images (bands, row, col) together, over the pixels that are `valid`.

    `whole`: of DN rounded half up and clipped to uint16, as the toolbox does before Q2n.
    """
    shape = [(n - size) // shift + 1 for n in valid.shape]
    bands = len(one) + len(other)
    found = Moments(np.empty(shape, np.intp), np.empty((*shape, bands)), np.empty((*shape, bands, bands)))
    one, other = alike(one, other)
    loops.block_moments(one, other, np.ascontiguousarray(valid), size, shift, whole, *found)
    return found


def alike(*images: Real) -> list[Real]:
    """Contiguous images of one type: float32 if all are, so that few loops are compiled, else float64."""
    kind = np.float32 if all(image.dtype == np.float32 for image in images) else np.float64
    return [np.ascontiguousarray(image, kind) for image in images]


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


def q2n(moments: Moments, size: int) -> tuple[Float64, Mask]:
    """Q2n of blocks from the moments of the bands of the reference and then of the fused image, both in whole DN; and
    where a band is flat in the reference (Garzelli and Nencini 2009). `size`: pixels a side of a block, all valid.

    Both images are normalised by the reference's mean and deviation, band by band, to a = (g - mean) / s + 1. The
    product of hypercomplex numbers is bilinear, so a block needs only the matrix of its bands' cross products.
    """
    bands, n = moments.mean.shape[-1] // 2, size**2
    mean, fused_mean = moments.mean[..., :bands], moments.mean[..., bands:]
    spread = np.einsum("...ii->...i", moments.scatter) / n
    variance, fused_variance = spread[..., :bands], spread[..., bands:]
    covariance = moments.scatter[..., :bands, bands:] / n

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


def _components(covariance: Float64, components: int) -> Float64:
    """Hypercomplex covariance (..., components) from the matrix of the bands' covariances."""
    bands = covariance.shape[-1]
    signed = np.zeros((*covariance.shape[:-2], components, components))
    signed[..., :bands, :bands] = covariance * hypercomplex_signs(components)[:bands, :bands]
    i = np.arange(components)
    return np.asarray(signed[..., i[:, None], i[:, None] ^ i].sum(axis=-2))
