"""Bad inputs by the hundred, each made from a tiny scene that is good: files whose every tag is damaged, that were cut
or flipped anywhere, that claim what they do not hold, that are no rasters at all, and scenes that no sensor takes.

`corpus()` lists them; the same ones at every call.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp
from worlds import CORNER, UTM, World, save

WORLD = World(bands=3, dtype="uint16", nodata=0)
HOLE = (slice(6, 10), slice(12, 20))
"""MS pixels without data in every good MS."""


@dataclass(frozen=True)
class Bad:
    """A way to be wrong. `make(folder)` turns pan.tif and ms.tif there into it.

    `expected`: "refused", "made" (a right product comes out all the same) or "either". `command`: what is run instead
    of pan.tif and ms.tif; `culprit`: what the refusal names.
    """

    name: str
    make: Callable[[Path], object]
    expected: Literal["refused", "made", "either"] = "either"
    command: Sequence[str] = ("pan.tif", "ms.tif")
    culprit: str = ".tif"
    user: int = 0


def good(folder: Path) -> None:
    """pan.tif in uncompressed strips, and ms.tif, tiled, compressed and with a hole."""
    ms = WORLD.ms_image()
    ms[(slice(None), *HOLE)] = 0
    save(folder / "pan.tif", WORLD.pan_image(), WORLD.pan_sheet, dtype="uint16", nodata=0)
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "predictor": 2}
    save(folder / "ms.tif", ms, WORLD.ms_sheet, dtype="uint16", nodata=0, names=["blue", "green", "red"], **tiles)


# ------------------------------------------------------------------ damaged files


@dataclass(frozen=True)
class Entry:
    """An entry of a TIFF's directory, at byte `at` of the file."""

    at: int
    tag: int
    kind: int
    count: int
    value: int

    @property
    def size(self) -> int:
        return self.count * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 12: 8, 16: 8}.get(self.kind, 1)


def entries(content: bytes) -> list[Entry]:
    """Of the first directory of a classic little-endian TIFF."""
    (start,) = struct.unpack_from("<L", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    return [Entry(at, *struct.unpack_from("<HHLL", content, at)) for at in range(start + 2, start + 2 + 12 * count, 12)]


FIELDS = {"tag": (0, "<H"), "type": (2, "<H"), "count": (4, "<L"), "value": (8, "<L")}


def put(name: str, at: int, field: str, value: int, folder: Path) -> None:
    """Overwrite a field of the directory entry at `at` of a file."""
    place, form = FIELDS[field]
    content = bytearray((folder / name).read_bytes())
    struct.pack_into(form, content, at + place, value)
    (folder / name).write_bytes(content)


def damages(entry: Entry, length: int) -> Iterator[tuple[str, int]]:
    """Field and new value: an entry that is another, is gone, has another type, too few or many values, or lies."""
    yield "tag", 65000
    yield from (("type", kind) for kind in (0, 2, 3, 5, 12, 16, 255) if kind != entry.kind)
    yield from (("count", n) for n in (0, 1, entry.count + 1, 2**16 + 1, 2**31, 2**32 - 1) if n != entry.count)
    values = {0, 1, 3, 255, 2**16 - 1, 2**20, 2**31 - 1, 2**32 - 1}
    if entry.size > 4:  # it says where its values are
        values |= {8, length - 2, length + 1000}
    yield from (("value", value) for value in sorted(values - {entry.value}))


def damaged_tags(examples: Path) -> Iterator[Bad]:
    """Every tag of both files, in every way."""
    for name in ("pan.tif", "ms.tif"):
        content = (examples / name).read_bytes()
        for entry in entries(content):
            for field, value in damages(entry, len(content)):
                title = f"{name} tag {entry.tag} {field} {value}"
                yield Bad(title, partial(put, name, entry.at, field, value))


def cut(name: str, length: int, folder: Path) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:length])


