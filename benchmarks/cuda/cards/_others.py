"""The same PGD in other libraries, where they are installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

__all__ = ["others"]


def others(
    net: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, step_size: float, steps: int
) -> dict[str, Callable[[], object]]:
    """Return the attack of each library: L-infinity, a random start, the last iterate.

    Parameters
    ----------
    net
        In eval mode, on its device.
    x, y
        Images in [0, 1] and labels, on the same device.
    epsilon, step_size, steps
        Of the attack.
    """
    found: dict[str, Callable[[], object]] = {}
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        theirs = torchattacks.PGD(net, eps=epsilon, alpha=step_size, steps=steps, random_start=True)
        found["torchattacks"] = lambda: theirs(x, y)
    if importlib.util.find_spec("foolbox"):
        import foolbox

        model = foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
        attack = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=steps)
        found["foolbox"] = lambda: attack(model, x, y, epsilons=[epsilon])
    if importlib.util.find_spec("art"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from art.attacks.evasion import ProjectedGradientDescentPyTorch
            from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0),
            device_type="gpu" if x.device.type == "cuda" else "cpu",
        )  # fmt: skip
        art = ProjectedGradientDescentPyTorch(
            classifier,
            eps=epsilon,
            eps_step=step_size,
            max_iter=steps,
            num_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        # it takes and returns arrays: the copies between the devices are a part of it
        images, labels = x.cpu().numpy(), np.eye(10, dtype=np.float32)[y.cpu().numpy()]
        found["ART"] = lambda: art.generate(images, labels)
    return found
