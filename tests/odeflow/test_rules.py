"""Rules and data beyond the seed's: theory against its reference, both simulations, limits, and who refuses what."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numba import njit
from scipy import optimize, special, stats

import odeflow
from odeflow import (
    Adversary,
    Committee,
    Factor,
    GaussianMixture,
    LearningRule,
    anisotropic,
    control,
    fixed_points,
    integrate,
    integrate_batch,
    jacobian,
    rates,
    simulate,
    sweep,
)
from odeflow.fixed_points.equilibria import fixed_points_batch
from odeflow.fixed_points.phases import critical_epsilon
from odeflow.laws import Discrete
from odeflow.model import COMMON, numeric_parameters, parameters
from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES
from odeflow.order_parameters import Perceptron

LOAD: Any = runge_kutta.load
DERIVATIVE: Any = runge_kutta.derivative
MIXTURE = GaussianMixture(0.7, 2.0, 1.0, 0.5)


def ramp(u: float) -> float:
    return min(max(1.0 - u, 0.0), 1.0)


def seeds_own(u: float) -> float:
    return (1 - math.erf(u)) * 2 / math.sqrt(math.pi) * math.exp(-u * u)


NEW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "label noise": ({"label_noise": 0.2}, {}),
    "class-dependent epsilon": ({}, {"epsilon_ratio": 1.8}),
    "decay": ({"normalised": False, "decay_w": 0.3, "decay_b": 0.5}, {}),
    "batch": ({"batch": 4}, {}),
    "batch of free weights": ({"batch": 3, "normalised": False, "loss": "logistic", "activation": "linear"}, {}),
    "input noise": ({"input_noise": 0.8}, {}),
    "frozen weights": ({"eta_w": 0.0}, {}),
    "frozen bias": ({"eta_b": 0.0}, {}),
    "blind": ({"normalised": False}, {"attack": "blind"}),
    "clean and attacked": ({}, {"clean_weight": 0.4}),
    "clean and attacked, perceptron": ({"loss": "perceptron", "activation": "sign"}, {"clean_weight": 0.4}),
    "clean and attacked, linear": ({"loss": "squared", "activation": "linear", "eta_w": 0.3}, {"clean_weight": 0.6}),
    "smoothing": ({"smoothing": 0.4}, {}),
    "smoothing, logistic": ({"smoothing": 0.4, "loss": "logistic", "activation": "tanh"}, {}),
    "trades": ({"surrogate": "trades", "beta": 3.0, "smoothing": 0.2}, {}),
    "trades of free weights": (
        {"surrogate": "trades", "beta": 2.0, "normalised": False, "loss": "logistic", "activation": "linear"},
        {"fraction": 0.7, "epsilon_ratio": 1.4},
    ),
    "trades, logistic": ({"surrogate": "trades", "beta": 4.0, "loss": "logistic", "activation": "tanh"}, {}),
    "pairing": ({"surrogate": "pairing", "beta": 1.5}, {"clean_weight": 0.5}),
    "pairing, blind, of free weights": (
        {"surrogate": "pairing", "beta": 0.5, "normalised": False, "loss": "logistic", "activation": "erf", "smoothing": 0.1},
        {"clean_weight": 0.3, "attack": "blind"},
    ),
    "line search with trades": (
        {"surrogate": "trades", "beta": 2.0, "steps": "line_search", "eta_w": 8.0, "eta_b": 5.0, "normalised": False},
        {},
    ),
    "own factor": ({"factor": Factor(ramp, kinks=(0.0, 1.0))}, {"clean_weight": 0.3}),
    "line search": ({"steps": "line_search", "eta_w": 10.0, "eta_b": 10.0}, {}),
    "polyak": ({"steps": "polyak", "eta_w": 10.0, "eta_b": 3.0}, {"epsilon_ratio": 0.5}),
    "line search of free weights": (
        {"steps": "line_search", "eta_w": 8.0, "eta_b": 5.0, "normalised": False, "decay_w": 0.1, "batch": 2},
        {"clean_weight": 0.3},
    ),
    "all": (
        {
            "normalised": False, "decay_w": 0.2, "decay_b": 0.3, "batch": 2, "label_noise": 0.1, "input_noise": 0.5,
            "smoothing": 0.2, "loss": "logistic", "activation": "linear",
        },
        {"attack": "blind", "epsilon_ratio": 0.5, "clean_weight": 0.3, "fraction": 0.8, "law": Discrete((0.5, 1.5), (0.4, 0.6))},
    ),
}  # fmt: skip
every_rule = pytest.mark.parametrize("name", NEW)


def model(name: str) -> tuple[GaussianMixture, LearningRule, Adversary]:
    rule, adversary = NEW[name]
    return MIXTURE, LearningRule(**{"eta_w": 0.6, "eta_b": 0.5, **rule}), Adversary(0.7, **adversary)


@njit(error_model="numpy")
def kernels_rates(system: Any, constants: int, variables: int) -> Any:
    """Return what a kernel has for its first trajectory's initial state."""
    numbers, y, dydt = np.zeros(constants * LANES), np.zeros(variables * LANES), np.zeros(variables * LANES)
    for lane in range(LANES):
        LOAD(system, 0, lane, numbers, y)
    DERIVATIVE(system, numbers, y, dydt)
    return dydt.reshape(variables, LANES)[:, LANES - 1].copy()


