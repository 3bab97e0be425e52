"""What is measured of nets after training: the classification error E, and the adversarial error S at one epsilon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepcheck.models import Network
from deepcheck.training.online import draw, train_online
from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error, classification_error
from studies.common.attacked import least_sizes

SEED = 20260723
MIXTURE, RULE = GaussianMixture(p=0.7), LearningRule()
HIDDEN = {"linear": (), "two layers": (20,)}
TEST = 0.5  # size of the test's attack on the mixture


@dataclass(frozen=True)
class Online:
    """How nets learn from the mixture."""

    N: int
    alpha: float
    runs: dict[str, int]
    training: tuple[float, ...]
    drawn: int = 1000
    """Examples on which nets with a hidden layer are attacked."""


def online_nets(net: str, epsilon: float, online: Online) -> xr.Dataset:
    """Return E and S of nets that learned online.

    Exact for linear nets, from R and b; for others measured with PGD on drawn examples. Nets of all epsilons learn from
    the same examples.
    """
    runs = online.runs[net]
    generator = torch.Generator().manual_seed(SEED)
    options: dict[str, Any] = {"N": online.N, "alpha": [online.alpha], "runs": runs, "hidden": HIDDEN[net]}
    ((_, nets),) = train_online(MIXTURE, RULE, Adversary(epsilon), generator=generator, **options)
    if nets.depth == 1:
        R, b = nets.weights[0][:, 0, 0].double().numpy(), -nets.biases[0][:, 0, 0].double().numpy()
        errors = [classification_error(R, b, MIXTURE), adversarial_error(R, b, MIXTURE, TEST)]
    else:
        xi, tau = draw(MIXTURE, (online.drawn,), online.N, torch.Generator().manual_seed(SEED + 1))
        sizes: dict[str, Any] = {"epsilon": [0.0, TEST], "norm": "l2", "seed": SEED, "batch_size": online.drawn}
        least = [least_sizes(nets.net(index), xi, tau[:, 0], boxed=False, **sizes)[1] for index in range(runs)]
        plus = tau[:, 0].numpy() > 0
        weight = np.where(plus, MIXTURE.p / plus.sum(), (1 - MIXTURE.p) / (~plus).sum())  # the exact share
        errors = [(np.array(least) <= size) @ weight for size in (0.0, TEST)]
    return xr.Dataset({"errors": (("kind", "run"), np.array(errors))})


def image_net(network: Network, every: tuple[Tensor, Tensor], some: tuple[Tensor, Tensor], test: float) -> xr.Dataset:
    """Return E, on all test images, and S, on some of them, of a convolutional net."""
    x, y = every
    with torch.no_grad():
        wrong = torch.cat([network(part).argmax(1) for part in torch.split(x, 500)]) != y
    least = least_sizes(network, *some, epsilon=[test], norm="l2", seed=SEED, batch_size=100)[1]
    return xr.Dataset({"errors": ("kind", [float(wrong.double().mean()), float(np.mean(least <= test))])})
