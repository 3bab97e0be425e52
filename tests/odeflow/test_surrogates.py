"""TRADES and pairing: the attack that the loss means, the descent on that loss, limits, and what is a decay of the weights."""

import math
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate as quadrature
from scipy import special

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, integrate_batch, rates, simulate, sweep
from odeflow.laws import Continuous, Uniform
from tests.odeflow.test_rules import of_kernel

Array = npt.NDArray[np.float64]

MIXTURE = GaussianMixture(0.7, 2.0, 1.0, 0.5)
OUTPUTS: dict[str, Any] = {"erf": special.erf, "tanh": np.tanh, "linear": lambda x: x}
KINDS = list(product(("squared", "logistic"), OUTPUTS))


def divergence(loss: str, g: Any, other: Any) -> Any:
    if loss == "squared":
        return (g - other) ** 2 / 2
    p, q = special.expit(g), special.expit(other)
    return p * (np.log(p) - np.log(q)) + (1 - p) * (special.log_expit(-g) - special.log_expit(-other))


def loss_of(rule: LearningRule, u: Any, a: float, kappa: float) -> Any:
    """Return the loss as its paper writes it; TRADES' attack is looked for in the whole ball."""
    g = OUTPUTS[rule.activation]

    def loss(margin: Any) -> Any:
        return (1 - g(margin)) ** 2 / 2 if rule.loss == "squared" else np.logaddexp(0, -g(margin))

    if rule.surrogate == "pairing":
        return (
            (1 - kappa) * loss(u - a) + kappa * loss(u) + rule.beta / 2 * (g(u) - g(u - a)) ** 2  # of the outputs
        )
    moves = np.linspace(-a, a, 41)
    far = divergence(rule.loss, g(u)[..., None], g(u[..., None] + moves)).max(-1)
    return loss(u) + rule.beta * far


@pytest.mark.parametrize(("loss", "activation"), KINDS)
def test_the_attack_of_trades_is_toward_zero(loss: str, activation: str) -> None:
    g, rng = OUTPUTS[activation], np.random.default_rng(0)
    for x, size in zip(rng.normal(0, 2, 200), rng.uniform(0.01, 3, 200), strict=True):
        ball = x + np.linspace(-size, size, 201)
        largest = divergence(loss, g(x), g(ball)).max()
        there = divergence(loss, g(x), g(x - size * np.sign(x)))
        assert there == pytest.approx(largest, rel=1e-9, abs=1e-12)  # rounding of nearly equal outputs
        if there > 1e-6 and (
            activation != "linear" or loss == "logistic"
        ):  # away from zero is less, but for a line's square
            away = divergence(loss, g(x), g(x + size * np.sign(x)))
            assert away < there


def expected_loss(rule: LearningRule, adversary: Adversary, y: Array) -> float:
    R, b, Q = y
    total, a = 0.0, adversary.epsilon * math.sqrt(Q)
    for prior, tau, v in ((MIXTURE.p, 1, MIXTURE.v1), (1 - MIXTURE.p, -1, MIXTURE.v2)):
        m, s = tau * (tau * MIXTURE.rho * R / 2 - b), math.sqrt(v * Q)
        edges = np.unique(np.clip([m - 9 * s, -a, 0.0, a, m, m + 9 * s], m - 9 * s, m + 9 * s))
        for low, high in pairwise(edges):
            nodes, weights = np.polynomial.legendre.leggauss(60)
            u = low + (high - low) / 2 * (1 + nodes)
            density = np.exp(-((u - m) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi))
            total += prior * float((high - low) / 2 * weights @ (density * loss_of(rule, u, a, adversary.clean_weight)))
    return total


