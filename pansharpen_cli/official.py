"""The authors' checkpoints: read without executing them, converted once into a model folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pansharpen_cli.errors import ModelError
from pansharpen_cli.imaging.interpolation import area_phase, toolbox_phase
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.modelspec import WAVELENGTHS, Band, ModelSpec, canonical_band
from pansharpen_cli.networks.adknet import ADKNet
from pansharpen_cli.networks.dmanet import DMANet
from pansharpen_cli.networks.fusionnet import FusionNet
from pansharpen_cli.networks.network import Network
from pansharpen_cli.networks.premix import PreMixB, PreMixH
from pansharpen_cli.system.files import why_unseen
from pansharpen_cli.zoo import Model, check_place, claimed, save


@dataclass(frozen=True)
class Official:
    """How the authors of a network trained it, as far as a checkpoint does not say: the phase of their MS pixels, and
    PAN pixels a side of their patches (0: the network reads nothing from the whole image)."""

    read: Callable[[Mapping[str, Tensor]], Network]
    phase: Callable[[int], float]
    crop: int


OFFICIAL: dict[str, Official] = {
    "adknet": Official(ADKNet.from_official, toolbox_phase, 64),
    "premix-b": Official(PreMixB.from_official, area_phase, 0),
    "premix-h": Official(PreMixH.from_official, area_phase, 0),
    "dmanet": Official(DMANet.from_official, toolbox_phase, 64),
    "fusionnet": Official(FusionNet.from_official, toolbox_phase, 0),
}

USUAL_BANDS: dict[int, Sequence[str]] = {
    3: ("red", "green", "blue"),
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2"),
}
"""Band orders of the data sets that the papers used, by band count."""

WITHIN = ("state_dict", "model_state_dict", "model", "net", "params")
"""What trainers call the weights in a checkpoint that holds more; one may lie in another, in any order."""


def convert(
    weights: Path,
    network: str,
    output: Path,
    *,
    scale: float,
    band_names: Sequence[str] | None = None,
    licence: str = "",
    overwrite: bool = False,
) -> Model:
    """Write a model folder from a .pth, .ckpt or .safetensors file of `network`.

    `scale` is the DN that the authors mapped to 1. Raises ModelError in one sentence for anything that is not theirs.
    """
    if network not in OFFICIAL:
        raise ModelError(f"no official checkpoint of {network!r} is known; there are {', '.join(OFFICIAL)}")
    check_place(output, overwrite)
    official = OFFICIAL[network]
    state = _state(weights)
    try:
        made = official.read(state)
    except (ModelError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise ModelError(f"{weights} does not hold the official weights of {network}: {error}") from error
    if broken := next((name for name, value in made.state_dict().items() if not value.isfinite().all()), None):
        raise ModelError(f"{weights} holds NaN or infinite numbers ({broken}): it is damaged, or its training failed")
    names = band_names or USUAL_BANDS.get(made.bands) or [f"band {i + 1}" for i in range(made.bands)]
    names = [canonical_band(name) for name in names]
    if len(names) != made.bands:
        raise ModelError(f"{weights} has {made.bands} bands; {len(names)} names were given")
    if len(set(names)) < len(names):
        raise ModelError(f"two bands of {weights} would have one name ({', '.join(names)}); give each its own")
    spec = ModelSpec(
        name=output.name,
        network=network,
        options=made.options,
        bands=tuple(Band(name, WAVELENGTHS.get(name, 0.0)) for name in names),
        ratio=made.ratio,
        phase=official.phase(made.ratio),
        radiometry=Radiometry("fixed", scale, scale),
        crop=official.crop,
        licence=licence,
        training={"data": f"imported from {weights.name}"},
    )
    with claimed(output, overwrite):
        return save(output, spec, made, _card(spec))


def _state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint, loaded as data: nothing in the file is executed."""
    if not os.path.isfile(path):
        raise ModelError(f"{path} {'is no file' if os.path.exists(path) else why_unseen(path)}")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the pickle's version: it is read, or refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader trips over in a file that anybody may have made
        raise ModelError(f"{path} is not a checkpoint of plain tensors, and nothing else is loaded") from error
    for _ in WITHIN:  # so deep and no deeper: a dictionary may hold itself
        if isinstance(content, dict):
            content = next((content[key] for key in WITHIN if isinstance(content.get(key), dict)), content)
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no named tensors")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _card(spec: ModelSpec) -> str:
    return (
        f"# {spec.name}\n\n{spec.network} with weights {spec.training['data']}: {len(spec.bands)} bands "
        f"({', '.join(spec.band_names)}), ratio {spec.ratio}, DN / {spec.radiometry.scale:g}.\n\n"
        f"- **Licence**: {spec.licence or 'the authors have stated none; ask them before you pass it on'}\n"
    )
