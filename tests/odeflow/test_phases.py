"""Bifurcations: located where an eigenvalue vanishes and the number of fixed points changes."""

import math

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, integrate_batch
from odeflow.fixed_points.continuation import branches
from odeflow.fixed_points.equilibria import fixed_points, fixed_points_batch, jacobian
from odeflow.fixed_points.phases import KINDS, critical_epsilon, phase_boundary, runaway_direction
from odeflow.order_parameters.perceptron.forces import log_force, peak

pytestmark = pytest.mark.slow

RULE = LearningRule()
LIMIT = LearningRule(second_order=False)
MIXTURES = [
    GaussianMixture(p=0.5),
    GaussianMixture(p=0.6),
    GaussianMixture(p=0.3, v2=2.0),
    GaussianMixture(p=0.4, v2=1.2),
    GaussianMixture(p=0.6, v1=1.2, v2=1.0),
    GaussianMixture(p=0.52, rho=3.0, v1=0.4, v2=0.5),
]


def test_the_pitchfork_of_equal_classes() -> None:
    for rule in (LIMIT, RULE, LearningRule(eta_w=2.0)):
        for v in (0.3, 1.0):
            mixture = GaussianMixture(v1=v, v2=v)
            located = critical_epsilon(mixture, rule)
            assert KINDS[int(located.kind[0])] == "pitchfork"
            epsilon = float(located.epsilon[0])
            assert epsilon == pytest.approx(mixture.rho * float(located.R[0]) / 2 - float(peak(v)), abs=1e-12)
            for side, count in ((-1e-8, 1), (1e-8, 3)):
                points = fixed_points(mixture, rule, Adversary(epsilon + side))
                upper = points.R.values >= 0
                assert upper.sum() == count
                unbiased = points.isel(fixed_point=(points.b.values == 0) & upper)
                assert bool(unbiased.stable[0]) is (count == 1)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("rule", [LIMIT, RULE, LearningRule(eta_w=0.5)])
def test_an_eigenvalue_vanishes_at_every_bifurcation(mixture: GaussianMixture, rule: LearningRule) -> None:
    located = critical_epsilon(mixture, rule)
    assert located.sizes["bifurcation"] >= 1
    for R, b, epsilon in zip(located.R.values, located.b.values, located.epsilon.values, strict=True):
        sizes = np.abs(np.linalg.eigvals(jacobian(R, b, mixture, rule, Adversary(float(epsilon)))))
        assert sizes.min() < 1e-9 * sizes.max()


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("rule", [LIMIT, RULE])
def test_the_number_of_fixed_points_changes_within_1e_minus_8(mixture: GaussianMixture, rule: LearningRule) -> None:
    located = critical_epsilon(mixture, rule)
    model = {"p": mixture.p, "rho": mixture.rho, "v1": mixture.v1, "v2": mixture.v2, "eta_w": rule.eta_w}
    for one in located.epsilon.values:
        points = fixed_points_batch(**model, second_order=rule.second_order, epsilon=one + np.array([-1e-8, 1e-8]))
        assert abs(np.diff((points.R >= 0).sum(axis=1))[0]) == 2


@pytest.mark.parametrize("mixture", MIXTURES)
def test_continuation_finds_the_same_places(mixture: GaussianMixture) -> None:
    located = critical_epsilon(mixture, RULE)
    followed = branches(mixture, RULE, Adversary(), values=np.linspace(0, 3, 1001))
    np.testing.assert_allclose(followed.bifurcation_epsilon, located.epsilon, atol=1e-8)
    np.testing.assert_allclose(followed.bifurcation_b, located.b, atol=1e-3)
    np.testing.assert_array_equal(followed.kind, located.kind)


def test_in_the_limit_the_boundaries_are_straight_lines() -> None:
    boundary = phase_boundary(GaussianMixture(p=0.7), LIMIT, parameter="rho", values=[0.5, 1.0, 4.0])
    margin = boundary.rho / 2 - boundary.epsilon
    np.testing.assert_allclose(margin, float(margin[0, 0]), atol=1e-12)


