"""Integrate the order parameters' dynamics: one trajectory as a Dataset, or a batch as plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.errors import adversarial_error, classification_error
from odeflow.labels import label
from odeflow.model import (
    Adversary,
    GaussianMixture,
    LearningRule,
    check_parts,
    checked_count,
    checked_number,
    parameters,
)
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

    from odeflow.runge_kutta import Solution

__all__ = ["IntegrationError", "checked_alpha", "integrate", "integrate_batch"]

MAX_STEPS = 1_000_000


class IntegrationError(RuntimeError):
    """A trajectory could not be integrated; the message says why and what may help."""


def integrate(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    alpha: npt.ArrayLike,
    R0: float = 0.0,
    b0: float = 0.0,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    test_epsilon: float | None = None,
    max_steps: int = MAX_STEPS,
    on_failure: Literal["raise", "return"] = "raise",
) -> xr.Dataset:
    """Integrate R and b over learning time (exact as N grows; equation (1.1) of the theory page).

    Parameters
    ----------
    mixture, rule, adversary
        The model.
    alpha
        Increasing output times >= 0 in examples per dimension, shape (alpha,).
    R0, b0
        Initial overlap in [-1, 1] and bias.
    rtol, atol
        Relative and absolute tolerance of R and b, > 0 and >= 0. The error control is per step, at a tenth of these,
        so that the error of R and b stays of their order unless the trajectory itself amplifies errors.
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: the adversary's.
    max_steps
        Most steps that the solver may take.
    on_failure
        What to do if the trajectory cannot be integrated: raise, or return with a `status` other than 0 and nan.

    Returns
    -------
    Dataset
        R, b, error and adversarial_error with dim alpha; scalar status (0: done).

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    IntegrationError
        If the trajectory cannot be integrated.

    Examples
    --------
    >>> final = integrate(GaussianMixture(), LearningRule(), Adversary(1.0), alpha=[100.0])
    >>> round(float(final.R[-1]), 6)
    0.980223
    """
    import xarray as xr

    check_parts(mixture=mixture, rule=rule, adversary=adversary)
    alpha = checked_alpha(alpha)
    R0 = checked_number("R0", R0, least=-1, most=1)
    b0 = checked_number("b0", b0)
    if test_epsilon is None:
        test_epsilon = adversary.epsilon
    test_epsilon = checked_number("test_epsilon", test_epsilon, least=0)
    if on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure = {on_failure!r}: allowed is 'raise' or 'return'")
    model = parameters(mixture, rule, adversary)
    solution = integrate_batch(**model, R0=R0, b0=b0, alpha=alpha, rtol=rtol, atol=atol, max_steps=max_steps)
    status = int(solution.status[0])
    if status != 0 and on_failure == "raise":
        raise IntegrationError(f"the trajectory of {mixture}, {rule}, {adversary} failed: {_advice(status)}")

    R, b = (xr.DataArray(solution.y[0, :, i], dims="alpha") for i in range(2))
    data = {
        "R": R,
        "b": b,
        "error": classification_error(R, b, mixture),
        "adversarial_error": adversarial_error(R, b, mixture, test_epsilon),
        "status": np.int8(status),
    }
    del model["second_order"]
    coords = {"alpha": alpha, **model, "R0": R0, "b0": b0, "test_epsilon": test_epsilon}
    attrs = provenance(
        "integrate", mixture, rule, adversary,
        R0=R0, b0=b0, rtol=rtol, atol=atol, test_epsilon=test_epsilon, max_steps=max_steps,
    )  # fmt: skip
    result = label(xr.Dataset(data, coords, attrs))
    result["status"].attrs["meaning"] = _advice(status)
    return result


def integrate_batch(
    *,
    alpha: npt.ArrayLike,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_steps: int = MAX_STEPS,
    R0: npt.ArrayLike = 0.0,
    b0: npt.ArrayLike = 0.0,
    **model: npt.ArrayLike,
) -> Solution:
    """Integrate many trajectories at once, on all cores (exact as N grows).

    Parameters
    ----------
    alpha, rtol, atol, max_steps
        As for `integrate`; the same for all trajectories.
    R0, b0
        Initial overlap in [-1, 1] and bias.
    **model
        Fields of GaussianMixture, LearningRule and Adversary by name, with their defaults. Numbers or arrays; all
        broadcast together with R0 and b0, and a trajectory is a point of the broadcast shape in C order.

    Returns
    -------
    Solution
        Plain arrays: y of shape (trajectories, alpha, 2) with R and b, status (0: done), steps. A trajectory that
        fails has nan from where it failed; nothing raises.

    Raises
    ------
    TypeError, ValueError
        If an argument is unknown or not allowed.

    Examples
    --------
    >>> integrate_batch(alpha=[100.0], epsilon=[0.0, 0.5, 1.0]).y.shape
    (3, 1, 2)
    """
    alpha = checked_alpha(alpha)
    rtol = checked_number("rtol", rtol, least=1e-14, below=1)
    atol = checked_number("atol", atol, least=0)
    max_steps = checked_count("max_steps", max_steps, 1)
    table = _parameter_table(model, R0, b0)

    from odeflow.dynamics import CONSTANTS, SeedModel
    from odeflow.runge_kutta import solve

    return solve(
        SeedModel(table),
        trajectories=len(table),
        variables=2,
        constants=CONSTANTS,
        times=alpha,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
    )


def checked_alpha(alpha: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return output times as an array, or raise if they are not increasing, finite and >= 0."""
    allowed = "allowed are increasing finite numbers >= 0, at least one"
    try:
        times = np.atleast_1d(np.array(alpha, np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"alpha = {alpha!r} is not an array of numbers: {allowed}") from None
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"alpha has shape {times.shape}: {allowed}")
    if not np.all(np.isfinite(times)) or times[0] < 0:
        bad = float(times[~np.isfinite(times) | (times < 0)][0])
        raise ValueError(f"alpha contains {bad!r}: {allowed}")
    if np.any(np.diff(times) <= 0):
        i = int(np.argmax(np.diff(times) <= 0))
        raise ValueError(f"alpha goes from {float(times[i])!r} to {float(times[i + 1])!r}: {allowed}")
    return times


