"""What the full and the quick form of the study measure, and what its claims allow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odeflow import Adversary, LearningRule
from odeflow.order_parameters import Committee

__all__ = ["CENTRES", "FULL", "QUICK", "C", "Condition", "Line", "Plan"]

C = np.array([1.0, 1.0, -1.0, -1.0])
"""Output weights: two units a label."""
CENTRES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
"""Of the clusters, and the directions of the units of the specialised state."""
FIXED = 1e-9  # eta_b of an output bias that does not learn: the rule allows none of 0


@dataclass(frozen=True)
class Line:
    """A trajectory of the theory, and simulations beside it."""

    activation: str
    epsilon: float
    alpha: tuple[float, ...]
    """Times of the theory."""
    N: int
    runs: int
    v: float = 0.1
    eta: float = 0.5

    @property
    def network(self) -> Committee:
        """Erf units learn their thresholds."""
        trained = self.eta if self.activation == "erf" else 0.0
        return Committee(4, self.activation, eta_theta=trained, tolerance=1e-4)  # type: ignore[arg-type]

    @property
    def start(self) -> dict[str, Any]:
        """The units have turned to the clusters, one a little more than the next."""
        P = 0.1 * CENTRES * np.array([[1.0], [0.8], [0.9], [0.7]]) + 0.02 * CENTRES[[2, 3, 1, 0]]
        theta = 0.3 if self.activation == "erf" else 0.0
        Q = P @ P.T + np.diag([0.04, 0.05, 0.04, 0.06])
        return {"M": P @ CENTRES.T, "Q": Q, "c": C, "theta": np.full(4, theta), "b": np.zeros(())}


@dataclass(frozen=True)
class Condition:
    """Random starts, and what is different from how it is."""

    name: str
    epsilon: tuple[float, ...]
    runs: int
    eta: float = 0.5
    N: int = 500
    """Dimension of the simulation; the starts are those of N = 500 in any case."""
    size: float = 0.3
    """Length of the weights at the start."""
    attack: str = "fgsm"
    eta_b: float = FIXED
    start: str = "random"
    """random; or missing: like units are on one centre and miss the other, those of the label +1 alone."""
    method: str = "reduced"
    """reduced; or, in R^N by automatic differentiation: together, the attack of the net, alone, one of each unit's own."""

    @property
    def rule(self) -> LearningRule:
        """The learning rates."""
        return LearningRule(eta_w=self.eta, eta_b=self.eta_b)

    def adversary(self, epsilon: float) -> Adversary:
        """Return what attacks."""
        return Adversary(epsilon, attack=self.attack)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """All that is measured."""

    lines: tuple[Line, ...]
    variances: tuple[float, ...]
    lengths: tuple[float, ...]
    """Of the weights, from long to short: the continuation's parameter."""
    noisy_variance: float
    noisy_eta: float
    noisy_epsilon: tuple[float, ...]
    """In units of the critical one: of the fixed points at a finite learning rate."""
    simulated_epsilon: tuple[float, ...]
    """The same, of the simulations."""
    simulated_N: int
    simulated_runs: int
    simulated_alpha: float
    conditions: tuple[Condition, ...]
    start_variance: float = 0.1
    time: float = 20.0
    """eta alpha at which the clusters that are found are counted."""
    rates_epsilon: tuple[float, ...] = field(default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5))
    rates_length: float = 0.1
    """Of the weights' part that is noise, where growth rates are taken."""
    rates_overlap: float = 0.05
    """Of a unit with the centre that it turns to, there."""


_TIMES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0)
_EPSILON = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_ENDS = (0.0, 0.5)

FULL = Plan(
    lines=tuple(Line(unit, epsilon, _TIMES, 1000, 50) for unit in ("relu", "erf") for epsilon in (0.0, 0.3)),
    variances=(0.05, 0.1, 0.2),
    lengths=(0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02),
    noisy_variance=0.05,
    noisy_eta=0.1,
    noisy_epsilon=(0.9, 0.94, 0.96, 0.98, 0.99, 1.0, 1.01, 1.02, 1.04, 1.06, 1.08, 1.1),
    simulated_epsilon=(0.9, 0.94, 0.98, 1.0, 1.02, 1.06, 1.1),
    simulated_N=200,
    simulated_runs=32,
    simulated_alpha=1000.0,
    conditions=(
        Condition("as it is", _EPSILON, 256),
        Condition("eta = 0.1", _ENDS, 128, eta=0.1),
        Condition("overlaps of N = 500 at N = 5000", _ENDS, 128, N=5000),
        Condition("attack on the margin", _ENDS, 128, attack="margin"),
        Condition("output bias learns", _ENDS, 128, eta_b=0.5),
        Condition("|w| = 0.1 at the start", _ENDS, 128, size=0.1),
        Condition("one centre is missed before", _ENDS, 64, start="missing"),
        Condition("in R^N, the net's attack", _ENDS, 64, N=200, method="together"),
        Condition("in R^N, an attack for each unit", _ENDS, 64, N=200, method="alone"),
    ),
)

QUICK = Plan(
    lines=tuple(Line("relu", epsilon, (0.0, 1.0, 3.0, 6.0, 10.0), 400, 20) for epsilon in (0.0, 0.3)),
    variances=(0.1,),
    lengths=(0.3, 0.1, 0.05),
    noisy_variance=0.1,
    noisy_eta=0.2,
    noisy_epsilon=(0.95, 1.02, 1.1),
    simulated_epsilon=(0.95, 1.02, 1.1),
    simulated_N=100,
    simulated_runs=16,
    simulated_alpha=400.0,
    conditions=(
        Condition("as it is", _ENDS, 256),
        Condition("attack on the margin", _ENDS, 256, attack="margin"),
        Condition("one centre is missed before", _ENDS, 16, start="missing"),
    ),
    rates_epsilon=_ENDS,
)
