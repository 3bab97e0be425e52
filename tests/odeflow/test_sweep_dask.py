"""A sweep on a real Dask cluster of processes, one of which is killed."""

import os
import signal
import sys
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, sweep

distributed = pytest.importorskip("distributed", reason="distributed is not installed")

PARTS = (GaussianMixture(p=0.7), LearningRule(), Adversary())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_worker_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {
        "over": {"rho": np.linspace(0.5, 4, 40), "epsilon": np.linspace(0, 2, 40)},
        "alpha": np.linspace(0, 100, 50),
    }
    expected = sweep(*PARTS, **arguments)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        first, _ = client.run(os.getpid).values()
        submitted: list[int] = []
        executor = client.get_executor(pure=False)
        submit = executor.submit

        def submit_and_kill(*task: Any) -> Any:
            submitted.append(1)
            if len(submitted) == 10:  # of 80, when some chunks are done, some are computed, and some wait
                os.kill(first, signal.SIGKILL)
            return submit(*task)

        monkeypatch.setattr(executor, "submit", submit_and_kill)
        result = sweep(*PARTS, **arguments, executor=executor, chunk=20)
    assert len(submitted) >= 80
    assert result.drop_attrs().identical(expected.drop_attrs())
