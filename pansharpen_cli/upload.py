"""A product that is wanted in an object store: written here, validated, then sent. Stores show an object when all of it
is there, and know no renaming."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.inputs.scene import Raster
from pansharpen_cli.pipeline import Job, Product
from pansharpen_cli.system.files import PASSING, redacted
from pansharpen_cli.system.locations import gdal_name, set_requests


def sharpen_to(url: str, job: Job, make: Callable[[Job], Product]) -> Product:
    """The product of `job` as `make` makes it, at `url` instead of the job's output. Raises OutputError."""
    _check_absent(url, job.overwrite)
    with TemporaryDirectory(prefix=PASSING) as folder:
        made = make(replace(job, output=Path(folder) / PurePosixPath(url).name))
        _send(made.path, url)
    return made


def _check_absent(url: str, overwrite: bool) -> None:
    try:
        with closing(Raster(url)):
            pass
    except SceneError:  # it is not there, or cannot be seen: then sending may fail
        return
    if not overwrite:
        raise OutputError(f"{url} exists; choose another name or --overwrite it")


def _send(path: Path, url: str) -> None:
    set_requests()
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
            rasterio.shutil.copyfiles(str(path), gdal_name(url))
        with closing(Raster(path)) as here, closing(Raster(url)) as there:
            arrived = there.grid == here.grid and there.tags("PANSHARPEN") == here.tags("PANSHARPEN")
    except (RasterioError, CPLE_BaseError, SceneError) as error:
        raise OutputError(f"{url} cannot be written: {redacted(str(error))}") from error
    if not arrived:
        raise OutputError(f"{url} does not hold what was sent to it; remove it and try again")
