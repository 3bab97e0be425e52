"""Bad input of a sweep is one clear error before any work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odeflow import sweep
from tests.odeflow.test_sweep import ALPHA, OVER, PARTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": {}}, "over = {} is an empty grid"),
        ({"over": {"rho": []}}, "rho = .* is an empty grid"),
        ({"over": {"roh": [1.0]}}, "over has no parameter 'roh': did you mean 'rho'"),
        ({"over": {"N": [10]}}, "over has no parameter 'N'"),
        ({"over": {"rho": [1.0, 1.0]}}, "rho contains 1.0 twice"),
        ({"over": {"rho": [1.0, np.inf]}}, "rho contains inf"),
        ({"over": {"rho": [[1.0]]}}, r"rho = .* is of shape \(1, 1\)"),
        ({"over": {"rho": [-1.0]}}, "rho = -1.0 is out of range"),
        ({"over": {"R0": [0.0, 1.5]}}, "R0 = 1.5 is out of range"),
        ({"over": {"second_order": [0.5]}}, "second_order = .* is out of range"),
        ({"alpha": None}, "alpha = None"),
        ({"alpha": [2.0, 1.0]}, "alpha goes from 2.0 to 1.0"),
        ({"rtol": 0.0}, "rtol = 0.0 is out of range"),
        ({"chunk": 0}, "chunk = 0 is out of range"),
        ({"compute": "guess"}, "compute = 'guess'"),
        ({"compute": "equilibria"}, "alpha = .* has no meaning"),
        ({"compute": "equilibria", "alpha": None, "over": {"b0": [1.0]}}, "over has no parameter 'b0'"),
        ({"compute": "equilibria", "alpha": None, "over": {"fraction": [0.5]}}, "for the seed model only"),
        ({"N": 10}, "N = 10 has no meaning"),
        ({"store": "sweep.txt"}, "'.txt': allowed is one of .nc, .zarr"),
        ({"compute": "simulate", "runs": 2, "N": 2}, "N = 2 is out of range with the reduced method"),
        ({"compute": "simulate", "over": {"N": [10, 10.5]}, "runs": 2}, "N = 10.5 is out of range"),
        (
            {"over": {"rho": np.linspace(0, 1, 10**5), "epsilon": np.linspace(0, 1, 10**5)}},
            "the grid rho 100,000 x epsilon 100,000 has 10,000,000,000 points, whose index alone needs 224 GiB",
        ),
    ],
)
def test_bad_input_is_found_before_any_work(
    arguments: dict[str, Any], message: str, computed_points: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        sweep(*PARTS, **{"over": OVER, "alpha": ALPHA, **arguments})
    assert not computed_points
    assert not list(tmp_path.iterdir())


def test_bad_types() -> None:
    with pytest.raises(TypeError, match="rho = 'wide' is not an array of numbers"):
        sweep(*PARTS, over={"rho": "wide"}, alpha=ALPHA)
    with pytest.raises(ValueError, match="N is missing for compute = 'simulate': allowed is a whole number >= 3"):
        sweep(*PARTS, over=OVER, alpha=ALPHA, compute="simulate", runs=2)
