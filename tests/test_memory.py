"""Where memory is too small for a tile, it is sharpened in halves; where it is too small for anything, that is said;
and `--max-memory` holds."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from test_zoo import random_model
from worlds import World

from pansharpen_cli import sharpen
from pansharpen_cli.errors import DeviceError, UsageError
from pansharpen_cli.imaging.tiling import Reach, halves
from pansharpen_cli.networks.network import Network
from pansharpen_cli.system import memory as memory_

WORLD = World(ratio=2, bands=3, pan_size=(320, 288), ms_size=(160, 144))
RGB = ("blue", "green", "red")
OUT_OF_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory."),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
}


@pytest.fixture
def memory(monkeypatch):
    """Lets images of `most` PAN pixels into a network, and no larger ones: simulated, whatever memory there is."""
    forward = Network.forward

    def limited(most, error):
        def too_small(self, pan, ms, *rest):
            if pan.numel() > most:
                raise error
            return forward(self, pan, ms, *rest)

        monkeypatch.setattr(Network, "forward", too_small)

    return limited


def product(folder, name, model):
    if not (folder / "pan.tif").exists():
        WORLD.write(folder)
    path = folder / name
    sharpen(folder / "pan.tif", folder / "ms.tif", path, model=model, threads=1)
    with rasterio.open(path) as file:
        return file.read()


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
@pytest.mark.parametrize(
    ("network", "options", "most"), [("premix-b", {"channels": 16}, 160), ("premix-h", {"channels": 32}, 256)]
)
def test_halves_make_the_same_product(kind, network, options, most, memory, tmp_path, caplog):
    model = str(random_model(tmp_path / "model", network, bands=RGB, ratio=2, **options).folder)
    expected = product(tmp_path, "whole.tif", model)
    memory(most**2, OUT_OF_MEMORY[kind])
    with caplog.at_level(logging.WARNING):
        found = product(tmp_path, "halves.tif", model)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.ptp(expected))
    told = [record.getMessage() for record in caplog.records if "cut in two" in record.getMessage()]
    assert len(told) == len(set(told)) >= 1  # once a size


def test_where_halving_does_not_help_it_is_said(memory, tmp_path):
    model = str(random_model(tmp_path / "model", "premix-b", bands=RGB, ratio=2, channels=16).folder)
    memory(8**2, OUT_OF_MEMORY["GPU"])
    with pytest.raises(DeviceError, match=r"memory has too little free even for \d+ x \d+ pixels"):
        product(tmp_path, "out.tif", model)
    assert {path.name for path in tmp_path.glob("*.tif*")} == {"pan.tif", "ms.tif"}


def test_other_errors_are_no_matter_of_memory(memory, tmp_path):
    model = str(random_model(tmp_path / "model", "premix-b", bands=RGB, ratio=2, channels=16).folder)
    memory(8**2, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        product(tmp_path, "out.tif", model)


@pytest.mark.parametrize(("halo", "alignment", "multiple_of"), [(0, 1, 1), (12, 1, 1), (9, 32, 4), (76, 1, 8)])
@pytest.mark.parametrize("size", [4, 36, 512, 1180])
def test_halves_cover_a_tile_once_each_with_its_halo(size, halo, alignment, multiple_of):
    parts = halves(size, Reach(halo, alignment, multiple_of), 4)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == parts[-1].read_stop == size
    if len(parts) == 1:
        return
    for part in parts:
        assert part.read_stop - part.read_start < size
        assert part.read_start <= max(0, part.start - halo)
        assert part.read_stop >= min(size, part.stop + halo)
        assert part.start % alignment == part.read_start % alignment == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A scene of 768 x 768 PAN pixels, and a network of the usual size."""
    folder = tmp_path_factory.mktemp("large")
    World(ratio=4, bands=4, pan_size=(768, 768), ms_size=(192, 192)).write(folder)
    return folder, random_model(folder / "model", "premix-b", channels=32).folder


