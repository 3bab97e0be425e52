"""The optimal linear classifier on two Gaussian classes: closed forms, certificates, and no other one is better."""

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

import odeflow
from odeflow import GaussianMixture
from odeflow.anisotropic import Mixture, adversarial_error
from odeflow.anisotropic import lasso as lasso_module
from odeflow.anisotropic.errors import dual_norm
from odeflow.anisotropic.lasso import ConvergenceError, lasso
from odeflow.anisotropic.margin import max_margin
from odeflow.anisotropic.optimal import optimal_classifier

Array = npt.NDArray[np.float64]
NORMS = ("l2", "linf")


def covariance(rng: np.random.Generator, N: int, rank: int | None = None) -> Array:
    A = rng.standard_normal((N, rank or N)) * 10 ** rng.uniform(-1, 0.5, N)[:, None]
    return np.asarray(A @ A.T)


def random_mixture(seed: int, N: int, *, shared: bool = False, separation: float = 1.0) -> Mixture:
    rng = np.random.default_rng(seed)
    C = covariance(rng, N)
    means = separation * rng.standard_normal((2, N))
    covariances = np.stack([C, C if shared else covariance(rng, N)]) + 0.01 * np.eye(N)  # rounding is no subject here
    return Mixture(rng.uniform(0.1, 0.9), means, covariances)


def radius(mixture: Mixture, norm: str) -> float:
    """The epsilon at which the attacked means meet."""
    mu = (mixture.means[0] - mixture.means[1]) / 2
    return float(np.abs(mu).max() if norm == "linf" else np.linalg.norm(mu))


def error(w: Any, b: Any, mixture: Mixture, epsilon: float, norm: str) -> float:
    return float(adversarial_error(w, b, mixture, epsilon, norm))


def least_error(w: Array, mixture: Mixture, epsilon: float, norm: str) -> tuple[float, float]:
    """The least adversarial error of the weights w over a fine grid of biases; and the same with no class error > 1/2."""
    reach = 8 * np.sqrt(mixture.variances(w).max()) + np.abs(mixture.means @ w).max() + epsilon * dual_norm(w, norm)
    b = np.linspace(-reach, reach, 4001)
    S = adversarial_error(np.broadcast_to(w, (len(b), len(w))), b, mixture, epsilon, norm)
    room = np.array([1, -1])[:, None] * ((mixture.means @ w)[:, None] - b) - epsilon * dual_norm(w, norm)
    return float(S.min()), float(S[(room >= 0).all(axis=0)].min(initial=math.inf))


# Limits that are known


