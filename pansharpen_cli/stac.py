"""STAC items: which of its assets are PAN and MS, and an item that describes a product.

Of STAC 1.0 and 1.1: bands are in `eo:bands`, or in `bands` with `eo:common_name`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname, urlopen

import pyproj
from pyproj.exceptions import ProjError

from pansharpen_cli import __version__
from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.overlay import corners_of
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.outputs.quicklook import write_made
from pansharpen_cli.pipeline import Product
from pansharpen_cli.system.files import digest, named_from, redacted
from pansharpen_cli.system.locations import anywhere, is_remote

if TYPE_CHECKING:
    from pystac import Asset, Item

COMMON_NAMES = {
    **{name: name for name in ("coastal", "blue", "green", "yellow", "red", "rededge", "nir")},
    **{"nir08": "nir", "nir09": "nir2", "swir16": "swir1", "swir22": "swir2"},
}
"""STAC's names of bands that may be sharpened, and what models call them."""

NOT_DATA = {"thumbnail", "overview", "metadata", "cloud", "saturation", "visual", "data-mask", "water-mask"}
"""Roles of assets that show or explain the image."""

EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("eo/v2.0.0", "raster/v2.0.0", "processing/v1.2.0")
]
SHA256 = "1220"
"""What a multihash of 32 bytes of SHA-256 begins with."""

LOCAL = "file://"
"""What many tools begin the paths of assets with. Only an item that is a file can name files."""

LARGEST = 10_000_000
"""Bytes of an item."""
PATIENCE = 30
"""Seconds for a server to answer."""


@dataclass(frozen=True)
class ItemScene:
    """A scene that an item names. `band_names` as models know them; `times`: when it was acquired, or (None, from when,
    to when)."""

    href: str
    pan: str
    ms: tuple[str, ...]
    band_names: tuple[str, ...]
    times: tuple[datetime | None, datetime | None, datetime | None]


def is_item(path: str) -> bool:
    """True for what can be a STAC item by its name."""
    name = path.partition("?")[0] if is_remote(path) else path
    return name.lower().endswith((".json", ".geojson"))


def read_item(href: str) -> ItemScene:
    """PAN and MS of the item in a file, or at a URL of http or https. Raises SceneError, also if it leaves a choice."""
    pystac, text = _pystac(), _text(href)
    base = href if is_remote(href) else None
    try:
        item = pystac.Item.from_dict(json.loads(text), href=base, preserve_dict=False)
        images = [image for key, asset in item.assets.items() if (image := _image(key, asset, href))]
        times = item.datetime, item.common_metadata.start_datetime, item.common_metadata.end_datetime
    except Exception as error:  # pystac checks little: what is no item ends in any of them
        raise SceneError(f"{redacted(href)} is no STAC item: {redacted(str(error))}") from None
    pan = _only([image for image in images if image.names == ("pan",)], href)
    several = [image for image in images if len(image.names) > 1 and set(image.names) <= set(COMMON_NAMES)]
    alone = [image for image in images if len(image.names) == 1 and image.names[0] in COMMON_NAMES]
    ms = [_only(several, href)] if several else alone
    names = [COMMON_NAMES[name] for image in ms for name in image.names]
    if not ms or len(set(names)) < len(names):
        what = "several assets of one band" if ms else "no asset with bands like blue, green and red"
        raise SceneError(f"{redacted(href)} has {what}; give PAN and MS files instead of the item")
    return ItemScene(href, pan.href, tuple(image.href for image in ms), tuple(names), times)


@dataclass(frozen=True)
class _Image:
    """An asset with pixels: the common names of its bands."""

    key: str
    href: str
    names: tuple[str, ...]


def _image(key: str, asset: Asset, item: str) -> _Image | None:
    """None for an asset that is no image, or of whose bands nothing is known. `item`: where its item is."""
    if NOT_DATA & set(asset.roles or ()) or not (asset.media_type or "image/").startswith("image/"):
        return None
    bands: Sequence[Mapping[str, Any]] = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or ()
    names = tuple(str(band.get("eo:common_name") or band.get("common_name") or "") for band in bands)
    if not any(names) and {"pan", "panchromatic"} & {key.lower(), *(asset.roles or ())}:
        names = ("pan",)
    href = asset.get_absolute_href() if is_remote(item) else _beside(item, asset.href)
    return _Image(key, href, names) if href and names else None


