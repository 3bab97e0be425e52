"""Monte Carlo: both methods have one law, which approaches the theory; streams do not depend on threads."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, simulate
from odeflow.numerics.random_streams import rng_states

# Large rates and unequal classes, so that every term of the update matters.
MODEL = (GaussianMixture(p=0.7, rho=2.0, v1=1.0, v2=0.5), LearningRule(eta_w=1.5, eta_b=1.0), Adversary(0.7))


@pytest.mark.slow
@pytest.mark.parametrize("N", [3, 10, 100])
def test_both_methods_have_the_same_law(N: int) -> None:
    samples = [
        simulate(*MODEL, N=N, alpha=[3.0], runs=2000, rng=seed, method=method, R0=0.3, b0=0.1)  # type: ignore[arg-type]
        for seed, method in ((11, "reduced"), (12, "direct"))
    ]
    for variable in ("R", "b"):
        reduced, direct = (sample[variable].values[:, 0] for sample in samples)
        # Nothing is tuned: for a fixed seed and a true null hypothesis, one in a thousand would fall below.
        assert stats.ks_2samp(reduced, direct).pvalue > 1e-3
        assert stats.ttest_ind(reduced, direct).pvalue > 1e-3
        assert stats.levene(reduced, direct).pvalue > 1e-3


def plain_sgd(N: int, examples: int, rng: np.random.Generator) -> tuple[float, float]:
    """One run as the model is stated, in plain NumPy."""
    mixture, rule, adversary = MODEL
    B = np.eye(N)[0]
    w = rng.standard_normal(N)
    w[0] = 0
    w = 0.3 * B + np.sqrt(1 - 0.3**2) * w / np.linalg.norm(w)
    b = 0.1
    for _ in range(examples):
        tau = 1 if rng.random() < mixture.p else -1
        v = mixture.v1 if tau == 1 else mixture.v2
        xi = tau * mixture.rho / 2 * B + np.sqrt(v) * rng.standard_normal(N)
        attacked = xi - tau * adversary.epsilon * w
        x = attacked @ w - b
        step = (tau - stats.norm.cdf(x * np.sqrt(2)) * 2 + 1) * 2 / np.sqrt(np.pi) * np.exp(-x * x)
        w = w + rule.eta_w / N * step * attacked
        w /= np.linalg.norm(w)
        b -= rule.eta_b / N * step
    return float(w @ B), float(b)


@pytest.mark.slow
def test_the_law_is_that_of_the_model_as_stated() -> None:
    rng = np.random.default_rng(13)
    stated = np.array([plain_sgd(5, 15, rng) for _ in range(1500)])
    sample = simulate(*MODEL, N=5, alpha=[3.0], runs=20_000, rng=14, R0=0.3, b0=0.1)
    for i, variable in enumerate(("R", "b")):
        assert stats.ks_2samp(sample[variable].values[:, 0], stated[:, i]).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("method", "N", "runs"), [("reduced", 2000, 400), ("direct", 400, 400)])
def test_the_mean_approaches_the_theory(method: Any, N: int, runs: int) -> None:
    alpha = [2.0, 10.0]
    theory = integrate(*MODEL, alpha=alpha)
    sample = simulate(*MODEL, N=N, alpha=alpha, runs=runs, rng=3, method=method)
    for variable in ("R", "b", "error", "adversarial_error"):
        error = sample[variable].std("run", ddof=1) / np.sqrt(runs)
        # the study finite_size measures the coefficient of 1/N: at most 2 at such rates
        assert np.all(abs(sample[variable].mean("run") - theory[variable]) <= 4 * error + 3 / N)


@pytest.mark.parametrize("method", ["reduced", "direct"])
def test_results_do_not_depend_on_the_number_of_threads(method: Any) -> None:
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            results.append(simulate(*MODEL, N=50, alpha=[1.0, 4.0], runs=70, rng=5, method=method))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0].R, results[1].R)
    np.testing.assert_array_equal(results[0].b, results[1].b)


@pytest.mark.parametrize("method", ["reduced", "direct"])
def test_a_run_has_its_own_stream(method: Any) -> None:
    few, many = (simulate(*MODEL, N=20, alpha=[2.0], runs=runs, rng=5, method=method) for runs in (3, 40))
    np.testing.assert_array_equal(few.R, many.R[:3])
    assert np.unique(many.R).size == 40


def test_seeds() -> None:
    def final(rng: Any) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = simulate(*MODEL, N=20, alpha=[2.0], runs=3, rng=rng).R.values
        return values

    np.testing.assert_array_equal(final(7), final(np.random.SeedSequence(7)))
    sequence = np.random.SeedSequence(7)
    np.testing.assert_array_equal(final(sequence), final(sequence))  # it is not used up
    generator = np.random.default_rng(7)
    first, second = final(generator), final(generator)
    assert not np.array_equal(first, second)  # a Generator moves on
    np.testing.assert_array_equal(first, final(np.random.default_rng(7)))
    assert not np.array_equal(final(None), final(None))


def test_streams_follow_numpys_spawning() -> None:
    seed = np.random.SeedSequence(9)
    states = rng_states(seed, 3, 2)
    expected = [child.generate_state(8, np.uint64).reshape(4, 2) for child in np.random.SeedSequence(9).spawn(3)]
    np.testing.assert_array_equal(states, expected)


def test_uniform_and_normal_numbers_have_their_laws() -> None:
    # one step from R = 0 without separation: b = -eta_b/N delta(z), R depends on both normals
    still = (GaussianMixture(rho=0.0), LearningRule(1e-9, 1.0), Adversary(0.0))
    sample = simulate(*still, N=3, alpha=[1 / 3], runs=20_000, rng=1)
    b = -3 * sample.b.values[:, 0]

    rng = np.random.default_rng(2)
    z, tau = rng.standard_normal(20_000), rng.choice([-1, 1], 20_000)
    from scipy.special import erf

    expected = (tau - erf(z)) * 2 / np.sqrt(np.pi) * np.exp(-z * z)
    assert stats.ks_2samp(b, expected).pvalue > 1e-3


def test_the_start_and_the_times() -> None:
    sample = simulate(*MODEL, N=10, alpha=[0.0, 0.04, 0.06], runs=4, rng=1, R0=0.4, b0=-1.0)
    assert np.all(sample.R[:, 0] == 0.4)
    assert np.all(sample.b[:, 0] == -1.0)
    np.testing.assert_array_equal(sample.R[:, 1], sample.R[:, 0])  # round(0.4) = 0 examples
    assert np.all(sample.R[:, 2] != sample.R[:, 1])  # round(0.6) = 1
    direct = simulate(*MODEL, N=10, alpha=[0.0], runs=4, rng=1, R0=0.4, method="direct")
    np.testing.assert_allclose(direct.R, 0.4, rtol=1e-14)


def test_the_result_is_labelled() -> None:
    sample = simulate(*MODEL, N=10, alpha=[1.0, 2.0], runs=3, rng=123)
    assert dict(sample.sizes) == {"run": 3, "alpha": 2}
    assert set(sample.data_vars) == {"R", "b", "error", "adversarial_error"}
    assert int(sample.N) == 10
    assert "entropy=123" in sample.attrs["seed"]
    for variable in sample.variables.values():
        assert variable.attrs["long_name"]


@pytest.mark.parametrize(
    ("kind", "message", "options"),
    [
        (ValueError, "N = 2 .*reduced.*>= 3", {"N": 2}),
        (ValueError, "N = 1 .*direct.*>= 2", {"N": 1, "method": "direct"}),
        (ValueError, r"N = 10\.5", {"N": 10.5}),
        (ValueError, "runs = 0", {"runs": 0}),
        (ValueError, "method = 'exact'", {"method": "exact"}),
        (ValueError, "alpha", {"alpha": [2.0, 1.0]}),
        (ValueError, "R0 = -1.1", {"R0": -1.1}),
        (TypeError, "rng = 'now'", {"rng": "now"}),
        (ValueError, "rng = -1", {"rng": -1}),
    ],
)
def test_bad_input_names_itself(kind: type[Exception], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(kind, match=message):
        simulate(*MODEL, **{"N": 10, "alpha": [1.0], "runs": 2, **options})
