"""What each parameter and variable is: its range, label and symbol, said once and read by everything else.

A parameter is a field of a frozen dataclass, made by `number`, `switch`, `choice` or `thing`; `checked` validates the
fields of an instance, and `described` puts them into the class's docstring, where ``help``, the documentation and the
command line find them. `LABELS` has every name that stands in a result.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from odeflow.schedule import Schedule, from_record

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "LABELS",
    "Parameter",
    "Range",
    "a",
    "as_numbers",
    "by_dims",
    "checked",
    "checked_array",
    "checked_count",
    "checked_names",
    "checked_number",
    "checked_switch",
    "choice",
    "described",
    "entries_of",
    "label",
    "number",
    "parameter_of",
    "switch",
    "thing",
]

LABELS: dict[str, tuple[str, str]] = {
    "alpha": ("learning time, examples per dimension", r"\alpha"),
    "cosine": ("cosine of the angle between the weights and the direction of the centres", r"R/\sqrt{Q}"),
    "l1_norm": ("L1 norm of the weights", r"|w|_1"),
    "l2_norm": ("L2 norm of the weights", r"|w|_2"),
    "w": ("weights", "w"),
    "w_sd": ("standard deviation of the weights over runs", r"\sigma_w"),
    "examples": ("learning time, examples", r"\mu"),
    "feature": ("component of the input", "i"),
    "error": ("classification error", "E"),
    "adversarial_error": ("adversarial error", "S"),
    "fgsm_error": ("error on examples that FGSM attacks", r"S_\mathrm{FGSM}"),
    "separation": ("share that an attack brings to a wrong answer of at least the level", "q"),
    "doubt": ("share that an attack brings to at most the level in the right class", ""),
    "proposition_3": ("bound of that share by the base classifier's separation", ""),
    "awpr": ("share of the right answers that an attack makes wrong and accepted", ""),
    "awpr_without_rejection": ("share of the right answers that an attack makes wrong", ""),
    "recall": ("share of the clean examples that are accepted", ""),
    "recall_of_correct": ("share of the right answers that are accepted", ""),
    "level": ("level of confidence", ""),
    "delta": ("size of the perturbation", r"\delta"),
    "eta": ("size of the perturbation", r"\eta"),
    "xi": ("radius in which the most confident neighbour answers", r"\xi"),
    "loss": ("loss on clean examples", "L"),
    "adversarial_loss": ("loss on attacked examples", r"\tilde L"),
    "quadrature_error": ("error of the right-hand side by the quadrature", ""),
    "status": ("status of the integration", ""),
    "neglected": ("largest size so far of what the closure neglects", ""),
    "samples_per_dimension": ("samples per dimension of the means and covariances", "n/N"),
    "run": ("Monte Carlo run", ""),
    "runs": ("number of Monte Carlo runs", ""),
    "fixed_point": ("fixed point", ""),
    "stable": ("whether small deviations decay", ""),
    "eigenvalues": ("eigenvalues of the Jacobian, per unit of alpha", r"\lambda"),
    "training_epsilon": ("size of the perturbation in training", r"\varepsilon"),
    "training": ("kind of training", ""),
    "test_epsilon": ("size of the perturbation in testing", r"\varepsilon_\mathrm{test}"),
    "N": ("dimension of the input", "N"),
}
"""Name to (label, symbol in LaTeX): what is no parameter. `described` adds the parameters, networks their variables."""


@dataclass(frozen=True)
class Range:
    """An interval of finite numbers."""

    above: float = -math.inf
    """Open bound from below."""
    below: float = math.inf
    """Open bound from above."""
    least: float = -math.inf
    """Closed bound from below."""
    most: float = math.inf
    """Closed bound from above."""

    def contains(self, values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which values are finite and in the interval."""
        x = np.asarray(values, np.float64)
        inside: npt.NDArray[np.bool_] = (
            np.isfinite(x) & (x > self.above) & (x < self.below) & (x >= self.least) & (x <= self.most)
        )
        return inside

    def __str__(self) -> str:
        low, high = max(self.above, self.least), min(self.below, self.most)
        if math.isfinite(low) and math.isfinite(high):
            return f"in {'(' if low == self.above else '['}{low:g}, {high:g}{')' if high == self.below else ']'}"
        if math.isfinite(low):
            return f"{'>' if low == self.above else '>='} {low:g}"
        if math.isfinite(high):
            return f"{'<' if high == self.below else '<='} {high:g}"
        return "finite"


@dataclass(frozen=True)
class Parameter:
    """What is known of one parameter. All are dimensionless: the unit is 1."""

    label: str
    """What it is, as an axis or a table says it."""
    symbol: str = ""
    """In LaTeX."""
    range: Range | None = None
    """Of a number."""
    allowed: tuple[str, ...] = ()
    """Of a choice."""
    note: str = ""
    """More sentences, for the documentation."""
    scheduled: bool = False
    """Whether a number may change with learning time: a `Schedule` in its place."""

    def __str__(self) -> str:
        where = "" if self.range is None or str(self.range) == "finite" else f", {self.range}"
        sentence = f"{self.label[0].upper()}{self.label[1:]}{where}."
        schedule = "A number, or a Schedule." if self.scheduled else ""
        return " ".join(filter(None, (sentence, self.note, schedule)))


