"""A product that is wanted in an object store: written here, validated, then sent. Stores show an object when all of it
is there, and know no renaming."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, gettempdir
from threading import Thread

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.job import Job
from pansharpen_cli.outputs.layout import TAGS
from pansharpen_cli.system import locations
from pansharpen_cli.system.files import passing, redacted

PAUSES = (2.0, 8.0)
"""Seconds before a product is sent once more, besides GDAL's own attempts at each request."""

_ABSENT = r"(key|blob|object) does not exist|response code: 404"
"""How S3, Azure, Google Cloud and servers that say nothing tell that there is no object of a name."""
_OTHER = "not recognized as being in a supported file format"
"""GDAL's words for what is there and is no TIFF."""


@contextmanager
def sent(job: Job) -> Iterator[Job]:
    """A `job` whose output is an object in a store, with one on this machine, which is sent when all is done with it.
    Raises OutputError."""
    url = locations.output_url(job.output)
    assert url, "an output of this machine"
    _check_absent(url, job.overwrite)
    with TemporaryDirectory(prefix=passing(os.getpid())) as folder:
        here = Path(folder) / PurePosixPath(url).name
        try:
            yield replace(job, output=here)
        except OutputError as error:  # of which the user knows neither name nor folder
            words = str(error).replace(str(here), url).replace(folder, f"{gettempdir()} (TMPDIR)")
            raise OutputError(words) from error.__cause__
        _check_absent(url, job.overwrite)
        _interruptibly(lambda: _send(here, url))


def is_there(url: str) -> bool:
    """Whether a store has an object of this name, whatever it is. Raises OutputError if that cannot be known."""
    locations.set_requests()
    try:
        with rasterio.Env(**locations.OPENING):
            rasterio.open(locations.gdal_name(url), driver="GTiff").close()
    except (RasterioError, CPLE_BaseError) as error:
        reason = str(error)
        if re.search(_ABSENT, reason):
            return False
        if _OTHER not in reason:
            reason = locations.network_failure(reason) or redacted(reason).rstrip(".")
            raise OutputError(f"{url} cannot be looked for: {reason}") from error
    return True


def _check_absent(url: str, overwrite: bool) -> None:
    if not overwrite and is_there(url):
        raise OutputError(f"{url} exists; choose another name or --overwrite it")


def _interruptibly(work: Callable[[], None]) -> None:
    """GDAL does not hear signals while it sends, which can take minutes: who is stopped does not wait for it."""
    raised: list[BaseException] = []

    def act() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=act, name="upload", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if raised:
        raise raised[0]


def _send(path: Path, url: str) -> None:
    """Several times, if need be: what was made should not be lost with a connection."""
    locations.set_requests()
    for pause in (*PAUSES, None):
        try:
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
                rasterio.shutil.copyfiles(str(path), locations.gdal_name(url))
            break
        except (RasterioError, CPLE_BaseError):  # which tells names of GDAL's and no reason
            if pause is None:
                raise OutputError(
                    f"{url} cannot be written: the store refuses it, or does not answer; look at the bucket, the keys "
                    "and what they allow"
                ) from None
            time.sleep(pause)
    _check_arrived(path, url)


def _check_arrived(path: Path, url: str) -> None:
    try:
        with closing(Raster(path)) as here, closing(Raster(url)) as there:
            arrived = there.grid == here.grid and there.tags(TAGS) == here.tags(TAGS)
    except SceneError as error:
        raise OutputError(f"{url} was sent, but cannot be looked at: {error}") from None
    if not arrived:
        raise OutputError(f"{url} does not hold what was sent to it; remove it and try again")
