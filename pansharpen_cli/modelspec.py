"""What a model says of itself: the contents of spec.json, which also rides in the header of the weights file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pansharpen_cli.errors import ModelError
from pansharpen_cli.radiometry import Radiometry

FORMAT_VERSION = 1

WAVELENGTHS = {
    **{"coastal": 0.43, "blue": 0.48, "green": 0.56, "yellow": 0.605, "red": 0.66, "rededge": 0.725},
    **{"nir": 0.83, "nir2": 0.95, "swir1": 1.65, "swir2": 2.2},
}
"""Centre wavelengths in micrometres that stand for a band's name; sensors differ by some hundredths."""


@dataclass(frozen=True)
class Band:
    """A band the model was trained with: its name and centre wavelength in micrometres (0: unknown)."""

    name: str
    wavelength: float = 0.0


@dataclass(frozen=True)
class ModelSpec:
    """A model: which network with which options, on what scenes, in which units.

    `phase`: MS sample i sits on PAN index ratio * i + phase in the data it was trained with.
    `crop`: PAN pixels a side of the crops its scene statistics are pooled over, as in training (0: it has none).
    `halo`, `multiple_of`, `alignment`: what the network declares of itself, in PAN pixels (see networks/network.py).
    `scores`: validation scores, method or model name -> metric -> value.
    """

    name: str
    network: str
    options: Mapping[str, Any]
    bands: tuple[Band, ...]
    ratio: int
    phase: float
    radiometry: Radiometry
    crop: int = 0
    halo: int = 0
    multiple_of: int = 1
    alignment: int = 1
    licence: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def band_names(self) -> list[str]:
        return [band.name for band in self.bands]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelSpec:
        """Read spec.json; `source` names it in errors. Raises ModelError in one sentence for anything malformed."""
        try:
            raw = json.loads(text)
            if raw.get("format_version") != FORMAT_VERSION:
                raise ModelError(f"{source} has format version {raw.get('format_version')}, not {FORMAT_VERSION}")
            unknown = set(raw) - {f.name for f in fields(cls)}
            if unknown:
                raise ModelError(f"{source} has unknown entries: {', '.join(sorted(unknown))}")
            raw["bands"] = tuple(Band(**band) for band in raw["bands"])
            raw["radiometry"] = Radiometry(**raw["radiometry"])
            spec = cls(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{source} is not a valid model description: {error}") from error
        spec._check(source)
        return spec

    def _check(self, source: str) -> None:
        whole = [("ratio", self.ratio, 1), ("crop", self.crop, 0), ("halo", self.halo, 0)]
        whole += [("multiple_of", self.multiple_of, 1), ("alignment", self.alignment, 1)]
        for name, value, least in whole:
            if not isinstance(value, int) or not least <= value <= 4096:
                raise ModelError(f"{source}: {name} must be a whole number from {least} to 4096, not {value!r}")
        if not self.bands or not isinstance(self.options, dict):
            raise ModelError(f"{source}: bands and options must be given")

    def misfit(self, bands: int, ratio: float, tolerance: float) -> str | None:
        """Why this model cannot sharpen a scene of so many bands and this ratio; None if it can."""
        if bands != len(self.bands):
            return f"it has {len(self.bands)} bands ({', '.join(self.band_names)}), the scene {bands}"
        if abs(ratio / self.ratio - 1) > tolerance:
            return f"it has ratio {self.ratio}, the scene {ratio:.3g}"
        return None

    def order_of(self, names: Sequence[str]) -> list[int] | None:
        """Where the model's bands stand among a scene's band `names` (canonical): the scene's index of each.

        None if the names do not tell (the scene's own order is then the only guess).
        """
        wanted = self.band_names
        if sorted(names) != sorted(wanted) or len(set(names)) != len(names):
            return None
        return [list(names).index(name) for name in wanted]