def number(
    default: float,
    label: str,
    symbol: str,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    note: str = "",
    scheduled: bool = False,
) -> Any:
    """Return a field that holds a finite float in a range: it can be swept and stands as a coordinate in results."""
    return _field(default, Parameter(label, symbol, Range(above, below, least, most), note=note, scheduled=scheduled))


def switch(default: bool, label: str, note: str = "") -> Any:
    """Return a field that holds True or False."""
    return _field(default, Parameter(label, note=note))


def choice(default: str, label: str, allowed: tuple[str, ...], note: str = "") -> Any:
    """Return a field that holds one of some names."""
    return _field(default, Parameter(label, allowed=allowed, note=note))


def thing(default: Any, label: str, note: str = "") -> Any:
    """Return a field that holds anything else, which its owner checks."""
    return _field(default, Parameter(label, note=note))


def _field(default: Any, parameter: Parameter) -> Any:
    return field(default=default, metadata={"parameter": parameter})


def parameter_of(owner: Any) -> dict[str, Parameter]:
    """Return the parameters of a dataclass, or of an instance, by name."""
    return {item.name: item.metadata["parameter"] for item in fields(owner) if "parameter" in item.metadata}


Owner = TypeVar("Owner")


def described(owner: type[Owner]) -> type[Owner]:
    """Put the parameters of a dataclass into its docstring and into `LABELS`; a class decorator, above ``@dataclass``."""
    parameters = parameter_of(owner)
    for name, parameter in parameters.items():
        LABELS.setdefault(name, (parameter.label, parameter.symbol))
    lines = [f"{name}\n    {parameter}" for name, parameter in parameters.items()]
    section = "\n".join(["Parameters", "----------", *lines])
    head, raises, tail = inspect.cleandoc(owner.__doc__ or "").partition("\nRaises\n------\n")
    owner.__doc__ = f"{head.rstrip()}\n\n{section}\n{raises}{tail}"
    return owner


def checked(instance: Any) -> None:
    """Check the fields of a frozen dataclass, and make its numbers floats: what ``__post_init__`` calls.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed; the message names it, its value and what is allowed.
    """
    for item in fields(instance):
        parameter: Parameter | None = item.metadata.get("parameter")
        value = getattr(instance, item.name)
        if parameter is None:
            continue
        if parameter.scheduled and isinstance(value, Mapping):  # as the attributes of a result have it
            value = from_record(value)
            object.__setattr__(instance, item.name, value)
        if isinstance(value, Schedule):
            _check_schedule(item.name, value, parameter)
        elif parameter.range is not None:
            bounds = {name: getattr(parameter.range, name) for name in ("above", "below", "least", "most")}
            object.__setattr__(instance, item.name, checked_number(item.name, value, **bounds))
        elif parameter.allowed and value not in parameter.allowed:
            raise ValueError(f"{item.name} = {value!r} is unknown: allowed is one of {', '.join(parameter.allowed)}")
        elif isinstance(item.default, bool) and not isinstance(value, bool):
            raise TypeError(f"{item.name} = {value!r} is not a bool: allowed is True or False")


def _check_schedule(name: str, schedule: Schedule, parameter: Parameter) -> None:
    """Raise an error if a parameter takes no schedule, or if one leaves its range."""
    if not parameter.scheduled:
        raise TypeError(f"{name} = {schedule!r}: allowed is what does not change with learning time")
    assert parameter.range is not None
    for bound in schedule.bounds:
        near = min(max(bound, parameter.range.least), parameter.range.most)  # rounding of a smooth one
        if not parameter.range.contains(near if abs(near - bound) <= 1e-9 * max(map(abs, schedule.bounds)) else bound):
            raise ValueError(
                f"{name} = {schedule!r} takes the value {bound:g}, which is out of range: allowed is {parameter.range}"
            )


def checked_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """Return `value` as a float, or raise an error that names it, its value and what is allowed.

    Parameters
    ----------
    name
        What the number is called, for the message.
    value
        Any real number (a Python or NumPy scalar).
    above, below
        Open bounds.
    least, most
        Closed bounds.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is not finite, or out of bounds.
    """
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">", above), (">=", least), ("<", below), ("<=", most))
        if math.isfinite(bound)
    ]
    allowed = " and ".join(["a finite number", *bounds])
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} = {value!r} is not a number: allowed is {allowed}")
    try:
        as_float = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} is not one number: allowed is {allowed}") from None
    if not (math.isfinite(as_float) and above < as_float < below and least <= as_float <= most):
        raise ValueError(f"{name} = {as_float!r} is out of range: allowed is {allowed}")
    return as_float + 0.0  # no -0.0


