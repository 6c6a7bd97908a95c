"""What may be named and what not; a scene on a real web server, of which only the part that is wanted is fetched; and
servers that do not do what they should."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from servers import misbehaving, nginx, store

from pansharpen_cli.errors import SceneError
from pansharpen_cli.inputs.part import SEEN
from pansharpen_cli.system.locations import gdal_name

EXAMPLE = Path(__file__).parents[1] / "examples" / "l8_madrid"
BLOCK = 256


@pytest.mark.parametrize(
    ("named", "opened"),
    [
        ("a/b.tif", "./a/b.tif"),
        ("http:b.tif", "./http:b.tif"),
        ("/a/b.tif", "/a/b.tif"),
        ("https://example.com/a.tif?sig=x", "/vsicurl/https://example.com/a.tif?sig=x"),
        ("http://u:p@example.com/a.tif", "/vsicurl/http://u:p@example.com/a.tif"),
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("gs://bucket/a.tif", "/vsigs/bucket/a.tif"),
        ("az://container/a.tif", "/vsiaz/container/a.tif"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("/vsicurl/https://example.com/a.tif", "/vsicurl/https://example.com/a.tif"),
    ],
)
def test_what_may_be_named(named, opened):
    assert gdal_name(named) == opened


@pytest.mark.parametrize(
    "named",
    [
        "ftp://example.com/a.tif", "file:///etc/passwd", "zip+https://example.com/a.zip!a.tif", "HTTP://example.com/a",
        "https://", "/vsimem/a.tif", "/vsistdin/", "/vsizip/a.zip/a.tif", "/vsisubfile/0_9,/etc/passwd",
        "/vsicurl/file:///etc/passwd", "/vsicurl?url=http://example.com", "/vsis3_streaming/b/a.tif", "/vsis3//a.tif",
        "/vsicrypt/key=a,file=b", "/vsihdfs/a", "/vsicurl/ftp://example.com/a.tif", "/vsigz//vsicurl/http://a/b.gz",
        "vrt:///vsicurl/http://user:secret@example.com/a.tif?secret", "/vsiwebhdfs/http://example.com/a",
    ],
)  # fmt: skip
def test_nothing_else_is_opened(named, tmp_path, monkeypatch):
    with pytest.raises(SceneError, match=r"may be opened; give a file, or a URL that begins with http://, ") as refused:
        gdal_name(named)
    assert "secret" not in str(refused.value)
    monkeypatch.setattr(rasterio, "open", lambda *_, **__: pytest.fail("it was opened"))
    from pansharpen_cli.inputs.raster import Raster

    with pytest.raises(SceneError):
        Raster(named)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder with COGs: the example scene and its mirror images, 2994 x 2394 PAN pixels."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("pan", "ms"):
        with rasterio.open(EXAMPLE / f"{name}.tif") as file:
            profile = file.profile
            image = file.read()[:, : file.height // 2 * 2, : file.width // 2 * 2]
            names = file.descriptions
        image = np.concatenate([image, image[:, ::-1]], axis=1)
        image = np.concatenate([image, image[..., ::-1]], axis=2)
        profile |= {"height": image.shape[1], "width": image.shape[2]}
        with rasterio.open(folder / "plain.tif", "w", **profile) as file:
            file.write(image)
            file.descriptions = names
        rasterio.shutil.copy(folder / "plain.tif", folder / f"{name}.tif", driver="COG", compress="DEFLATE",
                             blocksize=BLOCK)  # fmt: skip
    return folder


def run(*arguments, **environment):
    command = [sys.executable, "-m", "pansharpen_cli", "run", *map(str, arguments), "-m", "gsa", "-j", "1"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | environment)


def bytes_of_blocks(path, window):
    """Bytes in the file of the blocks that a window (col, row, width, height) touches, and how many rows these are."""
    col, row, width, height = window
    with rasterio.open(path) as file:
        rows = range(max(row, 0) // BLOCK, (min(row + height, file.height) - 1) // BLOCK + 1)
        cols = range(max(col, 0) // BLOCK, (min(col + width, file.width) - 1) // BLOCK + 1)
        sizes = [file.get_tag_item(f"BLOCK_SIZE_{c}_{r}", "TIFF", bidx=1) for r in rows for c in cols]
    return sum(map(int, sizes)), len(rows)


def test_a_part_is_fetched_alone(served, tmp_path):
    """Of a scene on nginx: the blocks under the part and its surroundings, once each, rounded to GDAL's requests."""
    asked = 1200, 1000, 200, 150
    window = ["--window", ",".join(map(str, asked))]
    with nginx(served, tmp_path) as server:
        done = run(f"{server.url}/pan.tif", f"{server.url}/ms.tif", *window, "-o", tmp_path / "part.tif")
        assert done.returncode == 0, done.stderr
        requests = server.requests()
    local = run(served / "pan.tif", served / "ms.tif", *window, "-o", tmp_path / "local.tif")
    assert local.returncode == 0, local.stderr
    with rasterio.open(tmp_path / "part.tif") as part, rasterio.open(tmp_path / "local.tif") as other:
        assert part.shape == (150, 200)
        assert np.array_equal(part.read(), other.read())
        assert part.tags(ns="PANSHARPEN")["PAN"] == f"{server.url}/pan.tif"
    assert {request.name for request in requests} == {"pan.tif", "ms.tif"}  # nothing beside them was looked for
    assert {request.status for request in requests} <= {200, 206}
    for name, ratio in (("pan.tif", 1), ("ms.tif", 2)):
        sent = sum(request.sent for request in requests if request.name == name)
        around = SEEN + 100  # and a halo, and an MS pixel or two
        middle = [asked[0] + asked[2] // 2, asked[1] + asked[3] // 2]
        seen = [(m - around // 2) // ratio for m in middle] + [around // ratio] * 2
        blocks, rows = bytes_of_blocks(served / name, seen)
        size = (served / name).stat().st_size
        assert sent < 0.3 * size
        assert sent < blocks + 32768 + (2 * rows + 1) * 16384  # the header, and what GDAL's requests are rounded to


@pytest.mark.parametrize(
    ("way", "said", "verbosity"),
    [
        ("404", "its server answers 404, Not Found", "-vv"),
        ("403", "its server answers 403, Forbidden", "-q"),
        ("hang", "cannot be fetched: Operation too slow", "-q"),
        ("cut", "cannot be read at rows", "-q"),
        ("cut", "cannot be read at rows", "-vv"),
    ],
)
def test_a_server_that_fails_is_told_in_one_sentence(way, said, verbosity, served, tmp_path):
    with misbehaving(served) as url:
        began = time.monotonic()
        done = run(
            f"{url.replace('//', '//user:hunter2@')}/{way}/pan.tif?sig=0a1b2c", f"{url}/ok/ms.tif", "--window",
            "100,100,50,50", "-o", tmp_path / "out.tif", verbosity,
            GDAL_HTTP_LOW_SPEED_TIME="1", GDAL_HTTP_MAX_RETRY="0",
        )  # fmt: skip
    assert time.monotonic() - began < 20
    assert done.returncode == 3
    *_, last = done.stderr.splitlines()
    assert last.startswith("pansharpen: http://...@127.0.0.1")
    assert said in last
    if verbosity == "-q":
        assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert "0a1b2c" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_server_without_ranges_is_no_use(served, tmp_path):
    with misbehaving(served) as url:
        done = run(f"{url}/plain/pan.tif", f"{url}/plain/ms.tif", "--window", "0,0,50,50", "-o", tmp_path / "out.tif")
    assert done.returncode == 3
    assert "its server cannot send parts of files" in done.stderr


def test_what_is_no_image_is_refused_without_its_secrets(served, tmp_path):
    (served / "page.tif").write_text("<html>" * 1000)
    with misbehaving(served) as url:
        done = run(f"{url}/ok/page.tif?sig=0a1b2c", f"{url}/ok/ms.tif", "-o", tmp_path / "out.tif", "-vv")
    assert done.returncode == 3
    assert "not a readable GeoTIFF" in done.stderr.splitlines()[-1]
    assert "0a1b2c" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_who_is_stopped_does_not_wait_for_a_store(how, served, tmp_path):
    passing = tmp_path / "passing"
    passing.mkdir()
    with store(tmp_path) as keys:
        arguments = [served / "pan.tif", served / "ms.tif", "-m", "exp", "-o", "s3://slow/out.tif", "-q"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pansharpen_cli", "run", *map(str, arguments)],
            env=os.environ | keys | {"TMPDIR": str(passing)}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 60
        while not (tmp_path / "slow" / "begun").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(how)
        asked = time.monotonic()
        _, told = process.communicate(timeout=60)
    assert time.monotonic() - asked < 15
    assert process.returncode in (130, 143)
    assert told.count("\n") == 1
    assert not list(passing.iterdir())
    assert not (tmp_path / "slow" / "out.tif").exists()


def test_from_store_to_store(served, tmp_path):
    """Both files out of an object store, the product into it; it is the product of a run on files."""
    (tmp_path / "bucket").mkdir()
    for name in ("pan.tif", "ms.tif"):
        (tmp_path / "bucket" / name).symlink_to(served / name)
    part = ["--window", "700,500,120,90"]
    with store(tmp_path) as keys:
        inputs = "s3://bucket/pan.tif", "s3://bucket/ms.tif", *part
        done = run(*inputs, "-o", "s3://bucket/new/out.tif", "--json", **keys)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["path"] == "s3://bucket/new/out.tif"
        before = (tmp_path / "bucket/new/out.tif").read_bytes()
        again = run(*inputs, "-o", "s3://bucket/new/out.tif", **keys)
        assert (again.returncode, "exists" in again.stderr) == (1, True)
        full = run(*inputs, "-o", "s3://full/out.tif", **keys)
        assert (full.returncode, "s3://full/out.tif cannot be written" in full.stderr) == (1, True)
        again = run(*inputs, "-o", "s3://bucket/new/part.tif", "--resume", **keys)
        assert (again.returncode, "is finished" in again.stderr) == (0, False)
        again = run(*inputs, "-o", "s3://bucket/new/part.tif", "--resume", **keys)
        assert (again.returncode, "is finished" in again.stderr) == (0, False)  # a part is not fetched as a whole
        whole = [*inputs[:2], "-o", "s3://bucket/new/whole.tif", "--resume", "-m", "exp"]
        assert [("is finished" in run(*whole, **keys).stderr) for _ in range(2)] == [False, True]
        (tmp_path / "bucket" / "text.tif").write_text("precious")
        text = run(*inputs, "-o", "s3://bucket/text.tif", **keys)
        assert (text.returncode, "exists" in text.stderr) == (1, True)
        closed = run(*inputs, "-o", "s3://closed/out.tif", **keys)
        assert "s3://closed/out.tif cannot be looked for: its server answers 403, Forbidden" in closed.stderr
        assert run(*inputs, "-o", "s3://bucket/new/out.tif", "--stac", **keys).returncode == 2
        files = served / "pan.tif", served / "ms.tif"
        assert run(*files, *part, "-o", "s3://bucket/of_files.tif", **keys).returncode == 0
    with rasterio.open(tmp_path / "bucket/of_files.tif") as there:  # and not as seen from where it was written
        assert there.tags(ns="PANSHARPEN")["PAN"] == str(served / "pan.tif")
    assert run(*files, *part, "-o", tmp_path / "local.tif").returncode == 0
    assert (tmp_path / "bucket/new/out.tif").read_bytes() == before
    with rasterio.open(tmp_path / "bucket/new/out.tif") as there, rasterio.open(tmp_path / "local.tif") as here:
        assert np.array_equal(there.read(), here.read())
        assert there.tags(ns="PANSHARPEN")["PAN"] == "s3://bucket/pan.tif"
        assert there.profile == here.profile
    assert not list(Path(gettempdir()).glob("pansharpen-*"))
