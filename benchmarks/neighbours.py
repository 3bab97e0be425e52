"""Embeddings by confident neighbours, over the passes through the net that their searches must make."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import in_turn, table
from deepcheck import models
from deepcheck.attacks.base import frozen
from deepcheck.defences import make
from deepcheck.defences.neighbours.base import AT_ONCE, Embedding

__all__ = ["CASES", "Case", "passes", "run", "work"]

IMAGES, STEPS = 25, 20


@dataclass(frozen=True)
class Case:
    """An embedding with its options, and the passes that it takes: with gradients and without, for each step's images."""

    name: str
    options: dict[str, Any]
    searches: int
    """For an image."""
    looks: int = 1
    """Passes without a gradient after each search."""


LABELS = 10
CASES = (
    Case("mcn", {}, LABELS),
    Case("mcn", {"norm": "l2", "xi": 1.5}, LABELS),
    Case("hcnn", {}, LABELS),
    Case("ncn", {}, LABELS, looks=11),
    Case("mcn_shannon", {}, 1),
    Case("mcn_renyi", {}, 1),
)


def case_net() -> tuple[models.Network, Tensor]:
    """Return the net, in eval mode, and images."""
    draw = torch.Generator().manual_seed(0)
    net = models.build("conv_small", LABELS, (1, 28, 28), generator=draw).eval()
    return net, torch.rand((IMAGES, 1, 28, 28), generator=draw)


def work(case: Case, net: models.Network, x: Tensor) -> Callable[[], object]:
    """Return what looks for the points of the images."""
    defence = make(case.name, net, steps=STEPS, **case.options)
    assert isinstance(defence, Embedding)
    return lambda: defence.embedded(x)


def passes(case: Case, net: models.Network, x: Tensor) -> Callable[[], object]:
    """Return the passes through the net alone: of the images as they are, and of each search."""

    def bare() -> None:
        y = torch.arange(LABELS)
        with frozen(net):
            with torch.no_grad():
                net(x)
            rows = x.repeat(case.searches, 1, 1, 1)
            for part in rows.split(AT_ONCE["cpu"]):
                z, labels = part.clone().requires_grad_(), y[torch.arange(len(part)) % LABELS]
                for _ in range(STEPS):
                    torch.autograd.grad(F.cross_entropy(net(z), labels, reduction="sum"), z)
                with torch.no_grad():
                    for _ in range(case.looks):
                        net(part)

    return bare


def run() -> str:
    """Measure, and return a section of Markdown. On one thread, by the time of the processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> str:
    net, x = case_net()
    rows = []
    for case in CASES:
        times = in_turn({"work": work(case, net, x), "passes": passes(case, net, x)}, 5, time.process_time)
        options = ", ".join(f"{name} = {value}" for name, value in case.options.items())
        ratio, all_steps = times["work"] / times["passes"], times["work"] * 1000 / IMAGES * 100 / STEPS
        rows.append([case.name, options, str(case.searches), f"{ratio:.2f}", f"{all_steps / 60:.1f}"])
    intro = (
        f"`conv_small` on images of MNIST's size with {LABELS} classes: the points of {IMAGES} images, with {STEPS} steps in each search, "
        "over the passes through the net with gradients by the images that the searches make; and what 1,000 images with 100 steps "
        "take then. On one thread, processor time; the aim is at most 1.2."
    )
    head = [
        "embedding",
        "options",
        "searches an image",
        "over its passes",
        "1,000 images, 100 steps: minutes of a core",
    ]
    return "\n\n".join(["## Neighbours of high confidence", intro, table(head, rows)])
