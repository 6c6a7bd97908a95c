"""How fast each network sharpens a tile, beside the same network as its paper writes it.

    python benchmarks/networks.py [--device cpu|cuda] [--threads 1] [--tile 512] [--repeat 5] [--json FILE]

Each measurement has a fresh process, and ours and the paper's take turns. Ours runs as `pansharpen run` does, on a GPU
with tiles on their way while others are computed; the paper's in torch's default settings. Printed are the median
MPix/s (PAN pixels) of wall time and of CPU time, which says more on a busy machine, their ratios, and which part of its
roofline ours reaches: on a CPU the rate of a large matrix product, on a GPU the slower of that and of moving the bytes
that cannot be spared, beside which only computing is timed. Results of both are compared, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from math import inf
from pathlib import Path
from typing import Any

CASES = {"adknet": (8, 44, 7), "premix-b": (4, 151, 2.5), "premix-h": (4, 534, 8), "dmanet": (8, 460, 10)}
"""Networks by name: bands, thousand multiply-adds a PAN pixel, and thousand bytes to read and write if every stage is
one pass."""
RATIO = 4
ON_A_GPU = 16
"""Tiles in a row that are timed there."""


def measure(name: str, way: str, device: str, threads: int, tile: int) -> dict[str, Any]:
    """Seconds for one tile, wall and CPU, and a digest of the result; runs in a process of its own."""
    import numpy as np
    import torch

    from pansharpen_cli.backends.torch_backend import TorchBackend
    from pansharpen_cli.networks import build
    from pansharpen_cli.system.concurrency import in_order

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    bands = CASES[name][0]
    network = build(name, bands, RATIO, {}).eval()
    pan, ms = torch.rand(1, 1, tile, tile), torch.rand(1, bands, tile // RATIO, tile // RATIO)
    statistics_ = network.observe(pan[..., :64, :64], ms[..., :16, :16])
    tiles, at_once = (1, 1) if device == "cpu" else (ON_A_GPU, 1)
    if way == "papers":
        from naive import as_in_the_papers

        where = torch.device(device)
        network = as_in_the_papers(network).to(where)
        frozen = {key: value.to(where) for key, value in statistics_.items()}

        def sharpen() -> Any:
            with torch.no_grad():
                return network(pan.to(where), ms.to(where), frozen)[0].cpu().numpy()
    else:
        backend = TorchBackend(network, 0, torch.device(device), threads)
        backend.statistics = {key: value.to(device) for key, value in statistics_.items()}
        at_once = min(tiles, backend.at_once)

        def sharpen() -> Any:
            return backend(pan[0].numpy(), ms[0].numpy())

    hrms = sharpen()
    runs = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in in_order(lambda _: sharpen(), range(tiles), at_once):
            pass
        runs.append(((time.perf_counter() - wall) / tiles, (time.process_time() - cpu) / tiles))
    wall, cpu = (min(column) for column in zip(*runs, strict=True))
    sample = np.asarray(hrms[:, ::37, ::41], float).ravel()[:500].tolist()
    alone = computing_alone(backend, pan, ms) if device != "cpu" and way == "ours" else cpu
    return {"wall": wall, "cpu": cpu, "alone": alone, "sample": sample}


def computing_alone(backend: Any, pan: Any, ms: Any) -> float:
    """Seconds for a tile that is on the GPU already and stays there."""
    import torch

    pan, ms = pan.to(backend._where), ms.to(backend._where)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.inference_mode(), backend._exact():
        backend._network(pan, ms, backend.statistics)
        began.record()
        for _ in range(ON_A_GPU):
            backend._network(pan, ms, backend.statistics)
        ended.record()
    torch.cuda.synchronize()
    return float(began.elapsed_time(ended)) / 1e3 / ON_A_GPU


def gpu_rates(device: str) -> tuple[float, float]:
    """Multiply-adds a second of a large matrix product, single precision made of three products of TF32 or plain,
    whichever is faster; and bytes a second of a copy, read and written."""
    import torch

    def seconds(work: Any) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        work()
        began.record()
        for _ in range(10):
            work()
        ended.record()
        torch.cuda.synchronize()
        return float(began.elapsed_time(ended)) / 1e4

    a, big = torch.rand(8192, 8192, device=device), torch.rand(2**28, device=device)
    torch.set_float32_matmul_precision("highest")
    plain = seconds(lambda: a @ a)
    torch.set_float32_matmul_precision("high")
    split = 3 * seconds(lambda: a @ a)
    return 8192**3 / min(plain, split), 2 * big.nbytes / seconds(big.clone)


def matrix_rate(threads: int) -> float:
    """Multiply-adds a second of a large matrix product on this CPU, single precision."""
    import torch

    torch.set_num_threads(threads)
    a = torch.rand(2048, 2048)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        a @ a
        seconds.append((time.process_time() - began) / threads)
    return float(2048**3 / min(seconds))


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # network and way, in a process of its own
    arguments = parser.parse_args()
    settings = (arguments.device, arguments.threads, arguments.tile)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, *settings)))
        return
    on_cpu = arguments.device == "cpu"
    rates = (matrix_rate(arguments.threads), inf) if on_cpu else gpu_rates(arguments.device)
    results = {name: compare(name, arguments.repeat, settings, rates) for name in arguments.networks}
    if arguments.json:
        arguments.json.write_text(json.dumps({"rates": rates, "networks": results}, indent=2))


def compare(name: str, repeat: int, settings: tuple[str, int, int], rates: tuple[float, float]) -> dict[str, float]:
    """Both ways in turn, printed as one line."""
    device, threads, tile = settings
    command = [sys.executable, __file__, "--device", device, "--threads", str(threads), "--tile", str(tile)]
    runs: dict[str, list[dict[str, Any]]] = {"papers": [], "ours": []}
    for _ in range(repeat):
        for way, done in runs.items():
            output = subprocess.run([*command, "--measure", name, way], stdout=subprocess.PIPE, text=True, check=True)
            done.append(json.loads(output.stdout))
    pixels = tile**2 / 1e6
    speed = {
        (way, clock): statistics.median(pixels / run[clock] for run in done)
        for way, done in runs.items()
        for clock in ("wall", "cpu")
    }
    difference = max(abs(a - b) for a, b in zip(runs["ours"][0]["sample"], runs["papers"][0]["sample"], strict=True))
    alone = statistics.median(run["alone"] for run in runs["ours"])
    result = {
        "ours": speed["ours", "wall"],
        "ours_computing_alone": pixels / alone,
        "papers": speed["papers", "wall"],
        "ratio": speed["ours", "wall"] / speed["papers", "wall"],
        "ratio_of_cpu_time": speed["ours", "cpu"] / speed["papers", "cpu"],
        "part_of_roofline": max(work * 1e9 / rate for work, rate in zip(CASES[name][1:], rates, strict=True))
        * pixels
        / alone,
        "largest_difference": difference,
    }
    print(
        f"{name:10} {result['ours']:6.3f} MPix/s, the paper's {result['papers']:6.3f}: {result['ratio']:4.1f} times, "
        f"{result['ratio_of_cpu_time']:4.1f} by CPU time; {result['part_of_roofline']:4.0%} of the roofline; "
        f"difference {difference:.1e}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
