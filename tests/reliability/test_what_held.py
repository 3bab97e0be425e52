"""What was tried by force and held, so that it goes on holding. The small forms are quick; `make whole` tries as often as then."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, classification_error, integrate, load
from odeflow.integrate import IntegrationError, integrate_batch
from odeflow.numerics.runge_kutta import STATUS

ROOT = Path(__file__).parents[2]
GRID = "sweep --over rho=0.5:4:40 --over epsilon=0:2:30 --p 0.7 --chunk 20 --out"


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, **options)


def odeflow(arguments: str) -> list[str]:
    return [sys.executable, "-m", "odeflow", *arguments.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("kills", [3, pytest.param(26, marks=pytest.mark.whole)])
def test_sigterm_at_random_moments(tmp_path: Path, kills: int) -> None:
    assert run(odeflow(f"{GRID} {tmp_path / 'calm.nc'}")).returncode == 0
    (tmp_path / "killed").mkdir()
    target = tmp_path / "killed" / "sweep.nc"
    rng = np.random.default_rng()
    parts = 0
    for _ in range(kills):
        with subprocess.Popen(odeflow(f"{GRID} {target} --resume"), stdout=subprocess.PIPE, cwd=ROOT) as process:
            goal = parts + rng.integers(0, 20)
            while process.poll() is None and len(list(target.parent.glob("*/*.part"))) <= goal:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.01))
            process.terminate()
        parts = len(list(target.parent.glob("*/*.part")))
    assert run(odeflow(f"{GRID} {target} --resume")).returncode == 0
    assert load(target).drop_attrs().identical(load(tmp_path / "calm.nc").drop_attrs())
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nc", pytest.param(".zarr", marks=pytest.mark.whole)])
def test_three_processes_on_one_store(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"sweep{suffix}"
    processes = [
        subprocess.Popen(odeflow(f"{GRID} {target} --resume"), stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(3)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert 0 in [status for _, status in ends]
    for errors, status in ends:
        assert (status == 0 and not errors) or (status == 2 and "is in use by another process" in errors), errors
    assert bool((load(target).status == 0).all())
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_disk_that_is_full_at_the_end_is_one_line(tmp_path: Path, suffix: str) -> None:
    """h5py's RuntimeError was a traceback. The parts are smaller than the limit, the target is not."""
    target = tmp_path / f"sweep{suffix}"
    command = odeflow(f"sweep --over rho=0.5:4:300 --over epsilon=0:2:4 --p 0.7 --chunk 4 --out {target}")
    limit = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module('odeflow', run_name='__main__')"
    )
    small = "sweep --over rho=1,2 --p 0.7 --out"
    assert run(odeflow(f"{small} {tmp_path.with_name('compiles.nc')} --overwrite")).returncode == 0
    limited = run([sys.executable, "-c", limit, *command[2:]])
    assert limited.returncode == 1, limited.stderr
    (line,) = (line for line in limited.stderr.splitlines() if "points/s" not in line)
    assert line.startswith("odeflow: ")
    assert "could not be saved" in line
    assert not target.exists()
    assert run([*command, "--resume"]).returncode == 0
    assert bool((load(target).status == 0).all())
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.slow
@pytest.mark.parametrize("models", [40, pytest.param(1489, marks=pytest.mark.whole)])
def test_random_models_are_finite_refused_or_have_a_status(models: int) -> None:
    rng = np.random.default_rng(12)
    refusals: list[str] = []
    for _ in range(models):
        size = 10 ** rng.uniform(-3, 3, 6)
        fields: dict[str, Any] = {
            "p": rng.uniform(0.01, 0.99), "rho": size[0], "v1": size[1], "v2": size[2], "eta_w": size[3],
            "eta_b": size[4], "epsilon": rng.choice([0.0, size[5]]), "normalised": bool(rng.random() < 0.5),
            "R0": rng.uniform(-1, 1),
        }  # fmt: skip
        try:
            solution = integrate_batch(**fields, alpha=np.array([0.0, 1.0, 100.0]), max_steps=2000)
        except ValueError as error:
            refusals.append(str(error))
            continue
        (status,) = solution.status
        assert status in STATUS
        finite = np.isfinite(solution.y[0]).all(axis=1)
        assert finite.all() == (status == 0), fields
        assert finite[0]
        if fields["normalised"] and status == 0:
            assert np.all(np.abs(solution.y[0, :, 0]) <= 1 + 1e-6), fields
    assert all("allowed" in refusal for refusal in refusals)
    assert len(refusals) < models / 2


