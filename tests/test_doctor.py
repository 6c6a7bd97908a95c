"""`doctor`: what it says was tried, and what was asked for decides its exit code."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from test_zoo import random_model

from pansharpen_cli import doctor
from pansharpen_cli.backends import onnx_runtime
from pansharpen_cli.cli import app
from pansharpen_cli.doctor import Diagnosis, Finding


@pytest.fixture
def pansharpen(monkeypatch, capfd, tmp_path):
    """Call the program, which finds one model of its own: exit code, stdout, stderr."""
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))
    random_model(tmp_path / "models" / "mine.x", channels=4)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pansharpen", "doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        return exit_.value.code or 0, *capfd.readouterr()

    return call


def found(out):
    """State and detail by name."""
    return {finding["name"]: (finding["state"], finding["detail"]) for finding in json.loads(out)["findings"]}


def out_says_wrong(out):
    return out.splitlines()[-1].endswith("wrong (!)")


def test_a_machine_that_works(pansharpen):
    code, out, _ = pansharpen("--json")
    told = found(out)
    assert code == 0
    assert told["onnxruntime cpu"] == ("ok", "a session ran")
    assert {told[name][0] for name in ("GDAL", "PROJ", "memory", "mine.x", "torch", "rasterio")} == {"ok"}
    code, out, _ = pansharpen()
    assert code == 0
    assert "mine.x" in out


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_what_is_asked_for_decides(backend, pansharpen):
    import torch

    assert pansharpen("--device", "cpu", "--backend", backend)[0] == 0
    code, out, err = pansharpen("--device", "warp", "--backend", backend, "--json")
    assert code == 4
    assert json.loads(out)["asked"]["state"] == "wrong"  # the object is whole all the same
    assert "--device warp" in err
    assert out_says_wrong(pansharpen("--device", "warp", "--backend", backend)[1])
    if not torch.cuda.is_available():
        code, out, _ = pansharpen("--device", "cuda", "--backend", backend)
        assert (code, out_says_wrong(out)) == (4, True)


def test_what_is_wrong_is_counted():
    ok, wrong = (Finding("topic", state, state, "so it is") for state in ("ok", "wrong"))
    last = [
        Diagnosis(findings, asked).as_text().splitlines()[-1]
        for findings, asked in (((ok,), None), ((ok,), ok), ((ok,), wrong), ((ok, wrong), ok), ((ok, wrong), wrong))
    ]
    one = "1 thing is wrong (!)"
    assert last == ["nothing is wrong", "nothing is wrong", one, one, "2 things are wrong (!)"]


def test_a_model_that_was_changed_is_found(pansharpen, tmp_path):
    path = tmp_path / "models" / "mine.x" / "weights.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    assert found(pansharpen("--json")[1])["mine.x"][0] == "wrong"


def test_what_conflicts_is_found(pansharpen, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "packages", lambda: {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(onnx_runtime, "built_for", lambda: 13)
    monkeypatch.setattr(onnx_runtime, "torch_cuda", lambda: "12.8")
    told = found(pansharpen("--json")[1])
    assert told["onnxruntime packages"][0] == told["CUDA of torch and onnxruntime"][0] == "wrong"


def test_broken_geodata_are_found(pansharpen, monkeypatch):
    """As a PROJ_DATA of another installation does it."""
    monkeypatch.setattr(doctor, "_proj", lambda: 1 / 0)
    code, out, _ = pansharpen("--json")
    assert code == 0  # nobody asked for it
    assert found(out)["PROJ"] == ("wrong", "ZeroDivisionError: division by zero")


def test_little_room_is_found(pansharpen, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage._replace(free=10**6))
    monkeypatch.setattr(doctor, "free_memory", lambda: 10**8)
    told = found(pansharpen("--json")[1])
    assert {told[name][0] for name in ("memory", "working folder", "temporary files")} == {"wrong"}


def test_free_memory_is_not_more_than_the_machine_has():
    memory = doctor.free_memory()
    if memory is None:
        pytest.skip("nobody tells here")
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total = next(int(line.split()[1]) for line in lines if "MemTotal" in line)
    assert 0 < memory <= 1024 * total