def checked_switch(name: str, value: object) -> bool:
    """Return True or False, or raise a TypeError if it is neither."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} = {value!r} is not a bool: allowed is True or False")
    return bool(value)


def checked_names(argument: str, given: Any, allowed: Collection[str]) -> tuple[str, ...]:
    """Return names, one or several, or raise an error if one is not allowed, or is there twice."""
    if isinstance(given, str):
        given = (given,)
    listed = np.asarray(given).tolist() if hasattr(given, "__array__") else given
    if not isinstance(listed, Collection) or isinstance(listed, bytes):
        raise TypeError(f"{argument} = {given!r}: allowed are names, such as {next(iter(allowed))!r}")
    names = tuple(listed)
    for name in names:
        if name not in allowed:
            raise ValueError(f"{argument} has {name!r}: allowed are {', '.join(allowed)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} = {names!r} names a parameter twice: allowed is once")
    return names


def as_numbers(name: str, value: Any) -> npt.NDArray[np.float64]:
    """Return numbers, nan among them, as an array, or raise a TypeError that names what is none."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "buif":  # NumPy takes texts for numbers, and None for nan
            raise TypeError
        return np.asarray(array, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} is not a number or an array of numbers") from None


def checked_array(name: str, value: Any) -> npt.NDArray[np.float64]:
    """Return numbers as an array, or raise an error that names them if one is not finite."""
    array = as_numbers(name, value)
    if not np.all(np.isfinite(array)):
        bad = float(array[~np.isfinite(array)].flat[0])
        raise ValueError(f"{name} = {bad!r} is out of range: allowed are finite numbers")
    return array


def by_dims(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers and arrays as they are, and DataArrays as arrays that broadcast by the names of their dims.

    The dims of the result are those of the DataArrays in the order in which they appear.

    Raises
    ------
    ValueError
        If DataArrays have other coordinates along the same dim, or stand beside arrays, whose axes have no names.
    """
    labelled = {name: value for name, value in values.items() if hasattr(value, "dims") and hasattr(value, "data")}
    if not any(value.dims for value in labelled.values()):
        return dict(values)
    import xarray as xr

    for name, value in values.items():
        if name not in labelled and np.ndim(value) > 0:
            others = ", ".join(labelled)
            raise ValueError(
                f"{name} is an array of shape {np.shape(value)} beside DataArrays ({others}): allowed are numbers and DataArrays, "
                "or numbers and arrays"
            )
    try:
        aligned = xr.align(*labelled.values(), join="exact", copy=False)
    except ValueError as error:
        names = ", ".join(labelled)
        raise ValueError(f"{names} have different coordinates along a dim they share: {error}") from None
    return {**values, **{name: x.values for name, x in zip(labelled, xr.broadcast(*aligned), strict=True)}}


def checked_count(name: str, value: object, least: int, where: str = "", *, most: int | None = None) -> int:
    """Return `value` as an int, or raise an error that names it, its value and that a whole number >= `least` is allowed.

    `where` is put into the message to say when that holds; `most` is a bound from above.
    """
    as_float = checked_number(name, value)
    if as_float != int(as_float) or as_float < least or (most is not None and as_float > most):
        bound = "" if most is None else f" and <= {most}"
        raise ValueError(f"{name} = {value!r} is out of range{where}: allowed is a whole number >= {least}{bound}")
    return int(as_float)


def a(noun: str) -> str:
    """Return a noun with its article: a Committee, an Adversary."""
    return f"{'an' if noun[:1].lower() in tuple('aeio') else 'a'} {noun}"


_PAIR = {"unit", "other_unit"}  # dims of a symmetric matrix


def entries_of(values: xr.DataArray, dims: Collection[Hashable]) -> Iterator[tuple[tuple[int, ...], xr.DataArray]]:
    """Return the entries of an array along `dims`, each with its indices; of a symmetric matrix those above and on the diagonal."""
    order = [dim for dim in values.dims if dim in dims]
    pair = [order.index(dim) for dim in order if dim in _PAIR]
    for index in np.ndindex(*(values.sizes[dim] for dim in order)):
        if len(pair) == 2 and index[pair[0]] > index[pair[1]]:
            continue
        yield index, values.isel(dict(zip(order, index, strict=True)))


Result = TypeVar("Result", "xr.Dataset", "xr.DataArray")


def label(result: Result) -> Result:
    """Give every variable of a Dataset, or a DataArray and its coordinates, its long name and unit (all are 1).

    What has a long name already, because two networks mean different things by a letter, keeps it.
    """
    import xarray as xr

    variables: dict[Any, xr.DataArray]
    if isinstance(result, xr.Dataset):
        variables = {name: result[name] for name in result.variables}
    else:
        variables = {result.name: result, **{name: result[name] for name in result.coords}}
    for name, variable in variables.items():
        if name in LABELS:
            variable.attrs.setdefault("long_name", LABELS[name][0])
            variable.attrs.setdefault("units", "1")
    return result
