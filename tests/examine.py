"""What must be so after a run, whatever happened to it: the product is right or it is not there, the exit code says
which, one sentence says why, and nothing else is left. Each function returns a complaint, or nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Set
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from zygote import PATIENCE, Ended


def told(ended: Ended, codes: Set[int], culprit: str = "") -> str:
    """The exit code is one of `codes`; unless it is 0, one sentence on stderr ends all, and names the `culprit`."""
    if ended.code is None:
        return f"it hung for {PATIENCE} s"
    if ended.code not in codes:
        return f"it ended with {ended.code}: {ended.err.strip()[-300:]}"
    if "Traceback" in ended.err or "unexpected" in ended.err:
        return f"not for users: {ended.err.strip()[-600:]}"
    if ended.code <= 0:
        return ""
    lines = ended.err.splitlines()
    sentences = [line for line in lines if line.startswith("pansharpen: ")]
    if len(sentences) != 1 or lines[-1] != sentences[0]:
        return f"not one sentence: {ended.err.strip()[-600:]!r}"
    return "" if culprit in sentences[0] else f"{culprit} is not named: {sentences[0]}"


def left_over(folder: Path, before: Set[str], *more: str) -> str:
    """Nothing is new in the folder but what is told."""
    new = sorted(set(os.listdir(folder)) - before - set(more))
    return f"left over: {', '.join(new)}" if new else ""


def wrong_product(pan: Path, ms: Path, product: Path) -> str:
    """It opens, reads whole, lies on the PAN's pixels, has the MS's bands and type, and data where both have, or fewer.

    The files are read here by rasterio alone, by GDAL's own masks; PAN and MS are of one CRS, or only the PAN counts,
    unless it tells none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with rasterio.open(pan) as sharp, rasterio.open(ms) as coarse, rasterio.open(product) as made:
                return _compare(sharp, coarse, made)
        except rasterio.errors.RasterioIOError as error:
            return f"it cannot be read: {error.__cause__ or error}"


def _compare(sharp: rasterio.DatasetReader, coarse: rasterio.DatasetReader, made: rasterio.DatasetReader) -> str:
    plain = sharp.transform.is_identity
    col, row = (0, 0) if plain else ~sharp.transform @ (made.transform.c, made.transform.f)
    inside = -1e-3 <= row <= sharp.height - made.height + 1e-3 and -1e-3 <= col <= sharp.width - made.width + 1e-3
    if not inside or abs(row - round(row)) + abs(col - round(col)) > 1e-3:
        return f"it lies at PAN pixel ({row}, {col}) with {made.shape} pixels"
    if made.crs != (sharp.crs or (None if plain else coarse.crs)) or set(made.dtypes) - set(coarse.dtypes):
        return f"it has {made.crs}, {made.dtypes}"
    if made.scales != coarse.scales[: made.count] and np.isfinite(coarse.scales).all() and all(coarse.scales):
        return f"its DN mean {made.scales}, those of the MS {coarse.scales}"
    hrms, valid = made.read(), made.dataset_mask() > 0
    if not np.isfinite(hrms[:, valid].astype(np.float64)).all():
        return "it has NaN or infinity where its mask says data"
    rows, cols = slice(round(row), round(row) + made.height), slice(round(col), round(col) + made.width)
    no_pan = ~has_data(sharp)[rows, cols]
    complaint = _any(valid & no_pan, "pixels have a value where the PAN has none")
    if made.crs == coarse.crs and not complaint:
        no_ms = ~_under(has_data(coarse), sharp, coarse, rows, cols, plain)
        complaint = _any(valid & no_ms, "pixels have a value where the MS has none")
        complaint = complaint or _any(~valid & ~no_pan & ~no_ms, "valid pixels have no value")
    return complaint


def _any(wrong: np.ndarray, words: str) -> str:
    return f"{wrong.sum()} {words}" if wrong.any() else ""


def has_data(file: rasterio.DatasetReader) -> np.ndarray:
    """(h, w): some band has data, and none holds NaN or infinity."""
    bands = [index for index, colour in zip(file.indexes, file.colorinterp, strict=True) if colour != ColorInterp.alpha]
    pixels = file.read(bands).astype(np.float64)
    return (file.read_masks(bands) > 0).any(axis=0) & np.isfinite(pixels).all(axis=0)


def _under(
    data: np.ndarray,
    sharp: rasterio.DatasetReader,
    coarse: rasterio.DatasetReader,
    rows: slice,
    cols: slice,
    plain: bool,
) -> np.ndarray:
    """`data` of the MS (h, w) at the PAN pixels' centres."""
    y, x = np.arange(rows.start, rows.stop) + 0.5, np.arange(cols.start, cols.stop) + 0.5
    if plain:
        row, col = y * coarse.height / sharp.height, x * coarse.width / sharp.width
    else:
        p, m = sharp.transform, coarse.transform
        row, col = (p.f + p.e * y - m.f) / m.e, (p.c + p.a * x - m.c) / m.a
    row, col = (
        np.clip(np.floor(np.where(np.abs(v - np.rint(v)) < 1e-6, np.rint(v), v)), 0, n - 1).astype(int)
        for v, n in ((row, coarse.height), (col, coarse.width))
    )
    return data[row[:, None], col]
