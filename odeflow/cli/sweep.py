"""Command ``odeflow sweep``. Its flags are generated from the dataclasses of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from odeflow.cli.figures import Presented
from odeflow.cli.flags import Learner
from odeflow.cli.values import whole_number_of
from odeflow.model import checked_count, checked_number
from odeflow.numerics.memory import check_memory
from odeflow.provenance import check_target

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Sweep", "output_times"]

_TIME_BYTES = 64  # of an output time, in what is made of it at once
_WORKER_BYTES = 2**27  # of a worker process that has loaded the kernels


@dataclass(frozen=True)
class Sweep(Presented, Learner):
    """Sweep: a grid of parameters into one file, by the theory or by simulation; a killed sweep resumes."""

    over: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=START:STOP:COUNT, NAME=log:START:STOP:COUNT or NAME=VALUE,VALUE,...: values of a parameter (one of those
    below; of a simulation also N, runs). Once for each dimension."""
    out: Path | None = None
    """File of the result (.nc or .zarr), written as results come. It is needed."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the sweep in the file; its grid may have grown."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin anew, and replace the sweep in the file."""
    compute: Literal["integrate", "simulate", "equilibria"] = "integrate"
    """The theory's trajectories, Monte Carlo runs, or the theory's fixed points."""
    workers: int | None = None
    """Compute on so many processes, >= 1; default: on all cores of this one."""
    dask: str | None = None
    """Compute on the Dask cluster whose scheduler has this address, such as tcp://node1:8786."""
    chunk: int | None = None
    """Points that are computed together, >= 1; default: chosen by the size of their results."""
    alpha_max: float | None = None
    """End of learning time, in examples per dimension, > 0; default: 100. Equilibria have none."""
    points: int | None = None
    """Number of output times from 0 to alpha_max, >= 1; 1: alpha_max alone; default: 21."""
    test_epsilon: float | None = None
    """Perturbation at which the adversarial error is evaluated, >= 0; default: epsilon."""
    rtol: float | None = None
    """Relative tolerance of the order parameters; default: the network's, 1e-8 for the perceptron."""
    atol: float | None = None
    """Absolute tolerance of the order parameters; default: the network's, 1e-10 for the perceptron."""
    N: int | None = None
    """Dimension of the input of a simulation, >= 3 (direct: >= 2); of K units and n centres or teachers >= n + K + 1
    (n + K)."""
    runs: int | None = None
    """Independent repetitions of a simulation, >= 1."""
    method: Literal["reduced", "direct"] = "reduced"
    """reduced: the same law of the order parameters at a cost that does not depend on N; direct: vectors in R^N."""
    seed: int | None = None
    """Seed of a simulation, >= 0; default: fresh, and recorded in the result."""

    def run(self) -> None:
        """Run the command."""
        if self.out is None:
            raise ValueError("out is missing: allowed is a file, --out FILE.nc or FILE.zarr")
        over = _over(self.over)
        self._check_target(check_target(self.out))
        self.check_presentation()
        if self.seed is not None:
            checked_count("seed", self.seed, 0)
        alpha = self._alpha()

        from odeflow.sweep import sweep

        with _executor(self.workers, self.dask) as executor:
            result = sweep(
                *self.parts(),
                over=over,
                alpha=alpha,
                compute=self.compute,
                network=self.learner(),
                **self._initial(),
                rtol=self.rtol,
                atol=self.atol,
                N=self.N,
                runs=self.runs,
                method=self.method,
                rng=self.seed,
                test_epsilon=self.test_epsilon,
                executor=executor,
                store=self.out,
                overwrite=self.overwrite,
                chunk=self.chunk,
                progress=True,
            )
        print(_sizes(result, over), self.out, *self.present(result), sep="\n")

    def _alpha(self) -> npt.NDArray[np.float64] | None:
        """Return the output times; equilibria have none."""
        if self.compute != "equilibria":
            alpha_max = 100.0 if self.alpha_max is None else self.alpha_max
            return output_times(alpha_max, checked_count("points", 21 if self.points is None else self.points, 1))
        for name in ("alpha_max", "points"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} = {getattr(self, name)} has no meaning for compute = 'equilibria': leave it out"
                )
        return None

    def _initial(self) -> dict[str, Any]:
        """Return the initial values; of equilibria those that are not the default, which `sweep` refuses."""
        given = self.initial(self.N, self.runs)
        if self.compute != "equilibria":
            return given
        flags: Any = self
        start = type(flags.start_flags)()
        return {
            name: value for name, value in given.items() if getattr(flags.start_flags, name) != getattr(start, name)
        }

    def _check_target(self, target: Path) -> None:
        from odeflow.sweeps.records import exists

        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite are both given: allowed is one of them")
        if not self.resume and not self.overwrite and exists(target):
            raise ValueError(
                f"out = {str(target)!r} has results already: allowed is --resume to go on with them, --overwrite to begin "
                "anew, or another name"
            )


