"""A step of every training method, over the passes through the net that it must make and the update of the weights."""

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
from deepcheck.training import METHODS, Method, Recipe
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner

__all__ = ["PASSES", "SETTINGS", "Bare", "pairs", "run"]

BATCH = 64
SETTINGS: dict[str, Any] = {
    "attack_steps": 7,
    "epsilon": 0.3,
    "step_size": 0.1,
    "path_steps": 4,
    "attack_path_steps": 2,
}
"""Settings of every method that has such a field; the others have their defaults."""
NETS: dict[str, tuple[str, tuple[int, int, int], dict[str, Any]]] = {
    "conv_small, MNIST": ("conv_small", (1, 28, 28), {}),
    "resnet_ccat of 8 channels, CIFAR-10": ("resnet_ccat", (3, 32, 32), {"channels": 8}),
}


@dataclass(frozen=True, eq=False)
class Bare:
    """Passes of a batch through a net and nothing else: what no method can do without."""

    net: models.Network
    x: Tensor
    y: Tensor
    remembered: Any = None
    """What the method remembers: a teacher, say."""

    def attack(self, steps: int, share: float = 1.0) -> None:
        """Take so many forward and backward passes to a share of the images, in eval mode."""
        x, y = self._some(share)
        self.net.eval().requires_grad_(False)
        for _ in range(steps):
            z = x.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(self.net(z), y, reduction="sum"), z)
        self.net.train().requires_grad_(True)

    def forward(self, share: float = 1.0) -> None:
        """Take a forward pass of a share of the images, in eval mode."""
        self.net.eval()
        with torch.no_grad():
            self.net(self._some(share)[0])
        self.net.train()

    def learn(self, copies: int = 1, *, images: bool = False) -> None:
        """Take a forward and backward pass to the weights, in train mode, with so many times the images; and to these too."""
        x, y = self.x.repeat(copies, 1, 1, 1).requires_grad_(images), self.y.repeat(copies)
        self.net.zero_grad(set_to_none=True)
        F.cross_entropy(self.net(x), y).backward()

    def learn_gradients(self, count: int) -> None:
        """Do so with twice the images, and with the gradients by so many times them in the loss: their second derivatives."""
        n = count * len(self.x)
        x, y = self.x.repeat(2, 1, 1, 1).requires_grad_(), self.y.repeat(2)
        self.net.zero_grad(set_to_none=True)
        losses = F.cross_entropy(self.net(x), y, reduction="none")
        (gradient,) = torch.autograd.grad(losses[:n].sum(), x, create_graph=True)
        (losses.mean() + gradient.square().sum()).backward()

    def attack_path(self, midpoints: int, steps: int = 1) -> None:
        """Take the gradients at so many points between two images, in eval mode, and theirs by the second, so many times."""
        self.net.eval().requires_grad_(False)
        for _ in range(steps):
            z = self.x.detach().requires_grad_()
            torch.autograd.grad(self._path(z, midpoints), z)
        self.net.train().requires_grad_(True)

    def learn_path(self, midpoints: int) -> None:
        """Take those gradients in eval mode, and theirs by the weights."""
        self.net.eval()
        self._path(self.x, midpoints).backward()
        self.net.train()

    def ask_teacher(self) -> None:
        """Take a forward pass of the net that is remembered."""
        with torch.no_grad():
            self.remembered(self.x)

    def _path(self, z: Tensor, midpoints: int) -> Tensor:
        """Return |IG(0, z)|_1 of the cross-entropy, summed over the images."""
        total = torch.zeros_like(z)
        for k in range(midpoints):
            point = (k + 0.5) / midpoints * z
            point = point if point.requires_grad else point.requires_grad_()
            loss = F.cross_entropy(self.net(point), self.y, reduction="sum")
            total = total + torch.autograd.grad(loss, point, create_graph=True)[0]
        size: Tensor = (z * total / midpoints).abs().sum()
        return size

    def _some(self, share: float) -> tuple[Tensor, Tensor]:
        n = round(share * len(self.x))
        return self.x[:n], self.y[:n]


def _at(bare: Bare, method: Any) -> None:
    bare.attack(method.attack_steps)
    bare.learn()


