"""What this machine can do, and what is wrong with it: every answer is tried, none is looked up."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from pansharpen_cli import __version__, zoo
from pansharpen_cli.backends import onnx_runtime
from pansharpen_cli.errors import DeviceError, ModelError, PansharpenError
from pansharpen_cli.system.concurrency import cores
from pansharpen_cli.system.files import digest

State = Literal["ok", "absent", "wrong"]
"""Works; is not there, which is no fault; should work and does not."""

PACKAGES = ("torch", "onnxruntime", "rasterio", "numpy", "pyproj", "safetensors", "numba", "onnx", "onnxscript")
LITTLE_MEMORY, LITTLE_DISK = 2 * 2**30, 2**30
"""Bytes below which a run may fail: a network needs some hundred MB for every tile at work."""


@dataclass(frozen=True)
class Finding:
    """One thing that was examined. `topic` groups them; `detail` is a version, a size, or the reason."""

    topic: str
    name: str
    state: State
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what was `asked` for, if anything."""

    findings: tuple[Finding, ...]
    asked: Finding | None = None

    def check(self) -> None:
        """Raises DeviceError if what was asked for cannot work."""
        if self.asked and self.asked.state != "ok":
            raise DeviceError(self.asked.detail)

    def as_dict(self) -> dict[str, object]:
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "asked": asdict(self.asked) if self.asked else None,
        }

    def as_text(self) -> str:
        """A table for people, one finding a line."""
        marks = {"ok": " ", "absent": "-", "wrong": "!"}
        shown = [*self.findings, *([self.asked] if self.asked else [])]
        topics, names = (max(len(getattr(found, part)) for found in shown) for part in ("topic", "name"))
        lines, before = [], ""
        for found in shown:
            topic = "" if found.topic == before else found.topic
            lines.append(f"{marks[found.state]} {topic:{topics}}  {found.name:{names}}  {found.detail}".rstrip())
            before = found.topic
        wrong = sum(found.state == "wrong" for found in shown)
        told = f"{wrong} thing{' is' if wrong == 1 else 's are'} wrong (!)" if wrong else "nothing is wrong"
        return "\n".join([*lines, "", told])


def examine(device: str | None = None, backend: str = "torch") -> Diagnosis:
    """Look at this machine; with a `device`, also whether `run --backend BACKEND --device DEVICE` would have it."""
    parts = (_versions, _devices, _conflicts, _geodata, _room, _models)
    findings = tuple(finding for part in parts for finding in part())
    return Diagnosis(findings, _asked(device, backend) if device else None)