@settings(max_examples=60)
@example(p=0.5, rho=2.0, v1=0.01, v2=4.0, epsilon=2.0, norm="l2")  # a finite bias wins beyond rho/2
@example(p=0.5, rho=0.0, v1=0.01, v2=4.0, epsilon=0.0, norm="linf")
@given(
    p=st.floats(0.02, 0.98),
    rho=st.floats(0, 6),
    v1=st.floats(0.05, 5),
    v2=st.floats(0.05, 5) | st.none(),
    epsilon=st.floats(0, 4),
    norm=st.sampled_from(NORMS),  # the same, as the centres differ along an axis
)
def test_the_isotropic_case_is_the_seed_models(
    p: float, rho: float, v1: float, v2: float | None, epsilon: float, norm: str
) -> None:
    seed = GaussianMixture(p, rho, v1, v1 if v2 is None else v2)
    best = optimal_classifier(Mixture.isotropic(seed, N=3), epsilon, norm)
    expected = odeflow.optimal_classifier(seed, epsilon)
    assert float(best.adversarial_error) == pytest.approx(float(expected.adversarial_error), rel=1e-9, abs=1e-15)
    if rho > 1e-6 and float(expected.adversarial_error) < min(p, 1 - p) * (1 - 1e-6):
        assert best.w.values == pytest.approx([1, 0, 0], abs=1e-9)
        assert float(best.b) == pytest.approx(float(expected.b), rel=1e-6, abs=1e-9)
        assert float(best.error) == pytest.approx(float(expected.error), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("N", [1, 2, 6])
def test_without_attack_and_with_one_covariance_it_is_fishers_discriminant(N: int, norm: str) -> None:
    mixture = random_mixture(N, N, shared=True)
    w = np.linalg.solve(mixture.covariances[0], mixture.means[0] - mixture.means[1])
    b = w @ mixture.means.mean(axis=0) - math.log(mixture.p / (1 - mixture.p))
    best = optimal_classifier(mixture, norm=norm)
    assert best.w.values == pytest.approx(w / np.linalg.norm(w), abs=1e-9)
    assert float(best.b) == pytest.approx(b / np.linalg.norm(w), rel=1e-9)
    assert float(best.error) == pytest.approx(error(w, b, mixture, 0.0, norm), rel=1e-9)
    assert math.isnan(float(best.mix))


def test_without_attack_two_covariances_obey_anderson_and_bahadur() -> None:
    mixture = random_mixture(5, 4, separation=3.0)
    best = optimal_classifier(mixture)
    w, b, mix = best.w.values, float(best.b), float(best.mix)
    assert 0 < mix < 1
    solution = np.linalg.solve(
        mix * mixture.covariances[0] + (1 - mix) * mixture.covariances[1], mixture.means[0] - mixture.means[1]
    )
    assert w == pytest.approx(solution / np.linalg.norm(solution), abs=1e-9)
    # where S is stationary, lambda : 1 - lambda are the distances of the means in units of the variances
    t = np.array([1, -1]) * (mixture.means @ w - b) / mixture.variances(w)
    assert mix == pytest.approx(t[0] / t.sum(), rel=1e-5)


def test_a_diagonal_covariance_in_l_infinity_is_soft_thresholding() -> None:
    mu, v = np.array([2.0, -0.7, 0.3, 0.0]), np.array([2.0, 0.5, 1.0, 1.0])
    best = optimal_classifier(Mixture(0.5, np.stack([mu, -mu]), np.stack([v, v])), 0.4, "linf")
    w = np.array([0.8, -0.6, 0, 0])
    assert best.w.values == pytest.approx(w / np.linalg.norm(w))
    assert float(best.b) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.2, 0.9, 2.0])
def test_diagonal_covariances_may_be_given_as_matrices(epsilon: float, norm: str) -> None:
    rng = np.random.default_rng(2)
    means, v = rng.standard_normal((2, 5)), rng.uniform(0.1, 2, (2, 5))
    short = optimal_classifier(Mixture(0.4, means, v), epsilon, norm)
    full = optimal_classifier(Mixture(0.4, means, np.stack([np.diag(row) for row in v])), epsilon, norm)
    assert float(short.adversarial_error) == pytest.approx(float(full.adversarial_error), rel=1e-6)


# No other classifier is better


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 1.2])
def test_no_direction_in_the_plane_is_better(fraction: float, shared: bool, norm: str) -> None:
    angles = np.linspace(0, 2 * np.pi, 361)
    for seed in range(3):
        mixture = random_mixture(seed, 2, shared=shared)
        epsilon = fraction * radius(mixture, norm)
        S = float(optimal_classifier(mixture, epsilon, norm).adversarial_error)
        for w in np.column_stack([np.cos(angles), np.sin(angles)]):
            assert min(least_error(w, mixture, epsilon, norm)) >= S - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), N=st.integers(1, 5), shared=st.booleans(), fraction=st.floats(0, 1.1))
