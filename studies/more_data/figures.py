"""The figures of the study more_data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import label_panels, looks, new_figure, style
from studies.more_data.theory import MIXTURE

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures"]

_BARS: dict[str, Any] = {"elinewidth": 0.8, "capthick": 0.8, "markersize": 4, "markeredgewidth": 0.9, "zorder": 3}


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return all figures by name."""
    with style():
        return {"gap": _gaps(data), "errors": _errors(data), "cost": _costs(data)}


def _worlds(data: xr.Dataset) -> list[str]:
    return [str(world) for world in dict.fromkeys(data.world.values)]


def _rows(data: xr.Dataset, world: str) -> list[xr.Dataset]:
    """Return what was measured after adversarial training, one epsilon after the other."""
    own = np.flatnonzero((data.world == world) & (data.epsilon > 0))
    return [data.isel(row=k).dropna("size", subset=["examples"]) for k in own]


def _title(row: xr.Dataset) -> str:
    norm = {"l2": "$L_2$", "linf": r"$L_\infty$"}[row.norm.item()]
    kind = {"linear": "linear", "deep": "convolutional"}[row.kind.item()]
    return f"{row.title.item()}\n{kind}, {norm}"


def _size(row: xr.Dataset) -> str:
    epsilon = row.epsilon.item()
    return f"{255 * epsilon:g}/255" if "cifar10 deep" in row.world.item() else f"{epsilon:g}"


def _legend(ax: Axes, title: str) -> None:
    handles, texts = ax.get_legend_handles_labels()
    ax.legend(
        handles, texts, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.02), title=title, fontsize=6.5,
        title_fontsize=7, columnspacing=0.8, handlelength=1.6, handletextpad=0.4,
    )  # fmt: skip


def _over_images(ax: Axes, text: str) -> None:
    """Label the axes; on a short range the smaller ticks would be written over each other."""
    from matplotlib.ticker import NullFormatter

    ax.set(xscale="log", xlabel="labelled images", ylabel=text)
    ax.xaxis.set_minor_formatter(NullFormatter())


def _gaps(data: xr.Dataset) -> Figure:
    """Draw the gap over the number of examples, of theory and of each world; and of theory over epsilon."""
    worlds = _worlds(data)
    per_kind = len(worlds) // 2
    figure, axes = new_figure(2, 1 + per_kind, width="double", height=6.2)
    first, second = axes[:, 0]
    gap = data.theory_adversarial_error - data.theory_error
    for epsilon, look in zip(
        data.theory_epsilon.values, looks(data.sizes["theory_epsilon"], ordered=True), strict=True
    ):
        own = gap.sel(theory_epsilon=epsilon)
        first.plot(data.alpha, own.sel(theory="batch"), label=rf"$\varepsilon={epsilon:g}$", color=look.color)
        first.plot(data.alpha, own.sel(theory="online"), color=look.color, linestyle="--", linewidth=1.0)
    first.set(xscale="log", xlabel=r"$\alpha$, examples per dimension", ylabel="$S-E$", ylim=(0, None))
    _legend(first, f"theory, mixture with $\\rho={MIXTURE.rho:g}$\nleast loss; dashed: one pass")
    lines = {
        "gap_without_data": ("no data, $R=0$", looks(2)[0]),
        "gap_with_all_data": ("all data, $R=1$", looks(2)[1]),
    }
    for name, (text, look) in lines.items():
        second.plot(data.line_epsilon, data[name], label=text, **look.line())
    second.axvline(MIXTURE.rho / 2, color="0.8", linewidth=0.8, zorder=0)
    second.set(xlabel=r"$\varepsilon$", ylabel="$S-E$", ylim=(0, None))
    _legend(second, r"theory: the lines cross at $\rho/2$")
    for ax, world in zip([*axes[0, 1:], *axes[1, 1:]], worlds, strict=True):
        rows = _rows(data, world)
        for row, look in zip(rows, looks(len(rows), ordered=True), strict=True):
            colour = look.color
            ax.errorbar(row.examples, row.gap, row.gap_se, label=_size(row), color=colour, fmt=look.marker + "-", linewidth=1.0, **_BARS)  # fmt: skip
            ax.plot(row.examples, row.standard_gap, color=colour, linestyle=":", linewidth=1.0)
        _over_images(ax, "$S-E$")
        ax.set_ylim(0, None)
        _legend(ax, _title(rows[0]))
    label_panels(axes.flat)
    figure.suptitle(
        r"points: adversarial training at the $\varepsilon$ of the test; dotted: standard training", fontsize=7
    )
    return figure  # type: ignore[no-any-return]


def _errors(data: xr.Dataset) -> Figure:
    """Draw E and S over the number of examples, and what no classifier can avoid."""
    worlds = _worlds(data)
    figure, axes = new_figure(2, len(worlds) // 2, width="double", height=6.0)
    for ax, world in zip(axes.flat, worlds, strict=True):
        rows = _rows(data, world)
        for row, look in zip(rows, looks(len(rows), ordered=True), strict=True):
            E, S = row.error, row.adversarial_error
            spread = (S.std("run", ddof=1) if row.sizes["run"] > 1 else 0 * S.mean("run")).fillna(0.0)
            ax.errorbar(row.examples, S.mean("run"), spread, label=_size(row), color=look.color, fmt=look.marker + "-", linewidth=1.0, **_BARS)  # fmt: skip
            ax.plot(row.examples, E.mean("run"), color=look.color, linestyle="--", linewidth=1.0)
            if row.bound.item() > 0:
                ax.axhline(row.bound.item(), color=look.color, linestyle=":", linewidth=1.2, zorder=1)
        _over_images(ax, "$E$, $S$")
        ax.set_ylim(0, None)
        _legend(ax, _title(rows[0]))
    label_panels(axes.flat)
    figure.suptitle(
        "points: $S$ after adversarial training, mean and s.d. of the nets; dashed: $E$; dotted: no classifier is below",
        fontsize=7,
    )
    return figure  # type: ignore[no-any-return]


def _costs(data: xr.Dataset) -> Figure:
    """Draw what adversarial training costs of the clean error, over the number of examples."""
    worlds = _worlds(data)
    figure, axes = new_figure(2, len(worlds) // 2, width="double", height=5.6)
    for ax, world in zip(axes.flat, worlds, strict=True):
        rows = _rows(data, world)
        for row, look in zip(rows, looks(len(rows), ordered=True), strict=True):
            ax.errorbar(row.examples, row.cost, row.cost_se, label=_size(row), color=look.color, fmt=look.marker + "-", linewidth=1.0, **_BARS)  # fmt: skip
        ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        _over_images(ax, r"$E$ after AT $-$ $E$ after standard training")
        _legend(ax, _title(rows[0]))
    label_panels(axes.flat)
    return figure  # type: ignore[no-any-return]
