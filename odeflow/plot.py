"""Figures. Theory is drawn as lines, simulation as points with error bars; matplotlib is used here and only here.

`draw_lines` and `draw_points` take ``ax=None`` and return the artists they made; `plot` picks the natural picture of a
result. Nothing changes a global setting.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from odeflow.model import Adversary, GaussianMixture, LearningRule, numeric_parameters
from odeflow.order_parameters import NETWORKS
from odeflow.parameters import LABELS
from odeflow.provenance import check_target, write_bytes

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["FORMATS", "draw_lines", "draw_map", "draw_points", "new_figure", "plot", "save_figure", "style", "symbol"]

FORMATS = (".pdf", ".png", ".svg")
"""Suffixes of figure files."""

_POINTS: dict[str, Any] = {"fmt": "o", "zorder": 3, "elinewidth": 0.8, "capthick": 0.8, "markeredgewidth": 0.9}
_FEW = 7  # curves in a panel
_MOST_ROWS = 4
_SHOWN = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon")
_ERRORS = ("error", "adversarial_error")


@contextmanager
def style() -> Iterator[None]:
    """Within this context, matplotlib draws with the package's style sheet ``odeflow.mplstyle``."""
    import matplotlib as mpl
    from matplotlib import style as mpl_style

    with resources.as_file(resources.files("odeflow") / "odeflow.mplstyle") as sheet, mpl.rc_context():
        mpl_style.use(sheet)
        yield


def new_figure(rows: int = 1, columns: int = 1, *, width: float | None = None, height: float | None = None) -> Any:
    """Return a figure and its axes in the package's style, without a window and without global state.

    Parameters
    ----------
    rows, columns
        Grid of panels.
    width, height
        Size in inches; default: 3.4 and 2.5 a panel.

    Returns
    -------
    tuple
        Figure, and an array of Axes of shape (rows, columns).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width or 3.4 * columns, height or 2.5 * rows))
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


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


def _text(values: xr.DataArray) -> str:
    """Return what a variable is called on an axis."""
    return f"${values.attrs['symbol']}$" if values.attrs.get("symbol") else symbol(values.name)


def symbol(name: Hashable) -> str:
    """Return the mathematical symbol of a variable or parameter as a matplotlib label."""
    known = LABELS.get(str(name))
    return f"${known[1]}$" if known and known[1] else str(name)


def draw_lines(values: xr.DataArray, ax: Axes | None = None, **line: Any) -> list[Line2D]:
    """Draw theory: a one-dimensional DataArray as a line over its dimension.

    Parameters
    ----------
    values
        One dimension with a coordinate; NaN breaks the line.
    ax
        Axes to draw on; default: a new figure's.
    **line
        Properties of the line, such as label and color.

    Returns
    -------
    list of Line2D

    Raises
    ------
    ValueError
        If `values` does not have exactly one dimension.
    """
    dim = _only_dim(values)
    ax = _axes(ax)
    artists = ax.plot(values[dim].values, values.values, **line)
    _label_axes(ax, dim, values)
    return artists


def draw_points(
    values: xr.DataArray, ax: Axes | None = None, *, spread: Literal["sd", "se"] = "sd", **points: Any
) -> ErrorbarContainer:
    """Draw simulation: the mean over runs as points, with error bars.

    Parameters
    ----------
    values
        Dims run and one other.
    ax
        Axes to draw on; default: a new figure's.
    spread
        Error bars: "sd", the standard deviation over runs, or "se", the standard error of the mean.
    **points
        Properties of the points, such as label and color.

    Returns
    -------
    ErrorbarContainer

    Raises
    ------
    ValueError
        If `values` does not have the dimension run and one other, or `spread` is unknown.
    """
    if "run" not in values.dims:
        raise ValueError(f"values has dims {values.dims}: allowed are 'run' and one other")
    if spread not in ("sd", "se"):
        raise ValueError(f"spread = {spread!r}: allowed is 'sd' or 'se'")
    mean = values.mean("run")
    runs = values.sizes["run"]
    bars = values.std("run", ddof=1) if runs > 1 else 0 * mean
    if spread == "se":
        bars = bars / np.sqrt(runs)
    dim = _only_dim(mean)
    ax = _axes(ax)
    with style():  # error bars read their cap size from the settings
        artists = ax.errorbar(mean[dim].values, mean.values, yerr=bars.values, **{**_POINTS, **points})
    _label_axes(ax, dim, values)
    return artists


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
    figure.suptitle(_title(result, (x, small)), fontsize=7)
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
        _label_axes(ax, x, result[name])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    figure.suptitle(_title(result, (x,)), fontsize=7)
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
            image = draw_map(result[name].sel(row).transpose(y, x), ax, **_scale(result[name]))
            shown = ", ".join(f"{symbol(dim)}$={value:.4g}$" for dim, value in row.items())
            ax.set_title(_text(result[name]) + (f", {shown}" if shown else ""))
            figure.colorbar(image, ax=ax)
    figure.suptitle(_title(result, dims), fontsize=7)
    return figure  # type: ignore[no-any-return]


def draw_map(values: xr.DataArray, ax: Axes | None = None, **image: Any) -> QuadMesh:
    """Draw a two-dimensional DataArray as a heat map with labelled contours.

    Parameters
    ----------
    values
        Two dimensions with numbers as coordinates, vertical and horizontal. NaN is left white.
    ax
        Axes to draw on; default: a new figure's.
    **image
        Properties of the heat map, such as cmap, vmin and vmax. Default: a diverging map where the values have both
        signs.

    Returns
    -------
    QuadMesh
        The heat map, for a colour bar.

    Raises
    ------
    ValueError
        If `values` does not have exactly two dimensions.
    """
    if values.ndim != 2:
        raise ValueError(f"values has dims {values.dims}: allowed are exactly two, vertical and horizontal")
    from matplotlib.ticker import MaxNLocator

    y, x = values.dims
    values = values.sortby([y, x])
    ax = _axes(ax)
    numbers = np.ma.masked_invalid(values.values)
    image = {**_scale(values), **image}
    grid = values[x].values, values[y].values
    mesh = ax.pcolormesh(*grid, numbers, shading="nearest", rasterized=True, **image)
    levels = MaxNLocator(6).tick_values(image["vmin"], image["vmax"])
    levels = levels[(levels > numbers.min()) & (levels < numbers.max())]
    if min(values.shape) > 1 and levels.size:
        lines = ax.contour(*grid, numbers, levels=levels, colors="white", linewidths=0.6, linestyles="solid")
        for text in ax.clabel(lines, fontsize=6):
            text.set_path_effects([_outline()])
        lines.set(path_effects=[_outline()])
    _label_axes(ax, x, y)
    return mesh


def _scale(values: xr.DataArray) -> dict[str, Any]:
    """Return the range of colours: of the finite values, and symmetric with a diverging map if they have both signs."""
    finite = values.values[np.isfinite(values.values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if least < 0 < most and min(-least, most) > 0.05 * max(-least, most):
        return {"cmap": "RdBu_r", "vmin": -max(-least, most), "vmax": max(-least, most)}
    return {"vmin": least, "vmax": most}


def _outline() -> Any:
    """Return an effect that keeps white lines and text legible on bright colours."""
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=1.2, foreground=(0, 0, 0, 0.45))


def _panels(result: xr.Dataset, panels: list[list[str]], dim: Hashable) -> Figure:
    """Draw each panel's variables over `dim`, under a title that gives the parameters."""
    figure, axes = _grid(len(panels), 2.6, 0.8 * (len(panels) == 1))
    for ax, panel in zip(axes, panels, strict=True):
        for color, name in enumerate(panel):
            draw = draw_points if "run" in result[name].dims else draw_lines
            draw(result[name], ax, color=f"C{color}", label=_legend_text(result, name))
        if len(panel) > 1:
            ax.set_ylabel("error")
            ax.legend()
    figure.suptitle(_title(result, (dim,)), fontsize=7)
    return figure  # type: ignore[no-any-return]