@settings(max_examples=40)
def test_no_classifier_with_both_errors_below_one_half_is_better(
    seed: int, N: int, shared: bool, fraction: float, norm: str
) -> None:
    mixture = random_mixture(seed, N, shared=shared)
    epsilon = fraction * radius(mixture, norm)
    S = float(optimal_classifier(mixture, epsilon, norm).adversarial_error)
    assert min(mixture.p, 1 - mixture.p) - S > -1e-12
    rng = np.random.default_rng(seed)
    for w in rng.standard_normal((20, N)):
        everything, both_below = least_error(w, mixture, epsilon, norm)
        assert (everything if shared else both_below) >= S - 1e-7  # a margin may be off by rtol = 1e-6, relatively


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), shared=st.booleans(), fraction=st.floats(0, 1.1))
@settings(max_examples=40)
def test_no_classifier_nearby_is_better(seed: int, shared: bool, fraction: float, norm: str) -> None:
    mixture = random_mixture(seed, 4, shared=shared)
    epsilon = fraction * radius(mixture, norm)
    best = optimal_classifier(mixture, epsilon, norm)
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-4, -1, (200, 1))
    w = best.w.values + size * rng.standard_normal((200, 4))
    b = best.b.values + size[:, 0] * rng.standard_normal(200)
    # the last steps of a descent, which ends at 1e-8, may be shorter than what is left
    assert adversarial_error(w, b, mixture, epsilon, norm).min() >= float(best.adversarial_error) - 1e-6


def test_an_error_above_one_half_in_a_class_can_be_best() -> None:
    template = random_mixture(4, 3, separation=0.3)
    mixture = Mixture(0.25, template.means, template.covariances)
    best = optimal_classifier(mixture, 0.05)
    w, b = best.w.values, float(best.b)
    room = np.array([1, -1]) * (mixture.means @ w - b) - 0.05
    assert room.min() < 0 < room.max()
    assert float(best.adversarial_error) < min(mixture.p, 1 - mixture.p) - 0.01
    assert math.isnan(float(best.gap))
    assert not 0 <= float(best.mix) <= 1


# Certificates and solvers


@pytest.mark.parametrize("norm", NORMS)
@given(
    seed=st.integers(0, 10**6), N=st.integers(1, 12), fraction=st.floats(0, 0.99), rtol=st.sampled_from([1e-9, 1e-4])
)
@settings(max_examples=40)
def test_the_gap_bounds_every_margin(seed: int, N: int, fraction: float, rtol: float, norm: str) -> None:
    mixture = random_mixture(seed, N, shared=True)
    mu, C = (mixture.means[0] - mixture.means[1]) / 2, mixture.covariances[0]
    epsilon = fraction * radius(mixture, norm)
    w, gap = max_margin(C, mu, epsilon, norm, rtol=rtol)
    assert 0 <= gap <= rtol

    def margins(w: Array) -> Array:
        return np.asarray((w @ mu - epsilon * dual_norm(w, norm)) / np.sqrt(np.einsum("...i,ij,...j", w, C, w)))

    rng = np.random.default_rng(seed)
    others = rng.standard_normal((200, N)) * 10 ** rng.uniform(-4, 0, (200, 1)) + rng.integers(0, 2, (200, 1)) * w
    assert margins(others).max() <= margins(w) / (1 - gap) * (1 + 1e-9)  # rounding


@given(seed=st.integers(0, 10**6), N=st.integers(1, 12), fraction=st.floats(0, 0.99))
@settings(max_examples=40)
def test_the_optimum_in_l2_obeys_its_equation(seed: int, N: int, fraction: float) -> None:
    mixture = random_mixture(seed, N, shared=True)
    mu, C = (mixture.means[0] - mixture.means[1]) / 2, mixture.covariances[0]
    epsilon = fraction * radius(mixture, "l2")
    w, _ = max_margin(C, mu, epsilon, "l2")
    assert C @ w + epsilon * w / np.linalg.norm(w) == pytest.approx(mu, abs=1e-9 * float(np.linalg.norm(mu)))


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.01])
def test_the_optimum_in_l_infinity_is_the_lasso_of_scikit_learn(alpha: float) -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(3)
    X = rng.standard_normal((200, 30)) @ np.diag(10 ** rng.uniform(-0.5, 0.5, 30)) + rng.standard_normal((200, 1))
    y = X @ (rng.standard_normal(30) * (rng.random(30) < 0.3)) + rng.standard_normal(200)
    epsilon = alpha * np.abs(X.T @ y / 200).max()
    expected = sklearn.Lasso(epsilon, fit_intercept=False, tol=1e-12, max_iter=10**6).fit(X, y).coef_
    w, gap = lasso(X.T @ X / 200, X.T @ y / 200, epsilon, rtol=1e-9)
    assert gap <= 1e-9
    assert w == pytest.approx(expected, abs=1e-7)
    assert np.array_equal(w == 0, expected == 0)


