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
    numeric_parameters,
    parameters,
)
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

    from odeflow.numerics.runge_kutta import Solution

__all__ = ["IntegrationError", "broadcast_table", "checked_alpha", "integrate", "integrate_batch"]

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
    Q0: float = 1.0,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    test_epsilon: float | None = None,
    max_steps: int = MAX_STEPS,
    on_failure: Literal["raise", "return"] = "raise",
) -> xr.Dataset:
    """Integrate R and b over learning time (exact as N grows; equations (1.1) and (3) of the theory page).

    For weights that are not normalised, the squared length Q is integrated too, and R = w.B is their overlap as it is.

    Parameters
    ----------
    mixture, rule, adversary
        The model.
    alpha
        Increasing output times >= 0 in examples per dimension, shape (alpha,).
    R0, b0, Q0
        Initial overlap in [-sqrt(Q0), sqrt(Q0)], bias, and squared length of the weights, > 0 (1 if they are
        normalised).
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
        R, b, error and adversarial_error with dim alpha, and Q if the weights are not normalised; scalar status
        (0: done).

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
    start = checked_start(rule, R0, b0, Q0)
    if test_epsilon is None:
        test_epsilon = adversary.epsilon
    test_epsilon = checked_number("test_epsilon", test_epsilon, least=0)
    if on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure = {on_failure!r}: allowed is 'raise' or 'return'")
    model = parameters(mixture, rule, adversary)
    solution = integrate_batch(**model, **start, alpha=alpha, rtol=rtol, atol=atol, max_steps=max_steps)
    status = int(solution.status[0])
    if status != 0 and on_failure == "raise":
        raise IntegrationError(f"the trajectory of {mixture}, {rule}, {adversary} failed: {_advice(status)}")

    data: dict[str, Any] = with_errors(solution.y[0], ("alpha",), mixture, test_epsilon)
    data["status"] = np.int8(status)
    coords = {"alpha": alpha, **numeric_parameters(mixture, rule, adversary), **start, "test_epsilon": test_epsilon}
    attrs = provenance(
        "integrate", mixture, rule, adversary,
        **start, rtol=rtol, atol=atol, test_epsilon=test_epsilon, max_steps=max_steps,
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
    Q0: npt.ArrayLike = 1.0,
    **model: Any,
) -> Solution:
    """Integrate many trajectories at once, on all cores (exact as N grows).

    Parameters
    ----------
    alpha, rtol, atol, max_steps
        As for `integrate`; the same for all trajectories.
    R0, b0, Q0
        Initial overlap, bias, and squared length of the weights (1 if they are normalised).
    **model
        Fields of GaussianMixture, LearningRule and Adversary by name, with their defaults. Those that are numbers can
        be arrays; all broadcast together with R0, b0 and Q0, and a trajectory is a point of the broadcast shape in C
        order. The others are the same for all trajectories.

    Returns
    -------
    Solution
        Plain arrays: y of shape (trajectories, alpha, 2) with R and b, or (..., 3) with R, b and Q if the weights are
        not normalised; status (0: done); steps. A trajectory that fails has nan from where it failed; nothing raises.

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
    system, variables, constants = _system(model, {"R0": R0, "b0": b0, "Q0": Q0})

    from odeflow.numerics.runge_kutta import solve

    return solve(
        system,
        trajectories=len(system.parameters),
        variables=variables,
        constants=constants,
        times=alpha,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
    )