def test_the_boundaries_meet_at_equal_priors() -> None:
    """Folds for p above and below 1/2 are mirror images, and run into the pitchfork with the exponent 2/3 of a cusp."""
    offset = np.array([1e-4, 1e-5, 1e-6])
    above = phase_boundary(GaussianMixture(), LIMIT, parameter="p", values=0.5 + offset[::-1])
    below = phase_boundary(GaussianMixture(), LIMIT, parameter="p", values=0.5 - offset)
    np.testing.assert_allclose(above.epsilon.values[0, ::-1], below.epsilon.values[0], atol=1e-9)
    rise = below.epsilon.values[0] - float(critical_epsilon(GaussianMixture(), LIMIT).epsilon[0])
    slope = np.polyfit(np.log(offset), np.log(rise), 1)[0]
    assert slope == pytest.approx(2 / 3, abs=0.01)


def test_the_small_learning_rate_shifts_the_boundary_in_proportion() -> None:
    mixture = GaussianMixture(p=0.6)
    limit = float(critical_epsilon(mixture, LIMIT).epsilon[0])
    shifts = [float(critical_epsilon(mixture, LearningRule(eta_w=eta)).epsilon[0]) - limit for eta in (1e-3, 2e-3)]
    assert shifts[1] / shifts[0] == pytest.approx(2, rel=1e-2)


def test_far_biases_run_away_only_if_the_variances_differ_by_a_quarter() -> None:
    assert [runaway_direction(GaussianMixture(v2=v2)) for v2 in (0.7, 0.76, 1.0, 1.24, 1.26)] == [-1, 0, 0, 0, 1]
    b = 1e5
    for v2 in (0.7, 0.76, 1.0, 1.24, 1.26):
        for M in (2.0, -2.0):
            above = log_force(M - b, 1.0) - log_force(M + b, v2)
            below = log_force(M + b, 1.0) - log_force(M - b, v2)
            assert [above < 0, below > 0] == [v2 == 1.26, v2 == 0.7]


def test_between_two_folds_no_end_state_is_left() -> None:
    mixture = GaussianMixture(p=0.3, v2=2.0)
    located = critical_epsilon(mixture, RULE)
    assert located.stable_below.values.tolist() == [1, 0]
    assert located.stable_above.values.tolist() == [0, 1]
    inside = float(located.epsilon.mean())
    assert fixed_points(mixture, RULE, Adversary(inside)).sizes["fixed_point"] == 0
    b = integrate_batch(p=0.3, v2=2.0, epsilon=inside, alpha=[1e2, 1e3, 1e4, 1e5]).y[0, :, 1]
    assert np.all(np.diff(b) > 0.3)


def test_a_far_fixed_point_comes_from_infinity() -> None:
    followed = branches(GaussianMixture(p=0.6), RULE, Adversary(2.0), parameter="v2", values=np.linspace(0.6, 1.4, 9))
    assert followed.bifurcation_v2.values.tolist() == [0.75, 1.25]
    assert [KINDS[int(kind)] for kind in followed.kind] == ["from_infinity", "from_infinity"]
    assert followed.bifurcation_b.values.tolist() == [-math.inf, math.inf]


def test_branches_are_continuous_and_labelled() -> None:
    followed = branches(GaussianMixture(p=0.6), RULE, Adversary(), values=np.linspace(1.3, 1.8, 201))
    assert followed.R.dims == ("branch", "epsilon")
    assert followed.sizes["branch"] == 3
    assert np.nanmax(np.abs(np.diff(followed.b.values, axis=1))) < 1.0
    for variable in followed.variables.values():
        assert variable.attrs["long_name"]
    assert followed.kind.attrs["flag_meanings"].split() == list(KINDS)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="rho = 0"):
        critical_epsilon(GaussianMixture(rho=0.0), RULE)
    with pytest.raises(ValueError, match="parameter = 'alpha' is unknown: allowed is one of p, rho"):
        phase_boundary(GaussianMixture(), RULE, parameter="alpha", values=[1.0])
    with pytest.raises(ValueError, match="parameter = 'second_order' is unknown"):
        branches(GaussianMixture(), RULE, Adversary(), parameter="second_order", values=[0, 1])
    with pytest.raises(ValueError, match=r"values = .* at least two increasing"):
        branches(GaussianMixture(), RULE, Adversary(), values=[1.0, 0.5])
    with pytest.raises(TypeError, match="mixture = "):
        runaway_direction(RULE)  # type: ignore[arg-type]
