"""Integrate the order parameters' dynamics: one trajectory as a Dataset, or a batch as plain arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, Data, GaussianMixture, LearningRule, numeric_parameters, parameters
from odeflow.numerics.memory import check_memory
from odeflow.order_parameters import Network, Perceptron
from odeflow.order_parameters.base import (
    Array,
    check_one_start,
    checked_network,
    flat,
    recorded,
    start_of,
    unflat,
    width,
)
from odeflow.parameters import Parameter, as_numbers, by_dims, checked_count, checked_number, label, parameter_of
from odeflow.provenance import provenance
from odeflow.schedule import Schedule, Scheduled, largest, schedules_of

if TYPE_CHECKING:
    import xarray as xr

    from odeflow.numerics.runge_kutta import Solution

__all__ = [
    "IntegrationError",
    "broadcast_table",
    "check_column",
    "check_until",
    "checked_alpha",
    "integrate",
    "integrate_batch",
    "labelled",
    "over_time",
    "seen_at",
    "solver_options",
    "start_coordinates",
]


_SEED = GaussianMixture()


class IntegrationError(RuntimeError):
    """A trajectory could not be integrated; the message says why and what may help."""


def integrate(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    alpha: npt.ArrayLike,
    network: Network = Perceptron(),
    start: Mapping[str, npt.ArrayLike] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    test_epsilon: float | None = None,
    max_steps: int | None = None,
    on_failure: Literal["raise", "return"] = "raise",
    fluctuations: bool = False,
    N: int | None = None,
    sensitivities: Sequence[str] = (),
    **initial: npt.ArrayLike,
) -> xr.Dataset:
    """Integrate the order parameters over learning time (exact as N grows; equations (1.1) and (3) of the theory page).

    For the default, the perceptron, they are R and b. For weights that are not normalised, the squared length Q is
    integrated too, and R = w.B is their overlap as it is.

    Parameters
    ----------
    mixture, rule, adversary
        The model. A `Committee` learns from a `GaussianMixture`, from `GaussianClusters` and from a `TeacherStudent`. Of rule
        and adversary, epsilon, eta_w and eta_b may be a `Schedule`; they are then coordinates with the dim alpha.
    alpha
        Increasing output times >= 0 in examples per dimension, shape (alpha,).
    network
        What learns: `Perceptron()` or `Committee(...)`.
    start
        Initial values by the name of the order parameter, such as ``{"R": 0.1}``. Default: each network's own.
    rtol, atol
        Relative and absolute tolerance of the order parameters, > 0 and >= 0; default: the network's (1e-8 and 1e-10 for
        the perceptron). The error control is per step, at a tenth of these, so that the error stays of their order unless
        the trajectory itself amplifies errors.
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: the adversary's, of a schedule at each time.
    max_steps
        Most steps that the solver may take, >= 1; default: the network's (1,000,000 for the perceptron).
    on_failure
        What to do if the trajectory cannot be integrated: raise, or return with a `status` other than 0 and nan.
    fluctuations
        Whether to add what runs at a large finite N do beside the theory's trajectory, exact to order 1/N: equations (6) of
        the theory page, for the perceptron. All runs begin with exactly the initial values. (A simulation has its full learning
        rate: without `second_order` they are those of the limit alone.)
    N
        Dimension of the input at which means and standard deviations over runs are added, >= 3; with `fluctuations`.
    sensitivities
        Parameters by which derivatives are added: numbers of the mixture, the rule and the adversary, and initial values, by
        name; for the perceptron. By a `Schedule` it is the derivative by a constant added to it.
    **initial
        The same as `start`, by names with a 0. Of the perceptron: R0, the initial overlap in [-sqrt(Q0), sqrt(Q0)]
        (default 0); b0, the bias (0); Q0, the squared length of the weights, > 0 (1, and always 1 if they are normalised).

    Returns
    -------
    Dataset
        The order parameters, error and adversarial_error with dim alpha: R and b, and Q if the weights are not
        normalised; scalar status (0: done). Other networks: their order parameters and `measures`; of two layers also
        the scalar quadrature_error, that of the right-hand side as far as it was found.

        With fluctuations also covariance, N times that of R, b (and Q) over runs (dims alpha, order_parameter, other), and
        mean_correction, N times what their means are above the trajectory (dims alpha, order_parameter); at N, of the order
        parameters and the errors the means and standard deviations over runs, such as R_mean and R_sd. With sensitivities
        R_derivative, b_derivative, error_derivative and so on (dims alpha, parameter); that of adversarial_error by epsilon
        moves the test's epsilon with the adversary's, unless it is given.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    IntegrationError
        If the trajectory cannot be integrated.

    Examples
    --------
    >>> final = integrate(GaussianMixture(), LearningRule(), Adversary(1.0), alpha=[100.0])
    >>> round(float(final.R[-1]), 6)
    0.980223
    """
    import xarray as xr

    checked_network(network).check(mixture, rule, adversary)
    alpha = checked_alpha(alpha)
    values = start_of(network, mixture, rule, start, initial)
    check_one_start(network.variables(rule, mixture), values)
    check_until(alpha[-1], rule, adversary)
    if on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure = {on_failure!r}: allowed is 'raise' or 'return'")
    rtol, atol, max_steps = solver_options(network, rtol, atol, max_steps)
    model = {**parameters(rule, adversary), **numeric_parameters(mixture, network)}
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_steps": max_steps}
    if test_epsilon is not None:
        test_epsilon = checked_number("test_epsilon", test_epsilon, least=0)
    more: dict[str, Any] = {}
    places: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    if fluctuations is not False or N is not None or np.size(np.asarray(sensitivities, object)) > 0:
        wanted = {"fluctuations": fluctuations, "N": N, "sensitivities": sensitivities}
        found = network.expanded(mixture, rule, adversary, values, alpha, test_epsilon, **wanted, **options)
        solution, more, places = found
        wanted["sensitivities"] = list(places.get("parameter", []))
    else:
        solution = integrate_batch(**model, **values, mixture=mixture, network=network, alpha=alpha, **options)
    status = int(solution.status[0])
    if status != 0 and on_failure == "raise":
        of = ", ".join(map(str, (mixture, rule, adversary, *(() if network == Perceptron() else (network,)))))
        start_of_it = ", ".join(f"{name} = {np.asarray(value).tolist()}" for name, value in values.items())
        raise IntegrationError(f"{_advice(status, network)} (the trajectory of {of} from {start_of_it})")

    numbers = numeric_parameters(mixture, rule, adversary, network)
    tested = numbers["epsilon"] if test_epsilon is None else test_epsilon
    data = labelled(network, mixture, rule, solution.y[0], ("alpha",), numbers, seen_at(tested, alpha))
    columns = {name: np.array([largest(value)]) for name, value in numbers.items()} | {
        "second_order": np.array([rule.second_order])
    }
    reached = network.accuracy(solution.y, mixture, rule, adversary, columns)
    data |= {name: float(value[0]) for name, value in reached.items()}
    data |= more
    data["status"] = np.int8(status)
    coords = {
        "alpha": alpha, **over_time(numbers, alpha), **start_coordinates(network, mixture, rule, values),
        **over_time({"test_epsilon": tested}, alpha), **places,
    }  # fmt: skip
    attrs = provenance(
        "integrate", mixture, rule, adversary, **recorded(network), **values, test_epsilon=tested, **options, **wanted,
    )  # fmt: skip
    result = label(xr.Dataset(data, coords, attrs))
    result["status"].attrs["meaning"] = _advice(status, network)
    return result


def integrate_batch(
    *,
    alpha: npt.ArrayLike,
    network: Network = Perceptron(),
    start: Mapping[str, npt.ArrayLike] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
    mixture: Data = _SEED,
    **model: Any,
) -> Solution:
    """Integrate many trajectories at once, on all cores (exact as N grows).

    Parameters
    ----------
    alpha, network, rtol, atol, max_steps
        As for `integrate`; the same for all trajectories.
    mixture
        The data, where they are not the seed's: what of them is no number, and the default of what is.
    start
        Initial values by the name of the order parameter, of shape (points, ...) where it is an array itself.
    **model
        Fields of GaussianMixture, LearningRule, Adversary and the network by name, and initial values (R0, b0, Q0 of the
        perceptron), with their defaults. Those that are numbers can be arrays; all broadcast together, and a trajectory
        is a point of the broadcast shape in C order. DataArrays broadcast by the names of their dims, in the order in which
        these appear. The others are the same for all trajectories, and so is a `Schedule` of epsilon, eta_w or eta_b.

    Returns
    -------
    Solution
        Plain arrays: y of shape (trajectories, alpha, 2) with R and b, or (..., 3) with R, b and Q if the weights are
        not normalised, in general the entries of the network's order parameters; status (0: done); steps. A trajectory
        that fails has nan from where it failed; nothing raises.

    Raises
    ------
    TypeError, ValueError
        If an argument is unknown or not allowed.

    Examples
    --------
    >>> integrate_batch(alpha=[100.0], epsilon=[0.0, 0.5, 1.0]).y.shape
    (3, 1, 2)
    """
    times = checked_alpha(alpha)
    rtol, atol, max_steps = solver_options(checked_network(network), rtol, atol, max_steps)
    rule, adversary, points, states = _points(network, mixture, start, model)
    check_until(times[-1], rule, adversary)

    from odeflow.numerics.course import course_of
    from odeflow.numerics.runge_kutta import Solution, solve

    course = course_of(adversary.epsilon, rule.eta_w, rule.eta_b)

    n = width(network.variables(rule, mixture))
    count = len(states)
    check_memory(
        2 * count * times.size * n * 8,
        f"{count:,} trajectories at {times.size:,} output times need",
        "fewer are allowed at once",
    )
    y, status, steps = np.empty((count, times.size, n)), np.zeros(count, np.int8), np.zeros(count, np.int64)
    for rows, kernel, constants, least, own in network.systems(mixture, rule, adversary, points, states):
        solution = (own or solve)(
            kernel,
            trajectories=len(rows),
            variables=n,
            constants=constants,
            times=times,
            rtol=rtol,
            atol=atol,
            max_steps=max_steps,
            least=least,
            course=course,
        )
        if len(rows) == count:
            return solution
        y[rows], status[rows], steps[rows] = solution
    return Solution(y, status, steps)


def solver_options(
    network: Network, rtol: float | None, atol: float | None, max_steps: int | None
) -> tuple[float, float, int]:
    """Return the solver's checked options: those given, and the network's for the rest."""
    default = network.tolerances
    return (
        checked_number("rtol", default[0] if rtol is None else rtol, least=1e-14, below=1),
        checked_number("atol", default[1] if atol is None else atol, least=0),
        checked_count("max_steps", network.max_steps if max_steps is None else max_steps, 1),
    )


def checked_alpha(alpha: npt.ArrayLike, name: str = "alpha") -> npt.NDArray[np.float64]:
    """Return output times as an array, or raise if they are not increasing, finite and >= 0."""
    allowed = "allowed are increasing finite numbers >= 0, at least one"
    try:
        times = np.atleast_1d(np.array(alpha, np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {alpha!r} is not an array of numbers: {allowed}") from None
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"{name} has shape {times.shape}: {allowed}")
    if not np.all(np.isfinite(times)) or times[0] < 0:
        bad = float(times[~np.isfinite(times) | (times < 0)][0])
        raise ValueError(f"{name} contains {bad!r}: {allowed}")
    if np.any(np.diff(times) <= 0):
        i = int(np.argmax(np.diff(times) <= 0))
        raise ValueError(f"{name} goes from {float(times[i])!r} to {float(times[i + 1])!r}: {allowed}")
    return times


def check_until(alpha: float, *parts: Any) -> None:
    """Raise a ValueError if a schedule of some parts ends before alpha."""
    for name, schedule in schedules_of(*parts).items():
        if schedule.end < alpha:
            raise ValueError(
                f"{name} = {schedule!r} ends at alpha = {schedule.end:g}: allowed for learning to alpha = {alpha:g} is a schedule "
                "that reaches it (hold=True goes on with the last value of a linear one)"
            )


def seen_at(value: Scheduled, alpha: Array) -> Any:
    """Return a number as it is, and the values of a schedule at alpha."""
    return value(alpha) if isinstance(value, Schedule) else value


def over_time(numbers: Mapping[str, Scheduled], alpha: Array) -> dict[str, Any]:
    """Return numbers as coordinates of a result: those that change have the dim alpha."""
    return {name: ("alpha", value(alpha)) if isinstance(value, Schedule) else value for name, value in numbers.items()}


def labelled(
    network: Network,
    mixture: Data,
    rule: LearningRule,
    y: Array,
    dims: tuple[str, ...],
    points: Mapping[str, Any],
    test_epsilon: Any,
) -> dict[str, Any]:
    """Return states, shape (*dims, width), as the variables of a Dataset, with the errors of those networks."""
    variables = network.variables(rule, mixture)
    state = unflat(y, variables)
    data: dict[str, Any] = {
        variable.name: ((*dims, *variable.dims), state[variable.name], variable.attributes) for variable in variables
    }
    measured = network.measured(state, mixture, points, test_epsilon)
    return data | {name: (dims, values) for name, values in measured.items()}


def start_coordinates(network: Network, mixture: Data, rule: LearningRule, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return initial values by name as coordinates of a Dataset."""
    found = {}
    for variable in network.variables(rule, mixture):
        if variable.start_name in values:
            value = np.asarray(values[variable.start_name])
            dims = ("run", *variable.dims) if value.ndim > len(variable.dims) else variable.dims
            found[variable.start_name] = dims, value, {"long_name": f"initial {variable.label}", "units": "1"}
    return found