def of_kernel(rule: LearningRule, adversary: Adversary, y: list[float]) -> Any:
    numbers = {**numeric_parameters(MIXTURE, rule, adversary), "second_order": rule.second_order}
    points = {name: np.array([float(value)]) for name, value in numbers.items()}
    [system] = Perceptron().systems(MIXTURE, rule, adversary, points, np.array([y]))
    return kernels_rates(system.kernel, system.constants, len(y))


@every_rule
@pytest.mark.slow
def test_the_kernel_is_the_reference_and_the_jacobian_that_of_its_rates(name: str) -> None:
    _, rule, adversary = model(name)
    for R, b, Q in ((0.4, 0.3, 1.3), (-0.5, -2.0, 9.0), (0.02, 0.1, 0.04)):
        y = [R, b] if rule.normalised else [R, b, Q]

        def at(z: Any) -> Any:
            return np.array(rates(z[0], z[1], MIXTURE, rule, adversary, Q=None if rule.normalised else z[2]))

        np.testing.assert_allclose(of_kernel(rule, adversary, y), at(y), rtol=1e-9, atol=1e-9)
        J = jacobian(R, b, MIXTURE, rule, adversary, Q=None if rule.normalised else Q)
        for column, step in enumerate(1e-4 * np.minimum(1.0, [1.0, 1.0, Q][: len(y)]) * np.eye(len(y))):
            h = step[column]
            difference = (8 * (at(y + step) - at(y - step)) - (at(y + 2 * step) - at(y - 2 * step))) / (12 * h)
            np.testing.assert_allclose(J[:, column], difference, rtol=1e-6, atol=1e-7)


@every_rule
@pytest.mark.slow
def test_theory_is_the_limit_of_the_simulation(name: str) -> None:
    N, runs = 1000, 128
    parts = model(name)
    start: dict[str, Any] = {"R0": 0.2} | ({} if parts[1].normalised else {"Q0": 0.8})
    theory = integrate(*parts, alpha=[2.0, 8.0], **start)
    sample = simulate(*parts, N=N, alpha=[2.0, 8.0], runs=runs, rng=1, **start)
    for variable in sample.data_vars:
        error = sample[variable].std("run", ddof=1) / np.sqrt(runs)
        # terms of order 1/N as for the older variants
        assert np.all(abs(sample[variable].mean("run") - theory[variable]) <= 4 * error + 3 / N)


@every_rule
@pytest.mark.slow
def test_both_methods_have_the_same_law(name: str) -> None:
    parts = model(name)
    samples = [
        simulate(*parts, N=10, alpha=[3.0], runs=1000, rng=seed, method=method, R0=0.2)  # type: ignore[arg-type]
        for seed, method in ((21, "reduced"), (22, "direct"))
    ]
    for variable in ("R", "b", "Q"):
        if variable in samples[0]:
            # what is frozen has rounding of its own
            assert stats.ks_2samp(*(sample[variable].values[:, 0].round(12) for sample in samples)).pvalue > 1e-4