@pytest.mark.parametrize("surrogate", ["trades", "pairing"])
@pytest.mark.parametrize(("loss", "activation"), KINDS)
def test_the_drift_descends_on_the_loss(surrogate: Any, loss: Any, activation: Any) -> None:
    """dw/dalpha = -eta dL/dw, so dR = -eta (L_R + 2 R L_Q) and dQ = -2 eta (R L_R + 2 Q L_Q), with L by brute force."""
    rule = LearningRule(
        0.6, 0.5, surrogate=surrogate, beta=2.0, loss=loss, activation=activation, normalised=False, second_order=False
    )
    adversary = Adversary(0.7, clean_weight=0.0 if surrogate == "trades" else 0.4)
    for y in (np.array([0.4, 0.3, 1.3]), np.array([-0.5, -1.0, 4.0])):

        def slope(i: int, y: Array = y) -> float:
            step = 1e-3 * np.eye(3)[i]
            L = [expected_loss(rule, adversary, y + k * step) for k in (-2, -1, 1, 2)]
            return (8 * (L[2] - L[1]) - (L[3] - L[0])) / 12e-3

        L_R, L_b, L_Q = map(slope, range(3))
        descent = [
            -0.6 * (L_R + 2 * y[0] * L_Q),
            -0.5 * L_b,
            -1.2 * (y[0] * L_R + 2 * y[2] * L_Q),
        ]
        np.testing.assert_allclose(rates(y[0], y[1], MIXTURE, rule, adversary, Q=y[2]), descent, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("loss", "activation"), KINDS)
def test_the_noise_is_the_mean_square_of_the_losss_slope(loss: Any, activation: Any) -> None:
    kind: dict[str, Any] = {"surrogate": "trades", "beta": 2.0, "loss": loss, "activation": activation}
    R, b, Q = 0.4, 0.3, 1.3
    both = [
        rates(R, b, MIXTURE, LearningRule(0.6, 0.5, normalised=False, second_order=on, **kind), Adversary(0.7), Q=Q)
        for on in (True, False)
    ]
    rule, a, expected = LearningRule(**kind), 0.7 * math.sqrt(Q), 0.0
    for prior, tau, v in ((MIXTURE.p, 1, MIXTURE.v1), (1 - MIXTURE.p, -1, MIXTURE.v2)):
        m, s = tau * (tau * MIXTURE.rho * R / 2 - b), math.sqrt(v * Q)

        def square(u: float, m: float = m, s: float = s) -> float:
            h = 1e-6
            low, high = loss_of(rule, np.array([u - h, u + h]), a, 0.0)
            return float(((high - low) / (2 * h)) ** 2 * math.exp(-((u - m) ** 2) / (2 * s * s)))

        for begin, end in ((m - 9 * s, -1e-6), (1e-6, m + 9 * s)):
            total = quadrature.quad(square, begin, end, limit=200, epsabs=1e-9)[0]
            expected += prior * v * total / (s * math.sqrt(2 * math.pi))
    assert both[0][2] - both[1][2] == pytest.approx(0.6**2 * expected, rel=2e-5)  # what is left out at the jump


@pytest.mark.parametrize("normalised", [True, False])
def test_without_weight_or_attack_a_surrogate_is_what_it_is_added_to(normalised: bool) -> None:
    base: dict[str, Any] = {"p": 0.7, "v2": 0.5, "normalised": normalised, "eta_w": 0.5, "alpha": [4.0, 20.0]}
    standard = integrate_batch(**base, epsilon=0.0).y
    attacked = integrate_batch(**base, epsilon=0.6, clean_weight=0.3).y
    none = integrate_batch(**base, surrogate="trades", beta=[0.0, 5.0], epsilon=[0.6, 0.0]).y
    np.testing.assert_allclose(none, np.broadcast_to(standard, none.shape), rtol=1e-6)
    paired = integrate_batch(**base, surrogate="pairing", beta=0.0, epsilon=0.6, clean_weight=0.3).y
    np.testing.assert_allclose(paired, attacked, rtol=1e-6)
    assert np.max(np.abs(attacked - standard)) > 0.01
    full = integrate_batch(**base, surrogate="trades", beta=2.0, epsilon=0.6).y
    assert np.max(np.abs(full - standard)) > 0.01


