"""Command ``odeflow sweep``. Its flags are generated from the dataclasses of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from odeflow.cli.flags import Learner
from odeflow.model import checked_count, checked_number
from odeflow.provenance import check_target

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Sweep", "output_times"]


@dataclass(frozen=True)
class Sweep(Learner):
    """Sweep: a grid of parameters into one file, by the theory or by simulation; a killed sweep resumes."""

    over: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=START:STOP:COUNT or NAME=VALUE,VALUE,...: values of a parameter (one of those below; of a simulation also
    N, runs). Once for each dimension."""
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
    alpha_max: float = 100.0
    """End of learning time, in examples per dimension, > 0."""
    points: int = 21
    """Number of output times from 0 to alpha_max, >= 1; 1: alpha_max alone."""
    test_epsilon: float | None = None
    """Perturbation at which the adversarial error is evaluated, >= 0; default: epsilon."""
    rtol: float = 1e-8
    """Relative tolerance of the order parameters."""
    atol: float = 1e-10
    """Absolute tolerance of the order parameters."""
    N: int | None = None
    """Dimension of the input of a simulation, >= 3 (direct: >= 2)."""
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
        if self.seed is not None:
            checked_count("seed", self.seed, 0)
        points = checked_count("points", self.points, 1)

        from odeflow.sweep import sweep

        with _executor(self.workers, self.dask) as executor:
            result = sweep(
                self.mixture,
                self.rule,
                self.adversary,
                over=over,
                alpha=None if self.compute == "equilibria" else output_times(self.alpha_max, points),
                compute=self.compute,
                network=self.learner(),
                **({} if self.compute == "equilibria" else self.initial()),
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
        print(_sizes(result, over), self.out, sep="\n")

    def _check_target(self, target: Path) -> None:
        from odeflow.sweeps.records import exists

        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite are both given: allowed is one of them")
        if not self.resume and not self.overwrite and exists(target):
            raise ValueError(
                f"out = {str(target)!r} has results already: allowed is --resume to go on with them, --overwrite to begin "
                "anew, or another name"
            )


def output_times(alpha_max: float, points: int) -> list[float]:
    """Return so many output times up to alpha_max: from 0, or alpha_max alone."""
    end = checked_number("alpha_max", alpha_max, above=0)
    return [end * i / (points - 1) for i in range(points)] if points > 1 else [end]


def _over(texts: tuple[str, ...]) -> dict[str, list[float]]:
    """Return the grid that the texts NAME=START:STOP:COUNT or NAME=VALUE,VALUE,... stand for."""
    if not texts:
        raise ValueError("over is missing: allowed is at least one parameter, --over NAME=START:STOP:COUNT")
    over: dict[str, list[float]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in over:
            raise ValueError(f"over has {name!r} twice: allowed is once")
        over[name] = _values(text, values)
    return over


def _values(text: str, values: str) -> list[float]:
    try:
        if ":" not in values:
            return [float(value) for value in values.split(",")]
        import numpy as np

        start, stop, count = values.split(":")
        grid: list[float] = np.linspace(float(start), float(stop), checked_count("COUNT", int(count), 1)).tolist()
        return grid
    except ValueError:
        raise ValueError(
            f"over = {text!r} cannot be read: allowed is NAME=START:STOP:COUNT, with COUNT >= 1, or NAME=VALUE,VALUE,..."
        ) from None


@contextmanager
def _executor(workers: int | None, address: str | None) -> Iterator[Executor | None]:
    """Give an executor with so many processes, or the one of a Dask cluster."""
    if address is not None:
        if workers is not None:
            raise ValueError(f"workers = {workers!r} and dask = {address!r}: allowed is one of them")
        with _dask_client(address) as client:
            yield client.get_executor(pure=False)
    elif workers is not None:
        import multiprocessing
        import signal
        from concurrent.futures import ProcessPoolExecutor

        pool = ProcessPoolExecutor(
            checked_count("workers", workers, 1),
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


def _sizes(result: xr.Dataset, over: dict[str, list[float]]) -> str:
    """Return the size of a sweep as text, and how many of its points failed."""
    points = math.prod(len(values) for values in over.values())
    text = " x ".join(f"{name} {len(values)}" for name, values in over.items()) + f" = {points} points"
    failed = int((result["status"] != 0).sum()) if "status" in result else 0
    return text if failed == 0 else f"{text}, {failed} failed: their status says why"
