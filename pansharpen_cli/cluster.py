"""Work done by the workers of a Dask cluster: whole scenes of a batch, or the tiles of one scene.

A worker computes what this process would, with the same code and the same frozen statistics, so pixels do not depend on
who sharpened them. Dask gives the work of a worker that died to another one.
"""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from threading import Lock
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from pansharpen_cli import __version__
from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.errors import AbsentError, DeviceError
from pansharpen_cli.imaging.tiling import Pixels, Tile
from pansharpen_cli.inputs.canvas import SceneCanvas

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")
Float32 = npt.NDArray[np.float32]

CONNECT = 10
"""Seconds within which a scheduler answers."""
WORKERS = 60
"""Seconds within which the first worker is there."""
AWAY = 60
"""Seconds that a scheduler, or all workers, may be away."""
LOOK = 0.05
"""Seconds between two looks at what is done."""
COUNT = 1
"""... and at how many workers there are."""

UNSPLIT = "what onnxruntime computes is not split: leave out --scheduler, or have torch compute a model with weights"
"""Of tiles by ONNX, for whom asks for it."""

TOGETHER = 4
"""Tiles that are sent to a worker as one task."""
ATTEMPTS = 3
"""... and how often, if they are lost."""

GPU = "GPU"
"""Resource of workers that have one."""


@dataclass(frozen=True)
class Lost:
    """Work that no worker finished, and why."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class Cluster:
    """A connection to the scheduler at `address`, for work that needs a `gpu` or does not."""

    def __init__(self, address: str, gpu: bool = False) -> None:
        self.address = address
        self._needs = {GPU: 1} if gpu else None
        self._workers = 0
        self._seen = self._next_look = 0.0

    def __enter__(self) -> Self:
        """Raises DeviceError if there is no scheduler, no worker, or none that can do the work."""
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise DeviceError("--scheduler needs Dask; install it with pip install 'pansharpen-cli[dask]'") from None
        _silence()
        try:
            self._client = self._connected()
        except (OSError, ValueError) as error:
            raise DeviceError(f"--scheduler {self.address} cannot be reached; is `dask scheduler` running?") from error
        try:
            self._check_workers()
        except BaseException:
            self._client.close()
            raise
        self._seen = monotonic()
        return self

    def _connected(self) -> Client:
        from distributed import Client

        return Client(self.address, timeout=CONNECT, set_as_default=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception):  # it may be gone
            self._client.close()

    def _check_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=WORKERS)
            versions = self._client.run(_version)
        except TimeoutError:
            raise DeviceError(
                f"--scheduler {self.address} has no worker; start some with `dask worker {self.address} --nthreads 1`"
            ) from None
        except ImportError as error:
            raise DeviceError(f"a worker of {self.address} lacks the package {error.name}; install it there") from error
        for worker, version in versions.items():
            if version != __version__:
                raise DeviceError(f"{worker} has pansharpen_cli {version}, not {__version__}; install that there")
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        if self._needs and not any(worker["resources"].get(GPU) for worker in workers):
            raise DeviceError(
                f"--scheduler {self.address} has no worker with a GPU; start it with `dask worker {self.address} "
                f"--nthreads 1 --resources GPU=1`, or give --device cpu"
            )

    def each(
        self, queue: deque[Item], work: Callable[[Item], Result], ahead: int = 1
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Every item of `queue` with what `work` makes of it, as they come; meanwhile items may be added or taken away.

        Each worker has up to `ahead` items at a time. Raises what `work` raises, and DeviceError if the scheduler stays
        away.
        """
        pending: dict[Future, Item] = {}
        try:
            while queue or pending:
                self._look()
                while queue and len(pending) < ahead * self._workers and self._client.status == "running":
                    item = queue.popleft()
                    pending[self._submit(work, item)] = item
                done = [future for future in pending if future.status != "pending"]
                for future in done:
                    yield pending.pop(future), _result(future)
                if not done:
                    sleep(LOOK)
        finally:
            with suppress(Exception):
                self._client.cancel(list(pending))

    def _look(self) -> None:
        """Count the workers, now and then. Raises DeviceError if there was no scheduler or no worker for too long."""
        if monotonic() < self._next_look:
            return
        try:
            if self._client.status == "closed":
                self._client = self._connected()
            self._workers = len(self._client.nthreads())
        except Exception:  # of many kinds: it is away
            self._workers = 0
        now = monotonic()
        self._next_look = now + COUNT
        if self._workers:
            self._seen = now
        elif now - self._seen > AWAY:
            raise DeviceError(f"--scheduler {self.address} or its workers are gone; start them and go on with --resume")

    def _submit(self, work: Callable[[Item], Result], item: Item) -> Future:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # a model goes with it
            return self._client.submit(_alone, work, item, resources=self._needs, pure=False)