def _title(result: xr.Dataset, dims: Iterable[Hashable]) -> str:
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


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure by suffix (.pdf, .png, .svg), beside the target and renamed: there is never half a file.

    Raises
    ------
    ValueError, FileNotFoundError, PermissionError
        If the target is not one (see `odeflow.provenance.check_target`).
    SaveError
        If writing fails.
    """
    target = check_target(path, FORMATS)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    content = io.BytesIO()
    with style(), _quiet("fontTools"):
        figure.savefig(content, format=target.suffix[1:], metadata=undated.get(target.suffix))
    write_bytes(target, content.getbuffer())
    return target


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a logger's warnings back: fontTools has one for each font it embeds, about the font's date."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _legend_text(result: xr.Dataset, name: str) -> str:
    if name == "adversarial_error" and "test_epsilon" in result.coords and not result["test_epsilon"].dims:
        return rf"adversarial, $\varepsilon={float(result['test_epsilon']):g}$"
    return {"error": "classification", "adversarial_error": "adversarial"}.get(name, _text(result[name]))


def _only_dim(values: xr.DataArray) -> Hashable:
    if values.ndim != 1:
        raise ValueError(f"values has dims {values.dims}: allowed is exactly one (beside 'run' for points)")
    return values.dims[0]


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        panel: Axes = new_figure()[1][0, 0]
        return panel
    return ax


def _label_axes(ax: Axes, x: Hashable, y: Any) -> None:
    """Label the axes with symbols, where nobody has labelled them."""
    vertical = _text(y) if hasattr(y, "dims") else symbol(y)
    labelled: list[tuple[Callable[[], str], Callable[[str], Any], str]] = [
        (ax.get_xlabel, ax.set_xlabel, symbol(x)),
        (ax.get_ylabel, ax.set_ylabel, vertical),
    ]
    for get, put, text in labelled:
        if not get() and text != "None":
            put(text)
