"""Separation, rejection and the most confident neighbour of linear classifiers: by search in the ball, limits, and bounds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf, expit

import odeflow.anisotropic
from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error, classification_error, integrate, sweep
from odeflow.errors import Margins, confidence_threshold, most_confident_neighbour, rejection, separation

Array = npt.NDArray[np.float64]

mixtures = st.builds(
    GaussianMixture, p=st.floats(0.01, 0.99), rho=st.floats(0, 10), v1=st.floats(0.01, 10), v2=st.floats(0.01, 10)
)
overlaps, biases, radii, levels = st.floats(-1, 1), st.floats(-5, 5), st.floats(0, 3), st.floats(0.5, 0.999)

READ: dict[str, Callable[[Array], Array]] = {
    "erf": lambda x: (1 + erf(x)) / 2,
    "tanh": lambda x: (1 + np.tanh(x)) / 2,
    "logistic": expit,
    "linear": lambda x: np.clip((1 + x) / 2, 0, 1),
}
"""Confidence in the class +1, as a net has it."""

MIXTURE, R, B, Q = GaussianMixture(p=0.7, rho=1.8, v1=0.5, v2=1.5), 0.9, -0.4, 1.7
LEVEL, ETA = 0.8, 0.6


def searched(read: Callable[[Array], Array], norm: str, xi: float, count: int = 20_000) -> dict[str, float]:
    """Return the measures by search, with no formula: nets in R^3, points in balls, and the confidences of a net.

    In both balls stand the points that the theory takes for the best, and others drawn from the ball.
    """
    rng = np.random.default_rng(7)
    tau = np.where(rng.random(count) < MIXTURE.p, 1.0, -1.0)
    xi_ = np.where(tau > 0, MIXTURE.v1, MIXTURE.v2)[:, None] ** 0.5 * rng.standard_normal((count, 3))
    xi_[:, 0] += tau * MIXTURE.rho / 2
    w = np.array([R, 0.3, np.sqrt(Q - R**2 - 0.09)])
    if norm == "l2":
        best = w / np.linalg.norm(w)
        drawn = rng.standard_normal((8, 3))
        drawn *= rng.random((8, 1)) ** (1 / 3) / np.linalg.norm(drawn, axis=1, keepdims=True)
    else:
        best, drawn = np.sign(w), rng.uniform(-1, 1, (8, 3))
    ball = np.concatenate([np.zeros((1, 3)), best[None], -best[None], drawn])

    def composed(points: Array) -> tuple[Array, Array]:
        """Return answers and confidences, shape (...), at points of shape (..., 3); a confidence that is cut has no ties."""
        x = (points[..., None, :] + xi * ball) @ w - B
        found = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)[..., 0]
        confidence = read(found)
        return np.where(found > 0, 1.0, -1.0), np.maximum(confidence, 1 - confidence)

    answer, confidence = composed(xi_)
    moved, sure = composed(xi_[:, None] + ETA * ball)
    right, wrong = answer == tau, moved != tau[:, None]
    fooled = (wrong & (sure >= LEVEL)).any(1)
    in_right = np.where(wrong, 1 - sure, sure)
    return {
        "error": np.mean(~right),
        "adversarial_error": np.mean(wrong.any(1)),
        "separation": np.mean(fooled),
        "doubt": np.mean((in_right <= LEVEL).any(1)),
        "awpr": np.mean(fooled[right]),
        "awpr_without_rejection": np.mean(wrong.any(1)[right]),
        "recall": np.mean(confidence >= LEVEL),
        "recall_of_correct": np.mean(confidence[right] >= LEVEL),
    }


def margins(norm: str) -> Margins:
    w = np.array([R, 0.3, np.sqrt(Q - R**2 - 0.09)])
    mean = MIXTURE.rho * R / 2
    length = np.sqrt(Q) if norm == "l2" else np.abs(w).sum()
    return Margins(MIXTURE.p, (mean - B, mean + B), (np.sqrt(MIXTURE.v1 * Q), np.sqrt(MIXTURE.v2 * Q)), length)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("confidence", list(READ))
@pytest.mark.parametrize("xi", [0.0, 0.2, 1.5])
def test_the_formulas_are_the_shares_of_nets_that_are_searched(confidence: str, norm: str, xi: float) -> None:
    count = 20_000
    found = searched(READ[confidence], norm, xi, count)
    known = margins(norm).most_confident_neighbour(LEVEL, ETA, xi, confidence=confidence)
    for name, share in found.items():
        expected = float(known[name])
        error = np.sqrt(max(expected * (1 - expected), 1 / count) / (0.7 * count))  # of the right ones, too
        assert share == pytest.approx(expected, abs=4 * error), name


@pytest.mark.parametrize("confidence", list(READ))
def test_the_threshold_is_where_a_net_has_this_confidence(confidence: str) -> None:
    level = np.linspace(0.5, 0.99, 11)
    np.testing.assert_allclose(READ[confidence](confidence_threshold(level, confidence)), level, rtol=1e-12)
    assert confidence_threshold(0.5, confidence) == 0


@given(mixture=mixtures, R=overlaps, b=biases, delta=radii, Q=st.floats(0.1, 10))
def test_at_the_level_one_half_it_is_the_adversarial_error(
    mixture: GaussianMixture, R: float, b: float, delta: float, Q: float
) -> None:
    R *= np.sqrt(Q)
    expected = adversarial_error(R, b, mixture, delta, Q=Q)
    assert separation(R, b, mixture, 0.5, delta, Q=Q) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    one = law_of(mixture, R / np.sqrt(Q), b / np.sqrt(Q)).most_confident_neighbour(0.5, delta, 0.7)
    for name in ("adversarial_error", "separation", "doubt"):
        assert one[name] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert one["recall"] == pytest.approx(1, abs=1e-15)


@given(mixture=mixtures, R=overlaps, b=biases, level=levels, delta=radii)
def test_it_is_the_adversarial_error_at_another_epsilon(
    mixture: GaussianMixture, R: float, b: float, level: float, delta: float
) -> None:
    t = float(confidence_threshold(level))
    expected = adversarial_error(R, b, mixture, delta)
    assert separation(R, b, mixture, level, delta + t) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def law_of(mixture: GaussianMixture, R: float, b: float) -> Margins:
    half = mixture.rho * R / 2
    return Margins(mixture.p, (half - b, half + b), (np.sqrt(mixture.v1), np.sqrt(mixture.v2)), 1.0)


@given(mixture=mixtures, R=overlaps, b=biases, level=levels, eta=radii, xi=radii)
def test_what_more_certainty_gives_the_adversary_and_what_it_cannot_take(
    mixture: GaussianMixture, R: float, b: float, level: float, eta: float, xi: float
) -> None:
    law, slack = law_of(mixture, R, b), 1e-12
    one, base = law.most_confident_neighbour(level, eta, xi), law.most_confident_neighbour(level, eta, 0.0)
    S = float(adversarial_error(R, b, mixture, eta))
    assert one["adversarial_error"] == pytest.approx(S, rel=1e-9, abs=1e-15)  # the answers are the same
    assert one["error"] == pytest.approx(float(classification_error(R, b, mixture)), rel=1e-9, abs=1e-15)
    assert one["proposition_3"] + slack >= one["doubt"] >= S - slack
    assert base["separation"] - slack <= one["separation"] <= S + slack
    if one["error"] < 1 - 1e-3:
        assert base["awpr"] - slack <= one["awpr"] <= one["awpr_without_rejection"] + slack
        assert base["recall"] <= one["recall"]
        assert base["recall_of_correct"] <= one["recall_of_correct"] <= 1 + slack
        harder = law.rejection((1 + level) / 2, eta)
        assert harder["awpr"] <= base["awpr"] + slack
        assert harder["recall"] <= base["recall"] + slack
        assert law.rejection(level, eta + 0.1)["awpr"] >= base["awpr"] - slack


def test_a_radius_of_zero_is_rejection_alone_and_a_large_one_accepts_everything() -> None:
    base = rejection(R / Q**0.5, B, MIXTURE, LEVEL, ETA)
    xr.testing.assert_equal(most_confident_neighbour(R / Q**0.5, B, MIXTURE, LEVEL, ETA, 0.0)[list(base)], base)
    far = most_confident_neighbour(R / Q**0.5, B, MIXTURE, LEVEL, ETA, 5.0)
    assert float(far.recall) == float(far.recall_of_correct) == 1
    assert float(far.awpr) == float(far.awpr_without_rejection) > float(base.awpr)
    assert float(far.separation) == float(far.adversarial_error) == float(far.doubt)
    for name, value in law_of(MIXTURE, R / Q**0.5, B).most_confident_neighbour(LEVEL, ETA, 0.1).items():
        named = most_confident_neighbour(R / Q**0.5, B, MIXTURE, LEVEL, ETA, 0.1)[name]
        assert float(named) == pytest.approx(float(value), rel=1e-12)
        assert named.attrs["long_name"]


def test_the_third_proposition_counted() -> None:
    """Points that are good, and so are their neighbours: the share that is left out, by the definitions."""
    rng = np.random.default_rng(3)
    count, t = 400_000, float(confidence_threshold(LEVEL))
    law = margins("l2")
    is_plus = rng.random(count) < law.p
    u = np.where(is_plus, rng.normal(law.mean[0], law.sd[0], count), rng.normal(law.mean[1], law.sd[1], count))
    for xi in np.array([0.0, 0.2, 0.45, 0.7, 1.5]) * t / law.length:
        good = u - (xi + ETA) * law.length > -t  # no wrong answer of this level within delta = xi + eta
        nearest = np.maximum(np.abs(u) - ETA * law.length, 0)  # to the boundary, among the neighbours
        proved = good & (nearest + xi * law.length >= t)
        bound = float(law.most_confident_neighbour(LEVEL, ETA, xi)["proposition_3"])
        assert np.mean(~proved) == pytest.approx(bound, abs=4 * np.sqrt(bound * (1 - bound) / count))
    best = law.most_confident_neighbour(LEVEL, ETA, t / law.length)
    assert best["proposition_3"] == pytest.approx(best["adversarial_error"], rel=1e-12)


def test_it_takes_the_margins_of_any_linear_net() -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((2, 6, 4))
    covariances = samples.swapaxes(1, 2) @ samples / 6
    means = np.array([[1.0, 0, 0, 0.5], [-1.0, 0.2, 0, 0]])
    mixture = odeflow.anisotropic.Mixture(0.3, means=means, covariances=covariances)
    w, b, epsilon = np.array([1.0, -0.5, 0.2, 0.3]), 0.1, np.array([0.0, 0.3, 0.8])
    mean = tuple(tau * (mixture.means[k] @ w - b) for k, tau in enumerate((1, -1)))
    sd = tuple(np.sqrt(w @ covariances[k] @ w) for k in range(2))
    law = Margins(mixture.priors[0], mean, sd, np.abs(w).sum())
    expected = odeflow.anisotropic.adversarial_error(w, b, mixture, epsilon, "linf")
    np.testing.assert_allclose(law.error(epsilon), expected, rtol=1e-12)
    np.testing.assert_allclose(law.separation(0.5, epsilon, confidence="logistic"), expected, rtol=1e-12)


def test_labelled_arrays_broadcast_by_their_names() -> None:
    level = xr.DataArray([0.5, 0.9], dims="level", coords={"level": [0.5, 0.9]})
    eta = xr.DataArray([0.0, 0.5, 1.0], dims="eta", coords={"eta": [0.0, 0.5, 1.0]})
    over = {"p": [0.5, 0.7], "rho": [1.0, 2.0]}
    swept = sweep(GaussianMixture(), LearningRule(), Adversary(0.5), over=over, alpha=[20.0]).isel(alpha=0)
    share = separation(swept.R, swept.b, GaussianMixture(), level, eta)
    assert share.dims == ("p", "rho", "level", "eta")
    assert share.name == "separation"
    assert share.attrs["long_name"].startswith("share that an attack brings to a wrong answer")
    found = rejection(swept.R, swept.b, GaussianMixture(), level, eta, xi=0.1)
    assert found.awpr.dims == ("p", "rho", "level", "eta")
    assert found.recall.dims == ("p", "rho", "level")
    one = swept.sel(p=0.7, rho=1.0)
    alone = rejection(float(one.R), float(one.b), GaussianMixture(p=0.7, rho=1.0), 0.9, 0.5, xi=0.1)
    for name in found:
        at = {"p": 0.7, "rho": 1.0, "level": 0.9, "eta": 0.5}
        here = found[name].sel({dim: at[str(dim)] for dim in found[name].dims})
        assert float(here) == pytest.approx(float(alone[name]), rel=1e-12)
    plain = separation(0.9, np.array([0.0, 0.1])[:, None], GaussianMixture(), np.array([0.6, 0.7, 0.8]), 0.3)
    assert plain.shape == (2, 3)
    axes = rejection(0.9, np.array([0.0, 0.1])[:, None], GaussianMixture(), np.array([0.6, 0.7, 0.8]), 0.3)
    assert dict(axes.sizes) == {"axis2": 2, "axis1": 3}


def test_of_free_weights_the_length_counts() -> None:
    free = integrate(GaussianMixture(), LearningRule(normalised=False), Adversary(0.5), alpha=[30.0]).isel(alpha=0)
    shares = separation(free.R, free.b, GaussianMixture(), 0.9, 0.5, Q=free.Q)
    t = float(confidence_threshold(0.9)) / float(free.Q) ** 0.5
    expected = adversarial_error(free.R, free.b, GaussianMixture(), 0.5 + 1.0, Q=free.Q)
    np.testing.assert_allclose(
        separation(free.R, free.b, GaussianMixture(), 0.9, 1.5 + t, Q=free.Q), expected, rtol=1e-12
    )
    assert shares < expected
    with pytest.raises(ValueError, match="Q = None: R is of weights that are not normalised"):
        separation(free.R, free.b, GaussianMixture(), 0.9, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 0.4}, r"level = 0\.4 is out of range: allowed is >= 0\.5 and < 1"),
        ({"level": [0.5, 1.0]}, r"level = 1\.0 is out of range"),
        ({"level": np.nan}, r"level = nan is out of range"),
        ({"eta": -0.1}, r"eta = -0\.1 is out of range: allowed is a finite number >= 0"),
        ({"xi": -1.0}, r"xi = -1\.0 is out of range"),
        ({"xi": np.inf}, r"xi = inf is out of range"),
        ({"R": 1.5}, r"R = 1\.5 is out of range"),
        ({"confidence": "softmax"}, "confidence = 'softmax' is unknown: allowed is one of erf, tanh, logistic, linear"),
        ({"confidence": lambda level: level - 0.9}, r"has the threshold -0\.0999.*: allowed are thresholds >= 0"),
        ({"eta": [0.1, 0.2], "xi": [0.1, 0.2, 0.3]}, "do not broadcast together"),
        ({"eta": xr.DataArray([0.1, 0.2], dims="eta"), "xi": [0.1, 0.2]}, "beside DataArrays"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"R": 0.5, "b": 0.0, "mixture": GaussianMixture(), "level": 0.8, "eta": 0.1, "xi": 0.1}
    for function in (most_confident_neighbour, rejection):
        with pytest.raises(ValueError, match=message):
            function(**{**arguments, **change})


def test_bad_delta_and_margins() -> None:
    with pytest.raises(ValueError, match=r"delta = -0\.5 is out of range"):
        separation(0.5, 0.0, GaussianMixture(), 0.8, [0.0, -0.5])
    with pytest.raises(TypeError, match="level = 'high' is not a number"):
        separation(0.5, 0.0, GaussianMixture(), "high", 0.1)
    with pytest.raises(ValueError, match=r"sd = 0\.0 is out of range: allowed is > 0"):
        Margins(0.5, (1.0, 1.0), (1.0, 0.0), 1.0)
    with pytest.raises(ValueError, match=r"length = -1\.0 is out of range"):
        Margins(0.5, (1.0, 1.0), (1.0, 1.0), -1.0)
    with pytest.raises(ValueError, match=r"p = 1\.5 is out of range"):
        Margins(1.5, (1.0, 1.0), (1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match=r"mean = .*: allowed are two"):
        Margins(0.5, (1.0,), (1.0, 1.0), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Margins(0.5, 1, (1, 1), 1), "mean = 1: allowed are two"),  # type: ignore[arg-type]
        (lambda: Margins(0.5, ("a", 1), (1, 1), 1), "mean = 'a' is not a number"),
        (lambda: Margins(0.5, (1, 1), (1, 1), "a"), "length = 'a' is not a number"),
        (
            lambda: separation(0.5, 0.0, GaussianMixture(), xr.DataArray(["a"], dims="d"), 0.1),
            "level = .* is not a number",
        ),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
