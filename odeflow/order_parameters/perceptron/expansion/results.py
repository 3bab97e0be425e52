"""A trajectory of the perceptron with what is known around it: derivatives by parameters, fluctuations at finite N, as variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from odeflow.laws import quadratures
from odeflow.model import Adversary, GaussianMixture, LearningRule
from odeflow.numerics.course import course_of
from odeflow.numerics.runge_kutta import Solution, solve
from odeflow.order_parameters.base import Array
from odeflow.order_parameters.perceptron.expansion.rows import DERIVED, STARTS, TABLE
from odeflow.order_parameters.perceptron.expansion.system import CONSTANTS, kind_of, numbers_of, variables_of
from odeflow.order_parameters.perceptron.reference import unchecked_rates
from odeflow.order_parameters.perceptron.variant_averages import law_scales, update_factor
from odeflow.parameters import LABELS, checked_count
from odeflow.parameters import checked_names as one_of
from odeflow.schedule import Schedule, at_time, largest, schedules_of

__all__ = ["Expanded", "check_derived", "checked_names", "expand"]

_KNOWN = {
    GaussianMixture: ("p", "rho", "v1", "v2"),
    LearningRule: ("eta_w", "eta_b", "second_order", "loss", "activation", "update", "normalised"),
    Adversary: ("epsilon", "fraction", "law", "norm", "attack_steps", "attack_step"),
}
"""Fields of the model for which everything here is derived."""
_NAMES = ("R", "b", "Q")
_MEASURES = ("error", "adversarial_error")


class Expanded(NamedTuple):
    """A trajectory, and variables and coordinates of a Dataset beside it."""

    solution: Solution
    """Of the order parameters alone."""
    data: dict[str, Any]
    coords: dict[str, Any]


def check_derived(*parts: Any) -> None:
    """Raise a ValueError if a part has a field that is not among those for which this is derived, and not its default."""
    for part in parts:
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name not in _KNOWN[type(part)] and not (value is field.default or value == field.default):
                raise ValueError(
                    f"{field.name} = {value!r}: allowed is {field.default!r}, because fluctuations and sensitivities are derived "
                    "without it"
                )


def checked_names(names: Any, rule: LearningRule) -> tuple[str, ...]:
    """Return parameters by name, or raise if one has no derivative or is named twice."""
    return one_of("sensitivities", names, (*DERIVED, *(STARTS[:2] if rule.normalised else STARTS)))


def expand(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    start: Mapping[str, Any],
    alpha: Array,
    test_epsilon: Any,
    *,
    sensitivities: Sequence[str],
    fluctuations: bool,
    N: int | None,
    **options: Any,
) -> Expanded:
    """Integrate one trajectory with what is known around it (exact as N grows, fluctuations to order 1/N).

    Parameters
    ----------
    mixture, rule, adversary, start, alpha
        As for `odeflow.integrate`, checked; `start` by names such as R0.
    test_epsilon
        Where the adversarial error is wanted, or None: the adversary's.
    sensitivities, fluctuations, N
        As for `odeflow.integrate`, not yet checked.
    **options
        Of the solver.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or something is not derived for this rule or adversary.
    """
    check_derived(mixture, rule, adversary)
    if not isinstance(fluctuations, bool):
        raise TypeError(f"fluctuations = {fluctuations!r} is not a bool: allowed is True or False")
    if N is not None and not fluctuations:
        raise ValueError(f"N = {N!r} has no meaning without fluctuations=True: leave it out")
    N = None if N is None else checked_count("N", N, 3)
    names = checked_names(sensitivities, rule)
    n = 2 if rule.normalised else 3
    parts: dict[str, Any] = {**vars(mixture), **vars(rule), **vars(adversary)}
    numbers = {name: float(largest(parts[name])) for name in (*DERIVED, "second_order")}
    numbers |= {"Q0": 1.0, **start}
    behind = fluctuations and _slopes(rule, adversary)
    table = np.array([[numbers.get(name, 0.0) for name in TABLE]])
    if behind:
        first = np.array([[numbers[name] for name in STARTS[:n]]])
        table[0, -len(STARTS) :][:n] = _rates(first, np.zeros(1), mixture, rule, adversary)[0] / 2
    scales = law_scales(rule, *(np.array([numbers[name]]) for name in ("rho", "v1", "v2", "epsilon")))
    [(_, nodes, weights)] = quadratures(adversary.law, *scales)
    how = update_factor(rule)
    model = kind_of(how, rule.normalised)(table, nodes, weights, how, numbers_of(names), fluctuations)
    solution = solve(
        model,
        trajectories=1,
        variables=variables_of(n, len(names), fluctuations),
        constants=CONSTANTS,
        times=alpha,
        strict=n,
        course=course_of(adversary.epsilon, rule.eta_w, rule.eta_b),
        **options,
    )
    y = solution.y[0]
    state, rest = y[:, :n], y[:, n:]
    data: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    now: dict[str, Any] = {
        name: value(alpha) if isinstance(value, Schedule) else value for name, value in parts.items()
    }
    tested = now["epsilon"] if test_epsilon is None else test_epsilon
    measures = dict(zip(_MEASURES, (_Measure(state, now, np.zeros(1)), _Measure(state, now, tested)), strict=True))
    if names:
        by = rest[:, : n * len(names)].reshape(len(alpha), len(names), n)
        data |= _sensitivities(by, names, measures, test_epsilon is None)
        coords["parameter"] = list(names)
    if fluctuations:
        rest = rest[:, n * len(names) :]
        upper = n * (n + 1) // 2
        covariance = np.zeros((len(alpha), n, n))
        for at, (i, j) in enumerate(zip(*np.triu_indices(n), strict=True)):
            covariance[:, i, j] = covariance[:, j, i] = rest[:, at]
        mean = rest[:, upper:]
        if behind:
            mean = mean - _rates(state, alpha, mixture, rule, adversary) / 2
        data |= _fluctuations(state, covariance, mean, measures, N)
        coords |= {"order_parameter": list(_NAMES[:n]), "other": list(_NAMES[:n])}
        if N is not None:
            coords["N"] = N
    return Expanded(Solution(solution.y[..., :n], solution.status, solution.steps), data, coords)


def _slopes(rule: LearningRule, adversary: Adversary) -> bool:
    """Return whether schedules change continuously, so that the mean's correction is that of m1 + f/2; of steps it is m1.

    Raises
    ------
    ValueError
        If they do both.
    """
    changes = jumps = False
    for schedule in schedules_of(rule, adversary).values():
        changes |= any(any(row[1:]) for row in schedule.coefficients)
        ends = [schedule.coefficients[k] for k in range(len(schedule.coefficients) - 1)]
        for k, row in enumerate(ends):
            length = schedule.edges[k + 1] - schedule.edges[k]
            end = sum(value * length**power for power, value in enumerate(row))
            jumps |= abs(end - schedule.coefficients[k + 1][0]) > 1e-9 * max(1.0, abs(end))
    if changes and jumps:
        raise ValueError(
            "a schedule jumps where one changes continuously: allowed with fluctuations are schedules of steps, or without jumps"
        )
    return changes


def _rates(state: Array, alpha: Array, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> Array:
    """Return the rates at states, shape (times, n), in plain NumPy."""
    found = np.empty(state.shape)
    for i, (y, t) in enumerate(zip(state, alpha, strict=True)):
        Q = None if rule.normalised else y[2]
        found[i] = np.ravel(unchecked_rates(y[0], y[1], Q, mixture, at_time(rule, t), at_time(adversary, t)))
    return found


class _Class(NamedTuple):
    """What an error has of one class, of which it is share * Phi(-u)."""

    share: Any
    u: Array
    clean: Array
    """u without the attack."""
    density: Array
    """Of the normal distribution at u."""
    tail: Array
    """Phi(-u)."""
    by_state: Array
    """Derivatives of u by the state, shape (times, n)."""
    by: dict[str, Any]
    """Derivatives of u by parameters."""


class _Measure:
    r"""An error, :math:`\sum_\tau p_\tau \Phi(-u_\tau)`, with its derivatives by the state and by parameters (exact)."""

    def __init__(self, state: Array, numbers: Mapping[str, Any], epsilon: Any) -> None:
        from scipy.special import ndtr

        R, b = state[:, 0], state[:, 1]
        self.Q = state[:, 2] if state.shape[1] > 2 else None
        Q = np.ones(len(R)) if self.Q is None else self.Q
        length, rho = np.sqrt(Q), numbers["rho"]
        self.classes = []
        for tau, share, v in ((1, numbers["p"], "v1"), (-1, 1 - numbers["p"], "v2")):
            s = np.sqrt(numbers[v])
            clean = (rho * R / 2 - tau * b) / (length * s)
            u = clean - epsilon / s
            by_state = np.stack([rho / (2 * length * s), -tau / (length * s), -clean / (2 * Q)], axis=-1)
            by = {"rho": R / (2 * length * s), "epsilon": np.full(len(R), -1 / s), v: -u / (2 * numbers[v])}
            density = np.exp(-u * u / 2) / np.sqrt(2 * np.pi)
            self.classes.append(_Class(share, u, clean, density, ndtr(-u), by_state[:, : state.shape[1]], by))

    @property
    def value(self) -> Array:
        """Return the error."""
        return np.asarray(sum(one.share * one.tail for one in self.classes))

    def gradient(self) -> Array:
        """Return the derivatives by the state, shape (times, n)."""
        return np.asarray(-sum(one.share * one.density[:, None] * one.by_state for one in self.classes))

    def by(self, name: str) -> Any:
        """Return the derivative by a parameter at a fixed state."""
        if name == "p":
            return self.classes[0].tail - self.classes[1].tail
        return -sum(one.share * one.density * one.by.get(name, 0.0) for one in self.classes)

    def correction(self, covariance: Array, mean: Array) -> Array:
        """Return N times what the mean over runs is above the value on the trajectory, to order 1/N."""
        total = np.zeros(len(mean))
        for one in self.classes:
            g = one.by_state
            bent = one.u * np.einsum("ti,tij,tj->t", g, covariance, g)
            if self.Q is not None:  # u falls with 1/sqrt(Q)
                bent += (g[:, 0] * covariance[:, 0, 2] + g[:, 1] * covariance[:, 1, 2]) / self.Q
                bent -= 0.75 * one.clean / self.Q**2 * covariance[:, 2, 2]
            total += one.share * one.density * (bent / 2 - np.sum(g * mean, axis=1))
        return total


def _sensitivities(
    by: Array, names: tuple[str, ...], measures: Mapping[str, _Measure], follows: bool
) -> dict[str, Any]:
    """Return the derivatives of each order parameter and error, dims alpha and parameter."""
    dims = ("alpha", "parameter")
    data: dict[str, Any] = {}
    for i, name in enumerate(_NAMES[: by.shape[-1]]):
        data[f"{name}_derivative"] = dims, by[..., i], _labels(f"derivative of {name} by a parameter")
    for measure, found in measures.items():
        total = np.einsum("tpi,ti->tp", by, found.gradient())
        for j, name in enumerate(names):
            if name != "epsilon" or (
                follows and measure != "error"
            ):  # a test epsilon of its own does not change with epsilon
                total[:, j] += found.by(name)
        long_name = LABELS[measure][0]
        data[f"{measure}_derivative"] = dims, total, _labels(f"derivative of the {long_name} by a parameter")
    return data


def _fluctuations(
    state: Array, covariance: Array, mean: Array, measures: Mapping[str, _Measure], N: int | None
) -> dict[str, Any]:
    """Return covariance and mean correction, and at N also means and standard deviations."""
    data: dict[str, Any] = {
        "covariance": (
            ("alpha", "order_parameter", "other"), covariance, _labels("N times the covariance over runs, N to infinity"),
        ),
        "mean_correction": (
            ("alpha", "order_parameter"), mean, _labels("N times (mean over runs - value at infinite N), N to infinity"),
        ),
    }  # fmt: skip
    if N is None:
        return data
    for i, name in enumerate(_NAMES[: state.shape[1]]):
        data[f"{name}_mean"] = (
            "alpha",
            state[:, i] + mean[:, i] / N,
            _labels(f"mean of {name} over runs at N", rf"\langle {name}\rangle"),
        )
        spread = np.sqrt(np.maximum(covariance[:, i, i], 0) / N)
        data[f"{name}_sd"] = "alpha", spread, _labels(f"standard deviation of {name} over runs at N", rf"\sigma_{name}")
    for measure, found in measures.items():
        gradient = found.gradient()
        variance = np.einsum("ti,tij,tj->t", gradient, covariance, gradient)
        long_name, symbol = LABELS[measure]
        value = found.value + found.correction(covariance, mean) / N
        data[f"{measure}_mean"] = (
            "alpha",
            value,
            _labels(f"mean of the {long_name} over runs at N", rf"\langle {symbol}\rangle"),
        )
        data[f"{measure}_sd"] = (
            "alpha", np.sqrt(np.maximum(variance, 0) / N), _labels(f"standard deviation of the {long_name} over runs at N", rf"\sigma_{symbol}"),
        )  # fmt: skip
    return data


def _labels(text: str, symbol: str = "") -> dict[str, str]:
    return {"long_name": text, "units": "1"} | ({"symbol": symbol} if symbol else {})
