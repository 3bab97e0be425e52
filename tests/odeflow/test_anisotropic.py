"""Theory and simulation of two Gaussian classes with any means and covariances."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import scipy.stats

import odeflow
from odeflow import Adversary, GaussianMixture, IntegrationError, LearningRule, anisotropic
from odeflow.anisotropic import Mixture, Samples
from odeflow.anisotropic.closure import Closure, Frozen
from odeflow.anisotropic.fluctuations import Drift, Fluctuations, Noise, Subspace
from odeflow.anisotropic.norms import L2, LInfinity
from odeflow.anisotropic.simulate import _Drawn, _Shuffled
from odeflow.laws import Uniform

Array = npt.NDArray[np.float64]


def random_mixture(N: int, seed: int = 0, p: float = 0.4) -> Mixture:
    """Two classes with different covariances, of rank N - 1, and a decaying spectrum."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((2, N)) / np.sqrt(N)
    means[1] -= 3 * means[0]
    roots = rng.standard_normal((2, N, N)) / np.arange(1, N + 1) ** 0.7
    roots[:, -1] = 0  # the last input never varies
    means[:, -1] = 0
    return Mixture(p, means, np.stack([root @ root.T / 3 for root in roots]))


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


# --- simulation ---


@pytest.mark.slow
def test_a_simulation_is_reproducible_and_its_runs_are_independent_of_their_number() -> None:
    mixture, rule, adversary = random_mixture(20), LearningRule.per_example(0.02, 20), Adversary(0.1, 0.5, norm="linf")
    for data in (mixture, Samples(*drawn(mixture, 50))):
        few, again, many = (
            anisotropic.simulate(data, rule, adversary, examples=[70, 130], runs=runs, rng=7, weights=True)
            for runs in (3, 3, 6)
        )
        np.testing.assert_array_equal(few.w, again.w)
        np.testing.assert_allclose(few.w, many.w[:3], rtol=1e-9)
        assert len(np.unique(many.b[:, 1])) == 6


def drawn(mixture: Mixture, n: int) -> tuple[Array, Array]:
    X, _, tau = next(_Drawn(mixture, np.random.SeedSequence(11), 1).draw(n))
    return X[0], tau[0]


def test_examples_have_the_moments_of_the_mixture() -> None:
    mixture, n = random_mixture(6), 100_000
    X, tau = drawn(mixture, n)
    assert (tau == 1).mean() == pytest.approx(mixture.p, abs=5 * math.sqrt(0.25 / n))
    for k, sign in enumerate((1.0, -1.0)):
        own, C = X[tau == sign], mixture.covariances[k]
        scale = np.sqrt(np.diag(C))
        assert np.all(abs(own.mean(axis=0) - mixture.means[k]) <= 5 * scale / math.sqrt(len(own)) + 1e-12)
        error = np.sqrt((np.outer(scale**2, scale**2) + C**2) / len(own))
        assert np.all(abs(np.cov(own.T) - C) <= 5 * error + 1e-12)
        assert np.all(own[:, -1] == mixture.means[k, -1])  # the input that never varies


def test_an_epoch_takes_each_sample_once_in_another_order_each_time() -> None:
    samples = Samples(np.arange(10.0)[:, None], np.array([1.0, -1.0] * 5))
    source = _Shuffled(samples, np.random.SeedSequence(12), 2)
    chosen = np.concatenate([part for count in (4, 13, 13) for _, part, _ in source.draw(count)], axis=1)
    epochs = chosen.reshape(2, 3, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=2), np.broadcast_to(np.arange(10), (2, 3, 10)))
    assert len({tuple(order) for order in epochs.reshape(6, 10)}) == 6