def _asked(device: str, backend: str) -> Finding:
    name = f"--backend {backend} --device {device}"
    try:
        if backend == "onnx":
            where = str(onnx_runtime.place(device))
        else:
            from pansharpen_cli.backends import torch_backend

            where = str(torch_backend.device(device))
    except PansharpenError as error:
        return Finding("asked for", name, "wrong", str(error))
    return Finding("asked for", name, "ok", where)


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "pansharpen", "ok", __version__)
    yield Finding("versions", "python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    installed = {(d.name or "").lower(): d.version for d in metadata.distributions()}
    for name in PACKAGES:
        found = [f"{key} {version}" for key, version in installed.items() if key == name or key.startswith(f"{name}-")]
        needed = name not in ("onnx", "onnxscript", "numba")
        detail = ", ".join(found) or ("is needed and not installed" if needed else "not installed")
        yield Finding("versions", name, "ok" if found else "wrong" if needed else "absent", detail)


def _devices() -> Iterator[Finding]:
    yield Finding("devices", "cpu", "ok", f"{cores()} cores for this process")
    torchs = _torch_cuda()
    yield torchs
    if torchs.state == "ok":
        yield _kernels()
    for kind in onnx_runtime.PROVIDERS:
        try:
            reason = onnx_runtime.obstacle(kind)
        except DeviceError as error:
            reason = str(error)
        state: State = "ok" if reason is None else "wrong" if kind == "cpu" else "absent"
        yield Finding("devices", f"onnxruntime {kind}", state, reason or "a session ran")


def _torch_cuda() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("devices", "torch", "wrong", f"torch cannot be loaded ({error})")
    if not torch.cuda.is_available():
        why = "no GPU or driver is found" if torch.version.cuda else "this torch is built for the CPU alone"
        return Finding("devices", "torch cuda", "absent", why)
    try:
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:
        return Finding("devices", "torch cuda", "wrong", str(error).splitlines()[0])
    return Finding("devices", "torch cuda", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")


def _kernels() -> Finding:
    """Without ours torch's own serve, which is no fault."""
    import torch

    from pansharpen_cli.networks.layers import gpu_kernels

    try:
        gpu_kernels(torch.device("cuda"))
    except (DeviceError, RuntimeError) as error:
        return Finding("devices", "our kernels", "absent", str(error).splitlines()[0])
    return Finding("devices", "our kernels", "ok", "convolutions are right")


def _conflicts() -> Iterator[Finding]:
    found = onnx_runtime.packages()
    told = ", ".join(f"{name} {version}" for name, version in found.items()) or "none"
    if len(found) > 1:
        told += ": they hide each other; uninstall all, then install one"
    yield Finding("conflicts", "onnxruntime packages", "ok" if len(found) == 1 else "wrong", told)
    ours, torchs = onnx_runtime.built_for(), onnx_runtime.torch_cuda()
    if not ours or not torchs:
        yield Finding("conflicts", "CUDA of torch and onnxruntime", "absent", "not both are built for CUDA")
        return
    same = int(torchs.split(".")[0]) == ours
    told = f"torch {torchs}, onnxruntime {ours}" + ("" if same else ": only one of them will find its libraries")
    yield Finding("conflicts", "CUDA of torch and onnxruntime", "ok" if same else "wrong", told)


def _geodata() -> Iterator[Finding]:
    yield _tried("geodata", "GDAL", _gdal)
    yield _tried("geodata", "PROJ", _proj)


def _gdal() -> str:
    import rasterio
    from rasterio.crs import CRS
    from rasterio.drivers import raster_driver_extensions

    CRS.from_epsg(32630).to_wkt()  # needs PROJ's own database
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=16, height=16, count=1, dtype="uint8"):
            pass
        with memory.open():
            pass
    return f"{rasterio.__gdal_version__}, {len(raster_driver_extensions())} extensions; EPSG codes are found"


def _proj() -> str:
    import pyproj

    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32630", always_xy=True).transform(-3.0, 0.0)
    if abs(x - 500_000) > 1 or abs(y) > 1:
        raise RuntimeError(f"a point of known place came out at {x}, {y}")
    return f"{pyproj.proj_version_str}, data in {pyproj.datadir.get_data_dir()}"


def _tried(topic: str, name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(topic, name, "ok", attempt())
    except Exception as error:  # whatever a broken installation throws
        return Finding(topic, name, "wrong", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _room() -> Iterator[Finding]:
    memory = free_memory()
    if memory is not None:
        yield Finding("room", "memory", "ok" if memory > LITTLE_MEMORY else "wrong", f"{memory / 2**30:.1f} GiB free")
    for name, folder in (("working folder", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
        detail = f"{free / 2**30:.1f} GiB free in {folder}" + ("" if writable else ", which cannot be written to")
        yield Finding("room", name, "ok" if writable and free > LITTLE_DISK else "wrong", detail)


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine, and of its container; None where nobody tells."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        return None
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
        except (OSError, ValueError):  # not that kind of container, or "max"
            continue
    return max(0, min(found)) if found else None


def _models() -> Iterator[Finding]:
    found = zoo.models()
    if not found:
        yield Finding("models", "zoo", "wrong", f"none in {', '.join(map(str, zoo.folders()))}")
    for model in found:
        given = digest(model.folder / zoo.WEIGHTS)
        if given != model.spec.weights_sha256:
            yield Finding("models", model.name, "wrong", "its weights are not those that its spec.json describes")
            continue
        try:
            exported = ", exported" if model.onnx() else ""
        except ModelError as error:
            yield Finding("models", model.name, "wrong", str(error))
            continue
        yield Finding("models", model.name, "ok", f"weights {given[:12]}{exported}")
