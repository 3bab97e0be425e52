"""A sweep is what its points are one by one, whoever computes them and in whatever order; a store never loses a chunk."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock, Timeout

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    SweepError,
    SweepInterrupted,
    integrate,
    load,
    save,
    simulate,
    sweep,
)
from odeflow.fixed_points.equilibria import fixed_points
from odeflow.sweeps.computations import point_seed
from odeflow.sweeps.grid import Grid
from odeflow.sweeps.store import Store
from tests.odeflow.test_provenance import full_disk

PARTS = (GaussianMixture(p=0.7), LearningRule(), Adversary(0.3))
ALPHA = [0.0, 1.0, 10.0]
OVER = {"epsilon": [0.0, 1.5, 0.5], "rho": [1.0, 2.0]}
LARGER = {"epsilon": [0.0, 0.25, 1.5, 0.5, 3.0], "rho": [0.5, 1.0, 2.0]}


def undated(result: xr.Dataset) -> xr.Dataset:
    return result.load().assign_attrs(created="")


def test_each_point_is_a_single_integration_bit_for_bit() -> None:
    result = sweep(*PARTS, over={"rho": [0.0, 2.0], "b0": [-1.0, 0.5], "eta_w": [0.04, 0.4]}, alpha=ALPHA, rtol=1e-6)
    assert dict(result.sizes) == {"rho": 2, "b0": 2, "eta_w": 2, "alpha": 3}
    assert result.R.dims == ("rho", "b0", "eta_w", "alpha")
    for at in np.ndindex(2, 2, 2):
        point = result.isel(dict(zip(("rho", "b0", "eta_w"), at, strict=True)))
        one = integrate(
            GaussianMixture(p=0.7, rho=float(point.rho)),
            LearningRule(eta_w=float(point.eta_w)),
            PARTS[2],
            alpha=ALPHA,
            b0=float(point.b0),
            rtol=1e-6,
        )
        assert point.drop_attrs().identical(one.drop_attrs())


def test_the_adversarial_error_is_at_each_points_epsilon_or_at_test_epsilon() -> None:
    result = sweep(*PARTS, over=OVER, alpha=ALPHA)
    assert result.test_epsilon.dims == ("epsilon",)
    fixed = sweep(*PARTS, over=OVER, alpha=ALPHA, test_epsilon=0.7)
    for i, epsilon in enumerate(OVER["epsilon"]):
        for test, swept in ((None, result), (0.7, fixed)):
            one = integrate(
                GaussianMixture(p=0.7, rho=1.0), LearningRule(), Adversary(epsilon), alpha=ALPHA, test_epsilon=test
            )
            np.testing.assert_array_equal(swept.adversarial_error[i, 0], one.adversarial_error)


def test_variants_and_switches() -> None:
    """The third order parameter comes with its rule; at fraction = 1 the attack of a part is the attack of all."""
    rule = LearningRule(normalised=False)
    result = sweep(PARTS[0], rule, PARTS[2], over={"Q0": [1.0, 4.0]}, alpha=ALPHA, R0=0.5)
    one = integrate(PARTS[0], rule, PARTS[2], alpha=ALPHA, R0=0.5, Q0=4.0)
    assert result.isel(Q0=1).drop_attrs().identical(one.drop_attrs())

    result = sweep(*PARTS, over={"fraction": [0.0, 1.0], "second_order": [False, True]}, alpha=ALPHA)
    one = integrate(*PARTS, alpha=ALPHA)
    assert result.isel(fraction=1, second_order=1).drop_vars("second_order").drop_attrs().identical(one.drop_attrs())
    assert result.second_order.dtype == bool


def test_results_are_labelled() -> None:
    result = sweep(*PARTS, over=OVER, alpha=ALPHA)
    label = "overlap of the weights with the direction of the centres"
    assert result.R.attrs == {"long_name": label, "units": "1", "symbol": "R"}
    assert result.rho.attrs["units"] == "1"
    assert result.status.dims == ("epsilon", "rho")
    assert result.status.dtype == np.int8
    assert result.status.attrs["meaning"].startswith("0: done; 1: more than max_steps")
    assert all(isinstance(value, str) for value in result.attrs.values())
    configuration = json.loads(result.attrs["configuration"])
    assert configuration["function"] == "sweep"
    assert configuration["options"]["over"] == ["epsilon", "rho"]
    assert configuration["mixture"]["p"] == 0.7
    assert "rho" not in configuration["mixture"]  # it is a coordinate
    assert float(result.p) == 0.7


def test_a_point_that_fails_is_recorded_and_the_others_go_on() -> None:
    result = sweep(*PARTS, over={"eta_w": [1e-4, 0.5], "rho": [1.0, 4.0]}, alpha=[0.0, 100.0], max_steps=20)
    failed = result.status != 0
    assert 0 < int(failed.sum()) < 4
    assert np.array_equal(np.isnan(result.R.isel(alpha=-1)), failed)
    assert np.array_equal(np.isnan(result.adversarial_error.isel(alpha=-1)), failed)


def test_each_simulated_point_is_a_single_simulation_bit_for_bit() -> None:
    over: dict[str, list[float]] = {"N": [20, 10], "rho": [1.0, 2.0], "runs": [2, 3]}
    result = sweep(*PARTS, over=over, alpha=ALPHA, compute="simulate", rng=5)
    assert result.R.dims == ("N", "rho", "runs", "run", "alpha")
    point = result.sel(N=10, rho=2.0, runs=3)
    seed = point_seed(5, N=10, rho=2.0)
    one = simulate(GaussianMixture(p=0.7, rho=2.0), *PARTS[1:], N=10, runs=3, alpha=ALPHA, rng=seed)
    assert point.drop_vars("runs").drop_attrs().identical(one.drop_attrs())
    assert np.array_equal(result.R.sel(runs=2).isel(run=slice(2)), result.R.sel(runs=3).isel(run=slice(2)))
    assert np.isnan(result.R.sel(runs=2).isel(run=2)).all()


def test_a_point_has_the_same_numbers_in_every_grid() -> None:
    options: dict[str, Any] = {"compute": "simulate", "N": 20, "runs": 3, "alpha": ALPHA, "rng": 5}
    small = sweep(*PARTS, over=OVER, **options)
    large = sweep(*PARTS, over=dict(reversed(LARGER.items())), **options, chunk=1)
    assert np.array_equal(large.R.sel(rho=small.rho, epsilon=small.epsilon).transpose(*small.R.dims), small.R)
    assert not np.array_equal(small.R[0, 0], small.R[0, 1])


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_equilibria_are_the_fixed_points_of_each_point(tmp_path: Path, suffix: str) -> None:
    over = {"epsilon": [0.0, 1.5], "p": [0.5, 0.6]}
    result = sweep(*PARTS, over=over, compute="equilibria")
    assert result.b.dims == ("epsilon", "p", "fixed_point")
    assert result.eigenvalues.dims == ("epsilon", "p", "fixed_point", "eigenvalue")
    for epsilon in over["epsilon"]:
        for p in over["p"]:
            one = fixed_points(GaussianMixture(p=p), LearningRule(), Adversary(epsilon))
            point = result.sel(epsilon=epsilon, p=p)
            found = point.isel(fixed_point=slice(one.sizes["fixed_point"]))
            for name in one.data_vars:
                np.testing.assert_array_equal(found[name], one[name])
            assert np.isnan(point.b[one.sizes["fixed_point"] :]).all()
    stored = sweep(*PARTS, over=over, compute="equilibria", store=tmp_path / f"sweep{suffix}", chunk=3)
    assert undated(stored).identical(undated(result))
    more = {**over, "epsilon": [0.0, 1.0, 1.5]}
    stored = sweep(*PARTS, over=more, compute="equilibria", store=tmp_path / f"sweep{suffix}")
    assert undated(stored).identical(undated(sweep(*PARTS, over=more, compute="equilibria")))


@pytest.fixture(params=["threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    kind = request.param
    with ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
def test_executors_and_chunks_give_the_same_bits(executor: Executor) -> None:
    expected = undated(sweep(*PARTS, over=LARGER, alpha=ALPHA))
    assert undated(sweep(*PARTS, over=LARGER, alpha=ALPHA, chunk=2)).identical(expected)
    for chunk in (None, 4):
        assert undated(sweep(*PARTS, over=LARGER, alpha=ALPHA, executor=executor, chunk=chunk)).identical(expected)
    options: dict[str, Any] = {"over": OVER, "alpha": ALPHA, "compute": "simulate", "N": 20, "runs": 3, "rng": 5}
    assert undated(sweep(*PARTS, **options, executor=executor)).identical(undated(sweep(*PARTS, **options)))


@pytest.mark.slow
def test_a_pool_that_dies_says_so_and_the_store_goes_on(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(int).result()
        for process in pool._processes.values():
            process.kill()
        with pytest.raises(SweepError, match=r"a worker process of the executor died: .*holds 0 of 6 points"):
            sweep(*PARTS, over=OVER, alpha=ALPHA, executor=pool, store=tmp_path / "sweep.nc")
    result = sweep(*PARTS, over=OVER, alpha=ALPHA, store=tmp_path / "sweep.nc")
    assert undated(result).identical(undated(sweep(*PARTS, over=OVER, alpha=ALPHA)))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_store_computes_only_what_is_missing(tmp_path: Path, suffix: str, computed_points: list[int]) -> None:
    store = tmp_path / f"sweep{suffix}"
    first = sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    assert computed_points == [6]
    expected = sweep(*PARTS, over=OVER, alpha=ALPHA)
    assert undated(first).identical(undated(expected))
    assert undated(load(store)).identical(undated(expected))
    again = sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    assert again.identical(first)
    assert computed_points == [6, 6]  # the second is that of `expected`

    larger = sweep(*PARTS, over=LARGER, alpha=ALPHA, store=store, chunk=4)
    assert sum(computed_points[2:]) == 15 - 6
    assert larger.attrs == first.attrs
    assert undated(larger).identical(undated(sweep(*PARTS, over=LARGER, alpha=ALPHA)))
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


@pytest.mark.slow
def test_stored_simulations_grow_in_runs_and_keep_their_seed(tmp_path: Path) -> None:
    store = tmp_path / "sweep.nc"
    options: dict[str, Any] = {"alpha": ALPHA, "compute": "simulate"}
    first = sweep(*PARTS, over={"N": [10], "runs": [2]}, **options, store=store).load()
    entropy = int(first.attrs["seed"].split("=")[1].split(",")[0])
    more = sweep(*PARTS, over={"N": [10, 20], "runs": [4, 2]}, **options, store=store)
    assert more.attrs["seed"] == first.attrs["seed"]
    expected = sweep(*PARTS, over={"N": [10, 20], "runs": [4, 2]}, **options, rng=entropy)
    assert undated(more).identical(undated(expected))
    with pytest.raises(ValueError, match=r"seed = 'entropy=.*now seed = 'entropy=1, "):
        sweep(*PARTS, over={"N": [10, 20], "runs": [4, 2]}, **options, rng=1, store=store)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_an_interrupted_sweep_goes_on_where_it_was(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, computed_points: list[int]
) -> None:
    store = tmp_path / f"sweep{suffix}"
    original = Store.write
    written: list[int] = []

    def write(self: Any, index: Any, rows: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(index.size)
        original(self, index, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", write)
        with pytest.raises(SweepInterrupted, match="holds 8 of 15 points"):
            sweep(*PARTS, over=LARGER, alpha=ALPHA, store=store, chunk=4)
    assert not store.exists()
    computed_points.clear()
    result = sweep(*PARTS, over=LARGER, alpha=ALPHA, store=store, chunk=3)
    assert sum(computed_points) == 7
    assert undated(result).identical(undated(sweep(*PARTS, over=LARGER, alpha=ALPHA)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rtol": 1e-6}, r"it has rtol = 1e-08, now rtol = 1e-06 is asked for"),
        ({"atol": 1e-6}, "atol"),
        ({"b0": 1.0}, "it has b0 = 0.0, now b0 = 1.0"),
        ({"test_epsilon": 1.0}, "it has test_epsilon = None, now test_epsilon = 1.0"),
        ({"alpha": [0.0, 1.0]}, r"it has alpha = \[0.0, 1.0, 10.0\], now alpha = \[0.0, 1.0\]"),
        ({"mixture": GaussianMixture()}, "it has mixture.p = 0.7, now mixture.p = 0.5"),
        (
            {"compute": "simulate", "N": 10, "runs": 2, "rng": 1},
            "it has compute = 'integrate', now compute = 'simulate'",
        ),
        (
            {"over": dict(reversed(OVER.items()))},
            r"it has over = \['epsilon', 'rho'\], now over = \['rho', 'epsilon'\]",
        ),
        ({"over": {"epsilon": [0.0, 0.5], "rho": [1.0, 2.0]}}, "it has epsilon = 1.5, which is not in over"),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_store_of_another_sweep_is_left_alone(
    tmp_path: Path, change: dict[str, Any], message: str, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "sweep.nc"
    arguments: dict[str, Any] = {"over": OVER, "alpha": ALPHA, "store": store}
    if is_whole:
        sweep(*PARTS, **arguments)
    else:
        interrupt_at_the_end(monkeypatch, **arguments)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    arguments |= change
    parts = (arguments.pop("mixture", PARTS[0]), *PARTS[1:])
    with pytest.raises(ValueError, match=f"is of another sweep: .*{message}"):
        sweep(*parts, **arguments)
    assert before == {path: path.read_bytes() for path in before}


def interrupt_at_the_end(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> None:
    """Interrupt a sweep when all of its points are in the journal."""

    def finish(self: Store) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", finish)
        with pytest.raises(SweepInterrupted):
            sweep(*PARTS, **arguments)


def test_a_store_of_another_version_or_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "sweep.nc"
    sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    save(load(store).assign_attrs(odeflow_version="0.0.7"), store)
    with pytest.raises(ValueError, match=r"it has odeflow_version = '0\.0', now odeflow_version = '0\.1'"):
        sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    save(integrate(*PARTS, alpha=ALPHA), store)
    with pytest.raises(ValueError, match="cannot be continued: it does not hold a sweep"):
        sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    store.write_bytes(store.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be continued: it cannot be read: perhaps it is truncated"):
        sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)


def test_a_damaged_chunk_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed_points: list[int]
) -> None:
    store = tmp_path / "sweep.nc"
    interrupt_at_the_end(monkeypatch, over=OVER, alpha=ALPHA, store=store, chunk=2)
    parts = sorted(tmp_path.rglob("*.part"))
    assert len(parts) == 3
    parts[0].write_bytes(b"")
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    computed_points.clear()
    result = sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    assert sum(computed_points) == 4
    assert undated(result).identical(undated(sweep(*PARTS, over=OVER, alpha=ALPHA)))


def test_a_store_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    store, folder = tmp_path / "sweep.nc", tmp_path / ".sweep.nc.parts"
    folder.mkdir()
    code = "import filelock, sys; f = filelock.FileLock(sys.argv[1]); f.acquire(); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match="is in use by another process"):
            sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
        other.communicate()
    assert sweep(*PARTS, over=OVER, alpha=ALPHA, store=store).sizes["rho"] == 2


def test_no_folder_is_left_where_an_open_file_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def unlink_what_is_not_open(path: Path, missing_ok: bool = False) -> None:
        if path.name == "lock":
            lock = FileLock(path, blocking=False)
            try:
                lock.acquire()
            except Timeout:
                raise PermissionError("it is open") from None
            lock.release()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_what_is_not_open)
    sweep(*PARTS, over=OVER, alpha=ALPHA, store=tmp_path / "sweep.nc").close()
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.nc"]


@pytest.mark.slow
def test_a_store_needs_no_fcntl(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from odeflow import Adversary, GaussianMixture, LearningRule, sweep\n"
        "parts = GaussianMixture(), LearningRule(), Adversary()\n"
        f"sweep(*parts, over={{'rho': [1.0, 2.0]}}, alpha=[1.0], store={str(tmp_path / 'sweep.nc')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.nc"]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    store = tmp_path / "sweep.nc"
    sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    with full_disk(1400), pytest.raises(OSError, match="could not be saved"):  # enough for what the sweep is
        sweep(*PARTS, over=LARGER, alpha=ALPHA, store=store)
    assert undated(sweep(*PARTS, over=LARGER, alpha=ALPHA, store=store)).identical(
        undated(sweep(*PARTS, over=LARGER, alpha=ALPHA))
    )


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5)])
@pytest.mark.parametrize("most", [1, 4, 6, 100])
def test_boxes_cover_a_grid_once_and_in_order(shape: tuple[int, ...], most: int) -> None:
    grid = Grid({f"x{i}": np.arange(size) / 3 for i, size in enumerate(shape)})
    index = np.arange(grid.size)
    assert np.array_equal(grid.find(grid.points(index)), index)
    covered = []
    for indices, where in grid.boxes(most):
        box = index.reshape(shape)[where]
        assert box.size <= most
        np.testing.assert_array_equal(box.ravel(), np.arange(indices.start, indices.stop))
        covered.append(box.ravel())
    np.testing.assert_array_equal(np.concatenate(covered), index)
    assert grid.find({f"x{i}": np.array([0.1]) for i in range(len(shape))}) == -1
