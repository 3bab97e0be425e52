"""Fixed points of networks of several units, against the dynamics, against the closed forms without an attack, and each other."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import fsolve

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    TeacherStudent,
    fixed_points,
    follow,
    integrate,
    plateau_length,
    specialisation_rate,
    symmetric_fixed_points,
    xor,
)
from odeflow.fixed_points.plateau import units_apart
from odeflow.model import numeric_parameters
from odeflow.order_parameters.base import Array, flat, unflat

MIXTURE, RULE, ADVERSARY = GaussianMixture(0.7, 2.0, 1.0, 0.8), LearningRule(0.5, 0.3), Adversary(0.3)
PAIR = Committee(hidden=2)
TEACHER = TeacherStudent(2)
NAMES = ("M", "Q", "c", "theta", "b")


def state_of(points: Any, i: int, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """Return one of some fixed points as a start."""
    return {name: points[name].values[i] for name in names}


@pytest.mark.parametrize(
    ("mixture", "units", "coordinates"),
    [(MIXTURE, 1, 1 + 1 + 3), (MIXTURE, 3, 3 + 6 + 7), (xor(), 2, 4 + 3 + 5), (TEACHER, 2, 4 + 3 + 5)],
    ids=["one", "three", "xor", "teacher"],
)
def test_states_of_weights_are_sums_of_the_coordinates(mixture: Any, units: int, coordinates: int) -> None:
    """Weights and centres are drawn: their products have no other directions, and all of these."""
    network, rng = Committee(hidden=units), np.random.default_rng(1)
    basis = network.coordinates(RULE, mixture)
    assert basis.shape[1] == coordinates
    np.testing.assert_allclose(basis.T @ basis, np.eye(coordinates), atol=1e-14)
    centres = np.eye(6)[:1] if isinstance(mixture, GaussianMixture) else np.eye(6)[:2]
    if not isinstance(mixture, GaussianMixture | TeacherStudent):
        centres = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]) @ centres
    states = []
    for _ in range(2 * coordinates):
        w = rng.standard_normal((units, 6))
        state = {"Q": w @ w.T, "c": rng.random(units), "theta": rng.random(units), "b": np.array(rng.random())}
        first = network.variables(RULE, mixture)[0]
        state[first.name] = (w @ centres.T).reshape(first.sizes)
        states.append(flat(state, network.variables(RULE, mixture)))
    np.testing.assert_allclose(np.array(states) @ basis @ basis.T, states, atol=1e-13)
    assert np.linalg.matrix_rank(states) == coordinates


def test_the_fixed_points_rest_and_a_network_comes_to_the_stable_one() -> None:
    points = fixed_points(MIXTURE, RULE, ADVERSARY, network=PAIR)
    assert sorted(points.stable.values.tolist()) == [False, True]  # not a second one with the units in another order
    variables = PAIR.variables(RULE, MIXTURE)
    for i in range(points.sizes["fixed_point"]):
        rates = Committee(hidden=2, tolerance=1e-9).rates(state_of(points, i), MIXTURE, RULE, ADVERSARY)
        assert np.max(np.abs(flat(rates, variables))) < 1e-8
    end = integrate(MIXTURE, RULE, ADVERSARY, network=PAIR, alpha=[1500.0], start={"M": [0.1, 0.4], "Q": 0.3})
    stable = int(np.flatnonzero(points.stable.values)[0])
    order = np.argsort(end.M.values[0])
    np.testing.assert_allclose(end.M.values[0][order], np.sort(points.M.values[stable]), atol=2e-5)
    np.testing.assert_allclose(float(end.b[0]), float(points.b[stable]), atol=2e-5)


def test_differences_of_the_units_grow_at_the_specialisation_rate() -> None:
    points = symmetric_fixed_points(MIXTURE, RULE, ADVERSARY, network=PAIR)
    assert points.sizes["fixed_point"] == 1
    rate = float(points.specialisation_rate[0])
    assert rate > 0 > float(points.approach_rate[0])
    assert specialisation_rate(MIXTURE, RULE, ADVERSARY, network=PAIR) == rate
    state = state_of(points, 0)
    assert np.ptp(state["M"]) < 1e-12
    state["M"] = state["M"] + [1e-4, -1e-4]
    options: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}
    fine = Committee(hidden=2, tolerance=1e-9)
    # after the faster modes of the differences have gone
    seen = integrate(MIXTURE, RULE, ADVERSARY, network=fine, alpha=[30.0, 60.0], start=state, **options)
    apart = units_apart(seen.M.values[..., None])
    assert math.log(apart[1] / apart[0]) / 30 == pytest.approx(rate, rel=1e-3)
    # and among units that are alike, it comes back
    state["M"] = np.array([0.2, 0.2])
    seen = integrate(MIXTURE, RULE, ADVERSARY, network=fine, alpha=[200.0], start=state, **options)
    np.testing.assert_allclose(seen.M.values[0], points.M.values[0], atol=3e-3)
    # the nodes are not the same for both units: what is left of that is the quadrature's, and grows as differences do
    assert units_apart(seen.M.values[..., None])[0] < 1e-6


def saad_solla(R: Array, Q: Array, eta: float) -> tuple[Array, Array]:
    """Return dR and dQ of two units of erf(x / sqrt 2) with a teacher of two, T = 1, without an attack: integrals I3 and I4."""
    C = np.block([[Q, R], [R.T, np.eye(2)]])
    sign = np.array([1.0, 1.0, -1.0, -1.0])  # phi - tau

    def I3(i: int, n: int, m: int) -> float:
        a, b, d = C[i, i], C[i, n], C[i, m]
        root = math.sqrt((1 + a) * (1 + C[m, m]) - d * d)
        return float(2 / math.pi * (C[n, m] * (1 + a) - b * d) / (root * (1 + a)))

    def I4(i: int, k: int, m: int, n: int) -> float:
        c12, c13, c14, c23, c24, c34 = C[i, k], C[i, m], C[i, n], C[k, m], C[k, n], C[m, n]
        p1, p2 = 1 + C[i, i], 1 + C[k, k]
        whole = p1 * p2 - c12**2
        top = whole * c34 - c23 * c24 * p1 - c13 * c14 * p2 + c12 * c13 * c24 + c12 * c14 * c23
        one = whole * (1 + C[m, m]) - c23**2 * p1 - c13**2 * p2 + 2 * c12 * c13 * c23
        other = whole * (1 + C[n, n]) - c24**2 * p1 - c14**2 * p2 + 2 * c12 * c14 * c24
        return 4 / math.pi**2 / math.sqrt(whole) * math.asin(top / math.sqrt(one * other))

    force = np.array([[-sum(sign[m] * I3(i, n, m) for m in range(4)) for n in range(4)] for i in range(2)])
    noise = np.array(
        [
            [sum(sign[m] * sign[n] * I4(i, k, m, n) for m in range(4) for n in range(4)) for k in range(2)]
            for i in range(2)
        ]
    )
    return eta * force[:, 2:], eta * (force[:, :2] + force[:, :2].T) + eta**2 * noise


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_without_an_attack_the_plateau_is_that_of_the_closed_forms(eta: float) -> None:
    def alike(r: float, q: float, c: float) -> tuple[Array, Array]:
        return np.full((2, 2), r), np.array([[q, c], [c, q]])

    def rates(y: npt.ArrayLike) -> list[float]:
        dR, dQ = saad_solla(*alike(*np.asarray(y, np.float64)), eta)
        return [dR[0, 0], dQ[0, 0], dQ[0, 1]]

    r, q, c = fsolve(rates, [0.4, 0.36, 0.3], xtol=1e-13)
    R, Q = alike(r, q, c)
    mode, h = np.array([[1.0, -1.0], [-1.0, 1.0]]), 1e-5
    growth = (saad_solla(R + h * mode, Q, eta)[0] - saad_solla(R - h * mode, Q, eta)[0])[0, 0] / (2 * h)
    points = symmetric_fixed_points(TEACHER, LearningRule(eta, eta), Adversary(), network=PAIR)
    assert points.sizes["fixed_point"] == 1
    np.testing.assert_allclose(points.R.values[0], R, atol=1e-6)
    np.testing.assert_allclose(points.Q.values[0], Q, atol=1e-6)
    assert float(points.specialisation_rate[0]) == pytest.approx(growth, rel=1e-4)


def test_a_path_is_the_fixed_points_on_it() -> None:
    begin = state_of(symmetric_fixed_points(MIXTURE, RULE, ADVERSARY, network=PAIR), 0)
    options: dict[str, Any] = {"network": PAIR, "start": begin, "symmetric": True}
    path = follow(MIXTURE, RULE, ADVERSARY, values=[0.3, 0.5, 0.8, 1.2], **options)
    there = symmetric_fixed_points(MIXTURE, RULE, Adversary(0.8), network=PAIR)
    for name in NAMES:
        np.testing.assert_allclose(path[name].values[2], there[name].values[0], atol=1e-7)
    np.testing.assert_allclose(path.specialisation_rate[2], there.specialisation_rate[0], atol=1e-6)
    # beyond a fold there is none
    assert path.growth_rate.isnull().values.tolist() == [False, False, False, True]
    assert path.stable.values.tolist() == [False, False, True, False]
    assert path.eigenvalues.sizes == {"epsilon": 4, "eigenvalue": 6}
    # another way, by another parameter, and back
    back = follow(MIXTURE, RULE, Adversary(0.8), values=[0.8, 0.3], **options | {"start": state_of(path, 2)})
    np.testing.assert_allclose(back.M.values[1], begin["M"], atol=1e-7)
    along = follow(MIXTURE, RULE, ADVERSARY, parameter="rho", values=[2.0, 2.2], **options)
    wider = symmetric_fixed_points(GaussianMixture(0.7, 2.2, 1.0, 0.8), RULE, ADVERSARY, network=PAIR)
    np.testing.assert_allclose(along.M.values[1], wider.M.values[0], atol=1e-7)


def test_the_plateau_ends_where_the_trajectory_says() -> None:
    begin: dict[str, Any] = {"M": [0.3, 0.31], "Q": 0.5}
    length = plateau_length(MIXTURE, RULE, ADVERSARY, network=PAIR, start=begin, size=0.5)
    seen = integrate(MIXTURE, RULE, ADVERSARY, network=PAIR, alpha=length * np.array([0.999, 1.001]), start=begin)
    apart = units_apart(seen.M.values[..., None])
    assert apart[0] < 0.5 < apart[1]
    options: dict[str, Any] = {"network": PAIR, "start": begin}
    assert plateau_length(MIXTURE, RULE, ADVERSARY, size=0.005, **options) == 0.0
    assert plateau_length(MIXTURE, RULE, ADVERSARY, size=0.5, alpha_max=length / 2, **options) == math.inf


def test_units_with_other_output_weights_are_not_alike() -> None:
    four = Committee(hidden=4, tolerance=1e-3)
    variables = four.variables(RULE, xor())
    from odeflow.fixed_points.search import flow_at
    from odeflow.fixed_points.symmetric import blocks

    start = {"c": np.array([1.0, 1.0, -1.0, -1.0])}
    guesses = four.guesses(xor(), RULE, Adversary(attack="margin"), start)
    two_kinds = blocks(flow_at(four, xor(), RULE, Adversary(attack="margin"), guesses), guesses[0])
    # M of two kinds along two axes; Q: two lengths, two overlaps within, one between; b
    assert two_kinds.alike.basis.shape[1] == 4 + 5 + 1
    assert two_kinds.differences.basis.shape[1] == (8 + 10 + 1) - 10
    for direction in two_kinds.alike.basis.T:
        state = unflat(direction, variables)
        np.testing.assert_allclose(state["M"][0], state["M"][1], atol=1e-14)
        np.testing.assert_allclose(state["Q"][0, 2:], state["Q"][1, 2:][::-1], atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: symmetric_fixed_points(MIXTURE, RULE, ADVERSARY, network=Committee()),
            "has no two units that are alike",
        ),
        (
            lambda: symmetric_fixed_points(MIXTURE, RULE, ADVERSARY, network=PAIR, start={"c": [1.0, -1.0]}),
            "no two units that are alike: allowed are several units, of which two have the same",
        ),
        (
            lambda: follow(MIXTURE, RULE, ADVERSARY, network=PAIR, start={"M": 0.3}, parameter="eps", values=[1.0]),
            "parameter = 'eps' is unknown: allowed is one of p, rho, v1, v2, eta_w, eta_b, .*epsilon, fraction, .*eta_c",
        ),
        (
            lambda: follow(MIXTURE, RULE, ADVERSARY, network=PAIR, start={"M": 0.3}, values=[1.0, 1.0]),
            r"values = \[1\.0, 1\.0\] is no path: allowed are rising or falling numbers",
        ),
        (
            lambda: follow(MIXTURE, RULE, Adversary(attack="margin"), network=PAIR, start={"M": 0.9}, values=[6.0]),
            r"start = \{'M': 0\.9\}: allowed is a state near a fixed point at epsilon = 6",
        ),
        (
            lambda: plateau_length(MIXTURE, RULE, ADVERSARY, network=Committee(), start={}, size=0.3),
            "has one unit: allowed are several",
        ),
        (
            lambda: plateau_length(MIXTURE, RULE, ADVERSARY, network=PAIR, start={}, size=0.0),
            r"size = 0\.0 is out of range",
        ),
    ],
)
def test_bad_input_is_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_no_fixed_point_has_no_losses() -> None:
    network, teacher = Committee(hidden=2), TeacherStudent()
    sizes = {"R": (2, 2), "Q": (2, 2), "c": (2,), "theta": (2,), "b": ()}
    numbers = {name: np.array(value) for name, value in numeric_parameters(teacher).items()}
    state = {name: np.empty((0, *shape)) for name, shape in sizes.items()}
    assert all(values.shape == (0,) for values in network.measured(state, teacher, numbers, 0.1).values())
