"""Images in no map projection: by RPCs, or along a track that is turned against the map. What a product shows must lie
where its file says, by GDAL's word, and its MS where the PAN shows the same ground."""

from __future__ import annotations

import json
import logging
import os
import re
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer
from worlds import CORNER, UTM, Sheet, World, ground, save

from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.quality import judge, write_maps
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.overlay import corners_of
from pansharpen_cli.imaging.rpc import Rpc
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.part import Window
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.resume import resume

Float64 = NDArray[np.float64]
Mapping = Callable[[Float64, Float64], tuple[Float64, Float64]]

TO_DEGREES = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
PAN_SIZE, MS_SIZE = (192, 256), (48, 64)
GSD, BANDS, WAVES = 2.0, 3, 160.0


@dataclass(frozen=True)
class Camera:
    """An image of `size` whose edge coordinates (x, y) show the ground (UTM) at `affine`, bent by so many pixels; what
    lies a metre higher is `lean` (x, y) pixels further on."""

    size: tuple[int, int]
    affine: Affine
    bent: float = 0.0
    lean: tuple[float, float] = (0.0, 0.0)

    def on_ground(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        height, width = self.size
        u, v = 2 * x / width - 1, 2 * y / height - 1
        return self.affine @ (x + self.bent * (u * v + v**2), y + self.bent * u**2)

    def image(self) -> Float64:
        """(BANDS, H, W)"""
        col, row = np.meshgrid(np.arange(self.size[1]) + 0.5, np.arange(self.size[0]) + 0.5)
        return ground(*self.on_ground(col, row), BANDS, WAVES)

    def rpc(self, height: float = 640.0) -> RPC:
        """Fitted over and around the image. Of the second order in the ground, so that denominators matter."""
        rows, cols = self.size
        side = np.linspace(-0.3, 1.3, 30)
        x, y, up = np.meshgrid(side * cols, side * rows, np.linspace(-400, 400, 5))
        long, lat = TO_DEGREES.transform(*self.on_ground(x, y))
        offs = {"long": long, "lat": lat}
        numbers = {f"{name}_off": float(np.mean(of)) for name, of in offs.items()}
        numbers |= {f"{name}_scale": float(np.ptp(of) / 2) for name, of in offs.items()}
        numbers |= {"height_off": height, "height_scale": 400.0}
        terms = terms_of(
            (long - numbers["long_off"]) / numbers["long_scale"], (lat - numbers["lat_off"]) / numbers["lat_scale"],
            up / 400,
        )  # fmt: skip
        seen = {"line": (y + self.lean[1] * up - 0.5, rows), "samp": (x + self.lean[0] * up - 0.5, cols)}
        for name, (pixel, size) in seen.items():
            value = (pixel - size / 2) / size
            # num(terms) - value den(terms without the first) = value
            system = np.concatenate([terms, -value.reshape(-1, 1) * terms[:, 1:4]], axis=1)
            found = np.linalg.lstsq(system, value.ravel(), rcond=None)[0]
            assert np.abs(system @ found - value.ravel()).max() * size < 2e-3
            numbers |= {f"{name}_off": size / 2, f"{name}_scale": float(size)}
            numbers |= {f"{name}_num_coeff": [float(part) for part in found[:20]]}
            numbers |= {f"{name}_den_coeff": [1.0, *map(float, found[20:]), *[0.0] * 16]}
        return RPC(**numbers)

    def write(self, path: Path, image: Float64, **profile: Any) -> Path:
        save(path, image, names=("blue", "green", "red")[: len(image)], dtype="uint16", **profile)
        return path


def terms_of(long: Float64, lat: Float64, up: Float64) -> Float64:
    """As GDAL orders them."""
    l, p, h = (part.ravel() for part in (long, lat, up))  # noqa: E741
    one = np.ones_like(l)
    return np.stack(
        [one, l, p, h, l * p, l * h, p * h, l * l, p * p, h * h, p * l * h, l**3, l * p * p, l * h * h, l * l * p, p**3,
         p * h * h, l * l * h, p * p * h, h**3], axis=1,
    )  # fmt: skip


def along(track: float, gsd: float) -> Affine:
    """Pixels of that size along a track `track` degrees off north."""
    return Affine.translation(*CORNER) @ Affine.rotation(track) @ Affine.scale(gsd, -gsd)


PAN = Camera(PAN_SIZE, along(11, GSD))
SAME_VIEW = Camera(MS_SIZE, along(11, 4 * GSD))
OTHER_VIEW = Camera(MS_SIZE, Affine.translation(3, 2) @ along(12, 4.02 * GSD), bent=0.4)


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Files of a PAN and an MS, by RPCs or by their transforms."""

    def write(pan: Camera = PAN, ms: Camera = SAME_VIEW, by: str = "rpc") -> tuple[Path, Path]:
        paths = []
        for name, camera, image in (("pan", pan, pan.image().mean(axis=0, keepdims=True)), ("ms", ms, ms.image())):
            placed = {"rpcs": camera.rpc()} if by == "rpc" else {"transform": camera.affine, "crs": UTM}
            paths.append(camera.write(tmp_path / f"{name}.tif", image, **placed))
        return paths[0], paths[1]

    return write


def with_rpc_beside(path: Path, camera: Camera, **changed: str | None) -> None:
    """The same image without RPCs in it, and a text with those of `camera` beside it, some of them `changed`."""
    with rasterio.open(path) as file:
        image, crs, transform = file.read(), file.crs, file.transform
    save(path, image, dtype="uint16", crs=crs, transform=transform)
    numbers = {name: text for name, text in (camera.rpc().to_gdal() | changed).items() if text is not None}
    lines = [f"{name}: {of}" for name, of in numbers.items() if "COEFF" not in name]
    for name, of in numbers.items():
        if "COEFF" in name:
            lines += [f"{name}_{index}: {part}" for index, part in enumerate(of.split(), 1)]
    path.with_name(f"{path.stem}_RPC.TXT").write_text("\n".join(lines) + "\n")


def in_its_place(path: Path, away: float = 0.0) -> None:
    """Warped to a map by GDAL, the file shows the ground, but for what its grey levels and `away` DN allow."""
    left, top = PAN.affine @ (PAN_SIZE[1] / 2, PAN_SIZE[0] / 2)
    transform = Affine(GSD, 0, left - 60, 0, -GSD, top + 60)
    warped = np.zeros((BANDS, 60, 60), np.float32)
    with rasterio.open(path) as file:
        placed = {"rpcs": file.rpcs, "RPC_HEIGHT": 640} if file.rpcs else {"src_transform": file.transform}
        rasterio.warp.reproject(
            file.read().astype(np.float32), warped, src_crs="EPSG:4326" if file.rpcs else file.crs, dst_crs=UTM,
            dst_transform=transform, resampling=rasterio.warp.Resampling.cubic, tolerance=0.001, **placed,
        )  # fmt: skip
    col, row = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
    truth = ground(*(transform @ (col, row)), BANDS, WAVES)
    assert np.ptp(truth) > 500
    assert np.abs(warped - truth).max() < 1.5 + away


@pytest.mark.parametrize("camera", [PAN, OTHER_VIEW, replace(PAN, lean=(0.3, -0.2))])
def test_rational_polynomials_are_those_of_gdal(camera: Camera):
    gdal, ours = camera.rpc(), Rpc.of(camera.rpc().to_dict())
    assert np.abs(gdal.line_den_coeff[1:]).max() > 0
    col, row = np.meshgrid(np.linspace(0, camera.size[1], 9), np.linspace(0, camera.size[0], 9))
    long, lat = TO_DEGREES.transform(*camera.on_ground(col, row))
    for height in (640.0, 500.0, 990.0):
        with RPCTransformer(gdal) as transformer:
            rows, cols = transformer.rowcol(long.ravel(), lat.ravel(), zs=[height] * long.size, op=np.asarray)
        found = ours.edges(lat, long, height)
        np.testing.assert_allclose(found[0].ravel(), rows, atol=1e-6)
        np.testing.assert_allclose(found[1].ravel(), cols, atol=1e-6)
    found = ours.edges(lat, long, 640.0)
    np.testing.assert_allclose(found, (row, col), atol=3e-3)
    np.testing.assert_allclose(ours.edges(lat, long + 360, 640.0), found, atol=1e-6)


def test_rational_polynomials_of_parts_and_of_coarser_pixels():
    ours = Rpc.of(PAN.rpc().to_dict())
    long, lat = (np.array([of]) for of in (ours.long_off, ours.lat_off))
    (row,), (col,) = ours.edges(lat, long, 640.0)
    assert ours.crop(7, -5).edges(lat, long, 640.0) == (row - 7, col + 5)
    np.testing.assert_allclose(np.ravel(ours.coarsened(4).edges(lat, long, 640.0)), (row / 4, col / 4))
    assert ours.crop(7, -5).origin_in(ours) == (7, -5)
    assert ours.origin_in(replace(ours, lat_off=ours.lat_off + 1)) is None
    assert ours.origin_in(ours.coarsened(4)) is None


def test_a_view_is_sharpened_as_the_same_pixels_on_a_map_are(tmp_path: Path):
    world = World(dtype="uint16", offset=(8, 4))
    upright = world.write(tmp_path)
    by_rpc = []
    for path, sheet in zip(upright, (world.pan_sheet, world.ms_sheet), strict=True):
        with rasterio.open(path) as file:
            image = file.read().astype(float)
        by_rpc.append(Camera(sheet.size, sheet.transform).write(
            tmp_path / f"rpc_{path.name}", image, rpcs=Camera(sheet.size, sheet.transform).rpc()
        ))  # fmt: skip
    products = [
        sharpen(Job(pan, [ms], tmp_path / f"{name}.tif", model="gsa")).path
        for name, (pan, ms) in {"map": upright, "view": by_rpc}.items()
    ]
    with rasterio.open(products[0]) as on_map, rasterio.open(products[1]) as view:
        assert (on_map.read() == view.read()).all()
        assert view.crs is None
        assert view.transform == Affine.identity()
        corner = on_map.transform @ (0, 0)
    with closing(Raster(products[1])) as raster:
        long, lat = TO_DEGREES.transform(*corner)
        found = raster.grid.rpc.edges(np.array([lat]), np.array([long]), 640.0)
        np.testing.assert_allclose(np.ravel(found), 0, atol=5e-3)


@pytest.mark.parametrize("by", ["rpc", "transform"])
@pytest.mark.parametrize("ms", [SAME_VIEW, OTHER_VIEW])
def test_the_ms_lies_where_the_pan_shows_the_same_ground(by: str, ms: Camera, pair):
    """Nested samples show what the PAN's pixels around them do; those of the other view are turned and bent."""
    if by == "transform":
        ms = replace(ms, bent=0.0)
    with Scene.open(*pair(ms=ms, by=by)) as scene:
        canvas = SceneCanvas.of(scene)
        assert canvas.ratio == 4
        assert scene.reprojected == (ms.affine != SAME_VIEW.affine)
        rows, cols = slice(0, canvas.rows.size), slice(0, canvas.cols.size)
        raw = canvas.raw(rows, cols)
    row, col = (axis.first + 4 * np.arange(axis.size // 4) + 2.0 for axis in (canvas.rows, canvas.cols))
    truth = ground(*PAN.on_ground(*np.meshgrid(col, row)), BANDS, WAVES)
    inside = raw.ms_valid.copy()
    inside[:6], inside[-6:], inside[:, :6], inside[:, -6:] = False, False, False, False
    assert inside.mean() > 0.4
    assert np.abs(raw.ms - truth)[:, inside].max() < 2  # grey levels are whole; a tenth of an MS pixel would be 7
    assert raw.valid.mean() > 0.8


@pytest.mark.parametrize("by", ["rpc", "transform"])
@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_a_product_lies_where_its_file_says(by: str, format: str, pair, tmp_path: Path):
    """All of it, and a part."""
    pan, ms = pair(ms=replace(OTHER_VIEW, bent=0.4 if by == "rpc" else 0.0), by=by)
    job = Job(pan, [ms], tmp_path / "whole.tif", model="exp", format=format, coregister="off", sensor="generic")
    in_its_place(sharpen(job).path, away=4)  # EXP, of MS pixels
    part = replace(job, output=tmp_path / "part.tif", part=Window(30, 20, 200, 150), statistics="scene")
    in_its_place(sharpen(part).path, away=4)


def test_the_pan_in_its_place_is_what_the_check_wants(pair):
    """The check itself can fail: a PAN pixel off is seen."""
    pan, _ = pair()
    camera = replace(PAN)
    image = camera.image()
    camera.write(pan, image, rpcs=camera.rpc())
    in_its_place(pan)
    camera.write(pan, np.roll(image, 1, axis=2), rpcs=camera.rpc())
    with pytest.raises(AssertionError):
        in_its_place(pan, away=4)


@pytest.mark.parametrize("by", ["rpc", "transform"])
def test_a_product_is_judged_in_its_place(by: str, pair, tmp_path: Path):
    """A part has the scores of its pixels, and maps that lie on it."""
    pan, ms = pair(by=by)
    job = Job(pan, [ms], tmp_path / "part.tif", model="gsa", part=Window(32, 32, 160, 128), statistics="scene")
    product = sharpen(job).path
    judgement = judge(product, maps=True)
    assert judgement.report.size == (128, 160)
    assert judgement.report.scores["QNR"].value > 0.9
    (map_, *_) = write_maps(judgement, tmp_path / "maps")
    with closing(Raster(map_)) as blocks, closing(Raster(pan)) as whole:
        assert blocks.grid.by_rpc == (by == "rpc")
        if by == "rpc":
            assert blocks.grid.rpc.origin_in(whole.grid.rpc.coarsened(32)) is not None
        else:
            assert blocks.grid.transform @ (0, 0) == pytest.approx(whole.grid.transform @ (0, 0))
    pixels = rasterio.open(product).read()
    save(tmp_path / "nowhere.tif", pixels, dtype="uint16")
    with pytest.raises(SceneError, match="not on the pixel grid"):
        judge(tmp_path / "nowhere.tif", pan=str(pan), ms=[str(ms)])


def test_rpcs_are_found_beside_an_image(pair, tmp_path: Path):
    """As the text that deliveries have; a run that is resumed sees that it changed."""
    pan, ms = pair()
    for path, camera in ((pan, PAN), (ms, SAME_VIEW)):
        with_rpc_beside(path, camera)
    job = Job(pan, [ms], tmp_path / "out.tif", model="exp", coregister="off", sensor="generic")
    assert not resume(job).kept
    in_its_place(job.output, away=4)
    assert resume(job).kept
    text = tmp_path / "pan_RPC.TXT"
    text.write_text(text.read_text().replace(f"SAMP_OFF: {PAN_SIZE[1] / 2}", f"SAMP_OFF: {PAN_SIZE[1] / 2 + 8}"))
    assert not resume(job).kept


def test_a_judge_sees_that_rpcs_beside_an_input_changed(pair, tmp_path: Path, caplog):
    caplog.set_level(logging.WARNING, "pansharpen_cli")
    pan, ms = pair()
    product = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="gsa")).path
    judge(product)
    assert not caplog.records
    with_rpc_beside(pan, PAN)
    judge(product)
    assert "has changed since" in caplog.text


def test_only_the_rpcs_place_a_product(pair, tmp_path: Path):
    """A transform of pixels beside them would have other programs put it near 0 degrees."""
    pan, ms = pair()
    product = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp")).path
    content = product.read_bytes()
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    tags = {struct.unpack_from("<H", content, directory + 2 + 12 * entry)[0] for entry in range(count)}
    assert {256, 50844} < tags  # its width and its RPCs
    assert not {33550, 33922, 34264} & tags


def test_parts_that_other_programs_cut_out(pair, tmp_path: Path):
    """They shift the RPCs and write a transform of pixels, too."""
    pan, ms = pair()
    with Scene.open(pan, ms) as scene:
        expected = SceneCanvas.of(scene, reach=None).raw(slice(32, 64), slice(32, 64))
    for path, origin, size in ((pan, (16, 8), 160), (ms, (4, 2), 40)):
        with rasterio.open(path) as file:
            image, rpcs = file.read()[:, origin[0] : origin[0] + size, origin[1] : origin[1] + size], file.rpcs
        rpcs.line_off -= origin[0]
        rpcs.samp_off -= origin[1]
        save(path, image, dtype="uint16", rpcs=rpcs, transform=Affine.translation(*origin[::-1]))
    with Scene.open(pan, ms) as scene:
        found = SceneCanvas.of(scene).raw(slice(16, 48), slice(24, 56))
    assert (found.pan == expected.pan).all()
    assert np.abs(found.ms - expected.ms).max() <= 1


def test_rpcs_that_say_nothing_do_not_matter_on_a_map(tmp_path: Path, caplog):
    world = World(dtype="uint16")
    pan, ms = world.write(tmp_path)
    caplog.set_level(logging.WARNING, "pansharpen_cli")
    with_rpc_beside(pan, Camera(PAN_SIZE, world.pan_sheet.transform), LINE_SCALE="abc")
    product = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp")).path
    assert "place it nowhere (could not convert string to float: 'abc'): they are left out" in caplog.text
    assert rasterio.open(product).rpcs is None


@pytest.mark.parametrize(
    "change", [{"LINE_OFF": None}, {"LINE_SCALE": "abc"}, {"LAT_SCALE": "0"}, {"LINE_OFF": "1" * 2000}]
)
def test_texts_with_broken_rpcs_are_refused(change, pair):
    pan, ms = pair()
    for path, camera in ((pan, PAN), (ms, SAME_VIEW)):
        with_rpc_beside(path, camera, **(change if path == pan else {}))
    with pytest.raises(SceneError, match=re.escape(str(pan))) as refused:
        Scene.open(pan, ms)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_nothing_beside_an_image_is_waited_for(tmp_path: Path):
    pan, ms = World().write(tmp_path)
    os.mkfifo(tmp_path / "pan_RPC.TXT")
    with pytest.raises(SceneError, match="is no file; move it away"):
        Scene.open(pan, ms)


def test_footprints(pair, tmp_path: Path):
    corners = corners_of(Rpc.of(PAN.rpc().to_dict()), *PAN_SIZE)
    ends = np.array([[0, 256, 256, 0], [0, 0, 192, 192]], float)
    np.testing.assert_allclose(np.transpose(corners), TO_DEGREES.transform(*PAN.on_ground(*ends)), atol=1e-5)


def test_an_upright_image_keeps_its_rpcs(tmp_path: Path):
    """Those of a product that is yet to be orthorectified; its transform says where it lies."""
    world = World(dtype="uint16", offset=(8, 4))
    pan, ms = world.write(tmp_path)
    with rasterio.open(pan, "r+") as file:
        file.rpcs = Camera(PAN_SIZE, world.pan_sheet.transform).rpc()
    product = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="brovey")).path
    with closing(Raster(product)) as raster, closing(Raster(pan)) as whole:
        assert not raster.grid.by_rpc
        assert raster.grid.rpc.origin_in(whole.grid.rpc) == (4, 8) == raster.grid.origin_in(whole.grid)


