"""What a user names, and what GDAL opens for it: files, and by an allow-list what is fetched over the network."""

from __future__ import annotations

import os
import re
from http import HTTPStatus
from pathlib import Path, PurePath

from pansharpen_cli.errors import OutputError, SceneError, UsageError
from pansharpen_cli.system.files import is_utf8, redacted

SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
"""Schemes of what may be fetched, and what stands for them in GDAL's names. Others (ftp, zip, hdfs, programs that print
an image, memory of this process) would open more than a user thinks of."""

STORES = ("s3", "gs", "az")
"""Schemes of what may be written to."""

GEOTIFF = (".tif", ".tiff")
OTHER_IMAGES = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".svg", ".pdf", ".jp2", ".j2k", ".vrt", ".img", ".ntf", ".nitf",
    ".hdf", ".h5", ".nc", ".ecw", ".sid",
)  # fmt: skip
"""Extensions that promise another format; one that is not known, or none, promises nothing."""

OPENING = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
}
"""GDAL's settings while a remote file is opened: no listing of its folder, no looking for files beside it, and the
header of most files in one request."""

REQUESTS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "CPL_VSIL_CURL_CACHE_SIZE": str(32 * 2**20),
}
"""... and of every request: how long to wait for a server that is not there, or sends less than a byte a second; how
often to ask again; how much is kept. Variables of the environment that the user has set come first."""


def is_remote(path: str | Path) -> bool:
    """True if it is fetched over the network (or refused by `gdal_name`)."""
    return "://" in str(path) or str(path).startswith("/vsi")


def anywhere(path: str | Path) -> str:
    """A name that means the same in another folder."""
    try:
        return str(path) if is_remote(path) else os.path.abspath(path)
    except OSError as error:
        raise SceneError(f"{path} cannot be found, as the working folder is gone") from error


def gdal_name(path: str | Path) -> str:
    """The name by which GDAL opens what a user names: a local path as one, https://, s3://, gs:// and az:// through
    its virtual file systems. Raises SceneError for what is in no list, and for a name that is not UTF-8."""
    text = str(path)
    if not is_utf8(text):
        raise SceneError(f"{redacted(path)} has a name that is not UTF-8; rename it")
    if not is_remote(text):
        return text if os.path.isabs(text) else os.path.join(os.curdir, text)  # which looks like no scheme
    scheme, _, rest = text.partition("://")
    if scheme in SCHEMES and rest:
        return SCHEMES[scheme] + rest
    if any(re.match(rf"{prefix}[^/]", text) for prefix in SCHEMES.values()):
        return text
    raise SceneError(
        f"{redacted(path)} is nothing that may be opened; give a file, or a URL that begins with "
        f"{', '.join(f'{name}://' for name in SCHEMES)}"
    )


def network_failure(message: str) -> str | None:
    """What GDAL's message says of the network, in words; None if it is not about that."""
    if code := re.search(r"HTTP response code: (\d+)", message):
        number = int(code[1])
        meaning = HTTPStatus(number).phrase if number in list(HTTPStatus) else "no standard answer"
        return f"its server answers {number}, {meaning}"
    if curl := re.search(r"CURL error: (.+)", message):
        return redacted(curl[1])
    return None


def output_url(path: Path) -> str | None:
    """The object in a store that `path` names, if it does: as a path, `s3://bucket/key` has one slash less."""
    found = re.match(rf"({'|'.join(STORES)}):/(.+/.+)", str(path))
    return f"{found[1]}://{found[2]}" if found else None


def output(text: str, *, folder: bool = False) -> Path:
    """What a user names as output, a file or a `folder`. Raises UsageError for what is no name of an object in a store
    where it looks like one, and for a file's that only a folder can have."""
    found = re.match(rf"({'|'.join(STORES)})://?(.*)", text, re.IGNORECASE)
    if not found:
        if not folder and os.path.basename(text) in ("", os.curdir):
            raise UsageError(f"{text} is the name of a folder; give that of a file")
        return Path(text)
    bucket, _, key = found[2].partition("/")
    if "@" in bucket:
        raise UsageError(f"{redacted(text)} has a key in it; stores are given theirs by the environment")
    if not bucket:
        raise UsageError(f"{text} names no bucket")
    if not folder and (not key or key.endswith("/")):
        raise UsageError(f"{text} names no object; give one, like {found[1].lower()}://{bucket}/out.tif")
    return Path(f"{found[1].lower()}://{found[2]}")


def told(path: Path) -> str:
    """What an output is called: its URL, or its path."""
    return output_url(path) or str(path)


def check_output(path: Path) -> None:
    """Raises OutputError if `path`, a file or folder to write, is none of this machine, or none that GDAL can write."""
    if re.match(r"[a-z0-9+]{2,}:/|/vsi\w+/", str(path)):
        name = re.sub(r"^(\w+):/(?!/)", r"\1://", str(path))  # as it was before it became a path
        raise OutputError(f"{redacted(name)} is not on this machine, where products are written; write here, then copy")
    if not is_utf8(path):
        raise OutputError(f"{path} has a name that is not UTF-8; give another one")


def check_geotiff(name: str | Path) -> None:
    """Raises UsageError if the product's name, a path or a URL, is that of another image format."""
    if PurePath(name).suffix.lower() in OTHER_IMAGES:
        raise UsageError(f"{name} is written as GeoTIFF; name it .tif")


def set_requests() -> None:
    """Have all of GDAL's requests bounded by REQUESTS, in every thread of this process."""
    for name, value in REQUESTS.items():
        os.environ.setdefault(name, value)
