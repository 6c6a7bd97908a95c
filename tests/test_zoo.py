"""Model folders: written whole, found by name or path, and refused in one sentence when anything is wrong with them."""

import json
import os
import resource
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner
from worlds import hidden

from pansharpen_cli import zoo
from pansharpen_cli.classical import METHODS
from pansharpen_cli.cli import app
from pansharpen_cli.errors import ModelError, OutputError
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.method import choose
from pansharpen_cli.modelspec import WAVELENGTHS, Band, ModelSpec, comparable
from pansharpen_cli.networks import NETWORKS, build
from pansharpen_cli.system.locks import BusyError
from pansharpen_cli.training.adapt import Adaptation, adapt
from pansharpen_cli.training.make import Training, make_model

BGRN = ("blue", "green", "red", "nir")


def random_model(folder, network="premix-b", *, bands=BGRN, ratio=4, radiometry=None, scores=None, **options):
    """A model folder with seeded random weights."""
    torch.manual_seed(3)
    spec = ModelSpec(
        name=folder.name,
        network=network,
        options=options,
        bands=tuple(Band(name, WAVELENGTHS.get(name, 0.0)) for name in bands),
        ratio=ratio,
        phase=area_phase(ratio),
        radiometry=radiometry or Radiometry("scene"),
        crop=64,
        scores=scores or {},
    )
    return zoo.save(folder, spec, build(network, len(bands) or 1, ratio, options), f"# {folder.name}\n")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of models, the first that is looked into."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("PANSHARPEN_MODELS", str(folder))
    return folder


def change(folder, **entries):
    """Replace entries of a model's spec.json; their values need not make sense."""
    path = folder / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def one_sentence(error):
    """The message, after the checks that every message must pass."""
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


SMALL = {"adknet": {"channels": 8, "layers": 2}, "dmanet": {"widths": (4, 6, 8)}, "premix-h": {"channels": 4}}


def test_a_model_that_was_not_compared_with_exp_is_listed(models):
    """As `train --no-baselines` leaves it."""
    for name, scores in (("a.x", {"a.x": {"ergas": 2.5}}), ("b.x", {"exp": {"ergas": 4.0}, "b.x": {"ergas": 2.5}})):
        random_model(models / name, channels=4, scores=scores)
    listed = CliRunner().invoke(app.app, ["models"])
    assert listed.exit_code == 0, listed.exception
    a, b = (line for line in listed.output.splitlines() if line.startswith(("a.x", "b.x")))
    assert a.endswith("nir  ERGAS 2.50")
    assert b.endswith("nir  ERGAS 2.50 (EXP 4.00)")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_model_is_the_same_model(network, models):
    saved = random_model(models / f"{network}.x", network, **SMALL.get(network, {}))
    found = zoo.find(f"{network}.x")
    assert found.spec == ModelSpec.from_json(saved.spec.to_json(), "saved")
    torch.manual_seed(3)
    original = build(network, 4, 4, SMALL.get(network, {})).eval()
    loaded = found.load()
    assert not loaded.training
    assert (found.spec.halo, found.spec.multiple_of, found.spec.alignment) == (
        original.halo,
        original.multiple_of,
        original.alignment,
    )
    pan, ms = torch.rand(1, 1, 32, 32), torch.rand(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(pan, ms), original(pan, ms))


def test_a_lone_weights_file_explains_itself(models):
    model = random_model(models / "a.x", channels=8)
    with safe_open(models / "a.x" / "weights.safetensors", "pt") as file:
        header = ModelSpec.from_json(file.metadata()["pansharpen"], "header")
    assert replace(header, weights_sha256=model.spec.weights_sha256) == zoo.find("a.x").spec


def test_a_folder_is_found_by_its_path(tmp_path, models, monkeypatch):
    random_model(tmp_path / "elsewhere" / "a.x", channels=8)
    assert zoo.find(str(tmp_path / "elsewhere" / "a.x")).name == "a.x"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert zoo.find("a.x").name == "a.x"
    assert zoo.find(os.path.join(".", "a.x")).name == "a.x"


