"""The processes of one training, as torchrun starts them: each has a GPU or some cores, and its share of a batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(days=1)
"""How long the others wait while the first prepares scenes and validates."""

Value = TypeVar("Value")


class Workers:
    """This process and those that train with it: none, unless torchrun started them.

    `rank` of `count`; on its machine it is number `here` of `beside`.
    """

    def __init__(self) -> None:
        said = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
        self.rank, self.count, self.here, self.beside = (int(os.environ.get(name, alone)) for name, alone in said)

    @property
    def is_first(self) -> bool:
        """True for the one that validates and writes."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[torch.device]:
        """Meet the others, by gloo or nccl; gives the device of this one."""
        if self.count == 1:
            yield device
            return
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", self.here)
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            yield device
        finally:
            dist.destroy_process_group()

    def together(self, learner: nn.Module) -> nn.Module:
        """The learner with gradients that are means over all processes."""
        return learner if self.count == 1 else DistributedDataParallel(learner)

    def mean(self, value: Tensor) -> Tensor:
        """Over all processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value / self.count

    def first_does(self, work: Callable[[], Value]) -> Value:
        """`work` done by the first one, and its result told to all."""
        values: list[Any] = [work() if self.is_first else None]
        if self.count > 1:
            dist.broadcast_object_list(values)
        result: Value = values[0]
        return result

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first one passes; the others follow when it has left."""
        if self.count > 1 and not self.is_first:
            dist.barrier()
        yield
        if self.count > 1 and self.is_first:
            dist.barrier()