def test_views_from_different_sides_are_told(pair, caplog):
    caplog.set_level(logging.WARNING, "pansharpen_cli")
    with Scene.open(*pair(pan=replace(PAN, lean=(0.2, 0)), ms=replace(SAME_VIEW, lean=(0.05, 0)))):
        assert not caplog.records  # as much, in MS pixels
    with Scene.open(*pair(pan=replace(PAN, lean=(0.2, 0)), ms=SAME_VIEW)):
        assert "up to 80.0 PAN pixels" in caplog.text


UNSOUND = {
    "no scale": {"line_scale": 0.0},
    "not a number": {"lat_off": float("nan")},
    "no denominator": {"samp_den_coeff": [0.0] * 20},
    "an infinite coefficient": {"line_num_coeff": [float("inf")] * 20},
    "a pole": {"line_den_coeff": [0.0, 1.0] + [0.0] * 18},
    "huge": {"line_num_coeff": [1e300] * 20},
    "one place for all": {"line_num_coeff": [0.5] + [0.0] * 19, "line_den_coeff": [1.0] + [0.0] * 19},
    "far away": {"lat_off": -40.0},
}


@pytest.mark.parametrize("fault", UNSOUND)
@pytest.mark.parametrize("of", ["pan", "ms", "both"])
def test_rpcs_that_say_nothing_are_refused(fault: str, of: str, pair):
    pan, ms = pair()
    for name, path in (("pan", pan), ("ms", ms)):
        if of in (name, "both"):
            with rasterio.open(path, "r+") as file:
                rpcs = file.rpcs
                for field, value in UNSOUND[fault].items():
                    setattr(rpcs, field, value)
                file.rpcs = rpcs
    if (fault, of) == ("far away", "both"):
        return  # they lie on each other
    with (
        pytest.raises(SceneError, match=r"place it nowhere|do not lie on each other|do not overlap"),
        Scene.open(pan, ms) as s,
    ):
        SceneCanvas.of(s)