def test_one_step_is_the_update_rule() -> None:
    X, y = np.array([[0.5, -1.0, 2.0], [0.1, 0.2, -0.3]]), np.array([1.0, -1.0])
    w0, b0, eta, eta_b, epsilon = np.array([0.3, -0.2, 0.1]), 0.05, 0.1, 0.3, 0.2
    rule = LearningRule.per_example(eta, 3, eta_b=eta_b)
    for norm in ("l2", "linf"):
        result = anisotropic.simulate(
            Samples(X, y), rule, Adversary(epsilon, norm=norm), examples=[1], runs=5, rng=1, w0=w0, b0=b0, weights=True
        )
        s = np.sign(w0) if norm == "linf" else w0 / np.linalg.norm(w0)
        candidates = []
        for xi, tau in zip(X, y, strict=True):
            attacked = xi - tau * epsilon * s
            x = w0 @ attacked - b0
            delta = (tau - math.erf(x)) * 2 / math.sqrt(math.pi) * math.exp(-x * x)
            candidates.append([*(w0 + eta * delta * attacked), b0 - eta_b * delta])
        for run in range(5):
            found = [*result.w[run, 0].values, float(result.b[run, 0])]
            assert min(np.abs(np.subtract(found, candidate)).max() for candidate in candidates) < 1e-12


# --- errors of a classifier ---


def test_errors_of_the_isotropic_mixture_are_the_seed_models() -> None:
    mixture = GaussianMixture(p=0.3, v1=0.5)
    R, b = 0.6, 0.4
    w = np.array([R, math.sqrt(1 - R * R), 0.0])
    epsilon = np.array([0.0, 0.5, 2.0])
    expected = odeflow.adversarial_error(R, b, mixture, epsilon)
    general = anisotropic.adversarial_error(w, b, Mixture.isotropic(mixture, N=3), epsilon, "l2")
    np.testing.assert_allclose(general, expected, rtol=1e-14)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_error_formula_counts_samples(norm: str) -> None:
    mixture, n = random_mixture(10), 100_000
    X, y = drawn(mixture, n)
    rng = np.random.default_rng(13)
    w, b, epsilon = rng.standard_normal((2, 3, 10)), rng.standard_normal((2, 3)), np.array([0.0, 0.1, 0.5])
    exact = anisotropic.adversarial_error(w, b, mixture, epsilon, norm)
    counted = anisotropic.empirical_adversarial_error(w, b, X, y, epsilon, norm)
    assert exact.shape == counted.shape == (2, 3, 3)
    assert np.all(abs(exact - counted) <= 5 * np.sqrt(exact * (1 - exact) / n))
    assert np.all(np.diff(exact) > 0)
    # by the definition, for one classifier
    s = np.sign(w[0, 0]) if norm == "linf" else w[0, 0] / np.linalg.norm(w[0, 0])
    attacked = X - 0.1 * y[:, None] * s
    assert counted[0, 0, 1] == np.mean(y * (attacked @ w[0, 0] - b[0, 0]) < 0)
    assert anisotropic.adversarial_error(w[0, 0], b[0, 0], mixture, 0.1, norm) == pytest.approx(exact[0, 0, 1])


# --- the mixture of samples ---


def test_moments_of_samples() -> None:
    rng = np.random.default_rng(14)
    X = np.hstack([rng.standard_normal((200, 4)), np.zeros((200, 1))])  # a dead pixel
    y = np.where(rng.random(200) < 0.3, 1.0, -1.0)
    mixture = Mixture.from_samples(X, y)
    assert mixture.p == (y == 1).mean()
    for k, sign in enumerate((1.0, -1.0)):
        np.testing.assert_allclose(mixture.means[k], X[y == sign].mean(axis=0), atol=1e-15)
        np.testing.assert_allclose(mixture.covariances[k], np.cov(X[y == sign].T, bias=True), atol=1e-15)
    half = Mixture.from_samples(X, y, shrinkage=0.5)
    trace = np.trace(mixture.covariances[0])
    np.testing.assert_allclose(half.covariances[0], mixture.covariances[0] / 2 + trace / 10 * np.eye(5), atol=1e-15)
    few = Mixture.from_samples(X[:8], [1, -1] * 4, shrinkage="ledoit-wolf")
    assert np.linalg.eigvalsh(few.covariances[1])[0] > 0


