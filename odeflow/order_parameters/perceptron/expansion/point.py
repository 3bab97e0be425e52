"""The rates at one point with their derivatives by the state and by what a schedule changes, for compiled callers.

What an adjoint needs. For any rule of the perceptron; exact as N grows, like the rates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.laws import quadratures
from odeflow.model import Adversary, GaussianMixture, LearningRule, check_parts
from odeflow.numerics.compilation import called
from odeflow.order_parameters.perceptron.expansion import free, normalised
from odeflow.order_parameters.perceptron.expansion.moments import ERF_ROWS, erf_constants, moments
from odeflow.order_parameters.perceptron.expansion.rows import (
    ALL_ROWS,
    DERIVED,
    DIFFUSION,
    EPSILON,
    ERF,
    ETA_B,
    ETA_W,
    JACOBIAN,
    PARAMETERS,
    RATE,
    V1,
)
from odeflow.order_parameters.perceptron.variant_averages import UpdateFactor, law_scales, update_factor
from odeflow.schedule import largest

__all__ = ["WORK", "Point", "linearise", "point_of", "prepare"]

WORK = ALL_ROWS
"""Entries of the array that `prepare` and `linearise` work in."""

_BY_EPSILON, _BY_ETA_W, _BY_ETA_B = (DERIVED.index(name) for name in ("epsilon", "eta_w", "eta_b"))


class Point(NamedTuple):
    """A model of the perceptron, as compiled code takes it."""

    parameters: npt.NDArray[np.float64]
    """p, rho, v1, v2, eta_w, eta_b, epsilon, fraction, second_order, shape (9,)."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    how: UpdateFactor
    """How the averages are computed."""
    normalised: bool
    """State R, b if True, else R, b, Q."""


def point_of(mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> Point:
    """Return a model as compiled code takes it; of a schedule the largest value, which `linearise` does not use."""
    from odeflow.order_parameters.perceptron.expansion.results import check_derived

    check_parts(mixture=mixture, rule=rule, adversary=adversary, schedules=True)
    check_derived(mixture, rule, adversary)
    parts: Any = {**vars(mixture), **vars(rule), **vars(adversary)}
    numbers = {name: largest(parts[name]) for name in (*DERIVED, "second_order")}
    scales = law_scales(rule, *(numbers[name] for name in ("rho", "v1", "v2", "epsilon")))
    [(_, nodes, weights)] = quadratures(adversary.law, *scales)
    return Point(np.array(list(numbers.values())), nodes, weights, update_factor(rule), rule.normalised)


@called
def prepare(point, work):
    """Put the model's numbers into `work`, shape (WORK,), once before any `linearise`."""
    for k in range(point.parameters.size):
        work[PARAMETERS + k] = point.parameters[k]
    for label in range(2):
        erf_constants(work, V1 + label, ERF + label * ERF_ROWS, 0, 1, 1)


@called
def linearise(point, state, epsilon, eta_w, eta_b, work, rates, jacobian, by_course):
    """Set the rates at a state and their derivatives; for callers that are compiled themselves.

    Parameters
    ----------
    point
        A `Point`.
    state
        R, b (and Q), shape (n,), float64; n is 2 or 3.
    epsilon, eta_w, eta_b
        What is now the size of the attack, and the learning rates.
    work
        Shape (WORK,), as `prepare` left it; one for each thread.
    rates
        Set to dR/dalpha, db/dalpha (and dQ/dalpha), shape (n,).
    jacobian
        Set to the derivatives of the rates, its rows, by the state, shape (n, n).
    by_course
        Set to the derivatives of the rates, its rows, by epsilon, eta_w and eta_b, shape (n, 3).
    """
    n = state.size
    work[EPSILON], work[ETA_W], work[ETA_B] = epsilon, eta_w, eta_b
    if point.normalised:
        normalised.sums(moments, point.how, point.nodes, point.weights, False, work, state, 0, False, 1)
        normalised.rates(work, state, 0, False, 1)
    else:
        free.sums(moments, point.how, point.nodes, point.weights, False, work, state, 0, False, 1)
        free.rates(work, state, 0, False, 1)
    for i in range(n):
        rates[i] = work[RATE + i]
        for j in range(n):
            jacobian[i, j] = work[JACOBIAN + i * n + j]
    # the rows of diffusion and drift are free: into them
    for k, parameter in enumerate((_BY_EPSILON, _BY_ETA_W, _BY_ETA_B)):
        if point.normalised:
            normalised.by_parameter(work, state, parameter, work, DIFFUSION, 1)
        else:
            free.by_parameter(work, state, parameter, work, DIFFUSION, 1)
        for i in range(n):
            by_course[i, k] = work[DIFFUSION + i]
