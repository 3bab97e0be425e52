"""The same PGD in other libraries, where they are installed."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

__all__ = ["others"]


@dataclass(frozen=True, eq=False)
class _Case:
    """What is attacked, and how: L-infinity, a random start, the last iterate."""

    net: nn.Module
    x: Tensor
    y: Tensor
    epsilon: float
    step_size: float
    steps: int


def others(
    net: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, step_size: float, steps: int
) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """Return the attack of each library, and what is wrong with those that are there but cannot be imported.

    Parameters
    ----------
    net
        In eval mode, on its device.
    x, y
        Images in [0, 1] and labels, on the same device.
    epsilon, step_size, steps
        Of the attack.
    """
    case = _Case(net, x, y, epsilon, step_size, steps)
    found: dict[str, Callable[[], object]] = {}
    broken = []
    for name, (package, make) in _LIBRARIES.items():
        if importlib.util.find_spec(package) is None:
            continue
        try:
            found[name] = make(case)
        except ImportError as error:  # something that it needs is not there: the other libraries are measured
            broken.append(f"{name} cannot be imported: {' '.join(str(error).split())}")
    return found, broken


def _torchattacks(case: _Case) -> Callable[[], object]:
    import torchattacks

    attack = torchattacks.PGD(case.net, eps=case.epsilon, alpha=case.step_size, steps=case.steps, random_start=True)
    return lambda: attack(case.x, case.y)


def _foolbox(case: _Case) -> Callable[[], object]:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # it imports GitPython, which fails where there is no git
    import foolbox

    model = foolbox.PyTorchModel(case.net, bounds=(0, 1), device=case.x.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=case.step_size, steps=case.steps)
    return lambda: attack(model, case.x, case.y, epsilons=[case.epsilon])


def _art(case: _Case) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        case.net, nn.CrossEntropyLoss(), tuple(case.x.shape[1:]), 10, clip_values=(0.0, 1.0),
        device_type="gpu" if case.x.device.type == "cuda" else "cpu",
    )  # fmt: skip
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        eps=case.epsilon,
        eps_step=case.step_size,
        max_iter=case.steps,
        num_random_init=1,
        batch_size=len(case.x),
        verbose=False,
    )
    # it takes and returns arrays: the copies between the devices are a part of it
    images, labels = case.x.cpu().numpy(), np.eye(10, dtype=np.float32)[case.y.cpu().numpy()]
    return lambda: attack.generate(images, labels)


_LIBRARIES: dict[str, tuple[str, Callable[[_Case], Callable[[], object]]]] = {
    "torchattacks": ("torchattacks", _torchattacks),
    "foolbox": ("foolbox", _foolbox),
    "ART": ("art", _art),
}
"""From the name of a library to its package, and to what makes its attack."""
