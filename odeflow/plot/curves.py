"""Curves of one or several results in panels: theory as lines, simulation as points, fixed points as levels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot.artists import draw_lines, draw_points
from odeflow.plot.labels import described, label_axes, legend_text, text_of
from odeflow.plot.layout import clear_legend, grid, inner_labels_off, legend_above
from odeflow.plot.looks import Look, looks
from odeflow.plot.sources import ERRORS, LOSSES, Source, differing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves"]

_MOST_NAMED = 10  # curves in a panel whose names stand in it
_BAND_ALPHA = 0.25
_ROUNDING = 1e-12  # a span of a panel that is none
_LEVEL: dict[str, Any] = {"color": "0.35", "linewidth": 0.7, "zorder": 1}
_MARK: dict[str, Any] = {"marker": "o", "color": "0.35", "markersize": 4, "markeredgewidth": 0.8, "linestyle": ""}


@dataclass(frozen=True)
class _Series:
    """One curve in each panel."""

    source: Source
    at: dict[Hashable, Any]
    """The value of the dimension that has a curve for each value."""
    told: dict[Any, Any]
    """Parameters that tell it apart from the others."""
    copy: int = 0
    """How many of the same parameters and the same kind were before it."""

    @property
    def key(self) -> str:
        return repr((self.told, self.copy))

    @property
    def text(self) -> str:
        return described(self.told) + (f" ({self.copy + 1})" if self.copy else "")

    def values(self, name: str) -> xr.DataArray | None:
        """Return what it draws of a variable, if anything."""
        if name not in self.source.names:
            return None
        values = self.source.data[name]
        return values.sel({dim: value for dim, value in self.at.items() if dim in values.dims})


def curves(sources: Sequence[Source], levels: Sequence[Source], width: float) -> tuple[Figure, list[Any]]:
    """Draw every variable in a panel, the entries of an array in one; of one model the errors in one, or the losses.

    Returns the figure and its panels.

    Raises
    ------
    ValueError
        If the results are not over one and the same dimension.
    """
    axes_of = [source.axes() for source in sources]
    xs = list(dict.fromkeys(axes[0] for axes in axes_of if axes is not None))
    if len(xs) != 1 or None in axes_of:
        given = "; ".join(", ".join(map(str, source.dims)) for source in sources)
        raise ValueError(
            f"results with the dims {given} do not go into one picture: allowed are curves over one and the same dim"
        )
    series = _series(sources)
    names = list(dict.fromkeys(name for source in sources for name in source.names if xs[0] in source.data[name].dims))
    keys = list(dict.fromkeys(one.key for one in series))
    by_key = dict(zip(keys, looks(len(keys), ordered=len(keys) > 2 and _is_scale(series)), strict=True))
    panels = _panels(names, sources, len(keys) == 1)
    if len(keys) > 1 and any(len(panel) > 1 for panel in panels):  # dashes and markers are for the entries
        by_key = {key: replace(look, dash="-", marker="o") for key, look in by_key.items()}
    kinds = {one.source.simulated for one in series}
    figure, axes = grid(len(panels), width, more=0.2 if len(keys) > 1 or len(kinds) > 1 or levels else 0.0)
    for ax, panel in zip(axes, panels, strict=True):
        for one in series:
            for i, name in enumerate(panel):
                look = by_key[one.key]
                if len(panel) > 1:
                    own = looks(len(panel))[i]
                    look = own if len(keys) == 1 else replace(own, color=look.color)
                _draw(one, name, ax, look, None if len(panel) > 1 else one.text)
        if len(panel) > 1:
            _panel_legend(ax, panel, series, len(keys) == 1)
        low, high = ax.get_ylim()
        if high - low < _ROUNDING:  # what is constant but for rounding is a straight line
            middle = 0.5 * (low + high)
            ax.set_ylim(middle - 0.05, middle + 0.05)
    _draw_levels(levels, panels, axes)
    inner_labels_off(axes)
    _legend(figure, series, by_key, levels)
    for ax in axes:
        if ax.get_legend() is not None:
            clear_legend(figure, ax)
    return figure, axes


def _panels(names: Sequence[str], sources: Sequence[Source], alone: bool) -> list[list[str]]:
    """Return the variables of each panel: entries of a group together, and of curves that are alone the errors, the losses."""
    groups: dict[str, list[str]] = {}
    for name in names:
        of = next(source.data[name].attrs.get("group", name) for source in sources if name in source.names)
        for kind, members in (("error", ERRORS), ("loss", LOSSES)):
            of = f"{kind}s" if alone and name in members else of
        groups.setdefault(of, []).append(name)
    return list(groups.values())


def _panel_legend(ax: Axes, panel: Sequence[str], series: Sequence[_Series], alone: bool) -> None:
    """Say in a panel which variable is which: by colour and dash, or by the dash alone where colours are the results'."""
    from matplotlib.lines import Line2D

    source = next(one.source for one in series if panel[0] in one.source.names)
    for kind, members in (("error", ERRORS), ("loss", LOSSES)):
        if panel[0] in members:
            ax.set_ylabel(kind)
    if "group" in source.data[panel[0]].attrs:
        ax.set_ylabel(f"${source.data[panel[0]].attrs['symbol'].partition('_{')[0]}$")
    if len(panel) > _MOST_NAMED:
        return
    lines = any(not one.source.simulated for one in series)
    handles = []
    for look in looks(len(panel)):
        style = look.line() if lines else look.line() | {"linestyle": ""}
        if not alone:
            style["color"] = "0.3"
        mark: dict[str, Any] = {"marker": look.marker, "markerfacecolor": "white"} if not lines else {}
        handles.append(Line2D([], [], **style, **mark))
    texts = [legend_text(next(one.source.data for one in series if name in one.source.names), name) for name in panel]
    columns = 1 if len(panel) <= 3 else min(3, -(-len(panel) // 2))
    ax.legend(handles, texts, ncols=columns, handlelength=1.8, handletextpad=0.5, columnspacing=0.8)


def _is_scale(series: Sequence[_Series]) -> bool:
    """Return whether the curves are values of one number, and no two of the same."""
    names = {tuple(one.told) for one in series}
    numbers = all(isinstance(value, float | int) for one in series for value in one.told.values())
    return len(names) == 1 and len(names.pop()) == 1 and numbers and not any(one.copy for one in series)


def _series(sources: Sequence[Source]) -> list[_Series]:
    found: list[_Series] = []
    for source, told in zip(sources, differing(sources), strict=True):
        axes = source.axes()
        small = axes[1] if axes is not None else None
        values = [{}] if small is None else [{small: value} for value in source.data[small].values.tolist()]
        found += [_Series(source, at, told | at) for at in values]
    seen: dict[Any, int] = {}
    for i, one in enumerate(found):
        kind = (repr(one.told), one.source.simulated)
        found[i] = replace(one, copy=seen.get(kind, 0))
        seen[kind] = seen.get(kind, 0) + 1
    return found


def _draw(one: _Series, name: str, ax: Axes, look: Look, label: str | None) -> None:
    values = one.values(name)
    if values is None:
        return
    if "run" in values.dims:
        draw_points(values, ax, label=label, **look.points())
    else:
        band = one.source.band(name)
        if band is not None and len(values.dims) == 1:
            low, high = (edge.values for edge in band)
            line = look.line()
            shade: dict[str, Any] = {"color": line.get("color"), "alpha": _BAND_ALPHA, "linewidth": 0.0, "zorder": 1}
            ax.fill_between(values[values.dims[0]].values, low, high, **shade)
        alone = {"marker": look.marker} if int(values.notnull().sum()) == 1 else {}  # a line of one point is not seen
        draw_lines(values, ax, label=label, **look.line(), **alone)


def _legend(figure: Figure, series: Sequence[_Series], by_key: dict[str, Look], levels: Sequence[Source]) -> None:
    """Say once, above the panels, which curve is which, and what lines and points are."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    texts: list[str] = []
    kinds = {one.source.simulated for one in series}
    several = len(by_key) > 1
    for key, look in by_key.items():
        if several:
            own = [one for one in series if one.key == key]
            line = look.line() if any(not one.source.simulated for one in own) else look.line() | {"linestyle": ""}
            mark: dict[str, Any] = {"marker": look.marker, "markerfacecolor": "white"}
            if not any(one.source.simulated for one in own):
                mark = {}
            handles.append(Line2D([], [], **line, **mark))
            texts.append(own[0].text)
    if len(kinds) == 2:
        look = looks(1)[0]
        grey: dict[str, Any] = {"color": "0.3"} if several else {"color": look.color}
        handles += [Line2D([], [], **grey), Line2D([], [], **grey, linestyle="", marker="o", markerfacecolor="white")]
        texts += ["theory", f"simulation{_size(series)}"]
    shaded = [one.source for one in series if any(one.source.band(name) for name in one.source.names)]
    if shaded:
        from matplotlib.patches import Patch

        sizes = {source.parameters.get("N") for source in shaded}
        at = f" at $N={sizes.pop()}$" if len(sizes) == 1 else ""
        color = "0.3" if several else looks(1)[0].color
        handles.append(Patch(facecolor=color, alpha=_BAND_ALPHA, linewidth=0.0))
        texts.append(f"mean $\\pm$ s.d.{at}, theory")
    for stable, text in ((True, "fixed point"), (False, "unstable fixed point")):
        if any("stable" in level.data and bool((level.data["stable"] == stable).any()) for level in levels):
            handles.append(Line2D([], [], **_LEVEL | _MARK | {"linestyle": "-" if stable else "--"}))
            handles[-1].set_markerfacecolor("0.35" if stable else "white")
            texts.append(text)
    numbers = [level.made_by for level in levels if "stable" not in level.data]
    if numbers:
        handles.append(Line2D([], [], **_LEVEL, linestyle=":"))
        texts.append("optimal classifier" if {*numbers} == {"optimal_classifier"} else "reference")
    legend_above(figure, handles, texts)


def _size(series: Sequence[_Series]) -> str:
    """Return N and the number of runs of the simulations, where they are the same in all."""
    simulated = [one.source for one in series if one.source.simulated]
    sizes = {source.parameters.get("N") for source in simulated}
    runs = {source.data.sizes["run"] for source in simulated}
    parts = [f"$N={sizes.pop()}$"] if len(sizes) == 1 and None not in sizes else []
    parts += [f"mean and s.d. of {runs.pop()} runs"] if len(runs) == 1 else []
    return "".join(f", {part}" for part in parts)


def _draw_levels(levels: Sequence[Source], panels: Sequence[Sequence[str]], axes: Sequence[Axes]) -> None:
    """Draw numbers as horizontal lines with a mark at the right end: solid and filled if stable, dashed and hollow if not.

    What is far above or below the curves is a triangle at the edge: the curves would be flat otherwise.
    """
    for ax, panel in zip(axes, panels, strict=True):
        low, high = ax.get_ylim()
        span = high - low
        inside: list[float] = []
        for level in levels:
            for name in panel:
                if name not in level.names:
                    continue
                values = np.atleast_1d(level.data[name].values)
                stable = np.atleast_1d(level.data["stable"].values) if "stable" in level.data else None
                for i, value in enumerate(values.tolist()):
                    dash, face = ":", "0.35"
                    if stable is not None:
                        dash, face = ("-", "0.35") if stable[i] else ("--", "white")
                    mark = {**_MARK, "markerfacecolor": face, "clip_on": False, "transform": ax.get_yaxis_transform()}
                    if low - span <= value <= high + span:
                        inside.append(value)
                        ax.axhline(value, **_LEVEL, linestyle=dash)
                        if stable is not None:
                            ax.plot([1], [value], **mark)
                    elif not np.isnan(value):
                        at, way = (1, "^") if value > high else (0, "v")
                        ax.plot([1], [at], **mark | {"marker": way, "transform": ax.transAxes})
        if inside:
            margin = 0.05 * span
            ax.set_ylim(min(low, min(inside) - margin), max(high, max(inside) + margin))


def plane(source: Source, width: float) -> tuple[Figure, list[Any]]:
    """Draw the fixed points of one model in the plane of the first two variables."""
    figure, (ax,) = grid(1, width)
    first, second = (source.data[name] for name in [n for n in source.names if n not in ERRORS][:2])
    stable = source.data["stable"].values if "stable" in source.data else np.ones(first.shape, bool)
    for kind, face, marker, text in ((stable, "C0", "o", "stable"), (~stable, "white", "s", "unstable")):
        if kind.any():
            style = {"color": "C0", "markerfacecolor": face, "markeredgewidth": 0.9, "markersize": 4.5}
            ax.plot(first.values[kind], second.values[kind], marker, label=text, **style)
    ax.margins(0.15)
    ax.set(xlabel=text_of(first), ylabel=text_of(second))
    label_axes(ax, str(first.name), second)
    handles, texts = ax.get_legend_handles_labels()
    legend_above(figure, handles, texts)
    return figure, [ax]
