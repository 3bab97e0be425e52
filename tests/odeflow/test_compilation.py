"""Compiled code gives the same bits in the process that compiles it and in those that load it from the cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from odeflow import compilation

CODE = """
import numpy as np
from odeflow import integrate_batch
rho, epsilon = np.meshgrid(np.linspace(0.5, 4, 20), np.linspace(0, 2, 20))
y = integrate_batch(alpha=np.linspace(0, 100, 20), p=0.7, rho=rho, epsilon=epsilon).y
print(y.tobytes().hex())
"""


@pytest.mark.slow
def test_the_compiling_process_and_later_ones_give_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = [
        subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert len(outputs[0]) > 1000
    assert outputs[0] == outputs[1]


def test_no_kernel_leaves_rounding_to_the_compiler() -> None:
    for path in Path(compilation.__file__).parent.glob("*.py"):
        assert 'fastmath={"contract"' not in path.read_text(), path.name
