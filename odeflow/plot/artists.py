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

__all__ = ["draw_lines", "draw_map", "draw_points", "label_contours", "scale_of"]

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


def draw_map(values: xr.DataArray, ax: Axes | None = None, *, labels: bool = True, **image: Any) -> QuadMesh:
    """Draw a two-dimensional DataArray as a heat map with labelled contours.

    Parameters
    ----------
    values
        Two dimensions with numbers as coordinates, vertical and horizontal. NaN is left white.
    ax
        Axes to draw on; default: a new figure's.
    labels
        Whether the contours have their values on them, where there is room. The places are chosen for the size that the
        axes have now: with False, `label_contours` puts them later.
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
        lines = ax.contour(*grid, numbers, levels=levels, colors="white", linewidths=0.7, linestyles="solid")
        lines.set(path_effects=[_outline()])
        if labels:
            label_contours(ax)
    label_axes(ax, x, y)
    return mesh


def label_contours(ax: Axes) -> None:
    """Write the values of contours onto them: whole inside the axes, apart from one another, along the lines.

    Parameters
    ----------
    ax
        With contours that `draw_map` drew. A contour without room for its value has none.
    """
    from matplotlib import rcParams
    from matplotlib.contour import ContourSet
    from matplotlib.textpath import TextPath

    with style():
        size = _points_of(rcParams["legend.fontsize"])
    frame = ax.get_window_extent()
    scale = ax.figure.dpi / 72
    taken: list[tuple[float, float, float]] = []
    for lines in [one for one in ax.collections if isinstance(one, ContourSet)]:
        for level, path in zip(lines.levels, lines.get_paths(), strict=True):
            text = f"{level:.6g}".replace("-", "\u2212")
            reach = scale * (TextPath((0, 0), text, size=size).get_extents().width + 2) / 2
            best: tuple[float, float, float, float] | None = None
            for part in path.to_polygons(closed_only=False):
                pixels = ax.transData.transform(part)
                length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(pixels, axis=0).T))])
                for i in range(0, len(pixels), max(1, len(pixels) // 60)):
                    ends = np.searchsorted(length, [length[i] - reach, length[i] + reach]).clip(0, len(pixels) - 1)
                    chord = pixels[ends[1]] - pixels[ends[0]]
                    if length[ends[1]] - length[ends[0]] < 1.2 * reach:
                        continue  # shorter than its own value
                    bend = 1 - np.hypot(*chord) / (length[ends[1]] - length[ends[0]])
                    angle = np.arctan2(chord[1], chord[0])
                    angle = (angle + np.pi / 2) % np.pi - np.pi / 2  # upright
                    tall = 0.6 * size * scale
                    wide = np.abs([reach * np.cos(angle), reach * np.sin(angle)]) + np.abs([tall * np.sin(angle), tall * np.cos(angle)])  # fmt: skip
                    edge = min((pixels[i] - wide - frame.min).min(), (frame.max - pixels[i] - wide).min())
                    if edge < 2 or any(
                        np.hypot(pixels[i][0] - u, pixels[i][1] - v) < reach + r + 4 for u, v, r in taken
                    ):
                        continue
                    score = float(min(edge / reach, 1) - 8 * bend)
                    if best is None or score > best[0]:
                        best = score, float(pixels[i][0]), float(pixels[i][1]), float(angle)
            if best is not None and best[0] > -1:
                _, u, v, angle = best
                taken.append((u, v, reach))
                place = ax.transData.inverted().transform((u, v))
                put: dict[str, Any] = {"ha": "center", "va": "center", "rotation_mode": "anchor", "zorder": 4}
                turned = float(np.degrees(angle))
                written = ax.text(place[0], place[1], text, fontsize=size, color="white", rotation=turned, **put)
                written.set_path_effects([_outline(1.6, 0.75)])


def scale_of(values: xr.DataArray) -> dict[str, Any]:
    """Return the range of colours: of the finite values, and symmetric with a diverging map if they have both signs."""
    finite = values.values[np.isfinite(values.values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if least < 0 < most and min(-least, most) > 0.05 * max(-least, most):
        return {"cmap": "RdBu_r", "vmin": -max(-least, most), "vmax": max(-least, most)}
    return {"vmin": least, "vmax": most}


def _outline(width: float = 1.4, strength: float = 0.5) -> Any:
    """Return an effect that keeps white lines and text legible on bright colours."""
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=width, foreground=(0, 0, 0, strength))


def _points_of(size: Any) -> float:
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=size).get_size_in_points())


def _only_dim(values: xr.DataArray) -> Hashable:
    if values.ndim != 1:
        raise ValueError(f"values has dims {values.dims}: allowed is exactly one (beside 'run' for points)")
    return values.dims[0]


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        panel: Axes = new_figure()[1][0, 0]
        return panel
    return ax
