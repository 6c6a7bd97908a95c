"""What the kernels for a GPU are made of, without one, and how long they take, with one.

    python benchmarks/kernels.py NETWORK [--bands 4] [--tile 256] [--architecture 90] [--json FILE]
    python benchmarks/kernels.py NETWORK --time [--bands 4] [--tile 1024] [--json FILE]

Every kernel that a tile needs is compiled for that architecture (90 is Hopper) by Triton and the assembler that comes
with it. Printed are how often it is launched, the instructions of a warp for each PAN pixel, which bound its speed from
above (of both ways where a kernel has one for the border and one for the rest), registers of a thread, bytes that it
spills, and bytes of shared memory. With --time each call is measured, with the shape that is set and with others.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pansharpen_cli.networks import adknet, build, dmaconv, kernels, layers, premix
from pansharpen_cli.networks.kernels import adaptive, convolution, focus, mixing
from pansharpen_cli.networks.kernels.convolution import Shape

RATIO = 4
CALLS = ("convolve", "convolve_normalised", "filter_pixels", "exchange", "weigh", "overwrite")
MODULES = [adaptive, convolution, focus, mixing]
OTHERS = [
    Shape(pixels, deep, warps, stages)
    for pixels, warps in ((32, 2), (64, 2), (64, 4), (128, 2), (128, 4), (128, 8), (256, 8))
    for deep in (16, 32, 64)
    for stages in (1, 2, 3)
]
"""Shapes of a convolution that are tried."""


def main() -> None:
    """Print one line for each kernel, or for each call."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network")
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    network = build(arguments.network, arguments.bands, RATIO, {}).eval()
    if arguments.time:
        rows = list(timed(network, arguments.tile or 1024))
    else:
        rows = list(compiled(network, arguments.tile or 256, arguments.architecture))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def compiled(network: Any, tile: int, architecture: int) -> Iterator[dict[str, Any]]:
    """Of every kernel that a tile is made by, what the assembler tells."""
    launches: Counter[tuple[Any, ...]] = Counter()

    class Recorded:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *arguments, **how: launches.update([launch(self.kernel, grid, arguments, how)])

    frozen, pan, ms = prepared(network, tile)
    with ExitStack() as stack:
        for module in MODULES:
            found = {name: Recorded(value) for name, value in vars(module).items() if launched(name, value)}
            stack.enter_context(patch.multiple(module, **found))
        stack.enter_context(patched())
        sharpen(network, pan, ms, frozen)
    rows = [{"launches": count, **measured(*key, tile, architecture)} for key, count in launches.items()]
    for row in sorted(rows, key=lambda row: -row["launches"] * row["instructions"]):
        print("{launches:3} x {instructions:7.2f} {registers:4} {spilled:4} {shared:6}  {kernel}".format(**row))
        yield row
    print(f"{sum(row['launches'] * row['instructions'] for row in rows):.0f} instructions a PAN pixel")


def launched(name: str, value: Any) -> bool:
    """A function of Triton may be a kernel; those that are not are never launched."""
    return name.startswith("_") and isinstance(value, triton.JITFunction)


def launch(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], how: dict[str, int]) -> tuple[Any, ...]:
    """A launch without its data: the kernel's name, programs, types, constants, what is a multiple of 16, and warps."""
    types, constants, even = {}, {}, []
    for parameter, value in zip(kernel.params, arguments, strict=True):
        name = parameter.name
        if parameter.is_constexpr or (type(value) is int and value == 1 and not parameter.do_not_specialize):
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            types[name] = {torch.float16: "*fp16", torch.int32: "*i32"}.get(value.dtype, "*fp32")
            even.append(name)
        else:
            types[name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, int) and value % 16 == 0 and not parameter.do_not_specialize:
                even.append(name)
    options = (how.get("num_warps", 4), how.get("num_stages", 3))
    return kernel.__name__, math.prod(grid), tuple(types.items()), tuple(constants.items()), tuple(even), options