def test_what_is_placed_in_two_ways_is_refused(pair, tmp_path: Path):
    pan, _ = pair()
    _, on_map = World().write(tmp_path, name="map_")
    with pytest.raises(SceneError, match="not both on upright grids"):
        Scene.open(pan, on_map)


def test_grids_know_crops_of_each_other():
    whole = GeoGrid(100, 200, along(11, 2.0), UTM)
    part = whole.crop(slice(10, 60), slice(-5, 95))
    assert part.origin_in(whole) == pytest.approx((10, -5))
    assert whole.coarsened(2, 50, 100).origin_in(whole) is None
    assert replace(whole, transform=along(11.01, 2.0)).origin_in(whole) == pytest.approx((0, 0))
    assert replace(whole, transform=along(11.1, 2.0)).origin_in(whole) is None
    assert whole.gsd == pytest.approx((2, 2))
    assert json.dumps(whole.bounds)


def test_an_ms_in_degrees_goes_on_beyond_180(tmp_path):
    """PROJ stops there: the eastern part of a PAN would have no MS."""
    pan = Sheet((177_820, 8_119_000), (20.0, -20.0), (256, 256), "EPSG:32701")
    ms = Sheet((179.9, -16.9), (0.0008, -0.0008), (260, 260), "EPSG:4326")
    save(tmp_path / "pan.tif", np.full((1, 256, 256), 7), pan, dtype="uint16")
    save(tmp_path / "ms.tif", np.full((3, 260, 260), 9), ms, dtype="uint16")
    made = sharpen(
        Job(tmp_path / "pan.tif", [tmp_path / "ms.tif"], tmp_path / "out.tif", model="exp", coregister="off")
    )
    with rasterio.open(made.path) as product:
        assert product.shape == (256, 256)
        assert (product.read() == 9).all()