def test_a_start_changes_the_way_but_not_the_end() -> None:
    mixture = random_mixture(8, 20, shared=True)
    mu, C = (mixture.means[0] - mixture.means[1]) / 2, mixture.covariances[0]
    w, _ = lasso(C, mu, 0.1, rtol=1e-9)
    for start in (w, 5 * w, -w, np.ones(20)):
        assert lasso(C, mu, 0.1, rtol=1e-9, start=start)[0] == pytest.approx(w, abs=1e-6 * np.abs(w).max())


def test_a_gap_that_is_not_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasso_module, "_ROUNDS", 2)
    with pytest.raises(ConvergenceError, match=r"after 2 rounds, and rtol = 1e-06: choose a larger rtol"):
        optimal_classifier(random_mixture(0, 30), 0.001, "linf")


# Covariances that are singular


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_a_pixel_that_never_changes_has_no_weight(epsilon: float, shared: bool, norm: str) -> None:
    alive = random_mixture(1, 4, shared=shared)
    means, covariances = np.zeros((2, 6)), np.zeros((2, 6, 6))
    means[:, 1:5], covariances[:, 1:5, 1:5] = alive.means, alive.covariances
    means[:, 0] = 3.0  # lit in every image
    with_dead, without = (optimal_classifier(m, epsilon, norm) for m in (Mixture(alive.p, means, covariances), alive))
    assert float(with_dead.adversarial_error) == pytest.approx(float(without.adversarial_error), rel=1e-6)
    assert with_dead.w.values[[0, 5]].tolist() == [0, 0]
    assert with_dead.w.values[1:5] == pytest.approx(without.w.values, abs=1e-3)


