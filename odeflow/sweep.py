"""Sweeps: a grid of parameters becomes one labelled Dataset, in memory or in a store that a killed sweep resumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.integrate import check_until, over_time, solver_options, start_coordinates
from odeflow.model import (
    Adversary,
    Data,
    LearningRule,
    check_constant,
    numeric_parameters,
    parameters,
)
from odeflow.numerics.memory import check_memory
from odeflow.order_parameters import Network, Perceptron
from odeflow.order_parameters.base import DEFAULT, checked_network, recorded, start_record
from odeflow.parameters import LABELS, checked_count, checked_number, label
from odeflow.provenance import check_target, provenance
from odeflow.sweeps.checks import (
    checked_counts,
    checked_grid,
    checked_seed,
    checked_starts,
    checked_times,
)
from odeflow.sweeps.computations import Computation, Equilibria, Parts, Rows, Simulations, Trajectories
from odeflow.sweeps.executors import SweepError, computed, workers
from odeflow.sweeps.grid import Grid, Index
from odeflow.sweeps.records import exists, stored
from odeflow.sweeps.store import Store

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SweepError", "SweepInterrupted", "sweep"]

COMPUTATIONS = ("integrate", "simulate", "equilibria")
_CHUNK_BYTES = 2**25  # of results that are computed together
_LEVELS = np.linspace(0.02, 0.98, 17)
_CHUNKS = 4  # at least, for each worker of an executor


class SweepInterrupted(KeyboardInterrupt):
    """A sweep with a store was interrupted; the message says what the store holds."""


def sweep(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    over: Mapping[str, Any],
    alpha: npt.ArrayLike | None = None,
    compute: Literal["integrate", "simulate", "equilibria"] = "integrate",
    network: Network = Perceptron(),
    start: Mapping[str, Any] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
    N: int | None = None,
    runs: int | None = None,
    method: Literal["reduced", "direct"] = "reduced",
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    test_epsilon: float | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    chunk: int | None = None,
    progress: bool = False,
    **initial: Any,
) -> xr.Dataset:
    """Compute a grid of parameters (as exact as what is computed: `integrate`, `simulate`, `fixed_points`).

    Parameters
    ----------
    mixture, rule, adversary
        The model. A swept field's value here has no meaning.
    over
        Values of each swept parameter: any number among the fields of the three parts and the network, an initial value
        (R0, b0 or Q0 of the perceptron), and for simulations N or runs. One-dimensional, finite, no value twice. One dimension each, in the order given.
    alpha
        Increasing output times >= 0, shape (alpha,); None for equilibria.
    compute
        "integrate": trajectories, to `rtol` and `atol` within `max_steps` steps. "simulate": `runs` Monte Carlo runs
        of dimension `N` by `method`, with the seed `rng`. "equilibria": all fixed points, without alpha.
    network, start, **initial, rtol, atol, max_steps
        As for `integrate`; equilibria are known for the perceptron.
    N, runs, method
        As for `simulate`.
    rng
        Seed of a simulation. Each point has a stream of its own that depends on the seed and its parameters alone
        (`odeflow.sweeps.computations.point_seed`). None: the store's, or fresh entropy, which is recorded.
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: each point's epsilon.
    executor
        Where chunks are computed: any executor of concurrent.futures, or ``dask.distributed.Client.get_executor()``;
        each chunk on one thread. None: in this process, each chunk on all cores.
    store
        A file (.nc) or Zarr store (.zarr) to keep the results in as they come. The points that it has are not computed
        again, and a grid with new values extends it. Its attributes stay those of the first start. Values of `over` and
        `alpha` that are the store's but for rounding (1e-12 of the largest) are taken to be the store's.
    overwrite
        Whether to begin anew where there is a store, which is lost.
    chunk
        Points that are computed together, >= 1: what memory holds, and what a kill loses. The results do not depend on
        it. Default: up to 32 MiB of results.
    progress
        Show the points done, their rate and the time left, if stderr is a terminal.

    Returns
    -------
    Dataset
        Dims: the parameters of `over`, then run (of simulations), then alpha; or fixed_point. Variables R, b, error and
        adversarial_error (and Q if the weights are not normalised); of trajectories also status, without alpha: 0 if
        done, else a failure, which leaves nan; of equilibria also stable and eigenvalues, with nan where a point has fewer
        than 6 fixed points. With a store it is opened, but not loaded.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, the grid does not fit into memory, or the store is of another sweep; it is
        unchanged then.
    SaveError
        If the store cannot be written.
    SweepError
        If the executor's workers die.
    SweepInterrupted
        On Ctrl-C, if there is a store: a KeyboardInterrupt that says what it holds.

    Examples
    --------
    >>> from odeflow import GaussianMixture
    >>> over = {"rho": [1.0, 2.0, 3.0], "epsilon": [0.0, 0.5]}
    >>> result = sweep(GaussianMixture(p=0.7), LearningRule(), Adversary(), over=over, alpha=[10.0, 100.0])
    >>> dict(result.sizes)
    {'rho': 3, 'epsilon': 2, 'alpha': 2}
    """
    checked_network(network).check(mixture, rule, adversary)
    parts = (mixture, rule, adversary, network)
    if compute not in COMPUTATIONS:
        raise ValueError(f"compute = {compute!r}: allowed is one of {', '.join(map(repr, COMPUTATIONS))}")
    options_of: dict[str, dict[str, tuple[Any, Any]]] = {
        "integrate": {"rtol": (rtol, None), "atol": (atol, None), "max_steps": (max_steps, None)},
        "simulate": {"N": (N, None), "runs": (runs, None), "rng": (rng, None), "method": (method, "reduced")},
    }
    for owner, given in options_of.items():
        for name, (value, default) in given.items():
            if owner != compute and value != default:
                raise ValueError(f"{name} = {value!r} has no meaning for compute = {compute!r}: leave it out")
    alpha = checked_times(alpha, compute)
    if alpha is not None:
        check_until(alpha[-1], rule, adversary)
    if test_epsilon is not None:
        test_epsilon = checked_number("test_epsilon", test_epsilon, least=0)
    if chunk is not None:
        chunk = checked_count("chunk", chunk, 1)
    target = None if store is None else check_target(store)
    record = None if target is None or overwrite else stored(target)

    if compute == "equilibria":
        _check_equilibria(parts, start, initial)
        starts: dict[str, Any] = {}
    else:
        starts = {variable.start_name: variable.start for variable in network.starts(rule, mixture)}
    counts = {"N": N, "runs": runs} if compute == "simulate" else {}
    grid = checked_grid(over, parts, {**starts, **counts})
    if record is not None:
        for name, known in record.over.items():
            if name in grid.values:
                grid.values[name] = record.settled(grid.values[name], known)
        if alpha is not None and record.alpha is not None:
            alpha = record.settled(alpha, record.alpha)
    if starts:
        starts = checked_starts(parts, start or {}, initial, grid, runs)
    options: dict[str, Any] = {**starts, "test_epsilon": test_epsilon}
    computation: Computation
    seed = None
    if compute == "equilibria":
        computation = Equilibria(parameters(*parts[:3]), test_epsilon)
        computation(grid.points(grid.corners()))  # checks what the seed model's fixed points allow
    elif compute == "integrate":
        solver = dict(zip(("rtol", "atol", "max_steps"), solver_options(network, rtol, atol, max_steps), strict=True))
        model = {**numeric_parameters(mixture, network), **parameters(rule, adversary), **starts}
        computation = Trajectories(parts, model, {"alpha": alpha, **solver}, test_epsilon)
        computation(grid.points(np.arange(0)))  # checks what all points share
        options |= solver
    else:
        assert alpha is not None
        options |= {"method": method, **checked_counts(counts, grid, parts, method)}
        seed = checked_seed(rng, record)
        most_runs = int(np.max(grid.values.get("runs", options["runs"])))
        computation = Simulations(parts, options, alpha, most_runs, seed)
    task = _Task(parts, grid, computation, executor, chunk, progress, overwrite)
    check_memory(2 * task.nbytes, "each point of the grid needs", "fewer output times or runs are allowed")
    template = _template(compute, parts, options, grid, computation, alpha, seed)
    if target is None:
        return _in_memory(task, template)
    return _in_store(task, template, target)


def _check_equilibria(parts: Parts, start: Any, initial: Mapping[str, Any]) -> None:
    network = parts[3]
    check_constant(*parts[1:3])
    if network.name != DEFAULT:
        raise ValueError(f"network = {network!r} with compute = 'equilibria': allowed is Perceptron()")
    for name, value in {"start": start, **initial}.items():
        if value is not None:
            raise ValueError(f"{name} = {value!r} has no meaning for compute = 'equilibria': leave it out")


# The result.


def _template(
    compute: str,
    parts: Parts,
    options: dict[str, Any],
    grid: Grid,
    computation: Computation,
    alpha: npt.NDArray[np.float64] | None,
    seed: np.random.SeedSequence | None,
) -> xr.Dataset:
    """Return the coordinates and attributes of the result."""
    import xarray as xr

    *model, network = parts
    scalars: dict[str, Any] = dict(numeric_parameters(*parts))
    if alpha is not None:
        scalars = over_time(scalars, alpha)
    scalars |= start_coordinates(
        network, parts[0], parts[1], {n: v for n, v in options.items() if n not in grid.values}
    )
    scalars |= {"N": options["N"]} if "N" in options else {}
    test_epsilon: Any = options["test_epsilon"]
    if test_epsilon is None:
        values = grid.values.get("epsilon")
        test_epsilon = scalars["epsilon"] if values is None else ("epsilon", values)
    coords: dict[str, Any] = {**grid.values, "test_epsilon": test_epsilon}
    if alpha is not None:
        coords["alpha"] = alpha
    for variable in computation.variables.values():
        if "run" in variable.dims:
            coords["run"] = np.arange(variable.sizes[variable.dims.index("run")])
    coords |= {name: value for name, value in scalars.items() if name not in grid.values}

    options = {name: value for name, value in options.items() if name not in grid.values}
    text = None if seed is None else f"entropy={seed.entropy}, spawn_key={tuple(seed.spawn_key)}"
    options = start_record(network.variables(parts[1], parts[0]), options) | recorded(network, without=grid.values)
    law = parts[2].law
    if law is not None:  # which the configuration has by name: two of one name are told apart by their quantiles
        quantiles = np.interp(_LEVELS, *law.table())
        options["law"] = [float(f"{quantile:.9g}") for quantile in quantiles]
    attrs = provenance("sweep", *model, seed=text, compute=compute, over=list(grid.values), **options)
    configuration = json.loads(attrs["configuration"])
    for part in ("mixture", "rule", "adversary"):
        for name in grid.values:
            configuration[part].pop(name, None)
    return label(xr.Dataset(coords=coords, attrs={**attrs, "configuration": json.dumps(configuration)}))


def _attributes(parts: Parts, name: str) -> dict[str, str]:
    """Return the attributes of a variable."""
    mixture, rule, _, network = parts
    state = {variable.name: variable.attributes for variable in network.variables(rule, mixture)}
    attrs = state[name] if name in state else {"long_name": LABELS[name][0], "units": "1"}
    if name == "status":
        from odeflow.numerics.runge_kutta import STATUS

        attrs["meaning"] = "; ".join(f"{status}: {text}" for status, text in STATUS.items())
    return attrs


# The work.


class _Task(NamedTuple):
    """What is to be computed, and how."""

    parts: Parts
    grid: Grid
    computation: Computation
    executor: Executor | None
    chunk: int | None
    progress: bool
    overwrite: bool

    @property
    def nbytes(self) -> int:
        """Bytes of a point's results."""
        return sum(variable.nbytes for variable in self.computation.variables.values())

    def chunks(self, index: Index) -> list[Index]:
        """Return some points in chunks."""
        if self.chunk is not None:
            size = self.chunk
        else:
            size = min(self.computation.largest_chunk(index.size), _CHUNK_BYTES // self.nbytes)
            if self.executor is not None:
                size = min(size, index.size // (_CHUNKS * workers(self.executor)))
            size = max(1, size)
        size = min(size, index.size)
        check_memory(
            2 * size * self.nbytes,
            f"a chunk of {size:,} points of {self.nbytes:,} bytes each needs",
            "fewer output times or runs are allowed, or a smaller chunk",
        )
        return [index[first : first + size] for first in range(0, index.size, max(1, size))]

    def results(self, index: Index) -> Iterator[tuple[Index, Rows]]:
        """Compute some points, chunk by chunk; each yields its indices and its variables."""
        from tqdm import tqdm

        total, done = self.grid.size, self.grid.size - index.size
        # disable=None: off where stderr is not a terminal
        bar = tqdm(total=total, initial=done, unit=" points", unit_scale=True, disable=None if self.progress else True)
        with bar, closing(computed(self.computation, self.grid, self.chunks(index), self.executor)) as chunks:
            for chunk, rows in chunks:
                yield chunk, rows
                bar.update(chunk.size)


def _in_memory(task: _Task, template: xr.Dataset) -> xr.Dataset:
    size, variables = task.grid.size, task.computation.variables
    check_memory(
        size * task.nbytes,
        f"the grid has {size:,} points of {task.nbytes:,} bytes, which need",
        'allowed is store="FILE.nc", or a smaller grid',
    )
    values = {name: np.empty((size, *variable.sizes), variable.dtype) for name, variable in variables.items()}
    for index, rows in task.results(np.arange(size)):
        for name, array in values.items():
            array[index] = rows[name]
    return template.assign(
        {
            name: (
                (*task.grid.values, *variable.dims),
                array.reshape(*task.grid.shape, *variable.sizes),
                _attributes(task.parts, name),
            )
            for (name, variable), array in zip(variables.items(), values.values(), strict=True)
        }
    )


def _in_store(task: _Task, template: xr.Dataset, target: Path) -> xr.Dataset:
    size, variables = task.grid.size, task.computation.variables
    if not exists(target):
        needed, free = 2 * size * task.nbytes, shutil.disk_usage(target.absolute().parent).free
        if needed > free:
            raise ValueError(
                f"the grid has {size:,} points of {task.nbytes:,} bytes, {needed / 2**30:.3g} GiB on disk until the store "
                f"is finished, where {free / 2**30:.3g} GiB are free: give another store, or a smaller grid"
            )
    attributes = {name: _attributes(task.parts, name) for name in variables}
    with Store(target, task.grid, variables, template, attributes, task.overwrite) as store:
        missing = store.missing()
        left = missing.size
        try:
            for index, rows in task.results(missing):
                store.write(index, rows)
                left -= index.size
            return store.finish()
        except (KeyboardInterrupt, SweepError) as error:
            holds = f"the store {str(target)!r} holds {size - left} of {size} points"
            if isinstance(error, SweepError):
                raise SweepError(f"{error}; {holds}") from error
            raise SweepInterrupted(f"interrupted; {holds}") from None