def _ccat(bare: Bare, method: Any) -> None:
    bare.attack(method.attack_steps, 0.5)
    bare.forward(0.5)  # the best iterate is kept: the last one is looked at
    bare.learn()


def _on_both(bare: Bare, method: Any) -> None:
    bare.attack(method.attack_steps)
    bare.learn(2)


def _trades(bare: Bare, method: Any) -> None:
    bare.forward()
    _on_both(bare, method)


def _fast(bare: Bare, _: Any) -> None:
    bare.attack(1)
    bare.learn()


def _cure(bare: Bare, _: Any) -> None:
    bare.attack(1)  # the direction
    bare.learn_gradients(2)


def _llr(bare: Bare, method: Any) -> None:
    bare.attack(1 + method.attack_steps)  # the slope at the image, and the steps
    bare.learn_gradients(1)


def _ig_norm(bare: Bare, method: Any) -> None:
    bare.attack_path(method.attack_path_steps, method.attack_steps)
    bare.learn()
    bare.learn_path(method.path_steps)


def _ig_sum_norm(bare: Bare, method: Any) -> None:
    bare.attack(method.attack_steps)
    _ig_norm(bare, method)


def _distillation(bare: Bare, _: Any) -> None:
    bare.ask_teacher()
    bare.learn()


PASSES: dict[str, Callable[[Bare, Any], None]] = {
    "standard": lambda bare, _: bare.learn(),
    "at": _at,
    "ccat": _ccat,
    "trades": _trades,
    "alp": _on_both,
    "interpolated_at": _on_both,
    "vertex_mixup": _at,
    "fast_at": _fast,
    "free_at": lambda bare, _: bare.learn(images=True),
    "random_at": _at,
    "non_robust_at": _at,
    "cure": _cure,
    "llr": _llr,
    "ig_norm": _ig_norm,
    "ig_sum_norm": _ig_sum_norm,
    "distillation": _distillation,
    "noise_layers": lambda bare, _: bare.learn(),
}
"""For every method the passes of one step, as a function of a `Bare` and of the method with its settings."""


def method(name: str) -> Method:
    """Return a method with the settings of the benchmark."""
    known = METHODS[name].settings()
    return METHODS[name](**{key: value for key, value in SETTINGS.items() if key in known})


def pairs(name: str, net: str) -> tuple[Callable[[], object], Callable[[], object], Learner]:
    """Return a step of the method, its bare passes with an update of the weights, and what learns by them."""
    kind, shape, options = NETS[net]
    generator = torch.Generator().manual_seed(0)
    one = method(name)
    # a rate so small that the net stays what it is
    recipe = Recipe(method=one, batch_size=BATCH, learning_rate=1e-7, schedule="constant")
    network = one.network(lambda **more: models.build(kind, 10, shape, generator=generator, **options, **more)).train()
    learner = Learner(recipe, network, generator, Group())
    x = torch.rand((BATCH, *shape), generator=generator)
    y = torch.randint(10, (BATCH,), generator=generator)
    bare = Bare(network, x, y, learner.state)

    def passes() -> None:
        PASSES[name](bare, one)
        learner.optimiser.step()

    return lambda: learner.step(network, x, y, 0.9), passes, learner


def run() -> str:
    """Measure, and return a section of Markdown. On one thread, by the time of the processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> str:
    intro = (
        f"A step of training with {BATCH} images and attacks of {SETTINGS['attack_steps']} steps, over the passes through the "
        "net that the method must make (`PASSES` in `benchmarks/methods.py`; a pass for an attack goes back to the images, one "
        "to learn from to the weights) and the update of the weights. All methods in turn, on one thread; the aim is at most 1.05."
    )
    rows = [[name] for name in METHODS]
    for net in NETS:
        alternatives: dict[str, Callable[[], object]] = {}
        for name in METHODS:
            alternatives[f"{name}, step"], alternatives[f"{name}, passes"], _ = pairs(name, net)
        times = in_turn(alternatives, repeats=9, clock=time.process_time)
        for row in rows:
            step, passes = (times[f"{row[0]}, {what}"] for what in ("step", "passes"))
            row.extend([f"{1000 * step:.1f}", f"{step / passes:.2f}"])
    head = ["method", *(column for net in NETS for column in (f"{net}: ms", "step / passes"))]
    return "\n\n".join(["## Steps of the training methods", intro, table(head, rows)])