@pytest.mark.parametrize(
    ("surrogate", "loss", "plain"),
    [("trades", "squared", 0.0), ("pairing", "squared", 0.7), ("pairing", "logistic", 0.7)],
)
def test_pairing_the_outputs_of_a_line_is_a_decay_of_its_weights(surrogate: Any, loss: Any, plain: float) -> None:
    """|x - x'| = epsilon |w| for every example: beta epsilon^2 |w|^2 / 2, which does nothing to normalised weights."""
    model: dict[str, Any] = {
        "p": 0.7,
        "v2": 0.5,
        "activation": "linear",
        "loss": loss,
        "eta_w": 0.3,
        "alpha": [2.0, 9.0],
    }
    paired = {**model, "surrogate": surrogate, "beta": 0.8, "epsilon": 0.7}
    free = integrate_batch(**paired, normalised=False).y
    decays = integrate_batch(**model, normalised=False, decay_w=0.8 * 0.7**2, epsilon=plain).y
    np.testing.assert_allclose(free, decays, rtol=1e-6)
    assert np.max(np.abs(free - integrate_batch(**model, normalised=False, epsilon=plain).y)) > 0.01
    np.testing.assert_allclose(integrate_batch(**paired).y, integrate_batch(**model, epsilon=plain).y, rtol=1e-6)
    # in runs too: the update of a step adds what the decay takes
    rules = (
        LearningRule(0.3, activation="linear", loss=loss, normalised=False, **fields)
        for fields in ({"surrogate": surrogate, "beta": 0.8}, {"decay_w": 0.8 * 0.7**2})
    )
    for method in ("reduced", "direct"):
        one, other = (
            simulate(MIXTURE, rule, Adversary(size), N=40, alpha=[2.0], runs=4, rng=1, method=method)
            for rule, size in zip(rules, (0.7, plain), strict=True)
        )
        np.testing.assert_allclose(one.R, other.R, rtol=1e-9)
        np.testing.assert_allclose(one.Q, other.Q, rtol=1e-9)
        break


def test_the_divergence_of_probabilities_is_no_decay() -> None:
    model: dict[str, Any] = {"activation": "linear", "loss": "logistic", "normalised": False, "alpha": [9.0], "p": 0.7}
    trades = integrate_batch(**model, surrogate="trades", beta=0.8, epsilon=0.7).y
    decays = integrate_batch(**model, decay_w=0.8 * 0.7**2).y
    assert np.max(np.abs(trades - decays)) > 0.01


def test_noise_on_the_input_is_learning_from_wider_classes() -> None:
    """Exactly, at any N: one-pass noise is drawn with the example. The errors stay those of the data."""
    rule, wide = LearningRule(0.6, 0.5, input_noise=0.8), GaussianMixture(0.7, 2.0, 1.0 + 0.64, 0.5 + 0.64)
    noisy = integrate(MIXTURE, rule, Adversary(0.3), alpha=[3.0, 9.0], test_epsilon=0.5)
    wider = integrate(wide, LearningRule(0.6, 0.5), Adversary(0.3), alpha=[3.0, 9.0], test_epsilon=0.5)
    for name in ("R", "b"):
        np.testing.assert_allclose(noisy[name], wider[name], rtol=1e-7)
    assert np.all(noisy.adversarial_error < wider.adversarial_error - 0.01)
    for method in ("reduced", "direct"):
        one, other = (
            simulate(mixture, learner, Adversary(0.3), N=20, alpha=[3.0], runs=8, rng=1, method=method)
            for mixture, learner in ((MIXTURE, rule), (wide, LearningRule(0.6, 0.5)))
        )
        np.testing.assert_allclose(one.R, other.R, rtol=1e-9)


