"""How long `pansharpen run` takes from files to product, beside writing that product alone and beside other programs.

    python benchmarks/run.py FOLDER [--sizes 4096 8192 16384] [--models exp brovey gsa mtf-glp-fs] [--repeat 3]
        [--bands 4] [--threads 2] [--coregister auto] [--sensor measured] [--overviews] [--device cpu] [--json FILE]

makes scenes of 4 or 8 bands (see qnr.py) in FOLDER unless they are there, and has each way make a small product first,
for the first run after an installation compiles. All ways and sizes take turns, each in a fresh process, with the same
creation options: ZSTD, predictor 2, blocks of 512 pixels, no overviews. `write` reads a product block by block and
writes it; `gdal`, `otb-rcs` and `oty` are other programs (see peers.py), where they are installed. With --overviews
`run`, `write` and oty make them, which the others do not. Printed are the medians of wall seconds and of the seconds
all cores worked (wall time on a busy machine says little), their ratios to `write` and the others, the peak memory,
and, of several sizes, the exponent with which both grow with the pixels, beyond what a scene of 512 pixels takes: the
start of a program does not grow. Nor do looks for the shift and the sharpness, at more windows than such a scene has;
`--coregister off --sensor generic` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import peers
from qnr import NAMES, make

MODELS = ("exp", "brovey", "gsa", "mtf-glp-fs")
START = 512
"""PAN pixels a side of a scene that takes hardly longer than the start."""
PEERS = ("gdal", "otb-rcs", "oty")
CREATION = {"TILED": "YES", "BLOCKXSIZE": "512", "BLOCKYSIZE": "512", "COMPRESS": "ZSTD", "PREDICTOR": "2"} | {
    "BIGTIFF": "IF_SAFER"
}
WRITE = """
import sys, rasterio
product, output, threads, overviews = sys.argv[1:]
options = dict(
    driver="GTiff", tiled=True, blockxsize=512, blockysize=512, interleave="pixel", compress="zstd", predictor=2,
    bigtiff="if_safer", photometric="minisblack", num_threads=threads,
)
with rasterio.open(product, num_threads=threads) as source:
    profile = {name: source.profile[name] for name in ("width", "height", "count", "dtype", "crs", "transform")}
    factors = [2**level for level in range(1, ((max(source.shape) - 1) // 256).bit_length() + 1)]
    with rasterio.open(output, "w", **profile, **options) as target:
        for _, window in source.block_windows(1):
            target.write(source.read(window=window), window=window)
if overviews == "yes":
    with rasterio.Env(GDAL_NUM_THREADS=threads, ZSTD_LEVEL_OVERVIEW=1), rasterio.open(output, "r+") as target:
        target.build_overviews(factors, rasterio.enums.Resampling.average)
"""


@dataclass(frozen=True)
class Run:
    """A process: seconds, seconds of all cores, peak memory in MiB."""

    wall: float
    cores: float
    memory: float


def run(command: Sequence[str | Path]) -> Run:
    """What `command` takes."""
    began = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # oty shows how far it is
    process = subprocess.Popen([str(part) for part in command], **quiet)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return Run(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def ways(size: int, options: argparse.Namespace) -> dict[str, list[str | Path]]:
    """The commands to compare, by name; each writes the same kind of file."""
    product, pan, ms = make(options.folder, size, options.bands)
    output, threads = options.folder / "output.tif", options.threads
    write = [sys.executable, "-c", WRITE, product, output, str(threads), "yes" if options.overviews else "no"]
    commands = {"write": write}
    others = peers.commands(pan, ms, output, CREATION, threads, options.overviews)
    commands |= {name: others[name] for name in PEERS if name in others}
    ours = [sys.executable, "-m", "pansharpen_cli", "run", pan, ms, "-o", output, "--overwrite", "-q"]
    ours += ["-j", str(threads), "--device", options.device]
    ours += ["--coregister", options.coregister, "--sensor", options.sensor]
    ours += ["--co", "COMPRESS=ZSTD", *([] if options.overviews else ["--co", "OVERVIEWS=NONE"])]
    return commands | {model: [*ours, "--model", model] for model in options.models}


def measure(folder: Path, commands: dict[int, dict[str, list[str | Path]]], repeat: int) -> dict[int, dict[str, Run]]:
    """Medians of `repeat` runs of each command, by size and name, which all take turns; of memory the largest."""
    runs: dict[tuple[int, str], list[Run]] = {(size, name): [] for size, ways in commands.items() for name in ways}
    for _ in range(repeat):
        for (size, name), done in runs.items():
            (folder / "output.tif").unlink(missing_ok=True)
            done.append(run(commands[size][name]))
    return {size: {name: _median(runs[size, name]) for name in ways} for size, ways in commands.items()}


def _median(done: Sequence[Run]) -> Run:
    wall, cores = (statistics.median(getattr(one, field) for one in done) for field in ("wall", "cores"))
    return Run(wall, cores, max(one.memory for one in done))


def show(size: int, bands: int, medians: dict[str, Run]) -> None:
    """One line for each way."""
    beside = [name for name in ("write", *PEERS) if name in medians]
    print(
        f"\n{size} x {size} x {bands}, uint16      s   MPix/s   s of cores   MiB   wall (cores) to {', '.join(beside)}"
    )
    for name, one in medians.items():
        others = [medians[other] for other in beside]
        ratios = "  ".join(f"{one.wall / other.wall:5.2f} ({one.cores / other.cores:.2f})" for other in others)
        speed = f"{one.wall:8.2f} {size**2 / 1e6 / one.wall:8.1f} {one.cores:12.2f}"
        print(f"{name:20} {speed} {one.memory:5.0f}   {ratios}", flush=True)


def exponents(results: dict[int, dict[str, Run]]) -> dict[str, tuple[float, float]]:
    """Of time over pixels, from the smallest to the largest scene, without the start: of wall and of core seconds."""
    _, least, *_, most = sorted(results)
    start, small, large = results[START], results[least], results[most]
    growth = log((most / least) ** 2)
    return {
        name: (
            log((large[name].wall - one.wall) / (small[name].wall - one.wall)) / growth,
            log((large[name].cores - one.cores) / (small[name].cores - one.cores)) / growth,
        )
        for name, one in start.items()
    }


def main() -> None:
    """Print a table for each size and the exponents."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384], help="PAN pixels a side")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bands", type=int, choices=NAMES, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--coregister", default="auto")
    parser.add_argument("--sensor", default="measured")
    parser.add_argument("--overviews", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for command in ways(START, arguments).values():
        run(command)
    sizes = [START, *arguments.sizes] if len(arguments.sizes) > 1 else arguments.sizes
    results = measure(arguments.folder, {size: ways(size, arguments) for size in sizes}, arguments.repeat)
    for size, medians in results.items():
        show(size, arguments.bands, medians)
    growth = exponents(results) if len(sizes) > 1 else {}
    (arguments.folder / "output.tif").unlink(missing_ok=True)
    for name, (wall, cores) in growth.items():
        print(f"{name:20} grows as pixels ** {wall:.3f}, of core seconds {cores:.3f}")
    if arguments.json:
        sizes = {size: {name: asdict(one) for name, one in medians.items()} for size, medians in results.items()}
        arguments.json.write_text(json.dumps({"sizes": sizes, "exponents": growth}, indent=2))


if __name__ == "__main__":
    main()
