"""A million points through `sweep` with a store: against the bare kernel, in memory, and on Dask workers."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import in_turn, seconds, table
from odeflow import Adversary, GaussianMixture, LearningRule, integrate_batch, sweep
from odeflow.numerics.threads import threads

SIDE = 1000
PARTS = (GaussianMixture(), LearningRule(), Adversary())
OVER = {"rho": np.linspace(1, 4, SIDE), "epsilon": np.linspace(0, 1.5, SIDE)}
OPTIONS: dict[str, Any] = {"alpha": [100.0], "rtol": 1e-6, "atol": 1e-8}
WORKERS = 2
CHUNKS = (20_000, 5_000)


def bare() -> None:
    rho, epsilon = np.meshgrid(*OVER.values(), indexing="ij")
    integrate_batch(rho=rho.ravel(), epsilon=epsilon.ravel(), **OPTIONS)


def with_many_output_times(store: str) -> float:
    """Sweep the grid with 100 output times, and return the peak resident memory of this process in GiB."""
    sweep(*PARTS, over=OVER, **{**OPTIONS, "alpha": np.linspace(1, 100, 100)}, store=store)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_subprocess(store: Path) -> float:
    """Return the peak memory of `with_many_output_times` in a fresh process."""
    code = f"from benchmarks.sweep import with_many_output_times; print(with_many_output_times({str(store)!r}))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(run.stdout)


def stores(folder: Path) -> list[list[str]]:
    """Return rows on one output time: the bare kernel, and sweeps with and without a store."""
    fresh = count()
    alternatives = {
        "bare kernel, `integrate_batch`": bare,
        "`sweep` in memory": lambda: sweep(*PARTS, over=OVER, **OPTIONS),
    }
    for suffix in (".nc", ".zarr"):
        alternatives[f"`sweep`, store {suffix}"] = lambda suffix=suffix: sweep(
            *PARTS, over=OVER, **OPTIONS, store=folder / f"{next(fresh)}{suffix}"
        )
    times = in_turn(alternatives, repeats=3)
    kernel = times["bare kernel, `integrate_batch`"]
    size = (folder / "0.nc").stat().st_size / SIDE**2
    nbytes = {"`sweep` in memory": "33", "`sweep`, store .nc": f"{size:.1f}"}
    zarr = sum(path.stat().st_size for path in next(folder.glob("*.zarr")).rglob("*") if path.is_file()) / SIDE**2
    nbytes["`sweep`, store .zarr"] = f"{zarr:.1f}"
    return [
        [name, f"{time:.2f} s", f"{time / kernel:.2f}", f"{SIDE**2 / time:,.0f}", nbytes.get(name, "16")]
        for name, time in times.items()
    ]


def on_dask() -> list[list[str]]:
    """Return rows on Dask workers with one thread each, against the threaded kernel in one process."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", silence_logs="ERROR") as cluster,
        Client(cluster) as client,
    ):
        executor = client.get_executor(pure=False)
        alternatives: dict[str, Any] = {f"kernel in one process, {threads()} threads": bare}
        for chunk in CHUNKS:
            alternatives[f"{WORKERS} Dask workers, chunks of {chunk:,} points"] = partial(
                sweep, *PARTS, over=OVER, **OPTIONS, executor=executor, chunk=chunk
            )
        times = in_turn(alternatives, repeats=3)
    kernel = next(iter(times.values()))
    return [[name, f"{time:.2f} s", f"{kernel / time:.2f}"] for name, time in times.items()]


def run() -> str:
    """Measure, and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        rows = stores(Path(name))
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "sweep.nc"
        peak: list[float] = []
        time = seconds(lambda: peak.append(in_subprocess(store)))
        size = store.stat().st_size
    return (
        f"## Sweeps: {SIDE:,} x {SIDE:,} points\n\n"
        "A grid of rho (1 to 4) and epsilon (0 to 1.5) to alpha = 100, rtol = 1e-6, one output time; compiled code warm,\n"
        "medians of 3 runs in turn. A store is new each time. A point has R, b, two errors (8 bytes each) and a status (1).\n\n"
        + table(["what", "time", "ratio to kernel", "points a second", "bytes a point"], rows)
        + f"\n\nWith 100 output times and a store (.nc, {size / 2**30:.2f} GiB, {size / SIDE**2:,.0f} bytes a point), a fresh "
        f"process needs {time:.0f} s and\nat most {peak[0]:.2f} GiB of resident memory.\n\n"
        f"On Dask, a local cluster of {WORKERS} processes with one thread each, results gathered in memory:\n\n"
        + table(["what", "time", "throughput relative to threads"], on_dask())
    )
