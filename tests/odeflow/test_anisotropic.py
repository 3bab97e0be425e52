"""Theory of two Gaussian classes with any means and covariances: against the seed model, simulations and its own equations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import odeflow
from odeflow import Adversary, GaussianMixture, LearningRule, anisotropic
from odeflow.anisotropic import Mixture
from odeflow.anisotropic.closure import Closure, Frozen
from odeflow.anisotropic.fluctuations import Drift, Fluctuations, Noise, Subspace
from odeflow.anisotropic.norms import L2, LInfinity
from odeflow.laws import Uniform
from tests.odeflow.mixtures import Array, random_mixture

# --- the seed model is a special case ---


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(
    ("seed_mixture", "epsilon"), [(GaussianMixture(), 1.0), (GaussianMixture(p=0.7, v1=1.0, v2=2.0), 0.5)]
)
def test_the_isotropic_mixture_follows_the_seed_model(
    seed_mixture: GaussianMixture, epsilon: float, normalised: bool
) -> None:
    N, alpha = 3000, [0.0, 1.0, 10.0, 100.0]
    rule, adversary = LearningRule(normalised=normalised), Adversary(epsilon)
    seed = odeflow.integrate(seed_mixture, rule, adversary, alpha=alpha)
    general = anisotropic.integrate(
        Mixture.isotropic(seed_mixture, N=N), rule, adversary, alpha=alpha, w0=1.0, weights=True, rtol=1e-5
    )
    # both the dimension and the tolerance are finite
    allowed: dict[str, Any] = {"rtol": 0.0, "atol": 3 / N}
    np.testing.assert_allclose(general.w.isel(feature=0), seed.R, **allowed)
    np.testing.assert_allclose(general.b, seed.b, **allowed)
    np.testing.assert_allclose(general.l2_norm, 1.0 if normalised else np.sqrt(seed.Q), **allowed)
    np.testing.assert_allclose(general.error, seed.error, **allowed)
    np.testing.assert_allclose(general.adversarial_error, seed.adversarial_error, **allowed)


@pytest.mark.slow
def test_simulations_of_the_isotropic_mixture_have_the_seed_models_law() -> None:
    N, alpha, runs = 50, [10.0], 400
    mixture, rule, adversary = GaussianMixture(p=0.7), LearningRule(), Adversary(0.5)
    seed = odeflow.simulate(mixture, rule, adversary, N=N, alpha=alpha, runs=runs, rng=1)
    w0 = np.eye(N)[1]  # R(0) = 0
    general = anisotropic.simulate(
        Mixture.isotropic(mixture, N=N), rule, adversary, alpha=alpha, runs=runs, rng=2, w0=w0, weights=True
    )
    assert scipy.stats.ks_2samp(general.w[:, 0, 0], seed.R[:, 0]).pvalue > 1e-3
    assert scipy.stats.ks_2samp(general.b[:, 0], seed.b[:, 0]).pvalue > 1e-3
    np.testing.assert_allclose(general.l2_norm, 1.0)


# --- theory against simulation ---

SETTINGS = {
    "l2": (LearningRule.per_example(0.02, 40), Adversary(0.3)),
    "linf": (LearningRule.per_example(0.02, 40), Adversary(0.1, norm="linf")),
    "no attack": (LearningRule.per_example(0.02, 40, eta_b=0.05), Adversary()),
    "half are attacked": (LearningRule.per_example(0.02, 40), Adversary(0.3, fraction=0.5, norm="linf")),
    "random epsilon": (LearningRule.per_example(0.02, 40), Adversary(0.1, law=Uniform(0.0, 2.0), norm="linf")),
    "logistic": (LearningRule.per_example(0.05, 40, loss="logistic", activation="linear"), Adversary(0.2)),
    "hinge": (LearningRule.per_example(0.02, 40, loss="hinge", activation="linear"), Adversary(0.2)),
    "normalised": (LearningRule(eta_w=0.4, eta_b=0.4), Adversary(0.1, norm="linf")),
}
# Weights of length 1 that are drawn at random are nothing but fluctuation: they start at one place instead.
START: dict[str, Any] = {"normalised": np.full(40, 40**-0.5)}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_theory_with_noise_follows_the_mean_of_simulations(setting: str) -> None:
    rule, adversary = SETTINGS[setting]
    mixture, runs = random_mixture(40), 100
    arguments: dict[str, Any] = {
        "examples": [100, 1000], "test_epsilon": [0.0, 0.2, 0.6], "w0": START.get(setting),
    }  # fmt: skip
    theory = anisotropic.integrate(mixture, rule, adversary, **arguments)
    sample = anisotropic.simulate(mixture, rule, adversary, runs=runs, rng=3, **arguments)
    for name, accuracy in (("l1_norm", 0.03), ("l2_norm", 0.03), ("error", 0.01), ("adversarial_error", 0.01)):
        mean = sample[name].mean("run")
        scale = mean if name.endswith("norm") else 1.0
        allowed = 4 * sample[name].std("run") / np.sqrt(runs) + accuracy * scale
        assert np.all(abs(theory[name] - mean) <= allowed), name


@pytest.mark.slow
@pytest.mark.parametrize("adversary", [Adversary(0.3), Adversary(0.1, norm="linf")])
def test_a_small_learning_rate_approaches_the_limit_in_proportion(adversary: Adversary) -> None:
    mixture = random_mixture(40)
    start = np.full(40, 0.01)
    deviations = []
    for eta in (0.004, 0.001):
        arguments: dict[str, Any] = {"examples": [10 / eta], "w0": start, "weights": True, "rtol": 1e-3}
        rule = LearningRule.per_example(eta, 40)
        limit_rule = LearningRule.per_example(eta, 40, second_order=False)
        limit = anisotropic.integrate(mixture, limit_rule, adversary, **arguments)
        noise = anisotropic.integrate(mixture, rule, adversary, **arguments)
        sample = anisotropic.simulate(mixture, rule, adversary, runs=20, rng=4, examples=[10 / eta], w0=start)
        assert float(limit.w_sd.max()) < 1e-6
        deviations.append(float(abs(noise.l2_norm - limit.l2_norm)[0]))
        mean, error = sample.l2_norm.mean("run"), sample.l2_norm.std("run") / np.sqrt(20)
        assert float(abs(noise.l2_norm - mean)[0]) <= 4 * float(error[0]) + 0.1 * deviations[-1]
    assert 3 < deviations[0] / deviations[1] < 5  # linear in eta


@pytest.mark.slow
def test_tighter_tolerances_converge() -> None:
    mixture = random_mixture(40)
    for adversary in (Adversary(0.3), Adversary(0.1, norm="linf")):
        runs = [
            anisotropic.integrate(
                mixture, LearningRule.per_example(0.02, 40), adversary, examples=[1000], rtol=rtol, weights=True
            )
            for rtol in (3e-2, 3e-3, 1e-4)
        ]
        error = [float(np.linalg.norm(run.w - runs[-1].w) / np.linalg.norm(runs[-1].w)) for run in runs]
        assert error[0] < 3e-2
        assert error[1] < error[0] / 3


def test_more_than_all_components_are_as_many_as_all() -> None:
    mixture = random_mixture(30)
    rule, adversary = LearningRule.per_example(0.02, 30), Adversary(0.1, norm="linf")
    full, more = (
        anisotropic.integrate(mixture, rule, adversary, examples=[500], rank=rank).l1_norm for rank in (30, 300)
    )
    np.testing.assert_allclose(full, more, rtol=1e-9)


# --- the equations ---


def closure_at(adversary: Adversary, spread: float) -> tuple[Closure, Array, Frozen, Fluctuations]:
    mixture = random_mixture(12)
    closure = Closure(mixture, LearningRule.per_example(0.1, 12, eta_b=0.3), adversary, rank=12)
    u = np.random.default_rng(5).standard_normal(13) * 0.3
    fluctuations = Fluctuations.isotropic(closure.subspace, spread)
    return closure, u, closure.freeze(u, fluctuations), fluctuations


def as_matrix(terms: Drift | Noise, mixture: Mixture) -> Array:
    matrix = terms.vectors @ terms.weights @ terms.vectors.T
    for factor, C in zip(terms.classes, mixture.covariances, strict=True):
        matrix[:-1, :-1] += factor * C
    sign = -1 if isinstance(terms, Drift) else 1
    return np.asarray(matrix + sign * np.diag(terms.diagonal))


@pytest.mark.parametrize("adversary", [Adversary(), Adversary(0.2, norm="linf"), Adversary(0.2, 0.6, norm="linf")])
def test_J_is_the_jacobian_of_the_drift(adversary: Adversary) -> None:
    closure, u, frozen, _ = closure_at(adversary, 0.04)

    def G(u: Array) -> Array:
        slope = closure.slope(u, closure.products(u), frozen)
        return np.asarray(slope.smooth - slope.pull * closure.s(u, frozen.V))

    h = 1e-5
    numerical = np.stack([(G(u + h * e) - G(u - h * e)) / (2 * h) for e in np.eye(13)], axis=1)
    J = as_matrix(closure.matrices(u, closure.products(u), frozen)[0], closure.mixture)
    np.testing.assert_allclose(J, numerical, atol=1e-6)


@pytest.mark.parametrize("adversary", [Adversary(0.3), Adversary(0.2, norm="linf"), Adversary(0.2, 0.6, norm="linf")])
def test_D_is_the_covariance_of_one_update(adversary: Adversary) -> None:
    closure, u, frozen, _ = closure_at(adversary, 1e-12)
    w, b, n = u[:-1], closure.beta * u[-1], 400_000
    rng = np.random.default_rng(6)
    tau = np.where(rng.random(n) < closure.mixture.p, 1.0, -1.0)
    epsilon = adversary.epsilon * (rng.random(n) < adversary.fraction)
    xi = np.empty((n, 12))
    for k, sign in enumerate((1.0, -1.0)):
        here = tau == sign
        xi[here] = rng.multivariate_normal(closure.mixture.means[k], closure.mixture.covariances[k], here.sum())
    s = np.sign(w) if adversary.norm == "linf" else w / np.linalg.norm(w)
    attacked = xi - (tau * epsilon)[:, None] * s
    x = attacked @ w - b
    delta = (tau - scipy.special.erf(x)) * 2 / math.sqrt(math.pi) * np.exp(-x * x)
    update = delta[:, None] * np.column_stack([attacked, np.full(n, -closure.beta)])
    noise = closure.matrices(u, closure.products(u), frozen)[1]
    slope = closure.slope(u, closure.products(u), frozen)
    error = update.std(axis=0) / math.sqrt(n)
    assert np.all(abs(update.mean(axis=0) - slope.smooth + slope.pull * np.append(s, 0.0)) <= 5 * error + 1e-9)
    D = as_matrix(noise, closure.mixture)
    centred = update - update.mean(axis=0)
    error_of_D = np.sqrt((np.square(centred).T @ np.square(centred) / n - D**2) / n)
    assert np.all(abs(centred.T @ centred / n - D) <= 5 * error_of_D + 1e-9)


@pytest.mark.parametrize("N", [5, 40])
def test_the_flow_solves_the_lyapunov_equation(N: int) -> None:
    mixture = random_mixture(N)
    rng = np.random.default_rng(7)
    means = np.hstack([mixture.means, [[-1.0], [-1.0]]])
    vectors = rng.standard_normal((N + 1, 3))
    A = rng.standard_normal((3, 3))
    rates = rng.random(N + 1)
    drift = Drift(np.array([-0.5, -0.2]), vectors, -A @ A.T / 10, rates)
    noise = Noise(np.array([0.3, 0.6]), vectors, A @ A.T / 10, rates)
    start = Fluctuations.isotropic(Subspace(mixture, means, N), 0.02)
    J, D = as_matrix(drift, mixture), 0.1 * as_matrix(noise, mixture)
    Sigma = 0.02 * np.diag(np.append(np.ones(N), 0.0))
    end = start.flow(drift, noise, 0.1)(0.7)
    stationary = scipy.linalg.solve_continuous_lyapunov(J, -D)
    transition = scipy.linalg.expm(0.7 * J)
    exact = stationary + transition @ (Sigma - stationary) @ transition.T
    vector = rng.standard_normal((N + 1, 1))
    np.testing.assert_allclose(end.variances(), np.diag(exact), rtol=1e-9)
    np.testing.assert_allclose(end.form(vector), vector.T @ exact @ vector, rtol=1e-9)
    traces = [np.trace(exact[:-1, :-1] @ C) for C in mixture.covariances]
    np.testing.assert_allclose(end.trace_with_covariances(), traces, rtol=1e-9)


def test_what_is_outside_the_subspace_keeps_its_variance() -> None:
    mixture = random_mixture(40)
    means = np.hstack([mixture.means, [[-1.0], [-1.0]]])
    for rank in (0, 7, 40):
        fluctuations = Fluctuations.isotropic(Subspace(mixture, means, rank), 0.5)
        np.testing.assert_allclose(fluctuations.variances(), [*[0.5] * 40, 0.0], atol=1e-12)
        traces = [0.5 * np.trace(C) for C in mixture.covariances]
        np.testing.assert_allclose(fluctuations.trace_with_covariances(), traces)


@pytest.mark.parametrize("norm", [L2, LInfinity])
@pytest.mark.parametrize("k", [0.0, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("spread", [1e-8, 1e-3, 1.0])
def test_shrink_solves_its_equation(norm: type[L2 | LInfinity], k: float, spread: float) -> None:
    y = np.random.default_rng(8).standard_normal(100)
    V = spread**2 * np.random.default_rng(9).uniform(0.5, 2.0, 100)
    w = norm.shrink(y, k, V)
    # s is steep where |w| is not large against sqrt(V): a little change of w changes it much
    slack = 1e-5 * k * norm.curvature(w, V) * np.sqrt(V)
    assert np.all(abs(w + k * norm.direction(w, V) - y) <= 1e-8 + slack)


def test_without_fluctuations_shrinking_is_soft_thresholding() -> None:
    y, V = np.linspace(-2, 2, 9), np.full(9, 1e-24)
    np.testing.assert_allclose(LInfinity.shrink(y, 0.6, V), np.sign(y) * np.maximum(abs(y) - 0.6, 0), atol=1e-9)
    length = float(np.linalg.norm(y))
    np.testing.assert_allclose(L2.shrink(y, 0.6, V), y * (1 - 0.6 / length))
    np.testing.assert_allclose(L2.shrink(y, 2 * length, V), 0.0, atol=1e-9)


def test_dual_norms_of_fluctuating_weights() -> None:
    rng = np.random.default_rng(10)
    w, V = rng.standard_normal(30), rng.uniform(0.1, 2.0, 30)
    sample = w + np.sqrt(V) * rng.standard_normal((100_000, 30))
    for norm, order in ((LInfinity, 1), (L2, 2)):
        lengths = np.linalg.norm(sample, ord=order, axis=1)
        exact = lengths.mean() if norm is LInfinity else math.sqrt((lengths**2).mean())
        assert norm.dual(w, V) == pytest.approx(exact, rel=5 * lengths.std() / lengths.mean() / math.sqrt(1e5))
    np.testing.assert_allclose(LInfinity.direction(w, V), np.sign(sample).mean(axis=0), atol=5 / math.sqrt(1e5))
