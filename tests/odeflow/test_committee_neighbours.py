"""Two-layer networks that answer as their most confident neighbour: closed forms, limits, and search in both balls."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy.optimize import minimize_scalar
from scipy.special import erf

from odeflow import (
    Adversary,
    Committee,
    GaussianClusters,
    GaussianMixture,
    LearningRule,
    Perceptron,
    TeacherStudent,
    integrate,
    optimal_classifier,
)
from odeflow.errors import composed, confidence_threshold, rejection
from odeflow.order_parameters.committee import errors
from odeflow.order_parameters.committee.neighbours import MEASURES, composed_errors
from odeflow.order_parameters.committee.units import ERF, RELU

Array = npt.NDArray[np.float64]

DATA: dict[str, Any] = {"p": np.array([0.7, 0.3]), "v": np.array([1.0, 0.8]), "tau": np.array([1.0, -1.0])}
TWO: dict[str, Any] = {
    "M": np.array([[0.5, -0.5], [0.1, -0.4]]),
    "Q": np.array([[1.2, 0.3], [0.3, 0.8]]),
    "c": np.array([1.0, 0.8]),
    "theta": np.array([0.1, -0.2]),
    "b": 0.15,
    **DATA,
}
ONE: dict[str, Any] = {
    "M": np.array([[0.9, -0.7]]), "Q": np.array([[1.6]]), "c": np.array([0.8]), "theta": np.array([-0.2]), "b": 0.3, **DATA
}  # fmt: skip
NONE, ETA, XI = np.array([]), np.array([0.0, 0.3, 1.0]), np.array([0.0, 0.4, 1.2])
T = np.array([0.0, 0.3, 0.9])


def output(kind: int, x: Array, c: Array, b: float) -> Array:
    return np.asarray(b + (erf(x / math.sqrt(2)) if kind == ERF else np.maximum(x, 0)) @ c)


def turned(state: dict[str, Any], signs: list[float]) -> dict[str, Any]:
    return {**state, "c": state["c"] * np.array(signs)}


@pytest.mark.parametrize(("kind", "tolerance"), [(ERF, 4e-6), (RELU, 2e-4)])
@pytest.mark.parametrize("signs", [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
def test_at_a_radius_of_zero_it_is_the_network_itself(kind: int, tolerance: float, signs: list[float]) -> None:
    for state in (turned(TWO, signs), turned(ONE, signs[1:])):
        found = composed_errors(kind, **state, t=NONE, eta=ETA, xi=np.zeros(1))
        exact = errors.adversarial_error(kind, **state, epsilon=ETA, tolerance=1e-8)
        np.testing.assert_allclose(found["adversarial_error"][0], exact, atol=tolerance)
        assert found["error"][0] == pytest.approx(float(exact[0]), abs=tolerance / 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ERF, RELU])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_dead_second_unit_leaves_the_closed_form_of_one(kind: int, sign: float) -> None:
    one = turned(ONE, [sign])
    two = {
        **one,
        "M": np.array([one["M"][0], [0.1, -0.2]]),
        "Q": np.array([[1.6, 0.5], [0.5, 0.9]]),
        "c": np.array([sign * 0.8, 1e-14]),
        "theta": np.array([-0.2, 0.3]),
    }
    closed = composed_errors(kind, **one, t=T, eta=ETA, xi=XI)
    graphs = composed_errors(kind, **two, t=T, eta=ETA, xi=XI)
    for name in MEASURES:
        np.testing.assert_allclose(graphs[name], closed[name], atol=2e-5, err_msg=name)


def search(kind: int, state: dict[str, Any], t: float, eta: float, xi: float, count: int) -> dict[str, float]:
    """Return shares of drawn examples by search: points of the disc of radius eta, and of a circle of xi round each."""
    rng = np.random.default_rng(5)
    K = len(state["c"])
    L = np.linalg.cholesky(state["Q"])
    a = rng.choice(2, count, p=state["p"])
    tau = state["tau"][a]
    x = state["M"].T[a] - state["theta"] + np.sqrt(state["v"][a])[:, None] * (rng.standard_normal((count, K)) @ L.T)
    if K == 1:
        attacks, circle = np.linspace(-1, 1, 41)[:, None], np.array([[-1.0], [0.0], [1.0]])
    else:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        attacks = np.concatenate([np.zeros((1, 2)), *(r * circle[::2] for r in (0.25, 0.5, 0.75)), circle])

    def answers(x: Array) -> tuple[Array, Array]:
        phi = output(kind, x[..., None, :] + xi * circle @ L.T, state["c"], state["b"])
        return phi.max(-1) + phi.min(-1), np.maximum(phi.max(-1), -phi.min(-1))

    middle, size = answers(x)
    right = tau * middle > 0
    wrong, fooled = np.zeros(count, bool), np.zeros(count, bool)
    for r in eta * attacks @ L.T:
        moved, sure = answers(x + r)
        wrong |= tau * moved <= 0
        fooled |= (tau * moved <= 0) & (sure >= t)
    return {
        "error": np.mean(~right),
        "adversarial_error": np.mean(wrong),
        "separation": np.mean(fooled),
        "awpr": np.mean(fooled[right]),
        "awpr_without_rejection": np.mean(wrong[right]),
        "recall": np.mean(size >= t),
        "recall_of_correct": np.mean(size[right] >= t),
    }


@pytest.mark.parametrize("kind", [ERF, RELU])
@pytest.mark.parametrize(
    ("state", "t", "eta", "xi"),
    [
        (TWO, 0.9, 0.5, 0.6),
        (turned(TWO, [1.0, -1.0]), 0.5, 0.4, 1.0),
        (turned(TWO, [-1.0, -1.0]), 0.6, 0.7, 0.3),
        (ONE, 0.7, 0.5, 1.5),
        (turned(ONE, [-1.0]), 0.3, 0.5, 0.5),
    ],
)
def test_they_are_the_shares_of_examples_that_are_searched(
    kind: int, state: dict[str, Any], t: float, eta: float, xi: float
) -> None:
    count = 6000
    found = search(kind, state, t, eta, xi, count)
    known = composed_errors(kind, **state, t=np.array([t]), eta=np.array([eta]), xi=np.array([xi]))
    for name, share in found.items():
        expected = float(known[name].ravel()[0])
        error = math.sqrt(max(expected * (1 - expected), 1 / count) / (0.5 * count))
        assert share == pytest.approx(expected, abs=4 * error), name


def test_nets_in_the_whole_space_whose_balls_are_searched() -> None:
    """N = 3, two units, by points drawn from the balls and climbs of the output: no coordinates of the theory."""
    rng = np.random.default_rng(2)
    count, eta, xi, draws = 1500, 0.6, 0.7, 400
    w = np.array([[0.8, 0.3, 0.1], [0.2, -0.9, 0.4]])
    c, theta, b, half = np.array([1.0, 0.7]), np.array([0.2, -0.1]), 0.3, 1.0
    mixture = GaussianMixture(p=0.6, rho=2 * half, v1=0.5, v2=0.9)
    tau = np.where(rng.random(count) < mixture.p, 1.0, -1.0)
    x = np.where(tau > 0, mixture.v1, mixture.v2)[:, None] ** 0.5 * rng.standard_normal((count, 3))
    x[:, 0] += tau * half
    ball = rng.standard_normal((draws, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    ball[::4] *= rng.random((draws // 4, 1))

    def middle(points: Array) -> Array:
        phi = output(ERF, (points[..., None, :] + xi * ball) @ w.T - theta, c, b)
        return np.asarray(phi.max(-1) + phi.min(-1))

    wrong = tau * middle(x) <= 0
    clean = wrong.mean()
    for r in eta * np.concatenate([ball[:60], w / np.linalg.norm(w, axis=1)[:, None], -w, w.sum(0)[None]]):
        r = r * min(1.0, eta / max(float(np.linalg.norm(r)), 1e-12))
        left = np.flatnonzero(~wrong)
        wrong[left] = tau[left] * middle(x[left] + r) <= 0
    state = {"M": half * w[:, 0], "Q": w @ w.T, "c": c, "theta": theta, "b": b}
    known = composed(state, mixture, 0.5, eta, xi, network=Committee(2))
    for share, name in ((clean, "error"), (wrong.mean(), "adversarial_error")):
        expected = float(known[name])
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / count)), name


@pytest.mark.parametrize("kind", [ERF, RELU])
@pytest.mark.parametrize("state", [ONE, TWO, turned(TWO, [1.0, -1.0])])
def test_it_says_what_the_network_says_within_xi(kind: int, state: dict[str, Any]) -> None:
    """An answer comes from within xi, and where all points within xi agree it is theirs."""
    found = composed_errors(kind, **state, t=T, eta=ETA, xi=XI, step=0.03)
    most = errors.adversarial_error(kind, **state, epsilon=ETA + XI[:, None])
    base = composed_errors(kind, **state, t=T, eta=ETA, xi=np.zeros(1), step=0.03)
    assert np.all(found["adversarial_error"] <= most + 3e-4)
    assert np.all(np.diff(found["adversarial_error"], axis=1) >= 0)
    assert np.all(np.diff(found["recall"], axis=1) >= -1e-12)  # over xi
    for name in ("separation", "awpr", "recall"):
        assert np.all(np.diff(found[name], axis=0) <= 1e-12), name  # over the level
    np.testing.assert_allclose(found["recall"][0], 1, atol=1e-6)
    np.testing.assert_allclose(found["separation"][0], found["adversarial_error"], atol=1e-12)
    np.testing.assert_allclose(found["awpr"][0], found["awpr_without_rejection"], atol=1e-12)
    np.testing.assert_allclose(found["error"][0], base["error"][0], atol=1e-12)


@pytest.mark.parametrize("kind", [ERF, RELU])
def test_both_classes_exchanged_change_nothing(kind: int) -> None:
    for state in (ONE, TWO):
        other = {**state, "c": -state["c"], "b": -state["b"], "tau": -state["tau"]}
        one, two = (composed_errors(kind, **each, t=T, eta=ETA, xi=XI, step=0.03) for each in (state, other))
        for name in MEASURES:
            np.testing.assert_allclose(one[name], two[name], atol=2e-6 if kind == ERF else 2e-5, err_msg=name)


def test_an_output_that_is_odd_about_its_boundary_gains_nothing() -> None:
    odd = {**ONE, "b": 0.0, "theta": np.array([0.4])}
    found = composed_errors(ERF, **odd, t=NONE, eta=ETA, xi=XI)["adversarial_error"]
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), rtol=1e-12)
    linear = {**TWO, "c": np.ones(2), "theta": np.zeros(2), "b": 0.0}  # two units whose boundary is a line
    equal = {**linear, "Q": np.array([[1.2, 0.3], [0.3, 1.2]])}  # and the output is odd when it is reflected there
    found = composed_errors(ERF, **equal, t=NONE, eta=ETA, xi=XI)["adversarial_error"]
    room = (TWO["tau"] * TWO["M"].sum(0) / math.sqrt(3.0) - ETA[:, None]) / np.sqrt(TWO["v"])
    expected = (TWO["p"] * 0.5 * (1 - erf(room / math.sqrt(2)))).sum(-1)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=5e-6)
    found = composed_errors(ERF, **linear, t=NONE, eta=ETA, xi=XI)["adversarial_error"]
    assert found[2, 1] > found[0, 1] + 1e-3  # a line alone is not enough


def boundary(kind: int, state: dict[str, Any], xi: float) -> float:
    """Return lambda at which one unit's composed answer changes, from its error on a class of a tiny variance."""
    probe = {**state, "p": np.ones(1), "v": np.array([1.0]), "tau": np.array([-1.0]), "M": np.zeros((1, 1))}
    E = float(composed_errors(kind, **probe, t=NONE, eta=np.zeros(1), xi=np.array([xi]))["error"][0])
    from scipy.special import ndtri

    return float(-ndtri(E) * math.sqrt(state["Q"][0, 0]))


