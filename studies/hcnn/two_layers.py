"""Two-layer nets behind the most confident neighbour, where it can change an answer: theory, and nets in R^N.

The theory is `odeflow.errors.composed`: exact at any N, up to its quadrature. The nets learn by `studies.common.two_layers`, and are
embedded and attacked in R^N by `deepcheck`; they share nothing with the theory but the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.attacks.starts import Zero
from deepcheck.defences.base import Adaptive
from deepcheck.defences.neighbours import MCN
from odeflow import Adversary, GaussianMixture, LearningRule, integrate
from odeflow.errors import composed
from odeflow.order_parameters import Committee
from studies.common.two_layers import Clusters, Nets, fgsm, sgd
from studies.hcnn.measure import SEED

__all__ = ["CASES", "FULL", "QUICK", "Case", "Size", "measured", "theory"]

FREE = (-np.inf, np.inf)
CURVE = 41
"""Points of a line."""


@dataclass(frozen=True)
class Size:
    """How large the check is."""

    N: int
    runs: int
    tests: int
    """Fresh examples of each net."""
    steps: int
    """Of MCN and of the attack."""


FULL = Size(300, 10, 400, 20)
QUICK = Size(100, 4, 100, 10)


@dataclass(frozen=True)
class Case:
    """Nets that learn, and how far they are attacked and embedded, in L2."""

    title: str
    mixture: GaussianMixture
    rule: LearningRule
    adversary: Adversary
    network: Committee
    start: dict[str, Any]
    alpha: float
    eta: float
    xis: tuple[float, ...] = field(default=(0.0, 0.5, 1.0, 1.5, 2.0))


CASES = (
    Case(
        "one unit", GaussianMixture(p=0.7), LearningRule(0.5, 0.5), Adversary(),
        Committee(1, eta_c=0.0, eta_theta=0.0), {"M": [0.0], "Q": [[0.3]], "c": [1.0], "theta": [0.0], "b": 0.0}, 20.0, 0.5,
    ),
)  # fmt: skip


class OfOutput(nn.Module):
    """A net of two logits, -phi and phi, of one of several two-layer nets."""

    def __init__(self, nets: Nets, index: int) -> None:
        super().__init__()
        self.w, self.c, self.theta, self.b = (one[index].clone() for one in (nets.w, nets.c, nets.theta, nets.b))
        self.relu = nets.relu

    def forward(self, xi: Tensor) -> Tensor:
        """Return logits, shape (n, 2), for examples of shape (n, N)."""
        x = xi @ self.w.T - self.theta
        g = x.relu() if self.relu else torch.erf(x / math.sqrt(2))
        phi = self.b + g @ self.c
        return torch.stack([-phi, phi], 1)


def theory(case: Case, xis: Any) -> xr.Dataset:
    """Return the errors of the theory's net behind MCN, without an attack and under the best one, over xi."""
    options: dict[str, Any] = {"network": case.network, "start": case.start, "alpha": [0.0, case.alpha]}
    end = integrate(case.mixture, case.rule, case.adversary, **options).isel(alpha=-1)
    found: xr.Dataset = composed(end, case.mixture, 0.5, case.eta, xis, network=case.network)
    return found[["error", "adversarial_error"]]


def measured(size: Size) -> xr.Dataset:
    """Return the same of nets, and the theory beside them, along `case`."""
    parts = [_of_case(case, size, SEED + number) for number, case in enumerate(CASES)]
    return xr.concat(parts, xr.DataArray([case.title for case in CASES], dims="case", name="case"))


def _of_case(case: Case, size: Size, seed: int) -> xr.Dataset:
    generator = torch.Generator().manual_seed(seed)
    nets, data = _trained(case, size, generator)
    clean, attacked = np.zeros((2, len(case.xis), size.runs))
    attack = PGD("l2", "margin", steps=size.steps, relative_step_size=2.5 / size.steps, start=Zero(), bounds=FREE)
    for run in range(size.runs):
        net = OfOutput(nets, run)
        xi, tau = data.draw(size.tests, size.N, generator)
        y = (tau > 0).long()
        for i, radius in enumerate(case.xis):
            model = MCN(net, xi=radius, norm="l2", bounds=FREE, steps=size.steps, attack_steps=size.steps)
            with torch.no_grad():
                right = model(xi).argmax(1) == y
            found = Adaptive(attack)(model, xi[right], y[right], epsilon=case.eta, generator=generator)
            clean[i, run] = 1 - right.double().mean()
            attacked[i, run] = 1 - (found.prediction[0] == y[right]).sum() / size.tests
    lines = theory(case, np.linspace(0, max(case.xis), CURVE))
    points = theory(case, list(case.xis))
    return xr.Dataset(
        {
            "unit_error": ("unit_point", attacked.mean(1)),
            "unit_runs": (("unit_point", "unit_run"), attacked),
            "unit_clean_runs": (("unit_point", "unit_run"), clean),
            "unit_theory": ("unit_point", points.adversarial_error.values),
            "unit_clean_theory": ("unit_point", points.error.values),
            "unit_line": ("unit_step", lines.adversarial_error.values),
            "unit_clean_line": ("unit_step", lines.error.values),
        },
        {
            "unit_xi": ("unit_point", list(case.xis)),
            "unit_curve": ("unit_step", np.linspace(0, max(case.xis), CURVE)),
            "unit_eta": case.eta,
            "unit_N": size.N,
        },
    )


def _trained(case: Case, size: Size, generator: torch.Generator) -> tuple[Nets, Clusters]:
    """Return nets that have learned from fresh examples, and the law of these."""
    half = case.mixture.rho / 2
    p, variances = np.array([case.mixture.p, 1 - case.mixture.p]), np.array([case.mixture.v1, case.mixture.v2])
    data = Clusters(np.array([[half], [-half]]), p, variances, np.array([1.0, -1.0]))
    start = {name: np.asarray(one, float) for name, one in case.start.items()}
    along = start["M"][..., None] / half
    rest = (start[name] for name in ("Q", "c", "theta"))
    relu = case.network.activation == "relu"
    nets = Nets.with_overlaps(along, *rest, float(start["b"]), nets=size.runs, N=size.N, relu=relu)
    rates = {
        "eta": case.rule.eta_w,
        "eta_b": case.rule.eta_b,
        "eta_c": case.network.eta_c,
        "eta_theta": case.network.eta_theta,
    }
    count = [round(case.alpha * size.N)]
    (nets,) = sgd(nets, data, fgsm(case.adversary.epsilon), **rates, examples=count, generator=generator)
    return nets, data
