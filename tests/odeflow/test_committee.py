"""The two-layer network with one unit, against independent quadrature, the perceptron that it can be, and its limits."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import ks_2samp

from odeflow import Adversary, Committee, GaussianMixture, LearningRule, integrate, rates, simulate
from tests.odeflow.one_unit import averages
from tests.odeflow.one_unit import rates as plain_rates

MIXTURE = GaussianMixture(0.7, 2.0, 1.0, 0.8)


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
@pytest.mark.parametrize(("c", "b", "theta"), [(1.0, 0.0, 0.1), (1.6, 0.2, -0.3), (-0.7, 0.5, 0.2), (1.3, -0.1, 0.0)])
def test_the_averages_are_those_of_adaptive_quadrature(epsilon: float, c: float, b: float, theta: float) -> None:
    M, v, Q, tau = 0.4, 0.8, 1.3, 1.0

    def integrand(y: float, k: int) -> float:
        x = M + math.sqrt(v * Q) * y - theta
        d = epsilon * np.sign(b + c * erf(x / math.sqrt(2)) - tau) * np.sign(c) / math.sqrt(Q)
        x += Q * d
        g = erf(x / math.sqrt(2))
        e = b + c * g - tau
        s = -e * c * math.sqrt(2 / math.pi) * math.exp(-x * x / 2)
        return float((s, s * y, s * d, s * s, e * g, e)[k] * math.exp(-y * y / 2) / math.sqrt(2 * math.pi))

    found = averages(np.array(M), v, np.array(Q), np.array(c), np.array(theta), np.array(b), tau, epsilon)
    ys = np.linspace(-9, 9, 200_001)
    outputs = b + c * erf((M + math.sqrt(v * Q) * ys - theta) / math.sqrt(2)) - tau
    jumps = ys[:-1][np.diff(np.sign(outputs)) != 0].tolist()
    for k in range(6):
        # the jump is known to 1e-4 here: the integral is split on both sides of it
        edges = [-9.0, *(jump + side * 1e-4 for jump in jumps for side in (-1, 1)), 9.0]
        expected = sum(quad(integrand, low, high, (k,), epsabs=1e-13, limit=400)[0] for low, high in pairwise(edges))
        assert float(found[k]) == pytest.approx(expected, abs=2e-9 if jumps and epsilon else 1e-11)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.5])
def test_the_rates_of_one_unit_are_those_of_plain_panels(epsilon: float) -> None:
    net, rule, adversary = Committee(eta_c=0.2, eta_theta=0.4), LearningRule(0.5, 0.3), Adversary(epsilon, fraction=0.7)
    rng = np.random.default_rng(3)
    for _ in range(12):
        state: dict[str, Any] = {
            "M": rng.normal(size=1),
            "Q": np.exp(rng.normal(size=(1, 1))),
            "c": rng.normal(size=1) * 1.5,
            "theta": rng.normal(size=1) * 0.5,
            "b": np.array(rng.normal() * 0.5),
        }
        found = net.rates(state, MIXTURE, rule, adversary)
        for name, value in plain_rates(state, net, MIXTURE, rule, adversary).items():
            assert float(np.ravel(found[name])[0]) == pytest.approx(value, abs=1e-10), (name, state)


def test_with_the_output_weight_1_its_rates_are_those_of_a_free_perceptron() -> None:
    """erf(x / sqrt 2) of w is erf(x) of w / sqrt 2, at half the learning rate; |erf| < 1 never overshoots."""
    M, Q, theta, epsilon = 0.3, 1.3, 0.2, 0.6
    net = Committee(eta_theta=0.4)
    state = {"M": np.array([M]), "Q": np.array([[Q]]), "c": np.ones(1), "theta": np.array([theta]), "b": np.array(0.0)}
    found = net.rates(state, MIXTURE, LearningRule(0.5), Adversary(epsilon))
    rule = LearningRule(0.25, 0.2, normalised=False)
    R = 2 * M / MIXTURE.rho / math.sqrt(2)
    dR, db, dQ = rates(R, theta / math.sqrt(2), MIXTURE, rule, Adversary(epsilon), Q=Q / 2)
    assert found["M"][0] == pytest.approx(dR * math.sqrt(2) * MIXTURE.rho / 2, abs=1e-12)
    assert found["theta"][0] == pytest.approx(db * math.sqrt(2), abs=1e-12)
    assert found["Q"][0, 0] == pytest.approx(2 * dQ, abs=1e-12)


def test_the_error_is_the_share_of_drawn_examples_on_the_wrong_side() -> None:
    rng = np.random.default_rng(0)
    n, epsilon = 400_000, 0.3
    tau = np.where(rng.random(n) < MIXTURE.p, 1.0, -1.0)
    sd = np.sqrt(np.where(tau > 0, MIXTURE.v1, MIXTURE.v2))
    points = {"p": MIXTURE.p, "rho": 2.0, "v1": MIXTURE.v1, "v2": MIXTURE.v2}
    for M, Q, c, theta, b in ((0.5, 1.2, 1.0, 0.1, 0.2), (0.5, 1.2, -0.8, -0.4, 0.3), (-0.2, 0.7, 2.0, 0.3, -0.5)):
        field = tau * M + sd * math.sqrt(Q) * rng.standard_normal(n)
        # the worst perturbation moves the field by -tau sgn(c) epsilon sqrt Q: the output is monotone in it
        attacked = field - tau * np.sign(c) * epsilon * math.sqrt(Q)
        share = np.mean(tau * (b + c * erf((attacked - theta) / math.sqrt(2))) <= 0)
        state = {
            "M": np.array([M]),
            "Q": np.array([[Q]]),
            "c": np.array([c]),
            "theta": np.array([theta]),
            "b": np.array(b),
        }
        assert float(Committee().measured(state, MIXTURE, points, epsilon)["adversarial_error"]) == pytest.approx(
            share, abs=4 * 0.5 / math.sqrt(n)
        )


def test_an_output_bias_beyond_the_output_weight_makes_a_constant_classifier() -> None:
    state = {
        "M": np.array([0.5]),
        "Q": np.array([[1.0]]),
        "c": np.array([0.3]),
        "theta": np.zeros(1),
        "b": np.array(0.4),
    }
    points = {"p": 0.7, "rho": 2.0, "v1": 1.0, "v2": 1.0}
    assert float(Committee().measured(state, MIXTURE, points, 5.0)["adversarial_error"]) == pytest.approx(
        0.3, abs=1e-15
    )
    state["b"] = np.array(-0.4)
    assert float(Committee().measured(state, MIXTURE, points, 0.0)["adversarial_error"]) == pytest.approx(
        0.7, abs=1e-15
    )


def test_both_simulations_have_one_law() -> None:
    net, rule, adversary = Committee(eta_theta=0.3, eta_c=0.2), LearningRule(0.5, 0.3), Adversary(0.4, fraction=0.8)
    methods: tuple[Any, ...] = ("reduced", "direct")
    reduced, direct = (
        simulate(MIXTURE, rule, adversary, network=net, N=40, alpha=[4.0], runs=400, method=method, rng=seed)
        for seed, method in enumerate(methods)
    )
    for name in ("M", "Q", "c", "theta", "b"):
        one, other = (points[name].values.ravel() for points in (reduced, direct))
        assert ks_2samp(one, other).pvalue > 1e-3, name
        assert np.std(one) > 0


def test_swapping_the_classes_turns_it_round() -> None:
    alpha, rule, adversary, net = [3.0], LearningRule(0.5, 0.3), Adversary(0.4), Committee(eta_theta=0.2, eta_c=0.1)
    begin = {"M": 0.2, "theta": 0.1, "b": 0.05}
    turned = {"M": 0.2, "theta": -0.1, "b": -0.05}
    one = integrate(MIXTURE, rule, adversary, network=net, alpha=alpha, start=begin)
    swapped = GaussianMixture(1 - MIXTURE.p, MIXTURE.rho, MIXTURE.v2, MIXTURE.v1)
    other = integrate(swapped, rule, adversary, network=net, alpha=alpha, start=turned)
    for name, sign in (("M", 1), ("Q", 1), ("c", 1), ("theta", -1), ("b", -1), ("adversarial_error", 1)):
        np.testing.assert_allclose(one[name], sign * other[name], atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 1.5}, "hidden = 1.5 is out of range: allowed is a whole number >= 1"),
        ({"hidden": 0}, "hidden = 0 is out of range"),
        ({"activation": "tanh"}, "activation = 'tanh' is unknown: allowed is one of erf, erf-x, relu"),
        ({"eta_c": -1.0}, "eta_c = -1.0 is out of range"),
    ],
)
def test_bad_fields_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Committee(**arguments)  # type: ignore[arg-type]


def test_rules_of_the_perceptron_and_impossible_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="loss = 'hinge': allowed for the committee is 'squared'"):
        integrate(MIXTURE, LearningRule(loss="hinge"), Adversary(), network=Committee(), alpha=[1.0])
    with pytest.raises(ValueError, match=r"M0 = 2\.0 is out of range: allowed is \|M0\| <= \(rho/2\) sqrt\(Q0\)"):
        integrate(MIXTURE, LearningRule(), Adversary(), network=Committee(), alpha=[1.0], M0=2.0)
    with pytest.raises(
        ValueError, match=r"Q0 has shape \(2,\): allowed is a number, or an array of shape \(1, 1\), of unit"
    ):
        integrate(MIXTURE, LearningRule(), Adversary(), network=Committee(), alpha=[1.0], Q0=[1.0, 2.0])
