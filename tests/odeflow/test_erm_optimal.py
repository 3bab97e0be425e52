"""The best ridge and training epsilon, where the minimiser exists, and the minimiser of given examples."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from odeflow import GaussianMixture
from odeflow.erm import ProbitTeacher, minimise, optimal_epsilon, optimal_ridge, separability_threshold, simulate, solve
from odeflow.erm.existence import largest_epsilon
from odeflow.erm.experiment import draw

UNEQUAL = GaussianMixture(p=0.7, rho=2.0, v1=1.0, v2=0.5)


def test_optimal_ridge_has_the_published_values() -> None:
    """Published to 9 digits, of which the search that found them (by values of a flat error) can have had five."""
    best = optimal_ridge(ProbitTeacher(0.05), alpha=4.0, epsilon=[0.0, 0.1, 0.2])
    assert best.ridge.values == pytest.approx([0.00683419, 0.00642558, 0.00378688], rel=3e-5)


@pytest.mark.parametrize(("data", "loss", "test"), [(ProbitTeacher(0.05), "logistic", 0.1), (UNEQUAL, "hinge", 0.4)])
def test_no_other_ridge_is_better(data: Any, loss: Any, test: float) -> None:
    options: dict[str, Any] = {"alpha": 4.0, "epsilon": 0.2, "test_epsilon": test, "loss": loss}
    best = optimal_ridge(data, **options)
    assert not best.at_bound
    others = solve(data, ridge=float(best.ridge) * np.array([0.01, 0.1, 0.99, 1.01, 10.0, 100.0]), **options)
    assert np.all(others.adversarial_error > float(best.adversarial_error))
    # and the two near ones by the same amount: the derivative is 0
    near = others.adversarial_error.values[2:4] - float(best.adversarial_error)
    assert near[0] / near[1] == pytest.approx(1, abs=0.05)


def test_the_best_ridge_of_equal_classes_is_infinite() -> None:
    """There the weights are the mean of y x, which is Bayes optimal: R = (rho/2)/sqrt(rho^2/4 + v/alpha)."""
    best = optimal_ridge(GaussianMixture(rho=2.0), alpha=[0.5, 2.0])
    assert np.all(best.at_bound)
    assert best.R.values == pytest.approx(1 / np.sqrt(1 + 1 / np.array([0.5, 2.0])), rel=1e-4)


def test_a_constant_label_is_told_from_an_optimum() -> None:
    best = optimal_ridge(UNEQUAL, alpha=0.2, epsilon=0.2, test_epsilon=0.4)
    assert bool(best.at_bound)
    assert float(best.adversarial_error) == pytest.approx(0.3, abs=1e-12)


def test_no_other_training_epsilon_is_better() -> None:
    mixture = GaussianMixture(p=0.7, rho=3.0)
    best = optimal_epsilon(mixture, alpha=[1.0, 4.0], test_epsilon=0.5, ridge=0.1)
    for alpha, epsilon, S in zip(best.alpha.values, best.epsilon.values, best.adversarial_error.values, strict=True):
        others = solve(
            mixture, alpha=alpha, ridge=0.1, epsilon=epsilon * np.array([0, 0.5, 0.995, 1.005, 1.2]), test_epsilon=0.5
        )
        assert np.all(others.adversarial_error > S)
        near = others.adversarial_error.values[2:4] - S
        assert near[0] / near[1] == pytest.approx(1, abs=0.05)
    both = optimal_epsilon(mixture, alpha=1.0, test_epsilon=0.5)
    assert float(both.adversarial_error) < float(best.adversarial_error[0])


def test_ridge_and_attack_are_one_for_the_squared_loss() -> None:
    """Without a bias, both only shorten the weights: the direction depends on neither's kind, and the best error is the same."""
    mixture = GaussianMixture(p=0.5, rho=2.0, v1=1.0, v2=0.3)
    errors = [
        float(optimal_ridge(mixture, alpha=2.0, epsilon=epsilon, loss="squared", bias=False, test_epsilon=0.0).error)
        for epsilon in (0.0, 0.3, 0.6)
    ]
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-9)


