"""onnxruntime and what it can run on here. It falls back to the CPU without a word; here a provider works or it says
why it does not.

Its telemetry, on by default since 1.29, is switched off before it is loaded, unless the environment says otherwise.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import io
import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pansharpen_cli.errors import DeviceError, ModelError
from pansharpen_cli.system.concurrency import cores

log = logging.getLogger(__name__)

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
"""onnxruntime's name of a device."""

PROBE = base64.b64decode(
    "CAo6ZwoPCgF4CgF3EgF5IgRDb252EgVwcm9iZSoTCAEIAQgBCAEQAUIBd0oEAAAAQFobCgF4EhYKFAgBEhAKAggBCgIIAQoCCAIKAggCYhsKAXkS"
    "FgoUCAESEAoCCAEKAggBCgIIAgoCCAJCBAoAEBQ="
)
"""A model of one node: x (1, 1, 2, 2) convolved with [[2]]. Only the provider that is asked for may run it."""

SILENT = 4
CUDA_LIBRARIES = {12: ("cudart.so.12", "cublas.so.12", "curand.so.10", "cufft.so.11", "cudnn.so.9")} | {
    13: ("cudart.so.13", "cublas.so.13", "curand.so.10", "cufft.so.12", "cudnn.so.9")
}
"""What onnxruntime loads for CUDA, by the major version it was built for."""
TENSORRT_LIBRARIES = ("nvinfer.so.10", "nvonnxparser.so.10")


@cache
def onnxruntime() -> Any:
    """The package, loaded once, with its telemetry and its chatter off. Raises DeviceError if it cannot be loaded."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as ort

        ort.set_default_logger_severity(SILENT)
    except (ImportError, AttributeError) as error:  # an empty module is left where one of two packages was removed
        raise DeviceError(f"onnxruntime cannot be loaded ({error}); install it again: {_advice()}") from error
    return ort


def packages() -> dict[str, str]:
    """The onnxruntime packages that are installed, with their versions; more than one hide each other."""
    names = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions() if d.name}
    return {name: version for name, version in sorted(names.items()) if re.fullmatch(r"onnxruntime(-\w+)?", name)}


@dataclass(frozen=True)
class Place:
    """Where sessions run: a provider that was found to work, on its device `index`, with `threads` of the CPU."""

    kind: str = "cpu"
    index: int = 0
    threads: int = 1

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """The provider, and after it those that take what it cannot."""
        cuda = {
            "device_id": str(self.index),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search would begin anew for every shape of tile
            "use_tf32": "0",
        }
        chain = {"tensorrt": [(TENSORRT, {"device_id": str(self.index)}), (CUDA, cuda)], "cuda": [(CUDA, cuda)]}
        return [*chain.get(self.kind, []), (CPU, {})]


def place(name: str, threads: int = 0) -> Place:
    """ "auto", "cpu", "cuda", "cuda:N", "tensorrt" or "tensorrt:N" as a place that works; "auto" tries CUDA first.

    `threads` of the CPU, 0: as many as there are. Raises DeviceError with the reason rather than taking another one.
    """
    threads = threads or cores()
    match = re.fullmatch(r"(auto|cpu|cuda|tensorrt)(?::(\d{1,4}))?", name)
    if match is None or (match[1] in ("auto", "cpu") and match[2]):
        raise DeviceError(f"--device {name} is unknown to onnxruntime; it takes auto, cpu, cuda:N or tensorrt:N")
    if match[1] == "auto":
        reason = obstacle("cuda", 0)
        log.info("onnxruntime runs on the %s", "GPU (CUDA)" if reason is None else f"CPU ({reason})")
        return Place("cpu" if reason else "cuda", 0, threads)
    index = int(match[2] or 0)
    if reason := obstacle(match[1], index):
        raise DeviceError(f"--device {name} cannot be used by onnxruntime here ({reason}); --device cpu always can")
    return Place(match[1], index, threads)


def obstacle(kind: str, index: int = 0) -> str | None:
    """Why sessions cannot run on "cpu", "cuda" or "tensorrt" here, in a few words; None: a tiny one has run there."""
    ort = onnxruntime()
    if PROVIDERS[kind] not in ort.get_available_providers():
        return _missing_provider(kind)
    if kind != "cpu" and (reason := _gpu_obstacle(index) or _mismatch() or _missing_library(kind)):
        return reason
    return _probe(Place(kind, index))


def session(content: bytes, where: Place, folder: Path | None = None) -> Any:
    """An InferenceSession of a checked file on `where`; `folder` may hold its external data.

    Raises ModelError if onnxruntime cannot make one of it, DeviceError if it would run elsewhere.
    """
    ort = onnxruntime()
    options = _options(where.threads)
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        made = ort.InferenceSession(content, options, providers=where.providers, enable_fallback=0)
    except Exception as error:  # it raises many kinds, none of them documented
        raise ModelError(f"onnxruntime cannot load it ({brief(error)})") from error
    used = made.get_providers()[0]
    if used != PROVIDERS[where.kind]:
        raise DeviceError(
            f"onnxruntime took {used} instead of {PROVIDERS[where.kind]}; --device cpu always can be used"
        )
    log.debug("onnxruntime session on %s", used)
    return made


def brief(error: Exception) -> str:
    """The first line of an onnxruntime message, without its codes and places in its sources."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
    return re.sub(r"\S*/\S+\.(cc|h):\d+ (.*\) )?", "", text)[:200]