def _points(
    network: Network, mixture: Data, start: Mapping[str, Any] | None, model: Mapping[str, Any]
) -> tuple[LearningRule, Adversary, dict[str, Array], Array]:
    """Return what is the same at all points, the numbers by name of shape (points,), and states (points, width).

    Of a schedule the numbers have the largest value.
    """
    parts = (mixture, LearningRule(), Adversary(), network)
    schedules = {name: value for name, value in model.items() if isinstance(value, Schedule)}
    model = {name: largest(value) if name in schedules else value for name, value in model.items()}
    numbers = by_dims({**model, **{f"start[{name!r}]": value for name, value in (start or {}).items()}})
    model = {name: numbers[name] for name in model}
    start = {name: numbers[f"start[{name!r}]"] for name in start or {}}
    default = {**numeric_parameters(mixture), **parameters(*parts[1:3]), **numeric_parameters(network)}
    columns = {name: parameter for part in parts for name, parameter in parameter_of(part).items() if _swept(parameter)}
    rule = LearningRule(**_others(LearningRule, columns, model), **_of(LearningRule, schedules))
    adversary = Adversary(**_others(Adversary, columns, model), **_of(Adversary, schedules))
    for name in schedules.keys() - schedules_of(rule, adversary).keys():
        raise TypeError(f"{name} = {schedules[name]!r}: allowed is what does not change with learning time")
    network.check(mixture, rule, adversary)
    given = {name: value for name, value in model.items() if name not in default}
    starts = [variable.start_name for variable in network.starts(rule, mixture)]
    for name in given:
        if name not in starts:
            raise TypeError(f"{name!r} is not a parameter: allowed are {', '.join([*default, *starts])}")
    initial = start_of(network, mixture, rule, start, given)
    variables = network.variables(rule, mixture)
    states = flat({variable.name: initial[variable.start_name] for variable in variables}, variables)
    values = {name: {**default, **model}[name] for name in columns}
    entries = {f"start[{i}]": states[..., i] for i in range(states.shape[-1])}
    points = _broadcast((*columns, *entries), {**values, **entries})
    table = np.stack([points.pop(name) for name in entries], axis=1)
    for name, column in points.items():
        check_column(name, columns[name], column)
    network.check_points(rule, adversary, points)
    return rule, adversary, points, table