def test_where_the_boundary_of_one_unit_goes() -> None:
    """erf: by the curvature at first, by xi less a constant in the end. ReLU: not before the ball reaches the kink."""
    width = math.sqrt(ONE["Q"][0, 0])
    l = math.sqrt(2) * float(minimize_scalar(lambda z: (0.8 * erf(z) + 0.3) ** 2, bounds=(-3, 3), method="bounded").x)
    start = boundary(ERF, ONE, 0.0)
    assert start == pytest.approx(l - 0.2, abs=1e-4)
    small = 0.05
    # phi''/phi' = -l along lambda; the boundary moves by -xi^2 phi''/(2 phi')
    assert boundary(ERF, ONE, small) - start == pytest.approx((small * width) ** 2 * l / 2, rel=0.01)
    far = boundary(ERF, ONE, 8.0) - boundary(ERF, ONE, 7.0)
    assert far == pytest.approx(-width, rel=1e-3)
    dead = {**ONE, "b": -0.3}
    l = 0.3 / 0.8
    for xi in (0.1, 0.25, 0.5, 1.0):
        expected = l if xi * width <= l else 2 * l - xi * width
        assert boundary(RELU, dead, xi) - dead["theta"][0] == pytest.approx(expected, abs=1e-9)


def test_the_best_radius_is_as_good_as_the_best_bias_and_no_better() -> None:
    mixture, network = GaussianMixture(p=0.7), Committee()
    end = integrate(mixture, LearningRule(0.5, 0.5), Adversary(), network=network, alpha=[20.0]).isel(alpha=-1)
    cosine = float(end.M[0] / end.Q[0, 0] ** 0.5)
    for eta in (0.0, 0.3, 0.5):
        xi = np.linspace(0, 3, 301)
        S = composed(end, mixture, 0.5, eta, xi, network=network).adversarial_error
        least = float(optimal_classifier(GaussianMixture(p=0.7, rho=2 * cosine), eta).adversarial_error)
        assert float(S.min()) == pytest.approx(least, abs=2e-5)
        assert float(S.min()) >= least - 1e-9
        assert float(S[0]) > least + 0.005
        assert 0 < xi[np.argmin(S.values)] < 3


