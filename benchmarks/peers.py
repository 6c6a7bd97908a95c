"""How good the products of other programs are, beside ours: by Wald's protocol, of the same files.

    python benchmarks/peers.py SCENE... [--manifest FILE] [--ratio 4] [--bands blue,green,red,nir] [--sensor generic]
        [--coregister auto] [--models auto brovey mtf-glp-fs] [--json FILE]

Scenes are folders, as `pansharpen eval` takes them, and are degraded as it does; PAN and MS of each are written as
GeoTIFFs of whole DN. Every program makes its product of these files, with its own defaults: `gdal_pansharpen.py`
(weighted Brovey), Orfeo ToolBox's BundleToPerfectSensor (RCS, LMVM, Bayes) and `oty sharpen` (Gram-Schmidt), those that
are on the PATH, and `pansharpen run`. A table shows how near the products come to the truth, and the seconds of whole
processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from pansharpen_cli.evaluation import tables
from pansharpen_cli.evaluation.assessment import Measures, measure
from pansharpen_cli.evaluation.sources import Source, Terms, gather
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.inputs.coregistration import parse

MEASURES = Measures(("ERGAS", "SAM", "Q2n"))
LARGEST = 2**16 - 1
OTB_MEMORY = 1024
"""MiB that Orfeo ToolBox may take; it asks to be told."""

Command = list[str | Path]


def commands(
    pan: Path, ms: Path, output: Path, creation: Mapping[str, str], threads: int, overviews: bool = False
) -> dict[str, Command]:
    """What has other programs make `output`, GeoTIFF of uint16 with these `creation` options, of a pair: by name, those
    that are installed. Only oty makes overviews, and takes the threads it likes."""
    found: dict[str, Command] = {}
    options = [f"{name}={value}" for name, value in creation.items()]
    if gdal := shutil.which("gdal_pansharpen.py"):  # a file of the system's Python, not of this one
        given = [part for option in (*options, f"NUM_THREADS={threads}") for part in ("-co", option)]
        found["gdal"] = [gdal, "-q", "-threads", str(threads), "-r", "cubic", *given, pan, ms, output]
    if otb := shutil.which("otbcli_BundleToPerfectSensor"):
        given = [f"&gdal:co:{option}" for option in (*options, f"NUM_THREADS={threads}")]
        for method in ("rcs", "lmvm", "bayes"):
            found[f"otb-{method}"] = [
                "env", f"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS={threads}", otb, "-inp", pan, "-inxs", ms,
                "-method", method, "-ram", str(OTB_MEMORY), "-out", f"{output}?{''.join(given)}", "uint16",
            ]  # fmt: skip
    if oty := shutil.which("oty"):
        given = [part for option in options for part in ("-co", option)]
        found["oty"] = [
            oty, "sharpen", "-p", pan, "-ms", ms, "-of", output, "-o", "-bo" if overviews else "-nbo", *given,
        ]  # fmt: skip
    return found


def written(scene: ReducedScene, folder: Path) -> tuple[Path, Path]:
    """PAN and MS of a task as files, on the same ground."""
    pair = folder / "pan.tif", folder / "ms.tif"
    for path, image, pixel in zip(pair, (scene.pan, scene.ms), (1, scene.ratio), strict=True):
        with rasterio.open(
            path, "w", driver="GTiff", count=len(image), height=image.shape[1], width=image.shape[2], dtype="uint16",
            crs="EPSG:32630", transform=Affine(pixel, 0, 500000, 0, -pixel, 4500000),
        ) as file:  # fmt: skip
            file.write(np.rint(image).clip(0, LARGEST).astype(np.uint16))
            if path.name == "ms.tif":
                file.descriptions = scene.band_names
    return pair


def product(command: Command, output: Path) -> tuple[npt.NDArray[np.float32], float]:
    """The HRMS (bands, H, W) that a process makes, and its seconds."""
    output.unlink(missing_ok=True)
    began = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed: {done.stdout}{done.stderr}")
    with rasterio.open(output) as file:
        return file.read(out_dtype=np.float32), seconds


def compare(sources: Sequence[Source], models: Sequence[str]) -> tables.Comparison:
    """Every program's products of every scene."""
    results: dict[str, list[tables.Result]] = defaultdict(list)
    for source in sources:
        scene = source.load()
        assert isinstance(scene, ReducedScene)
        with tempfile.TemporaryDirectory() as folder:
            (pan, ms), output = written(scene, Path(folder)), Path(folder) / "output.tif"
            ways = commands(pan, ms, output, {"TILED": "YES"}, os.cpu_count() or 1)
            ours: Command = [sys.executable, "-m", "pansharpen_cli", "run", pan, ms, "-o", output, "-q"]
            for name, command in (ways | {name: [*ours, "--model", name] for name in models}).items():
                hrms, seconds = product(command, output)
                scores = measure(scene, hrms, source.sensor, MEASURES)
                values = {metric: score.value for metric, score in scores.items()}
                results[name].append(tables.Result(values, seconds, scene.valid.size / 1e6))
    return tables.Comparison([source.name for source in sources], MEASURES.metrics, results)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--ratio", type=int)
    parser.add_argument("--bands", type=lambda text: text.split(","))
    parser.add_argument("--sensor", default="generic")
    parser.add_argument("--coregister", type=parse)
    parser.add_argument("--models", nargs="+", default=["auto", "brovey", "mtf-glp-fs"])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    terms = Terms(ratio=chosen.ratio, bands=chosen.bands, sensor=chosen.sensor, coregister=chosen.coregister)
    comparison = compare(gather(chosen.scenes, chosen.manifest, None, terms), chosen.models)
    print(tables.as_text(comparison))
    if chosen.json:
        chosen.json.write_text(json.dumps(tables.as_dict(comparison), indent=2))


if __name__ == "__main__":
    main()
