"""The command line as people use it, and as they misuse it: one line, the right status, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import odeflow
from odeflow import Adversary, GaussianMixture, LearningRule, integrate, load, simulate, sweep
from odeflow.cli.commands import main
from odeflow.sweeps.store import Store
from tests.odeflow.test_provenance import full_disk


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def status_of(arguments: str) -> int:
    try:
        return main(arguments.split())
    except SystemExit as end:
        return int(end.code or 0)


def test_integrate_saves_and_plots(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("integrate --p 0.7 --epsilon 1 --alpha-max 100 --out run.nc --plot run.pdf") == 0
    printed = capsys.readouterr().out
    assert "R = 0.77746940  b = -2.18974334  E = 0.27737140  S(1) = 0.31482754" in printed
    result = load("run.nc")
    expected = integrate(GaussianMixture(p=0.7), LearningRule(), Adversary(1.0), alpha=result.alpha)
    assert result.drop_attrs().equals(expected.drop_attrs())
    assert Path("run.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_simulate_and_plot(capsys: pytest.CaptureFixture[str]) -> None:
    command = "simulate --rho 3 --N 50 --runs 5 --seed 4 --alpha-max 4 --points 3 --method direct --out run.zarr"
    assert status_of(command) == 0
    assert "+-" in capsys.readouterr().out
    expected = simulate(
        GaussianMixture(rho=3), LearningRule(), Adversary(), N=50, runs=5, rng=4, alpha=[0, 2, 4], method="direct"
    )
    np.testing.assert_array_equal(load("run.zarr").R, expected.R)
    assert status_of("plot run.zarr") == 0
    assert status_of("plot run.zarr --save figure.svg") == 0
    assert {path.name for path in Path().iterdir()} == {"run.zarr", "run.pdf", "figure.svg"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["integrate --points 3", "simulate --N 20 --runs 2 --points 3", "fixed-points", "sweep --over rho=1,2 --points 1"],
)
def test_no_result_is_overwritten_unasked(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same rule for every command."""
    assert status_of(f"{command} --out run.nc") == 0
    before = Path("run.nc").read_bytes()
    assert status_of(f"{command} --p 0.7 --out run.nc") == 2
    assert "allowed is --" in capsys.readouterr().err
    assert Path("run.nc").read_bytes() == before
    assert status_of(f"{command} --p 0.7 --out run.nc --overwrite") == 0
    assert float(load("run.nc").p) == 0.7
    assert [path.name for path in Path().iterdir()] == ["run.nc"]


GRID = "sweep --over rho=0.5:4:8 --over epsilon=0,0.5,1 --p 0.7"


@pytest.mark.slow
def test_sweep_and_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"{GRID} --out sweep.nc") == 0
    assert capsys.readouterr().out == "rho 8 x epsilon 3 = 24 points\nsweep.nc\n"
    result = load("sweep.nc")
    over = {"rho": np.linspace(0.5, 4, 8), "epsilon": [0.0, 0.5, 1.0]}
    expected = sweep(GaussianMixture(p=0.7), LearningRule(), Adversary(), over=over, alpha=result.alpha)
    assert result.drop_attrs().identical(expected.drop_attrs())
    assert result.sizes["alpha"] == 21

    assert status_of(f"{GRID} --out sweep.nc") == 2
    assert "has results already: allowed is --resume" in capsys.readouterr().err
    assert status_of(f"{GRID} --out sweep.nc --atol 1e-9 --resume") == 2
    assert "is of another sweep: it has atol = 1e-10, now atol = 1e-09 is asked for" in capsys.readouterr().err
    assert status_of("sweep --over rho=0.5:4:8 --over epsilon=0,0.5,1,2 --p 0.7 --out sweep.nc --resume") == 0
    assert load("sweep.nc").sizes["epsilon"] == 4
    assert status_of("plot sweep.nc") == 0


@pytest.mark.slow
def test_sweep_of_simulations_by_worker_processes(capsys: pytest.CaptureFixture[str]) -> None:
    command = "sweep --compute simulate --over N=10,20 --runs 3 --seed 1 --alpha-max 2 --points 1"
    assert status_of(f"{command} --out one.nc") == 0
    assert status_of(f"{command} --out two.nc --workers 2") == 0
    assert load("one.nc").drop_attrs().identical(load("two.nc").drop_attrs())
    assert load("one.nc").alpha.values.tolist() == [2.0]


def test_an_interrupted_sweep_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Store) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", interrupt)
        assert status_of(f"{GRID} --out sweep.nc") == 1
    message = "odeflow: interrupted; the store 'sweep.nc' holds 24 of 24 points; run the same command with --resume\n"
    assert capsys.readouterr().err == message
    assert status_of(f"{GRID} --out sweep.nc") == 2
    assert status_of(f"{GRID} --out sweep.nc --resume") == 0


