"""Several networks for one scene: a mixture is linear in its shares, and the scene's own MS tells them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_zoo import random_model

from pansharpen_cli import zoo
from pansharpen_cli.errors import ModelError, SceneError
from pansharpen_cli.evaluation.assessment import sharpen
from pansharpen_cli.evaluation.reduced import load
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.networks import build
from pansharpen_cli.networks.consistency import Consistent
from pansharpen_cli.networks.layers import Upsample
from pansharpen_cli.networks.mixture import Mixture
from pansharpen_cli.training import mixing
from pansharpen_cli.training.adapt import Adaptation, adapt
from pansharpen_cli.training.mixing import mix, mixture_of
from pansharpen_cli.training.tasks import quarters

SMALL = {"channels": 8, "layers": 1, "modulated": True, "consistent": True}
MEMBERS = [
    {"network": "adknet-per-band", "options": {"channels": 8, "layers": 1}},
    {"network": "premix-b", "options": {"channels": 8}},
]
CPU = torch.device("cpu")


@pytest.fixture
def scene(data):
    return load(data / "tiny_l7" / "pan.tif", data / "tiny_l7" / "ms.tif", sensor=SENSORS["generic"])


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two models of any bands, as all there are."""
    monkeypatch.setattr(zoo, "folders", lambda: [tmp_path / "models"])
    scores = {"exp": {"ergas": 2.0}}
    return [
        random_model(
            tmp_path / "models" / name, f"{name}-per-band", bands=(), ratio=2,
            scores={**scores, name: {"ergas": ergas}}, **SMALL,
        )
        for name, ergas in {"adknet": 1.0, "premix-b": 1.1}.items()
    ]  # fmt: skip


@torch.no_grad()
def test_it_is_exp_and_shares_of_what_its_networks_add():
    torch.manual_seed(0)
    mixture = build("mixture", 3, 2, {"members": MEMBERS}).eval()
    pan, ms = torch.rand(2, 1, 32, 32), torch.rand(2, 3, 16, 16)
    exp = Upsample(2)(ms)
    own = [network(pan, ms) for network in mixture.networks]
    for shares in ([0.0, 0.0], [1.0, 0.0], [0.3, 0.9]):
        mixture.shares.copy_(torch.tensor(shares))
        expected = exp + sum(share * (hrms - exp) for share, hrms in zip(shares, own, strict=True))
        torch.testing.assert_close(mixture(pan, ms), expected)


@torch.no_grad()
def test_each_network_keeps_the_values_of_its_own():
    """Two of one kind ask for values of the same names."""
    torch.manual_seed(0)
    members = [MEMBERS[0], MEMBERS[0]]
    mixture = build("mixture", 3, 2, {"members": members}).eval()
    pan, ms = torch.rand(4, 1, 32, 32), torch.rand(4, 3, 16, 16)
    statistics = mixture.observe(pan, ms)
    exp = Upsample(2)(ms)
    expected = exp
    for network in mixture.networks:
        expected = expected + (network(pan, ms, network.observe(pan, ms)) - exp) / 2
    torch.testing.assert_close(mixture(pan, ms, statistics), expected)


def test_options_build_it_again():
    network = build("mixture", 4, 2, {"members": MEMBERS, "consistent": True})
    again = build("mixture", 4, 2, network.options)
    again.load_state_dict(network.state_dict())
    assert isinstance(again, Consistent)
    assert isinstance(again.network, Mixture)
    assert (again.halo, again.alignment, again.multiple_of) == (network.halo, network.alignment, network.multiple_of)


@pytest.mark.parametrize("options", [{}, {"members": []}, {"members": [{"network": "nobody's", "options": {}}]}])
def test_one_without_networks_is_refused(options):
    with pytest.raises(ModelError):
        build("mixture", 4, 2, options)


def mixed(models, scene, network=None):
    network = network or mixture_of(models, len(scene.band_names))
    return mix(network, scene, Radiometry("scene"), 64, CPU)


