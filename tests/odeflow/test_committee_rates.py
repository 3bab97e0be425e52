"""Rates and simulated steps of two-layer networks with every parameter in use, against steps in input space written down here.

Nothing here knows of Cholesky factors, of conditional means or of the order parameters' equations: examples are points, a step
moves the weights, and its overlaps are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf, ndtri
from scipy.stats import qmc

from odeflow import (
    Adversary,
    Committee,
    GaussianClusters,
    GaussianMixture,
    LearningRule,
    TeacherStudent,
    integrate,
    simulate,
)
from odeflow.laws import Discrete
from odeflow.order_parameters.base import flat

Array = npt.NDArray[np.float64]

RULE = LearningRule(0.7, 0.4)
LAW = Discrete((0.5, 1.5), (0.4, 0.6))
THREE = GaussianClusters(
    means=[[1.0, 0.2], [-0.5, 0.9], [0.1, -1.1]], labels=(1, -1, 1), weights=(0.5, 0.3, 0.2), variances=(0.6, 1.0, 1.3),
    scale=0.8, spread=0.7,
)  # fmt: skip


def teacher(activation: Any) -> TeacherStudent:
    return TeacherStudent(2, activation, weights=(1.1, -0.7), gram=[[1.0, 0.3], [0.3, 0.8]], scale=0.9)


CASES: dict[str, tuple[Any, Committee, Adversary]] = {
    "seed, erf": (
        GaussianMixture(0.7, 1.8, 0.9, 0.6), Committee(2, "erf", eta_c=0.3, eta_theta=0.5),
        Adversary(0.4, fraction=0.7, law=LAW),
    ),
    "clusters, erf-x": (
        THREE, Committee(2, "erf-x", eta_c=0.3, eta_theta=0.5), Adversary(0.4, fraction=0.7, law=LAW),
    ),
    "clusters, relu, margin": (
        THREE, Committee(2, "relu", eta_c=0.3, eta_theta=0.5), Adversary(0.4, fraction=0.7, law=LAW, attack="margin"),
    ),
    "teacher, erf-x of erf-x": (
        teacher("erf-x"), Committee(2, "erf-x", eta_c=0.3, eta_theta=0.5), Adversary(0.4, fraction=0.7, law=LAW),
    ),
    "teacher, erf of relu": (
        teacher("relu"), Committee(2, "erf", eta_c=0.3, eta_theta=0.5, tolerance=1e-4), Adversary(0.4),
    ),
    "teacher, relu of erf": (
        teacher("erf"), Committee(2, "relu", eta_c=0.3, eta_theta=0.5, tolerance=1e-4), Adversary(0.4, fraction=0.7),
    ),
}  # fmt: skip
"""Data, network and adversary: no parameter is 0 or 1 where another value is possible."""


def unit(activation: str, x: Array) -> Array:
    return (
        np.maximum(x, 0.0)
        if activation == "relu"
        else np.asarray(erf(x / math.sqrt(1 if activation == "erf-x" else 2)))
    )


def slope(activation: str, x: Array) -> Array:
    if activation == "relu":
        return np.where(x > 0, 1.0, 0.0)
    scale = 1.0 if activation == "erf-x" else math.sqrt(0.5)
    return 2 / math.sqrt(math.pi) * scale * np.exp(-((scale * x) ** 2))


@dataclass
class Plain:
    """A network of two units in the space of the data's directions and two more; the rest of the input has length sqrt(N v)."""

    data: Any
    network: Committee
    adversary: Adversary

    def __post_init__(self) -> None:
        data = self.data
        self.p: tuple[float, ...]
        self.v: tuple[float, ...]
        self.labels: tuple[float, ...]
        self.centres: Array
        self.directions: Array
        if isinstance(data, GaussianMixture):
            self.centres, self.labels = np.array([[0.5], [-0.5]]) * data.rho, (1.0, -1.0)
            self.p, self.v, self.directions = (data.p, 1 - data.p), (data.v1, data.v2), self.centres[:1]
        elif isinstance(data, TeacherStudent):
            self.directions = np.asarray(np.linalg.cholesky(data.products()), np.float64)
            self.centres, self.labels, self.p, self.v = np.zeros((1, 2)), (0.0,), (1.0,), (1.0,)
        else:
            self.directions = self.centres = data.scale * np.array(data.means)
            self.labels, self.p, self.v = data.labels, data.weights, data.spread * np.array(data.variances)
        size = self.directions.shape[1]
        self.axes = size + 2
        self.w = np.zeros((2, self.axes))
        self.w[:, :size] = np.array([[0.3, -0.2], [0.15, 0.4]])[:, :size]
        self.w[:, size:] = [[0.5, 0.1], [-0.2, 0.6]]
        self.c, self.theta, self.b = np.array([1.2, -0.7]), np.array([0.2, -0.1]), 0.15

    @property
    def state(self) -> dict[str, Any]:
        overlaps = self.w[:, : self.directions.shape[1]] @ self.directions.T
        first = "R" if isinstance(self.data, TeacherStudent) else "M"
        overlaps = overlaps[:, 0] if isinstance(self.data, GaussianMixture) else overlaps
        return {first: overlaps, "Q": self.w @ self.w.T, "c": self.c, "theta": self.theta, "b": np.array(self.b)}

    def rates(self, z: Array) -> Array:
        """Return N times the mean change in a step, by the state's entries, for examples of normal coordinates z."""
        adversary = self.adversary
        law: Any = adversary.law or Discrete()
        parts = [(1 - adversary.fraction, 0.0)]
        parts += [
            (adversary.fraction * q, adversary.epsilon * f) for f, q in zip(law.values, law.probabilities, strict=True)
        ]
        total: Any = 0.0
        for p, v, centre, label in zip(self.p, self.v, self.centres, self.labels, strict=True):
            xi = math.sqrt(v) * z
            xi[:, : centre.size] += centre
            tau = np.full(len(z), label)
            if isinstance(self.data, TeacherStudent):
                nu = xi[:, : centre.size] @ self.directions.T
                tau = unit(self.data.activation, nu) @ np.array(self.data.weights)
            total = total + sum(p * share * self._step(xi, tau, v, size) for share, size in parts)
        return np.asarray(total)

    def _output(self, xi: Array) -> tuple[Array, Array]:
        x = xi @ self.w.T - self.theta
        return x, np.asarray(self.b + unit(self.network.activation, x) @ self.c)

    def _attacked(self, xi: Array, tau: Array, size: float) -> Array:
        x, phi = self._output(xi)
        error = phi - tau if self.adversary.attack == "fgsm" else -tau
        gradient = (self.c * slope(self.network.activation, x)) @ self.w
        length = np.linalg.norm(gradient, axis=1, keepdims=True)
        return np.asarray(xi + size * np.sign(error)[:, None] * gradient / np.where(length > 0, length, 1.0))

    def loss(self, z: Array, size: float) -> float:
        """Return the mean loss on examples of normal coordinates z, with a teacher."""
        tau = unit(self.data.activation, z[:, :2] @ self.directions.T) @ np.array(self.data.weights)
        return float(np.mean((self._output(self._attacked(z, tau, size))[1] - tau) ** 2) / 2)

    def _step(self, xi: Array, tau: Array, v: float, size: float) -> Array:
        net, w, c, n = self.network, self.w, self.c, len(xi)
        xi = self._attacked(xi, tau, size)
        x, phi = self._output(xi)
        e = phi - tau
        s = -e[:, None] * c * slope(net.activation, x)
        mean = s.T @ xi / n
        dw = RULE.eta_w * mean
        change = dw @ w.T
        noise = RULE.eta_w**2 * v * s.T @ s / n
        dM = dw[:, : self.directions.shape[1]] @ self.directions.T
        dM = dM[:, 0] if isinstance(self.data, GaussianMixture) else dM
        dc, dtheta = -net.eta_c * e @ unit(net.activation, x) / n, -net.eta_theta * s.mean(0)
        return np.concatenate([dM.ravel(), (change + change.T + noise).ravel(), dc, dtheta, [-RULE.eta_b * e.mean()]])