def test_two_ways_to_the_same_numbers() -> None:
    """Each way through a part of the kernel that the other does not use."""
    same: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"clean_weight": 1.0, "epsilon": 1.2}, {"epsilon": 0.0}),
        ({"epsilon_ratio": 0.0, "clean_weight": 0.5, "epsilon": 1.2, "p": 1 - 1e-9}, {"clean_weight": 0.5, "epsilon": 1.2, "p": 1 - 1e-9}),
        ({"input_noise": 0.5}, {"v1": 1.25, "v2": 0.75}),
        ({"epsilon": 0.5, "epsilon_ratio": 2.0}, {"epsilon": 1.0, "epsilon_ratio": 0.5, "p": 0.3, "v1": 0.5, "v2": 1.0}),
    ]  # fmt: skip
    for i, pair in enumerate(same):
        one, other = (integrate_batch(**{"p": 0.7, "v1": 1.0, "v2": 0.5, **kind}, alpha=[5.0]).y[0, 0] for kind in pair)
        np.testing.assert_allclose(one, other * [1, -1] if i == 3 else other, rtol=1e-7)  # with the classes exchanged


def test_a_batch_has_a_part_of_the_noise() -> None:
    """dQ is a line in 1/n: two batches and none give the third."""
    Q = {
        n: rates(0.3, 0.2, MIXTURE, LearningRule(0.8, batch=n, normalised=False), Adversary(0.5), Q=1.2)[2]
        for n in (1, 2, 4)
    }
    assert Q[2] - Q[4] == pytest.approx((Q[1] - Q[2]) / 2)
    assert Q[1] > Q[2]


def test_flipping_every_label_turns_the_classifier_round() -> None:
    # with all labels flipped the learner's class +1 is the cluster at -B: the same as R and b of opposite sign
    plain = integrate_batch(p=0.7, v1=1.0, v2=0.5, epsilon=0.6, R0=0.2, b0=0.3, alpha=[4.0]).y[0, 0]
    flipped = integrate_batch(p=0.7, v1=1.0, v2=0.5, epsilon=0.6, R0=-0.2, b0=-0.3, label_noise=1.0, alpha=[4.0]).y[
        0, 0
    ]
    np.testing.assert_allclose(flipped, -plain, rtol=1e-7)


def test_symmetric_label_noise_is_label_smoothing_to_first_order() -> None:
    """The squared loss of labels flipped with probability nu has the mean gradient of labels (1 - 2 nu) tau."""
    model: dict[str, Any] = {"p": 0.7, "v2": 0.5, "epsilon": 0.0, "second_order": False, "alpha": [20.0]}
    noisy, smooth = integrate_batch(**model, label_noise=0.15).y, integrate_batch(**model, smoothing=0.3).y
    np.testing.assert_allclose(noisy, smooth, rtol=1e-7)


