"""Data parallelism: the processes that torchrun has started, each with its share of every batch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["Group", "group", "place"]


@dataclass(frozen=True)
class Group:
    """The processes of this training."""

    rank: int = 0
    """Number of this process, in 0..size-1."""
    size: int = 1
    """Number of processes."""

    def average_gradients(self, network: nn.Module) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agreed(self, value: float) -> float:
        """Return the value of the first process, with which all then decide the same."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def place(chosen: torch.device) -> torch.device:
    """Return the device of this process: of those that torchrun has started each has a GPU of its own, where there are GPUs.

    It is the current one from then on, before anything is put on a GPU: else every process would take memory of the first.
    """
    if chosen.type != "cuda" or not _several():
        return chosen
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own


def group(device: torch.device) -> Group:
    """Return the processes that torchrun has started, or this process alone.

    Parameters
    ----------
    device
        From `place`.
    """
    if not _several():
        return Group()
    if not dist.is_initialized():
        if device.type == "cuda":
            dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
    return Group(dist.get_rank(), dist.get_world_size())


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
