"""What does not fit into memory is refused before it is allocated; a grid may be logarithmic; nothing is ignored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, fixed_points_batch, integrate_batch, load, simulate, sweep
from odeflow.numerics import memory
from tests.odeflow.test_cli import status_of

MODEL = (GaussianMixture(), LearningRule(), Adversary())


@pytest.fixture(autouse=True)
def _a_gibibyte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda: float(2**30))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "sweep --over rho=0:1:1000000000 --over epsilon=0:1:1000000 --out a.nc",
            "the grid rho 1,000,000,000 x epsilon",
        ),
        ("sweep --over rho=log:1:2:1e10 --out a.nc", "the grid rho 10,000,000,000 has"),
        ("sweep --over rho=1,2 --points 1e9 --out a.nc", "points = 1,000,000,000 output times need"),
        ("sweep --over rho=1,2 --workers 1e6 --out a.nc", "workers = 1,000,000 processes need"),
        ("sweep --compute simulate --over rho=1,2 --N 9 --runs 1e9 --out a.nc", "each point of the grid needs"),
        ("integrate --points 100000000000", "points = 100,000,000,000 output times need"),
        ("simulate --points 1e9", "points = 1,000,000,000 output times need"),
        ("simulate --runs 1e12", "1,000,000,000,000 runs of 21 output times need"),
        ("simulate --method direct --N 1e8", "by vectors of N = 100,000,000 need"),
    ],
)
def test_too_large_is_refused_in_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "GiB of memory, where 1 GiB are free: " in error
    assert error.count("\n") == 1
    assert not list(Path().iterdir())


def test_more_examples_than_can_be_counted_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("simulate --N 1e21") == 2
    assert "N = 1000000000000000000000 with alpha = 100 is out of range" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"allowed are at most 2\^53"):
        simulate(*MODEL, N=2**50, alpha=[9.0], runs=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: integrate_batch(alpha=[1.0], rho=np.ones((40_000, 1)), epsilon=np.ones(40_000)),
        lambda: fixed_points_batch(rho=np.ones((40_000, 1)), epsilon=np.ones(40_000)),
        lambda: integrate_batch(alpha=np.arange(1e4), rho=np.ones(10_000)),
        lambda: simulate(*MODEL, N=10, alpha=np.arange(1e4), runs=100_000),
        lambda: sweep(*MODEL, over={"rho": np.arange(1e5), "epsilon": np.arange(1e5)}, alpha=[1.0]),
        lambda: sweep(*MODEL, over={"rho": np.arange(1e4)}, alpha=np.arange(1e4)),
        lambda: sweep(*MODEL, over={"rho": np.arange(10.0)}, alpha=np.arange(1e4), compute="simulate", N=9, runs=10**5),
    ],
    ids=["points", "fixed points", "times", "runs", "grid", "grid of times", "point of runs"],
)
def test_too_large_is_refused_in_python(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"GiB of memory, where 1 GiB are free: .*allowed"):
        call()


def test_what_fits_is_not_refused() -> None:
    assert integrate_batch(alpha=[1.0], rho=np.ones((300, 1)), epsilon=np.ones(300)).y.shape == (90_000, 1, 2)


def test_the_memory_of_a_process_with_a_limit_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    free = memory.free_memory()
    assert 2**20 < free < 2**50
    resource = pytest.importorskip("resource")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        assert memory.free_memory() <= 2**28
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_logarithmic_grid_is_that_of_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    grid = "--over rho=log:0.1:10:5 --over second_order=True,false"
    assert status_of(f"sweep {grid} --alpha-max 1 --points 1 --out a.nc") == 0
    result = load("a.nc")
    assert result.rho.values.tobytes() == np.geomspace(0.1, 10, 5).tobytes()
    assert result.second_order.values.tolist() == [True, False]
    over = {"rho": np.geomspace(0.1, 10, 5), "second_order": [True, False]}
    expected = sweep(*MODEL, over=over, alpha=[1.0])
    assert result.drop_attrs().identical(expected.drop_attrs())
    # in Python, the same grid goes on with the file
    assert sweep(*MODEL, over=over, alpha=[1.0], store="a.nc").sizes["rho"] == 5


FORMS = "allowed is NAME=START:STOP:COUNT, NAME=log:START:STOP:COUNT with START and STOP > 0, or NAME=VALUE,VALUE,..."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--over rho=log:0:1:3", f"over = 'rho=log:0:1:3' cannot be read: {FORMS}"),
        ("--over rho=log:1:3", "cannot be read"),
        ("--over rho=lin:1:2:3", "cannot be read"),
        ("--over rho=1:2:2.5", "cannot be read"),
        ("--over rho", "cannot be read"),
        ("--over second_order=True,maybe", "cannot be read"),
        ("--over second_order=1,2", "allowed are True and False"),
        (
            "--over p=.5 --compute simulate",
            "N is missing for compute = 'simulate': allowed is a whole number >= 3 with",
        ),
        (
            "--over N=9 --compute simulate",
            "runs is missing for compute = 'simulate': allowed is a whole number >= 1, or",
        ),
        ("--over p=.5 --compute equilibria --alpha-max 5", "alpha_max = 5.0 has no meaning for compute = 'equilibria'"),
        (
            "--over p=.5 --compute equilibria --points 5",
            "points = 5 has no meaning for compute = 'equilibria': leave it",
        ),
        (
            "--over p=.5 --compute equilibria --R0 .5",
            "R0 = 0.5 has no meaning for compute = 'equilibria': leave it out",
        ),
        ("--over p=.5 --compute equilibria --rtol 1e-3", "rtol = 0.001 has no meaning for compute = 'equilibria'"),
        (
            "--over p=.5 --compute equilibria --runs 3",
            "runs = 3 has no meaning for compute = 'equilibria': leave it out",
        ),
        (
            "--over p=.5 --compute simulate --N 9 --runs 1 --atol 1",
            "atol = 1.0 has no meaning for compute = 'simulate'",
        ),
        ("--over p=.5 --method direct", "method = 'direct' has no meaning for compute = 'integrate': leave it out"),
        ("--over p=.5 --seed 1", "rng = 1 has no meaning for compute = 'integrate': leave it out"),
    ],
)
def test_a_sweep_ignores_nothing(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"sweep {arguments} --out a.nc") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(Path().iterdir())
