"""What each variable is called: the one table behind the labels of results and of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LABELS", "label"]

LABELS: dict[str, tuple[str, str]] = {
    "alpha": ("learning time, examples per dimension", r"\alpha"),
    "R": ("overlap of the weights with the direction of the centres", "R"),
    "b": ("bias", "b"),
    "cosine": ("cosine of the angle between the weights and the direction of the centres", r"R/\sqrt{Q}"),
    "Q": ("squared length of the weights", "Q"),
    "l1_norm": ("L1 norm of the weights", r"|w|_1"),
    "l2_norm": ("L2 norm of the weights", r"|w|_2"),
    "w": ("weights", "w"),
    "w_sd": ("standard deviation of the weights over runs", r"\sigma_w"),
    "examples": ("learning time, examples", r"\mu"),
    "norm": ("norm of the perturbation", ""),
    "feature": ("component of the input", "i"),
    "error": ("classification error", "E"),
    "adversarial_error": ("adversarial error", "S"),
    "status": ("status of the integration", ""),
    "run": ("Monte Carlo run", ""),
    "runs": ("number of Monte Carlo runs", ""),
    "second_order": ("whether the terms in the square of eta_w are kept", ""),
    "fixed_point": ("fixed point, in rising order of b", ""),
    "stable": ("whether small deviations decay", ""),
    "eigenvalues": ("eigenvalues of the Jacobian, per unit of alpha", r"\lambda"),
    "p": ("prior of the class +1", "p"),
    "rho": ("separation of the centres", r"\rho"),
    "v1": ("variance of the class +1", "v_1"),
    "v2": ("variance of the class -1", "v_2"),
    "eta_w": ("learning rate of the weights", r"\eta_w"),
    "eta_b": ("learning rate of the bias", r"\eta_b"),
    "epsilon": ("size of the perturbation", r"\varepsilon"),
    "training_epsilon": ("size of the perturbation in training", r"\varepsilon"),
    "training": ("kind of training", ""),
    "test_epsilon": ("size of the perturbation in testing", r"\varepsilon_\mathrm{test}"),
    "R0": ("initial overlap", "R_0"),
    "b0": ("initial bias", "b_0"),
    "Q0": ("initial squared length of the weights", "Q_0"),
    "fraction": ("fraction of the examples that are attacked", "f"),
    "N": ("dimension of the input", "N"),
}
"""Name to (long name, symbol in LaTeX)."""


Result = TypeVar("Result", "xr.Dataset", "xr.DataArray")


def label(result: Result) -> Result:
    """Give every variable of a Dataset, or a DataArray and its coordinates, its long name and unit (all are 1)."""
    import xarray as xr

    variables: dict[Any, xr.DataArray]
    if isinstance(result, xr.Dataset):
        variables = {name: result[name] for name in result.variables}
    else:
        variables = {result.name: result, **{name: result[name] for name in result.coords}}
    for name, variable in variables.items():
        if name in LABELS:
            variable.attrs.update(long_name=LABELS[name][0], units="1")
    return result