@pytest.mark.parametrize("west", [179.98, 179.98 - 360, 180.01, 180.01 - 360])
def test_a_pan_in_degrees_goes_on_beyond_180(west, tmp_path):
    """The MS lies across; seen from the PAN its footprint would begin in the far east and end in the far west."""
    pan = Sheet((west, -17.0), (0.0002, -0.0002), (150, 150), "EPSG:4326")
    ms = Sheet((177_820, 8_122_000), (80.0, -80.0), (110, 120), "EPSG:32701")
    save(tmp_path / "pan.tif", np.full((1, 150, 150), 7), pan, dtype="uint16")
    there = ground(*ms.centres(), BANDS, 4000)
    save(tmp_path / "ms.tif", there, ms)
    job = Job(tmp_path / "pan.tif", [tmp_path / "ms.tif"], tmp_path / "out.tif", model="exp", coregister="off")
    with rasterio.open(sharpen(job).path) as product:
        assert product.shape == (150, 150)
        assert product.transform == pan.transform
        x, y = pyproj.Transformer.from_crs(pan.crs, ms.crs, always_xy=True).transform(*pan.centres())
        assert np.abs(product.read() - ground(x, y, BANDS, 4000))[:, 8:-8, 8:-8].max() < 2


@pytest.mark.parametrize(("ms_crs", "turned"), [("EPSG:4326", 0), ("EPSG:4258", 0), ("EPSG:4326", 7)])
@pytest.mark.parametrize(("pan_west", "ms_west"), [(-3.5, 356.5), (356.5, -3.5), (179.99, -180.01)])
def test_degrees_are_the_same_a_turn_on(pan_west, ms_west, ms_crs, turned, tmp_path):
    """In one CRS, or in two whose degrees are the same; also where both grids are turned against the map."""
    world, paths = World(pan_size=(160, 160), ms_size=(40, 40)), {}
    about = Affine.rotation(turned)
    for name, image, west, size, crs in (
        ("pan", world.pan_image(), pan_west, 2e-5, "EPSG:4326"), ("ms", world.ms_image(), ms_west, 8e-5, ms_crs)
    ):  # fmt: skip
        paths[name] = tmp_path / f"{name}.tif"
        transform = Affine.translation(west, 40) @ about @ Affine.scale(size, -size)
        save(paths[name], image, transform=transform, crs=crs)
    job = Job(paths["pan"], [paths["ms"]], tmp_path / "out.tif", model="exp", coregister="off")
    with rasterio.open(sharpen(job).path) as product, rasterio.open(paths["pan"]) as pan:
        assert (product.transform, product.crs, product.shape) == (pan.transform, pan.crs, pan.shape)
        assert product.tags(ns="PANSHARPEN")["MS_INTERPOLATED"] == "no"
        assert np.abs(product.read() - world.at(*world.pan_sheet.centres()))[:, 8:-8, 8:-8].max() < 2