def points(dimensions: int, log_count: int, sets: int) -> list[Array]:
    """Return scrambled Sobol' points, normal."""
    drawn = (qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(log_count) for seed in range(sets))
    return [np.asarray(ndtri(np.clip(one, 1e-12, 1 - 1e-12))) for one in drawn]


@pytest.mark.parametrize("name", CASES)
def test_the_rates_are_the_mean_steps_of_points_in_input_space(name: str) -> None:
    plain = Plain(*CASES[name])
    variables = plain.network.variables(RULE, plain.data)
    found = flat(plain.network.rates(plain.state, plain.data, RULE, plain.adversary), variables)
    means = np.array([plain.rates(z) for z in points(plain.axes, 13, 16)])
    error = means.std(axis=0, ddof=1) / 4
    # Student's t of 15 degrees of freedom: beyond 6 once in 40,000
    np.testing.assert_array_less(np.abs(means.mean(axis=0) - found), 6 * error + 2 * plain.network.tolerance)
    # each entry is larger than what could hide in that, or a sign of it
    assert np.max(error) < 1e-3
    assert np.min(np.abs(found)) > 3 * np.max(error)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_step_of_simulate_has_these_rates(name: str) -> None:
    """What is between `simulate` and the loop that has tests of its own: gains, scales, laws, rates."""
    plain = Plain(*CASES[name])
    variables, N, runs = plain.network.variables(RULE, plain.data), 2000, 20_000
    network = replace(plain.network, errors=())  # of so many runs they take long
    options: dict[str, Any] = {"network": network, "start": plain.state, "alpha": [0.0, 1 / N], "N": N, "rng": 1}
    seen = simulate(plain.data, RULE, plain.adversary, runs=runs, **options)
    values = flat({v.name: seen[v.name].transpose("run", "alpha", ...).values for v in variables}, variables)
    np.testing.assert_allclose(values[:, 0], np.tile(flat(plain.state, variables), (runs, 1)), atol=1e-12)
    steps = N * (values[:, 1] - values[:, 0])
    expected = np.mean([plain.rates(z) for z in points(plain.axes, 13, 4)], axis=0)
    error = steps.std(axis=0) / math.sqrt(runs)
    np.testing.assert_array_less(np.abs(steps.mean(axis=0) - expected), 4.5 * error + 10 / N)


