"""Attacks and adversarial training of nets, against the bare forward and backward passes and other libraries."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import in_turn, table
from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.training.methods.at import AdversarialTraining

STEPS = 40
EPSILON, STEP_SIZE = 0.3, 0.01


def run() -> str:
    """Measure, and return a section of Markdown. On one thread: two would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> str:
    attacks = (
        f"PGD with {STEPS} steps in L-infinity, one start, no example dropped, best iterate kept; times over those of "
        f"the bare passes: {STEPS} forward and backward passes and one forward pass of the same net on the same batch, "
        f"in torch {torch.__version__} on one thread. To keep the last iterate takes {STEPS} "
        "forward and backward passes, and a forward pass for the result."
    )
    training = "A step of AT with PGD-7 (attack, forward, backward, update), over the sum of its 8 forward and backward passes."
    parts = ["## Attacks on nets", attacks, _attacks(), "## Adversarial training", training, _training()]
    if torch.cuda.is_available():
        parts.append(_on_a_gpu())
    return "\n\n".join(parts)


def _on_a_gpu() -> str:
    """Run the card `speed`, and return its tables."""
    from benchmarks.cuda.card import Work
    from benchmarks.cuda.cards import card, speed

    with TemporaryDirectory() as folder:
        work = Work(card("speed"), torch.device("cuda:0"), 60 * card("speed").most, Path(folder))
        work.card.run(work)
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    return f"## On a GPU\n\n{versions}. {speed.markdown(work.found)}"


def _nets() -> dict[str, tuple[models.Network, int]]:
    """Return the nets, and how many images they are given at once."""
    generator = torch.Generator().manual_seed(0)
    return {
        "conv_small, MNIST": (models.build("conv_small", 10, (1, 28, 28), generator=generator), 250),
        "resnet_ccat of 8 channels, CIFAR-10": (
            models.build("resnet_ccat", 10, (3, 32, 32), generator=generator, channels=8),
            32,
        ),
    }


def _examples(net: models.Network, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((count, *net.in_shape), generator=generator), torch.randint(10, (count,), generator=generator)


def bare_passes(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    """Do what no attack can do without: forward and backward passes."""
    for _ in range(steps):
        z = x.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(net(z), y, reduction="sum"), z)


def _attacks() -> str:
    rows = []
    for name, (net, count) in _nets().items():
        net.eval()
        x, y = _examples(net, count)
        alternatives: dict[str, Callable[[], object]] = {"bare": lambda: bare_passes(net, x, y, STEPS)}  # noqa: B023

        def bare_best(net: models.Network = net, x: Tensor = x, y: Tensor = y) -> None:
            bare_passes(net, x, y, STEPS)
            with torch.no_grad():
                net(x)

        alternatives["bare, best"] = bare_best
        for keep in ("last", "best"):
            attack = PGD("linf", steps=STEPS, step_size=STEP_SIZE, keep=keep, stop_when_reached=False)  # type: ignore[arg-type]

            def ours(attack: PGD = attack, net: models.Network = net, x: Tensor = x, y: Tensor = y) -> object:
                generator = torch.Generator().manual_seed(0)
                return attack(net, x, y, epsilon=EPSILON, generator=generator, batch_size=len(x))

            alternatives[f"ours, {keep}"] = ours
        alternatives |= _others(net, x, y)
        times = in_turn(alternatives, repeats=9)
        best = times["bare, best"]
        cells = [f"{times[key] / best:.2f}" if key in times else "-" for key in ("ours, best", "foolbox", "ART")]
        rows.append([name, f"{STEPS * count / times['bare']:.0f}", *cells, f"{times['ours, last'] / best:.2f}"])
    head = ["net", "bare passes, images/s", "deepcheck", "foolbox", "ART", "deepcheck, last iterate"]
    return table(head, rows)


def _others(net: models.Network, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """Return the same attack in other libraries, where they are installed."""
    found: dict[str, Callable[[], object]] = {}
    if importlib.util.find_spec("foolbox"):
        import foolbox

        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS)
        found["foolbox"] = lambda: attack(model, x, y, epsilons=[EPSILON])
    if importlib.util.find_spec("art"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from art.attacks.evasion import ProjectedGradientDescentPyTorch
            from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            net, nn.CrossEntropyLoss(), net.in_shape, 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        art = ProjectedGradientDescentPyTorch(
            classifier,
            eps=EPSILON,
            eps_step=STEP_SIZE,
            max_iter=STEPS,
            num_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        images, labels = x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()]
        found["ART"] = lambda: art.generate(images, labels)
    return found


def _training() -> str:
    rows = []
    method = AdversarialTraining(epsilon=EPSILON, attack_steps=7, step_size=0.1)
    for name, (net, _) in _nets().items():
        net.train()
        x, y = _examples(net, 64)
        optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)
        generator = torch.Generator().manual_seed(0)

        def step(
            net: models.Network = net,
            x: Tensor = x,
            y: Tensor = y,
            optimiser: torch.optim.SGD = optimiser,
            generator: torch.Generator = generator,
        ) -> None:
            optimiser.zero_grad()
            method.loss(net, x, y, progress=1.0, generator=generator, state=None).backward()
            optimiser.step()

        def passes(net: models.Network = net, x: Tensor = x, y: Tensor = y) -> None:
            net.eval()
            bare_passes(net, x, y, 7)
            net.train()
            F.cross_entropy(net(x), y).backward()

        times = in_turn({"passes": passes, "step": step}, repeats=15)
        rows.append([name, f"{64 / times['step']:.0f}", f"{times['step'] / times['passes']:.2f}"])
    return table(["net", "images/s", "step / passes"], rows)