@dataclass(frozen=True)
class Tiles:
    """Sharpens the tiles of a scene on a cluster, as `Sharpener.all` does here, but in any order."""

    cluster: Cluster

    def __call__(
        self, sharpener: Sharpener, canvas: SceneCanvas, tiles: Sequence[Tile]
    ) -> Iterator[tuple[Pixels, Float32]]:
        """Raises DeviceError if tiles are lost again and again, or the backend cannot be sent."""
        try:
            bench = pickle.dumps((sharpener, canvas))
        except (TypeError, pickle.PicklingError) as error:
            raise DeviceError(f"--scheduler cannot send this backend to workers; {UNSPLIT}") from error
        queue = deque(tuple(tiles[start : start + TOGETHER]) for start in range(0, len(tiles), TOGETHER))
        losses = Counter[tuple[Tile, ...]]()
        with _seeing_more():
            for group, found in self.cluster.each(queue, partial(_sharpened, bench), ahead=2):
                if not isinstance(found, Lost):
                    yield from found
                    continue
                losses[group] += 1
                if losses[group] == ATTEMPTS:
                    raise DeviceError(f"--scheduler {self.cluster.address} lost tiles {ATTEMPTS} times: {found}")
                queue.append(group)


@contextmanager
def _seeing_more() -> Iterator[None]:
    """A file that a worker does not find may be to be seen here."""
    try:
        yield
    except AbsentError as error:
        if os.path.exists(error.path):
            raise error.elsewhere from error
        raise


_one_at_a_time = Lock()
"""A worker may have several threads: GDAL's files are read by one."""


def _alone(work: Callable[[Item], Result], item: Item) -> Result:
    with _one_at_a_time:
        return work(item)


def _sharpened(bench: bytes, tiles: Sequence[Tile]) -> list[tuple[Pixels, Float32]]:
    """On a worker: the cores of tiles, without what they were made from."""
    sharpener, canvas = _opened(bench)
    nothing = np.empty((0, 0, 0), np.float32)
    return [(replace(pixels, pan=nothing, ms=nothing), hrms) for pixels, hrms in sharpener.all(canvas, tiles)]


@lru_cache(maxsize=1)
def _opened(bench: bytes) -> tuple[Sharpener, SceneCanvas]:
    """With the scene's files open until the next scene comes."""
    found: tuple[Sharpener, SceneCanvas] = pickle.loads(bench)
    return found


def _silence() -> None:
    """What matters of Dask is told here. Some of its loggers have levels of their own."""
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _version() -> str:
    return __version__


def _result(future: Any) -> Any:
    from distributed import KilledWorker
    from distributed.client import ClosedClientError, FutureCancelledError

    try:
        return future.result(timeout=AWAY)
    except KilledWorker:
        return Lost("the workers that had it died, as happens when memory runs out")
    except (ClosedClientError, FutureCancelledError, TimeoutError, OSError) as error:
        return Lost(f"the scheduler lost it ({type(error).__name__})")


def wants_gpu(device: str) -> bool:
    """True for what `--device` says if only a GPU will do."""
    return device.startswith(("cuda", "tensorrt"))
