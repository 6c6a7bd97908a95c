"""A model fitted to one scene: better on blocks whose truth it never learned from, and never worse."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_zoo import random_model
from worlds import World

from pansharpen_cli import zoo
from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.classical import METHODS
from pansharpen_cli.errors import ModelError, OutputError, SceneError, UsageError
from pansharpen_cli.evaluation.assessment import Measures, camera, measure, sharpen
from pansharpen_cli.evaluation.reduced import load, load_full
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.networks import build
from pansharpen_cli.training import adapt as adapting
from pansharpen_cli.training.adapt import Adaptation, adapt
from pansharpen_cli.training.tasks import AtFullResolution, AtReducedResolution, of_backend, uiqi

SMALL = {"channels": 8, "layers": 1, "modulated": True, "consistent": True}


@pytest.fixture
def scene(data):
    return data / "tiny_l7" / "pan.tif", data / "tiny_l7" / "ms.tif"


@pytest.fixture
def model(tmp_path):
    return random_model(tmp_path / "start", "adknet-per-band", bands=(), ratio=2, **SMALL)


CPU = torch.device("cpu")


@pytest.mark.parametrize("resolution", ["reduced", "full"])
def test_held_out_blocks_are_never_learned_from(scene, resolution):
    """Whatever is there, the weights come out the same."""
    weights = []
    for value in (0, 1e4):
        task = task_of(scene, resolution)
        spoil(task, value)
        torch.manual_seed(0)
        network = build("premix-b", 4, 2, {"channels": 8})
        random = np.random.default_rng(1)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
        for _ in range(4):
            optimizer.zero_grad()
            task.loss(network, {}, random).backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*weights)


def task_of(scene, resolution):
    if resolution == "reduced":
        return AtReducedResolution(load(*scene, sensor=SENSORS["generic"]), Radiometry("scene"), CPU)
    return AtFullResolution(load_full(*scene), Radiometry("scene"), SENSORS["generic"], CPU)


def spoil(task, value):
    """Other numbers in what the network is compared with, where blocks are held out."""
    learned = task._patches._images[-1].bool()
    assert 0.6 < learned.float().mean() < 0.85
    for image in task._patches._images[2:-1]:
        image[:, ~learned[0]] = value


def test_uiqi_is_that_of_the_metrics():
    random = np.random.default_rng(3)
    pan = random.normal(900, 40, (64, 96))
    bands = np.stack([random.normal(300, 25, pan.shape) + part * pan for part in (0.1, 0.5)])
    found = uiqi(*(torch.from_numpy(images.astype(np.float32))[None] for images in (bands, pan[None])))
    for band, values in zip(bands, found[0], strict=True):
        expected = [[naive_uiqi(band[i : i + 32, j : j + 32], pan[i : i + 32, j : j + 32]) for j in (0, 32, 64)]
                    for i in (0, 32)]  # fmt: skip
        np.testing.assert_allclose(values, expected, atol=1e-5)


def naive_uiqi(x, y):
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return 4 * covariance * x.mean() * y.mean() / (x.var() + y.var()) / (x.mean() ** 2 + y.mean() ** 2)


def test_at_full_resolution_all_blocks_together_are_judged_as_the_metrics_do(data):
    whole = load_full(data / "wv2_park" / "pan.tif", data / "wv2_park" / "ms.tif")
    sensor = SENSORS["WV2"]
    task = AtFullResolution(whole, Radiometry("scene"), sensor, CPU)
    task._held_out[:] = True
    hrms = sharpen(whole, METHODS["pracs"](camera(whole, sensor)), None)
    judged = task.judge(hrms)
    found = measure(whole, hrms, sensor, Measures(("D_lambda_K", "D_s", "HQNR")))
    assert judged["d_lambda_k"] == pytest.approx(found["D_lambda_K"].value, rel=1e-6)
    assert judged["d_s"] == pytest.approx(found["D_s"].value, rel=0.005)  # which is taken of whole blocks' EXP alone


def test_at_full_resolution_it_gains_too(scene, model, tmp_path):
    job = Adaptation(scene[0], [scene[1]], tmp_path / "mine", str(model.folder), resolution="full", steps=25)
    adapted = adapt(job)
    assert adapted.after["hqnr"] > adapted.before["hqnr"]
    assert adapted.after["hqnr"] == pytest.approx((1 - adapted.after["d_lambda_k"]) * (1 - adapted.after["d_s"]))
    assert adapted.model.spec.scores == {}
    assert "HQNR" in (tmp_path / "mine" / "README.md").read_text()


def test_it_gains_and_says_how_much(scene, model, tmp_path):
    adapted = adapt(Adaptation(scene[0], [scene[1]], tmp_path / "mine", str(model.folder), steps=50))
    assert adapted.after["ergas"] < adapted.before["ergas"]
    backend = TorchBackend(adapted.model.load(), adapted.model.spec.crop, CPU)
    again = of_backend(task_of(scene, "reduced"), backend)
    assert again["ergas"] == pytest.approx(adapted.after["ergas"], rel=1e-5)
    assert adapted.model.spec.scores["mine"]["ergas"] == adapted.after["ergas"]
    assert adapted.model.spec.band_names == ["blue", "green", "red", "nir"]
    assert adapted.model.spec.training["adapted_from"] == "start"


@pytest.mark.parametrize(("seconds", "expected"), [(10, 10), (60, 25), (200, 75)])
def test_learning_ends_with_its_time(scene, monkeypatch, seconds, expected):
    """By a clock by which a step takes a second and a look at the held-out blocks, one in 25 steps, a minute: it ends
    with the step, or the look, in which the time is over."""
    now, looks = [0.0], []

    def step(*batch):
        now[0] += 1
        return learn(*batch)

    def look(task, backend):
        now[0] += 60
        looks.append(now[0])
        backend.statistics = {}
        return {"ergas": 1 / len(looks)}

    monkeypatch.setattr(adapting, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(adapting.tasks, "of_backend", look)
    network, task = build("adknet-per-band", 4, 2, SMALL), task_of(scene, "reduced")
    learn, task.loss = task.loss, step
    ends = {"seconds": seconds, "steps": 0, "seed": 1, "on_step": lambda step, gain: None}
    _, _, steps = adapting.fit(network, task, crop=64, where=CPU, fresh=False, **ends)
    assert steps == expected
    assert len(looks) == 2 + (expected - 1) // 25  # the one before, and the last


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
        assert np.isfinite(adapted.after["ergas"])
        assert len(adapted.model.load().state_dict()) > 0


def test_bands_of_one_name_are_refused(scene, model, tmp_path):
    """The model could not be read: it knows its bands by their names."""
    with pytest.raises(SceneError, match="several bands called red; give each a name of its own"):
        adapt(Adaptation(*scene[:1], [scene[1]], tmp_path / "mine", str(model.folder), bands=["red", "red"], steps=1))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"model": "nobody"}, "no model is called 'nobody'"),
        ({"model": "premix-b-per-band.x2,nobody"}, "no model is called 'nobody'"),
        ({"model": "adknet-per-band.x4"}, "adknet-per-band.x4 is for ratio 4, not 2; --network NAME"),
        ({"model": "premix-b-per-band.x2,gsa"}, "premix-b-per-band.x2,gsa cannot be mixed: all must be networks"),
        ({"model": "adknet.rgb-x2,premix-b-per-band.x2"}, "adknet.rgb-x2 does not fit this scene: it has 3 bands"),
        ({"model": "adknet-per-band.x2,gsa", "resolution": "full"}, "at full resolution one model learns"),
        ({"network": "nothing"}, "no network is called 'nothing'"),
        ({"network": "adknet"}, "adknet with the options .* makes no products of the PAN's size at ratio 3"),
    ],
)
def test_what_cannot_be_fitted_is_said_before_the_scene_is_measured(start, said, scene, tmp_path, monkeypatch):
    if start == {"network": "adknet"}:
        scene = World(bands=4, dtype="uint16", ratio=3, pan_size=(96, 126), ms_size=(32, 42)).write(tmp_path)
    monkeypatch.setattr(adapting, "find_or_measure", lambda *_: pytest.fail("it is measured"))
    with pytest.raises((ModelError, UsageError), match=said):
        adapt(Adaptation(scene[0], [scene[1]], tmp_path / "mine", **start))
    assert not (tmp_path / "mine").exists()


def test_a_scene_without_room_is_refused(scene):
    reduced, whole = load(*scene, sensor=SENSORS["generic"]), load_full(*scene)
    for subject in (reduced, whole):
        subject.valid[:] = False
    with pytest.raises(SceneError, match="too small, or has too little data"):
        AtReducedResolution(reduced, Radiometry("scene"), CPU)
    with pytest.raises(SceneError, match="too small, or has too little data"):
        AtFullResolution(whole, Radiometry("scene"), SENSORS["generic"], CPU)


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