def test_a_label_whose_output_ends_below_the_level_is_never_accepted() -> None:
    """phi lies in (b - c, b + c): above c - b the answer -1 is always rejected, and what remains is the answer +1."""
    state = {**ONE, "c": np.array([0.6]), "b": 0.3}
    found = composed_errors(ERF, **state, t=np.array([0.4]), eta=np.array([0.5, 20.0]), xi=XI)
    assert np.all(found["separation"][0] <= DATA["p"][1])
    np.testing.assert_allclose(found["separation"][0][:, 1], DATA["p"][1], rtol=1e-6)
    np.testing.assert_allclose(found["adversarial_error"][:, 1], 1, rtol=1e-6)


@pytest.mark.parametrize(("activation", "gain"), [("erf", math.sqrt(0.5)), ("erf-x", 1.0)])
def test_one_unit_is_the_linear_classifier_with_another_confidence(activation: Any, gain: float) -> None:
    """Without an output bias, |phi| >= t is gain |x| >= erfinv(t): rejection by the formula of the perceptron."""
    mixture = GaussianMixture(p=0.7, v1=0.8, v2=1.2)
    state = {"M": [0.9], "Q": [[1.5]], "c": [1.0], "theta": [0.3], "b": 0.0}
    level = np.array([0.6, 0.9])
    found = composed(state, mixture, level, 0.5, [0.0, 0.4], network=Committee(1, activation))
    for xi in (0.0, 0.4):
        linear = rejection(
            0.9, 0.3, mixture, level, 0.5, Q=1.5, xi=xi, confidence=lambda p: confidence_threshold(p) / gain
        )
        for name in linear:
            np.testing.assert_allclose(found[name].sel(xi=xi), linear[name].values.squeeze(), rtol=1e-10, err_msg=name)


