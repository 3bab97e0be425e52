"""What a network needs to take part in everything: the contract of a model with order parameters.

A network is a frozen dataclass. It says which order parameters describe it, what it allows of mixture, rule and adversary,
how parameter points become systems for the solver, its errors, its right-hand side in plain NumPy, and how it is
simulated. `integrate`, `simulate`, `sweep`, `fixed_points`, `plot` and the command line know nothing else of it.
"""

from __future__ import annotations

import abc
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, Data, GaussianMixture, LearningRule, check_known
from odeflow.parameters import Range, as_numbers

__all__ = [
    "Array",
    "Network",
    "OrderParameter",
    "Points",
    "System",
    "check_one_start",
    "checked_network",
    "flat",
    "start_of",
    "start_record",
    "unflat",
    "width",
]

Array = npt.NDArray[np.float64]

Points = Mapping[str, Any]
"""Parameters and initial values of some points by name: numbers, or arrays of shape (points, ...)."""


_SEED = GaussianMixture()

_SHORTER = 3  # times that a step of differences is made shorter

DEFAULT = "perceptron"
"""Name of the network that learns where none is given."""


@dataclass(frozen=True)
class OrderParameter:
    """One variable of the state: a number, or an array such as the overlaps of K units."""

    name: str
    """As in results; its initial value has the name with a 0."""
    label: str
    """What it is, as an axis or a table says it."""
    symbol: str
    """In LaTeX."""
    range: Range = Range()  # noqa: RUF009 -- frozen
    """Of each entry."""
    start: float = 0.0
    """The initial value where none is given, of each entry."""
    dims: tuple[str, ...] = ()
    """Dimensions of an array."""
    sizes: tuple[int, ...] = ()
    """Their sizes."""
    diagonal: bool = False
    """Whether a number stands for a matrix that has it on the diagonal, and 0 elsewhere; else for every entry."""

    @property
    def start_name(self) -> str:
        """The name of its initial value, as an argument, a coordinate and a flag."""
        return f"{self.name}0"

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.sizes)

    @property
    def shapes(self) -> str:
        """What shapes its values may have, in words."""
        axes = f"{self.sizes}, of {' and '.join(self.dims)}"
        return f"an array of shape {axes}, with any axes before these"

    def filled(self, value: Array) -> Array:
        """Return the arrays that numbers stand for, shape ``(..., *sizes)`` of numbers of shape (...)."""
        entries = np.eye(self.sizes[0]) if self.diagonal else np.ones(self.sizes)
        return np.asarray(value[(..., *(None,) * len(self.sizes))] * entries)

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the variable in a Dataset."""
        return {"long_name": self.label, "units": "1", "symbol": self.symbol}


class System(NamedTuple):
    """Some points that one kernel integrates."""

    rows: npt.NDArray[np.int64]
    """Which points, shape (trajectories,)."""
    kernel: Any
    """A system of `odeflow.numerics.runge_kutta.solve` with a trajectory for each."""
    constants: int
    """Constants that the kernel keeps for a lane."""
    least: int | None = None
    """Trajectories that a thread takes at least, where one is so much work that threads pay for fewer than usual."""
    solve: Callable[..., Any] | None = None
    """A solver of its own, that is called as `odeflow.numerics.runge_kutta.solve`."""


class Network(abc.ABC):
    """A network whose learning closes in order parameters as N grows. Its subclasses are frozen dataclasses.

    Their fields made by `odeflow.parameters.number` are parameters like those of the mixture: coordinates of results, and
    allowed in a sweep.
    """

    without: ClassVar[tuple[str, ...]] = ()
    """Fields of the rule that have no meaning for it, and of which the command line has no flags."""
    random_starts: ClassVar[bool] = False
    """Whether `odeflow.order_parameters.random_start` draws its initial values."""
    advice: ClassVar[Mapping[int, str]] = {}
    """What may be the matter if a trajectory ends with a status of the solver, beside what that says of itself."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the command line calls it."""

    @abc.abstractmethod
    def variables(self, rule: LearningRule, mixture: Data = _SEED) -> tuple[OrderParameter, ...]:
        """Return the order parameters, in the order of the state vector."""

    def starts(self, rule: LearningRule, mixture: Data = _SEED) -> tuple[OrderParameter, ...]:
        """Return the order parameters that may be given an initial value: also those that this rule keeps fixed."""
        return self.variables(rule, mixture)

    @abc.abstractmethod
    def check(self, mixture: Data, rule: LearningRule, adversary: Adversary) -> None:
        """Raise a TypeError or ValueError if one of these is not one for which this network's learning is known."""

    def check_points(self, rule: LearningRule, adversary: Adversary, points: Points) -> None:
        """Raise a ValueError if numbers of rule and adversary are not ones for which this network's learning is known.

        `points` has each by name, of shape (points,). Those of `rule` and `adversary` have no meaning. Here all that is not common
        to the networks must have its default.
        """
        check_known(f"the {self.name}", points=points)

    @abc.abstractmethod
    def check_start(self, rule: LearningRule, start: Points) -> None:
        """Raise a ValueError if initial values, each in its own range, do not go together. Arrays broadcast."""

    @abc.abstractmethod
    def systems(
        self, mixture: Data, rule: LearningRule, adversary: Adversary, points: Points, start: Array
    ) -> Sequence[System]:
        """Return the points as systems for the solver: the network decides which kernel each point needs.

        Parameters
        ----------
        mixture, rule, adversary
            What is the same at all points: fields that are not numbers.
        points
            Every numeric parameter by name, each of shape (points,), float64.
        start
            Initial states, shape (points, width).
        """

    def measures(self, mixture: Data) -> tuple[str, ...]:
        """Return the names of what `measured` returns: what a result has beside the order parameters."""
        return "error", "adversarial_error"

    @abc.abstractmethod
    def measured(self, state: Mapping[str, Any], mixture: Data, points: Points, epsilon: Any) -> dict[str, Any]:
        """Return what a user asks of the networks with these states: their errors, clean and attacked with epsilon.

        Parameters
        ----------
        state
            Each order parameter by name, shape ``(..., *sizes)``. The leading axes broadcast.
        mixture
            What of the data is no number.
        points
            The numbers of the data (p, rho, ...) by name: they and `epsilon` broadcast with the leading axes.
        """

    @abc.abstractmethod
    def rates(
        self, state: Mapping[str, Any], mixture: Data, rule: LearningRule, adversary: Adversary
    ) -> dict[str, Any]:
        """Return the derivative of each order parameter by alpha."""

    @property
    def reports(self) -> tuple[str, ...]:
        """Return the names of what `accuracy` returns."""
        return ()

    def accuracy(
        self, y: Array, mixture: Data, rule: LearningRule, adversary: Adversary, points: Points
    ) -> dict[str, Array]:
        """Return what a result reports of the accuracy of its right-hand sides: numbers by name, of shape (points,).

        `y` are states, shape (points, any, width); the others as for `systems`. Here nothing: they are exact to rounding.
        """
        return {}

    def expanded(self, *trajectory: Any, **wanted: Any) -> Any:
        """Return a trajectory with what is known around it, or raise a ValueError: here nothing is derived.

        See `odeflow.order_parameters.perceptron.expansion.results.expand`.
        """
        raise ValueError(
            f"fluctuations and sensitivities are not derived for the {self.name}: allowed is network=Perceptron()"
        )

    @abc.abstractmethod
    def simulate(
        self,
        mixture: Data,
        rule: LearningRule,
        adversary: Adversary,
        *,
        N: int,
        examples: npt.NDArray[np.int64],
        runs: int,
        method: str,
        seed: np.random.SeedSequence,
        start: Array,
        progress: bool,
    ) -> Array:
        """Return the state of each run after so many examples, shape (runs, examples, width).

        Each run has a stream of its own; `start` is one initial state, shape (width,), or one of each run, (runs, width).
        """

    @abc.abstractmethod
    def guesses(
        self, mixture: Data, rule: LearningRule, adversary: Adversary, start: Mapping[str, Any] | None = None
    ) -> Array:
        """Return states, shape (guesses, width), from which a search for fixed points starts.

        What does not learn has the value of `start`, order parameters by name, or else its own initial value.
        """

    def least_N(self, mixture: Data) -> Mapping[str, int]:
        """Methods of simulation, and the least dimension of the input that each allows."""
        return {"reduced": 3, "direct": 2}

    @property
    def tolerances(self) -> tuple[float, float]:
        """The solver's rtol and atol where nothing else is said."""
        return 1e-8, 1e-10

    @property
    def max_steps(self) -> int:
        """Most steps of the solver where nothing else is said: what takes minutes, and not hours, when it is in vain."""
        return 1_000_000

    def coordinates(self, rule: LearningRule, mixture: Data = _SEED) -> Array:
        """Return an orthonormal basis of the state vectors that are possible, shape (width, coordinates).

        Here all are. Of a symmetric matrix an entry and its mirror image are one coordinate.
        """
        return np.eye(width(self.variables(rule, mixture)))

    def roughened(self) -> Network:
        """Return the same network with rates that cost little, to look for what is then found with its own."""
        return self

    def sharpened(self) -> Network:
        """Return the same network with rates as accurate as a search for their zeros, and derivatives by steps, ask for."""
        return self

    def jacobian(
        self,
        state: Mapping[str, Any],
        mixture: Data,
        rule: LearningRule,
        adversary: Adversary,
        *,
        along: Array | None = None,
        order: Literal[1, 4] = 4,
    ) -> Array:
        """Return the derivatives of the rates by the state, shape (..., width, width), of flat states.

        Here by differences of order 4 in steps of 1e-3 (errors about 1e-10), in shorter ones beside states that are not possible;
        networks that know better override it.

        Parameters
        ----------
        state, mixture, rule, adversary
            As for `rates`.
        along
            Directions, shape (width, directions), by which derivatives are taken instead, shape (..., width, directions).
        order
            Of the differences, 1 or 4, where there are any: those of order 1 cost a quarter and are good for Newton's steps.
        """
        variables = self.variables(rule, mixture)
        y = flat(state, variables)
        directions = np.eye(y.shape[-1]) if along is None else along
        here = flat(self.rates(state, mixture, rule, adversary), variables)[..., None, :]

        def derivatives(steps: Array) -> Array:  # (..., directions, width)
            def moved(by: int) -> Array:
                z = y[..., None, :] + by * steps[..., None] * directions.T
                return flat(self.rates(unflat(z, variables), mixture, rule, adversary), variables)

            if order == 1:
                difference = moved(1) - here
            else:
                difference = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / 12
            return difference / steps[..., None]

        steps = 1e-3 * np.maximum(1.0, np.abs(y) @ np.abs(directions))  # (..., directions)
        J = derivatives(steps)
        for _ in range(_SHORTER):  # next to states that no weights have, a step may lead there
            outside = ~np.all(np.isfinite(J), axis=-1) & np.all(np.isfinite(here), axis=-1)
            if not np.any(outside):
                break
            steps = np.where(outside, steps / 8, steps)
            J = derivatives(steps)
        return np.swapaxes(J, -1, -2)