def _options(threads: int) -> Any:
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    options.enable_cpu_mem_arena = False  # it saves a tenth of the time, and doubles the memory
    # bytes that look like ONNX to the check must not be taken for its other format, which was not checked
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _missing_provider(kind: str) -> str:
    """The reason why onnxruntime does not offer one."""
    found = packages()
    if len(found) > 1:
        return f"{' and '.join(found)} are both installed and hide each other; uninstall them all, then {_advice()}"
    return f"{' '.join(found) or 'this onnxruntime'} is built without {kind.upper()}; uninstall it, then {_advice()}"


def _advice() -> str:
    return "pip install 'onnxruntime-gpu[cuda,cudnn]'"


def _gpu_obstacle(index: int) -> str | None:
    """What the NVIDIA driver says of GPU number `index`; None: it is there."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "there is no NVIDIA GPU"
    return None if index < count.value else f"there are {count.value} GPUs, counted from 0"


def _mismatch() -> str | None:
    """Of the CUDA that onnxruntime was built for: too new for the driver, or another major version than torch's."""
    wanted = built_for()
    version = ctypes.c_int(0)
    driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    if wanted and not driver.cuDriverGetVersion(ctypes.byref(version)) and version.value // 1000 < wanted:
        have = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return f"onnxruntime is built for CUDA {wanted}, the driver serves {have} at most"
    torchs = torch_cuda()
    if wanted and torchs and int(torchs.split(".")[0]) != wanted:
        return f"onnxruntime is built for CUDA {wanted} and torch for {torchs}; install packages of one CUDA"
    return None


def built_for() -> int:
    """The major version of CUDA that onnxruntime was built for; 0: for none."""
    try:
        from onnxruntime.capi import build_and_package_info as built
    except ImportError:
        return 0
    return int((getattr(built, "cuda_version", "") or "0").split(".")[0])


def torch_cuda() -> str | None:
    """The version of CUDA that the installed torch was built for, without loading it; None: for none, or no torch."""
    try:
        version = metadata.distribution("torch").locate_file("torch/version.py")
        found = re.search(r"^cuda\b.*?= ['\"](\d+\.\d+)", Path(str(version)).read_text(encoding="utf-8"), re.MULTILINE)
    except (metadata.PackageNotFoundError, OSError):
        return None
    return found[1] if found else None


def _missing_library(kind: str) -> str | None:
    """Loads what the provider needs, as onnxruntime documents it; says what could not be found."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints there what it does not find
        onnxruntime().preload_dlls()
    if os.name == "nt":
        return None  # only the probe can tell
    wanted = CUDA_LIBRARIES.get(built_for(), ()) + (TENSORRT_LIBRARIES if kind == "tensorrt" else ())
    missing = [f"lib{name}" for name in wanted if not _loads(f"lib{name}")]
    return f"{', '.join(missing)} cannot be loaded; {_advice()}" if missing else None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _probe(where: Place) -> str | None:
    """Run a tiny session on this provider alone; why it failed, or None."""
    options = _options(1)
    providers = where.providers[:1]
    if where.kind != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        tiny = onnxruntime().InferenceSession(PROBE, options, providers=providers, enable_fallback=0)
        (doubled,) = tiny.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    except Exception as error:  # it raises many kinds, none of them documented
        return f"its first session failed: {brief(error)}"
    return None if np.array_equal(doubled, np.full((1, 1, 2, 2), 2)) else "its first session gave wrong numbers"
