"""Training: samples whose truth is known, what is rejected, exact steps, and a model folder at the end."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from pansharpen_cli import zoo
from pansharpen_cli.classical import METHODS
from pansharpen_cli.errors import ModelError, SceneError, UsageError
from pansharpen_cli.evaluation.reduced import load
from pansharpen_cli.evaluation.sources import Files, Terms
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.networks import NETWORKS, build
from pansharpen_cli.training import loop, prepare
from pansharpen_cli.training.dataset import Patches
from pansharpen_cli.training.learner import Learner, demand_products
from pansharpen_cli.training.make import Training, make_model
from pansharpen_cli.training.prepare import Prepared, examine, stored
from pansharpen_cli.training.recipes import RECIPES, Recipe
from pansharpen_cli.training.validation import Scores, Validation

BANDS = ("blue", "green", "red", "nir")
SCENE = Radiometry("scene")
GENERIC = SENSORS["generic"]
TINY = {"channels": 4, "layers": 1}


def scene(seed: int = 0, ratio: int = 2, size: int = 96, bands: int = 2, geometry: str = "area") -> ReducedScene:
    """Random textures; the second band is constant on each MS pixel, and where the geometry has it the MS's value."""
    random = np.random.default_rng(seed)
    ms = np.rint(random.normal(500, 100, (bands, size // ratio, size // ratio))).astype(np.float32)
    gt = ms.repeat(ratio, axis=1).repeat(ratio, axis=2)
    gt[0] += random.normal(0, 50, gt.shape[1:])
    if geometry == "toolbox":  # only the pixel that the MS sample lies on has its value
        gt[1] += 1
        gt[1, ratio // 2 :: ratio, ratio // 2 :: ratio] -= 1
    return ReducedScene(
        f"random {seed}", BANDS[:bands], gt.mean(axis=0, keepdims=True), ms, gt, np.ones((size, size), bool), geometry
    )


def seen(*scenes: ReducedScene, patch: int = 32) -> list[Prepared]:
    return [examine(scene, GENERIC, patch) for scene in scenes]


def test_patches_keep_pan_ms_and_truth_together():
    patches = Patches(seen(scene(0), scene(1)), SCENE, patch=32, seed=3)
    pan, ms, gt, gains, _ = patches.batch(step=5, size=64)
    assert pan.shape == (64, 1, 32, 32)
    assert ms.shape == (64, 2, 16, 16)
    assert (gains == np.float32(0.3)).all()
    np.testing.assert_allclose(gt[:, 1, ::2, ::2], ms[:, 1], rtol=1e-5, atol=1e-5)
    # the PAN is the mean of the truth, in other units
    assert min(np.corrcoef(p.ravel(), g.mean(axis=0).ravel())[0, 1] for p, g in zip(pan, gt, strict=True)) > 0.99
    corners = {tuple(image.ravel()[:3]) for image in pan}
    assert len(corners) > 60  # patches are drawn anywhere, and turned


def test_turning_keeps_the_phase_of_benchmark_files():
    patches = Patches(seen(scene(geometry="toolbox")), Radiometry("fixed"), patch=32, seed=3)
    batch = patches.batch(step=0, size=64)
    np.testing.assert_array_equal(batch.gt[:, 1, 1::2, 1::2], batch.ms[:, 1])


def test_a_batch_depends_on_seed_and_step_alone_and_can_be_shared_out():
    first, second = (Patches(seen(scene()), SCENE, patch=32, seed=3) for _ in range(2))
    first.batch(0, 4)
    for one, other in zip(first.batch(7, 4), second.batch(7, 4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.batch(7, 4).pan, first.batch(8, 4).pan)
    shares = [first.batch(7, 4, rank, 2).pan for rank in (0, 1)]
    np.testing.assert_array_equal(np.stack(shares, axis=1).reshape(4, 1, 32, 32), first.batch(7, 4).pan)


def test_crops_of_a_scene_are_neighbours_in_a_batch():
    flagged = [replace(s, gt=np.stack([s.gt[0], s.gt[0]]), ms=s.ms * 0 + i) for i, s in enumerate(map(scene, range(4)))]
    patches = Patches(seen(*flagged), Radiometry("fixed"), patch=32, seed=1, crops=4)
    whose = patches.batch(0, 32).ms[:, 0, 0, 0].reshape(8, 4)
    assert (whose == whose[:, :1]).all()
    assert len(np.unique(whose)) > 1
    cameras = Patches(seen(scene()), SCENE, 32, 1, crops=4, turns=False, other_pans=True).batch(0, 64)
    # unless it was filtered, a PAN is a mixture of these bands, and a scene has one
    mixtures = np.array([_mixture(pan, gt) for pan, gt in zip(cameras.pan, cameras.gt, strict=True)]).reshape(16, 4, 2)
    np.testing.assert_allclose(mixtures, mixtures[:, :1].repeat(4, axis=1), atol=1e-4)
    assert 2 < len({tuple(np.round(mixture[0], 3)) for mixture in mixtures}) <= 16
    pans = [
        Patches(seen(scene()), Radiometry("fixed", 2047, 2047), 32, 1, other_pans=o).batch(0, 64).pan for o in (0, 1)
    ]
    assert 0.5 < pans[1].std() / pans[0].std() < 2  # whatever its units
    with pytest.raises(UsageError, match="--crops-per-scene 99 finds 25 patches in random 0"):
        Patches(seen(scene()), SCENE, patch=32, seed=1, crops=99)


def _mixture(pan: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """The weights of the bands (2, P, P) and a constant that make the PAN (1, P, P); zeros if none do."""
    layers = np.concatenate([gt, np.ones_like(gt[:1])]).reshape(3, -1).T.astype(np.float64)
    weights, left, *_ = np.linalg.lstsq(layers, pan.ravel().astype(np.float64), rcond=None)
    return weights[:2] if left[0] < 1e-6 * pan.size else np.zeros(2)


def test_gaps_and_flat_ground_are_rejected_and_counted():
    holed = scene(size=128)
    valid = holed.valid.copy()
    valid[:, 100:] = False
    gt = holed.gt.copy()
    gt[:, 64:, :64] = 7
    (found,) = seen(replace(holed, valid=valid, gt=gt))
    # of 7 by 7 corners, two columns reach the gap; three by three of the others are flat throughout
    assert found.rejected == {"nodata": 14, "flat": 9}
    assert len(found.corners) == 49 - 14 - 9
    with pytest.raises(SceneError, match="no scene has a usable patch of 32 MS pixels"):
        Patches(seen(replace(holed, gt=np.full_like(holed.gt, 7))), SCENE, 32, 0)
    with pytest.raises(SceneError, match="random 0 has no valid pixel left"):
        seen(replace(holed, valid=np.zeros_like(valid)))


def test_patches_drawn_near_a_gap_do_not_reach_into_it():
    valid = np.ones((96, 96), bool)
    valid[50:] = False
    holed = scene()
    holed.pan[:, 50:], holed.gt[:, 50:] = np.nan, np.nan
    batch = Patches(seen(replace(holed, valid=valid)), Radiometry("fixed"), 32, 0).batch(0, 64)
    assert np.isfinite(batch.pan).all()
    assert np.isfinite(batch.gt).all()


def test_misregistered_patches_and_scenes_are_left_out(data: Path):
    good = load(data / "l8_plain_b/pan.tif", data / "l8_plain_b/ms.tif", sensor=GENERIC, bands=BANDS)
    (found,) = seen(good, patch=64)
    assert (found.misfit, found.rejected["misregistered"]) == ("", 0)
    torn = good.pan.copy()
    torn[:, :, 192:] = np.roll(good.pan, 1, axis=1)[:, :, 192:]  # a strip of a detector that is a pixel off
    (found,) = seen(replace(good, pan=torn), patch=64)
    assert found.misfit == ""
    assert found.rejected["misregistered"] > 0
    assert found.corners[:, 1].max() + 64 <= 192 + 32
    (found,) = seen(replace(good, pan=np.roll(good.pan, 1, axis=2)), patch=64)
    assert re.fullmatch(r"its PAN lies (0\.9|1\.0)\d MS pixels off, after what could be corrected", found.misfit)
    assert not len(found.corners)
    (found,) = seen(replace(good, pan=np.ascontiguousarray(good.pan[:, ::-1, ::-1])), patch=64)
    assert "do not show the same ground" in found.misfit


@pytest.mark.parametrize(("chip", "misregistered"), [("03", 1), ("21", 1), ("24", 1), ("00", 0), ("26", 0), ("34", 0)])
def test_chips_that_are_known_to_be_misregistered(data: Path, tmp_path: Path, chip: str, misregistered: int):
    folder = data / "rr_qb" / chip
    source = Files(chip, str(folder / "pan.tif"), [], str(folder / "gt.tif"), Terms(ratio=4, sensor="QB"))
    (found,) = prepare.prepare([source], 64, tmp_path)
    assert bool(found.misfit) == misregistered
    assert np.array_equal(found.open().pan, source.load().pan)


def source(folder: Path, ratio: int, bands: tuple[str, ...] | None = BANDS) -> Files:
    terms = Terms(ratio=ratio, bands=bands)
    return Files(folder.name, str(folder / "pan.tif"), [str(folder / "ms.tif")], None, terms)


def test_all_bands_are_learned_from_though_some_have_one_name(data: Path, tmp_path: Path):
    """Those of several files without names are called alike; --bands any takes each of them."""
    folder = data / "tiny_l8"
    for number in (1, 2):
        with (
            rasterio.open(folder / "ms.tif") as file,
            rasterio.open(tmp_path / f"{number}.tif", "w", **{**file.profile, "count": 2}) as copy,
        ):
            copy.write(file.read([2 * number - 1, 2 * number]))
    files = [str(tmp_path / f"{number}.tif") for number in (1, 2)]
    (found,) = prepare.prepare([replace(source(folder, 2, None), ms=files)], 16, tmp_path / "work")
    assert np.array_equal(found.open().gt, source(folder, 2, None).load().gt)


@pytest.mark.parametrize(
    ("name", "ratio"), [("l8_plain_a", 2), ("l8_pamplona_w", 2), ("wv2_rotterdam_2", 4), ("l8_plain_a", 4)]
)
def test_degraded_by_tiles_equals_degraded_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ratio: int
):
    """With a shift to correct, gaps, sizes that do not fit, and a ratio that is not the scene's."""
    whole = source(data / name, ratio).load()
    monkeypatch.setattr(prepare, "TILE", 50)
    (found,) = prepare.prepare([source(data / name, ratio)], 64, tmp_path)
    tiled = found.open()
    assert tiled.band_names == BANDS
    np.testing.assert_array_equal(tiled.valid, whole.valid)
    for image in ("pan", "ms", "gt"):
        one, other = getattr(tiled, image), getattr(whole, image)
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_a_scene_is_prepared_once_until_its_files_change(data: Path, tmp_path: Path):
    files = tmp_path / "scene"
    files.mkdir()
    for name in ("pan.tif", "ms.tif"):
        (files / name).write_bytes((data / "tiny_l7" / name).read_bytes())
    rows = [source(files, 2), source(files, 2), source(files, 2)]
    first, second, third = prepare.prepare(rows, 32, tmp_path / "work")
    assert first is second is third
    (folder,) = (tmp_path / "work").iterdir()
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    stored.cache_clear()
    (again,) = prepare.prepare(rows[:1], 32, tmp_path / "work")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    np.testing.assert_array_equal(again.corners, first.corners)
    np.testing.assert_array_equal(again.moments.std, first.moments.std)
    (files / "pan.tif").write_bytes((data / "tiny_l8/pan.tif").read_bytes())
    (other,) = prepare.prepare([source(files, 2)], 32, tmp_path / "work")
    assert not np.array_equal(other.open().pan, first.open().pan)


@pytest.mark.parametrize("network", ["adknet", "lagnet", "dma-fusionnet", "adknet-per-band"])
def test_crops_of_a_scene_share_what_run_observes_of_them(network: str):
    """'Train as you run': the values of a group are those that `observe` freezes for the same crops."""
    torch.manual_seed(0)
    made = build(network, 3, 2, {}).double().eval()
    bright = torch.arange(1.0, 7, dtype=torch.float64)[:, None, None, None]
    pan, ms, gains = bright * torch.rand(6, 1, 32, 32), bright * torch.rand(6, 3, 16, 16), torch.full((6, 3), 0.3)
    with torch.no_grad():
        together = Learner(made, 3)(pan, ms, gains, gains)
        for crops in (slice(0, 3), slice(3, 6)):
            frozen = made(pan[crops], ms[crops], made.observe(pan[crops], ms[crops]))
            torch.testing.assert_close(together[crops], frozen, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(Learner(made, 1)(pan, ms, gains, gains), made(pan, ms))
        assert (together - made(pan, ms)).abs().max() > 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_cannot_have_a_ratio_are_refused(name: str):
    """The ADKNets expand by even ratios alone."""
    demand_products(build(name, 2, 2, {}), name)
    if "adknet" not in name:
        demand_products(build(name, 2, 3, {}), name)
        return
    with pytest.raises(ModelError, match=f"{name} .* makes no products of the PAN's size at ratio 3; take another"):
        demand_products(build(name, 2, 3, {}), name)


def test_gains_of_a_batch_reach_a_consistent_network():
    torch.manual_seed(0)
    made = build("premix-b", 2, 2, {**TINY, "consistent": True}).eval()
    pan, ms = torch.rand(2, 1, 32, 32), torch.rand(2, 2, 16, 16)
    gains = torch.tensor([[0.2, 0.3], [0.35, 0.25]])
    with torch.no_grad():
        together = Learner(made, 1)(pan, ms, gains, torch.zeros(2, 2))
        for index in range(2):
            made.set_camera(gains[index].tolist())
            torch.testing.assert_close(together[index : index + 1], made(pan[index : index + 1], ms[index : index + 1]))


def train(
    folder: Path, recipe: Recipe, seed: int = 1, **plan
) -> tuple[loop.Best, list[loop.Progress], dict[str, torch.Tensor]]:
    """A training on two random scenes, validated on the first."""
    scenes = seen(scene(0), scene(1))
    torch.manual_seed(0)
    network = build("premix-b", 2, 2, TINY)
    judge = Validation(scenes[:1], lambda bands: build("premix-b", bands, 2, TINY), SCENE, 32, torch.device("cpu"))
    steps = []
    best = loop.train(
        network, Patches(scenes, SCENE, 32, seed), replace(recipe, batch=2, patch=32),
        loop.Plan(**{"steps": 8, "every": 2, "seed": seed, "state": folder / "state", **plan}), judge,
        torch.device("cpu"), on_step=steps.append,
    )  # fmt: skip
    return best, steps, network.state_dict()


def test_same_seed_same_weights(tmp_path: Path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    one, two = (train(folder, RECIPES["default"]) for folder in folders[:2])
    other = train(folders[2], RECIPES["default"], seed=2)
    assert [step.loss for step in one[1]] == [step.loss for step in two[1]]
    for name, value in one[2].items():
        torch.testing.assert_close(two[2][name], value, rtol=0, atol=0)
    assert not all(torch.equal(other[2][name], value) for name, value in one[2].items())


def test_the_best_weights_are_kept_and_early_stopping_ends(tmp_path: Path):
    still = replace(RECIPES["default"], lr=0.0)
    best, steps, _ = train(tmp_path, still, early_stop=2)
    assert best.step == 2
    assert [step.step for step in steps if step.scores] == [2, 4, 6]
    assert steps[-1].step == 6  # two validations without improvement after the first
    again, steps, _ = train(tmp_path, still, early_stop=2)
    assert not steps  # what ended stays so
    assert again.scores == best.scores


def test_minutes_end_a_run_and_set_its_pace(tmp_path: Path):
    """The learning rate falls with the time that has passed, that before a resume included."""
    best, steps, _ = train(tmp_path, RECIPES["default"], steps=0, minutes=0.1, every=10**6)
    assert best.step == steps[-1].step == steps[-1].steps
    assert [step.step for step in steps if step.scores] == [best.step]
    rates = [step.lr for step in steps]
    assert max(rates) > 0.9e-3
    assert rates[-1] < 1e-4
    assert torch.load(tmp_path / "state", weights_only=True)["seconds"] >= 6
    _, steps, _ = train(tmp_path, RECIPES["default"], steps=0, minutes=0.1, every=10**6)
    assert len(steps) == 1  # the time was over


def test_a_loss_that_is_no_number_stops_with_the_last_good_state(tmp_path: Path):
    """Four honest steps and one that throws the weights to where float32 ends, seen by the loss or by validation."""
    far = 4 * 2 / len(Patches(seen(scene(0), scene(1)), SCENE, 32, 1))  # epochs
    wild = replace(RECIPES["default"], lr=1e-3, schedule=lambda epoch, epochs: 1.0 if epoch < far else 1e38)
    for every, stop in (
        (2, r"the loss is (nan|inf) at step 6, .* holds the model of step \d"),
        (1, "the validation ERGAS is"),
    ):
        folder = tmp_path / str(every)
        folder.mkdir()
        with pytest.raises(ModelError, match=stop):
            train(folder, wild, every=every)
        content = torch.load(folder / "state", weights_only=True)
        assert content["step"] == 4
        assert all(value.abs().max() < 10 for value in content["network"].values())


def test_a_state_of_another_run_is_not_gone_on_from(tmp_path: Path):
    train(tmp_path, RECIPES["default"], terms={"seed": 1, "batch": 2})
    with pytest.raises(UsageError, match="was left by a run with other batch; give what that had"):
        train(tmp_path, RECIPES["default"], terms={"seed": 1, "batch": 4})
    whole = torch.load(tmp_path / "state", weights_only=True)
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"cannot be read .* delete it to begin again"):
        train(tmp_path, RECIPES["default"])
    for other in (b"hello", b"", {"a": 1}, [1], {**whole, "optimizer": {}}, {**whole, "network": {}}, {"terms": [1]}):
        if isinstance(other, bytes):
            (tmp_path / "state").write_bytes(other)
        else:
            torch.save(other, tmp_path / "state")
        with pytest.raises(UsageError, match=r"^\S+/state cannot be read \([^\n]+\); delete it to begin again$"):
            train(tmp_path, RECIPES["default"])


def test_the_recipes_of_the_papers():
    adknet, premix, dmanet = (RECIPES[f"{name}-paper"] for name in ("adknet", "premix", "dmanet"))
    assert (adknet.loss, adknet.lr, adknet.epochs, adknet.batch, adknet.patch) == ("mse", 3e-3, 1000, 32, 64)
    assert (premix.loss, premix.lr, premix.epochs, premix.batch, premix.patch) == ("l1", 1e-3, 300, 16, 256)
    assert (dmanet.loss, dmanet.lr, dmanet.epochs, dmanet.batch, dmanet.patch) == ("l1", 6e-4, 600, 32, 64)
    assert not any(paper.turns or np.isfinite(paper.longest_step) for paper in (adknet, premix, dmanet))
    assert [adknet.schedule(e, 1000) for e in (0, 99, 100, 250)] == [1, 1, 0.5, 0.25]
    assert premix.schedule(120, 300) == pytest.approx(0.64)
    assert dmanet.schedule(599, 600) == pytest.approx(0.64)


def test_scores_are_means_and_q2n_of_scenes_that_have_it(data: Path):
    files = data / "tiny_l8/pan.tif", data / "tiny_l8/ms.tif"
    large = examine(load(*files, sensor=GENERIC), GENERIC, 32)
    normalised = large.open()
    normalised = replace(normalised, pan=normalised.pan / 1e5, ms=normalised.ms / 1e5, gt=normalised.gt / 1e5)
    both = [large, examine(normalised, GENERIC, 32)]
    alone, pair = (
        Validation(scenes, lambda bands: build("premix-b", bands, 2, TINY), SCENE, 32, torch.device("cpu")).classical()
        for scenes in (both[:1], both)
    )
    assert set(alone) == set(METHODS)
    assert alone["gsa"].ergas < alone["exp"].ergas
    assert pair["exp"].as_dict() == pytest.approx(alone["exp"].as_dict(), rel=1e-4)
    assert Scores(1.0, 2.0, float("nan")).as_dict() == {"ergas": 1.0, "sam": 2.0}


def test_a_model_from_real_scenes(data: Path, tmp_path: Path):
    """A minute network on a minute scene: not good, but whole, and it sharpens."""
    job = Training(
        output=tmp_path / "premix-b.tiny", network="premix-b", bands=BANDS, ratio=2,
        scenes=[data / "l8_plain_a"], validation=[data / "tiny_l8"], steps=4, batch=2, validate_every=2,
        device="cpu", licence="test", options=TINY,
    )  # fmt: skip
    model = make_model(job)
    files = {"README.md", "curves.png", "sample.png", zoo.SPEC, "training.csv", zoo.WEIGHTS}
    events = {"tensorboard"} if importlib.util.find_spec("tensorboard") else set()
    assert {path.name for path in model.folder.iterdir()} == files | events
    assert set(model.spec.scores) == {*METHODS, "premix-b.tiny"}
    assert all({"ergas", "sam", "q2n"} == set(scores) for scores in model.spec.scores.values())
    assert model.load().options == TINY
    card = (model.folder / "README.md").read_text()
    assert all(name in card for name in model.spec.scores)
    rows = (model.folder / "training.csv").read_text().splitlines()
    assert rows[0] == "step,loss,lr,images_per_second,seconds,ergas,sam,q2n"
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