def output_times(alpha_max: float, points: int) -> npt.NDArray[np.float64]:
    """Return so many output times up to alpha_max: from 0, or alpha_max alone."""
    end = checked_number("alpha_max", alpha_max, above=0)
    if points == 1:
        return np.array([end])
    check_memory(_TIME_BYTES * points, f"points = {points:,} output times need", "fewer are allowed")
    return end * np.arange(points) / (points - 1)


_FORMS = "NAME=START:STOP:COUNT, NAME=log:START:STOP:COUNT with START and STOP > 0, or NAME=VALUE,VALUE,..."
_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class _Values:
    """Values of a parameter, not yet made: there may be too many."""

    listed: tuple[float, ...] = ()
    ends: tuple[float, float] = (0.0, 0.0)
    count: int = 0
    spacing: Literal["linear", "log"] = "linear"

    @classmethod
    def read(cls, text: str) -> _Values:
        """Return the values that a text stands for, or raise a ValueError."""
        head, *rest = text.split(":")
        if not rest:
            words = head.split(",")
            return cls(tuple(_WORDS[word] if word in _WORDS else float(word) for word in map(str.lower, words)))
        spacing: Literal["linear", "log"] = "linear"
        if head == "log":
            head, *rest = rest
            spacing = "log"
        stop, count = rest
        ends = float(head), float(stop)
        if spacing == "log" and min(ends) <= 0:
            raise ValueError("a logarithmic grid is of positive numbers")
        return cls(ends=ends, count=checked_count("COUNT", whole_number_of(count), 1), spacing=spacing)

    @property
    def size(self) -> int:
        """Number of values."""
        return self.count or len(self.listed)

    def made(self) -> npt.NDArray[np.float64]:
        """Return the values."""
        if self.listed:
            return np.array(self.listed)
        space = np.linspace if self.spacing == "linear" else np.geomspace
        return space(*self.ends, self.count)


def _over(texts: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the grid that the texts NAME=START:STOP:COUNT and so on stand for."""
    if not texts:
        raise ValueError(f"over is missing: allowed is one parameter or more, each as --over {_FORMS}")
    over: dict[str, _Values] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in over:
            raise ValueError(f"over has {name!r} twice: allowed is once")
        try:
            over[name] = _Values.read(values)
        except ValueError:
            raise ValueError(f"over = {text!r} cannot be read: allowed is {_FORMS}") from None
    from odeflow.sweeps.checks import check_size

    check_size({name: values.size for name, values in over.items()})
    return {name: values.made() for name, values in over.items()}


@contextmanager
def _executor(workers: int | None, address: str | None) -> Iterator[Executor | None]:
    """Give an executor with so many processes, or the one of a Dask cluster."""
    if address is not None:
        if workers is not None:
            raise ValueError(f"workers = {workers!r} and dask = {address!r}: allowed is one of them")
        with _dask_client(address) as client:
            yield client.get_executor(pure=False)
    elif workers is not None:
        check_memory(
            _WORKER_BYTES * checked_count("workers", workers, 1),
            f"workers = {workers:,} processes need",
            "fewer are allowed",
        )
        import multiprocessing
        import signal
        from concurrent.futures import ProcessPoolExecutor

        pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=signal.signal,  # Ctrl-C is for the parent
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )
        try:
            yield pool
        except BaseException:
            for worker in multiprocessing.active_children():  # their chunks may take long, and nobody waits for them
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    else:
        yield None


def _dask_client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(f"dask = {address!r} needs Dask: pip install 'odeflow[cluster]'") from None
    try:
        client: Any = Client
        return client(address, timeout="5s")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"dask = {address!r} cannot be reached: allowed is the address of a running scheduler ({_line(error)})"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _sizes(result: xr.Dataset, over: Mapping[str, Sized]) -> str:
    """Return the size of a sweep as text, and how many of its points failed."""
    points = math.prod(len(values) for values in over.values())
    text = " x ".join(f"{name} {len(values)}" for name, values in over.items()) + f" = {points} points"
    failed = int((result["status"] != 0).sum()) if "status" in result else 0
    return text if failed == 0 else f"{text}, {failed} failed: their status says why"
