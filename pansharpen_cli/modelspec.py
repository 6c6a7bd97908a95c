"""What a model says of itself: the contents of spec.json, which also rides in the header of the weights file."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pansharpen_cli.errors import ModelError
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.tiling import Reach

FORMAT_VERSION = 1
LARGEST_OPTION = 1024
"""Of the numbers that describe a network: channels, layers."""

SCORES = "scores give every method an ergas and numbers alone, none below 0, and EXP's above"

WAVELENGTHS = {
    **{"coastal": 0.43, "blue": 0.48, "green": 0.56, "yellow": 0.605, "red": 0.66, "rededge": 0.725},
    **{"nir": 0.83, "nir2": 0.95, "swir1": 1.65, "swir2": 2.2},
}
"""Centre wavelengths in micrometres that stand for a band's name; sensors differ by some hundredths."""


_ALIASES = {
    "nir1": "nir",
    "nearinfrared": "nir",
    "coastalblue": "coastal",
    "coastalaerosol": "coastal",
    "swir": "swir1",
}


def canonical_band(name: str) -> str:
    """A band's name as models know it: "Red Edge" -> "rededge", "NIR1" -> "nir"; letters of any script count."""
    plain = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).lower()) or name
    return _ALIASES.get(plain, plain)


def comparable(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """Scores as a model may have them: without EXP's where it makes no error, beside which any is infinite."""
    return {name: values for name, values in scores.items() if name != "exp" or values["ergas"] > 0}


@dataclass(frozen=True)
class Band:
    """A band the model was trained with: its name and centre wavelength in micrometres (0: unknown)."""

    name: str
    wavelength: float = 0.0


@dataclass(frozen=True)
class ModelSpec:
    """A model: which network with which options, on what scenes, in which units.

    `bands`: what it was trained with, in order; none: its network treats any band alike, and any number of them.
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

    @property
    def of_one_scene(self) -> bool:
        """Whether it was fitted to a single scene: its scores say nothing of others."""
        return "adapted_from" in self.training

    @property
    def elsewhere(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Scores on scenes that neither trained the model nor chose its weights: what they are -> as `scores`."""
        tables: Mapping[str, Mapping[str, Mapping[str, float]]] = self.training.get("elsewhere", {})
        return tables

    @property
    def reach(self) -> Reach:
        """What its network needs around a pixel."""
        return Reach(self.halo, self.alignment, self.multiple_of)

    def same_network(self, other: ModelSpec) -> bool:
        """Whether both describe one network with one file of weights, whatever else they say."""
        ours, theirs = (
            json.dumps([spec.network, spec.options, spec.weights_sha256], sort_keys=True) for spec in (self, other)
        )
        return ours == theirs

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
            spec._check(source)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise ModelError(f"{source} is not a valid model description: {error}") from error
        return spec

    def _check(self, source: str) -> None:
        """Raises ModelError for values that JSON can hold but no model can have."""
        names = self.band_names
        for sound, demand in (
            (_is_text(self.name) and _is_text(self.network), "name and network are texts"),
            (_are_options(self.options), f"options are named, and their numbers are at most {LARGEST_OPTION}"),
            (all(_is_number(band.wavelength) for band in self.bands), "wavelengths are numbers"),
            (all(map(_is_text, names)) and len(set(names)) == len(names), "bands have names of their own"),
            (_is_whole(self.ratio, 2, 16), "ratio is a whole number from 2 to 16"),
            (_is_number(self.phase) and -1 <= self.phase <= self.ratio, "phase is a position within an MS pixel"),
            (all(_is_whole(n, 0, 4096) for n in (self.crop, self.halo)), "crop and halo are 0 ... 4096 PAN pixels"),
            (
                all(_is_whole(n, 1, 4096) for n in (self.multiple_of, self.alignment)),
                "multiples are 1 ... 4096 PAN pixels",
            ),
            (_are_scores(self.scores), SCORES),
            (_are_tables(self.training), f"of those elsewhere, too, {SCORES}"),
        ):
            if not sound:
                raise ModelError(f"{source} makes no sense: {demand}")

    def misfit(self, bands: int, ratio: float, tolerance: float) -> str | None:
        """Why this model cannot sharpen a scene of so many bands and this ratio; None if it can."""
        if self.bands and bands != len(self.bands):
            return f"it has {len(self.bands)} bands ({', '.join(self.band_names)}), the scene {bands}"
        if abs(ratio / self.ratio - 1) > tolerance:
            return f"it has ratio {self.ratio}, the scene {ratio:.3g}"
        return None

    def order_of(self, names: Sequence[str]) -> list[int] | None:
        """Where the model's bands stand among a scene's band `names` (canonical): the scene's index of each.

        A model of any bands takes them as they come. None if the names do not tell (the scene's own order is then the
        only guess).
        """
        wanted = self.band_names
        if not wanted:
            return list(range(len(names)))
        if sorted(names) != sorted(wanted) or len(set(names)) != len(names):
            return None
        return [list(names).index(name) for name in wanted]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_options(options: object) -> bool:
    """Named values, also within each other, that cannot ask for a network of any size."""
    values = list(_leaves(options))
    numbers = [value for value in values if isinstance(value, int | float)]
    return (
        isinstance(options, dict)
        and len(values) <= LARGEST_OPTION
        and all(abs(number) <= LARGEST_OPTION for number in numbers)
    )


def _leaves(value: object) -> Iterator[object]:
    """What is within lists and objects of JSON, and within those in them."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def _are_scores(scores: object) -> bool:
    if not isinstance(scores, dict):
        return False
    if not all(isinstance(v, dict) and "ergas" in v and all(map(_is_number, v.values())) for v in scores.values()):
        return False
    return all(v["ergas"] > 0 or (v["ergas"] == 0 and name != "exp") for name, v in scores.items())


def _are_tables(training: object) -> bool:
    elsewhere = training.get("elsewhere", {}) if isinstance(training, dict) else None
    return isinstance(elsewhere, dict) and all(map(_are_scores, elsewhere.values()))
