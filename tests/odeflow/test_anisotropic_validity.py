"""Where theory on data holds: any scale of the covariances, what the closure neglects, weights that vanish."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special

from odeflow import Adversary, GaussianMixture, LearningRule, anisotropic
from odeflow.anisotropic import ClosureWarning, Mixture
from odeflow.anisotropic.closure import Closure
from odeflow.anisotropic.fluctuations import Fluctuations
from odeflow.anisotropic.validity import LARGE, neglected
from tests.odeflow.mixtures import Array, random_mixture

NORMS = ("l2", "linf")


# --- small and singular covariances ---


def two_points(trace: float, N: int = 6) -> Mixture:
    mean = np.zeros(N)
    mean[:3] = 0.5
    return Mixture(0.4, np.stack([mean, -mean]), np.full((2, N), trace / N))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("trace", [0.0, 1e-14, 1e-8])
def test_without_variance_the_limit_is_a_plain_differential_equation(trace: float, norm: str) -> None:
    """Each class is a point: u' = sum p delta (m - tau epsilon s), and weights that start at 0 alone are held at 0."""
    mixture, epsilon, start = two_points(trace), 0.1, np.full(6, 0.02)
    rule = LearningRule.per_example(0.02, 6, second_order=False)
    adversary = Adversary(epsilon, norm=norm)  # type: ignore[arg-type]
    theory = anisotropic.integrate(mixture, rule, adversary, examples=[400], w0=start, weights=True, rtol=1e-5)

    def slope(_: float, u: Array) -> Array:
        w, b = u[:-1], u[-1]
        total = np.zeros(7)
        s = np.clip(w / 1e-5, -1, 1) if norm == "linf" else w / np.linalg.norm(w)
        for p, tau, m in ((0.4, 1.0, mixture.means[0]), (0.6, -1.0, mixture.means[1])):
            x = w @ m - b - tau * epsilon * np.linalg.norm(w, ord=1 if norm == "linf" else 2)
            delta = (tau - scipy.special.erf(x)) * 2 / math.sqrt(math.pi) * math.exp(-x * x)
            total += p * delta * np.append(m - tau * epsilon * s, -1.0)
        return total

    end = scipy.integrate.solve_ivp(slope, (0, 8), np.append(start, 0.0), method="Radau", rtol=1e-8, atol=1e-10).y[
        :, -1
    ]
    np.testing.assert_allclose(theory.w[0], end[:-1], atol=2e-4)
    np.testing.assert_allclose(theory.b[0], end[-1], atol=2e-4)
    room = mixture.means @ end[:-1] * [1, -1] - [end[-1], -end[-1]]
    assert (room > epsilon * np.linalg.norm(end[:-1], ord=1 if norm == "linf" else 2)).all()
    assert float(theory.adversarial_error[0]) < 1e-9


@pytest.mark.parametrize("norm", NORMS)
def test_without_variance_noise_is_that_of_the_labels(norm: str) -> None:
    arguments: dict[str, Any] = {"examples": [50, 500], "w0": np.full(6, 0.02), "test_epsilon": [0.0, 0.1, 0.6]}
    model = LearningRule.per_example(0.02, 6), Adversary(0.1, norm=norm)  # type: ignore[arg-type]
    results = [anisotropic.integrate(two_points(trace), *model, **arguments) for trace in (0.0, 1e-14, 1e-8)]
    sample = anisotropic.simulate(two_points(0.0), *model, runs=100, rng=1, **arguments)
    for theory in results:
        for name in ("l1_norm", "l2_norm", "b", "adversarial_error"):
            error = sample[name].std("run") / 10
            assert np.all(abs(theory[name] - sample[name].mean("run")) <= 4 * error + 0.01), name


