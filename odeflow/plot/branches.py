"""Fixed points along a parameter: branches with their stability, bifurcations, and boundaries of phases."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot.labels import label_axes
from odeflow.plot.layout import grid, inner_labels_off, legend_above
from odeflow.plot.sources import Source

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["boundary_lines", "branches", "phase_lines", "points"]

_BRANCH: dict[bool, dict[str, Any]] = {True: {"color": "C0"}, False: {"color": "C1", "linestyle": (0, (4, 1.6))}}
_KINDS = {"fold": "o", "pitchfork": "D", "from_infinity": "^", "stability": "s"}
_TEXTS = {"from_infinity": "from infinity", "stability": "change of stability"}


def branches(result: xr.Dataset, width: float) -> tuple[Figure, list[Any]]:
    """Draw what `odeflow.branches` found: stable branches solid, unstable ones dashed, and the bifurcations as marks."""
    from matplotlib.lines import Line2D

    (x,) = (dim for dim in result["stable"].dims if dim != "branch")
    names = [name for name in ("R", "b") if name in result]
    figure, axes = grid(len(names), width, more=0.2)
    for ax, name in zip(axes, names, strict=True):
        for branch in range(result.sizes["branch"]):
            for at, values, stable in _pieces(result.isel(branch=branch), name, x):
                ax.plot(at, values, **_BRANCH[stable])
        for kind, at, value in _bifurcations(result, name, x):
            ax.plot(at, value, _KINDS[kind], color="black", markerfacecolor="white", markeredgewidth=0.8, zorder=4)
        label_axes(ax, x, result[name])
    inner_labels_off(axes)
    kinds = dict.fromkeys(kind for kind, _, _ in _bifurcations(result, names[0], x))
    handles: list[Any] = [Line2D([], [], **_BRANCH[True]), Line2D([], [], **_BRANCH[False])]
    mark: dict[str, Any] = {"color": "black", "markerfacecolor": "white", "linestyle": ""}
    handles += [Line2D([], [], marker=_KINDS[kind], **mark) for kind in kinds]
    legend_above(figure, handles, ["stable", "unstable", *(_TEXTS.get(kind, kind) for kind in kinds)])
    return figure, axes


def _kind(result: xr.Dataset, index: float) -> str:
    names = str(result["kind"].attrs.get("flag_meanings", " ".join(_KINDS))).split()
    return names[int(index)] if 0 <= index < len(names) and names[int(index)] in _KINDS else "stability"


def _bifurcations(result: xr.Dataset, name: str, x: Hashable) -> list[tuple[str, float, float]]:
    """Return kind, place and value of each bifurcation that is at a finite one."""
    if "bifurcation" not in result.dims:
        return []
    at, values = result[f"bifurcation_{x}"].values, result[f"bifurcation_{name}"].values
    return [
        (_kind(result, kind), float(place), float(value))
        for kind, place, value in zip(result["kind"].values, at, values, strict=True)
        if np.isfinite(place) and np.isfinite(value)
    ]


def _pieces(branch: xr.Dataset, name: str, x: Hashable) -> list[tuple[Any, Any, bool]]:
    """Cut a branch where its stability changes, and lengthen its pieces to the bifurcations between grid values."""
    grid_values, values, stable = branch[x].values, branch[name].values, branch["stable"].values
    there = np.flatnonzero(np.isfinite(values))
    pieces: list[tuple[list[float], list[float], bool]] = []
    for i in there.tolist():
        if pieces and i - 1 in there and bool(stable[i]) == pieces[-1][2]:
            pieces[-1][0].append(grid_values[i])
            pieces[-1][1].append(values[i])
        else:
            pieces.append(([grid_values[i]], [values[i]], bool(stable[i])))
    marks = _bifurcations(branch, name, x)
    step = np.diff(grid_values).max()
    for at, height, _ in pieces:
        for end, outwards in ((0, -1), (len(at) - 1, 1)):
            near = [
                (abs(value - height[end]), place, value)
                for _, place, value in marks
                if 0 < outwards * (place - at[end]) <= step
                and not any(0 < outwards * (other - at[end]) < outwards * (place - at[end]) for other in grid_values)
            ]
            if near:
                _, place, value = min(near)
                at.insert(end + 1 if outwards > 0 else 0, place)
                height.insert(end + 1 if outwards > 0 else 0, value)
    return [(np.array(at), np.array(height), flag) for at, height, flag in pieces]


def points(source: Source, x: Hashable, width: float) -> tuple[Figure, list[Any]]:
    """Draw the fixed points over a parameter, each variable in a panel."""
    figure, axes = grid(len(source.names), width, more=0.2)
    result = source.data
    stable = result["stable"].transpose(x, "fixed_point").values
    at = np.broadcast_to(result[x].values[:, None], stable.shape)
    for ax, name in zip(axes, source.names, strict=True):
        values = result[name].transpose(x, "fixed_point").values
        for kind, color, face, marker, text in ((stable, "C0", "C0", "o", "stable"), (~stable, "C1", "white", "s", "unstable")):  # fmt: skip
            style = {"color": color, "markerfacecolor": face, "markeredgewidth": 0.7, "markersize": 2.6}
            ax.plot(at[kind], values[kind], marker, label=text, **style)
        label_axes(ax, x, result[name])
    inner_labels_off(axes)
    handles, texts = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, texts)
    return figure, axes


def phase_lines(result: xr.Dataset, width: float) -> tuple[Figure, list[Any]]:
    """Draw the curves of `odeflow.phase_boundary` in the plane, and say how many stable fixed points each side has."""
    figure, (ax,) = grid(1, width, more=0.2)
    (x,) = (dim for dim in result["epsilon"].dims if dim != "bifurcation")
    boundary_lines(result, ax)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0), high + 0.15 * (high - low))
    ax.margins(x=0.03)
    _label_regions(result, ax, x)
    handles, texts = ax.get_legend_handles_labels()
    kept = dict(zip(texts, handles, strict=True))
    legend_above(figure, list(kept.values()), list(kept))
    return figure, [ax]


def boundary_lines(result: xr.Dataset, ax: Axes, *, swapped: bool = False, color: str = "black") -> None:
    """Draw the curves of `odeflow.phase_boundary`: a dash for each kind of bifurcation."""
    (x,) = (dim for dim in result["epsilon"].dims if dim != "bifurcation")
    dashes: dict[str, Any] = {"fold": "-", "pitchfork": (0, (4, 1.6)), "from_infinity": (0, (5, 1.4, 1, 1.4)), "stability": (0, (1, 1.2))}  # fmt: skip
    for i in range(result.sizes["bifurcation"]):
        one = result.isel(bifurcation=i)
        for index in np.unique(one["kind"].values[np.isfinite(one["kind"].values)]):
            values = np.where(one["kind"].values == index, one["epsilon"].values, np.nan)
            kind = _kind(result, float(index))
            places = (values, one[x].values) if swapped else (one[x].values, values)
            ax.plot(*places, color=color, linestyle=dashes[kind], linewidth=1.1, label=_TEXTS.get(kind, kind))
    label_axes(ax, "epsilon" if swapped else x, x if swapped else "epsilon")


def _label_regions(result: xr.Dataset, ax: Axes, x: Hashable) -> None:
    """Write the number of stable fixed points between the curves, where the gaps are widest."""
    low, high = ax.get_ylim()
    grid_values = result[x].values
    gaps: dict[str, tuple[float, float, float]] = {}
    inner = range(len(grid_values) // 6, len(grid_values) - len(grid_values) // 6)
    for i in inner:
        one = result.isel({x: i})
        order = [j for j in np.argsort(one["epsilon"].values) if np.isfinite(one["epsilon"].values[j])]
        edges = [low, *(float(one["epsilon"].values[j]) for j in order), high]
        counts = [float(one["stable_below"].values[j]) for j in order] + [float(one["stable_above"].values[j]) for j in order[-1:]]  # fmt: skip
        for place, count in enumerate(counts):
            gap = edges[place + 1] - edges[place]
            key = f"{place}: {count:g} stable"
            off = abs(i - len(grid_values) / 2) / max(len(grid_values), 1)
            score = gap * (1 - 0.3 * off)
            if score > gaps.get(key, (0.0, 0.0, 0.0))[0]:
                gaps[key] = (score, float(grid_values[i]), (edges[place] + edges[place + 1]) / 2)
    for key, (score, at, height) in gaps.items():
        if score > 0.1 * (high - low):
            ax.text(at, height, key.partition(": ")[2], ha="center", va="center")
