"""Ctrl-C ends what is long, at any moment, and breaks nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process"),
]

# What each does would take hours; the timeout is far from what a loaded machine needs to start and stop.
ENDLESS = {
    "reduced": "simulate(*PARTS, N=10**8, alpha=[1e4], runs=64, rng=1)",
    "direct": "simulate(*PARTS, N=10**5, alpha=[1e4], runs=2, rng=1, method='direct')",
    "committee": "simulate(PARTS[0], FREE, PARTS[2], N=10**8, alpha=[1e4], runs=64, rng=1, network=Committee())",
    "integrate": "integrate(*PARTS, alpha=np.linspace(0, 1e9, 10**7), max_steps=10**9, rtol=1e-13, atol=1e-15)",
    "sweep": "sweep(*PARTS, over={'rho': np.linspace(1, 2, 10**5), 'epsilon': np.linspace(0, 2, 10**3)}, alpha=[1e3], "
    "store=STORE)",
    "simulations": "sweep(*PARTS, over={'rho': [1.0, 2.0]}, compute='simulate', N=10**8, alpha=[1e4], runs=64, rng=1)",
    "equilibria": "sweep(*PARTS, over={'rho': np.linspace(1, 2, 10**6)}, compute='equilibria', chunk=10**6)",
    "anisotropic": "anisotropic.simulate(anisotropic.Mixture(0.5, [[1.0, 0.0], [-1.0, 0.0]], np.ones((2, 2))), PARTS[1], PARTS[2], alpha=[1e9], runs=4)",
}

SCRIPT = """
import os, signal, sys, threading
import numpy as np
from odeflow import Adversary, GaussianMixture, LearningRule, anisotropic, integrate, simulate, sweep
from odeflow.order_parameters import Committee
PARTS = GaussianMixture(p=0.7), LearningRule(), Adversary(0.3)
FREE = LearningRule(normalised=False)
STORE = sys.argv[1]
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    WORK
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("what", ENDLESS)
def test_ctrl_c_ends_what_is_long(tmp_path: Path, what: str) -> None:
    command = [sys.executable, "-c", SCRIPT.replace("WORK", ENDLESS[what]), str(tmp_path / "sweep.nc")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert run.stdout == "interrupted\n", run.stderr
    # 0, or as one that Ctrl-C has ended: so Python ends if the interrupt came inside exec() of a string, as numba calls it
    assert run.returncode in (0, -signal.SIGINT)


def test_ctrl_c_ends_the_workers_of_a_sweep(tmp_path: Path) -> None:
    command = (
        "sweep --over rho=1,2,3,4,5,6,7,8 --compute simulate --N 100000000 --runs 64 --alpha-max 10000 --workers 2 "
        f"--out {tmp_path / 'sweep.nc'}"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "odeflow", *command.split()],
        stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stderr is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    known = children.exists()  # on Linux
    while not list(tmp_path.glob("*/manifest.json")) or (known and len(children.read_text().split()) < 2):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=600)  # the workers hold the pipe open too
    assert process.returncode == 1
    assert errors.startswith("odeflow: interrupted")
    assert not known or "holds 0 of 8 points; run the same command with --resume" in errors


FINAL = """
import os, random, shutil, signal, sys, threading, time
import numpy as np
from odeflow import Adversary, GaussianMixture, LearningRule, sweep
from odeflow.sweeps.store import Store
PARTS = GaussianMixture(p=0.7), LearningRule(), Adversary(0.3)
OVER = {"rho": np.linspace(1, 4, 30), "epsilon": np.linspace(0, 2, 20)}

def swept():
    sweep(*PARTS, over=OVER, alpha=np.linspace(0, 10, 30), store=sys.argv[1], chunk=150).close()

def killed_in(seconds):
    def kill():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=kill)
    thread.start()
    return thread

finish = Store.finish

def interrupted(self):
    global thread
    thread = killed_in(random.uniform(0, limit))
    return finish(self)

# The moments are drawn below a limit that follows the time that a write takes here.
limit = 0.05
Store.finish = interrupted
for _ in range(int(sys.argv[2])):
    try:
        swept()
        thread.join()  # Ctrl-C comes after the end
        time.sleep(0.1)
        limit /= 2
    except KeyboardInterrupt:
        thread.join()
        limit *= 1.5
    if os.path.isdir(sys.argv[1]):
        shutil.rmtree(sys.argv[1])
    elif os.path.exists(sys.argv[1]):
        os.remove(sys.argv[1])
Store.finish = finish
swept()
"""


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_ctrl_c_during_the_final_write_crashes_nothing(tmp_path: Path, suffix: str) -> None:
    """Two of 44 crashed in HDF5: a double free, and a segmentation fault."""
    from odeflow import load

    target = tmp_path / f"sweep{suffix}"
    run = subprocess.run(
        [sys.executable, "-c", FINAL, str(target), "12"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    # Python ignores an interrupt inside a destructor or a callback of a weak reference, and says so
    assert re.sub(r"Exception ignored in: .*?\nKeyboardInterrupt: ?\n", "", run.stderr, flags=re.DOTALL) == ""
    assert load(target).status.sizes == {"rho": 30, "epsilon": 20}
    assert not list(tmp_path.glob(".*"))
