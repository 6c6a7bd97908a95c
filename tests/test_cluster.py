"""A real Dask scheduler with two real worker processes: the same pixels as one process, whoever of them dies."""

import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from servers import free_port, wait_for
from test_batch import make_scenes, statuses, summary
from test_zoo import random_model
from typer.testing import CliRunner
from worlds import World, save

from pansharpen_cli import cluster as cluster_module
from pansharpen_cli.batch import run as running
from pansharpen_cli.batch.gather import gather
from pansharpen_cli.batch.run import Batch, sharpen_all
from pansharpen_cli.cli import app
from pansharpen_cli.cluster import Cluster, Tiles
from pansharpen_cli.errors import DeviceError, SceneError, UsageError
from pansharpen_cli.job import Job
from pansharpen_cli.outputs.journal import journal_of
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.resume import resume

pytest.importorskip("distributed")

SLOW = "PANSHARPEN_SLOW" in os.environ
DASK = [sys.executable, "-m", "dask"]


@dataclass
class Processes:
    """A scheduler and its workers, which can be killed one by one."""

    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen | None = None
    workers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        command = [*DASK, "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show"]
        self.scheduler = _quiet(command)
        wait_for(self.port)

    def start_worker(self) -> None:
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--memory-limit", "0"]
        self.workers.append(_quiet([*DASK, "worker", self.address, *options]))

    def end(self) -> None:
        for process in filter(None, (*self.workers, self.scheduler)):
            process.kill()
            process.wait()