def test_data_that_are_zero_teach_nothing_but_the_bias() -> None:
    zero = Mixture(0.5, np.zeros((2, 3)), np.zeros((2, 3)))
    for norm in NORMS:
        model = LearningRule.per_example(0.1, 3, second_order=False), Adversary(norm=norm)  # type: ignore[arg-type]
        theory = anisotropic.integrate(zero, *model, examples=[100], w0=[1.0, -2.0, 0.5], b0=0.5, weights=True)
        np.testing.assert_allclose(theory.w[0], [1.0, -2.0, 0.5])
        assert abs(float(theory.b[0])) < 0.01  # p = 1/2: the best output is 0
        assert float(theory.error[0]) == 0.5  # one of the classes, by the sign of b


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("second_order", [True, False])
def test_units_do_not_matter(second_order: bool, norm: str) -> None:
    mixture, scale = random_mixture(8), 1e-3  # the learning rate is in its range
    small = Mixture(mixture.p, scale * mixture.means, scale**2 * mixture.covariances)
    results = []
    for data, unit in ((mixture, 1.0), (small, scale)):
        rule = LearningRule.per_example(0.02 / unit**2, 8, eta_b=0.02, second_order=second_order)
        adversary = Adversary(0.1 * unit, norm=norm)  # type: ignore[arg-type]
        results.append(anisotropic.integrate(data, rule, adversary, examples=[200], w0=np.full(8, 0.1) / unit))
    np.testing.assert_allclose(results[1].l1_norm * scale, results[0].l1_norm, rtol=1e-4)
    np.testing.assert_allclose(results[1].adversarial_error, results[0].adversarial_error, rtol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("second_order", [True, False])
def test_no_weights_are_the_same_classifier_for_theory_and_simulation(second_order: bool, norm: str) -> None:
    rule = LearningRule.per_example(0.02, 5, second_order=second_order)
    adversary = Adversary(0.1, norm=norm)  # type: ignore[arg-type]
    for b0, expected in ((0.0, 1.0), (0.3, 0.4), (-0.3, 0.6)):
        options: dict[str, Any] = {"examples": [0, 1], "w0": np.zeros(5), "b0": b0, "test_epsilon": [0.0, 0.1]}
        theory = anisotropic.integrate(random_mixture(5), rule, adversary, **options)
        sample = anisotropic.simulate(random_mixture(5), rule, adversary, runs=2, rng=1, **options)
        for result in (theory, sample.isel(run=0)):
            np.testing.assert_allclose(result.adversarial_error[0], expected, rtol=1e-12)


# --- what the closure neglects ---


def as_arrays(mixture: Mixture, fluctuations: Fluctuations) -> tuple[Array, Array]:
    V = fluctuations.subspace.basis
    C = np.zeros((2, mixture.N + 1, mixture.N + 1))
    C[:, :-1, :-1] = mixture.covariances
    return C, V @ fluctuations.S @ V.T + np.diag(fluctuations.d)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_neglected_is_what_the_weights_do(norm: str) -> None:
    """j, h and g from draws of weights and examples, where the subspace is the whole space."""
    N, epsilon, eta, n = 6, 0.3, 0.05, 100_000
    mixture = random_mixture(N)
    rule = LearningRule.per_example(eta, N, eta_b=0.1)
    closure = Closure(mixture, rule, Adversary(epsilon, norm=norm), rank=N)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    u = rng.standard_normal(N + 1)
    A = 0.1 * rng.standard_normal((N + 1, N + 1))
    now = Fluctuations(closure.subspace, closure.subspace.basis.T @ A @ A.T @ closure.subspace.basis, np.zeros(N + 1))
    c, frozen = closure.products(u), closure.freeze(u, now)
    drift, noise = closure.matrices(u, c, frozen)
    found = neglected(closure, u, c, now, now.flow(drift, noise, eta).noise, float(noise.classes.sum()))

    C, Sigma = as_arrays(mixture, now)
    drawn = rng.multivariate_normal(u, Sigma, n)
    s, V = closure.s(u, frozen.V), frozen.V
    place, width, step = [], [], []
    _, D = as_arrays(mixture, now.flow(drift, noise, eta).noise)
    squared = (N if norm == "linf" else 1.0) - s @ s
    for k, tau in enumerate((1.0, -1.0)):
        a = closure.m[k] - tau * epsilon * s
        variances = np.einsum("ri,ij,rj->r", drawn, C[k], drawn)
        scale = 0.5 + variances.mean()
        place.append((drawn @ a).var() / scale)
        width.append(variances.std() / scale)
        own = noise.classes.sum() * (epsilon**2 * squared) ** 2
        step.append(eta * math.sqrt((a @ D @ a + np.trace(C[k] @ D) + own) / scale))
    assert found.place == pytest.approx(max(place), rel=0.03)
    assert found.width == pytest.approx(max(width), rel=0.03)
    assert found.step == pytest.approx(max(step), rel=0.01)
    assert V.min() > 0


def test_rounding_below_zero_is_nothing() -> None:
    mixture = random_mixture(6)
    closure = Closure(mixture, LearningRule.per_example(0.1, 6), Adversary(0.1), rank=6)
    u = np.ones(7)
    below = Fluctuations(closure.subspace, -1e-18 * np.eye(7), np.zeros(7))
    found = neglected(closure, u, closure.products(u), below, below, 0.0)
    assert (found.step, found.width) == (0.0, 0.0)


CASES = {  # name: mixture, eta, eta_b, epsilon over the largest that leaves a signal, norm
    "small rates": (10, 0.01, 0.01, 0.3, "linf"),
    "small rates, L2": (10, 0.01, 0.01, 0.5, "l2"),
    "no attack": (30, 0.02, 0.02, 0.0, "l2"),
    "moderate rates": (30, 0.02, 0.1, 0.3, "linf"),
    "noise of the bias": (10, 0.003, 1.0, 0.7, "linf"),
    "noise of the bias, L2": (30, 0.003, 1.0, 0.7, "l2"),
    "large rates and a strong attack": (30, 0.2, 0.1, 1.5, "linf"),
    "large rates and an attack as strong as the signal": (10, 0.3, 0.1, 1.0, "linf"),
}
GOOD = list(CASES)[:4]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_diagnostic_tells_good_predictions_from_bad_ones(case: str) -> None:
    N, eta, eta_b, strength, norm = CASES[case]
    rough, runs, unit = random_mixture(N, 0 if N == 10 else 3), 100, 0.4  # in these units no epsilon is above 1
    mixture = Mixture(rough.p, unit * rough.means, unit**2 * rough.covariances)
    half = (mixture.means[0] - mixture.means[1]) / 2
    largest = float(np.linalg.norm(half, ord=np.inf if norm == "linf" else 2))
    model = LearningRule.per_example(eta / unit**2, N, eta_b=eta_b), Adversary(strength * largest, norm=norm)  # type: ignore[arg-type]
    options: dict[str, Any] = {
        "examples": np.array([1.0, 3.0, 10.0]) / eta, "test_epsilon": largest * np.array([0.0, 0.3, 0.7, 1.0]),
    }  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ClosureWarning)
        theory = anisotropic.integrate(*(mixture, *model), rank=N, **options)
    sample = anisotropic.simulate(mixture, *model, runs=runs, rng=2, **options).adversarial_error
    beyond = abs(theory.adversarial_error - sample.mean("run")) - 2 * sample.std("run") / math.sqrt(runs)
    assert np.all(np.diff(theory.neglected) >= 0)
    if case in GOOD:
        assert float(theory.neglected[-1]) < LARGE
        assert not caught
        assert float(beyond.max()) < 0.02
    else:
        assert float(theory.neglected[-1]) > LARGE
        assert len(caught) == 1
        assert float(beyond.max()) > 0.05


