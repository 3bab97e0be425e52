"""What the study of the collapse shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import draw_lines, draw_points, label_panels, looks, new_figure, style, symbol
from studies.collapse.claims import critical_at
from studies.collapse.measure import END, RECALL, SHOWN_RHO
from studies.common.images import TITLES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["figures"]

_LOOKS: dict[str, dict[str, Any]] = {
    "linear, N = 1000": {"color": "C0", "zorder": 4},
    "linear, N = 100": {"color": "C0", "markerfacecolor": "white", "markersize": 5},
    "linear, N = 100, free": {"color": "0.2", "markerfacecolor": "white"},
    "20 ReLU, random start": {"color": "C3", "fmt": "v"},
    "20 ReLU, trained start": {"color": "C2", "fmt": "^"},
    "20 + 20 ReLU, random start": {"color": "C3", "fmt": "v", "markerfacecolor": "white"},
    "20 + 20 ReLU, trained start": {"color": "C2", "fmt": "^", "markerfacecolor": "white"},
    "20 ReLU, N = 1000, random start": {"color": "C1", "fmt": "<"},
    "20 ReLU, N = 1000, trained start": {"color": "C4", "fmt": ">"},
}
_DASHES: dict[str, Any] = {"|w| = 1": "-", "free |w|": (0, (4, 1.6))}
_EPSILON = r"$\varepsilon/(\rho/2)$"
_CRITICAL = r"critical $\varepsilon/(\rho/2)$"


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Draw the mixtures, where there are, and the images."""
    mixtures = {"mixtures": _mixtures(data)} if "case" in data.dims else {}
    return mixtures | {"images": _images(data)}


def _mixtures(data: xr.Dataset) -> Figure:
    """Draw recall, b and E over epsilon, and the critical epsilon over rho and alpha."""
    figure, axes = new_figure(2, 3, width="double", height=5.2)
    (recall, bias, error), (deep, over_rho, over_alpha) = axes
    colors = {"|w| = 1": "C0", "free |w|": "0.2"}
    theory = {
        "|w| = 1": r"theory, $|w|=1$, $\eta_w=0.04$",
        "free |w|": r"theory, $|w|$ free, $\eta_w=0.4$, either start",
    }
    line = data.sel(rule="|w| = 1", size=slice(0, 1.4))
    for ax, name in ((recall, "recall"), (bias, "b"), (error, "error")):
        draw_lines(line[f"theory_{name}"], ax, color="C0", label=theory["|w| = 1"])
    free = data.sel(rule="free |w|", size=slice(0, 1.4))
    draw_lines(free.theory_recall, deep, color="0.2", linestyle=_DASHES["free |w|"], label=theory["free |w|"])
    for k in range(data.sizes["case"]):
        one = data.isel(case=k).sel(time=END)
        net = one.net.item()
        points = one.swap_dims(net_point="net_epsilon").rename(net_run="run")[["recall", "b", "error"]]
        points = points.dropna("run", how="all", subset=["recall"]).dropna("net_epsilon", how="all", subset=["recall"])
        if one.rho == SHOWN_RHO:
            panels = (
                ((recall, "recall"), (bias, "b"), (error, "error"))
                if one.net_rule == "|w| = 1"
                else ((deep, "recall"),)
            )
            for ax, name in panels:
                draw_points(points[name], ax, label=net, **_LOOKS[net])
        found = critical_at(data.isel(case=k), END)
        if np.isfinite(found).all():
            with style():
                over_rho.errorbar(one.rho + _shift(net), found.mean(), found.std(ddof=1), **_marker(net))
    for rule, color in colors.items():
        line = data.sel(rule=rule)
        draw_lines(line.theory_critical.sel(share=RECALL), over_rho, color=color, linestyle=_DASHES[rule])
        draw_lines(line.theory_critical_in_time.sel(share=RECALL), over_alpha, color=color, linestyle=_DASHES[rule])
        for ax, name, x in (
            (over_rho, "theory_critical", "line_rho"),
            (over_alpha, "theory_critical_in_time", "line_alpha"),
        ):
            ax.fill_between(
                line[x], line[name].isel(share=0), line[name].isel(share=-1), color=color, alpha=0.13, linewidth=0
            )
    for case in np.flatnonzero(data.rho.values == SHOWN_RHO):
        one = data.isel(case=int(case))
        found = {time: critical_at(one, time) for time in one.time.values.tolist()}
        found = {time: values for time, values in found.items() if values.size and np.isfinite(values).all()}
        mean, spread = ([f(values) for values in found.values()] for f in (np.mean, lambda x: np.std(x, ddof=1)))
        with style():
            over_alpha.errorbar(
                np.array(list(found)) * np.exp(1.2 * _shift(one.net.item())), mean, spread, **_marker(one.net.item())
            )
    with style():
        for ax in (recall, deep):
            ax.axhline(RECALL, color="0.6", linestyle="--", linewidth=0.7, zorder=0)
            ax.set(ylabel="recall of the minority", ylim=(-0.02, 0.85))
        for ax in (recall, bias, error, deep):
            ax.set(xlabel=_EPSILON)
        bias.set(ylabel="bias " + symbol("b"))
        error.set(ylabel="classification error " + symbol("error"))
        recall.set_title(r"linear, $|w|=1$, $\rho=2$", loc="left")
        deep.set_title(r"$|w|$ free, $\rho=2$", loc="left")
        over_rho.set(xlabel=symbol("rho"), ylabel=_CRITICAL, ylim=(0, 1.45))
        over_alpha.set(xlabel=symbol("alpha"), ylabel=_CRITICAL, xscale="log", ylim=(0, 1.6))
        over_rho.set_title("bands: recall 0.05 to 0.2", loc="left", fontsize=8)
        over_alpha.set_title(r"$\rho=2$", loc="left")
        label_panels(axes.flat)
        handles: dict[str, Any] = {}
        for ax in (recall, deep):
            handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
        runs = "; points: mean and s.d. over nets"
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3,
                      title=rf"Mixtures, $p=0.7$, $\alpha=100${runs}", title_fontsize=8)  # fmt: skip
    return figure  # type: ignore[no-any-return]