@pytest.mark.parametrize(("loss", "threshold"), [("logistic", 2.0), ("squared", 1.0)])
def test_thresholds_of_labels_without_meaning(loss: str, threshold: float) -> None:
    """Cover's 2 points per dimension, and as many equations as unknowns."""
    assert separability_threshold(ProbitTeacher(1e6), loss=loss) == pytest.approx(threshold, rel=1e-5)
    assert separability_threshold(GaussianMixture(rho=0.0), loss=loss) == pytest.approx(threshold, rel=1e-6)


def test_without_noise_a_teacher_is_always_separated_but_not_with_a_margin() -> None:
    assert separability_threshold(ProbitTeacher()) > 1e4
    thresholds = [separability_threshold(ProbitTeacher(), epsilon=epsilon) for epsilon in (0.1, 0.3, 1.0)]
    assert thresholds[0] > thresholds[1] > thresholds[2] > 0.5


@pytest.mark.parametrize("data", [UNEQUAL, ProbitTeacher(0.5)])
def test_examples_are_separable_below_the_threshold_and_not_above(data: Any) -> None:
    """A linear programme on drawn examples, 15 % away from the threshold."""
    N, rng = 150, np.random.default_rng(1)
    threshold, bias = separability_threshold(data), isinstance(data, GaussianMixture)
    for factor, expected in ((0.85, True), (1.15, False)):
        X, y = draw(data, N, round(factor * threshold * N), rng)
        A = -y[:, None] * np.hstack([X, -np.ones((len(X), 1))])
        bounds = [(None, None)] * N + [(None, None) if bias else (0, 0)]
        feasible = linprog(np.zeros(N + 1), A_ub=A, b_ub=-np.ones(len(X)), bounds=bounds).status == 0
        assert feasible == expected


def test_without_a_ridge_the_loss_goes_to_zero_at_the_threshold() -> None:
    threshold = separability_threshold(UNEQUAL, epsilon=0.3)
    losses = solve(UNEQUAL, alpha=threshold * np.array([1.02, 1.1, 1.5]), ridge=0.0, epsilon=0.3).training_loss.values
    assert 0 < losses[0] < losses[1] < losses[2]
    with pytest.raises(ValueError, match=rf"ridge = 0 .*up to alpha = {threshold:.6g}"):
        solve(UNEQUAL, alpha=0.98 * threshold, ridge=0.0, epsilon=0.3)


@pytest.mark.parametrize("data", [UNEQUAL, ProbitTeacher(0.5)])
def test_weights_vanish_where_the_attack_outdoes_the_examples(data: Any) -> None:
    points = {name: np.array([getattr(data, name)]) for name in data.__dataclass_fields__}
    most = float(largest_epsilon(points, np.array([1.5]), bias="p" in points)[0])
    q = solve(data, alpha=1.5, ridge=0.1, epsilon=most * np.array([0.9, 0.99, 0.999])).q.values
    assert q[1] / q[2] == pytest.approx(100, rel=0.2)  # in proportion to the distance
    with pytest.raises(ValueError, match=rf"weights vanish.*epsilon < {most:.4g}"):
        solve(data, alpha=1.5, ridge=0.1, epsilon=1.01 * most)
    X, y = draw(data, 300, 450, np.random.default_rng(2))
    lengths = [float(np.linalg.norm(minimise(X, y, epsilon=factor * most, ridge=0.1).w)) for factor in (0.8, 1.2)]
    assert lengths[1] < 1e-6
    assert lengths[0] > 0.01


def test_the_hinge_gives_up_a_minority_among_many_examples() -> None:
    """Its weights vanish without any attack: all examples of the majority are at the kink."""
    mixture = GaussianMixture(0.65, 0.8, 2.4, 0.8)
    found = solve(mixture, alpha=28.0, ridge=0.01, loss="hinge", on_failure="return")
    assert int(found.status) == 2
    assert np.isnan(float(found.error))
    X, y = draw(mixture, 40, 28 * 40, np.random.default_rng(0))
    assert np.linalg.norm(minimise(X, y, loss="hinge", ridge=0.01).w) < 1e-3