def test_the_warning_says_when_and_why_and_can_be_filtered() -> None:
    model = random_mixture(10), LearningRule.per_example(0.003, 10, eta_b=1.0), Adversary(0.1)
    with pytest.warns(
        ClosureWarning, match=r"far off from examples = 100 on: .*one example changes the output by"
    ) as told:
        anisotropic.integrate(*model, examples=[0, 100, 200])
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClosureWarning)
        anisotropic.integrate(*model, examples=[100])


def test_the_limit_and_the_seed_model_neglect_little() -> None:
    rule = LearningRule.per_example(0.1, 10, eta_b=1.0, second_order=False)
    assert float(anisotropic.integrate(random_mixture(10), rule, Adversary(0.1), examples=[50]).neglected[0]) < 0.05
    sizes = []
    for N in (200, 800):
        seed = Mixture.isotropic(GaussianMixture(p=0.7), N=N)
        sizes.append(float(anisotropic.integrate(seed, LearningRule(), Adversary(1.0), alpha=[20.0]).neglected[0]))
    assert sizes[1] < 0.6 * sizes[0] < 0.1  # it vanishes as N grows, as N^-1/2 at least


# --- weights that vanish ---


@pytest.mark.parametrize("norm", NORMS)
def test_a_perceptron_that_collapses_ends(norm: str) -> None:
    """Two points +-m, |m| = 1/2, and an epsilon of 3/4: all examples are wrong, and |w|' = 1/2 - 3/4 along m."""
    m = np.array([0.3, 0.0, 0.4]) if norm == "l2" else np.array([0.5, 0.0, 0.0])
    mixture = Mixture(0.5, np.stack([m, -m]), np.zeros((2, 3)))
    rule = LearningRule.per_example(0.01, 3, second_order=False, loss="perceptron", activation="linear")
    adversary = Adversary(0.75, norm=norm)  # type: ignore[arg-type]
    examples = np.array([0.0, 50.0, 90.0, 110.0, 10_000.0])
    theory = anisotropic.integrate(
        mixture, rule, adversary, examples=examples, w0=0.5 * m, weights=True, rtol=1e-3, max_steps=2000
    )
    length = 0.25 - 0.01 * 0.25 * examples[:3]
    np.testing.assert_allclose(theory.l2_norm[:3], length, atol=2e-3)
    np.testing.assert_array_equal(theory.status, [0, 0, 0, 1, 1])
    assert not theory.w[3:].any()
    assert not theory.l1_norm[3:].any()
    assert np.isnan(theory.error[3:]).all()
    assert np.isfinite(theory.adversarial_error[:3]).all()
    assert "stay there" in theory.status.attrs["meaning"]


def test_what_holds_or_grows_does_not_end() -> None:
    for loss, activation, epsilon in (
        ("squared", "erf", 3.0),
        ("logistic", "linear", 3.0),
        ("perceptron", "linear", 0.01),
    ):
        rule = LearningRule.per_example(0.02, 10, second_order=False, loss=loss, activation=activation)
        theory = anisotropic.integrate(
            random_mixture(10), rule, Adversary(epsilon), examples=[100, 2000], w0=np.full(10, 0.1)
        )
        assert not theory.status.any()
        assert np.isfinite(theory.error).all()
