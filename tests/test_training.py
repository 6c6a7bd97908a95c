"""Training: samples whose truth is known, exact resume, and a model folder at the end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pansharpen_cli import zoo
from pansharpen_cli.errors import ModelError, SceneError
from pansharpen_cli.evaluation import classical_scores, sharpen
from pansharpen_cli.mtf import SENSORS
from pansharpen_cli.networks import build
from pansharpen_cli.radiometry import Radiometry
from pansharpen_cli.reduced import load
from pansharpen_cli.training import loop
from pansharpen_cli.training.dataset import Patches
from pansharpen_cli.training.make import Training, make_model
from pansharpen_cli.training.recipes import RECIPES
from pansharpen_cli.wald import ReducedScene

BANDS = ("blue", "green", "red", "nir")
SCENE = Radiometry("scene")


def scene(seed: int = 0, ratio: int = 2, size: int = 96, bands: int = 2) -> ReducedScene:
    """Random textures; every gt pixel holds its own place in its first band."""
    random = np.random.default_rng(seed)
    ms = random.normal(500, 100, (bands, size // ratio, size // ratio)).astype(np.float32)
    gt = ms.repeat(ratio, axis=1).repeat(ratio, axis=2)
    gt[0] = np.arange(size * size).reshape(size, size)
    pan = gt.mean(axis=0, keepdims=True)
    return ReducedScene(f"random {seed}", BANDS[:bands], pan, ms, gt, np.ones((size, size), bool))


def test_patches_keep_pan_ms_and_truth_together():
    patches = Patches([scene(0), scene(1)], SCENE, patch=32, seed=3)
    pan, ms, gt = patches.batch(step=5, size=64)
    assert pan.shape == (64, 1, 32, 32)
    assert ms.shape == (64, 2, 16, 16)
    # the second band is piecewise constant on MS pixels, so truth and MS must agree whatever the turn
    np.testing.assert_allclose(gt[:, 1, ::2, ::2], ms[:, 1], rtol=1e-5)
    # the PAN is the mean of the truth, up to each one's scaling: perfectly correlated patch by patch
    assert min(np.corrcoef(p.ravel(), g[0].ravel())[0, 1] for p, g in zip(pan, gt, strict=True)) > 0.99


def test_a_batch_depends_on_seed_and_step_alone():
    first, second = (Patches([scene()], SCENE, patch=32, seed=3) for _ in range(2))
    first.batch(0, 4)
    for one, other in zip(first.batch(7, 4), second.batch(7, 4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.batch(7, 4)[0], first.batch(8, 4)[0])


def test_gaps_and_flat_ground_are_left_out():
    holed = scene(size=128)
    valid = holed.valid.copy()
    valid[:, 64:] = False
    assert len(Patches([replace(holed, valid=valid)], SCENE, 32, 0)) < len(Patches([holed], SCENE, 32, 0))
    flat = replace(holed, gt=np.full_like(holed.gt, 7))
    with pytest.raises(SceneError, match="no scene has a usable patch"):
        Patches([flat], SCENE, 32, 0)


def run(folder: Path, steps: int, stop: int | None = None) -> dict[str, torch.Tensor]:
    """A short training; with `stop`, killed after that step and begun again."""
    scenes = [scene(0), scene(1)]
    torch.manual_seed(0)
    network = build("premix-b", 2, 2, {"channels": 4, "layers": 1})

    def kill(progress: loop.Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    recipe = replace(RECIPES["default"], batch=2, patch=32)
    arguments = (network, Patches(scenes, SCENE, 32, 1), scenes[:1], SCENE, recipe)
    options = {"steps": steps, "every": 3, "state": folder / "state", "where": torch.device("cpu")}
    if stop:
        with pytest.raises(KeyboardInterrupt):
            loop.train(*arguments, **options, on_step=kill)
    loop.train(*arguments, **options)
    return network.state_dict()


def test_a_killed_run_resumes_exactly(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, resumed = run(tmp_path / "a", steps=8), run(tmp_path / "b", steps=8, stop=5)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_a_loss_that_is_no_number_stops_training(tmp_path: Path):
    patches = Patches([scene()], SCENE, 96, 1)
    network = build("premix-b", 2, 2, {"channels": 4, "layers": 1})
    next(network.parameters()).data.fill_(torch.nan)
    with pytest.raises(ModelError, match="loss is nan at step 0"):
        loop.train(
            network, patches, [], SCENE, replace(RECIPES["default"], batch=1, patch=96),
            steps=2, every=9, state=tmp_path / "state", where=torch.device("cpu"),
        )  # fmt: skip


def test_the_recipes_of_the_papers():
    adknet, premix, dmanet = (RECIPES[f"{name}-paper"] for name in ("adknet", "premix", "dmanet"))
    assert (adknet.loss, adknet.lr, adknet.epochs, adknet.batch) == ("mse", 3e-3, 1000, 32)
    assert (premix.loss, premix.lr, premix.epochs, premix.batch) == ("l1", 1e-3, 300, 16)
    assert (dmanet.loss, dmanet.lr, dmanet.epochs, dmanet.batch) == ("l1", 6e-4, 600, 32)
    assert [adknet.schedule(e, 1000) for e in (0, 99, 100, 250)] == [1, 1, 0.5, 0.25]
    assert premix.schedule(120, 300) == pytest.approx(0.64)
    assert dmanet.schedule(599, 600) == pytest.approx(0.64)


def test_a_model_from_real_scenes(data: Path, tmp_path: Path):
    """A minute network on a minute scene: not good, but whole, and it sharpens."""
    job = Training(
        output=tmp_path / "premix-b.tiny", network="premix-b", bands=BANDS, ratio=2,
        scenes=[data / "l8_plain_a"], validation=[data / "l8_plain_b"], steps=4, batch=2, validate_every=2,
        device="cpu", licence="test", options={"channels": 4, "layers": 1},
    )  # fmt: skip
    model = make_model(job)
    assert sorted(path.name for path in model.folder.iterdir()) == ["README.md", zoo.SPEC, zoo.WEIGHTS]
    read = zoo.read(model.folder)
    assert read.spec == model.spec
    assert set(read.spec.scores) == {"exp", "brovey", "gsa", "mtf-glp-fs", "premix-b.tiny"}
    assert read.load().options == {"channels": 4, "layers": 1}
    card = (model.folder / "README.md").read_text()
    assert all(name in card for name in read.spec.scores)


def test_missing_bands_and_classical_scores(data: Path):
    files = data / "l8_plain_b/pan.tif", data / "l8_plain_b/ms.tif"
    with pytest.raises(SceneError, match="has no band rededge"):
        load(*files, bands=["blue", "rededge"], sensor=SENSORS["generic"])
    reduced = load(*files, bands=BANDS, sensor=SENSORS["generic"])
    assert reduced.ratio == 2
    scores = classical_scores([reduced], SENSORS["generic"])
    assert scores["mtf-glp-fs"].ergas < scores["exp"].ergas
    assert sharpen(reduced, _exp(reduced), None).shape == reduced.gt.shape


def _exp(reduced: ReducedScene):
    from pansharpen_cli.classical import METHODS
    from pansharpen_cli.classical.camera import Camera

    return METHODS["exp"](Camera.of_scene(reduced.ratio, reduced.band_names))
