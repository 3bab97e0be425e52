r"""Adversarial empirical risk minimisation at finite N: examples are drawn, and the minimiser is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.erm.data import Data
from odeflow.erm.empirical import minimise
from odeflow.erm.errors import MEASURES, measures
from odeflow.erm.existence import checked_data, checked_loss
from odeflow.erm.losses import LOSSES
from odeflow.erm.theory import NAMES, points_of
from odeflow.model import MOST, GaussianMixture, numeric_parameters
from odeflow.numerics.memory import check_memory
from odeflow.numerics.threads import blas_threads
from odeflow.parameters import checked_count, checked_number, checked_switch, label
from odeflow.provenance import provenance
from odeflow.simulate import seed_sequence

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["draw", "simulate"]

Array = npt.NDArray[np.float64]


def simulate(
    data: Data,
    *,
    N: int,
    alpha: float,
    ridge: float,
    runs: int,
    loss: Literal["logistic", "hinge", "squared"] = "logistic",
    epsilon: float = 0.0,
    bias: bool = True,
    test_epsilon: float | None = None,
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    progress: bool = False,
    tolerance: float = 1e-5,
) -> xr.Dataset:
    """Draw round(alpha N) examples, minimise their attacked loss, and return the minimiser's overlaps and errors.

    Parameters
    ----------
    data, alpha, ridge, loss, epsilon, bias, test_epsilon
        As for `solve`, but numbers, and ridge > 0.
    N
        Dimension of the input, >= 2.
    runs
        Independent repetitions, >= 1.
    rng
        Seed. Each run has a stream of its own. None: fresh entropy, which is recorded.
    progress
        Show a progress bar, if stderr is a terminal and it takes long.
    tolerance
        As for `minimise`.

    Returns
    -------
    Dataset
        With dim run: the variables of `solve` but V and status, where the errors are the exact ones of each run's classifier,
        and gap, the bound of `minimise` on how far its objective is above the least. Where the weights are 0, R is nan, and the
        errors are those of the constant label (nan without a bias).

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    MinimisationError
        If a minimiser was not reached.

    Examples
    --------
    >>> from odeflow import GaussianMixture
    >>> simulate(GaussianMixture(), N=50, alpha=2.0, ridge=0.1, runs=3, rng=1).R.dims
    ('run',)
    """
    import xarray as xr
    from tqdm import tqdm

    checked_data(data)
    checked_loss(loss)
    N, runs = checked_count("N", N, 2), checked_count("runs", runs, 1)
    alpha = checked_number("alpha", alpha, above=0, most=MOST)
    ridge = checked_number("ridge", ridge, above=0, most=MOST)
    epsilon = checked_number("epsilon", epsilon, least=0, most=MOST)
    test = checked_number("test_epsilon", epsilon if test_epsilon is None else test_epsilon, least=0, most=MOST)
    count = checked_count("alpha N", round(alpha * N), 1)
    check_memory(24 * count * N, f"{count:,} examples of {N:,} numbers need", "a smaller N or alpha is allowed")
    bias = checked_switch("bias", bias) and "p" in numeric_parameters(data)
    seed = seed_sequence(rng)
    children = (np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, run)) for run in range(runs))
    rows: dict[str, list[float]] = {name: [] for name in ("m", "q", "b", "training_loss", "gap")}
    with blas_threads(N):
        for child in tqdm(children, total=runs, unit="run", delay=1, disable=None if progress else True):
            X, y = draw(data, N, count, np.random.default_rng(child))
            found = minimise(X, y, loss=loss, epsilon=epsilon, ridge=ridge, bias=bias, tolerance=tolerance)
            attacked = y * (X @ found.w - found.b) - epsilon * np.linalg.norm(found.w)
            values = (found.w[0], found.w @ found.w, found.b, LOSSES[loss].value(attacked).mean(), found.gap)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(float(value))
    state = {name: np.array(values) for name, values in rows.items()}
    r = np.sqrt(state["q"])
    with np.errstate(divide="ignore", invalid="ignore"):
        state["R"], b = state["m"] / r, state["b"] / r
    direction = np.where(r > 0, state["R"], np.where(state["b"] != 0, 0.0, np.nan))
    errors = measures(points_of(data, runs), direction, b, np.full(runs, test))
    if isinstance(data, GaussianMixture):
        errors = {"b": state["b"], **errors}
    names = {**NAMES, **MEASURES, "gap": "bound on how far the objective is above its least value, relative to it"}
    variables: dict[str, Any] = {
        name: ("run", values, {"long_name": names[name], "units": "1"})
        for name, values in ({name: state[name] for name in ("m", "q", "R", "training_loss", "gap")} | errors).items()
    }
    coords = {
        "run": np.arange(runs), **numeric_parameters(data), "N": N, "alpha": alpha, "epsilon": epsilon, "ridge": ridge,
        "test_epsilon": test,
    }  # fmt: skip
    attrs = provenance(
        "erm.simulate", data, seed=f"entropy={seed.entropy}, spawn_key={tuple(seed.spawn_key)}", loss=loss, bias=bias,
        N=N, alpha=alpha, ridge=ridge, epsilon=epsilon, runs=runs,
    )  # fmt: skip
    return label(xr.Dataset(variables, coords, attrs))


def draw(data: Data, N: int, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return examples, shape (count, N), and their labels; B is along the first axis, which no direction is preferred to."""
    if isinstance(data, GaussianMixture):
        y = np.where(rng.random(count) < data.p, 1.0, -1.0)
        X = rng.standard_normal((count, N))
        X *= np.sqrt(np.where(y > 0, data.v1, data.v2))[:, None]
        X[:, 0] += y * data.rho / 2
        return X, y
    X = rng.standard_normal((count, N))
    return X, np.where(X[:, 0] + data.tau * rng.standard_normal(count) >= 0, 1.0, -1.0)
