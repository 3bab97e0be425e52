"""Figures of the study xor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import draw_lines, draw_points, label_panels, legend_above, new_figure, style, symbol
from studies.xor.claims import resting_length

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures"]

_TITLES = {"relu": "ReLU units", "erf": "erf units"}
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "C0", "marker": "o", "linestyle": "-"},
    {"color": "C1", "marker": "s", "linestyle": (0, (4, 1.6))},
    {"color": "C2", "marker": "^", "linestyle": (0, (1, 1.2))},
)
_EPSILON = r"training $\varepsilon$"


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return learning, the collapse, and the random starts."""
    return {"learning": _learning(data), "collapse": _collapse(data), "starts": _starts(data)}


def _learning(data: xr.Dataset) -> Figure:
    """Draw E, S and the overlaps with the own centres over alpha: kinds of units in rows."""
    kinds = list(dict.fromkeys(data.line_activation.values))
    figure, axes = new_figure(len(kinds), 3, width="double", height=2.5 * len(kinds))
    handles: dict[str, Any] = {}
    for row, kind in zip(axes, kinds, strict=True):
        lines = [i for i in range(data.sizes["line"]) if data.line_activation.values[i] == kind]
        for look, i in zip(_LOOKS, lines, strict=False):
            one = data.isel(line=i)
            epsilon = float(one.line_epsilon)
            label = "standard training" if epsilon == 0 else rf"AT, $\varepsilon={epsilon:g}$"
            line, points = _split(look)
            for ax, name in zip(row[:2], ("error", "fgsm_error"), strict=True):
                (drawn,) = draw_lines(one[name], ax, **line)
                handles[f"theory, {label}"] = drawn
                made = draw_points(one[f"simulated_{name}"], ax, **points)
                handles[f"$N={int(one.line_N)}$, {label}"] = made
            for unit in range(4):
                own = {"unit": unit, "cluster": int(np.abs(one.M.values[-1, unit]).argmax())}
                draw_lines(one.M.isel(own), row[2], **line)
                draw_points(one.simulated_M.isel(own), row[2], **points)
        with style():
            row[0].set_title(_TITLES[kind], loc="left")
            row[0].set(ylabel=symbol("error"), xlabel=symbol("alpha"))
            row[1].set(ylabel=r"$S_\mathrm{FGSM}$ at $\varepsilon_\mathrm{test}=0.3$", xlabel=symbol("alpha"))
            row[2].set(ylabel=r"largest $M_{ka}$ of each unit", xlabel=symbol("alpha"))
    with style():
        label_panels(axes.flat)
        legend_above(figure, list(handles.values()), list(handles))
    return figure  # type: ignore[no-any-return]


