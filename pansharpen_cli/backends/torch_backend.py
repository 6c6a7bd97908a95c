"""A network in torch, on the CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from threading import Lock, local

import numpy as np
import numpy.typing as npt
import torch

from pansharpen_cli.backends.backend import MOST_AT_ONCE
from pansharpen_cli.backends.halves import in_halves
from pansharpen_cli.errors import DeviceError
from pansharpen_cli.imaging.tiling import Pixels, Reach
from pansharpen_cli.networks.layers import compiled_for, grid_of
from pansharpen_cli.networks.network import Network, SceneStatistics
from pansharpen_cli.system import memory

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]

ON_A_GPU = 2
"""Tiles that a GPU has at the same time."""
_launching = Lock()
"""What torch's convolutions may do on a GPU is said for all threads alike."""
_of_thread = local()


def device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:N" as a device that works. Raises DeviceError rather than taking another one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        reason = "torch knows no such device" if reason.startswith("Expected one of") else reason
        raise DeviceError(f"--device {name} cannot be used here ({reason}); --device cpu always can") from error
    return chosen


def load(name: str) -> None:
    """What networks need on the device called so: itself, which a GPU takes seconds for, and compiled loops. Raises
    DeviceError."""
    with suppress(torch.OutOfMemoryError), torch.inference_mode():  # who needs more memory tells
        compiled_for(torch.zeros(1, device=device(name)))


class TorchBackend:
    """Sharpens tiles with a network; its global values are frozen by `observe`.

    Those are its `statistics`. `threads` of the CPU (0: as torch likes) rather sharpen a tile each than one tile
    together: they would wait for each other at every layer. A GPU computes one tile while others are on their way.
    """

    def __init__(self, network: Network, crop: int, where: torch.device, threads: int = 0) -> None:
        on_cpu = where.type == "cpu"
        if on_cpu:
            memory.keep()
        if threads:
            torch.set_num_threads(threads)
        on_cuda = ON_A_GPU if where.type == "cuda" else 1
        self.at_once = min(torch.get_num_threads(), MOST_AT_ONCE) if on_cpu else on_cuda
        self._network = network.to(where).eval()
        self._where = where
        self.statistics: SceneStatistics = {}
        self._too_big: float = inf  # PAN pixels of a tile
        self.crop: int | None = crop
        self.reach = Reach(network.halo, network.alignment, network.multiple_of)
        if on_cpu:
            grid, margin = grid_of(network)
            self.reach = replace(self.reach, grid=grid * network.multiple_of, margin=margin)

    def __setstate__(self, state: dict[str, object]) -> None:
        """In another process, which a cluster sent it to."""
        self.__dict__.update(state)
        if self._where.type == "cpu":
            memory.keep()
            torch.set_num_threads(self.at_once)

    def share(self, threads: int) -> None:
        torch.set_num_threads(max(1, torch.get_num_threads() // threads))  # of the calling thread

    def observe(self, tiles: Iterable[Pixels]) -> None:
        crops = [(torch.from_numpy(tile.pan), torch.from_numpy(tile.ms)) for tile in tiles]
        if not self._network.global_values:
            crops = crops[:1]
        pan, ms = (torch.stack(images).to(self._where) for images in zip(*crops, strict=True))
        try:
            with self._exact():
                self.statistics = self._network.observe(pan, ms)
            if self._where.type == "cuda":
                torch.cuda.synchronize(self._where)  # other streams are going to read them
        except RuntimeError as error:
            if not _exhausted(error):
                raise
            raise DeviceError(f"{self._memory} has too little free to observe the scene; free some") from error

    @torch.inference_mode()
    def __call__(self, pan: Float32, ms: Float32) -> Float32:
        """A tile that there is too little memory for is sharpened in halves, as are all of its size from then on."""
        if pan.size < self._too_big:
            try:
                return self._whole(pan, ms)
            except RuntimeError as error:
                if not _exhausted(error):
                    raise
            self._too_big = pan.size
            torch.cuda.empty_cache()
            log.warning(
                "%s has too little free for tiles of %d x %d pixels: they are cut in two", self._memory, *pan.shape[1:]
            )
        hrms = in_halves(self, pan, ms, self.reach)
        if hrms is None:
            raise DeviceError(f"{self._memory} has too little free even for {pan.shape[1]} x {pan.shape[2]} pixels")
        return hrms

    def _whole(self, pan: Float32, ms: Float32) -> Float32:
        images = [torch.from_numpy(image)[None] for image in (pan, ms)]
        if self._where.type != "cuda":
            images = [image.to(self._where) for image in images]
            hrms: Float32 = self._network(*images, self.statistics)[0].cpu().numpy()
            return hrms
        # a stream of its own, and memory that the GPU itself can reach: other tiles are computed meanwhile
        stream = _stream(self._where)
        with torch.cuda.stream(stream):
            images = [image.pin_memory().to(self._where, non_blocking=True) for image in images]
            with self._exact():
                made = self._network(*images, self.statistics)[0]
            there = torch.empty(made.shape, pin_memory=True)
            there.copy_(made, non_blocking=True)
            stream.synchronize()
        hrms = there.numpy()
        return hrms

    @property
    def _memory(self) -> str:
        gpu = self._where.type == "cuda"
        return f"The memory of {torch.cuda.get_device_name(self._where)}" if gpu else "This machine's memory"

    @contextmanager
    def _exact(self) -> Iterator[None]:
        """A GPU computes in float32 throughout, as a CPU does, and the same each time; by itself torch lets its
        convolutions keep ten bits of a factor (TF32)."""
        if self._where.type != "cuda":
            yield
            return
        how = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with _launching, how:
            yield


def _stream(gpu: torch.device) -> torch.cuda.Stream:
    """The stream of this thread."""
    streams: dict[str, torch.cuda.Stream] = _of_thread.__dict__
    if str(gpu) not in streams:
        streams[str(gpu)] = torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]
    return streams[str(gpu)]


def _exhausted(error: RuntimeError) -> bool:
    """True if torch found too little memory: for the CPU it has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
