"""What PAN and MS of a scene tell of each other: how they lie, and when to act on it; how sharp the MS is. The
measurements themselves are imaging/registration.py and imaging/sharpness.py."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.displacement import AGREEMENT, IN_PLACE, Displacement
from pansharpen_cli.imaging.interpolation import area_phase, expand
from pansharpen_cli.imaging.mtf import MEASURED, SENSORS, Sensor, find_sensor
from pansharpen_cli.imaging.polynomial import Polynomial
from pansharpen_cli.imaging.registration import Shift, WindowShift, combine, window_shift
from pansharpen_cli.imaging.sharpness import Likeness, measured_gain
from pansharpen_cli.imaging.tiling import Pixels
from pansharpen_cli.inputs.canvas import Canvas, SceneCanvas
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.system import settings
from pansharpen_cli.system.concurrency import cores, in_order

log = logging.getLogger(__name__)

Choice = Literal["off", "report", "auto"] | tuple[float, float] | Displacement

WINDOW = 256
"""PAN pixels a side of the windows that are compared, half as many on a small scene: several must agree."""
MOST_WINDOWS = 5
"""Windows along an axis."""
TRUSTED = 0.5
"""Confidence from which a measured shift is applied."""
NOTICEABLE = 0.1
"""PAN pixels below which it is not, nor if the windows spread further: it would gain less than 0.2 % of ERGAS, and cost
an interpolation. Twice that if fewer than SEVERAL windows tell it."""
SEVERAL = 4


def parse(text: str) -> Choice:
    """`off`, `report`, `auto` or `DX,DY` in PAN pixels, right and down positive."""
    if text in ("off", "report", "auto"):
        return text  # type: ignore[return-value]
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)"
    if re.fullmatch(rf"{number},{number}", text):
        dx, dy = map(float, text.split(","))
        return dx, dy
    raise UsageError(f"--coregister takes off, report, auto or DX,DY in PAN pixels, not {text!r}")


def given(choice: Any, what: str) -> Choice:
    """A choice as Python has it: a text, two numbers of whatever type, or a displacement. Raises UsageError."""
    if isinstance(choice, str):
        return parse(choice)
    if isinstance(choice, Displacement):
        return _plain(choice, what)
    if not isinstance(choice, Iterable):
        raise UsageError(f'{what} takes "off", "report", "auto" or (DX, DY) in PAN pixels, not {choice!r}')
    numbers = settings.several(choice, what, settings.finite)
    if len(numbers) != 2:
        raise UsageError(f"{what} takes DX and DY, not {choice!r}")
    return numbers[0], numbers[1]


def _plain(choice: Displacement, what: str) -> Displacement:
    """The same in numbers of Python. Raises UsageError."""
    if choice.field is None:
        return Displacement(settings.finite(choice.dx, what), settings.finite(choice.dy, what))
    try:
        return Displacement.of(Polynomial.of(**vars(choice.field)))
    except (ValueError, TypeError):
        raise UsageError(f"{what} takes a field of finite pixels, not {choice.field!r}") from None


@dataclass(frozen=True)
class Place:
    """A window: its centre in PAN pixels of the PAN file, and the shift it shows, None if it shows none."""

    row: float
    col: float
    shift: WindowShift | None

    def agrees(self, shift: Shift) -> bool:
        """True if it is one of those that speak for `shift`."""
        own = self.shift
        if own is None or own.strength <= 0:
            return False
        dx, dy = shift.displacement.at(np.array(self.col), np.array(self.row))
        return bool(np.hypot(own.dx - dx, own.dy - dy) <= AGREEMENT)


def measure(canvas: Canvas) -> Shift:
    """The residual shift of a scene on a canvas of the area phase that was not shifted before."""
    return together(list(windows(canvas)))


def together(places: Sequence[Place]) -> Shift:
    """What windows all over a scene tell."""
    return combine([place.shift for place in places], [(place.col, place.row) for place in places])


def windows(canvas: Canvas) -> Iterator[Place]:
    """Windows all over the scene, and the shift that each of them shows."""
    ratio = canvas.ratio
    kernel = "23tap" if ratio in (2, 4, 8) else "cubic"

    def compare(pixels: Pixels) -> Place:
        exp = expand(pixels.ms, ratio, area_phase(ratio), kernel)
        return Place(*canvas.middle(pixels.tile), window_shift(pixels.pan[0], exp, pixels.valid, ratio))

    return in_order(compare, _crops(canvas), cores())


def measured_sensor(canvas: Canvas, shift: Shift) -> Sensor:
    """The MS camera as the scene shows it, on the same canvas, whose PAN lies off by `shift`; else generic."""
    gain = measure_gain(canvas, shift)
    if gain is None:
        return SENSORS["generic"]
    log.info("beside its PAN the MS is as sharp as an MTF gain of %.2f", gain)
    return find_sensor(f"{gain:.2f}")


def sensor_of(scene: Scene) -> Sensor:
    """The same of a scene as it lies in its files. Raises SceneError."""
    canvas = SceneCanvas.of(scene)
    return measured_sensor(canvas, measure(canvas))


def find_or_measure(text: str, pan: str | Path, ms: Sequence[str | Path]) -> Sensor:
    """The sensor that `text` names, or the one measured in these files. Raises UsageError, SceneError."""
    if text != MEASURED:
        return find_sensor(text)
    with Scene.open(pan, *ms) as scene:
        return sensor_of(scene)


def measure_gain(canvas: Canvas, shift: Shift) -> float | None:
    """The MTF gain of the MS camera beside the PAN, on the same canvas, whose PAN lies off by `shift`; None if the
    scene does not tell."""

    def compare(pixels: Pixels) -> Likeness | None:
        pan, ms = pixels.pan[0].astype(np.float64), pixels.ms.astype(np.float64)
        row, col = canvas.middle(pixels.tile)
        dx, dy = shift.displacement.at(np.array(col), np.array(row))
        return Likeness.of_window(pan, ms, float(dx), float(dy)) if pixels.valid.all() else None

    found = in_order(compare, _crops(canvas), cores())
    return measured_gain([window for window in found if window is not None])


def _crops(canvas: Canvas) -> Iterator[Pixels]:
    small = min(canvas.rows.size, canvas.cols.size) < 2 * WINDOW
    return canvas.crops(WINDOW // 2 if small else WINDOW, MOST_WINDOWS)


def to_apply(choice: Choice, measured: Shift) -> Displacement:
    """What to put the scene on a canvas with."""
    if isinstance(choice, Displacement):
        return choice
    if isinstance(choice, tuple):
        return Displacement(*choice)
    sure = measured.confidence >= TRUSTED and is_noticeable(measured)
    return measured.displacement if choice == "auto" and sure else IN_PLACE


def as_tags(applied: Displacement) -> dict[str, str]:
    """What tells of it in a product."""
    tags = {"SHIFT_APPLIED": f"{applied.dx:.4f},{applied.dy:.4f}"}
    return tags | {"SHIFT_FIELD": json.dumps(asdict(applied.field))} if applied.field else tags


def from_tags(tags: Mapping[str, str]) -> Displacement:
    """What the tags of a product tell; none if they do not. Raises ValueError or TypeError for what makes no sense."""
    if "SHIFT_FIELD" in tags:
        return Displacement.of(Polynomial.of(**json.loads(tags["SHIFT_FIELD"])))
    dx, dy = (float(part) for part in tags.get("SHIFT_APPLIED", "0,0").split(","))
    if not np.isfinite([dx, dy]).all():
        raise ValueError(tags["SHIFT_APPLIED"])
    return Displacement(dx, dy)


def is_noticeable(measured: Shift) -> bool:
    """Whether it is worth correcting, if it is true. A field is: else one shift would tell the windows as well."""
    least = NOTICEABLE if measured.windows >= SEVERAL else 2 * NOTICEABLE
    return measured.field is not None or measured.length >= max(least, measured.spread)