def _quiet(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def processes(workers=2):
    found = Processes()
    try:
        found.start_scheduler()
        for _ in range(workers):
            found.start_worker()
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Two workers that find the models of the tests."""
    before = {name: os.environ.get(name) for name in ("PANSHARPEN_MODELS", "OMP_NUM_THREADS")}
    os.environ |= {"PANSHARPEN_MODELS": str(tmp_path_factory.mktemp("models")), "OMP_NUM_THREADS": "1"}
    with processes() as found:
        yield found
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def scene(folder, size):
    """PAN and MS with noise and a gap."""
    world = World(bands=4, dtype="uint16", pan_size=(size, size), ms_size=(size // 4, size // 4), nodata=0)
    random = np.random.default_rng(0)
    pan = (world.pan_image() + random.normal(0, 30, (1, size, size))).astype(np.float32)
    ms = (world.ms_image() + random.normal(0, 30, (4, size // 4, size // 4))).astype(np.float32)
    ms[:, size // 16 : size // 12, size // 10 : size // 8] = 0
    return save(folder / "pan.tif", pan, world.pan_sheet, dtype="uint16", nodata=0), [
        save(folder / "ms.tif", ms, world.ms_sheet, dtype="uint16", nodata=0, names=world.names)
    ]


def same(one, other):
    """Block by block, so that large products fit into memory."""
    with rasterio.open(one) as a, rasterio.open(other) as b:
        assert (a.shape, a.count, a.dtypes) == (b.shape, b.count, b.dtypes)
        return all(np.array_equal(a.read(window=window), b.read(window=window)) for _, window in a.block_windows(1))


def tags(path):
    with rasterio.open(path) as file:
        return file.tags(ns="PANSHARPEN")


@pytest.mark.parametrize("model", ["brovey", "random"])
def test_a_scene_that_is_split_has_the_pixels_of_one_that_is_not(model, dask, tmp_path):
    size, shift = (2048, "off") if model == "brovey" else (256, (0.6, -1.3))
    random_model(Path(os.environ["PANSHARPEN_MODELS"]) / "random", "adknet", channels=8)
    job = Job(*scene(tmp_path, size), tmp_path / "one.tif", model, coregister=shift, tile=size // 4, threads=1)
    sharpen(job)
    told = []
    with Cluster(dask.address) as there:
        made = sharpen(
            replace(job, output=tmp_path / "two.tif"), lambda done, total: told.append((done, total)), Tiles(there)
        )
    assert told == [(done, 16) for done in range(1, 17)]
    assert same(job.output, made.path)
    assert tags(job.output) == tags(made.path)


@pytest.mark.skipif(not SLOW, reason="takes minutes; PANSHARPEN_SLOW=1")
def test_a_large_scene_that_is_split_has_the_pixels_of_one_that_is_not(dask, tmp_path):
    job = Job(*scene(tmp_path, 8192), tmp_path / "one.tif", "gsa", threads=1)
    one = sharpen(job)
    with Cluster(dask.address) as there:
        two = sharpen(replace(job, output=tmp_path / "two.tif"), compute=Tiles(there))
    print(f"one process {one.seconds:.0f} s, two workers {two.seconds:.0f} s")
    assert same(one.path, two.path)


def batch(folder, output, model="exp", **options):
    common = Job(pan="", ms=(), output=output, model=model, coregister="off")
    return Batch(gather(folder, output, common)[0], output, **options)


def test_scenes_are_tasks(dask, tmp_path, monkeypatch):
    """Of paths that are relative to where the batch is started; one of them is broken."""
    make_scenes(tmp_path / "in", 5, broken={3})
    monkeypatch.chdir(tmp_path)
    sharpen_all(batch(Path("in"), Path("here")))
    sharpen_all(batch(Path("in"), Path("there"), scheduler=dask.address, retries=0))
    found = {name: line["status"] for name, line in summary(tmp_path / "there").items()}
    assert found == statuses(tmp_path / "here")
    assert sorted(found.values()) == ["done"] * 4 + ["failed"]
    for path in (tmp_path / "here").glob("*.tif"):
        assert same(path, tmp_path / "there" / path.name)
        assert tags(path) == tags(tmp_path / "there" / path.name)
        assert "FOLDER" not in tags(path)


class Away:
    """A cluster of one worker, who cannot see `folder`."""

    def __init__(self, folder):
        self.folder, self.hidden = folder, folder.with_name("hidden")
        self.address = "tcp://away:1"

    def __call__(self, *_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def each(self, queue, work, ahead=1):
        while queue:
            item = queue.popleft()
            if self.folder.exists():
                self.folder.rename(self.hidden)
            try:
                made = work(item)
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)
                if self.hidden.exists():
                    self.hidden.rename(self.folder)
            yield item, made


@pytest.mark.parametrize("before", [False, True])
def test_a_product_that_is_not_here_is_not_done(before, tmp_path, monkeypatch):
    """A worker that does not see the folder makes one of its own; an older product is none either."""
    make_scenes(tmp_path / "in", 1)
    out = tmp_path / "out"
    monkeypatch.setattr(running, "Cluster", Away(out))
    if before:
        sharpen_all(batch(tmp_path / "in", out, model="gsa"))
    sharpen_all(batch(tmp_path / "in", out, scheduler="tcp://away:1", resume=before))
    [told] = summary(out).values()
    assert told["status"] == "failed"
    assert "was made by a worker, but is not here; give a folder that the workers share" in told["message"]


def test_an_input_that_a_worker_alone_cannot_see_is_told_so(tmp_path, monkeypatch):
    make_scenes(tmp_path / "in", 1)
    monkeypatch.setattr(running, "Cluster", Away(tmp_path / "in"))
    sharpen_all(batch(tmp_path / "in", tmp_path / "out", scheduler="tcp://away:1"))
    [told] = summary(tmp_path / "out").values()
    said = f"is here, but a worker on {platform.node()} cannot see it; share its folder with that"
    assert told["status"] == "failed"
    assert told["message"].endswith(said)
    pan, ms = sorted((tmp_path / "in").rglob("*pan.tif"))[0], sorted((tmp_path / "in").rglob("*ms.tif"))[0]
    cluster_module._opened.cache_clear()
    with pytest.raises(SceneError, match=said):
        sharpen(Job(pan, [ms], tmp_path / "o.tif", "exp"), compute=Tiles(Away(tmp_path / "in")))


@pytest.mark.parametrize("options", [["--backend", "onnx"], ["-m", "a.onnx"]])
def test_what_cannot_be_split_is_told_before_any_work(options, tmp_path):
    told = CliRunner().invoke(
        app.app, ["run", "pan.tif", "ms.tif", "-o", str(tmp_path / "o.tif"), "--scheduler", "tcp://no:1", *options]
    )
    assert isinstance(told.exception, UsageError)
    assert "what onnxruntime computes is not split" in str(told.exception)


def test_a_batch_survives_a_worker_and_its_scheduler(tmp_path):
    """A worker is killed in the middle of its scene, and later everything, of which a scheduler and a worker come back:
    all products are made, and nothing is left of an unfinished attempt."""
    make_scenes(tmp_path / "in", 7, size=512)
    told = []
    with processes() as dask:

        def on_scene(done, failed, total):
            told.append((done, failed))
            if done == 2:
                dask.workers[0].kill()
            elif done == 4:
                dask.end()
                dask.start_scheduler()
                dask.start_worker()

        sharpen_all(batch(tmp_path / "in", tmp_path / "out", scheduler=dask.address, retries=2), on_scene)
    assert told == [(done, 0) for done in range(1, 8)]
    assert set(statuses(tmp_path / "out").values()) <= {"done", "kept"}
    sharpen_all(batch(tmp_path / "in", tmp_path / "here"))
    for path in (tmp_path / "here").glob("*.tif"):
        assert same(path, tmp_path / "out" / path.name)
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_split_scene_survives_a_worker_but_not_its_scheduler(tmp_path, monkeypatch):
    """A worker is killed: the product comes. The scheduler is killed: within a bounded time one sentence comes, and the
    tiles that were finished need not be made again."""
    monkeypatch.setattr(cluster_module, "AWAY", 3)
    job = Job(*scene(tmp_path, 768), tmp_path / "one.tif", "brovey", coregister="off", tile=64, threads=1)
    sharpen(job)
    with processes() as dask:

        def kill(process, at):
            return lambda done, total: process.kill() if done == at else None

        with Cluster(dask.address) as there:
            made = sharpen(replace(job, output=tmp_path / "two.tif"), kill(dask.workers[0], 30), Tiles(there))
        assert same(job.output, made.path)
        three = replace(job, output=tmp_path / "three.tif", resume=True)
        began = time.monotonic()
        with Cluster(dask.address) as there, pytest.raises(DeviceError, match="are gone; start them"):
            sharpen(three, kill(dask.scheduler, 30), Tiles(there))
        assert time.monotonic() - began < 60
    assert journal_of(three.output).stat().st_size > 30 * 64**2 * 8
    told = []
    resume(three, lambda done, total: told.append(done))
    assert told[0] > 30
    assert same(job.output, three.output)


def test_only_a_gpu_will_do_where_one_is_asked_for(dask):
    with pytest.raises(DeviceError, match="no worker with a GPU"):
        Cluster(dask.address, gpu=True).__enter__()


def test_a_summary_is_not_emptied_for_a_scheduler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT", 1)
    make_scenes(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.jsonl").write_text("as it was")
    with pytest.raises(DeviceError, match="cannot be reached"):
        sharpen_all(batch(tmp_path / "in", tmp_path / "out", scheduler=f"tcp://127.0.0.1:{free_port()}"))
    assert (tmp_path / "out" / "summary.jsonl").read_text() == "as it was"
    with pytest.raises(DeviceError, match="cannot be reached"):
        sharpen_all(batch(tmp_path / "in", tmp_path / "new", scheduler=f"tcp://127.0.0.1:{free_port()}"))
    assert not (tmp_path / "new").exists()
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    assert {logger.getEffectiveLevel() for logger in loggers} == {logging.CRITICAL}


def test_what_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT", 1)
    monkeypatch.setattr(cluster_module, "WORKERS", 1)
    with pytest.raises(DeviceError, match="cannot be reached"):
        Cluster(f"tcp://127.0.0.1:{free_port()}").__enter__()
    with pytest.raises(DeviceError, match="cannot be reached"):
        Cluster("nonsense://host").__enter__()
    with processes(workers=0) as dask, pytest.raises(DeviceError, match="has no worker"):
        Cluster(dask.address).__enter__()
