"""Figures of the study deep_on_mnist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import label_panels, legend_above, looks, new_figure, style
from studies.deep_on_mnist.claims import main_net

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["figures"]

COLORS = {"linear": "C0", "convolutional": "C1", "residual": "C2"}
"""Of the study's own nets; any other looks like the residual one, and so in marks and dashes."""
SPACES = {"linf": r"L_\infty", "l2": "L_2"}
MARKS = {"linear": "o", "convolutional": "s", "residual": "^"}
DASHES: dict[str, Any] = {"linear": "-", "convolutional": (0, (4, 1.6)), "residual": (0, (5, 1.4, 1, 1.4))}
POINTS: dict[str, Any] = {"fmt": "o", "zorder": 3, "elinewidth": 0.8, "capthick": 0.8, "markeredgewidth": 0.9}


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return the curves, and what makes the prediction good or bad."""
    with style():
        return {"curves": _curves(data), "why": _why(data)}


def _trainings(data: xr.Dataset, norm: str) -> list[float]:
    return sorted({float(value) for value in data.epsilon.values[data.norm.values == norm]})


def _name(norm: str, epsilon: float) -> str:
    return rf"AT, ${SPACES[norm]}$, $\varepsilon={epsilon:g}$" if epsilon else "standard training"


def _curves(data: xr.Dataset) -> Figure:
    """Draw a training in each panel, a norm in each row."""
    norms = list(dict.fromkeys(data.norm.values.tolist()))
    columns = max(len(_trainings(data, norm)) for norm in norms)
    figure, axes = new_figure(len(norms), columns, width="double", height=1.75 * len(norms) + 0.6)
    for row, norm in enumerate(norms):
        trainings = _trainings(data, norm)
        for ax in axes[row, len(trainings) :]:
            ax.set_axis_off()
        for ax, epsilon in zip(axes[row], trainings, strict=False):
            shown = data.isel(case=np.flatnonzero((data.norm == norm) & (data.epsilon == epsilon)))
            for case in shown.case.values:
                _draw(ax, shown.sel(case=case))
            if epsilon:
                ax.axvline(epsilon, color="0.8", linewidth=0.8, zorder=0)
            ax.set_title(_name(norm, epsilon), fontsize=8)
            ax.set(ylim=(-0.02, 1.02), xlim=(0, None))
            ax.set_xlabel(rf"$\varepsilon_\mathrm{{test}}$, ${SPACES[norm]}$", fontsize=8)
        axes[row, 0].set_ylabel("adversarial error $S$")
    handles = []
    for net in dict.fromkeys(data.net.values.tolist()):
        label = "linear: exact" if net == "linear" else f"{net}: PGD"
        handles += axes[0, 0].plot([], [], _of(net, MARKS), color=_of(net, COLORS), label=label)
    handles += axes[0, 0].plot([], [], color=COLORS["linear"], label="linear: theory on data")
    handles += axes[0, 0].plot([], [], color="0.4", linestyle=DASHES["convolutional"], label="deep: locally linear")
    handles += axes[0, 0].plot([], [], color="0.4", linestyle=":", label="deep: Gaussian margins")
    title = f"{data.attrs['title']}; mean and s.d. over seeds"
    label_panels([ax for ax in axes.flat if ax.axison])
    legend_above(figure, handles, [str(one.get_label()) for one in handles], title=title)
    return figure  # type: ignore[no-any-return]


def _of(net: str, looks: Mapping[str, Any]) -> Any:
    """Return how a net is drawn."""
    return looks.get(net, looks["residual"])


def _draw(ax: Any, one: xr.Dataset) -> None:
    """Draw what is predicted for a net as lines, and what PGD measured as points."""
    net = one.net.item()
    if net == "linear":
        ax.plot(one.size_epsilon, one.theory, color=COLORS[net])
    else:
        ax.plot(one.size_epsilon, one.locally_linear.mean("run"), color=_of(net, COLORS), linestyle=_of(net, DASHES))
        ax.plot(one.size_epsilon, one.gaussian.mean("run"), color=_of(net, COLORS), linestyle=":", linewidth=0.9)
    _points(ax, one.test_epsilon, one.measured, color=_of(net, COLORS), fmt=_of(net, MARKS), markerfacecolor="white")


def _points(ax: Any, x: xr.DataArray, values: xr.DataArray, **options: Any) -> None:
    """Draw mean and standard deviation over the runs that there are."""
    values = values.dropna("run", how="all")
    spread = values.std("run", ddof=1) if values.sizes["run"] > 1 else 0 * values.mean("run")
    ax.errorbar(x, values.mean("run"), yerr=spread, **{**POINTS, **options})


def _why(data: xr.Dataset) -> Figure:
    """Draw the error of the prediction, how far the first deep nets are from linear, and how many images are near."""
    net = main_net(data)
    norms = list(dict.fromkeys(data.norm.values.tolist()))
    figure, axes = new_figure(len(norms), 3, width="double", height=1.8 * len(norms) + 0.2)
    texts = {
        "gap": "predicted less measured $S$",
        "nonlinearity": "deviation from linear",
        "near": "share of images near",
    }
    for row, norm in enumerate(norms):
        for ax, (name, text) in zip(axes[row], texts.items(), strict=True):
            for k, epsilon in enumerate(_trainings(data, norm)):
                chosen = (data.norm == norm) & (data.epsilon == epsilon) & (data.net == net)
                if not chosen.any():
                    continue
                one = data.isel(case=np.flatnonzero(chosen)[0])
                look = looks(len(_trainings(data, norm)))[k]
                color = look.color
                label = "standard" if not epsilon else rf"AT, $\varepsilon={epsilon:g}$"
                _points(
                    ax, one.test_epsilon, one[name], linestyle=look.dash, linewidth=0.9, label=label, **look.points()
                )
                if epsilon:
                    ax.axvline(epsilon, color=color, linewidth=0.8, linestyle=":", zorder=0)
            ax.set_ylabel(text, fontsize=8)
            ax.set_xlabel(rf"$\varepsilon_\mathrm{{test}}$, ${SPACES[norm]}$", fontsize=8)
            ax.set_xlim(0, None)
        axes[row, 0].axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axes[row, 2].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    label_panels(axes.flat)
    figure.suptitle(f"{data.attrs['title']}, {net} nets; mean and s.d. over seeds", fontsize=8)
    return figure  # type: ignore[no-any-return]
