"""Rational polynomials (RPCs): where a place on the ground lies in an image that is in no map projection.

The field's RPC00B (STDI-0002, The Compendium of Controlled Extensions for NITF): latitude, longitude and height,
each shifted and scaled to -1 ... 1, give line and sample as quotients of two polynomials of the third degree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

KNOWN = 1.3
"""Times its scale that a place may lie from the middle of the ground it was made for."""
ALIKE = 1e-9
"""Relative difference of numbers that went through text."""


@dataclass(frozen=True)
class Rpc:
    """Offsets and scales of line and sample (pixels, the first one's centre at 0), latitude and longitude (WGS 84,
    degrees) and height (m above the ellipsoid); then 20 coefficients each. `err_bias`, `err_rand`: m, if known."""

    line_off: float
    samp_off: float
    lat_off: float
    long_off: float
    height_off: float
    line_scale: float
    samp_scale: float
    lat_scale: float
    long_scale: float
    height_scale: float
    line_num_coeff: tuple[float, ...]
    line_den_coeff: tuple[float, ...]
    samp_num_coeff: tuple[float, ...]
    samp_den_coeff: tuple[float, ...]
    err_bias: float | None = None
    err_rand: float | None = None

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Rpc:
        """From values by these names. Raises TypeError for a missing one."""
        values: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in numbers.items()}
        return cls(**values)

    @property
    def sound(self) -> bool:
        """Whether it says where anything lies at all."""
        scales = self.line_scale, self.samp_scale, self.lat_scale, self.long_scale, self.height_scale
        polynomials = self._polynomials
        return (
            bool(np.isfinite(self._scalars).all())
            and all(scales)
            and all(len(one) == 20 and np.isfinite(one).all() and any(one) for one in polynomials)
        )

    @property
    def _scalars(self) -> tuple[float, ...]:
        return astuple(self)[:10]

    @property
    def _polynomials(self) -> tuple[tuple[float, ...], ...]:
        return self.line_num_coeff, self.line_den_coeff, self.samp_num_coeff, self.samp_den_coeff

    def edges(self, lat: Float64, long: Float64, height: float) -> tuple[Float64, Float64]:
        """Edge coordinates (row, col) in the image of places on the ground. NaN or infinite where a pole lies."""
        with np.errstate(all="ignore"):
            terms = _terms(
                self._away(long) / self.long_scale,
                (lat - self.lat_off) / self.lat_scale,
                np.full_like(lat, (height - self.height_off) / self.height_scale),
            )
            line_num, line_den, samp_num, samp_den = (
                np.tensordot(coefficients, terms, axes=1) for coefficients in self._polynomials
            )
            row = line_num / line_den * self.line_scale + self.line_off + 0.5
            col = samp_num / samp_den * self.samp_scale + self.samp_off + 0.5
        return row, col

    def knows(self, lat: Float64, long: Float64) -> npt.NDArray[np.bool_]:
        """Whether places are among those that it was made for, or near; beyond, its quotients mean nothing."""
        across = np.abs(self._away(long)) <= KNOWN * abs(self.long_scale)
        return np.asarray(across & (np.abs(lat - self.lat_off) <= KNOWN * abs(self.lat_scale)))

    def _away(self, long: Float64) -> Float64:
        """From the middle, across the 180th meridian, too."""
        return (long - self.long_off + 180) % 360 - 180

    def ground(self, side: int) -> tuple[Float64, Float64]:
        """Latitudes and longitudes (`side`, `side`) all over the ground that it was made for."""
        steps = np.linspace(-1, 1, side)
        lat, long = np.meshgrid(steps * self.lat_scale, steps * self.long_scale)
        return self.lat_off + lat, self.long_off + long

    def crop(self, row: int, col: int) -> Rpc:
        """Of the image that begins at this pixel."""
        return replace(self, line_off=self.line_off - row, samp_off=self.samp_off - col)

    def coarsened(self, step: int) -> Rpc:
        """Of the image with pixels `step` times as large."""
        return replace(
            self,
            line_off=(self.line_off + 0.5) / step - 0.5,
            samp_off=(self.samp_off + 0.5) / step - 0.5,
            line_scale=self.line_scale / step,
            samp_scale=self.samp_scale / step,
        )

    def origin_in(self, other: Rpc) -> tuple[float, float] | None:
        """The pixel (row, col) of the `other` image at which this one begins; None if it is no crop of that."""
        same = _alike(self._scalars[2:], other._scalars[2:]) and all(map(_alike, self._polynomials, other._polynomials))
        return (other.line_off - self.line_off, other.samp_off - self.samp_off) if same else None


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.allclose(one, other, rtol=ALIKE, atol=1e-30))


def _terms(long: Float64, lat: Float64, height: Float64) -> Float64:
    """The 20 terms in the order of RPC00B, along a new first axis."""
    one = np.ones_like(lat)
    return np.stack(
        [
            one, long, lat, height, long * lat, long * height, lat * height, long**2, lat**2, height**2,
            lat * long * height, long**3, long * lat**2, long * height**2, long**2 * lat, lat**3, lat * height**2,
            long**2 * height, lat**2 * height, height**3,
        ]
    )  # fmt: skip
