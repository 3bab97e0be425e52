"""The schedules that minimise the adversarial error, as labelled results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from odeflow.control.problem import CONTROLS, Form, Objective, Problem
from odeflow.control.search import Optimum, curvature, gap, search, starts
from odeflow.integrate import integrate
from odeflow.model import MOST, Adversary, GaussianMixture, LearningRule, check_parts
from odeflow.optimal import optimal_classifier
from odeflow.order_parameters import Perceptron
from odeflow.order_parameters.base import check_one_start, start_of
from odeflow.parameters import LABELS, checked_count, checked_names, checked_number, label
from odeflow.provenance import provenance
from odeflow.schedule import Schedule
from odeflow.simulate import seed_sequence

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["best_model", "optimal_constant", "optimal_schedule"]

Array = npt.NDArray[np.float64]
Rng = int | np.random.SeedSequence | np.random.Generator | None

_CONSTANT_STARTS = 4  # at least: one number has local optima too
_AGREED = 1e-7  # of the objective: the search's own solver against `integrate`
_FINE = 200  # output times, at least


def optimal_schedule(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    alpha_max: float,
    control: Sequence[str] | str = ("epsilon",),
    constant: Sequence[str] | str = (),
    test_epsilon: float | None = None,
    pieces: int = 10,
    form: Form = "steps",
    objective: Objective = "final",
    bounds: Mapping[str, tuple[float, float]] | None = None,
    starts: int = 20,
    rng: Rng = None,
    R0: float = 0.0,
    b0: float = 0.0,
) -> xr.Dataset:
    r"""Return the schedules that leave the least adversarial error S (section 7 of the theory page; exact as N grows).

    The search is L-BFGS-B from many starts, with the exact gradient from the adjoint equations of the discretised dynamics,
    and Newton's method at the end. What it returns is a local optimum, up to rounding, with what certifies it: Pontryagin's
    switching function, the least curvature, and the other optima that were found. That none is better elsewhere is not
    proved.

    Parameters
    ----------
    mixture, rule, adversary
        The model: the seed's perceptron. What is not controlled may be a `Schedule`; what is, is replaced.
    alpha_max
        End of learning, > 0.
    control
        Names of what is chosen, out of epsilon, eta_w and eta_b.
    constant
        Those of them that do not change with time: the best number is chosen.
    test_epsilon
        Size of the attack in S, >= 0; default: the adversary's epsilon, which then is a number.
    pieces
        Number of pieces of equal length, >= 1.
    form
        "steps": a value on each piece. "linear": a value at each end of a piece, and linear between.
    objective
        "final": S at alpha_max. "integral": the mean of S over the whole time.
    bounds
        Least and largest value by name. Default: epsilon in [0, rho + 2 test_epsilon], rates in [0, 10 times the rule's]
        (of a schedule, its largest value).
    starts
        Number of starts of the search, >= 1. The first is the best constant; the others are random, by turns ramps and values
        that are all independent.
    rng
        Source of the random starts.
    R0, b0
        Where learning starts.

    Returns
    -------
    Dataset
        `schedule` (control, knot), the values, with `switching` of the same shape: the derivative of the objective by the
        value, per unit of time that it holds. It is 0 inside the bounds, >= 0 at the lower and <= 0 at the upper bound.
        Scalars: `objective`; `gap`, how far it would fall at most, to first order, within the bounds; `curvature`, the least
        eigenvalue of its second derivatives by the values inside the bounds, each in units of its bounds' width (nan
        without such values); `integrated`, the objective as `odeflow.integrate` finds it; `classifier_error`, S of the best
        linear classifier, below which no objective can be. `constant_schedule` (control) and `constant_objective`: the best
        constants, `optimum_schedule` (optimum, control, knot), `optimum_objective`, `optimum_gap` and `optimum_starts`
        (optimum): all local optima, the best first, and how many starts ended in each. Over alpha: the best trajectory with its errors, the costates
        `lambda_R` and `lambda_b`, and `switching_function` (control, alpha), :math:`\lambda\cdot\partial f/\partial u`. The
        attributes have rule and adversary with the best schedules: `best_model` returns them.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or the model is a variant whose derivatives are not there.

    Examples
    --------
    >>> model = GaussianMixture(p=0.7, rho=3), LearningRule(), Adversary(1.0)
    >>> best = optimal_schedule(*model, alpha_max=20, pieces=3, starts=3, rng=1)
    >>> best.schedule.sel(control="epsilon").values.round(2)
    array([0.84, 1.64, 2.38])
    >>> round(float(best.constant_objective), 4), round(float(best.objective), 4)
    (0.3765, 0.3435)
    """
    problem = _problem(
        mixture, rule, adversary, alpha_max=alpha_max, control=control, constant=constant, test_epsilon=test_epsilon,
        pieces=pieces, form=form, objective=objective, bounds=bounds, R0=R0, b0=b0,
    )  # fmt: skip
    count = checked_count("starts", starts, 1)
    generator = np.random.default_rng(seed_sequence(rng))
    uniform = replace(problem, constant=problem.controls)
    _, constants = search(uniform, _starts(uniform, max(count, _CONSTANT_STARTS), generator))
    if set(problem.constant) == set(problem.controls):
        best, found = problem, constants
    else:
        best, found = search(problem, _starts(problem, count, generator, problem.one_each(constants[0].numbers)))
    return _labelled(best, found, constants[0], {"starts": count, "rng": repr(rng)})


def optimal_constant(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    alpha_max: float,
    control: Sequence[str] | str = ("epsilon",),
    **options: Any,
) -> xr.Dataset:
    """Return the constants that leave the least adversarial error: `optimal_schedule` in one piece.

    Parameters
    ----------
    mixture, rule, adversary, alpha_max, control, **options
        As there, but for `constant`, `pieces` and `form`.

    Examples
    --------
    >>> best = optimal_constant(GaussianMixture(p=0.7, rho=3), LearningRule(), Adversary(1.0), alpha_max=20, rng=1)
    >>> round(float(best.schedule.squeeze()), 2)
    1.49
    """
    for name in ("constant", "pieces", "form"):
        if name in options:
            raise TypeError(f"{name} = {options[name]!r}: allowed is optimal_schedule for what changes with time")
    names = (control,) if isinstance(control, str) else tuple(control)
    return optimal_schedule(
        mixture, rule, adversary, alpha_max=alpha_max, control=names, constant=names, pieces=1, **options
    )


def best_model(result: xr.Dataset) -> tuple[GaussianMixture, LearningRule, Adversary]:
    """Return the model with the best schedules of a result, also of one that was loaded.

    Examples
    --------
    >>> best = optimal_constant(GaussianMixture(p=0.7, rho=3), LearningRule(), Adversary(1.0), alpha_max=20, rng=1)
    >>> round(best_model(best)[2].epsilon, 2)
    1.49
    """
    configuration = json.loads(getattr(result, "attrs", {}).get("configuration", "{}"))
    if configuration.get("function") != "control.optimal_schedule":
        raise ValueError(f"result is of {configuration.get('function')!r}: allowed is one of optimal_schedule")
    return (
        GaussianMixture(**configuration["mixture"]),
        LearningRule(**configuration["rule"]),
        Adversary(**configuration["adversary"]),
    )


def _starts(problem: Problem, count: int, generator: np.random.Generator, *first: Array) -> list[Array]:
    return list(starts(problem, count, generator, first))


def _problem(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    alpha_max: float,
    control: Sequence[str] | str,
    constant: Sequence[str] | str,
    test_epsilon: float | None,
    pieces: int,
    form: Form,
    objective: Objective,
    bounds: Mapping[str, tuple[float, float]] | None,
    R0: float,
    b0: float,
) -> Problem:
    """Return a problem, with everything checked."""
    check_parts(mixture=mixture, rule=rule, adversary=adversary, schedules=True)
    seed = LearningRule(eta_w=rule.eta_w, eta_b=rule.eta_b, second_order=rule.second_order)
    if rule != seed or adversary != Adversary(adversary.epsilon):
        raise ValueError(
            f"rule = {rule!r}, adversary = {adversary!r}: allowed is the seed's rule, with any rates, and one epsilon for all "
            "examples; for variants the derivatives are not there"
        )
    alpha_max = checked_number("alpha_max", alpha_max, above=0, most=MOST)
    names = _names("control", control, CONTROLS)
    if not names:
        raise ValueError(f"control = {control!r}: allowed is at least one of {', '.join(CONTROLS)}")
    fixed = _names("constant", constant, names)
    pieces = checked_count("pieces", pieces, 1, most=1000)
    for name, value, allowed in (("form", form, get_args(Form)), ("objective", objective, get_args(Objective))):
        if value not in allowed:
            raise ValueError(f"{name} = {value!r}: allowed is {' or '.join(map(repr, allowed))}")
    if test_epsilon is None:
        if isinstance(adversary.epsilon, Schedule):
            raise ValueError(f"test_epsilon = None: allowed is a number, because epsilon = {adversary.epsilon!r}")
        test_epsilon = adversary.epsilon
    test_epsilon = checked_number("test_epsilon", test_epsilon, least=0, most=MOST)
    for name, given in (("epsilon", adversary.epsilon), ("eta_w", rule.eta_w), ("eta_b", rule.eta_b)):
        if name not in names and isinstance(given, Schedule) and given.end < alpha_max:
            raise ValueError(
                f"{name} = {given!r} ends before alpha_max = {alpha_max:g}: allowed is one that reaches it"
            )
    start = start_of(Perceptron(), mixture, rule, None, {"R0": R0, "b0": b0})
    check_one_start(Perceptron().variables(rule, mixture), start)
    return Problem(
        mixture, rule, adversary, names, fixed, tuple(np.linspace(0, alpha_max, pieces + 1).tolist()), form,
        _bounds(names, bounds, mixture, rule, test_epsilon), test_epsilon, objective, (float(R0), float(b0)),
    )  # fmt: skip


def _names(argument: str, given: Sequence[str] | str, allowed: Sequence[str]) -> tuple[str, ...]:
    names = checked_names(argument, given, allowed)
    return tuple(name for name in CONTROLS if name in names)


def _bounds(
    names: tuple[str, ...],
    given: Mapping[str, tuple[float, float]] | None,
    mixture: GaussianMixture,
    rule: LearningRule,
    test_epsilon: float,
) -> dict[str, tuple[float, float]]:
    rates = {name: getattr(rule, name) for name in ("eta_w", "eta_b")}
    most = {name: 10 * (rate.bounds[1] if isinstance(rate, Schedule) else rate) for name, rate in rates.items()}
    most["epsilon"] = mixture.rho + 2 * test_epsilon
    for name in given or {}:
        if name not in names:
            raise ValueError(f"bounds of {name!r}: allowed are those of what is controlled, {', '.join(names)}")
    found = {}
    for name in names:
        pair: Any = (given or {}).get(name, (0.0, most[name]))
        if np.shape(pair) != (2,):
            raise TypeError(f"bounds[{name!r}] = {pair!r}: allowed are two numbers, the least and the largest")
        low, high = pair
        low, high = checked_number(f"bounds[{name!r}]", low, least=0, most=MOST), float(high)
        if not (low < high <= MOST and math.isfinite(high)):
            raise ValueError(
                f"bounds[{name!r}] = {(low, high)!r}: allowed are two numbers, the second larger, at most {MOST:g}"
            )
        found[name] = low, high
    return found


def _labelled(problem: Problem, found: Sequence[Optimum], constants: Optimum, options: dict[str, Any]) -> xr.Dataset:
    """Return the result, with the trajectory by `integrate`."""
    import xarray as xr

    best = found[0]
    solved = problem.solve(best.numbers)
    fine = _finely(problem).solve(best.numbers)
    rule, adversary = problem.model(best.numbers)
    model = problem.mixture, rule, adversary
    start: dict[str, Any] = dict(zip(("R0", "b0"), problem.start, strict=True))
    exact = {"test_epsilon": problem.test_epsilon, "rtol": 1e-11, "atol": 1e-13, **start}
    path = integrate(*model, alpha=fine.times, **exact)
    integrated = _integrated(problem, model, path, exact)
    if not abs(integrated - best.objective) <= _AGREED:
        raise ArithmeticError(
            f"the objective is {best.objective!r} by fixed steps and {integrated!r} by odeflow.integrate: they should agree; "
            "smaller learning rates, or smaller bounds of them, may help"
        )
    data = {
        "schedule": (("control", "knot"), problem.values(best.numbers)),
        "switching": (("control", "knot"), problem.values(solved.gradient / problem.masses())),
        "objective": best.objective,
        "integrated": integrated,
        "gap": gap(problem, best.numbers, solved.gradient),
        "curvature": curvature(problem, best.numbers),
        "classifier_error": optimal_classifier(problem.mixture, problem.test_epsilon).adversarial_error.item(),
        "constant_schedule": ("control", constants.numbers),
        "constant_objective": constants.objective,
        "optimum_schedule": (("optimum", "control", "knot"), np.array([problem.values(one.numbers) for one in found])),
        "optimum_objective": ("optimum", [one.objective for one in found]),
        "optimum_gap": ("optimum", [gap(problem, one.numbers, problem.solve(one.numbers).gradient) for one in found]),
        "optimum_starts": ("optimum", [one.starts for one in found]),
        **{name: ("alpha", path[name].values) for name in ("R", "b", "error", "adversarial_error")},
        "lambda_R": ("alpha", fine.costates[:, 0]),
        "lambda_b": ("alpha", fine.costates[:, 1]),
        "switching_function": (("control", "alpha"), problem.switching(model, fine)),
    }  # fmt: skip
    coords = {
        "control": list(problem.controls),
        "knot": ("knot", problem.times),
        "lower_bound": ("control", [problem.bounds[name][0] for name in problem.controls]),
        "upper_bound": ("control", [problem.bounds[name][1] for name in problem.controls]),
        **{name: path[name] for name in path.coords},
    }
    attrs = provenance(
        "control.optimal_schedule", *model, **options, alpha_max=problem.end, control=problem.controls,
        constant=problem.constant, pieces=len(problem.knots) - 1, form=problem.form, objective=problem.objective,
        bounds=problem.bounds, test_epsilon=problem.test_epsilon, **start,
    )  # fmt: skip
    result = label(xr.Dataset(data, coords, attrs))
    for name, text in _TEXTS.items():
        result[name].attrs = {"long_name": text, "units": "1"}
    return result


_TEXTS = {
    "control": "what is chosen",
    "knot": f"{LABELS['alpha'][0]}, at which a value begins or is reached",
    "lower_bound": "least value that is allowed",
    "upper_bound": "largest value that is allowed",
    "schedule": "best values",
    "switching": "derivative of the objective by a value, per unit of time",
    "objective": "adversarial error at the end, or its mean over time",
    "integrated": "objective, by odeflow.integrate",
    "gap": "largest decrease of the objective within the bounds, to first order",
    "curvature": "least eigenvalue of the second derivatives by the values inside the bounds",
    "classifier_error": "adversarial error of the best linear classifier",
    "constant_schedule": "best constant values",
    "constant_objective": "objective of the best constants",
    "optimum_schedule": "values of the optima that were found",
    "optimum_objective": "objective of the optima that were found",
    "optimum_gap": "largest decrease of the objective from there within the bounds, to first order",
    "optimum_starts": "number of starts that ended in an optimum",
    "lambda_R": "derivative of the objective by R at this time",
    "lambda_b": "derivative of the objective by b at this time",
    "switching_function": "derivative of the objective by the control at this time",
}


def _finely(problem: Problem) -> Problem:
    """Return the problem with as many steps of the solver as a line needs."""
    return replace(problem, refinement=problem.refinement * math.ceil(_FINE / (problem.grid().size - 1)))


def _integrated(problem: Problem, model: tuple[Any, ...], path: xr.Dataset, options: dict[str, Any]) -> float:
    """Return the objective by `integrate`; the mean over time by Gauss-Legendre nodes between the times of a path."""
    if problem.objective == "final":
        return float(path.adversarial_error[-1])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(path.alpha.values)[:, None] / 2
    times = path.alpha.values[:-1, None] + half * (1 + nodes)
    S = integrate(*model, alpha=times.ravel(), **options).adversarial_error.values.reshape(times.shape)
    return float(np.sum(half * weights * S) / problem.end)
