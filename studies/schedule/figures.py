"""Figures of the study schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from odeflow.plot import label_panels, looks, new_figure, style, symbol
from studies.schedule.claims import gain, net_best

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from studies.schedule.plan import Plan

__all__ = ["figures"]


def figures(data: xr.Dataset, plan: Plan) -> dict[str, Figure]:
    """Return the schedules with the map of their gain, and the nets."""
    return {"theory": _theory(data, plan), "nets": _nets(data)}


def _theory(data: xr.Dataset, plan: Plan) -> Figure:
    drawn, axes = new_figure(2, 2, width="double", height=5.4)
    schedules, chosen, short, long = axes.flat
    with style():
        for k, (case, look) in enumerate(zip(plan.shown, looks(len(plan.shown)), strict=True)):
            one = data.isel(case=k)
            text = rf"$p={case.p:g}$, $\rho={case.rho:g}$, $\alpha_{{\max}}={case.alpha_max:g}$"
            ratio = one.schedule.values / case.test_epsilon
            schedules.plot(data.share, ratio, marker=look.marker, markerfacecolor="white", label=text, **look.line())
        schedules.axhline(1, color="0.7", linewidth=0.8, zorder=0)
        schedules.set(
            xlabel=r"share of the training, $\alpha/\alpha_{\max}$",
            ylabel=r"best $\varepsilon/\varepsilon_\mathrm{test}$",
        )
        schedules.set(xlim=(0, 1), ylim=(0, None))
        schedules.legend(ncols=1, loc="lower center", bbox_to_anchor=(0.5, 1.02), fontsize="small")
        values = data.choice_epsilon.sel(over_time="schedule of epsilon")
        for choice, look in zip(data.choice.values, looks(data.sizes["choice"]), strict=True):
            text = choice.replace("eta_w", r"$\eta_w$")
            chosen.plot(
                data.share,
                values.sel(choice=choice),
                marker=look.marker,
                markerfacecolor="white",
                label=text,
                **look.line(),
            )
        chosen.set(
            xlabel=r"share of the training, $\alpha/\alpha_{\max}$",
            ylabel=r"best $\varepsilon$",
            xlim=(0, 1),
            ylim=(0, None),
        )
        chosen.legend(ncols=1, loc="lower center", bbox_to_anchor=(0.5, 1.02), fontsize="small")
        for ax, alpha_max in zip((short, long), data.alpha_max.values[[0, -1]], strict=True):
            _map(drawn, ax, gain(data).sel(alpha_max=alpha_max), f"{alpha_max:g}")
        label_panels(axes.flat)
    return drawn  # type: ignore[no-any-return]


def _map(figure: Figure, ax: Axes, values: xr.DataArray, alpha_max: str) -> None:
    """Draw the gain over rho and p, with its number in each field."""
    share = 100 * values.transpose("p", "rho")
    image = ax.pcolormesh(values.rho, values.p, share, shading="nearest", vmin=0, cmap="viridis")
    for p in values.p.values:
        for rho in values.rho.values:
            one = float(share.sel(p=p, rho=rho))
            light = one < 0.6 * float(share.max())
            ax.text(
                rho, p, f"{one:.0f}", ha="center", va="center", fontsize="small", color="white" if light else "black"
            )
    bar = figure.colorbar(image, ax=ax)
    bar.set_label(r"gain of the schedule, %")
    ax.set(xlabel=symbol("rho"), ylabel=symbol("p"), title=rf"$\alpha_{{\max}}={alpha_max}$")
    ax.set(xticks=values.rho.values, yticks=values.p.values)


def _nets(data: xr.Dataset) -> Figure:
    drawn, axes = new_figure(1, 1, width="double", height=3.0)
    ax = np.ravel(axes)[0]
    best = net_best(data)
    with style():
        kinds = np.arange(data.sizes["kind"])
        for i, (shape, look) in enumerate(zip(data.shape_of.values, looks(data.sizes["shape_of"]), strict=True)):
            one = best.sel(shape_of=shape)
            at = kinds + 0.2 * (i - 1)
            ax.errorbar(
                at, one.mean("seed"), one.std("seed", ddof=1), fmt=look.marker, color=look.color, markersize=5, elinewidth=0.8,
                markerfacecolor="white", label=shape,
            )  # fmt: skip
        ax.set_xticks(kinds, [str(kind).replace(", ", "\n") for kind in data.kind.values])
        ax.set(ylabel="adversarial error $S$", xlim=(-0.5, kinds[-1] + 0.5))
        ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.02), title="radius of the training attack")
    return drawn  # type: ignore[no-any-return]
