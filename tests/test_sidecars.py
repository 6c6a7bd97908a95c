"""Files beside a raster that GDAL opens with it: they are TIFFs, or the raster is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from worlds import World, hidden

from pansharpen_cli.errors import SceneError
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.resume import resume

WORLD = World(dtype="uint16")
VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="24"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
    '<SourceFilename relativeToVRT="0">{}</SourceFilename></VRTRasterBand></VRTDataset>'
)


@pytest.mark.parametrize("name", ["ms.tif.msk", "ms.tif.ovr", "ms.tif.MSK", "ms.tif.msk.ovr"])
def test_what_lies_beside_is_a_tiff(tmp_path: Path, name: str):
    _, ms = WORLD.write(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_bytes(bytes(range(200)) * 20)
    if name.endswith(".msk.ovr"):
        mask_beside(ms)
    (tmp_path / name).write_text(VRT.format(secret))
    with pytest.raises(SceneError, match=f"{name} is no TIFF"):
        Raster(ms)


@pytest.mark.parametrize("name", ["ms.tif", "ms.tif.msk"])
def test_what_may_not_be_read_is_told_as_such(tmp_path: Path, name: str):
    _, ms = WORLD.write(tmp_path)
    mask_beside(ms)
    with hidden(tmp_path / name, tmp_path), pytest.raises(SceneError, match=f"{name} may not be read by you"):
        Raster(ms)


def test_what_lies_in_a_folder_that_may_not_be_looked_into_is_told_as_such(tmp_path: Path):
    """None can say that it does not exist."""
    (folder := tmp_path / "locked").mkdir()
    _, ms = WORLD.write(folder)
    with hidden(folder, tmp_path):
        with pytest.raises(SceneError, match=r"ms\.tif is in a folder that you may not look into$") as caught:
            Raster(ms)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_overviews_are_not_elsewhere(tmp_path: Path):
    _, ms = WORLD.write(tmp_path)
    (tmp_path / "ms.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="&#79;VERVIEW_FILE">other.vrt</MDI></Metadata></PAMDataset>'
    )
    with pytest.raises(SceneError, match="overviews are in another file"):
        Raster(ms)


def mask_beside(path: Path) -> Path:
    """Half of the pixels hold no data."""
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read()
    mask = np.ones(pixels.shape[1:], bool)
    mask[:, : mask.shape[1] // 2] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.write_mask(mask)
    return path.with_name(f"{path.name}.msk")


def test_a_mask_beside_is_obeyed_and_counts(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    job = Job(pan, [ms], tmp_path / "out.tif", model="exp", coregister="off")
    first = resume(job)
    assert mask_beside(ms).is_file()
    second = resume(job)
    assert not second.kept
    assert first.job_sha256 != second.job_sha256
    with rasterio.open(job.output) as file:
        assert not file.read_masks(1)[:, : file.width // 4].any()


@pytest.mark.parametrize("name", ["http:127.0.0.1:9/x.tif", "file:../x.tif", "zip:x.tif"])
def test_a_local_name_that_looks_like_a_scheme_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    pan, ms = WORLD.write(tmp_path)
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    ms.rename(place)
    monkeypatch.chdir(tmp_path)
    with Scene.open(pan.name, name) as scene:
        assert scene.ms[0].read(slice(0, 24), slice(0, 32))[1].all()


def test_an_alpha_band_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "ms.tif"
    noise = np.random.default_rng(0).integers(1, 255, (5, 600, 600), np.uint8)
    with rasterio.open(path, "w", driver="GTiff", width=600, height=600, count=5, dtype="uint8", compress="deflate",
                       alpha="YES", interleave="band") as file:  # fmt: skip
        file.write(noise, window=Window(0, 0, 600, 600))
    content = bytearray(path.read_bytes())
    content[-3000:-1000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"ms\.tif cannot be read"):
        Raster(path).read(slice(0, 600), slice(0, 600))