@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
@pytest.mark.parametrize("bias", [True, False])
def test_no_other_weights_have_a_smaller_objective(loss: Any, bias: bool) -> None:
    """Not even by the bound that the result says; a step along any direction raises it."""
    N, ridge, epsilon = 30, 0.05, 0.2
    rng = np.random.default_rng(5)
    X, y = draw(UNEQUAL, N, 60, rng)
    found = minimise(X, y, loss=loss, ridge=ridge, epsilon=epsilon, bias=bias)
    assert 0 <= found.gap + 1e-14 < 1e-5
    assert bias or found.b == 0

    def objective(w: Any, b: float) -> float:
        t = y * (X @ w - b) - epsilon * np.linalg.norm(w)
        each = {"logistic": np.log1p(np.exp(-t)), "hinge": np.maximum(1 - t, 0), "squared": (1 - t) ** 2 / 2}[loss]
        return float(each.sum() / N + ridge * w @ w / 2)

    least = objective(found.w, found.b)
    assert least == pytest.approx(found.objective, rel=1e-12)
    for size in (1e-3, 0.1, 3.0):
        for _ in range(30):
            w, b = found.w + size * rng.standard_normal(N) / N**0.5, found.b + bias * size * rng.standard_normal()
            assert objective(w, b) >= least * (1 - found.gap) - 1e-14


def test_runs_have_streams_of_their_own() -> None:
    options: dict[str, Any] = {"N": 30, "alpha": 2.0, "ridge": 0.1}
    one, other = simulate(UNEQUAL, runs=2, rng=3, **options), simulate(UNEQUAL, runs=4, rng=3, **options)
    assert np.array_equal(one.m.values, other.m.values[:2])
    assert len(set(other.m.values)) == 4
    assert one.attrs["seed"] == "entropy=3, spawn_key=()"


BAD: list[tuple[Any, str]] = [
    (lambda: solve(UNEQUAL, alpha=0.0, ridge=0.1), r"alpha = 0.0 is out of range"),
    (lambda: solve(UNEQUAL, alpha=[1.0, -1.0], ridge=0.1), r"alpha = -1.0 is out of range"),
    (lambda: solve(UNEQUAL, alpha=1.0, ridge=-0.1), r"ridge = -0.1 is out of range"),
    (lambda: solve(UNEQUAL, alpha=1.0, ridge=0.1, epsilon=np.nan), r"epsilon = nan is out of range"),
    (lambda: solve(UNEQUAL, alpha=1.0, ridge=0.1, loss="erf"), r"loss = 'erf' is unknown: allowed is one of logistic"),  # type: ignore[arg-type]
    (lambda: solve(UNEQUAL, alpha=1.0, ridge="small"), r"ridge = 'small' is not a number"),
    (lambda: solve(UNEQUAL, alpha=[[1.0]], ridge=0.1), r"alpha has shape \(1, 1\)"),
    (lambda: solve(UNEQUAL, alpha=[], ridge=0.1), r"alpha = an empty array"),
    (lambda: solve(UNEQUAL, alpha=1.0, ridge=0.1, on_failure="warn"), r"on_failure = 'warn'"),  # type: ignore[arg-type]
    (lambda: solve(0.7, alpha=1.0, ridge=0.1), r"data = 0.7 are of the wrong type"),  # type: ignore[arg-type]
    (lambda: solve(ProbitTeacher(), alpha=1.0, ridge=0.0), r"ridge = 0 .*separ|ridge = 0 .*fitted"),
    (lambda: optimal_ridge(UNEQUAL, alpha=1.0, bounds=(1.0, 0.1)), r"bounds\[1\] = 0.1 is out of range"),
    (lambda: optimal_epsilon(UNEQUAL, alpha=1.0, test_epsilon=0.1, ridge="best"), r"ridge = 'best': allowed"),
    (lambda: optimal_epsilon(UNEQUAL, alpha=1.0, test_epsilon=0.1, ridge=0.0), r"ridge = 0.0 is out of range"),
    (lambda: ProbitTeacher(-1.0), r"tau = -1.0 is out of range"),
    (lambda: minimise([[1.0], [2.0]], [1, 2], ridge=0.1), r"y contains 2.0: allowed are the labels"),
    (lambda: minimise([1.0, 2.0], [1, -1], ridge=0.1), r"X has shape \(2,\)"),
    (lambda: minimise([[1.0], [2.0]], [1, -1], ridge=0.0), r"ridge = 0.0 is out of range"),
    (lambda: simulate(UNEQUAL, N=1, alpha=1.0, ridge=0.1, runs=1), r"N = 1 is out of range"),
    (lambda: simulate(UNEQUAL, N=10, alpha=0.01, ridge=0.1, runs=1), r"alpha N = 0 is out of range"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
