"""Quality against a truth: formulas on whole images. Arrays (bands, row, col) in DN, computed in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def _pixels(image: Array, valid: Mask | None) -> npt.NDArray[np.float64]:
    """(bands, n) valid pixels."""
    wide = np.asarray(image, dtype=np.float64)
    return wide.reshape(len(wide), -1) if valid is None else wide[:, valid]


def sam(gt: Array, hrms: Array, valid: Mask | None = None) -> float:
    """Mean spectral angle in degrees, 0 is best; pixels that are zero in either image are left out (Yuhas 1992)."""
    truth, fused = _pixels(gt, valid), _pixels(hrms, valid)
    norms = np.sqrt((truth**2).sum(axis=0) * (fused**2).sum(axis=0))
    dark = norms == 0
    cosine = (truth * fused).sum(axis=0)[~dark] / norms[~dark]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def ergas(gt: Array, hrms: Array, ratio: int, valid: Mask | None = None) -> float:
    """Relative global error, 0 is best: 100 / ratio times the root mean square of RMSE over mean (Wald 2000)."""
    truth, fused = _pixels(gt, valid), _pixels(hrms, valid)
    squares = ((truth - fused) ** 2).mean(axis=1) / truth.mean(axis=1) ** 2
    return float(100 / ratio * np.sqrt(squares.mean()))
