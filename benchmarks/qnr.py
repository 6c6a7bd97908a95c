"""How fast `pansharpen qnr` judges a large product, and in how much memory.

    python benchmarks/qnr.py FOLDER [--size 10000] [--threads 1 2] [--repeat 3]

makes a product of 4 bands, its PAN and its MS (uint16 GeoTIFF, as `pansharpen run` writes them) in FOLDER unless they
are there, and prints for each number of threads MPix/s (PAN pixels; the median of the runs), the seconds all cores
worked (median; wall time on a busy machine says little) and the peak memory above that of an interpreter with NumPy and
rasterio. Beside it the floor: reading the same files with rasterio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

RATIO, BLOCK = 4, 512
NAMES = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2"),
}
LEVELS = {4: (420, 510, 460, 900), 8: (380, 420, 510, 500, 460, 700, 900, 850)}
"""Bands by their number, and the mean DN of each."""
PERIOD = 1024
"""Pixels after which the texture repeats: far more than a codec looks back."""

IMPORTS = "import numpy, rasterio"
READ = """
import sys, rasterio
for path in sys.argv[1:]:
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            file.read(window=window)
"""


def texture(seed: int) -> npt.NDArray[np.float32]:
    """(PERIOD, PERIOD), seamless, standard deviation 1; its spectrum falls as that of landscapes does (1/f)."""
    noise = np.random.default_rng(seed).normal(size=(PERIOD, PERIOD))
    frequency = np.hypot(np.fft.fftfreq(PERIOD)[:, None], np.fft.rfftfreq(PERIOD))
    frequency[0, 0] = np.inf
    image = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=noise.shape)
    return np.asarray(image / image.std(), dtype=np.float32)


def make(folder: Path, size: int, bands: int = 4) -> list[Path]:
    """product.tif, pan.tif and ms.tif of size x size PAN pixels."""
    paths = [folder / f"{name}_{size}{'' if bands == 4 else f'x{bands}'}.tif" for name in ("product", "pan", "ms")]
    if all(path.exists() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    common, noise = texture(0), np.random.default_rng(9)
    own = np.stack([texture(1 + band) for band in range(bands)])
    level = np.array(LEVELS[bands], np.float32)[:, None, None]
    hrms = level * (1 + 0.25 * common + 0.1 * own).clip(0.1)
    ms = hrms.reshape(bands, PERIOD // RATIO, RATIO, PERIOD // RATIO, RATIO).mean(axis=(2, 4))
    images = [hrms + noise.normal(0, 8, hrms.shape), hrms.mean(axis=0, keepdims=True), ms]
    tags = {"PAN": paths[1].name, "MS": json.dumps([paths[2].name]), "RATIO": str(RATIO), "SENSOR": "QB"}
    for path, image, pixel in zip(paths, images, (1, 1, RATIO), strict=True):
        write(path, np.rint(image).astype(np.uint16), size // pixel, pixel, tags if image is images[0] else {})
    return paths


def write(path: Path, image: npt.NDArray[np.uint16], size: int, pixel: float, tags: dict[str, str]) -> None:
    """`image` (bands, h, w) repeated to size x size pixels, `pixel` metres wide."""
    with rasterio.open(
        path, "w", driver="GTiff", count=len(image), height=size, width=size, dtype="uint16", crs="EPSG:32630",
        transform=Affine(pixel, 0, 500000, 0, -pixel, 4500000), tiled=True, blockxsize=BLOCK, blockysize=BLOCK,
        interleave="pixel", compress="deflate", predictor=2, zlevel=1, num_threads="all_cpus", photometric="minisblack",
    ) as file:  # fmt: skip
        for _, window in file.block_windows(1):
            (top, bottom), (left, right) = window.toranges()
            rows, cols = np.arange(top, bottom) % image.shape[1], np.arange(left, right) % image.shape[2]
            file.write(image[:, rows[:, None], cols], window=Window(left, top, right - left, bottom - top))
        if len(image) in NAMES:
            file.descriptions = NAMES[len(image)]
        file.update_tags(ns="PANSHARPEN", **tags)


class Run(NamedTuple):
    """Seconds, seconds of all cores, peak memory in MiB, and output of a process."""

    seconds: float
    cores: float
    memory: float
    output: str


def run(*command: str, threads: int = 0) -> Run:
    """A Python process; `threads` of its libraries, 0: as they like."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Run(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=10000, help="PAN pixels a side, a multiple of 4")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    paths = [str(path) for path in make(arguments.folder, arguments.size)]
    pixels = arguments.size**2 / 1e6
    floor = run("-c", IMPORTS).memory

    def report(name: str, runs: list[Run]) -> None:
        rates = [pixels / one.seconds for one in runs]
        speed = f"{statistics.median(rates):6.2f} MPix/s ({min(rates):.2f} - {max(rates):.2f})"
        cores, memory = statistics.median(one.cores for one in runs), max(one.memory for one in runs) - floor
        print(f"{name:14} {speed:30} {cores:6.1f} s of cores {memory:6.0f} MiB")

    print(f"{arguments.size} x {arguments.size} x 4 uint16; memory above {floor:.0f} MiB of the interpreter")
    report("reading only", [run("-c", READ, *paths) for _ in range(arguments.repeat)])
    for threads in arguments.threads:
        command = ["-m", "pansharpen_cli", "qnr", paths[0], "--json", "-q", "-j", str(threads)]
        runs = [run(*command, threads=threads) for _ in range(arguments.repeat)]
        report(f"qnr, {threads} thread{'s' if threads > 1 else ''}", runs)
    scores = json.loads(runs[-1].output)
    print(json.dumps({name: value for name, value in scores.items() if isinstance(value, float)}))


if __name__ == "__main__":
    main()
