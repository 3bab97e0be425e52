"""What several tests of the theory watch."""

from typing import Any

import pytest

from odeflow.sweeps.computations import Trajectories


@pytest.fixture
def computed_points(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points each call of the kernel computed."""
    counts: list[int] = []
    original = Trajectories.__call__

    def counting(self: Trajectories, points: Any) -> Any:
        size = len(next(iter(points.values())))
        if size:
            counts.append(size)
        return original(self, points)

    monkeypatch.setattr(Trajectories, "__call__", counting)
    return counts