def test_equal_classes_have_no_bias() -> None:
    kinds: list[dict[str, Any]] = [{"surrogate": "trades", "beta": 4.0}, {"surrogate": "pairing", "beta": 1.0}]
    for kind in kinds:
        y = integrate_batch(p=0.5, epsilon=0.7, **kind, alpha=[100.0]).y[0, 0]
        assert abs(y[1]) < 1e-9
        assert y[0] > 0.8


@pytest.mark.slow
def test_kernels_keep_their_precision_for_any_size_of_the_attack() -> None:
    for surrogate, (loss, activation) in product(("trades", "pairing"), KINDS):
        kind: Any = {"surrogate": surrogate, "loss": loss, "activation": activation}
        rule = LearningRule(0.6, 0.5, beta=3.0, normalised=False, smoothing=0.1, **kind)
        for epsilon, y in product(
            (0.0, 0.3, 2.5, 12.0, 80.0), ((0.4, 0.3, 1.3), (3.0, -5.0, 400.0), (0.001, 2.0, 1e-4))
        ):
            adversary = Adversary(epsilon, clean_weight=0.0 if surrogate == "trades" else 0.3)
            expected = rates(y[0], y[1], MIXTURE, rule, adversary, Q=y[2])
            np.testing.assert_allclose(of_kernel(rule, adversary, list(y)), expected, rtol=1e-9, atol=1e-9)


def test_a_law_of_the_attack_is_averaged() -> None:
    """A surrogate under a random attack has the mean of the rates under its sizes."""
    rule = LearningRule(0.6, 0.5, surrogate="trades", beta=3.0)
    random = rates(0.4, 0.3, MIXTURE, rule, Adversary(0.7, law=Uniform(0.5, 1.5)))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    at = np.array([rates(0.4, 0.3, MIXTURE, rule, Adversary(0.7 * (1 + node / 2))) for node in nodes])
    np.testing.assert_allclose(random, weights @ at / 2, rtol=1e-9)


def test_what_does_not_go_together_is_named() -> None:
    with pytest.raises(ValueError, match=r"beta = 0\.5 with surrogate = 'none': allowed is 0"):
        LearningRule(beta=0.5)
    with pytest.raises(ValueError, match=r"beta = 0\.5: allowed is 0 with surrogate = 'none'"):
        integrate_batch(beta=[0.0, 0.5], alpha=[1.0])
    with pytest.raises(ValueError, match=r"surrogate = 'trade' is unknown: allowed is one of none, trades, pairing"):
        LearningRule(surrogate="trade")  # type: ignore[arg-type]
    kinds: list[Any] = [{"loss": "hinge"}, {"activation": "sign"}, {"update": "non_robust"}]
    for kind in kinds:
        with pytest.raises(ValueError, match=r"surrogate = 'trades' with .*allowed is 'none'"):
            LearningRule(surrogate="trades", beta=1.0, **kind)
    trades = LearningRule(surrogate="trades", beta=1.0)
    with pytest.raises(ValueError, match=r"attack = 'blind' with surrogate = 'trades': allowed is 'fgsm'"):
        integrate(MIXTURE, trades, Adversary(0.5, attack="blind"), alpha=[1.0])
    with pytest.raises(ValueError, match=r"clean_weight = 0\.3 with surrogate = 'trades': allowed is 0"):
        simulate(MIXTURE, trades, Adversary(0.5, clean_weight=0.3), N=10, alpha=[1.0], runs=1)
    with pytest.raises(ValueError, match=r"clean_weight = 0\.3: allowed is 0 with surrogate = 'trades'"):
        sweep(MIXTURE, trades, Adversary(0.5), over={"clean_weight": [0.0, 0.3]}, alpha=[1.0])
    from scipy import stats

    heavy = Adversary(0.5, law=Continuous(stats.pareto(1.5)))
    with pytest.raises(ValueError, match="no finite mean square"):
        integrate(MIXTURE, LearningRule(surrogate="trades", loss="logistic", activation="linear"), heavy, alpha=[1.0])