def test_a_singular_mixture_of_images_can_be_learned() -> None:
    mixture = random_mixture(20)
    for adversary in (Adversary(0.2), Adversary(0.05, norm="linf")):
        result = anisotropic.integrate(
            mixture, LearningRule.per_example(0.02, 20), adversary, examples=[500], weights=True
        )
        assert np.isfinite(result.w).all()
        # nothing but the attack acts on the input that never varies: it pulls its weight to zero
        assert abs(float(result.w[0, -1])) < 1e-3


# --- what comes back ---


def test_the_result_is_labelled() -> None:
    mixture, rule, adversary = random_mixture(10), LearningRule.per_example(0.02, 10), Adversary(0.1, norm="linf")
    arguments: dict[str, Any] = {"alpha": [0.0, 5.0, 20.0], "test_epsilon": [0.0, 0.2], "weights": True}
    theory = anisotropic.integrate(mixture, rule, adversary, **arguments)
    sample = anisotropic.simulate(mixture, rule, adversary, runs=2, rng=1, **arguments)
    assert theory.sizes == {"alpha": 3, "test_epsilon": 2, "feature": 10}
    assert sample.sizes == {"run": 2, **theory.sizes}
    np.testing.assert_array_equal(theory.examples, [0, 50, 200])
    np.testing.assert_allclose(theory.adversarial_error.sel(test_epsilon=0), theory.error)
    for result in (theory, sample):
        assert float(result.epsilon) == 0.1
        assert str(result.norm.values) == "linf"
        assert json.loads(result.attrs["configuration"])["adversary"]["norm"] == "linf"
        for variable in result.variables.values():
            assert variable.attrs["long_name"]
            assert variable.attrs["units"] == "1"
    by_examples = anisotropic.integrate(mixture, rule, adversary, examples=[50, 200])
    assert by_examples.adversarial_error.dims == ("examples",)
    np.testing.assert_allclose(by_examples.l1_norm, theory.l1_norm[1:], rtol=1e-2)


# --- bad input ---