@pytest.mark.parametrize("cases", [150, pytest.param(4000, marks=pytest.mark.whole)])
def test_errors_hold_into_their_tails(cases: int) -> None:
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    rng = np.random.default_rng(3)
    least = 1.0
    with mpmath.workdps(40):
        for _ in range(cases):
            p, rho, v1, v2 = rng.uniform(0.1, 0.9), 10 ** rng.uniform(-1, 1.8), *10 ** rng.uniform(-0.5, 0.5, 2)
            R, b = rng.uniform(-1, 1), rng.normal()
            mixture = GaussianMixture(p=p, rho=rho, v1=v1, v2=v2)
            found = float(classification_error(R, b, mixture))
            terms = [
                mpmath.mpf(share) * mpmath.ncdf(-(mpmath.mpf(rho) * R / 2 + sign * mpmath.mpf(b)) / mpmath.sqrt(v))
                for share, sign, v in ((p, -1, v1), (1 - p, 1, v2))
            ]
            exact = terms[0] + (1 - mpmath.mpf(p)) / mpmath.mpf(1 - p) * terms[1]
            if exact > mpmath.mpf(10) ** -300:
                least = min(least, found)
                # the argument x of the tail has rounding errors, to which Phi(-x) answers with x^2 times as much
                slack = 1 + max(0.0, -2 * float(mpmath.log(exact)))
                assert abs(found - exact) <= 4e-16 * slack * exact * 4, (p, rho, v1, v2, R, b)
    assert least < 1e-100


NUMBERS = """
import hashlib, numpy as np
from odeflow import Adversary, GaussianMixture, LearningRule, integrate, simulate, sweep
parts = GaussianMixture(p=0.7, v2=2.0), LearningRule(), Adversary(0.3)
results = [
    integrate(*parts, alpha=np.linspace(0, 20, 30)),
    simulate(*parts, N=20, alpha=[1.0, 5.0], runs=70, rng=1),
    sweep(*parts, over={"rho": np.linspace(0.5, 2, 300)}, alpha=[1.0, 10.0]),
    sweep(*parts, over={"rho": np.linspace(0.5, 2, 300)}, compute="equilibria"),
]
digest = hashlib.sha256()
for result in results:
    for name in sorted(result.data_vars):
        digest.update(np.ascontiguousarray(result[name].values).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_threads_and_locale_change_no_bit() -> None:
    surroundings = [
        {"NUMBA_NUM_THREADS": "1"},
        {"NUMBA_NUM_THREADS": "3", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "7"},
    ]
    digests = {run([sys.executable, "-c", NUMBERS], env={**os.environ, **more}).stdout for more in surroundings}
    assert len(digests) == 1
    assert len(digests.pop()) == 65


GROWTH = """
import json, resource, sys
from odeflow import Adversary, GaussianMixture, LearningRule, integrate, load, save
parts = GaussianMixture(p=0.7), LearningRule(), Adversary(0.3)
sizes = []
for k in range(int(sys.argv[1])):
    save(integrate(*parts, alpha=[1.0, 10.0 + k]), sys.argv[2])
    load(sys.argv[2])
    sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no module resource")
@pytest.mark.parametrize("calls", [60, pytest.param(1800, marks=pytest.mark.whole)])
def test_memory_does_not_grow(tmp_path: Path, calls: int) -> None:
    done = run([sys.executable, "-c", GROWTH, str(calls), str(tmp_path / "run.nc")])
    sizes = json.loads(done.stdout)
    unit = 1024 if sys.platform == "darwin" else 1
    assert (sizes[-1] - sizes[calls // 3]) / unit < 16_000  # kB


def test_a_failure_is_a_status_or_an_error() -> None:
    with pytest.raises(IntegrationError):
        integrate(GaussianMixture(), LearningRule(), Adversary(), alpha=[1e6], max_steps=3)