def checked_alpha(alpha: npt.ArrayLike, name: str = "alpha") -> npt.NDArray[np.float64]:
    """Return output times as an array, or raise if they are not increasing, finite and >= 0."""
    allowed = "allowed are increasing finite numbers >= 0, at least one"
    try:
        times = np.atleast_1d(np.array(alpha, np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {alpha!r} is not an array of numbers: {allowed}") from None
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"{name} has shape {times.shape}: {allowed}")
    if not np.all(np.isfinite(times)) or times[0] < 0:
        bad = float(times[~np.isfinite(times) | (times < 0)][0])
        raise ValueError(f"{name} contains {bad!r}: {allowed}")
    if np.any(np.diff(times) <= 0):
        i = int(np.argmax(np.diff(times) <= 0))
        raise ValueError(f"{name} goes from {float(times[i])!r} to {float(times[i + 1])!r}: {allowed}")
    return times


def checked_start(rule: LearningRule, R0: float, b0: float, Q0: float) -> dict[str, Any]:
    """Return the checked initial values by name; Q0 only where the weights are not normalised."""
    Q0 = checked_number("Q0", Q0, above=0)
    if rule.normalised and Q0 != 1:
        raise ValueError(f"Q0 = {Q0!r} is out of range: allowed is 1, because the rule keeps the weights normalised")
    R0 = checked_number("R0", R0, least=-(Q0**0.5), most=Q0**0.5)
    b0 = checked_number("b0", b0)
    return {"R0": R0, "b0": b0} if rule.normalised else {"R0": R0, "b0": b0, "Q0": Q0}


def with_errors(
    y: npt.NDArray[np.float64], dims: tuple[str, ...], mixture: GaussianMixture, test_epsilon: float
) -> dict[str, xr.DataArray]:
    """Return R, b (and Q, if y has it in its last axis) with the errors of that classifier."""
    import xarray as xr

    state = {name: xr.DataArray(y[..., i], dims=dims) for i, name in enumerate(("R", "b", "Q")[: y.shape[-1]])}
    R, b = state["R"], state["b"]
    if "Q" in state:  # the errors are those of the normalised classifier; |R| <= sqrt(Q) up to the tolerance
        length = np.sqrt(state["Q"])
        R, b = (R / length).clip(-1, 1), b / length
    state["error"] = classification_error(R, b, mixture)
    state["adversarial_error"] = adversarial_error(R, b, mixture, test_epsilon)
    return state


def _system(model: dict[str, Any], start: dict[str, npt.ArrayLike]) -> tuple[Any, int, int]:
    """Return the system of a batch with its numbers of variables and constants: the seed model, or a variant."""
    default = parameters(GaussianMixture(), LearningRule(), Adversary())
    for name in model:
        if name not in default:
            raise TypeError(f"{name!r} is not a parameter: allowed are {', '.join([*default, *start])}")
    values = {**default, **model, **start}
    check_parts(adversary=Adversary(norm=values["norm"]))
    # what is not a number is checked by the dataclasses
    rule = LearningRule(**{name: values[name] for name in ("loss", "activation", "update", "normalised")})
    adversary = Adversary(law=values["law"])
    if rule.normalised and np.any(np.asarray(start["Q0"]) != 1):
        raise ValueError(f"Q0 = {start['Q0']!r} is out of range: allowed is 1, because the rule keeps |w| = 1")
    attacks_all = np.all(np.asarray(values["fraction"]) == 1)
    if rule == LearningRule() and adversary == Adversary() and attacks_all:
        from odeflow.order_parameters.perceptron import seed as dynamics

        return dynamics.SeedModel(_table(dynamics.PARAMETERS, values)), 2, dynamics.CONSTANTS
    from odeflow.order_parameters.perceptron import variants as variant_dynamics
    from odeflow.order_parameters.perceptron.variant_averages import update_factor

    nodes, weights = (np.ones(1), np.ones(1)) if adversary.law is None else adversary.law.nodes()
    table = _table(variant_dynamics.PARAMETERS, values)
    system = variant_dynamics.VariantModel(table, nodes, weights, update_factor(rule), rule.normalised)
    return system, 2 if rule.normalised else 3, variant_dynamics.CONSTANTS


def broadcast_table(names: tuple[str, ...], values: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Broadcast numbers and arrays by name into the columns of a table: a row is a point of their shape, in C order.

    Raises
    ------
    TypeError
        If a value is not a number or an array of numbers.
    ValueError
        If the shapes do not broadcast together.
    """
    arrays = []
    for name in names:
        try:
            arrays.append(np.asarray(values[name], np.float64))
        except (TypeError, ValueError):
            raise TypeError(f"{name} = {values[name]!r} is not a number or an array of numbers") from None
    try:
        columns = np.broadcast_arrays(*arrays)
    except ValueError:
        shapes = {name: array.shape for name, array in zip(names, arrays, strict=True) if array.shape}
        raise ValueError(f"the shapes {shapes} do not broadcast together: allowed are shapes that do") from None
    return np.stack([column.ravel() for column in columns], axis=1)


def _table(names: tuple[str, ...], values: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Broadcast the parameters `names` into the columns of a table with a row for each trajectory, checked."""
    table = broadcast_table(names, values)
    for i, name in enumerate(names):
        x = table[:, i]
        reach = np.sqrt(table[:, names.index("Q0")]) if "Q0" in names else 1.0
        good, allowed = {
            "p": ((x > 0) & (x < 1), "in (0, 1)"),
            "rho": (x >= 0, ">= 0"),
            "epsilon": (x >= 0, ">= 0"),
            "fraction": ((x >= 0) & (x <= 1), "in [0, 1]"),
            "second_order": ((x == 0) | (x == 1), "True or False"),
            "R0": (np.abs(x) <= reach, "in [-1, 1]" if "Q0" not in names else "in [-sqrt(Q0), sqrt(Q0)]"),
            "b0": (np.isfinite(x), "finite"),
        }.get(name, (x > 0, "> 0"))
        bad = ~(good & np.isfinite(x))
        if np.any(bad):
            raise ValueError(f"{name} = {float(x[bad][0])!r} is out of range: allowed is {allowed}")
    return table


def _advice(status: int) -> str:
    from odeflow.numerics.runge_kutta import STATUS

    return STATUS[status]
