"""What stands on axes, in legends and in titles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

from odeflow.model import Adversary, GaussianMixture, LearningRule, numeric_parameters
from odeflow.order_parameters import NETWORKS
from odeflow.parameters import LABELS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["label_axes", "legend_text", "symbol", "text_of", "title_of"]

_SHOWN = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon")


def text_of(values: xr.DataArray) -> str:
    """Return what a variable is called on an axis."""
    return f"${values.attrs['symbol']}$" if values.attrs.get("symbol") else symbol(values.name)


def symbol(name: Hashable) -> str:
    """Return the mathematical symbol of a variable or parameter as a matplotlib label."""
    known = LABELS.get(str(name))
    return f"${known[1]}$" if known and known[1] else str(name)


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
    if name == "adversarial_error" and "test_epsilon" in result.coords and not result["test_epsilon"].dims:
        return rf"adversarial, $\varepsilon={float(result['test_epsilon']):g}$"
    return {"error": "classification", "adversarial_error": "adversarial"}.get(name, text_of(result[name]))


def title_of(result: xr.Dataset, dims: Iterable[Hashable]) -> str:
    """Return the parameters that are the same in the whole figure."""
    parts = GaussianMixture(), LearningRule(), Adversary(), *(kind() for kind in NETWORKS.values())
    numbers = numeric_parameters(*parts)
    known = [name for name in (*numbers, "N", "alpha") if name in result.coords and not result[name].dims]
    # the seed's parameters, and of the others those that are not as usual
    same = [
        name
        for name in known
        if name not in dims and (name in _SHOWN or name not in numbers or float(result[name]) != numbers[name])
    ]
    title = ", ".join(f"{symbol(name)}$={float(result[name]):g}$" for name in same)
    return title + (f"; mean and s.d. of {result.sizes['run']} runs" if "run" in result.dims else "")
