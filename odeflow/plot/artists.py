"""Lines, points and maps of one DataArray; each takes ``ax=None`` and returns the artists it made."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from odeflow.plot.labels import label_axes
from odeflow.plot.sheet import new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.container import ErrorbarContainer
    from matplotlib.lines import Line2D

__all__ = ["draw_lines", "draw_map", "draw_points", "scale_of"]

_POINTS: dict[str, Any] = {"fmt": "o", "zorder": 3, "elinewidth": 0.8, "capthick": 0.8, "markeredgewidth": 0.9}


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
    label_axes(ax, dim, values)
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
    label_axes(ax, dim, values)
    return artists


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
    image = {**scale_of(values), **image}
    grid = values[x].values, values[y].values
    mesh = ax.pcolormesh(*grid, numbers, shading="nearest", rasterized=True, **image)
    levels = MaxNLocator(6).tick_values(image["vmin"], image["vmax"])
    levels = levels[(levels > numbers.min()) & (levels < numbers.max())]
    if min(values.shape) > 1 and levels.size:
        lines = ax.contour(*grid, numbers, levels=levels, colors="white", linewidths=0.6, linestyles="solid")
        for text in ax.clabel(lines, fontsize=6):
            text.set_path_effects([_outline()])
        lines.set(path_effects=[_outline()])
    label_axes(ax, x, y)
    return mesh


def scale_of(values: xr.DataArray) -> dict[str, Any]:
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


def _only_dim(values: xr.DataArray) -> Hashable:
    if values.ndim != 1:
        raise ValueError(f"values has dims {values.dims}: allowed is exactly one (beside 'run' for points)")
    return values.dims[0]


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        panel: Axes = new_figure()[1][0, 0]
        return panel
    return ax