def test_the_shares_of_a_scene_that_is_a_mixture_are_found(models, scene, monkeypatch):
    from pansharpen_cli.backends.torch_backend import TorchBackend

    monkeypatch.setattr(mixing, "RIDGE", 0.0)
    network = mixture_of(models, len(scene.band_names))
    with torch.no_grad():
        network.network.shares.copy_(torch.tensor([0.3, 0.6]))
    truth = sharpen(scene, TorchBackend(network, 64, CPU), Radiometry("scene"))
    first, crosswise, shares = mixed(models, replace(scene, gt=truth))
    assert shares == pytest.approx([0.3, 0.6], abs=1e-3)
    np.testing.assert_allclose(crosswise, truth, atol=1e-3 * np.ptp(truth))
    alone = sharpen(scene, TorchBackend(models[0].load(4), 64, CPU), Radiometry("scene"))
    np.testing.assert_allclose(first, alone, rtol=1e-5)


def test_a_block_is_judged_by_shares_that_never_saw_it(models, scene):
    """Whatever the truth is there, the product of crosswise shares is the same; elsewhere it is another one."""
    quarter = quarters(scene.valid.shape, 4 * scene.ratio) == 2
    spoiled = np.where(quarter, scene.gt[:, ::-1], scene.gt)
    before, after = (mixed(models, replace(scene, gt=gt))[1] for gt in (scene.gt, spoiled))
    np.testing.assert_array_equal(before[:, quarter], after[:, quarter])
    assert (before != after)[:, ~quarter].mean() > 0.9


def test_a_scene_without_room_is_refused(models, scene):
    scene.valid[:] = False
    with pytest.raises(SceneError, match="too small, or has too little data"):
        mixed(models, scene)


def test_adapt_mixes_what_there_is(models, data, tmp_path):
    files = data / "tiny_l7" / "pan.tif", [data / "tiny_l7" / "ms.tif"]
    adapted = adapt(Adaptation(*files, tmp_path / "mine", coregister="off"))
    assert adapted.after["ergas"] < adapted.before["ergas"]
    assert list(adapted.shares) == ["adknet", "premix-b"]
    spec = zoo.read(tmp_path / "mine").spec
    assert (spec.network, spec.band_names) == ("mixture", ["blue", "green", "red", "nir"])
    assert spec.scores["mine"]["ergas"] == adapted.after["ergas"]
    card = (tmp_path / "mine" / "README.md").read_text()
    assert f"{adapted.shares['adknet']:.2f} of adknet" in card
    shares = zoo.read(tmp_path / "mine").load().network.shares.tolist()
    assert shares == pytest.approx(list(adapted.shares.values()), abs=1e-4)


def test_of_several_models_the_first_stays_if_it_is_better_alone(models, data, tmp_path, monkeypatch):
    def worse(*arguments):
        first, crosswise, shares = mix(*arguments)
        return first, crosswise + 1e3, shares

    monkeypatch.setattr("pansharpen_cli.training.adapt.mix", worse)
    files = data / "tiny_l7" / "pan.tif", [data / "tiny_l7" / "ms.tif"]
    names = ",".join(str(model.folder) for model in reversed(models))
    adapted = adapt(Adaptation(*files, tmp_path / "mine", names))
    assert adapted.after == adapted.before
    assert adapted.shares == {}
    before, after = models[1].load(4).state_dict(), zoo.read(tmp_path / "mine").load().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("bands", "radiometry"), [((), Radiometry("fixed", 255.0, 255.0)), (("red", "green", "blue", "nir"), None)]
)
def test_models_of_other_units_or_bands_are_not_mixed(bands, radiometry, models, data, tmp_path):
    options = {"channels": 8, "layers": 1}
    network = "adknet" if bands else "adknet-per-band"
    other = random_model(tmp_path / "other", network, bands=bands, ratio=2, radiometry=radiometry, **options)
    files = data / "tiny_l7" / "pan.tif", [data / "tiny_l7" / "ms.tif"]
    with pytest.raises(ModelError, match="cannot be mixed"):
        adapt(Adaptation(*files, tmp_path / "mine", f"{models[0].folder},{other.folder}"))


def test_a_classical_method_is_not_mixed(models, data, tmp_path):
    files = data / "tiny_l7" / "pan.tif", [data / "tiny_l7" / "ms.tif"]
    with pytest.raises(ModelError, match="cannot be mixed"):
        adapt(Adaptation(*files, tmp_path / "mine", f"{models[0].folder},gsa"))
