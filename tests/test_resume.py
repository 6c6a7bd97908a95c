"""A run that was cut short, at whatever byte, goes on and ends with the pixels of one that was not; what it finds from
before counts only if it is whole and of this very job."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from worlds import World, save

from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.outputs.journal import Claim, JournalingWriter, journal_of
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.resume import resume
from pansharpen_cli.system.locks import BusyError

WORLD = World(bands=3, dtype="uint16", pan_size=(256, 200), ms_size=(64, 50))
TILES = 16


@pytest.fixture
def job(tmp_path):
    """Of 4 x 4 tiles, resumable; the MS has an internal mask, and so will the product."""
    pan, _ = WORLD.write(tmp_path)
    mask = np.ones(WORLD.ms_size, bool)
    mask[20:40, 10:30] = False
    ms = save(tmp_path / "masked.tif", WORLD.ms_image(), WORLD.ms_sheet, dtype="uint16", mask=mask)
    return Job(pan, [ms], tmp_path / "out.tif", model="exp", coregister="off", tile=64, threads=1, resume=True)


@pytest.fixture
def whole(job, tmp_path):
    """Pixels and mask of the product that was made without a break."""
    sharpen(replace(job, output=tmp_path / "whole.tif", resume=False))
    return read(tmp_path / "whole.tif")


def read(path):
    with rasterio.open(path) as file:
        return np.concatenate([file.read(), file.read_masks(1)[None]])


def cut_short(job, after):
    """Stop a run as Ctrl-C does, after so many tiles. The journal then has these, or some more."""

    def on_tile(done, total):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharpen(job, on_tile)
    return journal_of(job.output)


def go_on(job):
    """Resume, and say how many tiles were found."""
    told = []
    resume(job, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(TILES + 1 - len(told), TILES + 1))
    assert not [path.name for path in job.output.parent.iterdir() if path.name.startswith(".")]
    return TILES - len(told)


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_a_run_goes_on_where_it_was(format, job, whole):
    job = replace(job, format=format)
    cut_short(job, 5)
    assert sorted(path.name for path in job.output.parent.glob(".*")) == [".out.tif.tiles"]
    assert not job.output.exists()
    cut_short(job, 9)
    assert 8 <= go_on(job) <= 12
    assert np.array_equal(read(job.output), whole)


def test_wherever_the_journal_was_cut_the_pixels_are_the_same(job, whole):
    """At places drawn at random, in the header, at both ends, and with what a power failure leaves behind the end."""
    content = cut_short(job, 13).read_bytes()  # the writer may be two tiles behind
    header, random = content.index(b"\n") + 1, np.random.default_rng(0)
    found = {}
    for length in (0, 1, header - 1, header, *map(int, random.integers(header, len(content), 4)), len(content)):
        journal_of(job.output).write_bytes(content[:length] + (bytes(5000) if length >= header else b""))
        found[length] = go_on(job)
        assert np.array_equal(read(job.output), whole)
        job.output.unlink()
    assert found[0] == found[header - 1] == found[header] == 0
    assert found[len(content)] >= 11
    assert [found[length] for length in sorted(found)] == sorted(found.values())


def test_a_tile_that_reads_otherwise_than_it_was_written_is_made_again(job, whole):
    journal = cut_short(job, 12)
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    assert 3 <= go_on(job) <= 8
    assert np.array_equal(read(job.output), whole)


@pytest.mark.parametrize(
    "other",
    [{"sensor": "WV3"}, {"tile": 128}, {"model": "brovey"}, {"dtype": "float32"}, {"coregister": (1.0, 0.0)}],
)
def test_tiles_of_another_job_do_not_count(other, job):
    """Of these parameters, or of an input that was changed in its place."""
    cut_short(job, 12)
    told = []
    resume(replace(job, **other), lambda done, total: told.append(done))
    assert told == list(range(1, len(told) + 1))


def test_tiles_of_another_input_do_not_count(job):
    cut_short(job, 12)
    save(job.pan, WORLD.pan_image() + 1, WORLD.pan_sheet, dtype="uint16")
    assert go_on(job) == 0


def test_what_is_finished_is_kept(job):
    made = resume(job)
    before = job.output.stat()
    journal_of(job.output).write_bytes(b"left by a run that was killed in its last moment")
    again = resume(replace(job, threads=2, tile=128))
    after = job.output.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert again == replace(made, kept=True, reason=again.reason, seconds=again.seconds)
    assert not journal_of(job.output).exists()
    assert not resume(replace(job, format="cog")).kept


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_what_lost_its_end_is_made_again(format, job, tmp_path):
    """As a copy that broke off: overviews, and their masks, may be all that it lacks."""
    wide = World(bands=3, dtype="uint16", pan_size=(32, 2048), ms_size=(8, 512))
    ms = save(tmp_path / "wide.tif", wide.ms_image(), wide.ms_sheet, dtype="uint16", mask=np.eye(8, 512) == 0)
    job = replace(job, pan=wide.write(tmp_path)[0], ms=[ms], tile=None, format=format)
    resume(job)
    content = job.output.read_bytes()
    for lost in (40, 1000, 5000):
        job.output.write_bytes(content[:-lost])
        assert not resume(job).kept
        assert resume(job).kept


def test_a_file_of_somebody_else_is_not_replaced(job):
    job.output.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        resume(job)
    assert job.output.read_text() == "mine"


def test_a_product_is_made_by_one_run_at_a_time(job):
    with Scene.open(job.pan, *job.ms) as scene:
        first, second = (
            JournalingWriter("key", None, job.output, scene.pan_grid, ["a"], "uint16", 0) for _ in range(2)
        )
    with first:
        there = set(job.output.parent.iterdir())
        with pytest.raises(OutputError, match="being made by another run"):
            second.__enter__()
        assert set(job.output.parent.iterdir()) == there
    with second:
        pass


def test_a_journal_that_went_between_opening_and_locking_is_no_claim(job, monkeypatch):
    """Who had it removed it, and a third run may have made a new one: two would then work at once."""
    first, flock = Claim(job.output).__enter__(), fcntl.flock

    def late(*arguments):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.__exit__(None, None, None)
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with Claim(job.output), pytest.raises(BusyError, match="being made by another run; wait for it"):
        resume(job)
    assert not list(job.output.parent.glob(".*"))


def test_an_input_that_is_away_for_a_while_costs_no_tiles(job):
    cut_short(job, 12)
    away = job.pan.rename(job.pan.with_name("away.tif"))
    with pytest.raises(SceneError):
        resume(job)
    away.rename(job.pan)
    assert go_on(job) >= 10


def test_what_takes_the_room_is_named(job, monkeypatch):
    journal = cut_short(job, 12)
    size, usage = journal.stat().st_size, shutil.disk_usage(".")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
        with pytest.raises(OutputError) as refused:
            resume(job)
        assert str(refused.value).endswith(
            f"make room or choose another folder; finished tiles take {size / 1e6:.1f} MB in {journal}, "
            "which may be deleted"
        )
        journal.unlink()
        with pytest.raises(OutputError, match=r"free; make room or choose another folder$"):
            resume(job)
    assert go_on(job) == 0


def test_a_scene_that_cannot_be_sharpened_leaves_no_journal(job):
    """It breaks in the middle; nobody will go on with it."""
    save(job.pan, WORLD.pan_image(), WORLD.pan_sheet, dtype="uint16", compress="deflate", blockysize=16)
    content = bytearray(job.pan.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 200] = bytes(200)
    job.pan.write_bytes(content)
    with pytest.raises(SceneError):
        resume(replace(job, coregister=(0.0, 0.0)))
    assert not list(job.output.parent.glob(".*"))


def test_a_killed_run_goes_on(job, whole):
    """The real thing: the process is gone at once, the next one completes its work, a third one finds it done."""
    command = [sys.executable, "-m", "pansharpen_cli", "run", job.pan, job.ms[0], "-o", job.output]
    command += ["-m", "exp", "--coregister", "off", "--tile-size", "64", "-j", "1", "-q", "--resume"]
    command = [str(part) for part in command]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while not journal_of(job.output).exists() or journal_of(job.output).stat().st_size < 100_000:
        assert process.poll() is None, "it was too quick"
        assert time.monotonic() < until
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not job.output.exists()
    subprocess.run(command, check=True)
    assert np.array_equal(read(job.output), whole)
    assert not list(job.output.parent.glob(".*"))
    before = job.output.stat()
    subprocess.run(command, check=True)
    assert job.output.stat().st_ino == before.st_ino