def test_without_attack_a_singular_covariance_gets_the_shortest_weights() -> None:
    rng = np.random.default_rng(6)
    C = covariance(rng, 5, rank=3)
    mu = C @ rng.standard_normal(5)
    w = np.linalg.pinv(C, rcond=1e-10) @ mu
    best = optimal_classifier(Mixture(0.5, np.stack([mu, -mu]), np.stack([C, C])))
    assert best.w.values == pytest.approx(w / np.linalg.norm(w), abs=1e-9)
    assert float(best.gap) <= 1e-6


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.5])
@pytest.mark.parametrize("p", [0.5, 0.9])
def test_a_pixel_without_variance_can_separate_the_classes(p: float, epsilon: float, norm: str) -> None:
    means, v = np.array([[1.0, 0.1], [-1.0, -0.1]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    for covariances in (v, np.stack([np.diag(row) for row in v])):
        best = optimal_classifier(Mixture(p, means, covariances), epsilon, norm)
        assert best.w.values.tolist() == [1, 0]
        assert float(best.adversarial_error) == 0
        assert error(best.w, best.b, Mixture(p, means, covariances), epsilon, norm) == 0


def test_an_attack_as_large_as_the_difference_in_that_pixel() -> None:
    mixture = Mixture(0.5, np.array([[1.0, 0.1], [-1.0, -0.1]]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    # L2: M(w) = (0.1 d - d^2/2 + ...)/d at w = (1, d), so 0.1 is approached for d -> 0
    best = optimal_classifier(mixture, 1.0, "l2")
    assert float(best.adversarial_error) == pytest.approx(0.5 * math.erfc(0.1 / math.sqrt(2)), rel=1e-5)
    assert float(optimal_classifier(mixture, 1.0, "linf").adversarial_error) == 0.5


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), N=st.integers(2, 12))
@settings(max_examples=40)
def test_a_hidden_direction_without_variance_can_separate_the_classes(seed: int, N: int, norm: str) -> None:
    rng = np.random.default_rng(seed)
    C = covariance(rng, N, rank=N - 1)
    direction = np.linalg.eigh(C)[1][:, 0]
    mu = 3 * direction + C @ rng.standard_normal(N) / np.trace(C)
    # its margin along `direction` stays positive below this epsilon
    epsilon = 0.9 * (direction @ mu) / float(dual_norm(direction, norm))
    for other in (C, 4 * C, C + np.eye(N)):
        mixture = Mixture(0.4, np.stack([mu, -mu]), np.stack([C, other]))
        best = optimal_classifier(mixture, epsilon, norm)
        # with a variance of 1 in the other class, its mean is at most 2 x the margin from the boundary
        assert float(best.adversarial_error) < (0.4 if other is C or other[0, 0] == 4 * C[0, 0] else 0.6)
        if np.linalg.matrix_rank(other) < N:
            assert float(best.adversarial_error) == 0
            assert float(best.gap) == 0
            w = best.w.values
            assert w @ mu > epsilon * dual_norm(w, norm)
            assert w @ C @ w < 1e-10 * np.trace(C)


def test_one_class_without_variance() -> None:
    # its mean is just beyond the boundary; the other class has its whole distance 2 (1 - epsilon)
    best = optimal_classifier(Mixture(0.5, np.array([[1.0], [-1.0]]), np.array([[0.0], [1.0]])), 0.25)
    assert float(best.adversarial_error) == pytest.approx(0.5 * 0.5 * math.erfc(1.5 / math.sqrt(2)), rel=1e-6)
    assert float(best.b) == pytest.approx(0.75, abs=1e-6)


# When no classifier is better than a constant one


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("p", "b"), [(0.7, -math.inf), (0.3, math.inf), (0.5, -math.inf)])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_beyond_the_means_it_is_the_majority_label(factor: float, p: float, b: float, norm: str) -> None:
    template = random_mixture(7, 4, shared=True)
    mixture = Mixture(p, template.means, template.covariances)
    best = optimal_classifier(mixture, factor * radius(mixture, norm), norm)
    assert float(best.b) == b
    assert not best.w.values.any()
    assert float(best.adversarial_error) == float(best.error) == pytest.approx(min(p, 1 - p))
    assert float(best.gap) == 0
    assert error(best.w, best.b, mixture, 1.0, norm) == pytest.approx(min(p, 1 - p))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_equal_means_and_covariances_leave_the_majority_label(epsilon: float, norm: str) -> None:
    C = covariance(np.random.default_rng(0), 3)
    best = optimal_classifier(Mixture(0.6, np.ones((2, 3)), np.stack([C, C])), epsilon, norm)
    assert float(best.adversarial_error) == pytest.approx(0.4)


@pytest.mark.parametrize("norm", NORMS)
def test_equal_means_can_be_told_apart_by_their_variances(norm: str) -> None:
    v = np.array([[1.0, 1.0, 1.0], [1.0, 1e4, 1.0]])
    for covariances in (v, np.stack([np.diag(row) for row in v])):
        best = optimal_classifier(Mixture(0.5, np.zeros((2, 3)), covariances), 0.0, norm)
        assert np.abs(best.w.values) == pytest.approx([0, 1, 0], abs=1e-3)
        # nearly the whole class +1 is right, and the half of the class -1 that is on the other side
        assert float(best.adversarial_error) == pytest.approx(0.25, abs=0.02)


# Symmetries and monotony


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), shared=st.booleans(), fraction=st.floats(0, 0.9))
@settings(max_examples=25)
def test_swapping_the_classes_turns_the_classifier_round(seed: int, shared: bool, fraction: float, norm: str) -> None:
    mixture = random_mixture(seed, 3, shared=shared, separation=2.0)
    epsilon = fraction * radius(mixture, norm)
    swapped = Mixture(1 - mixture.p, mixture.means[::-1], mixture.covariances[::-1])
    one, other = optimal_classifier(mixture, epsilon, norm), optimal_classifier(swapped, epsilon, norm)
    # each is known to be right to 1e-8 of the error
    assert float(other.adversarial_error) == pytest.approx(float(one.adversarial_error), rel=1e-6)
    assert error(-other.w, -other.b, mixture, epsilon, norm) == pytest.approx(float(one.adversarial_error), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_units_and_origin_do_not_matter(shared: bool, norm: str) -> None:
    mixture = random_mixture(9, 4, shared=shared, separation=2.0)
    shift = np.array([1.0, -2.0, 3.0, 0.5])
    moved = Mixture(mixture.p, 100 * mixture.means + shift, 1e4 * mixture.covariances)
    one, other = optimal_classifier(mixture, 0.1, norm), optimal_classifier(moved, 10.0, norm)
    assert float(other.adversarial_error) == pytest.approx(float(one.adversarial_error), rel=1e-8)
    assert other.w.values == pytest.approx(one.w.values, abs=1e-4)
    assert float(other.b) == pytest.approx(100 * float(one.b) + other.w.values @ shift, rel=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_the_error_grows_with_epsilon_and_the_weights_become_sparse(shared: bool, norm: str) -> None:
    rough = random_mixture(11, 8, shared=shared)
    mixture = Mixture(0.6, rough.means, rough.covariances + np.eye(8))
    grid = np.linspace(0, 0.95, 8) * radius(mixture, norm)
    best = [optimal_classifier(mixture, epsilon, norm) for epsilon in grid]
    assert np.all(np.diff([float(one.adversarial_error) for one in best]) > 0)
    assert np.all(np.diff([float(one.error) for one in best]) > -1e-9)  # robustness has its price
    entries = [np.count_nonzero(one.w) for one in best]
    assert entries[0] == 8
    assert entries[-1] == 8 if norm == "l2" else entries[-1] <= 2


# The result


def test_the_result_is_consistent_and_labelled() -> None:
    mixture = random_mixture(12, 3, separation=2.0)
    best = optimal_classifier(mixture, 0.1, "linf", rtol=1e-5)
    assert dict(best.sizes) == {"feature": 3}
    assert np.linalg.norm(best.w) == pytest.approx(1)
    assert float(best.error) == pytest.approx(error(best.w, best.b, mixture, 0, "linf"), rel=1e-12)
    assert float(best.adversarial_error) == pytest.approx(error(best.w, best.b, mixture, 0.1, "linf"), rel=1e-12)
    assert 0 <= float(best.gap) <= 1e-5
    assert (best.norm.item(), float(best.epsilon), int(best.N)) == ("linf", 0.1, 3)
    assert all("long_name" in best[name].attrs for name in best.variables)
    configuration = json.loads(best.attrs["configuration"])
    assert configuration["function"] == "anisotropic.optimal_classifier"
    assert configuration["options"] == {"p": mixture.p, "N": 3, "epsilon": 0.1, "norm": "linf", "rtol": 1e-5}


def test_the_result_can_be_saved_and_loaded(tmp_path: Any) -> None:
    best = optimal_classifier(random_mixture(13, 3), 0.1)
    xr.testing.assert_identical(odeflow.load(odeflow.save(best, tmp_path / "best.nc")), best)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((GaussianMixture(),), TypeError, r"allowed is a Mixture"),
        ((None, -1.0), ValueError, r"epsilon = -1\.0 is out of range"),
        ((None, math.nan), ValueError, r"epsilon = nan is out of range"),
        ((None, "a"), TypeError, r"epsilon = 'a' is not a number"),
        ((None, 0.1, "l1"), ValueError, r"norm = 'l1' is unknown: allowed is one of l2, linf"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], kind: type[Exception], message: str) -> None:
    mixture = arguments[0] or random_mixture(0, 2)
    with pytest.raises(kind, match=message):
        optimal_classifier(mixture, *arguments[1:])


def test_bad_rtol() -> None:
    with pytest.raises(ValueError, match=r"rtol = 0\.0 is out of range"):
        optimal_classifier(random_mixture(0, 2), rtol=0.0)