def checked_network(network: object) -> Network:
    """Return the network, or raise a TypeError if it is none."""
    if not isinstance(network, Network):
        raise TypeError(f"network = {network!r} is of the wrong type: allowed is Perceptron() or Committee(...)")
    return network


def recorded(network: Network, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return what the attributes of a result say of the network: nothing of the default, whose fields are the rule's."""
    values = {field.name: getattr(network, field.name) for field in fields(network) if field.name not in without}  # type: ignore[arg-type]
    return {} if network.name == DEFAULT else {"network": {"name": network.name, **values}}


def width(variables: Sequence[OrderParameter]) -> int:
    """Return the number of entries of a state vector."""
    return sum(variable.size for variable in variables)


def flat(state: Mapping[str, Any], variables: Sequence[OrderParameter]) -> Array:
    """Return order parameters by name, each of shape ``(..., *sizes)``, as state vectors, shape (..., width)."""
    parts = []
    for variable in variables:
        value = np.asarray(state[variable.name], np.float64)
        lead = value.shape[: value.ndim - len(variable.dims)]
        parts.append(value.reshape((*lead, variable.size)))
    lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return np.concatenate([np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], axis=-1)


def unflat(y: Array, variables: Sequence[OrderParameter]) -> dict[str, Array]:
    """Return state vectors, shape (..., width), as order parameters by name, each of shape ``(..., *sizes)``."""
    state, first = {}, 0
    for variable in variables:
        part = y[..., first : first + variable.size]
        state[variable.name] = part.reshape((*y.shape[:-1], *variable.sizes))
        first += variable.size
    return state


def start_of(
    network: Network,
    mixture: Data,
    rule: LearningRule,
    start: Mapping[str, Any] | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the initial value of each order parameter by its `start_name`, checked; with the defaults for the rest.

    Parameters
    ----------
    start
        Values by the name of the variable: a number for each entry, or an array of shape ``(..., *sizes)``.
    given
        Values by `start_name`, as keywords have them. Something given twice is an error.

    Raises
    ------
    TypeError
        If a name is unknown, or given twice.
    ValueError
        If a value is out of range, or does not have the shape.
    """
    known = {variable.start_name: variable for variable in network.starts(rule, mixture)}
    values: dict[str, Any] = {name: variable.start for name, variable in known.items()}
    for name in given:
        if name not in known:
            raise TypeError(f"{name!r} is not a parameter: the {network.name} starts from {', '.join(known)}")
    given_start: object = start
    if not isinstance(given_start, Mapping | None):
        one = next(iter(known.values())).name
        raise TypeError(
            f"start = {start!r}: allowed is a mapping of order parameters to values, such as {{{one!r}: 0.1}}"
        )
    for name, value in (start or {}).items():
        if f"{name}0" not in known:
            names = ", ".join(variable.name for variable in known.values())
            raise TypeError(f"start has no variable {name!r}: allowed for the {network.name} are {names}")
        if f"{name}0" in given:
            raise TypeError(f"start[{name!r}] and {name}0 are both given: allowed is one of them")
        values[f"{name}0"] = value
    values |= given
    values = {name: _checked(known[name], value) for name, value in values.items()}
    network.check_start(rule, values)
    return {variable.start_name: values[variable.start_name] for variable in network.variables(rule, mixture)}


def check_one_start(variables: Sequence[OrderParameter], values: Mapping[str, Any], runs: int | None = None) -> None:
    """Raise a ValueError unless initial values, as `start_of` returns them, are one state, or with `runs` one a run."""
    leads = [()] if runs is None else [(), (runs,)]
    for variable in variables:
        shape = np.shape(values[variable.start_name])
        if shape[: len(shape) - len(variable.sizes)] not in leads:
            shapes = [(*lead, *variable.sizes) for lead in leads if lead or variable.sizes]
            allowed = " or ".join(["a number", *(f"an array of shape {one}" for one in shapes)])
            raise ValueError(f"{variable.start_name} has shape {shape}: allowed is {allowed}")


def start_record(variables: Sequence[OrderParameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return initial values as the attributes of a result have them: of each run a digest, for they are coordinates."""
    found = dict(values)
    for variable in variables:
        array = np.asarray(values.get(variable.start_name, 0.0))
        if array.ndim > len(variable.dims):
            found[variable.start_name] = f"of each run, sha256 {hashlib.sha256(array.tobytes()).hexdigest()}"
    return found


def _checked(variable: OrderParameter, value: Any) -> Any:
    """Return an initial value as a float, or as an array of shape ``(..., *sizes)``."""
    name = variable.start_name
    array = as_numbers(name, value)
    good = variable.range.contains(array)
    if not np.all(good):
        raise ValueError(f"{name} = {float(array[~good].flat[0])!r} is out of range: allowed is {variable.range}")
    if variable.dims:
        if array.ndim == 0:
            return variable.filled(array)
        if array.shape[-len(variable.sizes) :] != variable.sizes:
            raise ValueError(f"{name} has shape {array.shape}: allowed is a number, or {variable.shapes}")
    array = array + 0.0  # no -0.0
    return float(array) if array.ndim == 0 else array