def _split(look: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the look of a line, and that of points."""
    line = {"color": look["color"], "linestyle": look["linestyle"]}
    return line, {"color": look["color"], "fmt": look["marker"], "markersize": 3}


def _collapse(data: xr.Dataset) -> Figure:
    """Draw the branch over epsilon, the rounded collapse with simulations, and the critical epsilon over v."""
    figure, ((branch, rounded, critical),) = new_figure(1, 3, width="double", height=2.6)
    with style():
        for look, v in zip(_LOOKS, data.v.values, strict=False):
            one = data.sel(v=v).dropna("length", subset=["resting_epsilon"])
            end = float(one.critical_epsilon)
            x = [*one.resting_epsilon.values, end]
            branch.plot(x, [*one.length.values, 0.0], **_split(look)[0], label=f"$v={v:g}$")
            branch.plot(end, 0.0, look["marker"], color=look["color"], markersize=4, clip_on=False, zorder=4)
        branch.set(xlabel=r"$\varepsilon$", ylabel="length $q$ of the weights", ylim=(0, None))
        branch.set_title(r"$\eta\to0$", loc="left")
        branch.legend()
        shown = data.dropna("size", subset=["noisy_length"])
        fine = np.linspace(
            float(data.noisy_critical) * shown["size"].values.min(), float(data.noisy_critical) * 1.15, 200
        )
        rounded.plot(
            fine / float(data.noisy_critical),
            resting_length(data, fine),
            color="0.5",
            linestyle=":",
            label=r"$\eta\to0$",
        )
        rounded.plot(shown["size"], shown.noisy_length, color="C0", label=rf"theory, $\eta={float(data.noisy_eta):g}$")
        runs = data.simulated_length
        rounded.errorbar(
            data.simulated_size, runs.mean("simulated_run"), runs.std("simulated_run", ddof=1), fmt="o", color="C0",
            markersize=3.5, label=f"$N={int(data.simulated_N)}$",
        )  # fmt: skip
        rounded.set(xlabel=r"$\varepsilon/\varepsilon_c$", ylabel=r"$\sqrt{Q_{kk}}$", ylim=(0, None))
        rounded.set_title(f"$v={float(data.noisy_v):g}$", loc="left")
        rounded.legend()
        _over_v(data, critical)
        label_panels([branch, rounded, critical])
    return figure  # type: ignore[no-any-return]


def _over_v(data: xr.Dataset, ax: Axes) -> None:
    from studies.xor.claims import HALF, extrapolated
    from studies.xor.measure import critical_epsilon

    v = np.geomspace(0.002, 0.4, 60)
    ax.plot(v, [critical_epsilon(one) for one in v], color="black", label="equation")
    ax.plot(data.v, extrapolated(data), "o", color="C0", markersize=4, label="continuation")
    ax.axhline(HALF, color="0.6", linestyle="--", linewidth=0.8, label="half the distance")
    ax.set(xscale="log", xlabel="$v$", ylabel=r"critical $\varepsilon_c$", ylim=(0, 0.95))
    ax.legend()


def _starts(data: xr.Dataset) -> Figure:
    """Draw the share over epsilon, the shares of all conditions, and the growth rates."""
    figure, axes = new_figure(1, 3, width="double", height=3.2)
    over, conditions, rates = axes[0]
    one = data.sel(condition="as it is")
    most = float(one.start_epsilon.max())
    with style():
        over.errorbar(one.start_epsilon, one.share, one.share_error, fmt="o-", color="C0", markersize=4)
        over.axhline(0.25, color="0.6", linestyle="--", linewidth=0.8)
        over.text(most, 0.235, "units by lot", ha="right", va="top", fontsize=7, color="0.4")
        over.set(xlabel=_EPSILON, ylabel="share that finds all clusters", ylim=(0, 1.03))
        names = list(data.condition.values)
        for look, epsilon in zip(_LOOKS, (0.0, most), strict=False):
            some = data.sel(start_epsilon=epsilon)
            at = -np.arange(len(names)) - (0.12 if epsilon else -0.12)
            conditions.errorbar(
                some.share, at, xerr=some.share_error, fmt=look["marker"], color=look["color"], markersize=3.5,
                label=rf"$\varepsilon={epsilon:g}$",
            )  # fmt: skip
        conditions.set_yticks(-np.arange(len(names)), names, fontsize=7)
        conditions.set(xlabel="share that finds all clusters", xlim=(-0.03, 1.03))
        conditions.tick_params(axis="y", which="minor", left=False)
        conditions.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
        for look, kind in zip(_LOOKS, data.turned_to.values, strict=False):
            rates.plot(
                data.rates_epsilon, data.growth.sel(turned_to=kind), **_split(look)[0], marker=look["marker"], markersize=3.5,
                label=f"like units on {kind}",
            )  # fmt: skip
        rates.set(xlabel=_EPSILON, ylabel=r"growth rate of $M_{ka}$ per $\eta\alpha$", ylim=(0, None))
        rates.legend()
        label_panels([over, conditions, rates])
    return figure  # type: ignore[no-any-return]
