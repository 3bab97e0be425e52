"""Figure of the study plateau."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from odeflow.plot import label_panels, looks, new_figure, style, symbol
from studies.plateau.plan import ESCAPED, ETA

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["figure"]

SHOWN = (0.0, 0.3, 0.9)  # epsilons of the runs that are drawn
DRAWN = 8  # of their runs


def figure(data: xr.Dataset) -> Figure:
    """Draw growth rates and the fixed point over epsilon, runs over alpha, and their escape times over epsilon."""
    drawn, axes = new_figure(2, 2, width="double", height=5.0)
    rates, point, runs, escapes = axes.flat
    with style():
        for eta, look in zip(data.eta.values, looks(data.sizes["eta"], ordered=True), strict=True):
            one = data.sel(eta=eta)
            every = {"markevery": max(1, data.sizes["epsilon"] // 8), "markersize": 4}
            rates.plot(
                data.epsilon, one.specialisation_rate, markerfacecolor="white",
                label=rf"$\eta={eta:g}$", **{"marker": look.marker} | look.line() | every,
            )  # fmt: skip
        rates.set(xlabel=symbol("epsilon"), ylabel=r"growth rate of the difference, $\lambda/\eta$", ylim=(0, None))
        rates.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.05))
        one = data.sel(eta=ETA)
        names = {"plateau_Q": "$Q_{11}$", "plateau_R": "$R_{11}$", "plateau_Q12": "$Q_{12}$"}
        for (name, text), look in zip(names.items(), looks(3), strict=True):
            point.plot(data.epsilon, one[name], label=text, **look.line())
        color = looks(3)[2].color
        _points(point, data.simulated_epsilon, data.simulated_Q12, color, "runs, $Q_{12}$")
        point.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        point.set(xlabel=symbol("epsilon"), ylabel=rf"fixed point, $\eta={ETA:g}$")
        point.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.05))
        for epsilon, look in zip(SHOWN, looks(len(SHOWN)), strict=True):
            of = data.sel(simulated_epsilon=epsilon)
            for run in of.difference.values[:DRAWN]:
                runs.plot(of.alpha, run, color=look.color, linewidth=0.4, alpha=0.6)
            runs.plot(
                of.alpha, of.theory_difference, **look.line() | {"color": "k", "linewidth": 1.0},
            )  # fmt: skip
            runs.plot([], [], color=look.color, linewidth=1.5, label=rf"$\varepsilon={epsilon:g}$")
        runs.plot([], [], color="k", linewidth=1.0, label="theory")
        runs.axhline(ESCAPED, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        low = float(data.theory_difference.sel(simulated_epsilon=list(SHOWN)).min())
        runs.set(xlabel=symbol("alpha"), ylabel="difference of the units $S$", yscale="log", ylim=(low / 3, 1.5))
        longest = float(data.length.sel(epsilon=list(SHOWN), method="nearest").max())
        runs.set_xlim(0, 1.25 * longest)
        runs.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.05))
        finite = np.isfinite(data.length.values)
        escapes.plot(data.epsilon[finite], data.length[finite], color="k", label="theory")
        _points(escapes, data.simulated_epsilon, data.escape, "C1", f"runs, $N={data.attrs['N']}$")
        escapes.set(xlabel=symbol("epsilon"), ylabel=rf"$\alpha$ at $S={ESCAPED:g}$, $\eta={ETA:g}$")
        escapes.set_ylim(0, 1.25 * float(data.escape.mean("run").max()))
        escapes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.05))
        label_panels(axes.flat)
    return drawn  # type: ignore[no-any-return]


def _points(ax: object, x: xr.DataArray, values: xr.DataArray, color: str, text: str) -> None:
    """Draw mean and standard deviation over the runs."""
    ax.errorbar(  # type: ignore[attr-defined]
        x, values.mean("run"), values.std("run", ddof=1), fmt="o", color=color, markersize=4, elinewidth=0.8,
        capthick=0.8, markeredgewidth=0.9, zorder=3, label=text,
    )  # fmt: skip
