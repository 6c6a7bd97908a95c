"""Mosaics: of VRTs those are read that only put local files together, and GDAL sees nothing else of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from worlds import World

from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.evaluation.quality import judge
from pansharpen_cli.inputs import mosaic
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.resume import resume
from pansharpen_cli.system.files import digest

WORLD = World(bands=4)

SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{band}</SourceBand>'
    '<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
    '<DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/></SimpleSource>'
)


def in_quarters(path: Path, **profile) -> Path:
    """The file cut in four, and a VRT that puts them together."""
    with rasterio.open(path) as file:
        halves = [(0, size // 2, size) for size in file.shape]
        sources: dict[int, list[str]] = {index: [] for index in file.indexes}
        for i, (top, bottom) in enumerate(zip(halves[0][:-1], halves[0][1:], strict=True)):
            for j, (left, right) in enumerate(zip(halves[1][:-1], halves[1][1:], strict=True)):
                window = Window.from_slices((top, bottom), (left, right))
                part = path.with_name(f"{path.stem}_R{i + 1}C{j + 1}.tif")
                size = {"height": bottom - top, "width": right - left}
                with rasterio.open(
                    part, "w", **file.profile | size | profile | {"transform": file.window_transform(window)}
                ) as to:
                    to.write(file.read(window=window))
                for band, texts in sources.items():
                    texts.append(SOURCE.format(file=part.name, band=band, row=top, col=left, **size))
        crs = f"<SRS>{file.crs.to_wkt()}</SRS>".replace('"', "&quot;")
        place = f"<GeoTransform>{', '.join(map(repr, file.transform.to_gdal()))}</GeoTransform>"
        bands = "".join(
            f'<VRTRasterBand dataType="{"UInt16" if file.dtypes[0] == "uint16" else "Float32"}" band="{band}">'
            f"<Description>{name or ''}</Description>{''.join(sources[band])}</VRTRasterBand>"
            for band, name in zip(file.indexes, file.descriptions, strict=True)
        )
        vrt = path.with_suffix(".vrt")
        vrt.write_text(
            f'<VRTDataset rasterXSize="{file.width}" rasterYSize="{file.height}">{crs}{place}{bands}</VRTDataset>'
        )
    return vrt


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_a_delivery_in_tiles_gives_the_pixels_of_one_in_one_piece(tmp_path: Path, data: Path):
    for name in ("pan", "ms"):
        shutil.copy(data / "l8_madrid" / f"{name}.tif", tmp_path / f"{name}.tif")
    whole, parts = tmp_path / "whole.tif", tmp_path / "parts.tif"
    sharpen(Job(tmp_path / "pan.tif", [tmp_path / "ms.tif"], whole, model="gsa"))
    vrts = [in_quarters(tmp_path / f"{name}.tif") for name in ("pan", "ms")]
    sharpen(Job(vrts[0], vrts[1:], parts, model="gsa"))
    assert (pixels(whole) == pixels(parts)).all()
    with rasterio.open(parts) as file:
        assert file.crs
        assert file.descriptions[0]
        assert json.loads(file.tags(ns="PANSHARPEN")["MS"]) == ["ms.vrt"]
    ours, theirs = (
        judge(parts, sensor="generic"),
        judge(whole, sensor="generic"),
    )  # `judge` finds the VRTs by their tags
    assert {n: s.value for n, s in ours.report.scores.items()} == {n: s.value for n, s in theirs.report.scores.items()}


@pytest.mark.skipif(not shutil.which("gdalbuildvrt"), reason="needs gdalbuildvrt")
@pytest.mark.parametrize("options", [[], ["-srcnodata", "0", "-vrtnodata", "0"], ["-hidenodata"]])
def test_as_gdalbuildvrt_makes_them(tmp_path: Path, options: list[str]):
    _, ms = WORLD.write(tmp_path)
    in_quarters(ms).unlink()
    vrt = tmp_path / "built.vrt"
    subprocess.run(["gdalbuildvrt", "-q", *options, vrt, *sorted(tmp_path.glob("ms_R*.tif"))], check=True)
    raster, plain = Raster(vrt), Raster(ms)
    everywhere = slice(0, plain.grid.height), slice(0, plain.grid.width)
    assert (raster.read(*everywhere)[0] == plain.read(*everywhere)[0]).all()
    assert raster.grid.matches(plain.grid)
    raster.close()
    plain.close()


@pytest.mark.skipif(not shutil.which("gdalbuildvrt"), reason="needs gdalbuildvrt")
def test_bands_one_over_the_other(tmp_path: Path):
    _, ms = WORLD.write(tmp_path)
    for band, image in enumerate(pixels(ms), 1):
        with (
            rasterio.open(ms) as file,
            rasterio.open(tmp_path / f"B{band}.tif", "w", **file.profile | {"count": 1}) as one,
        ):
            one.write(image, 1)
    vrt = tmp_path / "stack.vrt"
    subprocess.run(["gdalbuildvrt", "-q", "-separate", vrt, *sorted(tmp_path.glob("B?.tif"))], check=True)
    raster = Raster(vrt)
    found = raster.read(slice(0, 24), slice(0, 32))[0]
    raster.close()
    assert (found == pixels(ms)).all()


def broken(tmp_path: Path, old: str, new: str) -> Path:
    """A good mosaic in which something stands instead of something else."""
    _, ms = WORLD.write(tmp_path)
    vrt = in_quarters(ms)
    text = vrt.read_text()
    assert old in text
    vrt.write_text(text.replace(old, new))
    return vrt


RPC = "".join(
    f"<MDI key='{key}'>{value}</MDI>"
    for key, value in {
        **dict.fromkeys(("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF"), "10"),
        **dict.fromkeys(("LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE"), "1"),
        **{f"{side}_{part}_COEFF": " ".join(["1"] * 20) for side in ("LINE", "SAMP") for part in ("NUM", "DEN")},
    }.items()
)
NAME = '<SourceFilename relativeToVRT="1">ms_R1C1.tif'
BAND = '<VRTRasterBand dataType="Float32" band="1">'

EVIL = {
    "a URL": (NAME, '<SourceFilename relativeToVRT="0">/vsicurl/http://127.0.0.1:9/x.tif', "no local file"),
    "an archive": (NAME, '<SourceFilename relativeToVRT="0">/vsizip/x.zip/x.tif', "no local file"),
    "a part of a file": (NAME, '<SourceFilename relativeToVRT="0">GTIFF_DIR:1:ms_R1C1.tif', "no local file"),
    "no raster": (NAME, '<SourceFilename relativeToVRT="0">/etc/passwd', "not a readable GeoTIFF or JPEG 2000"),
    "itself": (NAME, '<SourceFilename relativeToVRT="1">ms.vrt', "not a readable GeoTIFF or JPEG 2000"),
    "nothing": (NAME, '<SourceFilename relativeToVRT="1">gone.tif', "no local file"),
    "a device": (NAME, '<SourceFilename relativeToVRT="0">/dev/zero', "no local file"),
    "code": (BAND, f'{BAND[:-1]} subClass="VRTDerivedRasterBand"><PixelFunctionCode>x</PixelFunctionCode>', "Derived"),
    "a function": (BAND, f"{BAND}<PixelFunctionType>x</PixelFunctionType>", "PixelFunctionType"),
    "bytes of any file": (BAND, f'{BAND[:-1]} subClass="VRTRawRasterBand">', "VRTRawRasterBand"),
    "a warp": ("<VRTDataset", '<VRTDataset subClass="VRTWarpedDataset"', "VRTWarpedDataset"),
    "a pansharpening": ("<SRS>", "<PansharpeningOptions/><SRS>", "PansharpeningOptions"),
    "options for a driver": ("<SourceBand>", "<OpenOptions><OOI>x</OOI></OpenOptions><SourceBand>", "OpenOptions"),
    "another radiometry": ("<SourceBand>", "<ScaleRatio>2</ScaleRatio><SourceBand>", "ScaleRatio"),
    "an array": ("SimpleSource>", "ArraySource>", "ArraySource"),
    "a filter": ("SimpleSource>", "KernelFilteredSource>", "KernelFilteredSource"),
    "overviews of their own": (BAND, f"{BAND}<Overview><SourceFilename>x</SourceFilename></Overview>", ""),
    "another size": ('DstRect xOff="0" yOff="0" xSize="16"', 'DstRect xOff="0" yOff="0" xSize="32"', "resamples"),
    "half a pixel": ('DstRect xOff="16"', 'DstRect xOff="16.5"', "resamples"),
    "no number": ('DstRect xOff="16"', 'DstRect xOff="x"', "what part lies where"),
    "not a number": ('DstRect xOff="16"', 'DstRect xOff="nan"', "resamples|what part"),
    "a CRS from a URL": ("<SRS>", "<SRS>http://127.0.0.1:9/", "neither WKT"),
    "an entity": ("<VRTDataset", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><VRTDataset', ""),
    "an entity that is used": ("<SRS>", "<SRS>&a;", "no VRT that can be read"),
    "a band that is not there": ("<SourceBand>1", "<SourceBand>99", "takes band '99'"),
    "band 0": ("<SourceBand>1", "<SourceBand>0", "takes band '0'"),
    "the mask of a band that is not there": ("<SourceBand>1", "<SourceBand>mask,99", "takes band 'mask,99'"),
    "an unknown encoding": ("<VRTDataset", '<?xml version="1.0" encoding="hex"?><VRTDataset', "can be read"),
    "no XML": ("</VRTDataset>", "", "no VRT that can be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", EVIL)
def test_what_is_more_than_a_mosaic_is_refused(tmp_path: Path, what: str):
    old, new, because = EVIL[what]
    vrt = broken(tmp_path, old, new)
    if not because:  # harmless: left out
        Raster(vrt).close()
        return
    with pytest.raises(SceneError, match=because) as caught:
        Raster(vrt)
    assert str(vrt) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gdal_sees_nothing_that_was_not_understood(tmp_path: Path):
    vrt = broken(tmp_path, "<SRS>", "<Metadata><MDI key='x'>secret</MDI></Metadata><!-- secret --><SRS>")
    document = mosaic.read(vrt).document
    assert "secret" not in document
    assert document.count(str(tmp_path / "ms_R1C1.tif")) == 4
    assert 'relativeToVRT="1"' not in document


def test_the_parts_of_a_mosaic_count(tmp_path: Path):
    """For what a run depends on, for what may be overwritten, and for what changes meanwhile."""
    pan, ms = WORLD.write(tmp_path)
    vrt, out = in_quarters(ms), tmp_path / "out.tif"
    first = sharpen(Job(pan, [vrt], out, model="brovey"))
    assert resume(Job(pan, [vrt], out, model="brovey")).kept
    part = tmp_path / "ms_R2C2.tif"
    with pytest.raises(OutputError, match="one of the inputs"):
        sharpen(Job(pan, [vrt], part, model="brovey", overwrite=True))
    with Scene.open(pan, vrt) as scene:
        with rasterio.open(part, "r+") as file:
            file.write(file.read() + 1)
        os.utime(part, (1, 1))
        with pytest.raises(SceneError, match=vrt.name):
            scene.check_unchanged()
    again = sharpen(Job(pan, [vrt], out, model="brovey", overwrite=True))
    assert again.job_sha256 != first.job_sha256
    with rasterio.open(out) as file:
        assert json.loads(file.tags(ns="PANSHARPEN")["MS_SHA256"]) == [digest(*mosaic.files_of(vrt))]


def test_one_that_claims_more_than_its_files_hold(tmp_path: Path):
    vrt = broken(tmp_path, 'rasterXSize="32" rasterYSize="24"', 'rasterXSize="999999" rasterYSize="999999"')
    with pytest.raises(SceneError, match="more than any image compresses to"):
        Raster(vrt)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_names_that_are_not_utf8_are_refused(tmp_path: Path):
    """Of the VRT, and of the folder of its parts."""
    (tmp_path / "plain").mkdir()
    vrt = in_quarters(World(bands=3, dtype="uint16").write(tmp_path / "plain")[1])
    folder = shutil.copytree(vrt.parent, tmp_path / "\udce9")
    for odd in (shutil.copy(vrt, vrt.with_name("\udce9.vrt")), folder / "ms.vrt"):
        with pytest.raises(SceneError, match="has a name that is not UTF-8; rename it"):
            Raster(odd)


def test_parts_that_lie_a_little_off_the_grid_are_put_on_it(tmp_path: Path):
    """On fractions of pixels GDAL's threads write the same pixels, in any order."""
    old = 'DstRect xOff="16" yOff="0" xSize="16" ySize="12"'
    vrt = broken(tmp_path, old, 'DstRect xOff="15.98" yOff="0.004" xSize="16.01" ySize="12"')
    document = mosaic.read(vrt).document
    assert document.count('DstRect xOff="16" yOff="0" xSize="16" ySize="12"') == 4
    assert 'xOff="15' not in document
    with Scene.open(*WORLD.write(tmp_path, name="whole_")) as whole, Scene.open(tmp_path / "pan.tif", vrt) as scene:
        everywhere = slice(0, 24), slice(0, 32)
        assert (scene.ms[0].read(*everywhere)[0] == whole.ms[0].read(*everywhere)[0]).all()


