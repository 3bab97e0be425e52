"""Two-layer nets behind the most confident neighbour, where it can change an answer: theory, and nets in R^N.

The theory is `odeflow.errors.composed`: exact at any N, up to its quadrature. The nets learn by `studies.common.two_layers`, and share
nothing with the theory but the model. What they answer behind MCN, and whether an attack through it turns an example, is found by
ascents in R^N, those of `deepcheck`; or, where these stop because no unit is active, by a search in the span of the weights,
outside of which nothing changes the output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.attacks.starts import Zero
from deepcheck.defences.base import Adaptive
from deepcheck.defences.neighbours import MCN
from odeflow import Adversary, GaussianClusters, LearningRule, integrate
from odeflow.errors import composed
from odeflow.order_parameters import Committee
from studies.common.two_layers import Clusters, Nets, sgd
from studies.hcnn.measure import SEED

__all__ = ["CASES", "FULL", "QUICK", "Case", "Size", "measured", "theory"]

Array = npt.NDArray[np.float64]

RULE = LearningRule(0.5, 0.5)
FREE = (-np.inf, np.inf)
DIRECTIONS, RADII = 32, 8
"""Of the search: points on a circle, and circles in the attack's disc. The output has its largest and least value over a disc on its edge."""


@dataclass(frozen=True)
class Size:
    """How large the check is."""

    N: int
    runs: int
    tests: int
    """Fresh examples of each net."""
    line: int
    """Points of the theory's lines."""
    step: float
    """Of its quadrature."""


FULL = Size(400, 10, 500, 33, 0.008)
QUICK = Size(60, 4, 100, 7, 0.04)


@dataclass(frozen=True)
class Case:
    """Nets that learn, and how far they are attacked and embedded, in L2."""

    title: str
    data: GaussianClusters
    network: Committee
    W: tuple[tuple[float, ...], ...]
    """Weights at the start, one row a unit, in the first coordinates: first those of the centres."""
    alpha: float
    eta: float
    xis: tuple[float, ...]
    by: Literal["ascent", "search"]

    @property
    def centres(self) -> Array:
        """The centres, shape (clusters, dimensions)."""
        return np.array(self.data.means)

    @property
    def start(self) -> dict[str, Any]:
        """The order parameters at the start; all output weights are 1, thresholds and output bias 0."""
        W, K = np.array(self.W), self.network.hidden
        M = W[:, : self.centres.shape[1]] @ self.centres.T
        return {"M": M, "Q": W @ W.T, "c": np.ones(K), "theta": np.zeros(K), "b": np.zeros(())}


CASES = (
    Case(
        "one erf unit and an output bias", GaussianClusters(means=[[1.0], [-1.0]], labels=[1, -1], weights=[0.7, 0.3]),
        Committee(1, "erf"), ((0.0, 1.0),), 20.0, 0.5, (0.0, 1.0, 1.75, 3.0), "ascent",
    ),
    Case(
        "two ReLU units, clusters + \u2212 +",
        GaussianClusters(means=[[-3.0, 0.0], [-1.0, 2.0], [0.0, -0.7]], labels=[1, -1, 1], weights=[0.2, 0.35, 0.45], variances=[0.1] * 3),
        Committee(2, "relu"), ((0.3, 0.1, 0.5, 0.2), (0.1, 0.25, -0.2, 0.4)), 60.0, 0.5, (0.0, 0.5, 0.75, 1.0, 1.5), "search",
    ),
)  # fmt: skip


def theory(case: Case, xis: Any, step: float) -> xr.Dataset:
    """Return the errors of the theory's net behind MCN, without an attack and under the best one, over xi."""
    options: dict[str, Any] = {"network": case.network, "start": case.start, "alpha": [0.0, case.alpha]}
    end = integrate(case.data, RULE, Adversary(), **options).isel(alpha=-1)
    found: xr.Dataset = composed(end, case.data, 0.5, case.eta, np.asarray(xis), network=case.network, step=step)
    return found[["error", "adversarial_error"]]


def measured(size: Size) -> xr.Dataset:
    """Return the same of nets, and the theory beside them, along `case`."""
    parts = [_of_case(case, size, SEED + number) for number, case in enumerate(CASES)]
    return xr.concat(parts, xr.DataArray([case.title for case in CASES], dims="case", name="case"), join="outer")


def _of_case(case: Case, size: Size, seed: int) -> xr.Dataset:
    generator = torch.Generator().manual_seed(seed)
    nets, data = _trained(case, size, generator)
    clean, attacked = np.zeros((2, len(case.xis), size.runs))
    judge = _by_ascent if case.by == "ascent" else _by_search
    for run in range(size.runs):
        xi, tau = data.draw(size.tests, size.N, generator)
        for i, radius in enumerate(case.xis):
            clean[i, run], attacked[i, run] = judge(nets, run, xi, tau, radius, case.eta, generator)
    line = np.linspace(0, max(case.xis), size.line)
    lines, points = theory(case, line, size.step), theory(case, case.xis, size.step)
    return xr.Dataset(
        {
            "unit_runs": (("unit_point", "unit_run"), attacked),
            "unit_clean_runs": (("unit_point", "unit_run"), clean),
            "unit_theory": ("unit_point", points.adversarial_error.values),
            "unit_clean_theory": ("unit_point", points.error.values),
            "unit_line": ("unit_step", lines.adversarial_error.values),
            "unit_clean_line": ("unit_step", lines.error.values),
            "unit_xi": ("unit_point", list(case.xis)),
            "unit_curve": ("unit_step", line),
            "unit_eta": ((), case.eta),
            "unit_N": ((), size.N),
        },
        {"unit_point": range(len(case.xis))},
    )


