"""Figure of the study online_or_batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from odeflow.plot import label_panels, looks, new_figure, style, symbol
from studies.online_or_batch.plan import LEARNERS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from odeflow.plot.looks import Look

__all__ = ["figure"]

_NAMES = {"constant": "one pass, constant rates", "falling": "one pass, falling rates", "batch": "batch optimum"}
_RUNS = {"constant": "online", "batch": "batch"}


def figure(data: xr.Dataset) -> Figure:
    """Draw the error above the least one over alpha, without and with an attack, and what the attack adds."""
    mixtures = data.sizes["mixture"]
    drawn, axes = new_figure(mixtures, 3, width="double", height=0.7 + 1.75 * mixtures)
    chosen = looks(len(LEARNERS))
    with style():
        for i, row in enumerate(axes):
            one = data.isel(mixture=i)
            for ax, test in zip(row[:2], data.test_epsilon.values, strict=True):
                _errors(ax, one.sel(test_epsilon=test), chosen)
                ax.set_ylabel(rf"$S({test:g})$ above the least" if test else "$E$ above the least")
                ax.set_title(str(one.mixture.values), fontsize="small", loc="right")
            attacked = one.isel(test_epsilon=-1)
            for learner, look in zip(LEARNERS, chosen, strict=True):
                row[2].plot(
                    one.alpha,
                    attacked.boundary_error.sel(learner=learner),
                    **look.line(),
                    marker=look.marker,
                    markersize=3,
                )
            row[2].set_ylabel("boundary error")
            row[2].set_ylim(bottom=2e-3)  # a constant label has none
            row[2].set_title(rf"test $\varepsilon={float(attacked.test_epsilon):g}$", fontsize="small", loc="right")
        for ax in axes.flat:
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(
                data.alpha.values[:: 1 + data.sizes["alpha"] // 5],
                [f"{x:g}" for x in data.alpha.values[:: 1 + data.sizes["alpha"] // 5]],
            )
            ax.minorticks_off()
        for ax in axes[-1]:
            ax.set_xlabel(symbol("alpha"))
        lines = [axes[0, 0].plot([], [], **look.line(), marker=look.marker, markersize=3)[0] for look in chosen]
        lines += axes[0, 0].plot([], [], "o", color="k", markerfacecolor="white", markersize=4)
        names = [*(_NAMES[learner] for learner in LEARNERS), "runs at finite $N$"]
        drawn.legend(lines, names, ncols=4, loc="outside upper center")
        label_panels(axes.flat)
    return drawn  # type: ignore[no-any-return]


def _errors(ax: object, one: xr.Dataset, chosen: list[Look]) -> None:
    """Draw the lines of all learners, and runs as means with standard errors."""
    least = float(one.least)
    for learner, look in zip(LEARNERS, chosen, strict=True):
        S = one.adversarial_error.sel(learner=learner) - least
        ax.plot(one.alpha, S, **look.line(), marker=look.marker, markersize=3)  # type: ignore[attr-defined]
        if learner in _RUNS:
            name = _RUNS[learner]
            runs = one[f"{name}_runs"] - least
            count = runs.sizes[f"{name}_run"]
            ax.errorbar(  # type: ignore[attr-defined]
                one.simulated_alpha, runs.mean(f"{name}_run"), runs.std(f"{name}_run", ddof=1) / np.sqrt(count), fmt="o",
                color=look.color, markerfacecolor="white", markersize=5, elinewidth=0.8, zorder=4,
            )  # fmt: skip
