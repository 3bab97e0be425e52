"""The power of a claim: which wrong parameter of the theory it would notice, and from which size of the error on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule

__all__ = ["CHANGES", "PARAMETERS", "altered", "noticed_changes", "power_lines"]

CHANGES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Relative changes of a parameter that are tried, of either sign."""
PARAMETERS = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon")
SIGNS = {"larger": 1.0, "smaller": -1.0}

Model = tuple[GaussianMixture, LearningRule, Adversary]


def altered(model: Model, parameter: str, factor: float) -> Model:
    """Return a model with one parameter of its mixture, rule or adversary multiplied by a factor.

    Raises
    ------
    ValueError
        If the parameter is out of range then.
    """
    parts: list[Any] = [
        replace(part, **{parameter: factor * getattr(part, parameter)})
        if parameter in {field.name for field in fields(part)}
        else part
        for part in model
    ]
    return parts[0], parts[1], parts[2]


def noticed_changes(holds: Callable[[str, float], bool], parameters: Sequence[str] = PARAMETERS) -> xr.DataArray:
    """Return the least relative change of each parameter, out of `CHANGES`, with which a claim fails.

    Parameters
    ----------
    holds
        Whether the claim would hold of a theory with this parameter multiplied by this factor; ValueError if there is
        no such theory.
    parameters
        Names.

    Returns
    -------
    DataArray
        Over (parameter, sign); NaN if the claim holds with every one that is tried and in range.
    """

    def least(parameter: str, sign: float) -> float:
        for change in CHANGES:
            try:
                if not holds(parameter, 1 + sign * change):
                    return change
            except ValueError:  # out of range, and so are the larger ones
                break
        return np.nan

    values = [[least(parameter, sign) for sign in SIGNS.values()] for parameter in parameters]
    return xr.DataArray(
        values,
        {
            "parameter": ("parameter", list(parameters), {"long_name": "parameter of the theory", "units": "1"}),
            "sign": ("sign", list(SIGNS), {"long_name": "whether the parameter is larger or smaller", "units": "1"}),
        },
        ("parameter", "sign"),
        attrs={
            "long_name": "least relative change of a parameter of the theory with which the claim fails",
            "units": "1",
        },
    )


def power_lines(least: xr.DataArray, what: str) -> Iterator[str]:
    """Yield lines of a table: what a claim would notice."""
    yield f"least relative change of a parameter of the theory, of {CHANGES[0]:.1%} to {CHANGES[-1]:.0%}, that fails {what}"
    yield f"{'':10}" + "".join(f"{name:>10}" for name in least.parameter.values)
    for sign in least.sign.values:
        cells = [float(value) for value in least.sel(sign=sign)]
        yield f"{sign:10}" + "".join(f"{'none' if np.isnan(cell) else f'{cell:.1%}':>10}" for cell in cells)