def test_results_of_integrate_are_taken_with_their_dims() -> None:
    mixture = GaussianClusters(means=[[1.5, 0], [0, 1.5], [-0.5, -0.5]], labels=[1, 1, -1], variances=[0.1, 0.1, 0.1])
    network = Committee(2, "relu")
    start: dict[str, Any] = {
        "M": [[0.45, 0.15, -0.2], [0.15, 0.375, -0.175]],
        "Q": [[0.39, 0.155], [0.155, 0.27]],
        "c": [1.0, 0.8],
    }
    path = integrate(mixture, LearningRule(0.5, 0.5), Adversary(), network=network, alpha=[0.0, 5.0], start=start)
    found = composed(path, mixture, [0.5, 0.8], [0.0, 0.3], 0.4, network=network)
    assert found.adversarial_error.dims == ("alpha", "eta")
    assert found.awpr.dims == ("alpha", "level", "eta")
    assert found.recall.dims == ("alpha", "level")
    assert float(found.xi) == 0.4
    alone = composed(path.isel(alpha=1), mixture, 0.8, 0.3, 0.4, network=network)
    assert float(alone.awpr) == float(found.awpr.sel(alpha=5, level=0.8, eta=0.3))
    plain = composed(path, mixture, 0.5, [0.0, 0.3], network=network)
    np.testing.assert_allclose(plain.error, path.error, atol=2e-5)
    xr.testing.assert_allclose(plain.adversarial_error.isel(eta=0, drop=True), plain.error, rtol=1e-12)


