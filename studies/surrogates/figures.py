"""Figure of the study surrogates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from odeflow.plot import label_panels, looks, new_figure, style, symbol
from studies.surrogates.plan import TESTS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["figure"]

_RULES = {"seed": "theory, squared loss of erf", "logistic": "theory, logistic loss"}


def figure(data: xr.Dataset) -> Figure:
    """Draw the theory over time through its runs, the nets' errors over the theory's, and how far the orders agree."""
    drawn, axes = new_figure(2, 3, width="double", height=5.2)
    chosen = dict(zip(data.learner.values, looks(data.sizes["learner"]), strict=True))
    at = 1.0  # the training's size
    with style():
        for ax, rule in zip(axes[0, :2], data.rule.values, strict=True):
            for name, look in chosen.items():
                one = data.sel(rule=rule, learner=name, size=at)
                ax.plot(one.alpha, one.line, **look.line())
                runs = one.runs
                error = runs.std("run", ddof=1) / np.sqrt(runs.sizes["run"])
                ax.errorbar(
                    one.alpha[-1] * 1.05, runs.mean("run"), error, fmt=look.marker, color=look.color,
                    markerfacecolor="white", markersize=4, elinewidth=0.8, zorder=4,
                )  # fmt: skip
            ax.set(xscale="log", xlabel=symbol("alpha"), ylabel=r"$S$ at the training's $\varepsilon$")
            ax.set_title(_RULES[str(rule)], fontsize=7, loc="right")
        _agreement(axes[0, 2], data)
        curves, *scatter = axes[1]
        for name, look in chosen.items():
            one = data.theory.sel(rule="logistic", learner=name)
            curves.plot(one["size"], one, **look.line(), marker=look.marker, markersize=3)
        curves.set(xlabel=r"test $\varepsilon$ / training's", ylabel="$S$ at the end")
        curves.set_title(_RULES["logistic"], fontsize=7, loc="right")
        for ax, kind in zip(scatter, data.kind.values, strict=True):
            for name, look in chosen.items():
                x = float(data.theory.sel(rule="logistic", learner=name, size=at))
                nets = data.net.sel(kind=kind, learner=name, size=at)
                ax.plot([x] * nets.size, nets, look.marker, color=look.color, markersize=3, alpha=0.5)
                ax.plot(x, nets.mean(), look.marker, color=look.color, markerfacecolor="white", markersize=6)
            ax.set(xlabel="$S$ in theory, logistic loss", ylabel="$S$ of nets")
            ax.set_title(f"{kind} nets", fontsize=7, loc="right")
        lines = [
            axes[0, 0].plot([], [], **look.line(), marker=look.marker, markersize=4, markerfacecolor="white")[0]
            for look in chosen.values()
        ]
        drawn.legend(lines, list(chosen), ncols=4, loc="outside upper center")
        label_panels(axes.flat)
    return drawn  # type: ignore[no-any-return]


def _agreement(ax: object, data: xr.Dataset) -> None:
    """Draw tau over the size of the test attack, and what a random order has."""
    for pair, look in zip(data.pair.values, looks(data.sizes["pair"]), strict=True):
        tau = data.tau.sel(pair=pair)
        ax.plot(tau.test, tau, **look.line(), marker=look.marker, markersize=3, label=str(pair))  # type: ignore[attr-defined]
    ax.axhspan(-1, float(data.chance), color="0.9", zorder=0)  # type: ignore[attr-defined]
    ax.set(  # type: ignore[attr-defined]
        xlabel=r"test $\varepsilon$ / training's", ylabel=r"Kendall's $\tau$", ylim=(-0.6, 1.05), xticks=list(TESTS)
    )
    ax.legend(fontsize=7, loc="lower left")  # type: ignore[attr-defined]
