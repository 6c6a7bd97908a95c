"""A model fitted to one scene: better on blocks whose truth it never learned from, and never worse."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_zoo import random_model

from pansharpen_cli import zoo
from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.evaluation import score
from pansharpen_cli.mtf import SENSORS
from pansharpen_cli.networks import build
from pansharpen_cli.radiometry import Radiometry
from pansharpen_cli.reduced import load
from pansharpen_cli.training.adapt import Adaptation, adapt, fit, split

SMALL = {"channels": 8, "layers": 1, "modulated": True, "consistent": True}


@pytest.fixture
def scene(data):
    return data / "tiny_l7" / "pan.tif", data / "tiny_l7" / "ms.tif"


@pytest.fixture
def model(tmp_path):
    return random_model(tmp_path / "start", "adknet-per-band", bands=(), ratio=2, **SMALL)


def test_held_out_blocks_are_never_learned_from(scene):
    """Whatever their truth is, the weights come out the same."""
    reduced = load(*scene, sensor=SENSORS["generic"])
    learned, held_out = split(reduced)
    assert not (learned.valid & held_out.valid).any()
    assert ((learned.valid | held_out.valid) == reduced.valid).all()
    assert 0.15 < held_out.valid.sum() / reduced.valid.sum() < 0.35
    weights = []
    for truth in (learned.gt, np.where(learned.valid, learned.gt, 1e4).astype(np.float32)):
        torch.manual_seed(0)
        network = build("adknet-per-band", 4, 2, SMALL)
        fit(
            network, Radiometry("scene"), replace(learned, gt=truth), held_out, crop=64, where=torch.device("cpu"),
            fresh=True, seconds=60, steps=25, seed=1, on_step=lambda step, gain: None,
        )  # fmt: skip
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*weights)


def test_it_gains_and_says_how_much(scene, model, tmp_path):
    adapted = adapt(Adaptation(scene[0], [scene[1]], tmp_path / "mine", str(model.folder), steps=50))
    assert adapted.after.ergas < adapted.before.ergas
    _, held_out = split(load(*scene, sensor=SENSORS["generic"]))
    backend = TorchBackend(adapted.model.load(), adapted.model.spec.crop, torch.device("cpu"))
    again = score(lambda _: backend, adapted.model.spec.radiometry, [held_out])
    assert again.ergas == pytest.approx(adapted.after.ergas, rel=1e-5)
    assert adapted.model.spec.scores["mine"]["ergas"] == adapted.after.ergas
    assert adapted.model.spec.band_names == ["blue", "green", "red", "nir"]
    assert adapted.model.spec.training["adapted_from"] == "start"


def test_without_time_it_is_what_it_was(scene, model, tmp_path):
    adapted = adapt(Adaptation(scene[0], [scene[1]], tmp_path / "mine", str(model.folder), minutes=0.0))
    assert adapted.steps == 0
    assert adapted.after == adapted.before
    before, after = model.load(4).state_dict(), zoo.read(tmp_path / "mine").load().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(OutputError, match="--overwrite"):
        adapt(Adaptation(scene[0], [scene[1]], tmp_path / "mine", str(model.folder), minutes=0.0))


def test_from_a_model_of_other_bands_and_from_nothing(scene, tmp_path):
    other = random_model(tmp_path / "other", "premix-b", bands=("red", "green"), ratio=2, channels=8)
    for name, start in {"bands": {"model": str(other.folder)}, "nothing": {"network": "fusionnet"}}.items():
        adapted = adapt(Adaptation(scene[0], [scene[1]], tmp_path / name, steps=2, **start))
        assert np.isfinite(adapted.after.ergas)
        assert len(adapted.model.load().state_dict()) > 0


def test_a_scene_without_room_is_refused(data):
    reduced = load(data / "tiny_l7" / "pan.tif", data / "tiny_l7" / "ms.tif", sensor=SENSORS["generic"])
    reduced.valid[:] = False
    with pytest.raises(SceneError, match="too small, or has too little data"):
        split(reduced)


def test_commands(scene, model, tmp_path):
    told = json.loads(pansharpen("adapt", *scene, "-m", model.folder, "-o", tmp_path / "mine", "--steps", 2, "--json"))
    assert told["after"]["ergas"] <= told["before"]["ergas"]
    assert set(told["classical"]) >= {"exp", "gsa"}
    product = json.loads(pansharpen("run", *scene, "-m", tmp_path / "mine", "-o", tmp_path / "out.tif", "--json"))
    assert product["method"] == "mine"


def pansharpen(*arguments):
    """stdout of a command that succeeds."""
    program = [sys.executable, "-m", "pansharpen_cli", *map(str, arguments)]
    return subprocess.run(program, check=True, capture_output=True, text=True, timeout=120).stdout