GOOD_X, GOOD_Y = np.random.default_rng(15).standard_normal((20, 3)), np.array([1, -1] * 10)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (GOOD_X, np.ones(20), ValueError, r"y has the values 1: allowed are \+1 and -1, both"),
        (GOOD_X, [3, 7] * 10, ValueError, r"y has the values 3, 7: .*np.where\(y == a, 1, -1\)"),
        (GOOD_X, range(20), ValueError, r"y has the values 0, 1, 2, 3, 4, ...: allowed"),
        (GOOD_X, [1, -1], ValueError, r"y has shape \(2,\): allowed is \(20,\)"),
        (GOOD_X, ["3", "seven"] * 10, TypeError, "y is not an array of real numbers"),
        (GOOD_X[None], GOOD_Y, ValueError, r"X has shape \(1, 20, 3\): .* flattened"),
        (np.where(GOOD_X[4, 1] == GOOD_X, np.nan, GOOD_X), GOOD_Y, ValueError, r"X\[4, 1\] = nan: allowed are finite"),
        (GOOD_X[:4], GOOD_Y[:4], ValueError, r"class \+1 has 2 samples in 3 dimensions.*at least 4.*shrinkage"),
    ],
)
def test_bad_samples(X: Any, y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Mixture.from_samples(X, y)


@pytest.mark.parametrize(
    ("means", "covariances", "message"),
    [
        ([1.0, 2.0], [[1.0], [1.0]], r"means have shape \(2,\): allowed is \(2, N\)"),
        ([[1.0], [2.0]], [[1.0, 0.0], [1.0, 0.0]], r"covariances have shape \(2, 2\): allowed is \(2, 1, 1\)"),
        ([[1.0], [math.inf]], [[1.0], [1.0]], r"means\[1, 0\] = inf"),
        ([[1.0], [2.0]], [[1.0], [-1.0]], r"covariance of the class -1 has the variance -1.0: allowed are variances"),
        ([[0.0, 1.0]] * 2, [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]], "class -1 has the eigenvalue -1.0: allowed"),
        ([[0.0, 1.0]] * 2, [[[1.0, 0.3], [0.2, 1.0]], np.eye(2)], r"class \+1 differs from its transpose by 0.09"),
    ],
)
def test_bad_moments(means: Any, covariances: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(0.5, means, covariances)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "neither of alpha and examples given"),
        ({"alpha": [1.0], "examples": [1.0]}, TypeError, "both of alpha and examples given"),
        ({"examples": [2.0, 1.0]}, ValueError, "examples goes from 2.0 to 1.0"),
        ({"examples": [2.0], "w0": np.ones(4)}, ValueError, r"w0 has shape \(4,\): .* shape \(10,\)"),
        ({"examples": [2.0], "w0": -1.0}, ValueError, "w0 = -1.0 is out of range"),
        ({"examples": [2.0], "test_epsilon": [0.1, -0.1]}, ValueError, "test_epsilon contains -0.1"),
        ({"examples": [2.0], "test_epsilon": [0.2, 0.1]}, ValueError, r"test_epsilon = \[0.2, 0.1\] is not a grid"),
        ({"examples": [2.0], "rank": -1}, ValueError, "rank = -1 is out of range"),
        ({"examples": [2.0], "rule": "erf"}, TypeError, "rule = 'erf' is of the wrong type"),
        ({"examples": [2.0], "mixture": GaussianMixture()}, TypeError, "allowed is an anisotropic.Mixture"),
        ({"examples": [2.0], "rule": LearningRule(), "w0": 2.0}, ValueError, "allowed is 1, because"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    parts: dict[str, Any] = {
        "mixture": random_mixture(10),
        "rule": LearningRule.per_example(0.1, 10),
        "adversary": Adversary(0.1),
    }
    parts |= {name: arguments.pop(name) for name in list(arguments) if name in parts}
    with pytest.raises(error, match=message):
        anisotropic.integrate(*parts.values(), **arguments)


def test_too_few_steps_are_an_integration_error_with_advice() -> None:
    with pytest.raises(IntegrationError, match=r"max_steps = 3 led only to t = .* a larger rtol or max_steps may help"):
        anisotropic.integrate(
            random_mixture(10), LearningRule.per_example(0.1, 10), Adversary(0.1), examples=[1000], max_steps=3
        )


def test_epsilon_in_units_of_grey_levels_is_noticed() -> None:
    rule, adversary = LearningRule.per_example(0.1, 10), Adversary(8.0, norm="linf")
    with pytest.warns(UserWarning, match=r"epsilon = 8 in L-infinity .* pixel values in \[0, 1\]; .* 8/255"):
        anisotropic.integrate(random_mixture(10), rule, adversary, examples=[1])


def test_the_seed_model_points_to_its_generalisation() -> None:
    with pytest.raises(TypeError, match=r"odeflow\.anisotropic"):
        odeflow.integrate(random_mixture(3), LearningRule(), Adversary(), alpha=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm = 'linf': allowed is 'l2'"):
        odeflow.integrate(GaussianMixture(), LearningRule(), Adversary(0.1, norm="linf"), alpha=[1.0])
    with pytest.raises(ValueError, match="norm = 'max' is unknown: allowed is one of l2, linf"):
        Adversary(0.1, norm="max")  # type: ignore[arg-type]


def test_bad_simulations() -> None:
    mixture, rule, adversary = random_mixture(3), LearningRule.per_example(0.1, 3), Adversary()
    with pytest.raises(TypeError, match="data = 3 is of the wrong type: allowed is a Mixture or Samples"):
        anisotropic.simulate(3, rule, adversary, examples=[1], runs=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="test has 4 dimensions: allowed are 3"):
        anisotropic.simulate(mixture, rule, adversary, examples=[1], runs=1, test=random_mixture(4))
    with pytest.raises(ValueError, match="runs = 0 is out of range"):
        anisotropic.simulate(mixture, rule, adversary, examples=[1], runs=0)
