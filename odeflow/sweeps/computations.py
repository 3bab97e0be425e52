"""What a sweep computes at its points: one picklable object a kind, called with the parameters of a chunk of points.

A chunk's result is a dict of plain arrays whose first axis is the chunk's points. A point's numbers depend on its own
parameters alone: neither on the chunk it is in, nor on who computes it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, Data, GaussianMixture, LearningRule, numeric_parameters
from odeflow.order_parameters import Network, Perceptron
from odeflow.order_parameters.base import unflat
from odeflow.schedule import Schedule, largest

__all__ = [
    "Computation",
    "Equilibria",
    "Parts",
    "Rows",
    "Simulations",
    "Trajectories",
    "Variable",
    "on_one_thread",
    "point_seed",
]

Points = Mapping[str, npt.NDArray[Any]]
Rows = dict[str, npt.NDArray[Any]]
Parts = tuple[Data, LearningRule, Adversary, Network]
Part = TypeVar("Part")

_SEED: Parts = (GaussianMixture(), LearningRule(), Adversary(), Perceptron())


class Variable(NamedTuple):
    """Type and shape of one variable at one point."""

    dtype: str
    """A NumPy dtype."""
    dims: tuple[str, ...] = ()
    """Dims beside the parameters'."""
    sizes: tuple[int, ...] = ()
    """Sizes of these dims."""

    @property
    def missing(self) -> Any:
        """The value where there is none."""
        kind = np.dtype(self.dtype).kind
        return np.nan if kind in "fc" else (False if kind == "b" else -1)

    @property
    def nbytes(self) -> int:
        """Bytes of a point."""
        return np.dtype(self.dtype).itemsize * math.prod(self.sizes)


class Computation(Protocol):
    """What is computed at the points of a sweep."""

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables of a result."""

    def largest_chunk(self, points: int) -> int:
        """Return how many points may be computed together if `points` are to be computed."""

    def __call__(self, points: Points) -> Rows:
        """Return the variables at some points, given by the values of the swept parameters, each of shape (points,)."""


@dataclass(frozen=True)
class Trajectories:
    """A network's order parameters over learning time by `integrate_batch`, with their errors."""

    parts: Parts
    model: dict[str, Any]
    """Every parameter of the model and the initial values, by name; swept ones are overridden."""
    options: dict[str, Any]
    """alpha, rtol, atol and max_steps."""
    test_epsilon: float | None

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables of a result."""
        over_time = ("alpha",), self.options["alpha"].shape
        reached = dict.fromkeys(self.parts[3].reports, Variable("float64"))
        return {**_state_and_measures(self.parts, *over_time), **reached, "status": Variable("int8")}

    def largest_chunk(self, points: int) -> int:
        """Return how many points may be computed together: enough for the kernel's threads."""
        return min(points, 2**16)

    def __call__(self, points: Points) -> Rows:
        """Integrate a chunk."""
        from odeflow.integrate import integrate_batch

        mixture, rule, adversary, network = self.parts
        variables = network.variables(rule, mixture)
        model = {**self.model, **points}
        for variable in variables:  # one value a point is that of its entries
            if variable.dims and variable.start_name in points:
                model[variable.start_name] = variable.filled(points[variable.start_name])
        solution = integrate_batch(**model, mixture=mixture, network=network, **self.options)
        state = unflat(solution.y, variables)
        rows = {name: np.ascontiguousarray(values) for name, values in state.items()}
        rows |= _measured(self.parts, rows, model, self.test_epsilon, self.options["alpha"])
        size = len(solution.status)
        numbers = {
            name: np.broadcast_to(np.asarray(_largest(model[name]), np.float64), (size,))
            for name in (*numeric_parameters(*self.parts), "second_order")
        }
        reached = network.accuracy(solution.y, mixture, rule, adversary, numbers)
        return {**rows, **reached, "status": solution.status}


def _state_and_measures(parts: Parts, dims: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, Variable]:
    """Return the variables of a result that has a state for each of some dims."""
    mixture, rule, _, network = parts
    state = {
        variable.name: Variable("float64", (*dims, *variable.dims), (*sizes, *variable.sizes))
        for variable in network.variables(rule, mixture)
    }
    return {**state, **dict.fromkeys(network.measures(mixture), Variable("float64", dims, sizes))}


def _largest(value: Any) -> Any:
    return largest(value) if isinstance(value, Schedule) else value