def _beside(item: str, href: str) -> str:
    """What `href` is as seen from the folder of a local item: a path, in which # and ? are letters like others (pystac
    would take them for parts of a URL), or a URL. Those of file:// on this host are paths in which % is an escape."""
    host, _, path = href.removeprefix(LOCAL).partition("/")
    if href.startswith(LOCAL) and host in ("", "localhost"):
        href = url2pathname(f"/{path}")
    return href if is_remote(href) else anywhere(Path(item).parent / href)


def _only(images: Sequence[_Image], href: str) -> _Image:
    if len(images) == 1:
        return images[0]
    keys = f"several: {', '.join(image.key for image in images)}" if images else "none"
    raise SceneError(
        f"{redacted(href)} must have one asset with the band pan and one, or one a band, of the MS; of one of these "
        f"it has {keys}; give PAN and MS files instead of the item"
    )


def _text(href: str) -> str:
    try:
        if not is_remote(href):
            return Path(href).read_text(encoding="utf-8-sig")
        if not href.startswith(("http://", "https://")):
            raise SceneError(f"{redacted(href)} cannot be fetched as an item; give a file, or a URL of http or https")
        with urlopen(href, timeout=PATIENCE) as answer:
            return str(answer.read(LARGEST).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{redacted(href)} cannot be read as a STAC item: {redacted(str(error))}") from None


def write_item(product: Product, scene: ItemScene | None) -> Path:
    """An item beside `product` that describes it, and the `scene` it is derived from. Raises OutputError.

    Its time is when the scene was taken; where that is not known, now.
    """
    pystac = _pystac()
    with closing(Raster(product.path)) as raster:
        grid, nodata, scaling = raster.grid, raster.nodata, raster.scaling
        is_cog = raster.tags("IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    taken, first, last = scene.times if scene and any(scene.times) else (datetime.now(UTC), None, None)
    item: Item = pystac.Item(
        product.path.stem, _footprint(grid), _box(grid), taken, {}, start_datetime=first, end_datetime=last
    )
    item.stac_extensions += EXTENSIONS
    item.properties |= {
        "processing:software": {"pansharpen_cli": __version__},
        "processing:lineage": f"MS sharpened with its PAN by {product.method}, shift {product.applied} PAN pixels",
    }
    item.common_metadata.gsd = _gsd(grid)
    bands = [
        dict(_band(name, product.dtype, nodata, meaning, _gsd(grid)))
        for name, meaning in zip(product.bands, scaling, strict=True)
    ]
    kind = pystac.MediaType.COG if is_cog else pystac.MediaType.GEOTIFF
    asset = pystac.Asset(f"./{product.path.name}", media_type=kind, roles=["data"], extra_fields={"bands": bands})
    item.add_asset("data", asset)
    _project(item, grid)
    _describe_file(asset, product.path)
    if scene:
        source = named_from(product.path.parent, scene.href)
        item.add_link(pystac.Link("derived_from", source, pystac.MediaType.JSON))
    path = item_beside(product.path)
    text = json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), indent=2) + "\n"
    write_made(path, product.path, text.encode)
    return path


def item_beside(product: Path) -> Path:
    """Where the item of a product is."""
    return product.with_suffix(".json")


def _band(
    name: str, dtype: str, nodata: float | None, meaning: tuple[float, float], gsd: float | None
) -> Iterator[tuple[str, object]]:
    """What an item says of a band. `meaning`: scale and offset of its DN, left out if they are what was measured."""
    yield "name", name
    known = {ours: theirs for theirs, ours in COMMON_NAMES.items() if theirs != "nir08"}
    if common := known.get(canonical_band(name)):
        yield "eo:common_name", common
    yield "data_type", dtype
    if nodata is not None:
        yield "nodata", nodata if isfinite(nodata) else str(nodata)  # JSON has no such numbers
    if meaning != (1, 0):
        yield from zip(("raster:scale", "raster:offset"), meaning, strict=True)
    if gsd is not None:
        yield "raster:spatial_resolution", gsd