def truncated(examples: Path) -> Iterator[Bad]:
    for name in ("pan.tif", "ms.tif"):
        size = (examples / name).stat().st_size
        for length in sorted({1, 4, 8, 9, 100, *(size * part // 16 for part in range(1, 16)), size - 1}):
            yield Bad(f"{name} cut at {length} of {size}", partial(cut, name, length))


def flip(name: str, seed: int, bits: int, folder: Path) -> None:
    chance, content = random.Random(seed), bytearray((folder / name).read_bytes())
    for _ in range(bits):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    (folder / name).write_bytes(content)


def flipped() -> Iterator[Bad]:
    """Some bits of a file, of the pixels mostly. What is uncompressed is then other pixels, and right."""
    for seed in range(40):
        yield Bad(f"ms.tif flipped {seed}", partial(flip, "ms.tif", seed, 1 + seed % 8))
    for seed in range(10):
        yield Bad(f"pan.tif flipped {seed}", partial(flip, "pan.tif", seed, 1 + seed))


def converted(driver: str, suffix: str, seed: int | None, folder: Path) -> None:
    """The MS in another format; with a `seed` some of its first bytes are noise."""
    path = folder / f"ms.{suffix}"
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    rasterio.shutil.copy(folder / "ms.tif", path, driver=driver, **options)
    if seed is not None:
        chance, content = random.Random(seed), bytearray(path.read_bytes())
        for _ in range(4):
            content[chance.randrange(min(len(content), 600))] = chance.randrange(256)
        path.write_bytes(content)


def other_formats() -> Iterator[Bad]:
    for driver, suffix in (("JP2OpenJPEG", "jp2"), ("NITF", "ntf"), ("VRT", "vrt")):
        command = ("pan.tif", f"ms.{suffix}")
        yield Bad(f"{driver} ms", partial(converted, driver, suffix, None), "made", command)
        for seed in range(15):
            make = partial(converted, driver, suffix, seed)
            yield Bad(f"{driver} ms damaged {seed}", make, "either", command, f"ms.{suffix}")
    for driver, suffix in (("PNG", "png"), ("ENVI", "img"), ("HFA", "hfa")):
        command = ("pan.tif", f"ms.{suffix}")
        yield Bad(f"{driver} ms", partial(converted, driver, suffix, None), "refused", command, f"ms.{suffix}")


# ------------------------------------------------------------------ no files, or not such ones


def replaced(content: bytes, folder: Path) -> None:
    (folder / "ms.tif").write_bytes(content)


def instead(make: Callable[[Path], object], folder: Path) -> None:
    """Something else under the name of the MS."""
    (folder / "ms.tif").rename(folder / "real.tif")
    make(folder / "ms.tif")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.parent / "real.tif", "ms.tif")


def listening(path: Path) -> None:
    """A socket; its name must be short."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="24"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
    "<SourceFilename>/etc/passwd</SourceFilename></VRTRasterBand></VRTDataset>"
)

THINGS: dict[str, tuple[Callable[[Path], object], Literal["refused", "made", "either"]]] = {
    "a FIFO": (os.mkfifo, "refused"),
    "a socket": (listening, "refused"),
    "a folder": (os.mkdir, "refused"),
    "a link to itself": (lambda path: os.symlink("ms.tif", path), "refused"),
    "a link to nothing": (lambda path: os.symlink("nowhere.tif", path), "refused"),
    "a link to /dev/zero": (lambda path: os.symlink("/dev/zero", path), "refused"),
    "a link to /dev/null": (lambda path: os.symlink("/dev/null", path), "refused"),
    "a link to the MS": (lambda path: os.symlink("real.tif", path), "made"),
    "a zip": (zipped, "refused"),
    "a gzip": (lambda path: path.write_bytes(zlib.compress((path.parent / "real.tif").read_bytes())), "refused"),
    "nothing": (lambda path: None, "refused"),
}

TEXTS = {
    "empty": b"",
    "zeros": bytes(5000),
    "text": b"not a raster\n" * 50,
    "HTML": b"<!DOCTYPE html><html>404</html>",
    "XML of a VRT": VRT.encode(),
    "a VRT of a URL": VRT.replace("/etc/passwd", "/vsicurl/http://127.0.0.1:9/x").encode(),
    "JSON": b'{"type": "FeatureCollection"}',
    "a TIFF header alone": b"II*\0\x08\0\0\0",
    "a directory in the header": b"II*\0\0\0\0\0" + bytes(100),
    "a directory beyond the end": b"II*\0\xff\xff\xff\xff",
    "a directory that goes round": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "65535 entries": b"II*\0\x08\0\0\0\xff\xff" + bytes(range(256)) * 4,
    "a BigTIFF header alone": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    "a JP2 header alone": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a JPEG 2000 codestream": b"\xff\x4f\xff\x51" + bytes(60),
    "a NITF header alone": b"NITF02.10" + b" " * 400,
}


def nothing(folder: Path) -> None:
    """Good files, that are named wrongly."""


def renamed(name: str, folder: Path) -> None:
    (folder / "ms.tif").rename(folder / name)


def beside(suffix: str, content: str, folder: Path) -> None:
    (folder / f"ms.tif.{suffix}").write_text(content)


def things() -> Iterator[Bad]:
    for name, (make, expected) in THINGS.items():
        yield Bad(f"ms.tif is {name}", partial(instead, make), expected)
    for name, content in TEXTS.items():
        yield Bad(f"ms.tif is {name}", partial(replaced, content), "refused")
    yield Bad("ms.tif may not be read", lambda folder: (folder / "ms.tif").chmod(0), "refused", user=65534)
    long, strange = "x" * 300 + ".tif", "new\nline.tif"
    yield Bad("a name too long", nothing, "refused", ("pan.tif", long))
    yield Bad("a strange name", partial(renamed, strange), "made", ("pan.tif", strange))
    yield Bad("swapped", nothing, "refused", ("ms.tif", "pan.tif"))
    yield Bad("the PAN twice", nothing, "refused", ("pan.tif", "pan.tif"))
    yield Bad("the MS twice", nothing, "refused", ("ms.tif", "ms.tif"))
    yield Bad("a part of a TIFF", nothing, "refused", ("pan.tif", "GTIFF_DIR:1:ms.tif"))
    yield Bad("text as a raster", nothing, "refused", ("pan.tif", VRT), culprit="VRTDataset")
    for suffix, content in (("aux.xml", VRT), ("aux.xml", "<PAMDataset><SRS>"), ("ovr", "II*"), ("msk", "II*")):
        yield Bad(f"a bad ms.tif.{suffix} {content[:6]}", partial(beside, suffix, content), "made")


# ------------------------------------------------------------------ absurd sizes


Size = tuple[int, int]


def directory(tags: dict[int, tuple[int, Sequence[int]]], data: bytes) -> bytes:
    """A TIFF of these tags (tag -> type, values) and `data`, which begins at byte 8."""
    at = 8 + len(data)
    after = at + 2 + 12 * len(tags) + 4
    head, tail = struct.pack("<H", len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'HL'[kind == 4]}", *values)
        if len(packed) > 4:
            packed, tail = struct.pack("<L", after + len(tail)), tail + packed
        head += struct.pack("<HHL", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<L", at) + data + head + bytes(4) + tail


def claiming(size: Size, block: Size | None, claimed: int | None, name: str, folder: Path) -> None:
    """A TIFF of `size` (rows, columns) with one block of deflated zeros, which all its blocks share.

    `block`: None: one strip of everything. `claimed`: how many blocks it says it has (None: as many as it must).
    """
    rows, cols = block or size
    data = zlib.compress(bytes(min(2 * rows * cols, 2**22)), 9)
    blocks = claimed or -(-size[0] // rows) * -(-size[1] // cols)
    places, lengths = (273, 279) if block is None else (324, 325)
    tags = {256: (4, [size[1]]), 257: (4, [size[0]]), 258: (3, [16]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    tags |= {278: (4, [rows])} if block is None else {322: (4, [cols]), 323: (4, [rows])}
    tags |= {places: (4, [8] * blocks), lengths: (4, [len(data)] * blocks)}
    (folder / name).write_bytes(directory(tags, data))


def claimed_pair(size: Size, block: Size | None, claimed: int | None, folder: Path) -> None:
    """Neither is georeferenced; the PAN claims 4 times the MS's size."""
    claiming((size[0] * 4, min(size[1] * 4, 2**31 - 1)), block, claimed, "pan.tif", folder)
    claiming(size, block, claimed, "ms.tif", folder)


def sizes() -> Iterator[Bad]:
    million = (1_000_000, 1_000_000)
    for name, size, block, claimed in (
        ("a million squared in one strip", million, None, None),
        ("a million squared in one tile", million, (1_000_000, 1_000_000), None),
        ("a million squared, a tile given", million, (512, 512), 1),
        ("a million squared of shared tiles", million, (16384, 16384), None),
        ("two billion columns", (4, 2**31 - 16), (16, 16), 1),
        ("a bomb of strips", (20_000, 20_000), None, None),
        ("a bomb of tiles", (20_000, 20_000), (16384, 16384), None),
        ("a bomb of shared tiles", (50_000, 50_000), (2048, 2048), None),
        ("a large strip", (8_000, 8_000), None, None),
    ):
        yield Bad(f"{name}, PAN", partial(claiming, size, block, claimed, "pan.tif"), "refused")
        yield Bad(f"{name}, MS", partial(claiming, size, block, claimed, "ms.tif"), "refused")
        yield Bad(f"{name}, both", partial(claimed_pair, size, block, claimed), "refused")
    for rows, cols in ((1, 1), (1, 7), (7, 1), (1, 2), (2, 2), (1, 25_000), (25_000, 1)):
        world = World(bands=3, dtype="uint16", pan_size=(4 * rows, 4 * cols), ms_size=(rows, cols))
        yield Bad(f"MS of {rows} x {cols}", world.write, "made")
    for rows, cols in ((1, 1), (1, 128), (96, 1), (2, 2)):
        world = World(bands=3, dtype="uint16", pan_size=(rows, cols))
        yield Bad(f"PAN of {rows} x {cols}", world.write, "refused")
    yield Bad("a pixel in common", World(bands=3, dtype="uint16", offset=(127, 95)).write, "refused")
    yield Bad("MS of 1000 bands", partial(written, np.ones((1000, 24, 32)), {}), "made")


# ------------------------------------------------------------------ odd pixels


def written(ms: np.ndarray, options: dict[str, object], folder: Path, name: str = "ms.tif") -> Path:
    sheet = WORLD.pan_sheet if name == "pan.tif" else WORLD.ms_sheet
    return save(folder / name, ms, sheet, **({"dtype": "uint16"} | options))


def with_band_values(scale: float, offset: float, folder: Path) -> None:
    with rasterio.open(folder / "ms.tif", "r+") as file:
        file.scales, file.offsets = [scale] * 3, [offset] * 3


def with_palette(name: str, folder: Path) -> None:
    size = WORLD.pan_size if name == "pan.tif" else WORLD.ms_size
    path = written(np.arange(size[0] * size[1]).reshape(1, *size) % 256, {"dtype": "uint8"}, folder, name)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {value: (value, 255 - value, 7, 255) for value in range(256)})


def with_alpha(values: Sequence[int], folder: Path) -> None:
    alpha = np.resize(values, (1, *WORLD.ms_size))
    written(np.concatenate([WORLD.ms_image(), alpha]), {"alpha": True}, folder)


def with_sidecar_mask(folder: Path) -> None:
    written(WORLD.ms_image(), {}, folder)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(folder / "ms.tif", "r+") as file:
        mask = np.ones(WORLD.ms_size, bool)
        mask[HOLE] = False
        file.write_mask(mask)


def with_colours(folder: Path) -> None:
    with rasterio.open(folder / "ms.tif", "r+") as file:
        file.colorinterp = [ColorInterp.cyan, ColorInterp.hue, ColorInterp.palette]


def pixels() -> Iterator[Bad]:
    pan, ms = WORLD.pan_image(), WORLD.ms_image()
    high = pan - pan.min()
    for name, image, size in (("pan.tif", pan, (1, 96, 128)), ("ms.tif", ms, (3, 24, 32))):
        for value, word in ((np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "-infinity")):
            some = image.copy()
            some[0, 3:9, 5:11] = value
            odd = {"dtype": "float32"}
            yield Bad(f"{name} with {word}", partial(written, some, odd, name=name), "made")
            yield Bad(f"{name} all {word}", partial(written, np.full(size, value), odd, name=name), "refused")
        yield Bad(f"{name} all nodata", partial(written, np.zeros(size), {"nodata": 0}, name=name), "refused")
        no = {"mask": np.zeros(size[1:], bool)}
        yield Bad(f"{name} all masked", partial(written, image, no, name=name), "refused")
        yield Bad(f"{name} constant", partial(written, np.full(size, 7), {}, name=name), "made")
        yield Bad(f"{name} all zero", partial(written, np.zeros(size), {}, name=name), "made")
        one = np.zeros(size)
        one[:, 10, 14] = 9
        yield Bad(f"{name} of one valid pixel", partial(written, one, {"nodata": 0}, name=name))
        huge = {"dtype": "float64", "nodata": -1e300}
        yield Bad(f"{name} of 1e300", partial(written, np.full(size, 1e300), huge, name=name), "refused")
        yield Bad(f"{name} of 1e-320", partial(written, image * 1e-323, huge, name=name), "made")
        yield Bad(f"{name} of 1e37", partial(written, image * 1e34, {"dtype": "float32"}, name=name), "made")
        for dtype in ("uint8", "int8", "int16", "uint32", "int32", "float32", "float64"):
            low = (image / image.max() * 120).round()
            yield Bad(f"{name} {dtype}", partial(written, low, {"dtype": dtype, "nodata": 0}, name=name), "made")
        for dtype in ("uint64", "int64", "complex64", "complex128", "complex_int16"):
            yield Bad(f"{name} {dtype}", partial(typed, dtype, name), "refused")
        for bits, dtype in ((1, "uint8"), (4, "uint8"), (12, "uint16"), (16, "float32")):
            low = (image / image.max() * 2 ** (bits % 16 or 7)).clip(0, 2**bits - 1).round()
            options = {"dtype": dtype, "nbits": bits}  # GDAL gives one bit a palette
            expected = "either" if bits == 1 else "made"
            yield Bad(f"{name} of {bits} bits", partial(written, low, options, name=name), expected)
        yield Bad(f"{name} with a palette", partial(with_palette, name), "refused")
    for nodata in ("nan", "-1", "70000", "0.5", "1e400", "text", ""):
        yield Bad(f"nodata {nodata!r} in uint16", partial(with_nodata_text, nodata), "made")
    yield Bad("alpha of 0 and 65535", partial(with_alpha, [65535, 65535, 0]), "made")
    yield Bad("alpha of 0", partial(with_alpha, [0]), "refused")
    yield Bad("an internal mask", partial(written, ms, {"mask": high[0, ::4, ::4] > 50}), "made")
    yield Bad("a mask beside the file", with_sidecar_mask, "made")
    yield Bad("odd colours", with_colours, "made")
    for scale, offset in ((1e-4, -0.1), (0.0, 0.0), (float("nan"), float("inf"))):
        yield Bad(f"scale {scale} offset {offset}", partial(with_band_values, scale, offset), "made")


def typed(dtype: str, name: str, folder: Path) -> None:
    sheet = WORLD.pan_sheet if name == "pan.tif" else WORLD.ms_sheet
    size = {"height": sheet.size[0], "width": sheet.size[1], "transform": sheet.transform, "crs": UTM}
    with rasterio.open(folder / name, "w", driver="GTiff", count=1, dtype=dtype, **size) as file:
        if dtype.endswith("64") and not dtype.startswith("complex"):
            file.write(np.full((1, *sheet.size), np.iinfo(dtype).max, dtype))


def with_nodata_text(text: str, folder: Path) -> None:
    """GDAL keeps the nodata value as text; here any text."""
    path = written(WORLD.ms_image(), {"nodata": 1}, folder)
    content = bytearray(path.read_bytes())
    (entry,) = (one for one in entries(content) if one.tag == 42113)
    content += text.encode() + bytes(8)
    struct.pack_into("<LL", content, entry.at + 4, len(text) + 8, len(content) - len(text) - 8)
    path.write_bytes(content)


# ------------------------------------------------------------------ odd places


def placed(pan: tuple[Affine, str | None], ms: tuple[Affine, str | None], folder: Path) -> None:
    for name, image, (transform, crs) in (("pan.tif", WORLD.pan_image(), pan), ("ms.tif", WORLD.ms_image(), ms)):
        save(folder / name, image, dtype="uint16", transform=transform, crs=crs and rasterio.crs.CRS.from_string(crs))


def at(x: float, y: float, step: float, down: float | None = None) -> Affine:
    return Affine(step, 0, x, 0, -step if down is None else down, y)


ENGINEERING = 'LOCAL_CS["somewhere",UNIT["metre",1]]'
HERE, FINE = (CORNER[0], CORNER[1]), 2.0
NEAR_180 = 399_960.0, 6_700_000.0


def places() -> Iterator[Bad]:
    here, coarse = at(*HERE, 2), at(*HERE, 8)
    pole = 0.0, 0.0
    for name, pan, ms, expected in (
        ("zones apart", (here, UTM), (coarse, "EPSG:32601"), "refused"),
        ("hemispheres apart", (here, UTM), (coarse, "EPSG:32730"), "refused"),
        ("metres called degrees", (here, "EPSG:4326"), (coarse, "EPSG:4326"), "either"),
        ("MS in degrees", (here, UTM), (at(-3.6612, 40.5481, 9e-5), "EPSG:4326"), "either"),
        ("MS in metres called degrees", (here, UTM), (coarse, "EPSG:4326"), "refused"),
        ("an engineering CRS", (here, ENGINEERING), (coarse, ENGINEERING), "made"),
        ("an engineering CRS and UTM", (here, ENGINEERING), (coarse, UTM), "refused"),
        ("UTM and an engineering CRS", (here, UTM), (coarse, ENGINEERING), "refused"),
        ("geocentric", (here, "EPSG:4978"), (coarse, "EPSG:4978"), "either"),
        ("UTM and geocentric", (here, UTM), (coarse, "EPSG:4978"), "refused"),
        ("compound", (here, "EPSG:32630+5773"), (coarse, UTM), "either"),
        ("no CRS and UTM", (here, None), (coarse, UTM), "either"),
        ("no CRS", (here, None), (coarse, None), "made"),
        ("across 180 degrees", (at(179.99, 10, 2e-4), "EPSG:4326"), (at(179.99, 10, 8e-4), "EPSG:4326"), "made"),
        ("either side of 180", (at(179.99, 10, 2e-4), "EPSG:4326"), (at(-180.01, 10, 8e-4), "EPSG:4326"), "refused"),
        ("UTM across 180", (at(*NEAR_180, 2), "EPSG:32601"), (at(-180.0, 60.45, 8e-5), "EPSG:4326"), "either"),
        ("at the pole", (at(-128, 96, 2), "EPSG:3413"), (at(-128, 96, 8), "EPSG:3413"), "made"),
        ("the pole in degrees", (at(-128, 96, 2), "EPSG:3413"), (at(-180, 90, 0.01), "EPSG:4326"), "either"),
        ("beyond the pole", (at(*pole, 2), "EPSG:3413"), (at(0, 95, 0.01), "EPSG:4326"), "either"),
        ("Mercator at the pole", (at(0, 2e7, 2), "EPSG:3857"), (at(0, 89.9, 1e-5), "EPSG:4326"), "either"),
        ("rotated", (here @ Affine.rotation(10), UTM), (coarse, UTM), "made"),
        ("rotated, in another CRS", (here @ Affine.rotation(10), UTM), (coarse, "EPSG:32631"), "refused"),
        ("sheared", (here, UTM), (coarse @ Affine.shear(5, 0), UTM), "made"),
        ("sheared to a line", (here, UTM), (coarse @ Affine.shear(89.9999, 0), UTM), "either"),
        ("turned by 90 degrees", (Affine(0, 2, HERE[0], -2, 0, HERE[1]), UTM), (coarse, UTM), "made"),
        ("turned and mirrored away", (Affine(0, 2, HERE[0], 2, 0, HERE[1]), UTM), (coarse, UTM), "refused"),
        ("south up, both", (at(*HERE, 2, 2), UTM), (at(*HERE, 8, 8), UTM), "made"),
        ("south up, one", (here, UTM), (at(HERE[0], HERE[1] - 192, 8, 8), UTM), "made"),
        ("mirrored", (Affine(-2, 0, HERE[0] + 256, 0, -2, HERE[1]), UTM), (coarse, UTM), "made"),
        ("pixels of no size", (at(*HERE, 0), UTM), (coarse, UTM), "either"),
        ("pixels of no height", (Affine(2, 0, *HERE[:1], 0, 0, HERE[1]), UTM), (coarse, UTM), "refused"),
        ("pixels of 1e300", (at(*HERE, 1e300), UTM), (at(*HERE, 4e300), UTM), "either"),
        ("pixels of 1e-300", (at(*HERE, 1e-300), UTM), (at(*HERE, 4e-300), UTM), "either"),
        ("pixels of NaN", (at(*HERE, float("nan")), UTM), (coarse, UTM), "refused"),
        ("pixels of infinity", (at(*HERE, float("inf")), UTM), (coarse, UTM), "refused"),
        ("a corner at NaN", (at(float("nan"), HERE[1], 2), UTM), (coarse, UTM), "refused"),
        ("a corner at 1e300", (at(1e300, HERE[1], 2), UTM), (at(1e300, HERE[1], 8), UTM), "either"),
        ("ratio 1000", (here, UTM), (at(*HERE, 2000), UTM), "either"),
        ("ratio 100000", (here, UTM), (at(*HERE, 2e5), UTM), "either"),
        ("ratio 4.4", (here, UTM), (at(*HERE, 8.8), UTM), "refused"),
        ("ratio 1.2", (here, UTM), (at(*HERE, 2.4), UTM), "refused"),
        ("4 across, 2 down", (here, UTM), (at(*HERE, 8, -4), UTM), "refused"),
    ):
        yield Bad(f"{name}", partial(placed, pan, ms), expected)  # type: ignore[arg-type]


def corpus(folder: Path) -> list[Bad]:
    """All of it; `folder` takes the good files that the bad ones are made from."""
    good(folder)
    damaged = (damaged_tags(folder), truncated(folder), flipped())
    return [bad for group in (*damaged, other_formats(), things(), sizes(), pixels(), places()) for bad in group]


def prepare(bad: Bad, folder: Path) -> set[str]:
    """An empty folder with a bad input in it; returns the names there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    good(folder)
    bad.make(folder)
    return set(os.listdir(folder))