def _trained(case: Case, size: Size, generator: torch.Generator) -> tuple[Nets, Clusters]:
    """Return nets that have learned from fresh examples, and the law of these."""
    weights, variances, labels = (np.array(getattr(case.data, name)) for name in ("weights", "variances", "labels"))
    data = Clusters(case.centres, weights, variances, labels)
    along, start = np.array(case.W)[:, : case.centres.shape[1]], case.start
    relu = case.network.activation == "relu"
    nets = Nets.with_overlaps(along, start["Q"], start["c"], start["theta"], 0.0, nets=size.runs, N=size.N, relu=relu)
    rates = {"eta": RULE.eta_w, "eta_b": RULE.eta_b}
    (nets,) = sgd(nets, data, _none, **rates, examples=[round(case.alpha * size.N)], generator=generator)
    return nets, data


def _none(nets: Nets, xi: Tensor, tau: Tensor) -> Tensor:
    """Return the examples as they are: nobody attacks the training."""
    del nets, tau
    return xi


# --- by ascent in R^N ---

STEPS = 12
"""Of MCN and of the attack. All gradients of a net of one unit point the same way."""


class OfOutput(nn.Module):
    """A net of two logits, -phi and phi, of one of several two-layer nets."""

    def __init__(self, nets: Nets, index: int) -> None:
        super().__init__()
        self.w, self.c, self.theta, self.b = (one[index].clone() for one in (nets.w, nets.c, nets.theta, nets.b))
        self.relu = nets.relu

    def forward(self, xi: Tensor) -> Tensor:
        """Return logits, shape (n, 2), for examples of shape (n, N)."""
        phi = self.of_fields(xi @ self.w.T - self.theta)
        return torch.stack([-phi, phi], -1)

    def of_fields(self, x: Tensor) -> Tensor:
        """Return phi of the units' inputs, shape (..., K)."""
        g = x.relu() if self.relu else torch.erf(x / math.sqrt(2))
        phi: Tensor = self.b + g @ self.c
        return phi


def _by_ascent(
    nets: Nets, index: int, xi: Tensor, tau: Tensor, radius: float, eta: float, generator: torch.Generator
) -> tuple[float, float]:
    """Return the errors of a net behind MCN, without an attack and with PGD on its surrogate."""
    model = MCN(OfOutput(nets, index), xi=radius, norm="l2", bounds=FREE, steps=STEPS, attack_steps=STEPS)
    attack = PGD("l2", "margin", steps=STEPS, relative_step_size=2.5 / STEPS, start=Zero(), bounds=FREE)
    y = (tau > 0).long()
    with torch.no_grad():
        right = model(xi).argmax(1) == y
    found = Adaptive(attack)(model, xi[right], y[right], epsilon=eta, generator=generator)
    kept = int((found.prediction[0] == y[right]).sum())
    return 1 - float(right.double().mean()), 1 - kept / len(y)


# --- by a search in the span of the weights ---


def _by_search(
    nets: Nets, index: int, xi: Tensor, tau: Tensor, radius: float, eta: float, generator: torch.Generator
) -> tuple[float, float]:
    """Return the same, of two units: the sign of max phi + min phi over a circle, on a grid of the attack's disc."""
    del generator
    net = OfOutput(nets, index)
    r = torch.linalg.qr(
        net.w.T
    ).R  # (2, 2): a move by s in an orthonormal basis of the weights changes the fields by s @ r
    angle = torch.arange(DIRECTIONS, dtype=xi.dtype) * (2 * math.pi / DIRECTIONS)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    share = torch.arange(1, RADII + 1, dtype=xi.dtype) / RADII
    disc = torch.cat([torch.zeros(1, 2, dtype=xi.dtype), (eta * share[:, None, None] * circle).flatten(0, 1)])
    fields = xi @ net.w.T - net.theta
    wrong = [
        tau * _mid_range(net, fields + move @ r, radius * circle @ r) <= 0 for move in disc
    ]  # the first move is none
    return float(wrong[0].double().mean()), float(torch.stack(wrong).any(0).double().mean())


def _mid_range(net: OfOutput, fields: Tensor, moves: Tensor) -> Tensor:
    """Return max phi + min phi over moves of the fields, shape (n,)."""
    phi = net.of_fields(fields[:, None] + moves)
    return phi.amax(1) + phi.amin(1)