def _shift(net: str) -> float:
    """Return by how much a ReLU net's points are moved aside, so that they can be told apart."""
    return 0.04 * max(list(_LOOKS).index(net) - 5, -2) if "ReLU" in net else 0.0


def _marker(net: str) -> dict[str, Any]:
    return {"fmt": "o", "elinewidth": 0.8, "zorder": 3, **_LOOKS[net]}


def _images(data: xr.Dataset) -> Figure:
    """Draw the recall over epsilon: linear classifiers in each norm, and convolutional nets."""
    norms = [norm for norm in ("l2", "linf") if norm in data.image_norm]
    figure, axes = new_figure(1, len(norms) + 1, width="double", height=3.6)
    names = {"l2": "$L_2$", "linf": r"$L_\infty$"}
    pairs = list(dict.fromkeys(data.classes.values.tolist()))
    for ax, norm in zip(axes[0], norms, strict=False):
        for k in np.flatnonzero(data.image_norm.values == norm):
            one = (
                data.isel(pair=k)
                .swap_dims(image_point="image_epsilon")
                .dropna("image_epsilon", subset=["image_recall"])
            )
            of_pair = looks(len(pairs))[pairs.index(one.classes.item())]
            color = of_pair.color
            for theory, dash in (("eta -> 0", ":"), ("with noise", "-")):
                draw_lines(
                    one.image_theory_recall.sel(image_theory=theory), ax, color=color, linestyle=dash, linewidth=1
                )
            draw_points(one.image_recall.rename(image_run="run"), ax, label=one.classes.item(), **of_pair.points())
        with style():
            ax.set_title(f"linear, {names[norm]}", loc="left")
            ax.plot([], [], color="0.3", linewidth=1, label="theory with noise")
            ax.plot([], [], color="0.3", linestyle=":", linewidth=1, label=r"theory, $\eta\to0$")
    deep = axes[0, -1]
    for kind in data.conv.values:
        norm, ramp = kind.split(", ")
        one = data.sel(conv=kind).swap_dims(conv_point="conv_epsilon").dropna("conv_epsilon", subset=["conv_recall"])
        slow = ramp != "ramp 0"
        look: dict[str, Any] = {"markerfacecolor": "white"} if slow else {}
        look["fmt"] = ("s" if norm == "l2" else "D") + ("--" if slow else "-")
        text = f"{names[norm]}, {'growing ' if slow else ''}" + r"$\varepsilon$" + ("" if slow else " at once")
        draw_points(one.conv_recall.rename(seed="run"), deep, color="C3" if norm == "l2" else "C4", label=text, linewidth=0.8, **look)  # fmt: skip
    with style():
        deep.set_title(f"{data.attrs['deep']}, {data.attrs['deep_classes']}", loc="left")
        for ax in axes[0]:
            ax.axhline(RECALL, color="0.6", linestyle="--", linewidth=0.7, zorder=0)
            ax.axvline(1, color="0.8", linewidth=0.8, zorder=0)
            ax.set(
                xlabel=r"$\varepsilon\,/\,\frac{1}{2}\|m_+-m_-\|$", ylabel="recall of the minority", ylim=(-0.04, 1.04)
            )
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3))
        label_panels(axes[0])
        figure.suptitle(
            f"{TITLES[data.attrs['data_set']]}: 70 % of the training images in the majority\npoints: mean and s.d. over runs",
            fontsize=8,
        )
    return figure  # type: ignore[no-any-return]