def test_the_first_folder_wins(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    random_model(first / "a.x", channels=4)
    random_model(second / "a.x", channels=8)
    random_model(second / "b.x", channels=8)
    monkeypatch.setenv("PANSHARPEN_MODELS", os.pathsep.join(map(str, (first, tmp_path / "missing", second))))
    assert zoo.find("a.x").folder == first / "a.x"
    assert [model.name for model in zoo.models() if model.folder.is_relative_to(tmp_path)] == ["a.x", "b.x"]


def test_an_unknown_name_is_answered_with_the_known_ones(models):
    random_model(models / "a.x", channels=8)
    with pytest.raises(ModelError) as error:
        zoo.find("b.x")
    assert "'b.x'" in one_sentence(error)
    assert "a.x" in str(error.value)


def test_a_folder_without_a_description_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"spec\.json") as error:
        zoo.find(str(tmp_path))
    one_sentence(error)


def test_weights_that_were_changed_are_refused(models):
    path = random_model(models / "a.x", channels=8).folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256") as error:
        zoo.find("a.x").load()
    assert str(path) in one_sentence(error)


def test_missing_weights_are_named(models):
    path = random_model(models / "a.x", channels=8).folder / "weights.safetensors"
    path.unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors") as error:
        zoo.find("a.x").load()
    one_sentence(error)


@pytest.mark.parametrize("options", [{"channels": 16}, {"channels": 8, "layers": 3}, {"channels": -1}])
def test_weights_of_another_network_are_refused_in_one_sentence(models, options):
    random_model(models / "a.x", channels=8)
    change(models / "a.x", options=options)
    with pytest.raises(ModelError) as error:
        zoo.find("a.x").load()
    one_sentence(error)


def test_weights_that_are_no_safetensors_are_refused(models):
    model = random_model(models / "a.x", channels=8)
    (model.folder / "weights.safetensors").write_bytes(b"nothing of the kind")
    change(model.folder, weights_sha256=zoo.digest(model.folder / "weights.safetensors"))
    with pytest.raises(ModelError) as error:
        zoo.find("a.x").load()
    one_sentence(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}", "\x00"])
def test_a_description_that_is_none_is_refused(models, text):
    model = random_model(models / "a.x", channels=8)
    (model.folder / "spec.json").write_text(text)
    with pytest.raises(ModelError, match=r"spec\.json") as error:
        zoo.read(model.folder)
    one_sentence(error)


@pytest.mark.parametrize(
    "entry",
    [
        {"name": 5},
        {"network": ["premix-b"]},
        {"network": "nobody's"},
        {"options": [1]},
        {"options": {"unheard_of": 1}},
        {"network": "mixture", "options": {"members": [{"network": "premix-b", "options": {"channels": 10**6}}]}},
        {"bands": []},
        {"bands": "bgrn"},
        {"bands": [{"name": 1}] * 4},
        {"bands": [{"name": "blue"}] * 4},
        {"ratio": 0},
        {"ratio": 2.5},
        {"ratio": True},
        {"phase": "left"},
        {"phase": float("nan")},
        {"radiometry": {"kind": "magic"}},
        {"radiometry": {"kind": "fixed", "scale": 0}},
        {"radiometry": {"kind": "fixed", "scale": "big"}},
        {"radiometry": {"kind": "scene", "spread": 0}},
        {"crop": -1},
        {"halo": 10**9},
        {"scores": [1]},
        {"scores": {"a.x": {}, "exp": {}}},
        {"scores": {"a.x": {"ergas": 1}, "exp": {"ergas": 0}}},
        {"scores": {"a.x": {"ergas": -1}, "exp": {"ergas": 1}}},
        {"scores": {"exp": {"ergas": 10**400}}},
        {"training": {"elsewhere": {"a town": {"exp": {"ergas": 0.0}}}}},
        {"training": [1]},
        {"training": {"elsewhere": {"a town": {"exp": 1.0}}}},
        {"format_version": 99},
        {"unheard_of": 1},
    ],
    ids=lambda entry: json.dumps(entry)[:60],
)
def test_a_description_that_makes_no_sense_is_refused(models, entry):
    """Here, and not in the middle of a run."""
    model = random_model(models / "a.x", channels=8)
    change(model.folder, **entry)
    with pytest.raises(ModelError) as error:
        zoo.read(model.folder).load()
    one_sentence(error)