RUN = """
from pansharpen_cli.system import memory
from pansharpen_cli.cli.app import main
try:
    main()
finally:
    print(memory.most())  # what the system tells of a child may be what its parent had taken
"""


def run(folder, name, *options):
    """The most memory (bytes) of a run in a process of its own with eight threads, its exit code and its messages."""
    command = ["-c", RUN, "run", "pan.tif", "ms.tif", "-o", name, "-j", "8", "--coregister", "off", *options]
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    return int(done.stdout), done.returncode, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    ("tile", "limit", "told"), [("256", "1000M", "at once, whole"), ("768", "900M", "1 tile at once, cut")]
)
def test_max_memory_holds_and_changes_no_pixel(tile, limit, told, large):
    folder, model = large
    options = "--model", str(model), "--tile-size", tile, "-v"
    free, *_ = run(folder, f"free{tile}.tif", *options)
    most, code, said = run(folder, f"limited{tile}.tif", *options, "--max-memory", limit)
    assert code == 0, said
    assert told in said
    assert "were taken" not in said
    assert most <= memory_.parse(limit, "") < free
    products = []
    for name in ("free", "limited"):
        with rasterio.open(folder / f"{name}{tile}.tif") as file:
            products.append(file.read().astype(int))
    assert np.abs(products[0] - products[1]).max() <= 1
    assert (products[0] != products[1]).mean() <= 1e-5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("limit", ["200M", "600M"])
def test_too_little_memory_is_told_with_what_would_do(limit, large):
    folder, model = large
    _, code, said = run(folder, "none.tif", "--model", str(model), "-q", "--max-memory", limit)
    assert (code, said.count("\n")) == (2, 1)
    assert f"--max-memory {limit[:-1]} MiB is too little here; " in said
    assert not list(folder.glob("none*"))
    enough = said.split("; ")[1].removesuffix(" should do\n").replace(" ", "")
    most, code, said = run(folder, "enough.tif", "--overwrite", "--model", str(model), "-q", "--max-memory", enough)
    assert (code, said) == (0, "")
    assert most <= memory_.parse(enough, "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_what_would_do_leaves_something_to_spare(large):
    """Though GDAL then keeps more of the files than it would have by the limit that was too low."""
    folder, _ = large
    options = "--model", "gsa", "-q", "--max-memory"
    _, code, said = run(folder, "little.tif", *options, "20M")
    assert code == 2
    enough = memory_.parse(said.split("; ")[1].removesuffix(" should do\n"), "")
    _, code, said = run(folder, "spared.tif", *options, str(int(0.95 * enough)))
    assert (code, said) == (0, "")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 2**32), ("4GiB", 2**32), ("1.5 gb", 3 * 2**29), ("1500M", 1500 * 2**20), ("1000000", 10**6)],
)
def test_sizes_in_words(text, size):
    assert memory_.parse(text, "--max-memory") == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "G", "4X", "4 G B", "nan", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--max-memory takes a size"):
        memory_.parse(text, "--max-memory")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")
@pytest.mark.parametrize("heap", ["glibc's own", "kept"])
def test_a_mean_over_a_scene_takes_no_copy_of_it_in_double_precision(heap):
    """Also from a heap as `run` keeps it, with gaps that other arrays left."""
    code = """if True:
        import sys, torch
        from pansharpen_cli.networks.network import pixel_mean
        from pansharpen_cli.system import memory
        if sys.argv[1] == "kept":
            memory.keep()
        torch.set_grad_enabled(False)
        pixels = torch.rand(1, 60, 2**19, generator=torch.Generator().manual_seed(1))
        gaps = [torch.zeros(2**k) for k in range(6, 24) for _ in range(3)]
        del gaps
        memory.give_back()
        before = memory.resident()
        taken = memory.highest(lambda: pixel_mean(pixels)) - before
        assert torch.equal(pixel_mean(pixels), pixels.double().mean(2).float())
        print(taken / pixels.nbytes)
    """
    done = subprocess.run([sys.executable, "-c", code, heap], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5