def _gsd(grid: GeoGrid) -> float | None:
    """Metres, where the CRS tells."""
    crs = pyproj.CRS.from_wkt(grid.crs) if grid.crs else None
    return round(grid.gsd[0] * crs.axis_info[0].unit_conversion_factor, 6) if crs and crs.is_projected else None


def _project(item: Item, grid: GeoGrid) -> None:
    from pystac.extensions.projection import ProjectionExtension

    code = wkt2 = None
    if grid.crs:
        crs = pyproj.CRS.from_wkt(grid.crs)
        code = ":".join(crs.to_authority() or ()) or None
        wkt2 = None if code else crs.to_wkt()
    on_map = {} if grid.by_rpc else {"transform": list(grid.transform), "bbox": list(grid.bounds)}
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=code, wkt2=wkt2, shape=[grid.height, grid.width], **on_map
    )


def _describe_file(asset: Asset, path: Path) -> None:
    from pystac.extensions.file import FileExtension

    FileExtension.ext(asset, add_if_missing=True).apply(checksum=SHA256 + digest(path), size=path.stat().st_size)


def _footprint(grid: GeoGrid) -> dict[str, Any] | None:
    """The corners in longitude and latitude, counter-clockwise, in two polygons where they lie on both sides of 180
    degrees (RFC 7946, 3.1.9). None if nothing tells where that is."""
    ring = _ring(grid)
    if ring is None:
        return None
    parts = [_cut(ring, turn) for turn in (0, 360)]
    polygons = [[[*part, part[0]]] for part in parts if len(part) > 2]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _box(grid: GeoGrid) -> list[float] | None:
    """West, south, east, north; the east of what crosses 180 degrees is the smaller one (RFC 7946, 5.2)."""
    ring = _ring(grid)
    if ring is None:
        return None
    lon, lat = zip(*ring, strict=True)
    west, east = ((x + 180) % 360 - 180 if abs(x) > 180 else x for x in (min(lon), max(lon)))
    return [west, min(lat), east, max(lat)]


def _ring(grid: GeoGrid) -> list[tuple[float, float]] | None:
    """The corners, counter-clockwise; longitudes from -180 on, beyond 180 where it is crossed."""
    if grid.rpc and grid.by_rpc:
        corners = corners_of(grid.rpc, grid.height, grid.width)
    elif grid.crs:
        try:
            to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
        except ProjError:  # a site's own coordinates
            return None
        corners = [to_degrees.transform(*corner) for corner in grid.corners]
    else:
        return None
    if corners is None or not all(isfinite(number) for corner in corners for number in corner):
        return None
    steps = [(there - here + 180) % 360 - 180 for (here, _), (there, _) in pairwise([*corners, corners[0]])]
    if abs(sum(steps)) > 180:  # round a pole, of which corners do not tell
        return None
    first = corners[0][0]
    near = [(lon + 360 * round((first - lon) / 360), lat) for lon, lat in corners]
    turn = 360 * ceil((-180 - min(lon for lon, _ in near)) / 360)
    ring = [(lon + turn, lat) for lon, lat in near]
    area = sum(x * v - u * y for (x, y), (u, v) in pairwise([*ring, ring[0]]))
    return ring if area > 0 else ring[::-1]


def _cut(ring: list[tuple[float, float]], turn: int) -> list[list[float]]:
    """What of a `ring` lies within -180 ... 180 degrees of longitude, the world turned by so many degrees."""
    part: list[list[float]] = []
    moved = [(lon - turn, lat) for lon, lat in ring]
    edge = -180.0 if turn else 180.0
    for (x, y), (u, v) in pairwise([*moved, moved[0]]):
        if abs(x) <= 180:
            part.append([x, y])
        if (abs(x) <= 180) != (abs(u) <= 180):
            part.append([edge, y + (v - y) * (edge - x) / (u - x)])
    return part


def _pystac() -> Any:
    try:
        import pystac
    except ImportError:
        raise UsageError("STAC items need pystac; install it with pip install 'pansharpen-cli[stac]'") from None
    return pystac
