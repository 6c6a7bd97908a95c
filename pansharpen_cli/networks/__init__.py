"""The networks, one file each. A new one is a subclass of `Network` and a line in NETWORKS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pansharpen_cli.errors import ModelError
from pansharpen_cli.networks.adknet import ADKNet
from pansharpen_cli.networks.consistency import Consistent
from pansharpen_cli.networks.dmanet import DMANet
from pansharpen_cli.networks.fusionnet import DMAFusionNet, FusionNet
from pansharpen_cli.networks.lagnet import DMALAGNet, LAGNet
from pansharpen_cli.networks.mixture import Mixture
from pansharpen_cli.networks.network import Network
from pansharpen_cli.networks.per_band import PerBandADKNet, PerBandDMANet, PerBandPreMixB
from pansharpen_cli.networks.premix import PreMixB, PreMixH

NETWORKS: dict[str, type[Network]] = {
    "adknet": ADKNet,
    "premix-b": PreMixB,
    "premix-h": PreMixH,
    "dmanet": DMANet,
    "fusionnet": FusionNet,
    "dma-fusionnet": DMAFusionNet,
    "lagnet": LAGNet,
    "dma-lagnet": DMALAGNet,
    "adknet-per-band": PerBandADKNet,
    "premix-b-per-band": PerBandPreMixB,
    "dmanet-per-band": PerBandDMANet,
}


MIXTURE = "mixture"
"""Of networks: its option "members" names them and their options."""


def build(name: str, bands: int, ratio: int, options: Mapping[str, Any]) -> Network:
    """A new network of `bands` MS bands; the option "consistent" of any network puts it into a `Consistent`.

    Raises ModelError if there is no such network or option.
    """
    own = {option: value for option, value in options.items() if option != "consistent"}
    if name not in NETWORKS and name != MIXTURE:
        raise ModelError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}")
    try:
        network = _mixture(bands, ratio, **own) if name == MIXTURE else NETWORKS[name](bands, ratio, **own)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{name} cannot be built for {bands} bands, ratio {ratio}: {error}") from error
    return Consistent(network) if options.get("consistent") else network


def _mixture(bands: int, ratio: int, members: Sequence[Mapping[str, Any]]) -> Mixture:
    return Mixture([build(member["network"], bands, ratio, member["options"]) for member in members], members)