def _measured(
    parts: Parts,
    state: Mapping[str, Any],
    model: Mapping[str, Any],
    test_epsilon: float | None,
    alpha: npt.NDArray[np.float64] | None = None,
) -> Rows:
    """Return the errors of states, shape (points, any, ...), each row with the parameters of its point."""
    mixture, _, _, network = parts
    columns = {name: np.reshape(model[name], (-1, 1)) for name in numeric_parameters(mixture)}
    tested: Any = model["epsilon"] if test_epsilon is None else test_epsilon
    scheduled = isinstance(tested, Schedule) and alpha is not None
    epsilon = tested(alpha)[None, :] if scheduled else np.reshape(tested, (-1, 1))
    return network.measured(state, mixture, columns, epsilon)


@dataclass(frozen=True)
class Simulations:
    """Runs of `simulate`."""

    parts: Parts
    options: dict[str, Any]
    """N, runs, method, initial values and test_epsilon; swept ones are overridden."""
    alpha: npt.NDArray[np.float64]
    most_runs: int
    """Size of the dim run; a point with fewer runs has nan in the others."""
    seed: np.random.SeedSequence

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables of a result."""
        return _state_and_measures(self.parts, ("run", "alpha"), (self.most_runs, self.alpha.size))

    def largest_chunk(self, points: int) -> int:
        """Return how many points may be computed together: a point can take long."""
        return max(1, points // 1000)

    def __call__(self, points: Points) -> Rows:
        """Simulate a chunk."""
        from odeflow.simulate import simulate

        size = len(next(iter(points.values())))
        rows = {name: np.full((size, *variable.sizes), np.nan) for name, variable in self.variables.items()}
        for i in range(size):
            point = {name: values[i].item() for name, values in points.items()}
            options = {name: point.get(name, value) for name, value in self.options.items()}
            mixture, rule, adversary, network = at_point(self.parts, point)
            seed = point_seed(self.seed, **point)
            result = simulate(mixture, rule, adversary, network=network, **options, alpha=self.alpha, rng=seed)
            for name, values in rows.items():
                values[i, : options["runs"]] = result[name]
        return rows


@dataclass(frozen=True)
class Equilibria:
    """All fixed points by `fixed_points_batch`, with their errors."""

    model: dict[str, Any]
    """Every parameter of the model, by name; swept ones are overridden."""
    test_epsilon: float | None

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables of a result."""
        from odeflow.fixed_points.kernel import MOST

        each = ("fixed_point",), (MOST,)
        return {
            **_state_and_measures(_SEED, *each),
            "stable": Variable("bool", *each),
            "eigenvalues": Variable("complex128", ("fixed_point", "eigenvalue"), (MOST, 2)),
        }

    def largest_chunk(self, points: int) -> int:
        """Return how many points may be computed together: enough for the kernel's threads."""
        return min(points, 2**14)

    def __call__(self, points: Points) -> Rows:
        """Find the fixed points of a chunk."""
        from odeflow.fixed_points.equilibria import fixed_points_batch

        model = {**self.model, **points}
        found = fixed_points_batch(**model)
        rows = {**found.state, "stable": found.stable, "eigenvalues": found.eigenvalues}
        return {**rows, **_measured(_SEED, found.state, model, self.test_epsilon)}


def at_point(parts: Parts, point: Mapping[str, Any]) -> Parts:
    """Return the parts of the model with the values that `point` has for their fields."""
    mixture, rule, adversary, network = parts
    return _at_point(mixture, point), _at_point(rule, point), _at_point(adversary, point), _at_point(network, point)


def _at_point(part: Part, point: Mapping[str, Any]) -> Part:
    new = {field.name: point[field.name] for field in fields(part) if field.name in point}  # type: ignore[arg-type]
    return replace(part, **new) if new else part  # type: ignore[type-var]


def point_seed(seed: int | np.random.SeedSequence, **point: float) -> np.random.SeedSequence:
    """Return the seed of a sweep's simulation at one point: ``simulate(..., rng=point_seed(...))`` repeats it.

    It depends on the sweep's seed and on the values of the swept parameters, and not on the rest of the grid.

    Parameters
    ----------
    seed
        Seed of the sweep.
    **point
        Values of the swept parameters. `runs` has no influence: more runs continue fewer.

    Returns
    -------
    SeedSequence

    Examples
    --------
    >>> point_seed(1, rho=2.0, epsilon=0.5).spawn_key == point_seed(1, epsilon=0.5, rho=2.0).spawn_key
    True
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    text = " ".join(f"{name}={(float(value) + 0.0).hex()}" for name, value in sorted(point.items()) if name != "runs")
    # + 0.0: -0.0 is the same point
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")[:4]
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *map(int, words)), pool_size=root.pool_size)


def on_one_thread(computation: Callable[[Points], Rows], points: Points) -> Rows:
    """Compute a chunk on the calling thread alone: the parallelism is the executor's."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        return computation(points)
    finally:
        numba.set_num_threads(before)
