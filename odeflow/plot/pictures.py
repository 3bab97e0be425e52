"""The natural picture of a result."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.model import LearningRule
from odeflow.order_parameters import NETWORKS
from odeflow.parameters import LABELS
from odeflow.plot.artists import draw_lines, draw_map, draw_points, scale_of
from odeflow.plot.labels import label_axes, legend_text, symbol, text_of, title_of
from odeflow.plot.sheet import new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot"]

_FEW = 7  # curves in a panel
_MOST_ROWS = 4
_ERRORS = ("error", "adversarial_error")


def plot(result: xr.Dataset | xr.DataArray) -> Figure:
    """Draw the natural picture of a result.

    Over alpha, or over one parameter: R, b and the two errors in panels, as lines (theory) or as points with error bars
    (dim run). One variable over any one dimension, such as a robustness curve: one panel. With a second dimension of at
    most 7 values: one coloured curve a value. Over two larger ones: heat maps with contours, which for simulations are
    of the mean over the runs. A third parameter makes rows of heat maps, at most 4. A sweep whose parameters have more
    than 7 values is drawn at its last alpha. Fixed points over one parameter: stable ones filled, others open. A study's file is drawn by its study.

    Parameters
    ----------
    result
        What `integrate`, `simulate`, `sweep` or `robustness_curve` returned.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If no picture is known for these dims.
    """
    import xarray as xr

    if isinstance(result, xr.DataArray):
        result = result.to_dataset(name="values" if result.name is None else result.name)
    found = {str(name): array.dims for name, array in result.data_vars.items()}
    result = _drawn(result)
    names = [str(name) for name in result.data_vars if name != "stable" and set(result[name].dims) - {"run"}]
    dims = list(dict.fromkeys(dim for name in names for dim in result[name].dims if dim != "run"))
    if "alpha" in dims and len(dims) > 1 and not _has_few(result, [dim for dim in dims if dim != "alpha"]):
        result = result.isel(alpha=-1)
        dims.remove("alpha")
    if "fixed_point" in dims and len(dims) == 2:
        with style():
            return _branches(result, names, next(dim for dim in dims if dim != "fixed_point"))
    if not 1 <= len(dims) <= 3 or "fixed_point" in dims:
        raise ValueError(
            f"no picture is known for variables with dims {found}: allowed are order parameters and errors over one to three "
            "dimensions beside alpha, with or without 'run': select the others, as in result.sel(rho=2.0)"
        )
    with style():
        if len(dims) == 1:
            errors = [name for name in names if name in _ERRORS]
            panels = [[name] for name in names if name not in _ERRORS] + ([errors] if errors else [])
            return _panels(result, panels, dims[0])
        small = min(dims, key=lambda dim: (dim == "alpha", result.sizes[dim]))
        if len(dims) == 2 and result.sizes[small] <= _FEW:
            dims.remove(small)
            return _curves(result, names, dims[0], small)
        return _maps(result, names, sorted(dims, key=lambda dim: dim != small) if len(dims) == 3 else dims)


def _drawn(result: xr.Dataset) -> xr.Dataset:
    """Return what is drawn of a result: order parameters, arrays entry by entry, and the errors."""
    known = {variable.name for kind in NETWORKS.values() for variable in kind().starts(LearningRule())}
    drawn: dict[str, xr.DataArray] = {}
    for name in [*(name for name in result.data_vars if name in known), *(name for name in _ERRORS if name in result)]:
        values = result[name]
        # dims that are no parameter and not alpha, which have values, but count entries
        entries = [dim for dim in values.dims if dim not in result.coords and dim != "fixed_point"]
        for index in np.ndindex(*(values.sizes[dim] for dim in entries)):
            one = values.isel(dict(zip(entries, index, strict=True)))
            at = "".join(str(i + 1) for i in index) if any(values.sizes[dim] > 1 for dim in entries) else ""
            tex = values.attrs.get("symbol", LABELS.get(str(name), ("", str(name)))[1])
            drawn[f"{name}{at}"] = one.assign_attrs(symbol=f"{tex}_{{{at}}}" if at else tex)
    others = [name for name in result.data_vars if name not in drawn and name in ("stable",)]
    return result[others].assign(drawn)


def _has_few(result: xr.Dataset, parameters: list[Hashable]) -> bool:
    """Return whether lines over alpha, one for each value of the only parameter, can be told apart."""
    return len(parameters) == 1 and result.sizes[parameters[0]] <= _FEW and result.sizes["alpha"] > 1


def _curves(result: xr.Dataset, names: list[str], x: Hashable, small: Hashable) -> Figure:
    """Draw each variable over `x` in a panel, one coloured curve for each value of `small`."""
    from matplotlib import colormaps

    colors = colormaps["viridis"](np.linspace(0, 0.88, result.sizes[small]))
    figure, axes = _grid(len(names), 2.1, 0.9)
    for ax, name in zip(axes, names, strict=True):
        for value, color in zip(result[small].values, colors, strict=True):
            curve = result[name].sel({small: value})
            draw = draw_points if "run" in curve.dims else draw_lines
            draw(curve, ax, color=color, label=f"{value:.4g}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title=symbol(small), loc="outside right center")
    figure.suptitle(title_of(result, (x, small)), fontsize=7)
    return figure  # type: ignore[no-any-return]


def _grid(count: int, width: float, more: float) -> tuple[Any, list[Any]]:
    """Return a figure with so many panels, at most 5 in a row, and their axes."""
    rows = -(-count // 5)
    columns = -(-count // rows)
    figure, axes = new_figure(rows, columns, width=width * columns + more, height=2.3 * rows)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, list(axes.flat[:count])


def _branches(result: xr.Dataset, names: list[str], x: Hashable) -> Figure:
    """Draw the fixed points over a parameter, each variable in a panel."""
    figure, axes = _grid(len(names), 2.1, 0.9)
    at = np.broadcast_to(result[x].values[:, None], result["stable"].transpose(x, "fixed_point").shape)
    stable = result["stable"].transpose(x, "fixed_point").values
    for ax, name in zip(axes, names, strict=True):
        values = result[name].transpose(x, "fixed_point").values
        for kind, face, text in ((stable, "C0", "stable"), (~stable, "white", "unstable")):
            ax.plot(at[kind], values[kind], "o", color="C0", markerfacecolor=face, markeredgewidth=0.6, label=text)
        label_axes(ax, x, result[name])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    figure.suptitle(title_of(result, (x,)), fontsize=7)
    return figure  # type: ignore[no-any-return]


def _maps(result: xr.Dataset, names: list[str], dims: list[Hashable]) -> Figure:
    """Draw each variable as a heat map over the last two of `dims`; values of one more make rows."""
    *other, y, x = dims
    if "run" in result.dims:
        result = result.assign({name: result[name].mean("run") for name in names if "run" in result[name].dims})
    rows: list[dict[Hashable, Any]] = [{}]
    if other:
        values = result[other[0]].values
        chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_ROWS)).round().astype(int))
        rows = [{other[0]: values[i]} for i in chosen]
    figure, axes = new_figure(len(rows), len(names), width=2.3 * len(names), height=1.9 * len(rows) + 0.2)
    for ax_row, row in zip(axes, rows, strict=True):
        for ax, name in zip(ax_row, names, strict=True):
            image = draw_map(result[name].sel(row).transpose(y, x), ax, **scale_of(result[name]))
            shown = ", ".join(f"{symbol(dim)}$={value:.4g}$" for dim, value in row.items())
            ax.set_title(text_of(result[name]) + (f", {shown}" if shown else ""))
            figure.colorbar(image, ax=ax)
    figure.suptitle(title_of(result, dims), fontsize=7)
    return figure  # type: ignore[no-any-return]


def _panels(result: xr.Dataset, panels: list[list[str]], dim: Hashable) -> Figure:
    """Draw each panel's variables over `dim`, under a title that gives the parameters."""
    figure, axes = _grid(len(panels), 2.6, 0.8 * (len(panels) == 1))
    for ax, panel in zip(axes, panels, strict=True):
        for color, name in enumerate(panel):
            draw = draw_points if "run" in result[name].dims else draw_lines
            draw(result[name], ax, color=f"C{color}", label=legend_text(result, name))
        if len(panel) > 1:
            ax.set_ylabel("error")
            ax.legend()
    figure.suptitle(title_of(result, (dim,)), fontsize=7)
    return figure  # type: ignore[no-any-return]