def test_what_others_in_a_batch_have_changes_no_bit() -> None:
    kinds: dict[str, Any] = {
        "label_noise": [0.0, 0.2],
        "smoothing": [0.0, 0.3],
        "clean_weight": [0.0, 0.5],
        "fraction": [1.0, 0.5],
    }
    others: dict[str, Any] = {"epsilon": 0.7, "p": 0.7, "batch": 2, "alpha": [3.0, 9.0]}
    for name, values in kinds.items():
        together = integrate_batch(**others, **{name: values}).y
        for i, value in enumerate(values):
            alone = integrate_batch(**others, **{name: value}).y
            np.testing.assert_array_equal(together[i], alone[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["label noise", "decay", "blind", "smoothing", "clean and attacked"])
def test_learning_comes_to_rest_at_a_fixed_point(name: str) -> None:
    parts = (GaussianMixture(0.6, 2.0, 1.0, 0.9), *model(name)[1:])  # no bias runs away
    end = integrate(*parts, alpha=[2000.0])
    points = fixed_points(*parts)
    variables = ["R", "b", "Q"][: 2 if parts[1].normalised else 3]
    gaps = np.max([np.abs(points[v].values - float(end[v][-1])) for v in variables], axis=0)
    assert gaps.min() < 1e-5
    assert bool(points.stable[int(np.argmin(gaps))])


def test_what_is_frozen_stays_at_its_start_where_fixed_points_are_looked_for() -> None:
    adversary = Adversary(0.5)
    still = fixed_points(MIXTURE, LearningRule(eta_w=0.0), adversary, start={"R": 0.6})
    assert still.R.values.tolist() == [0.6] * still.sizes["fixed_point"]
    end = integrate(MIXTURE, LearningRule(eta_w=0.0), adversary, alpha=[500.0], R0=0.6)
    assert np.min(np.abs(still.b.values - float(end.b[-1]))) < 1e-6
    bias = fixed_points(MIXTURE, LearningRule(eta_b=0.0), adversary, start={"b": -0.4})
    assert np.all(bias.b == -0.4)
    end = integrate(MIXTURE, LearningRule(eta_b=0.0), adversary, alpha=[5000.0], b0=-0.4)
    assert np.min(np.abs(bias.R.values - float(end.R[-1]))) < 1e-6
    with pytest.raises(ValueError, match=r"eta_w = 0\.0"):
        fixed_points_batch(eta_w=[0.04, 0.0])


VALUES: dict[str, Any] = {
    "label_noise": 0.1,
    "input_noise": 0.5,
    "smoothing": 0.2,
    "decay_w": 0.1,
    "decay_b": 0.1,
    "batch": 2.0,
    "epsilon_ratio": 0.5,
    "clean_weight": 0.3,
    "attack": "blind",
    "factor": Factor(ramp),
    "steps": "line_search",
    "surrogate": "trades",
    "beta": 0.5,
}
"""A value of each field that is the perceptron's alone."""
WITH: dict[str, dict[str, Any]] = {"beta": {"surrogate": "trades"}}
"""What must go with it."""


def test_the_table_has_every_field_that_is_the_perceptrons_alone() -> None:
    own = {field.name for part in (LearningRule, Adversary) for field in fields(part)} - COMMON
    assert VALUES.keys() - {"attack"} == own


def parts_with(name: str) -> tuple[LearningRule, Adversary]:
    value: Any = {name: VALUES[name]} | WITH.get(name, {})
    return (
        (LearningRule(**value, normalised=name != "decay_w"), Adversary(0.5))
        if name in parameters(LearningRule())
        else (LearningRule(), Adversary(0.5, **value))
    )


SAMPLES = anisotropic.Samples(np.random.default_rng(0).standard_normal((40, 3)), np.repeat([1, -1], 20))
GAUSSIAN = anisotropic.Mixture.isotropic(GaussianMixture(), N=5)
PAIR = Committee(hidden=2)
FACES: dict[str, Callable[[LearningRule, Adversary], Any]] = {
    "integrate": lambda *model: integrate(MIXTURE, *model, network=Committee(), alpha=[1.0]),
    "integrate_batch": lambda *model: integrate_batch(**parameters(*model), network=Committee(), alpha=[1.0]),
    "simulate": lambda *model: simulate(MIXTURE, *model, network=Committee(), alpha=[1.0], N=10, runs=1),
    "rates": lambda *model: Committee().rates({}, MIXTURE, *model),
    "fixed_points": lambda *model: fixed_points(MIXTURE, *model, network=Committee()),
    "symmetric_fixed_points": lambda *model: odeflow.symmetric_fixed_points(MIXTURE, *model, network=PAIR),
    "follow": lambda *model: odeflow.follow(MIXTURE, *model, network=PAIR, start={}, values=[0.1]),
    "sweep": lambda *model: sweep(MIXTURE, *model, over={"rho": [1.0]}, network=Committee(), alpha=[1.0]),
    "sweep of equilibria": lambda *model: sweep(MIXTURE, *model, over={"rho": [1.0]}, compute="equilibria"),
    "fixed_points_batch": lambda *model: fixed_points_batch(**parameters(*model)),
    "end_states_batch": lambda *model: odeflow.end_states_batch(**parameters(*model)),
    "branches": lambda *model: odeflow.branches(MIXTURE, *model, values=[0.0, 0.1]),
    "fluctuations": lambda *model: integrate(MIXTURE, *model, alpha=[1.0], fluctuations=True),
    "sensitivities": lambda *model: integrate(MIXTURE, *model, alpha=[1.0], sensitivities=["p"]),
    "optimal_schedule": lambda *model: control.optimal_schedule(MIXTURE, *model, alpha_max=1.0, pieces=2),
    "optimal_constant": lambda *model: control.optimal_constant(MIXTURE, *model, alpha_max=1.0),
    "anisotropic.integrate": lambda *model: anisotropic.integrate(GAUSSIAN, *model, alpha=[1.0]),
    "anisotropic.simulate": lambda *model: anisotropic.simulate(GAUSSIAN, *model, alpha=[1.0], runs=1),
    "cross_validate": lambda *model: anisotropic.cross_validate(SAMPLES, *model, alpha=[1.0]),
}
"""Everything that takes a rule and an adversary, and for which the fields are not derived."""


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", VALUES)
def test_no_face_ignores_a_field(face: str, name: str) -> None:
    # free weights, which decay, or what the field goes with may be refused first; or the model as a whole
    with pytest.raises(ValueError, match=rf"({'|'.join([name, 'normalised', *WITH.get(name, {})])}) ?=.*allowed"):
        FACES[face](*parts_with(name))


@pytest.mark.parametrize("name", VALUES)
def test_phases_take_the_rules_default_alone(name: str) -> None:
    rule, _ = parts_with(name)
    if rule != LearningRule():
        with pytest.raises(ValueError, match=rf"({'|'.join([name, 'normalised', *WITH.get(name, {})])}) = .*allowed"):
            critical_epsilon(MIXTURE, rule)


@pytest.mark.parametrize("name", VALUES.keys() - {"attack", "factor", "steps", "surrogate"})
def test_a_swept_field_is_not_ignored_either(name: str) -> None:
    values = [parameters(LearningRule(), Adversary())[name], VALUES[name]]
    free: Any = {"normalised": name != "decay_w"} | WITH.get(name, {})
    swept: Any = {name: values}
    refused = rf"({'|'.join([name, 'normalised', *WITH.get(name, {})])}) = .*allowed"
    with pytest.raises(ValueError, match=refused):
        integrate_batch(**swept, **free, network=Committee(), alpha=[1.0])
    with pytest.raises(ValueError, match=refused):
        sweep(MIXTURE, LearningRule(**free), Adversary(), over={name: values}, network=Committee(), alpha=[1.0])
    found = sweep(MIXTURE, LearningRule(**free), Adversary(0.5), over={name: values}, alpha=[5.0])
    assert found.sizes[name] == 2
    assert abs(float(found.R[0, 0] - found.R[1, 0])) > 1e-6 or abs(float(found.b[0, 0] - found.b[1, 0])) > 1e-6


def test_numbers_that_do_not_go_together_are_named_alone_and_in_a_batch() -> None:
    with pytest.raises(ValueError, match=r"decay_w = 0\.1: allowed is 0 with normalised weights"):
        integrate(MIXTURE, LearningRule(decay_w=0.1), Adversary(), alpha=[1.0])
    with pytest.raises(ValueError, match=r"decay_w = 0\.1: allowed is 0 with normalised weights"):
        integrate_batch(decay_w=[0.0, 0.1], alpha=[1.0])
    with pytest.raises(ValueError, match=r"batch = 1\.5"):
        integrate_batch(batch=[1.0, 1.5], alpha=[1.0])
    kinds: list[Any] = [{"loss": "hinge"}, {"activation": "sign"}]
    for kind in kinds:
        with pytest.raises(ValueError, match=r"smoothing = 0\.1.*allowed is 0"):
            LearningRule(smoothing=0.1, **kind)
        with pytest.raises(ValueError, match=r"smoothing = 0\.1.*allowed is 0"):
            integrate_batch(smoothing=[0.0, 0.1], **kind, alpha=[1.0])
    with pytest.raises(ValueError, match=r"smoothing = 0\.1.*allowed is 0"):
        integrate_batch(smoothing=[0.0, 0.1], factor=Factor(ramp), alpha=[1.0])


@pytest.mark.slow
@pytest.mark.parametrize(("normalised", "update"), [(True, "all"), (False, "non_robust")])
def test_the_seeds_factor_as_an_own_one_is_the_seed(normalised: bool, update: Any) -> None:
    """Its closed averages against those in panels, at narrow and at wide margins."""
    plain, own = (
        LearningRule(0.6, 0.5, normalised=normalised, update=update, label_noise=0.1, factor=factor)
        for factor in (None, Factor(seeds_own))
    )
    for adversary in (Adversary(0.7, clean_weight=0.3), Adversary(20.0, clean_weight=0.3)):
        for R, b, Q in ((0.3, 0.2, 1.0), (-0.5, -3.0, 900.0), (0.002, 0.1, 1e-4)):
            y = [R, b] if normalised else [R, b, Q]
            np.testing.assert_allclose(
                of_kernel(own, adversary, y), of_kernel(plain, adversary, y), rtol=1e-9, atol=1e-9
            )
    y0: dict[str, Any] = {"R0": 0.2, "b0": 0.1}
    parts = [(MIXTURE, rule, Adversary(0.7)) for rule in (plain, own)]
    one, other = (simulate(*model, N=50, alpha=[2.0], runs=8, rng=1, **y0) for model in parts)
    np.testing.assert_allclose(one.R, other.R, rtol=1e-9)


def test_bad_own_factors_are_named() -> None:
    with pytest.raises(TypeError, match="factor = 'ramp' is of the wrong type: allowed is a Factor"):
        LearningRule(factor="ramp")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function = 3 is of the wrong type"):
        Factor(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss = 'hinge' with factor"):
        LearningRule(factor=Factor(ramp), loss="hinge")
    for function in (lambda u: [u], lambda _: "much", lambda u, v: u + v):
        with pytest.raises(ValueError, match=r"function = .*allowed is a function of one float that numba can compile"):
            integrate(MIXTURE, LearningRule(factor=Factor(function)), Adversary(), alpha=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed are finite ones"):
        integrate(MIXTURE, LearningRule(factor=Factor(lambda u: 1.0 / u)), Adversary(), alpha=[1.0])
    with pytest.raises(ValueError, match="at most 20"):
        Factor(ramp, kinks=tuple(map(float, range(21))))


def test_a_record_tells_own_factors_apart() -> None:
    assert repr(Factor(ramp)) == repr(Factor(njit(ramp)))
    assert repr(Factor(ramp)) != repr(Factor(seeds_own))
    assert repr(Factor(ramp)) != repr(Factor(ramp, kinks=(0.0,)))


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_line_search_takes_the_step_that_lowers_the_loss_most(loss: Any) -> None:
    """The loss by an integral of its own, its slope along the rates of every constant step by differences."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    of_output: dict[str, Callable[[Any], Any]] = {
        "squared": lambda g: (1 - g) ** 2 / 2,
        "logistic": lambda g: np.log1p(np.exp(-g)),
    }
    adversary = Adversary(0.5)

    def expected_loss(R: float, b: float, Q: float) -> float:
        total = 0.0
        for prior, tau, v in ((MIXTURE.p, 1, MIXTURE.v1), (1 - MIXTURE.p, -1, MIXTURE.v2)):
            u = tau * (tau * MIXTURE.rho * R / 2 - b) - adversary.epsilon * math.sqrt(Q) + math.sqrt(v * Q) * nodes
            total += prior * float(weights @ of_output[loss](special.erf(u))) / math.sqrt(2 * math.pi)
        return total

    y, eta = np.array([0.3, -0.4, 1.5]), {"eta_w": 12.0, "eta_b": 4.0}

    def slope(dydt: Any, h: float = 1e-5) -> float:
        return (expected_loss(*(y + h * np.array(dydt))) - expected_loss(*(y - h * np.array(dydt)))) / (2 * h)

    def at(c: float, **steps: Any) -> Any:
        rule = LearningRule(c * eta["eta_w"], c * eta["eta_b"], loss=loss, normalised=False, **steps)
        return rates(y[0], y[1], MIXTURE, rule, adversary, Q=y[2])

    best = optimize.minimize_scalar(lambda c: slope(at(c)), bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    assert 0.01 < best.x < 0.99
    np.testing.assert_allclose(at(1.0, steps="line_search"), at(best.x), rtol=1e-3)
    assert slope(at(1.0, steps="line_search")) <= best.fun + 1e-9
    # where the largest rates are smaller than that, they are taken
    assert at(0.2 * best.x, steps="line_search") == at(0.2 * best.x)


def test_polyaks_steps_bring_the_weights_nearest_to_the_direction_of_the_centres() -> None:
    def rate(c: float, R: float, steps: Any) -> float:
        rule = LearningRule(9.0 * c, 3.0 * c, steps=steps, label_noise=0.1)
        return float(rates(R, -0.4, MIXTURE, rule, Adversary(0.5))[0])

    for R in (0.3, 0.8, 0.95):
        best = max(rate(c, R, "constant") for c in np.linspace(0, 1, 20_001))
        assert best <= rate(1.0, R, "polyak") < best * (1 + 1e-5)  # between the steps of the grid
        assert rate(1.0, R, "line_search") < best * (1 - 1e-4)  # the other search is for the loss
    end = integrate(MIXTURE, LearningRule(9.0, 3.0, steps="polyak"), Adversary(0.5), alpha=[2.0, 20.0, 200.0])
    constant = integrate(MIXTURE, LearningRule(9.0, 3.0), Adversary(0.5), alpha=[2.0, 20.0, 200.0])
    assert np.all(end.R > constant.R)
    with pytest.raises(ValueError, match="steps = 'polyak' with normalised = False"):
        LearningRule(steps="polyak", normalised=False)
