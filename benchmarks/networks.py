"""How fast each network sharpens a tile, beside the same network as its paper writes it.

    python benchmarks/networks.py [--device cpu|cuda] [--threads 1] [--tile 512] [--repeat 5] [--json FILE]

Each measurement has a fresh process, and ours and the paper's take turns. Ours runs as `pansharpen run` does;
the paper's in torch's default settings. Printed are the median MPix/s (PAN pixels) of wall time and of CPU time, which
says more on a busy machine, their ratios, and which part of this machine's matrix product rate ours reaches. Results of
both are compared, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CASES = {"adknet": (8, 44), "premix-b": (4, 151), "premix-h": (4, 534), "dmanet": (8, 460)}
"""Networks by name: bands, and thousand multiply-adds a PAN pixel."""
RATIO = 4


def measure(name: str, way: str, device: str, threads: int, tile: int) -> dict[str, Any]:
    """Seconds for one tile, wall and CPU, and a digest of the result; runs in a process of its own."""
    import numpy as np
    import torch

    from pansharpen_cli.backends.torch_backend import TorchBackend
    from pansharpen_cli.networks import build

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    bands = CASES[name][0]
    network = build(name, bands, RATIO, {}).eval()
    pan, ms = torch.rand(1, 1, tile, tile), torch.rand(1, bands, tile // RATIO, tile // RATIO)
    statistics_ = network.observe(pan[..., :64, :64], ms[..., :16, :16])
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

        def sharpen() -> Any:
            return backend(pan[0].numpy(), ms[0].numpy())

    hrms = sharpen()
    runs = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        sharpen()
        runs.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (min(column) for column in zip(*runs, strict=True))
    return {"wall": wall, "cpu": cpu, "sample": np.asarray(hrms[:, ::37, ::41], float).ravel()[:500].tolist()}


def matrix_rate(threads: int) -> float:
    """Multiply-adds a second of a large matrix product, single precision."""
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
    rate = matrix_rate(arguments.threads)
    results = {name: compare(name, arguments.repeat, settings, rate) for name in arguments.networks}
    if arguments.json:
        arguments.json.write_text(json.dumps({"matrix_rate": rate, "networks": results}, indent=2))


def compare(name: str, repeat: int, settings: tuple[str, int, int], rate: float) -> dict[str, float]:
    """Both ways in turn, printed as one line."""
    device, threads, tile = settings
    command = [sys.executable, __file__, "--device", device, "--threads", str(threads), "--tile", str(tile)]
    runs: dict[str, list[dict[str, Any]]] = {"papers": [], "ours": []}
    for _ in range(repeat):
        for way, done in runs.items():
            output = subprocess.run([*command, "--measure", name, way], capture_output=True, text=True, check=True)
            done.append(json.loads(output.stdout))
    pixels = tile**2 / 1e6
    speed = {
        (way, clock): statistics.median(pixels / run[clock] for run in done)
        for way, done in runs.items()
        for clock in ("wall", "cpu")
    }
    difference = max(abs(a - b) for a, b in zip(runs["ours"][0]["sample"], runs["papers"][0]["sample"], strict=True))
    result = {
        "ours": speed["ours", "wall"],
        "papers": speed["papers", "wall"],
        "ratio": speed["ours", "wall"] / speed["papers", "wall"],
        "ratio_of_cpu_time": speed["ours", "cpu"] / speed["papers", "cpu"],
        "part_of_matrix_rate": speed["ours", "cpu"] * 1e6 * CASES[name][1] * 1e3 / rate,
        "largest_difference": difference,
    }
    print(
        f"{name:10} {result['ours']:6.3f} MPix/s, the paper's {result['papers']:6.3f}: {result['ratio']:4.1f} times, "
        f"{result['ratio_of_cpu_time']:4.1f} by CPU time; {result['part_of_matrix_rate']:4.0%} of the matrix rate; "
        f"difference {difference:.1e}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
