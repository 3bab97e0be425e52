"""A problem of control, discretised: from the numbers that make a schedule to the objective and its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, GaussianMixture, LearningRule
from odeflow.schedule import Schedule, Scheduled

__all__ = ["CONTROLS", "Form", "Objective", "Problem", "Solved"]

Array = npt.NDArray[np.float64]
Form = Literal["steps", "linear"]
Objective = Literal["final", "integral"]

CONTROLS = ("epsilon", "eta_w", "eta_b")
"""What can be controlled."""


class Solved(NamedTuple):
    """One trajectory of a problem."""

    objective: float
    gradient: Array
    """By the free numbers, shape (numbers,)."""
    times: Array
    """Ends of the solver's steps, shape (steps + 1,)."""
    states: Array
    """R and b there, shape (steps + 1, 2)."""
    costates: Array
    """Derivatives of the objective by them: Pontryagin's lambda, of the same shape."""


@dataclass(frozen=True)
class Problem:
    """What is to be minimised, over schedules of a form with given knots."""

    mixture: GaussianMixture
    rule: LearningRule
    adversary: Adversary
    controls: tuple[str, ...]
    constant: tuple[str, ...]
    """Those of the controls that do not change with time."""
    knots: tuple[float, ...]
    """Where the pieces begin, and the end, shape (pieces + 1,)."""
    form: Form
    bounds: Mapping[str, tuple[float, float]]
    test_epsilon: float
    objective: Objective
    start: tuple[float, float]
    """R and b at alpha = 0."""
    refinement: int = 1
    """Steps of the solver between two knots are multiplied by this."""

    @property
    def end(self) -> float:
        """Where learning ends."""
        return self.knots[-1]

    @property
    def times(self) -> Array:
        """Where the values of a schedule begin, or are reached, shape (knots,)."""
        return np.array(self.knots if self.form == "linear" else self.knots[:-1])

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Return which free number each value is, shape (controls, knots): of a constant control all are one."""
        count = 0
        rows = []
        for name in self.controls:
            size = 1 if name in self.constant else self.times.size
            rows.append(np.broadcast_to(np.arange(count, count + size), self.times.shape))
            count += size
        return np.array(rows)

    @property
    def box(self) -> tuple[Array, Array]:
        """Lower and upper bounds of the free numbers, shape (numbers,)."""
        places = self.places
        low, high = np.empty((2, places.max() + 1))
        for name, row in zip(self.controls, places, strict=True):
            low[row], high[row] = self.bounds[name]
        return low, high

    @property
    def times_of_numbers(self) -> Array:
        """Return the time of each free number, as a share of the whole, shape (numbers,)."""
        places = self.places
        share = np.empty(places.max() + 1)
        share[places] = self.times / self.end
        return share

    def one_each(self, values: Array) -> Array:
        """Return free numbers that are, of each control, one value, shape (controls,)."""
        places = self.places
        numbers = np.empty(places.max() + 1)
        numbers[places] = values[:, None]
        return numbers

    def values(self, numbers: Array) -> Array:
        """Return the values of the controls, shape (controls, knots)."""
        return numbers[self.places]

    def schedule(self, name: str, values: Array) -> Scheduled:
        """Return the schedule of some values, shape (knots,), which holds its last value beyond the end."""
        if name in self.constant:
            return float(values[0])
        row: list[float] = values.tolist()
        if self.form == "linear":
            return Schedule.linear(row, self.knots, hold=True)
        return Schedule.steps(row, self.knots[:-1])

    def model(self, numbers: Array) -> tuple[LearningRule, Adversary]:
        """Return rule and adversary with the schedules of some free numbers."""
        rule, adversary = self.rule, self.adversary
        for name, row in zip(self.controls, self.values(numbers), strict=True):
            made: Any = {name: self.schedule(name, row)}
            if name == "epsilon":
                adversary = replace(adversary, **made)
            else:
                rule = replace(rule, **made)
        return rule, adversary

    def grid(self) -> Array:
        """Return the ends of the solver's steps: among them all knots, and the edges of given schedules."""
        given = (self.adversary.epsilon, self.rule.eta_w, self.rule.eta_b)
        edges = {edge for one in given if isinstance(one, Schedule) for edge in one.edges if edge < self.end}
        marks = sorted({*self.knots, *edges})
        fastest = max(self._most("eta_w"), self._most("eta_b"))
        longest = min(1 / fastest if fastest > 0 else math.inf, self.end)
        parts = [
            np.linspace(low, high, max(1, math.ceil((high - low) / longest - 1e-9)) * self.refinement + 1)[:-1]
            for low, high in pairwise(marks)
        ]
        return np.concatenate([*parts, [self.end]])

    def _most(self, name: str) -> float:
        given = getattr(self.rule, name)
        if name in self.controls:
            return self.bounds[name][1]
        return given.bounds[1] if isinstance(given, Schedule) else float(given)

    def hats(self, times: Array, at: Array) -> Array:
        """Return the weight of each value at some times in steps that begin at `times`, shape (*at.shape, knots)."""
        piece = np.clip(np.searchsorted(self.knots, times, side="right") - 1, 0, len(self.knots) - 2)
        weights = np.zeros((*at.shape, self.times.size))
        rows = np.expand_dims(piece, tuple(range(1, at.ndim))) + np.zeros(at.shape, np.int64)
        if self.form == "steps":
            np.put_along_axis(weights, rows[..., None], 1.0, axis=-1)
            return weights
        knots = np.array(self.knots)
        share = (at - knots[rows]) / (knots[rows + 1] - knots[rows])
        np.put_along_axis(weights, rows[..., None], (1 - share)[..., None], axis=-1)
        np.put_along_axis(weights, rows[..., None] + 1, share[..., None], axis=-1)
        return weights

    def solve(self, numbers: Array) -> Solved:
        """Return objective, gradient and trajectory for some free numbers."""
        return self.solver()(numbers)

    def solver(self) -> _Solver:
        """Return `solve` with what does not depend on the values."""
        return _Solver(self)

    def switching(self, model: tuple[GaussianMixture, LearningRule, Adversary], solved: Solved) -> Array:
        """Return costates times the derivatives of the rates by the controls, shape (controls, steps + 1)."""
        from odeflow.control.kernel import by_control

        _, rule, adversary = model
        given = (adversary.epsilon, rule.eta_w, rule.eta_b)
        columns = [
            one(solved.times) if isinstance(one, Schedule) else np.full(solved.times.shape, one) for one in given
        ]
        out = np.empty((solved.times.size, len(CONTROLS)))
        by_control(self.numbers_of_model(), solved.states, solved.costates, np.stack(columns, axis=-1), out)
        return out[:, [CONTROLS.index(name) for name in self.controls]].T

    def numbers_of_model(self) -> Array:
        """Return what the kernels need of the model beside the controls: p, rho, v1, v2, and whether eta_w squared counts."""
        mixture = self.mixture
        return np.array([mixture.p, mixture.rho, mixture.v1, mixture.v2, float(self.rule.second_order)])

    def masses(self) -> Array:
        """Return the integral over time of each free number's weight, shape (numbers,)."""
        lengths = np.diff(self.knots)
        each = lengths if self.form == "steps" else (np.append(lengths, 0.0) + np.append(0.0, lengths)) / 2
        places = self.places
        return _summed(places, np.broadcast_to(each, places.shape))


