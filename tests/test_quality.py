"""`qnr`: a product is judged on the grids it was made on, and the numbers are the field's."""

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from pansharpen_cli.cli import app
from pansharpen_cli.errors import SceneError
from pansharpen_cli.pipeline import Job, sharpen
from pansharpen_cli.quality import judge, write_maps


def write(path: Path, image: np.ndarray, pixel: float) -> Path:
    """(row, col, band) or (row, col) as float64, `pixel` metres wide, without a CRS."""
    bands = np.atleast_3d(image).transpose(2, 0, 1).astype(np.float64)
    count, height, width = bands.shape
    transform = Affine(pixel, 0, 1000, 0, -pixel, 2000)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype="float64", transform=transform
    ) as file:
        file.write(bands)
        file.descriptions = ("blue", "green", "red", "nir")[:count] if count in (1, 4) else [""] * count
    return path


def files(case: Path, folder: Path) -> tuple[Path, Path, Path]:
    """pan, ms and product of a golden case."""
    arrays = np.load(case)
    return (
        write(folder / "pan.tif", arrays["pan"], 1),
        write(folder / "ms.tif", arrays["ms"], 4),
        write(folder / "fused.tif", arrays["fused"], 1),
    )


def test_the_field_s_numbers(golden: Path, tmp_path: Path):
    expected = json.loads((golden / "metrics/expected.json").read_text())["cases"]["real_qb"]
    pan, ms, fused = files(golden / "metrics" / expected["file"], tmp_path)
    report = judge(fused, pan=str(pan), ms=[str(ms)], sensor="QB", phase="toolbox").report
    for name in ("D_lambda", "D_s", "QNR", "D_lambda_K", "HQNR", "D_s_R", "RQNR"):
        assert report.scores[name].value == pytest.approx(expected["fr"][name], abs=1e-6), name


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A product with gaps, beside its inputs."""
    folder = tmp_path_factory.mktemp("product")
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(data / "wv2_rotterdam_2" / name, folder)
    job = Job(pan=folder / "pan.tif", ms=[folder / "ms.tif"], output=folder / "out.tif", model="exp", threads=1)
    return sharpen(job).path


def test_a_product_leads_to_its_inputs(product: Path):
    judgement = judge(product)
    scores = judgement.report.scores
    assert (judgement.pan, judgement.ms) == (str(product.parent / "pan.tif"), (str(product.parent / "ms.tif"),))
    assert scores["D_lambda"].value == pytest.approx(0, abs=0.02)  # EXP has the MS's relations between bands
    assert scores["D_lambda"].invalid > 0  # the gap is left out
    assert scores["QNR"].value == pytest.approx((1 - scores["D_lambda"].value) * (1 - scores["D_s"].value))


def test_moved_files_are_found_beside_it_and_changed_ones_are_noticed(
    product: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for name in ("pan.tif", "ms.tif", "out.tif"):
        shutil.copy(product.parent / name, tmp_path)
    with rasterio.open(tmp_path / "ms.tif", "r+") as file:
        file.update_tags(CHANGED="yes")
    hidden = product.parent / "pan.tif", product.parent / "hidden.tif"
    other = product.parent / "ms.tif", product.parent / "hidden_ms.tif"
    for old, new in (hidden, other):
        old.rename(new)
    try:
        with caplog.at_level(logging.WARNING, "pansharpen_cli"):
            judgement = judge(tmp_path / "out.tif")
    finally:
        for old, new in (hidden, other):
            new.rename(old)
    assert judgement.pan == str(tmp_path / "pan.tif")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'ms.tif'} has changed since {tmp_path / 'out.tif'} was made of it"
    ]


def test_maps_lie_where_their_blocks_are(product: Path, tmp_path: Path):
    judgement = judge(product, maps=True)
    paths = {path.stem: path for path in write_maps(judgement, tmp_path / "maps")}
    with rasterio.open(paths["D_lambda_K"]) as file, rasterio.open(product) as made:
        values = file.read(1)
        assert file.crs == made.crs
        # blocks begin where the nested grids do: up to a PAN pixel less than the ratio before the product
        assert (file.transform.a, file.transform.e) == (32 * made.transform.a, 32 * made.transform.e)
        before = np.array(~made.transform @ (file.transform.c, file.transform.f))
        assert np.all((before <= 0) & (before > -4) & (before == np.round(before)))
        assert values.shape == (18, 18)
    finite = values[np.isfinite(values)]
    assert len(finite) == judgement.report.scores["D_lambda_K"].counted
    assert finite.mean() == pytest.approx(judgement.report.scores["D_lambda_K"].value, abs=1e-6)


def test_a_product_that_says_nothing_needs_its_inputs(golden: Path, tmp_path: Path):
    pan, ms, fused = files(golden / "metrics/real_qb.npz", tmp_path)
    with pytest.raises(SceneError, match="does not say what its PAN was"):
        judge(fused)
    with pytest.raises(SceneError, match="not on the pixel grid"):
        judge(write(tmp_path / "off.tif", np.load(golden / "metrics/real_qb.npz")["fused"], 1.5), pan=str(pan), ms=[ms])


def test_the_command(product: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["pansharpen", "qnr", str(product), "--json"])
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"QNR", "D_lambda", "D_s", "HQNR", "D_lambda_K", "details"} <= set(answer)
