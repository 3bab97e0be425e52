"""Maps over two parameters: heat maps with contours, rows of them, and phases by the number of stable fixed points."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot.artists import draw_map, label_contours, scale_of
from odeflow.plot.branches import boundary_lines
from odeflow.plot.labels import described, label_axes, text_of
from odeflow.plot.layout import LEAST_PANEL, grid, inner_labels_off, legend_above
from odeflow.plot.sheet import new_figure
from odeflow.plot.sources import Source, parameters_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["maps", "phases"]

_MOST_ROWS = 4


def maps(source: Source, boundaries: Sequence[xr.Dataset], width: float) -> tuple[Figure, list[Any]]:
    """Draw each variable as a heat map over the two larger dims; values of one more make rows. Lines of phases on top."""
    result = source.data
    small = min(source.dims, key=lambda dim: (dim == "alpha", result.sizes[dim]))
    dims = source.dims if len(source.dims) == 2 else sorted(source.dims, key=lambda dim: dim != small)
    *other, y, x = dims
    names = [name for name in source.names if {*dims} <= {*result[name].dims}]
    if not names:
        raise ValueError(
            f"no variable has all of the dims {', '.join(map(str, dims))}: allowed is one that has, for a map"
        )
    if source.simulated:
        result = result.assign({name: result[name].mean("run", keep_attrs=True) for name in names if "run" in result[name].dims})  # fmt: skip
    rows: list[dict[Hashable, Any]] = [{}]
    if other:
        values = result[other[0]].values
        chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_ROWS)).round().astype(int))
        rows = [{other[0]: values[i]} for i in chosen]
    figure, panels = _panels(len(names), len(rows), width)
    shown = [(row, name) for row in rows for name in names]
    for ax, (row, name) in zip(panels, shown, strict=True):
        image = draw_map(result[name].sel(row).transpose(y, x), ax, labels=False, **scale_of(result[name]))
        equation = described(row)
        ax.set_title(text_of(result[name]) + (f", {equation}" if equation else ""))
        bar = figure.colorbar(image, ax=ax)
        bar.ax.minorticks_off()
        for boundary in boundaries:
            _draw_boundary(boundary, ax, x, y)
    for boundary in boundaries:
        _check_same(source, boundary)
    if boundaries:
        handles, texts = panels[0].get_legend_handles_labels()
        kept = dict(zip(texts, handles, strict=True))
        legend_above(figure, list(kept.values()), list(kept))
    inner_labels_off(panels)
    figure.draw_without_rendering()
    for ax in panels:
        label_contours(ax)
    return figure, panels


def _panels(names: int, rows: int, width: float) -> tuple[Any, list[Any]]:
    """Return panels in the order in which they are read: a row for each value, or as many as the width has room for."""
    if rows == 1:
        return grid(names, width, most=3 if names != 4 else 2)
    columns = names if names * LEAST_PANEL <= width else max(1, int(width / LEAST_PANEL))
    lines = -(-names * rows // columns)
    figure, axes = new_figure(lines, columns, width=width, height=lines * min(max(1.3, 0.75 * width / columns), 2.4))
    for ax in axes.flat[names * rows :]:
        ax.remove()
    return figure, list(axes.flat[: names * rows])


def _check_same(source: Source, boundary: xr.Dataset) -> None:
    """Raise an error if a boundary is of another mixture or rule than the map."""
    own = parameters_of(boundary)
    for name in own.keys() & source.parameters.keys():
        if own[name] != source.parameters[name]:
            raise ValueError(
                f"the boundary has {name} = {own[name]}, and the map {source.parameters[name]}: allowed is the same model"
            )


def _draw_boundary(boundary: xr.Dataset, ax: Any, x: Hashable, y: Hashable) -> None:
    from matplotlib.patheffects import withStroke

    (parameter,) = (dim for dim in boundary["epsilon"].dims if dim != "bifurcation")
    if {x, y} != {"epsilon", parameter}:
        raise ValueError(
            f"a boundary over epsilon and {parameter} does not go onto a map over {y} and {x}: allowed is the same plane"
        )
    limits = ax.get_xlim(), ax.get_ylim()
    before = len(ax.lines)
    boundary_lines(boundary, ax, swapped=x == "epsilon", color="black")
    for line in ax.lines[before:]:
        line.set_path_effects([withStroke(linewidth=2.4, foreground=(1, 1, 1, 0.7))])
    ax.set(xlim=limits[0], ylim=limits[1])


def phases(source: Source, width: float) -> tuple[Figure, list[Any]]:
    """Draw the number of stable fixed points over two parameters, each region with its number in it."""
    y, x = (dim for dim in source.dims if dim != "fixed_point")
    count = source.data["stable"].sum("fixed_point").transpose(y, x).sortby([y, x])
    figure, (ax,) = grid(1, width)
    from matplotlib import colormaps

    numbers = np.unique(count.values)
    shades = colormaps["Greys"](np.linspace(0.08, 0.55, len(numbers)))
    index = np.searchsorted(numbers, count.values)
    rgba = shades[index]
    ax.pcolormesh(count[x].values, count[y].values, rgba, shading="nearest", rasterized=True)
    label_axes(ax, x, y)
    for number in numbers.tolist():
        _label_largest(ax, count, count.values == number, f"{number} stable" if number else "none stable")
    return figure, [ax]


def _label_largest(ax: Any, count: xr.DataArray, inside: Any, text: str) -> None:
    """Write a text into each region that has room for it, where it is farthest from the region's edge."""
    from scipy.ndimage import distance_transform_edt, label

    y, x = count.dims
    regions, number = label(inside)
    for region in range(1, number + 1):
        here = np.pad(regions == region, 1)
        far = distance_transform_edt(here)[1:-1, 1:-1]
        if far.max() >= max(1.0, 0.04 * min(inside.shape)) and (regions == region).mean() > 0.02:
            i, j = np.unravel_index(int(far.argmax()), far.shape)
            ax.text(float(count[x][j]), float(count[y][i]), text, ha="center", va="center")