@pytest.mark.parametrize(
    "arguments", ["--help", "sweep --help", "integrate --help", "simulate --help", "plot --help", ""]
)
def test_help(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(arguments) == 0
    assert "usage: odeflow" in capsys.readouterr().out


def test_help_names_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    status_of("simulate --help")
    text = capsys.readouterr().out
    for flag in ("p", "rho", "v1", "v2", "eta-w", "eta-b", "epsilon", "R0", "b0", "N", "runs", "seed", "alpha-max"):
        assert f"--{flag} " in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0
    assert capsys.readouterr().out == f"odeflow {odeflow.__version__}\n"


def test_the_package_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "odeflow"]
    assert subprocess.run([*command, "--version"], check=True, capture_output=True).stdout.startswith(b"odeflow ")
    assert subprocess.run([*command, "integrate", "--p", "2"], check=False, capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("integrate --p 1.2", "p = 1.2 is out of range: allowed is a finite number and > 0 and < 1"),
        ("integrate --v1 0", "v1 = 0.0 is out of range"),
        ("integrate --epsilon nan", "epsilon = nan is out of range"),
        ("integrate --epsilon -1", "epsilon = -1.0 is out of range"),
        ("integrate --p half", "p = 'half' is not a number: allowed is one such as 3, 0.5 or 1e-3"),
        ("integrate --sigma 3", "--sigma is no option of odeflow integrate"),
        ("integrate --alpha-max -1", "alpha_max = -1.0 is out of range"),
        ("integrate --points 1", "points = 1 is out of range"),
        ("integrate --out nowhere/run.nc", "nowhere' does not exist"),
        ("integrate --out run.txt", "'.txt': allowed is one of .nc, .zarr"),
        ("integrate --plot run.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("simulate --N 2", "N = 2 is out of range with the reduced method: allowed is a whole number >= 3"),
        ("simulate --runs 0", "runs = 0 is out of range"),
        ("simulate --method exact", "method = 'exact' is unknown: allowed is one of reduced, direct"),
        ("simulate --seed -1", "seed = -1 is out of range"),
        ("sweep --over rho=1,2", "out is missing"),
        ("sweep --out a.nc", "over is missing"),
        ("sweep --over roh=1,2 --out a.nc", "over has no parameter 'roh': did you mean 'rho'?"),
        ("sweep --over rho=1:2 --out a.nc", "over = 'rho=1:2' cannot be read: allowed is NAME=START:STOP:COUNT"),
        ("sweep --over rho=1:2:0 --out a.nc", "over = 'rho=1:2:0' cannot be read"),
        ("sweep --over rho= --out a.nc", "over = 'rho=' cannot be read"),
        ("sweep --over rho=1 --over rho=2 --out a.nc", "over has 'rho' twice"),
        ("sweep --over rho=1,1 --out a.nc", "rho contains 1.0 twice"),
        ("sweep --over rho=1,nan --out a.nc", "rho contains nan"),
        ("sweep --over rho=-1,1 --out a.nc", "rho = -1.0 is out of range"),
        ("sweep --over N=10,20 --out a.nc", "over has no parameter 'N'"),
        ("sweep --over rho=1,2 --out a.nc --workers 0", "workers = 0 is out of range"),
        ("sweep --over rho=1,2 --out a.nc --workers 1 --dask tcp://localhost:1", "allowed is one of them"),
        pytest.param(
            "sweep --over rho=1,2 --out a.nc --dask tcp://localhost:1",
            "'tcp://localhost:1' cannot be reached",
            marks=pytest.mark.slow,
        ),
        ("sweep --over rho=0:9:1000000 --over epsilon=0:9:1000000 --out a.nc", "GiB"),
        ("plot none.nc", "none.nc': there is no such file"),
        ("plot", "PATH is missing from odeflow plot: allowed is a result (.nc or .zarr)"),
        (
            "frobnicate",
            "COMMAND = 'frobnicate' is unknown: allowed is one of integrate, simulate, sweep, fixed-points, plot",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message.lower() in printed.err.lower()
    assert printed.err.startswith("odeflow: ")
    assert printed.err.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_truncated_file_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    status_of("integrate --out run.nc")
    Path("run.nc").write_bytes(Path("run.nc").read_bytes()[:3000])
    assert status_of("plot run.nc") == 2
    assert "perhaps it is truncated" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["run.nc"]


def test_a_full_disk_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    status_of("integrate")  # compiled before the disk is full
    with full_disk():
        assert status_of("integrate --out run.nc") == 1
    error = capsys.readouterr().err
    assert "could not be saved" in error
    assert error.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_failed_integration_is_status_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrate, "__kwdefaults__", {**(integrate.__kwdefaults__ or {}), "max_steps": 2})
    assert status_of("integrate --out run.nc") == 1
    assert "raise max_steps" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from odeflow.cli.commands import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'xarray', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("[]")


def test_no_traceback_from_the_installed_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "odeflow.cli", "integrate", "--p", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_reader_who_leaves_early_loses_nothing() -> None:
    command = [sys.executable, "-m", "odeflow.cli", "integrate", "--out", "run.nc"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    error = run.stderr.read()
    run.stderr.close()
    assert run.wait() == 0
    assert error == ""
    assert load("run.nc").sizes == {"alpha": 201}