@pytest.mark.slow
def test_an_inactive_region_shrinks_beyond_what_an_output_bias_can_do() -> None:
    """The check values of the theory page, against an adversary who knows the rule, and all output biases on a grid."""
    means, weights, variances = [[-3, 0], [-1, 2], [0, -0.7]], [0.2, 0.35, 0.45], [0.1, 0.1, 0.1]
    mixture = GaussianClusters(means=means, labels=[1, -1, 1], weights=weights, variances=variances)
    start: dict[str, Any] = {"M": [[-0.9, -0.1, -0.07], [-0.3, 0.4, -0.175]], "Q": [[0.39, 0.035], [0.035, 0.2725]]}
    network, eta = Committee(2, "relu"), np.array([0.0, 0.3, 0.5])
    end = integrate(mixture, LearningRule(0.5, 0.5), Adversary(), network=network, alpha=[60.0], start=start).isel(
        alpha=-1
    )
    S = composed(end, mixture, 0.5, eta, [0.0, 1.0], network=network, step=0.02).adversarial_error
    np.testing.assert_allclose(S, [[0.0531, 0.1904, 0.3172], [0.0003, 0.0062, 0.0298]], atol=3e-4)
    M, Q, c, theta, b = (end[name].values for name in ("M", "Q", "c", "theta", "b"))
    data: dict[str, Any] = {"p": np.array(weights), "v": np.array(variances), "tau": np.array([1.0, -1.0, 1.0])}
    biases = b + np.linspace(-1.2, 1.2, 97)[:, None]
    state: dict[str, Any] = {"M": M[None, None], "Q": Q[None, None], "c": c[None, None], "theta": theta[None, None]}
    best = errors.adversarial_error(RELU, **state, b=biases, **data, epsilon=eta, tolerance=1e-4).min(0)
    np.testing.assert_allclose(best, [0.0028, 0.0369, 0.1172], atol=2e-4)
    assert np.all(S[1] < 0.3 * best)


def test_what_is_not_known_is_nan_or_refused() -> None:
    against = {**TWO, "Q": np.array([[1.0, -1.0], [-1.0, 1.0]])}  # the answer -1 in a strip
    assert np.isnan(composed_errors(ERF, **against, t=T, eta=ETA, xi=XI)["error"]).all()
    assert np.isnan(composed_errors(ERF, **{**ONE, "b": np.nan}, t=T, eta=ETA, xi=XI)["error"]).all()
    state: dict[str, Any] = {"M": [0.5], "Q": [[1.0]], "c": [1.0], "theta": [0.0], "b": 0.0}
    mixture, network = GaussianMixture(), Committee()
    for change, message in (
        ({"level": 1.0}, r"level = 1\.0 is out of range"),
        ({"eta": [-0.1]}, r"eta = -0\.1 is out of range: allowed is a finite number >= 0"),
        ({"xi": -0.1}, r"xi = -0\.1 is out of range"),
        ({"xi": [[0.1]]}, r"xi has shape \(1, 1\): allowed is a number, or a list of numbers"),
        ({"step": 1.0}, r"step = 1\.0 is out of range"),
    ):
        arguments: dict[str, Any] = {"level": 0.9, "eta": 0.1, "xi": 0.1, "network": network, **change}
        with pytest.raises(ValueError, match=message):
            composed(state, mixture, **arguments)
    with pytest.raises(TypeError, match="for the perceptron there is most_confident_neighbour"):
        composed({"R": 0.5, "b": 0.0}, mixture, 0.9, 0.1, network=Perceptron())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state has no Q"):
        composed({"M": [0.5]}, mixture, 0.9, 0.1, network=network)
    three = {"M": np.ones(3), "Q": np.eye(3), "c": np.ones(3), "theta": np.zeros(3), "b": 0.0}
    with pytest.raises(ValueError, match="hidden = 3: allowed are 1 and 2"):
        composed(three, mixture, 0.9, 0.1, network=Committee(3))
    teacher = {"R": [[0.5, 0.1]], "Q": [[1.0]], "c": [1.0], "theta": [0.0], "b": 0.0}
    with pytest.raises(TypeError, match="mixture has a teacher"):
        composed(teacher, TeacherStudent(), 0.9, 0.1, network=network)