@pytest.mark.parametrize("silent", ["pan", "ms"])
def test_one_crs_is_both_s(silent, tmp_path, caplog):
    """As with a world file and a .prj, which GDAL does not read beside a TIFF."""
    caplog.set_level(logging.INFO, "pansharpen_cli")
    world = World(bands=3)
    for name, image, sheet in (("pan", world.pan_image(), world.pan_sheet), ("ms", world.ms_image(), world.ms_sheet)):
        save(tmp_path / f"{name}.tif", image, replace(sheet, crs=None) if name == silent else sheet)
    made = sharpen(Job(tmp_path / "pan.tif", [tmp_path / "ms.tif"], tmp_path / "out.tif", model="exp"))
    with rasterio.open(made.path) as product:
        assert product.crs == CRS.from_string(UTM)
    assert f"{silent}.tif names no CRS; it is taken to have that of" in caplog.text


def test_rpcs_of_a_nitf_are_better_than_its_corners(pair, tmp_path: Path):
    """The corners are rounded to seconds of arc."""
    upright = [Camera(size, along(0, gsd)) for size, gsd in ((PAN_SIZE, GSD), (MS_SIZE, 4 * GSD))]
    pan, ms = pair(*upright)
    as_tiff = sharpen(Job(pan, [ms], tmp_path / "tiff.tif", model="exp"))
    for name, camera in zip(("pan", "ms"), upright, strict=True):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            image, rpcs = file.read(), file.rpcs
        left, top = TO_DEGREES.transform(*camera.on_ground(0, 0))
        right, bottom = TO_DEGREES.transform(*camera.on_ground(*camera.size[::-1]))
        corners = rasterio.transform.from_bounds(left, bottom, right, top, *camera.size[::-1])
        with rasterio.open(
            tmp_path / f"{name}.ntf", "w", driver="NITF", ICORDS="G", height=camera.size[0], width=camera.size[1],
            count=len(image), dtype="uint16", transform=corners, crs="EPSG:4326", rpcs=rpcs,
        ) as file:  # fmt: skip
            file.write(image)
    with rasterio.open(tmp_path / "pan.ntf") as file:
        assert file.crs
        assert file.rpcs
    made = sharpen(Job(tmp_path / "pan.ntf", [tmp_path / "ms.ntf"], tmp_path / "nitf.tif", model="exp"))
    with rasterio.open(as_tiff.path) as one, rasterio.open(made.path) as other:
        assert other.crs is None
        assert other.rpcs
        assert one.shape == other.shape == PAN_SIZE
        assert np.abs(one.read().astype(int) - other.read()).max() <= 1  # a NITF has seven digits of an RPC
