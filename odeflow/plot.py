"""Figures. Theory is drawn as lines, simulation as points with error bars; matplotlib is used here and only here.

`draw_lines` and `draw_points` take ``ax=None`` and return the artists they made; `plot` picks the natural picture of a
result. Nothing changes a global setting.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from odeflow.labels import LABELS
from odeflow.provenance import check_target, write_bytes

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["FORMATS", "draw_lines", "draw_points", "new_figure", "plot", "save_figure", "style", "symbol"]

FORMATS = (".pdf", ".png", ".svg")
"""Suffixes of figure files."""

_POINTS: dict[str, Any] = {"fmt": "o", "zorder": 3, "elinewidth": 0.8, "capthick": 0.8, "markeredgewidth": 0.9}
VARIABLES = ("R", "b", "error", "adversarial_error")


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
    _label_axes(ax, dim, values.name)
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
    _label_axes(ax, dim, values.name)
    return artists


def plot(result: xr.Dataset | xr.DataArray) -> Figure:
    """Draw the natural picture of a result.

    Over alpha: R, b and the two errors in panels, as lines (theory) or as points with error bars (dim run). One
    variable over any one dimension, such as a robustness curve: one panel. A study's file is drawn by its study.

    Parameters
    ----------
    result
        What `integrate`, `simulate` or `robustness_curve` returned.

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
    names = [name for name in VARIABLES if name in result and set(result[name].dims) - {"run"}]
    dims = {dim for name in names for dim in result[name].dims} - {"run"}
    if not names or len(dims) != 1:
        found = {str(name): array.dims for name, array in result.data_vars.items()}
        raise ValueError(
            f"no picture is known for variables with dims {found}: allowed are {', '.join(VARIABLES)} over one dimension, "
            "with or without 'run'"
        )
    dim = dims.pop()
    panels = [[name] for name in names if name in ("R", "b")]
    errors = [name for name in names if name not in ("R", "b")]
    panels += [errors] if errors else []
    with style():
        return _panels(result, panels, dim)


def _panels(result: xr.Dataset, panels: list[list[str]], dim: Hashable) -> Figure:
    """Draw each panel's variables over `dim`, under a title that gives the parameters."""
    figure, axes = new_figure(1, len(panels), width=2.6 * len(panels) + 0.8 * (len(panels) == 1), height=2.3)
    for ax, panel in zip(axes[0], panels, strict=True):
        for color, name in enumerate(panel):
            draw = draw_points if "run" in result[name].dims else draw_lines
            draw(result[name], ax, color=f"C{color}", label=_legend_text(result, name))
        if len(panel) > 1:
            ax.set_ylabel("error")
            ax.legend()
    title = ", ".join(
        f"{symbol(name)}$={float(result[name]):g}$"
        for name in ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "N")
        if name in result.coords and name != dim and not result[name].dims
    )
    if "run" in result.dims:
        title += f"; mean and s.d. of {result.sizes['run']} runs"
    figure.suptitle(title, fontsize=7)
    return figure  # type: ignore[no-any-return]


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
    return {"error": "classification", "adversarial_error": "adversarial"}.get(name, symbol(name))


def _only_dim(values: xr.DataArray) -> Hashable:
    if values.ndim != 1:
        raise ValueError(f"values has dims {values.dims}: allowed is exactly one (beside 'run' for points)")
    return values.dims[0]


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        panel: Axes = new_figure()[1][0, 0]
        return panel
    return ax


def _label_axes(ax: Axes, x: Hashable, y: Hashable) -> None:
    """Label the axes with symbols, where nobody has labelled them."""
    labelled: list[tuple[Callable[[], str], Callable[[str], Any], Hashable]] = [
        (ax.get_xlabel, ax.set_xlabel, x),
        (ax.get_ylabel, ax.set_ylabel, y),
    ]
    for get, put, name in labelled:
        if not get() and name is not None:
            put(symbol(name))