def _parameter_table(model: dict[str, Any], R0: npt.ArrayLike, b0: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Broadcast the parameters into rows in the order of `dynamics.PARAMETERS`, checked."""
    from odeflow.dynamics import PARAMETERS

    values = {**parameters(GaussianMixture(), LearningRule(), Adversary()), "R0": R0, "b0": b0}
    for name, value in model.items():
        if name not in values:
            raise TypeError(f"{name!r} is not a parameter: allowed are {', '.join(values)}")
        values[name] = value
    arrays = []
    for name in PARAMETERS:
        try:
            arrays.append(np.asarray(values[name], np.float64))
        except (TypeError, ValueError):
            raise TypeError(f"{name} = {values[name]!r} is not a number or an array of numbers") from None
    try:
        columns = np.broadcast_arrays(*arrays)
    except ValueError:
        shapes = {name: array.shape for name, array in zip(PARAMETERS, arrays, strict=True) if array.shape}
        raise ValueError(f"the shapes {shapes} do not broadcast together: allowed are shapes that do") from None
    table = np.stack([column.ravel() for column in columns], axis=1)
    p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, R0, b0 = table.T
    checks = {
        "p": ((p > 0) & (p < 1), "in (0, 1)"),
        "rho": (rho >= 0, ">= 0"),
        "v1": (v1 > 0, "> 0"),
        "v2": (v2 > 0, "> 0"),
        "eta_w": (eta_w > 0, "> 0"),
        "eta_b": (eta_b > 0, "> 0"),
        "epsilon": (epsilon >= 0, ">= 0"),
        "second_order": ((second_order == 0) | (second_order == 1), "True or False"),
        "R0": (np.abs(R0) <= 1, "in [-1, 1]"),
        "b0": (np.isfinite(b0), "finite"),
    }
    for (name, (good, allowed)), column in zip(checks.items(), table.T, strict=True):
        good = good & np.isfinite(column)
        if not np.all(good):
            raise ValueError(f"{name} = {float(column[~good][0])!r} is out of range: allowed is {allowed}")
    return table


def _advice(status: int) -> str:
    from odeflow.runge_kutta import STATUS

    return STATUS[status]