def test_a_broken_model_does_not_take_the_others_with_it(models):
    random_model(models / "good.x", channels=8)
    random_model(models / "bad.x", channels=8)
    (models / "bad.x" / "spec.json").write_text("{")
    assert "good.x" in [model.name for model in zoo.models()]
    assert zoo.find("good.x").load() is not None
    with pytest.raises(ModelError, match=r"bad\.x"):
        zoo.find("bad.x")


@pytest.mark.parametrize("place", ["locked", "locked/models"])
def test_a_folder_that_may_not_be_looked_into_does_not_take_other_models_with_it(tmp_path, monkeypatch, caplog, place):
    """As where $PANSHARPEN_MODELS leads into the home of another user."""
    (tmp_path / "locked/models").mkdir(parents=True)
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / place))
    with hidden(tmp_path / "locked", tmp_path):
        assert [model.name for model in zoo._readable(tmp_path / place)] == []
        assert f"{place} may not be looked into by you; its models are left out" in caplog.text
        with pytest.raises(OutputError, match="Permission denied"), zoo.claimed(tmp_path / place / "mine", False):
            pass


def test_who_may_read_one_file_of_a_model_may_read_all(models):
    """safetensors' own files are for nobody but their user."""
    folder = random_model(models / "a.x", channels=8).folder
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_an_interrupted_save_leaves_no_model(models, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        random_model(models / "a.x", channels=8)
    assert "a.x" not in [model.name for model in zoo.models()]


def test_a_digest_is_the_files_sha256(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert zoo.digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_model_of_any_bands_fits_every_count_and_takes_bands_as_they_come(models):
    random_model(models / "free", "adknet-per-band", bands=(), channels=8, layers=1, consistent=True)
    model = zoo.find("free")
    assert model.spec.misfit(7, 4.0, 0.01) is None
    assert model.spec.misfit(7, 2.0, 0.01) is not None
    assert model.spec.order_of(["x", "y", "x"]) == [0, 1, 2]
    images = torch.randn(1, 1, 32, 32), torch.randn(1, 7, 8, 8)
    with torch.inference_mode():
        assert model.load(7)(*images).shape == (1, 7, 32, 32)


@pytest.mark.parametrize("known", [True, False])
def test_auto_goes_by_scenes_that_all_were_judged_on_and_none_learned_from(models, known, monkeypatch):
    """Without such scenes, a model for these very bands comes first."""
    monkeypatch.setattr(zoo, "folders", lambda: [models])

    def judged(name, ergas, elsewhere, **model):
        random_model(models / name, scores={name: {"ergas": ergas}, "exp": {"ergas": 2.0}}, **model)
        tables = {"a town": {name: {"ergas": elsewhere}, "exp": {"ergas": 4.0}}, "its own": {name: {"ergas": 0.1}}}
        change(models / name, training={"elsewhere": tables} if known else {})

    judged("these", 1.0, 3.0, channels=8)
    judged("any", 1.2, 2.0, network="adknet-per-band", bands=(), channels=8, layers=1)
    assert choose("auto", SimpleNamespace(band_names=BGRN, ratio=4, exact_ratio=4.0)).name == (
        "any" if known else "these"
    )


def test_a_model_beside_an_exp_without_error_takes_no_other_with_it(models, monkeypatch, caplog):
    monkeypatch.setattr(zoo, "folders", lambda: [models])
    for name in ("a.x", "b.x"):
        random_model(models / name, channels=8, scores={name: {"ergas": 1.0}, "exp": {"ergas": 2.0}})
    change(models / "a.x", scores={"a.x": {"ergas": 0.5}, "exp": {"ergas": 0}})
    assert choose("auto", SimpleNamespace(band_names=BGRN, ratio=4, exact_ratio=4.0)).name == "b.x"
    assert "a.x/spec.json makes no sense" in caplog.text
    assert comparable({"a.x": {"ergas": 0.0}, "exp": {"ergas": 0.0}}) == {"a.x": {"ergas": 0.0}}


def test_what_is_listed_is_what_its_name_finds(tmp_path, monkeypatch):
    """Whatever folders are called: of one name, the first place counts, and the folder of that name before a copy."""
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    monkeypatch.setattr(zoo, "folders", lambda: [own, shipped])
    random_model(shipped / "a.x", channels=4)
    random_model(shipped / "b.x", channels=4)
    random_model(shipped / "c.x", channels=4)
    random_model(own / "mine", channels=8)
    change(own / "mine", name="a.x")
    random_model(own / "b.x", channels=8)
    shutil.copytree(own / "b.x", own / "b-before")
    found = {model.name: model.folder for model in zoo.models()}
    assert found == {"a.x": own / "mine", "b.x": own / "b.x", "c.x": shipped / "c.x"}
    assert {name: zoo.find(name).folder for name in found} == found
    assert zoo.find("b-before").folder == own / "b-before"
    random_model(own / "c.x", channels=8)
    change(own / "c.x", name="d.x")
    assert [zoo.find(name).folder for name in ("c.x", "d.x")] == [shipped / "c.x", own / "c.x"]


def test_a_card_need_not_be_utf8(models):
    random_model(models / "a.x", channels=8)
    (models / "a.x" / "README.md").write_bytes("Modell f\xfcr Wien".encode("latin-1"))
    shown = CliRunner().invoke(app.app, ["models", "a.x"])
    assert shown.exit_code == 0, shown.exception
    assert "Modell f\ufffdr Wien" in shown.output


def test_auto_guesses_nothing(models, monkeypatch):
    """Neither the order of bands without names, nor that a model fitted to one scene is good for another."""
    monkeypatch.setattr(zoo, "folders", lambda: [models])

    def chosen(*names):
        return choose("auto", SimpleNamespace(band_names=list(names), ratio=4, exact_ratio=4.0)).name

    random_model(models / "these", channels=8)
    assert chosen(*BGRN) == "these"
    assert chosen("band 1", "band 2", "band 3", "band 4") == chosen("swirA", "tirA", "tirB", "x") == "mtf-glp-fs"
    change(models / "these", training={"adapted_from": "another"})
    assert chosen(*BGRN) == "mtf-glp-fs"
    random_model(models / "any", "adknet-per-band", bands=(), channels=8, layers=1)
    assert chosen(*BGRN) == chosen("swirA", "tirA", "tirB", "x") == "any"


def test_cards_compare_with_nothing_but_what_there_is():
    known = {model.name for model in zoo.models()} | set(METHODS)
    for model in zoo.models():
        for table in (model.spec.scores, *model.spec.elsewhere.values()):
            assert set(table) <= known, model.name


def test_a_model_is_made_by_one_run_at_a_time(tmp_path):
    """Whichever command it is; what nothing came into is not there afterwards."""
    folder = tmp_path / "new" / "m"
    busy = pytest.raises(BusyError, match="m is being made by another run; wait for it")
    pair = tmp_path / "pan.tif", [tmp_path / "ms.tif"]
    for make in (
        lambda: adapt(Adaptation(*pair, folder)),
        lambda: make_model(Training(folder, ["red"], 2, [tmp_path], [tmp_path], network="premix-b")),
    ):
        with zoo.claimed(folder, overwrite=False), busy:
            make()
        assert not (tmp_path / "new").exists()
    with zoo.claimed(folder, overwrite=False):
        random_model(folder, channels=4)
    assert {path.name for path in folder.iterdir()} == {"README.md", "spec.json", "weights.safetensors"}
    with pytest.raises(OutputError, match="m is a model already"), zoo.claimed(folder, overwrite=False):
        pass


def test_a_model_that_cannot_be_replaced_stays(tmp_path):
    """Files may grow to some bytes only, as on a disk that is full."""
    model = random_model(tmp_path / "m", channels=4)
    before = {path.name: path.read_bytes() for path in model.folder.iterdir()}
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for allowed in (10, len(before["weights.safetensors"]) - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, hard))
        try:
            with pytest.raises(OutputError, match=r"m cannot be written: File too large"):
                random_model(tmp_path / "m", channels=4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert {path.name: path.read_bytes() for path in model.folder.iterdir()} == before