def test_bands_of_several_types(tmp_path: Path):
    _, ms = WORLD.write(tmp_path)
    vrt = in_quarters(ms)
    vrt.write_text(vrt.read_text().replace('dataType="Float32" band="2"', 'dataType="Float64" band="2"'))
    raster = Raster(vrt)
    assert raster.dtype == np.float64
    assert (raster.read(slice(0, 24), slice(0, 32))[0] == pixels(ms)).all()
    raster.close()


def test_a_mosaic_of_a_view_is_placed_by_its_rpcs(tmp_path: Path):
    place = "<GeoTransform>"
    vrt = broken(tmp_path, place, f"<Metadata domain='RPC'>{RPC}</Metadata>{place}")
    text = vrt.read_text()
    start, stop = text.index("<SRS>"), text.index("</GeoTransform>") + len("</GeoTransform>")
    rpc = text.index("<Metadata")
    vrt.write_text(text[:start] + text[rpc : text.index("</Metadata>") + len("</Metadata>")] + text[stop:])
    with closing(Raster(vrt)) as raster:
        assert raster.grid.by_rpc


def test_a_tiff_that_speaks_of_vrts_is_a_tiff(tmp_path: Path):
    path = tmp_path / "cog.tif"
    with rasterio.open(path, "w", driver="COG", width=64, height=64, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 64, 64), np.uint8))
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION="made from <VRTDataset>")
    assert b"<VRTDataset" in path.read_bytes()[:1024]
    assert not mosaic.is_vrt(path)


def test_bands_have_nodata_values_of_their_own(tmp_path: Path):
    """As files of one band each that are put one over the other may have: a gap holds each band's own."""
    _, ms = World(bands=3, dtype="uint16").write(tmp_path)
    own, image = [0, 65535, 7], pixels(ms)
    expected = np.ones(image.shape[1:], bool)
    expected[3:9, 5:15] = False
    image[:, ~expected] = np.array(own)[:, None]
    image[0, 0, 0] = image[:, 1, 1] = own[0]  # not all bands have that
    with rasterio.open(ms, "r+") as file:
        file.write(image)
    vrt, values = in_quarters(ms), iter(own)
    vrt.write_text(re.sub("<Desc", lambda _: f"<NoDataValue>{next(values)}</NoDataValue><Desc", vrt.read_text()))
    with closing(Raster(vrt)) as raster:
        data, valid = raster.read(slice(0, raster.grid.height), slice(0, raster.grid.width))
    assert (valid == expected).all()
    assert (data == np.where(expected, image, 0)).all()