def measured(
    name: str, programs: int, types: Any, constants: Any, even: Any, options: tuple[int, int], tile: int, target: int
) -> dict[str, Any]:
    """What the assembler tells of one kernel."""
    kernel = next(vars(module)[name] for module in MODULES if name in vars(module))
    place = {argument: index for index, argument in enumerate(kernel.arg_names)}
    known = dict(constants)
    source = ASTSource(
        kernel,
        dict(types),
        {(place[argument],): value for argument, value in constants},
        {(place[argument],): [["tt.divisibility", 16]] for argument in even},
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", target, 32), options={"num_warps": options[0], "num_stages": options[1]}
    )
    usage, code = dump("cuobjdump", "-res-usage", made), dump("nvdisasm", "-c", made)
    sizes = {key: known[key] for key in ("inputs", "channels", "size", "stride", "together", "ratio") if key in known}
    parts = -(-known["inputs"] // known["deep"]) if "deep" in known else 1
    turns = known.get("steps", known.get("size", 1) * parts)
    return {
        "kernel": f"{name} {sizes}",
        "instructions": instructions(code, turns) * options[0] * programs / tile**2,
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        "spilled": int(re.search(r"STACK:(\d+)", usage)[1]),  # type: ignore[index]
        "shared": made.metadata.shared,
    }


def instructions(code: str, turns: int) -> int:
    """Of one warp, if the first loop is gone through so often."""
    labels: dict[str, int] = {}
    count, looped = 0, None
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = count
        elif re.match(r"\s+/\*[0-9a-f]{4,}\*/", line):
            count += 1
            back = re.search(r"BRA.*\((\.L_x_\d+)\)", line)
            if looped is None and back and labels.get(back[1], count) < count - 1:
                looped = count - labels[back[1]]
    return count + (looped or 0) * (turns - 1)


def dump(tool: str, option: str, made: Any) -> str:
    """What a tool of the assembler says of a compiled kernel."""
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        output = subprocess.run([folder / tool, option, file.name], capture_output=True, text=True, check=True)
    return output.stdout + output.stderr


def timed(network: Any, tile: int) -> Iterator[dict[str, Any]]:
    """Of every call of a tile, milliseconds, and those of the three fastest shapes if it is a convolution."""
    calls: dict[str, list[Any]] = {}

    def record(name: str) -> Any:
        call = getattr(kernels, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            what = f"{name} " + " ".join(str(tuple(a.shape)) for a in arguments if isinstance(a, torch.Tensor))
            what += "".join(f" {key}" for key, value in options.items() if value is not None)
            calls.setdefault(what, [0, call, arguments, options])[0] += 1
            return call(*arguments, **options)

        return recorded

    network = network.to("cuda")
    frozen, pan, ms = prepared(network, tile, "cuda")
    with patch.multiple(kernels, **{name: record(name) for name in CALLS}):
        sharpen(network, pan, ms, frozen)
    rows = []
    for what, (count, call, arguments, options) in calls.items():
        row = {"calls": count, "what": what, "ms": milliseconds(call, arguments, options)}
        if what.startswith("convolve "):
            row["others"] = sorted(tried(call, arguments, options))[:3]
        print(f"{count:3} x {row['ms']:7.4f} ms  {what}  {row.get('others', '')}", flush=True)
        rows.append(row)
        yield row
    whole = milliseconds(sharpen, (network, pan, ms, frozen), {})
    print(f"{sum(row['calls'] * row['ms'] for row in rows):.2f} of {whole:.2f} ms a tile")


def milliseconds(call: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> float:
    """Of one call, median."""
    with torch.inference_mode():
        return float(
            triton.testing.do_bench(lambda: call(*arguments, **options), warmup=5, rep=20, return_mode="median")
        )


def tried(call: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[tuple[float, Shape]]:
    """Milliseconds of a convolution by shape, as far as a shape can be compiled."""
    for shape in OTHERS:
        every = {name: dict.fromkeys(getattr(convolution, name), shape) for name in ("SHAPES", "IN_ROWS")}
        try:
            with patch.multiple(convolution, **every):
                yield milliseconds(call, arguments, options), shape
        except Exception as error:  # too much shared memory, or nothing that can be multiplied
            print(shape, str(error).partition("\n")[0][:80], file=sys.stderr)


def prepared(network: Any, tile: int, device: str = "cpu") -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Global values, PAN and MS of random pixels."""
    torch.manual_seed(0)
    pan, ms = torch.rand(1, 1, tile, tile), torch.rand(1, network.bands, tile // RATIO, tile // RATIO)
    pan, ms = pan.to(device), ms.to(device)
    with torch.inference_mode():
        return network.observe(pan[..., :64, :64], ms[..., :16, :16]), pan, ms


def sharpen(network: Any, pan: torch.Tensor, ms: torch.Tensor, frozen: Any) -> None:
    """One tile."""
    with torch.inference_mode():
        network(pan, ms, frozen)


@contextmanager
def patched() -> Iterator[None]:
    """The kernels of a GPU are called on the CPU."""
    with (
        patch.object(layers, "on_gpu", lambda image: kernels),
        patch.object(adknet, "on_gpu", lambda image: kernels),
        patch.object(dmaconv, "on_gpu", lambda image: kernels),
        patch.object(adknet, "compiled_for", lambda image: kernels),
        patch.object(premix, "compiled_for", lambda image: kernels),
        patch.object(layers, "on_cpu", lambda image, module: None),
        patch.object(premix, "on_cpu", lambda image, module: None),
    ):
        yield


if __name__ == "__main__":
    main()