def _swept(parameter: Parameter) -> bool:
    """Return whether a parameter can have another value at each point: numbers, and the switch of the kernels."""
    return parameter.range is not None or parameter is parameter_of(LearningRule)["second_order"]


def _others(part: type, columns: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(part) if field.name not in columns]
    return {name: model[name] for name in names if name in model}


def _of(part: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in parameter_of(part) if name in values}


def check_column(name: str, parameter: Parameter, values: Array) -> None:
    """Raise a ValueError if one of the values of a parameter is out of its range."""
    if parameter.range is None:
        good, allowed = (values == 0) | (values == 1), "True or False"
    else:
        good, allowed = parameter.range.contains(values), str(parameter.range)
    if not np.all(good):
        raise ValueError(f"{name} = {float(values[~good][0])!r} is out of range: allowed is {allowed}")


def broadcast_table(names: tuple[str, ...], values: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Broadcast numbers and arrays by name into the columns of a table: a row is a point of their shape, in C order.

    Raises
    ------
    TypeError
        If a value is not a number or an array of numbers.
    ValueError
        If the shapes do not broadcast together.
    """
    return np.stack([*_broadcast(names, values).values()], axis=1)


def _broadcast(names: tuple[str, ...], values: dict[str, Any]) -> dict[str, Array]:
    values = by_dims(values)
    arrays = [as_numbers(name, values[name]) for name in names]
    try:
        columns = np.broadcast_arrays(*arrays)
    except ValueError:
        shapes = {name: array.shape for name, array in zip(names, arrays, strict=True) if array.shape}
        raise ValueError(f"the shapes {shapes} do not broadcast together: allowed are shapes that do") from None
    points = math.prod(columns[0].shape)
    check_memory(2 * 8 * points * len(names), f"{points:,} points need", "fewer are allowed at once")
    return {name: column.ravel() for name, column in zip(names, columns, strict=True)}


def _advice(status: int, network: Network) -> str:
    from odeflow.numerics.runge_kutta import STATUS

    return "; ".join(filter(None, (STATUS[status], network.advice.get(status))))
