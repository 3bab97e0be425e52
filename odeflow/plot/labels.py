"""What stands on axes, in legends and in titles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.model import Adversary, GaussianMixture, LearningRule, numeric_parameters
from odeflow.order_parameters import NETWORKS
from odeflow.parameters import LABELS
from odeflow.schedule import Schedule

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["described", "label_axes", "legend_text", "symbol", "text_of", "title_of"]

_LEGEND = {
    "error": "classification",
    "fgsm_error": "FGSM",
    "adversarial_error": "adversarial",
    "loss": "clean",
    "adversarial_loss": "attacked",
}
_ATTACKED = ("fgsm_error", "adversarial_error", "adversarial_loss")
_SHOWN = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon")


def text_of(values: xr.DataArray) -> str:
    """Return what a variable is called on an axis."""
    return f"${values.attrs['symbol']}$" if values.attrs.get("symbol") else symbol(values.name)


def symbol(name: Hashable) -> str:
    """Return the mathematical symbol of a variable or parameter as a matplotlib label."""
    known = LABELS.get(str(name))
    return f"${known[1]}$" if known and known[1] else str(name).replace("_", " ")


def described(values: Mapping[Any, Any]) -> str:
    """Return parameters and their values as text, such as epsilon = 1, p = 0.7."""
    return ", ".join(_equation(name, value) for name, value in values.items())


def _equation(name: Hashable, value: Any) -> str:
    known = LABELS.get(str(name))
    if isinstance(value, Schedule):
        return f"{symbol(name)}: {value!r}".replace("Schedule.", "").replace(", hold=True", "")
    if isinstance(value, Real | np.number) and not isinstance(value, bool | np.bool_):
        return f"${known[1]}={value:.4g}$" if known and known[1] else f"{symbol(name)} {value:.4g}"
    return f"{symbol(name)}: {value}" if isinstance(value, bool | np.bool_) else str(value)


def label_axes(ax: Axes, x: Hashable, y: Any) -> None:
    """Label the axes with symbols, where nobody has labelled them."""
    vertical = text_of(y) if hasattr(y, "dims") else symbol(y)
    labelled: list[tuple[Callable[[], str], Callable[[str], Any], str]] = [
        (ax.get_xlabel, ax.set_xlabel, symbol(x)),
        (ax.get_ylabel, ax.set_ylabel, vertical),
    ]
    for get, put, text in labelled:
        if not get() and text != "None":
            put(text)


def legend_text(result: xr.Dataset, name: str) -> str:
    """Return what a variable is called in a legend."""
    text = _LEGEND.get(name)
    if text is None:
        return text_of(result[name])
    if name in _ATTACKED and "test_epsilon" in result.coords and not result["test_epsilon"].dims:
        return rf"{text}, $\varepsilon={float(result['test_epsilon']):g}$"
    return text


def title_of(parameters: Mapping[str, Any], dims: Iterable[Hashable], runs: int = 0) -> str:
    """Return the parameters that are the same in the whole figure: the seed's, and others that are not as usual."""
    parts = GaussianMixture(), LearningRule(), Adversary(), *(kind() for kind in NETWORKS.values())
    usual = numeric_parameters(*parts)
    dims = set(dims)
    same = {
        name: parameters[name]
        for name in (*usual, "N", "alpha")
        if name in parameters
        and name not in dims
        and not isinstance(parameters[name], Schedule)  # it is drawn
        and (name in _SHOWN or name not in usual or float(parameters[name]) != usual[name])
    }
    return described(same) + (f"; mean and s.d. of {runs} runs" if runs else "")