def test_the_losses_with_a_teacher_are_those_of_points_in_input_space() -> None:
    plain = Plain(*CASES["teacher, erf-x of erf-x"])
    found = plain.network.measured(plain.state, plain.data, {"scale": np.array(plain.data.scale)}, 0.3)
    for name, size in (("loss", 0.0), ("adversarial_loss", 0.3)):
        drawn = [plain.loss(z, size) for z in points(plain.axes, 13, 16)]
        assert float(found[name]) == pytest.approx(np.mean(drawn), abs=6 * float(np.std(drawn, ddof=1)) / 4 + 1e-5)
        assert np.std(drawn, ddof=1) < 2e-3


@pytest.mark.parametrize(("c", "overlap"), [((1.0, -1.0), 0.5), ((1.0, 1.0), -0.5)])
def test_units_whose_outputs_cancel_learn_under_attack(c: tuple[float, float], overlap: float) -> None:
    """The output is 0 everywhere, and no direction is that of an attack."""
    start: Any = {"c": c, "M": [0.1, math.copysign(0.1, overlap)], "Q": [[0.5, overlap], [overlap, 0.5]]}
    model: Any = (GaussianMixture(), LearningRule(0.5), Adversary(0.3))
    theory = integrate(*model, network=Committee(2), start=start, alpha=[2.0])
    runs = simulate(*model, network=Committee(2), start=start, alpha=[2.0], N=1000, runs=20, rng=1)
    for name in ("M", "Q"):
        error = runs[name].std("run") / np.sqrt(20)
        assert bool((abs(runs[name].mean("run") - theory[name]) < 4 * error + 4 / 1000).all()), name
    assert float(theory.M.isel(alpha=-1, unit=0)) > 0.2  # they have learned


def test_a_relu_on_its_kink_learns_nothing() -> None:
    """The worst case moves a share of the examples onto a kink, where the derivative is 0."""
    state = {"M": [0.3, 0.25], "Q": [[0.6, 0.15], [0.15, 0.5]], "c": [1.0, -0.8], "theta": [0.2, -0.1], "b": 0.15}
    network = Committee(2, "relu", eta_theta=1.0)
    rates = network.rates(
        {name: np.asarray(value) for name, value in state.items()},
        GaussianMixture(0.7), LearningRule(1.0, 1.0), Adversary(0.5, attack="worst"),
    )  # fmt: skip
    # by examples in R^N, with the kinks among the candidates: (-0.028, 0.487) +- 0.009; with the derivative 1: (-0.200, 0.453)
    np.testing.assert_allclose(rates["theta"], [-0.028, 0.487], atol=0.027)