class _Solver:
    def __init__(self, problem: Problem) -> None:
        from odeflow.control.kernel import STAGES, C

        rule, adversary = problem.rule, problem.adversary
        self.times = problem.grid()
        begins, lengths = self.times[:-1], np.diff(self.times)
        at = begins[:, None] + lengths[:, None] * C[:STAGES]
        self.places = problem.places
        self.chosen = [CONTROLS.index(name) for name in problem.controls]
        self.weights = problem.hats(begins, at)
        given = (adversary.epsilon, rule.eta_w, rule.eta_b)
        self.given = np.stack([_during(one, begins, at) for one in given], axis=-1)
        self.model = problem.numbers_of_model()
        self.start = np.array(problem.start, np.float64)
        self.lengths, self.test_epsilon = lengths, float(problem.test_epsilon)
        self.goal = (1.0, 0.0) if problem.objective == "final" else (0.0, 1 / problem.end)

    def __call__(self, numbers: Array) -> Solved:
        from odeflow.control.kernel import adjoint

        controls = self.given.copy()
        controls[..., self.chosen] = self.weights @ numbers[self.places].T
        states, costates = np.empty((2, self.times.size, 2))
        slopes = np.empty_like(controls)
        objective = adjoint(
            self.model, self.start, self.lengths, controls, self.test_epsilon, *self.goal, states, costates, slopes
        )
        by_value = np.einsum("nic,nik->ck", slopes[..., self.chosen], self.weights)
        gradient = _summed(self.places, by_value)
        return Solved(float(objective), gradient, self.times, states, costates)


def _during(value: Scheduled, begins: Array, at: Array) -> Array:
    """Return what a number or a schedule is at times in steps; at a step's end that is the limit from the left."""
    if not isinstance(value, Schedule):
        return np.full(at.shape, float(value))
    rows = [
        np.polynomial.Polynomial(value.powers_from(begin))(row - begin) for begin, row in zip(begins, at, strict=True)
    ]
    return np.array(rows)


def _summed(places: npt.NDArray[np.int64], values: Array) -> Array:
    """Return the sum of what belongs to each free number."""
    return np.bincount(places.ravel(), values.ravel()).astype(np.float64)
