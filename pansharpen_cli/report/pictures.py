"""From DN to pictures: one stretch for what is compared, colours by band names, and files as data: URLs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.outputs.quicklook import Bytes, colour_bands
from pansharpen_cli.report.inputs import Float32, Mask

Float64 = npt.NDArray[np.float64]

STRETCH = 1, 98
"""Percentiles of the MS in a crop that become black and white, in the MS as in every product."""
GAMMA = 1.5
"""DN are proportional to light; screens brighten dark values less than eyes expect."""
LEAST = 0.15
"""A stretch spans at least this part of the band's range over the scene: calm water stays calm."""
QUALITY = 92
"""Of JPEG: artefacts are then below what is judged here."""
OVERVIEW_QUALITY = 82

SCALE = (
    *((0, 34, 78), (26, 56, 111), (67, 78, 108), (97, 101, 111), (125, 124, 120), (155, 148, 118)),
    *((188, 174, 108), (222, 201, 88), (254, 232, 56)),
)
"""Dark blue to yellow, its lightness rising evenly, the same to eyes that tell red from green and to those that do not
(cividis: Nunez, Anderton and Renslow 2018), at nine steps."""


@dataclass(frozen=True)
class Colours:
    """Which bands, by index, are shown as red, green and blue, and what that is called."""

    key: str
    title: str
    bands: tuple[int, int, int]


def colours(names: Sequence[str]) -> list[Colours]:
    """How a scene with these bands can be shown: natural colours (or what comes nearest), and infrared if there is."""
    plain = [canonical_band(name) for name in names]
    red, green, blue = (number - 1 for number in colour_bands(plain))
    natural = {"red", "green", "blue"} <= set(plain)
    chosen = f"Bands {red + 1}, {green + 1}, {blue + 1}" if len(plain) >= 3 else "Band 1"
    title = "Natural" if natural else chosen
    shown = [Colours("natural", title, (red, green, blue))]
    if {"nir", "red", "green"} <= set(plain):
        nir, red, green = (plain.index(name) for name in ("nir", "red", "green"))
        shown.append(Colours("infrared", "Infrared", (nir, red, green)))
    return shown


def limits(image: Float32, valid: Mask, scene: Float64) -> Float64:
    """(bands, 2): DN that become black and white, from a crop (bands, h, w) and the bands' ranges over the `scene`."""
    if not valid.any():
        return scene
    found = np.percentile(image[:, valid], STRETCH, axis=1).T
    middle, least = found.mean(axis=1), LEAST * np.diff(scene, axis=1)[:, 0] / 2
    least = np.maximum(least, np.spacing(np.abs(middle).astype(np.float32)))  # a constant band is grey
    half = np.maximum(np.diff(found, axis=1)[:, 0] / 2, least)
    return np.stack([middle - half, middle + half], axis=1)


def shown(image: Float32, dark_bright: Float64) -> Bytes:
    """(bands, h, w) as bytes (h, w, bands)."""
    dark, bright = dark_bright.T[:, :, None, None]
    light = np.clip((image - dark) / (bright - dark), 0, 1)
    return np.asarray(np.rint(255 * light ** (1 / GAMMA)), np.uint8).transpose(1, 2, 0)


def photograph(picture: Bytes, valid: Mask) -> str:
    """(h, w, 1 or 3): a JPEG without coarser colours, or a PNG that is transparent where there is no data."""
    if valid.all():
        return _file(picture, "JPEG", quality=QUALITY, subsampling=0)
    colour = np.broadcast_to(picture, (*picture.shape[:2], 3))
    return _file(np.dstack([colour, np.where(valid, 255, 0).astype(np.uint8)]), "PNG", optimize=True)


def pixels(picture: Bytes, valid: Mask) -> str:
    """(h, w, 3) as a PNG: what is small is shown large, pixel by pixel."""
    opaque = np.where(valid, 255, 0).astype(np.uint8)
    return _file(picture if valid.all() else np.dstack([picture, opaque]), "PNG", optimize=True)


def overview(rgba: Bytes) -> str:
    """(4, h, w), transparent where there is no data."""
    return _file(rgba.transpose(1, 2, 0), "WEBP", quality=OVERVIEW_QUALITY)


def chart(values: Float64, bad: float, good: float) -> str:
    """A map (h, w) on SCALE, dark where it is `bad`, bright where `good`; transparent where NaN."""
    known = np.isfinite(values)
    place = np.clip((np.where(known, values, bad) - bad) / (good - bad), 0, 1)
    steps = np.linspace(0, 1, len(SCALE))
    colour = [np.interp(place, steps, channel) for channel in np.transpose(SCALE)]
    return pixels(np.rint(np.dstack(colour)).astype(np.uint8), known)


def _file(picture: Bytes, kind: str, **options: int | bool) -> str:
    memory = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.squeeze())).save(memory, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(memory.getvalue()).decode()}"
