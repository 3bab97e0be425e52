"""What no caller should give, given to every public function of theory on data: one clear error, or a result that is right."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, LearningRule, anisotropic
from odeflow.anisotropic import (
    Mixture,
    Samples,
    adversarial_error,
    cross_validate,
    cross_validate_optimum,
    empirical_adversarial_error,
    integrate,
    optimal_classifier,
    simulate,
)
from tests.odeflow.mixtures import drawn, random_mixture

MIXTURE, RULE, ATTACK = random_mixture(4), LearningRule.per_example(0.02, 4), Adversary(0.1)
X, Y = drawn(MIXTURE, 40)
HOSTILE: dict[str, Any] = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "huge": 1e300,
    "negative": -1.0,
    "text": "a",
    "nothing": object(),
    "complex": 1j,
    "empty": [],
    "ragged": [[1.0], [1.0, 2.0]],
    "nan in a list": [0.1, math.nan],
    "a table": np.ones((1, 3)),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "p": lambda bad: Mixture(bad, MIXTURE.means, MIXTURE.covariances),
    "means": lambda bad: Mixture(0.5, bad, MIXTURE.covariances),
    "covariances": lambda bad: Mixture(0.5, MIXTURE.means, bad),
    "samples": lambda bad: Mixture(0.5, MIXTURE.means, MIXTURE.covariances, bad),
    "shrinkage": lambda bad: Mixture.from_samples(X, Y, shrinkage=bad),
    "X": lambda bad: Samples(bad, Y),
    "y": lambda bad: Samples(X, bad),
    "w": lambda bad: adversarial_error(bad, 0.0, MIXTURE, 0.1, "l2"),
    "w of variances": lambda bad: MIXTURE.variances(bad),
    "w on samples": lambda bad: empirical_adversarial_error(bad, 0.0, X, Y, 0.1, "l2"),
    "mixture": lambda bad: adversarial_error(np.ones(4), 0.0, bad, 0.1, "l2"),
    "norm": lambda bad: adversarial_error(np.ones(4), 0.0, MIXTURE, 0.1, bad),
    "mixture of the theory": lambda bad: integrate(bad, RULE, ATTACK, examples=[1]),
    "rank": lambda bad: integrate(MIXTURE, RULE, ATTACK, examples=[1], rank=bad),
    "rtol": lambda bad: integrate(MIXTURE, RULE, ATTACK, examples=[1], rtol=bad),
    "w0": lambda bad: integrate(MIXTURE, RULE, ATTACK, examples=[1], w0=bad),
    "w0 of a simulation": lambda bad: simulate(MIXTURE, RULE, ATTACK, examples=[1], runs=1, w0=bad),
    "runs": lambda bad: simulate(MIXTURE, RULE, ATTACK, examples=[1], runs=bad),
    "examples of a simulation": lambda bad: simulate(MIXTURE, RULE, ATTACK, examples=bad, runs=1),
    "data": lambda bad: simulate(bad, RULE, ATTACK, examples=[1], runs=1),
    "test": lambda bad: simulate(MIXTURE, RULE, ATTACK, examples=[1], runs=1, test=bad),
    "mixture of the optimum": lambda bad: optimal_classifier(bad),
    "rtol of the optimum": lambda bad: optimal_classifier(MIXTURE, 0.1, rtol=bad),
    "folds": lambda bad: cross_validate_optimum(Samples(X, Y), folds=bad),
    "samples to hold out": lambda bad: cross_validate(bad, RULE, ATTACK, examples=[1]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_of_this_kind_is_allowed_anywhere(call: str, kind: str) -> None:
    if (call, kind) == ("rank", "huge"):  # from N on nothing is left out
        return
    with pytest.raises((TypeError, ValueError)) as told:
        CALLS[call](HOSTILE[kind])
    text = str(told.value)
    assert "\n" not in text
    assert call.split(" ")[0] in text
    assert "allowed" in text or "not a number" in text or "not an array of real numbers" in text


ZERO = np.zeros(4)
BIASES = {math.inf: 0.4, -math.inf: 0.6, 0.0: 1.0, 0.1: 0.4, -0.1: 0.6, 1e300: 0.4}


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("b", BIASES)
def test_constant_classifiers_are_right_in_the_share_of_their_class(b: float, norm: str) -> None:
    assert adversarial_error(ZERO, b, MIXTURE, 0.3, norm) == pytest.approx(BIASES[b], rel=1e-12)
    shares = {0.4: np.mean(Y == 1), 0.6: np.mean(Y == -1), 1.0: 1.0}
    assert empirical_adversarial_error(ZERO, b, X, Y, 0.3, norm) == shares[BIASES[b]]
    with pytest.raises(ValueError, match="b contains nan"):
        adversarial_error(ZERO, math.nan, MIXTURE, 0.3, norm)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_the_length_of_the_weights_does_not_matter(size: float, norm: str) -> None:
    w, b = np.array([0.3, -1.0, 0.5, 0.0]), 0.2
    exact = adversarial_error(w, b, MIXTURE, [0.0, 0.2], norm)
    np.testing.assert_allclose(adversarial_error(size * w, size * b, MIXTURE, [0.0, 0.2], norm), exact, rtol=1e-10)
    counted = empirical_adversarial_error(w, b, X, Y, [0.0, 0.2], norm)
    scaled = empirical_adversarial_error(size * w, size * b, X, Y, [0.0, 0.2], norm)
    np.testing.assert_array_equal(scaled, counted)


def test_one_classifier_and_one_epsilon_give_a_number() -> None:
    counted = empirical_adversarial_error(np.ones(4), 0.0, X, Y, 0.0, "l2")
    assert counted.shape == ()
    assert counted == np.mean(Y * (X @ np.ones(4)) <= 0)


@pytest.mark.parametrize("shrinkage", [0.1, 1.0, "ledoit-wolf"])
def test_one_sample_has_no_covariance(shrinkage: Any) -> None:
    for counts in ((1, 1), (1, 30), (30, 1)):
        y = np.repeat([1, -1], counts)
        with pytest.raises(ValueError, match=r"has 1 sample in 4 dimensions, .*: allowed are at least 2"):
            Mixture.from_samples(np.random.default_rng(0).standard_normal((len(y), 4)), y, shrinkage=shrinkage)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_inputs_that_are_given_twice_share_the_weight_of_one(norm: str) -> None:
    """SGD moves both copies alike: at half the rate and half the weights, their sum is the weight of the one."""
    twice = Mixture(
        MIXTURE.p, np.hstack([MIXTURE.means, MIXTURE.means]),
        np.stack([np.kron(np.ones((2, 2)), C) for C in MIXTURE.covariances]),
    )  # fmt: skip
    w0 = np.array([0.1, -0.2, 0.3, 0.05])
    rule = LearningRule.per_example(0.01, 4, eta_b=0.01, second_order=False)
    half = LearningRule.per_example(0.005, 8, eta_b=0.01, second_order=False)
    attack = Adversary(0.1, norm=norm)  # type: ignore[arg-type]
    one = integrate(MIXTURE, rule, attack, examples=[300], w0=w0, weights=True, rtol=1e-4)
    # epsilon in L-infinity is the same for each copy; in L2 it is to be spread over both
    epsilon = 0.1 if norm == "linf" else 0.1 * math.sqrt(2)
    copies = integrate(
        twice, half, Adversary(epsilon, norm=norm), examples=[300], w0=np.tile(w0, 2) / 2, weights=True, rtol=1e-4  # type: ignore[arg-type]
    )  # fmt: skip
    np.testing.assert_allclose(copies.w[0, :4] + copies.w[0, 4:], one.w[0], atol=2e-3)
    assert float(copies.adversarial_error[0]) == pytest.approx(float(one.adversarial_error[0]), abs=1e-3)
    best, best_of_copies = optimal_classifier(MIXTURE, 0.1, norm), optimal_classifier(twice, epsilon, norm)
    assert float(best_of_copies.adversarial_error) == pytest.approx(float(best.adversarial_error), rel=1e-5)


def test_more_dimensions_than_samples_are_taken_with_shrinkage() -> None:
    rng = np.random.default_rng(3)
    y = np.repeat([1, -1], 10)
    samples = Samples(rng.standard_normal((20, 40)) + 0.3 * y[:, None], y)
    rule = LearningRule.per_example(0.01, 40)
    results = [
        cross_validate(samples, rule, Adversary(0.05, norm="linf"), folds=5, shrinkage=0.3, examples=[200]),
        cross_validate_optimum(samples, 0.1, folds=5, shrinkage="ledoit-wolf"),
    ]
    for result in results:
        assert float(result.adversarial_error.squeeze()) > float(result.plug_in_adversarial_error.squeeze())
        assert 0 < float(result.adversarial_error_se.squeeze()) < 0.3


def test_sizes_that_cannot_be_are_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match=r"examples goes to 1e\+300: allowed are at most 1e\+15 examples"):
        simulate(MIXTURE, RULE, ATTACK, examples=[1e300], runs=1)
    with pytest.raises(ValueError, match=r"runs = 1e\+12 is out of range: allowed are at most 2500000000"):
        simulate(MIXTURE, RULE, ATTACK, examples=[1], runs=10**12)
    with pytest.raises(
        ValueError, match=r"means\[0, 0\] = 1e\+100: allowed are finite numbers, at most 1e\+75 in size"
    ):
        Mixture(0.5, np.array([[1e100], [0.0]]), np.ones((2, 1)))
    assert anisotropic.ClosureWarning.__mro__[1] is UserWarning


@pytest.mark.parametrize("what", ["theory", "optimum", "simulation", "samples"])
def test_small_matrices_take_one_thread_of_blas(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for each other made the first step of the theory twenty times slower than all the others."""
    from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

    from odeflow.anisotropic import closure, mixture, optimal
    from odeflow.anisotropic import simulate as simulation

    seen: list[int] = []

    def noted(name: str, owner: Any) -> None:
        plain = getattr(owner, name)

        def first_note(*arguments: Any, **options: Any) -> Any:
            seen.append(max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
            return plain(*arguments, **options)

        monkeypatch.setattr(owner, name, first_note)

    noted("Subspace", closure)
    noted("max_margin", optimal)
    noted("_check_semidefinite", mixture)
    noted("_root", sys.modules[simulation.__module__])
    calls: dict[str, Callable[[], Any]] = {
        "theory": lambda: integrate(MIXTURE, RULE, ATTACK, examples=[1]),
        "optimum": lambda: optimal_classifier(MIXTURE, 0.1),
        "simulation": lambda: simulate(MIXTURE, RULE, ATTACK, examples=[1], runs=1),
        "samples": lambda: Mixture.from_samples(X, Y),
    }
    with threadpool_limits(2, "blas"):
        calls[what]()
    assert seen
    assert set(seen) == {1}
