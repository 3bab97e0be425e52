"""The figures of the study attacks: what accuracy is left over the time spent, success over queries, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepcheck.plot_attacks import Pictures, plot_attacked
from odeflow.plot import label_panels, legend_above, looks, new_figure, style
from odeflow.plot.layout import add_title
from studies.attacks.found import LABELS, NORM_TITLES, Net, main_rows
from studies.attacks.plan import KINDS, OTHER
from studies.common.names import name_points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures", "over_time"]

_KINDS = (*KINDS.values(), OTHER)
_ROWS = 9
"""Attacks on a page of pictures."""


def figures(data: xr.Dataset, class_names: Mapping[str, Sequence[str]]) -> dict[str, Figure]:
    """Return all figures by name; `class_names` by data set."""
    nets = [Net(data, str(name)) for name in data.net.values if name != "masked"]
    with style():
        found = {f"time_{net.name}": over_time(net) for net in nets}
        by_queries = _over_queries(nets)
        if by_queries is not None:
            found["queries"] = by_queries
        for dataset, names in class_names.items():
            found |= _pictures(data, dataset, names)
        if "scikit-learn" in data.attrs["note"]:
            for name, figure in found.items():
                if not name.startswith("pictures"):
                    add_title(figure, f"not the data set of the study, but {data.attrs['data_set']}")
    return found


# --- accuracy that is left, over time ---


def over_time(net: Net) -> Figure:
    """Draw the robust accuracy under each attack over the time that it takes an image, in each norm.

    The line is the least accuracy for a time: attacks on it are not beaten by one that is quicker. The dashed line is what
    all attacks together leave.
    """
    norms = [norm for norm in NORM_TITLES if net.attacks(norm)]
    rows = -(-len(norms) // 2)
    figure, axes = new_figure(rows, min(len(norms), 2), width="double", height=2.75 * rows + 0.2)
    kinds = dict(zip(_KINDS, looks(len(_KINDS)), strict=True))
    used: dict[str, Any] = {}
    texts: list[tuple[Axes, Any, Any, list[str]]] = []
    for ax, norm in zip(axes.flat, norms, strict=False):
        found = main_rows(net, norm)
        seconds = np.array([float(row.seconds) for row in found])
        robust = np.array([float(row.robust_accuracy) for row in found])
        for kind in dict.fromkeys(row.kind.item() for row in found):
            some = np.array([row.kind.item() == kind for row in found])
            look = kinds[kind]
            (used[kind],) = ax.plot(
                seconds[some], robust[some], linestyle="none", marker=look.marker, color=look.color, markersize=4,
                label=kind, clip_on=False, zorder=3,
            )  # fmt: skip
        least = np.minimum.accumulate(robust)
        front = np.concatenate([[True], least[1:] < least[:-1]])
        ax.step([*seconds[front], seconds[-1]], [*robust[front], least[-1]], where="post", color="0.6", linewidth=0.8)
        attacks = net.attacks(norm)
        together = net.robust(attacks, norm, net.most_images(attacks, norm))
        ax.axhline(together, color="0.35", linewidth=0.8, linestyle=(0, (4, 2)))
        ax.set_xscale("log")
        low, high = seconds.min(), seconds.max()
        ax.set(ylim=(-0.04, 1), xlim=(low / 1.6, high * (high / low) ** 0.45 * 1.6))
        ax.set_title(rf"{NORM_TITLES[norm]}, $\varepsilon={net.epsilon(norm):.3g}$", fontsize=7.5)
        ax.set_xlabel("time of a processor, s an image")
        texts.append((ax, seconds, robust, [str(row.attack.item()) for row in found]))
    for ax in axes.flat[len(norms) :]:
        ax.remove()
    for ax in axes[:, 0]:
        ax.set_ylabel(f"robust accuracy, {LABELS[net.name]}")
    label_panels(axes.flat[: len(norms)])
    legend_above(figure, list(used.values()), list(used))
    figure.draw_without_rendering()  # now it is known where the points are
    for one in texts:
        name_points(figure, *one)
    return figure  # type: ignore[no-any-return]


# --- success over queries ---


def _over_queries(nets: Sequence[Net]) -> Figure | None:
    """Draw the share of the correctly classified images that an attack has broken within a number of queries."""
    shown = [(net, norm) for norm in ("linf", "l2") for net in nets[:2] if any(_curves(net, norm))]
    if not shown:
        return None
    figure, axes = new_figure(1, len(shown), width="double", height=2.6)
    names = list(dict.fromkeys(name for net, norm in shown for name, _, _ in _curves(net, norm)))
    chosen = dict(zip(names, looks(len(names)), strict=True))
    handles: dict[str, Any] = {}
    for ax, (net, norm) in zip(axes.flat, shown, strict=True):
        for name, queries, share in _curves(net, norm):
            (handles[name],) = ax.step(queries, share, where="post", **chosen[name].line(), label=name)
        ax.set_xscale("log")
        ax.set(ylim=(0, 1), xlabel="queries")
        title = rf"{LABELS[net.name]}, {NORM_TITLES[norm]}, $\varepsilon={net.epsilon(norm):.3g}$"
        ax.set_title(title, fontsize=7.5)
    axes[0, 0].set_ylabel("share that is broken")
    label_panels(axes[0])
    legend_above(figure, list(handles.values()), list(handles))
    return figure  # type: ignore[no-any-return]


def _curves(net: Net, norm: str) -> list[tuple[str, Any, Any]]:
    """Return the attacks by queries of a norm: name, numbers of queries, and shares of the images that took no more."""
    curves = []
    for name in net.attacks(norm, [KINDS["black_box"]]):
        row = net.row(name, norm)
        count = int(row.images)
        correct = net.correct(count)
        queries = row.queries.values[:count][correct]
        broken = row.broken.values[:count][correct] == 1
        if not correct.any():
            continue
        steps = np.unique(queries[broken])
        share = [float((broken & (queries <= step)).mean()) for step in steps]
        curves.append((name, np.array([1.0, *steps, queries.max()]), np.array([0.0, *share, float(broken.mean())])))
    return curves


# --- pictures ---


def _pictures(data: xr.Dataset, dataset: str, class_names: Sequence[str]) -> dict[str, Figure]:
    """Return pictures of every attack on the first net of a data set, in its first norm, so many on a page."""
    own = data[[name for name in data.variables if str(name).startswith(f"{dataset}_")]]

    def pictures(kind: str, case: int | None = None) -> Pictures:
        one = own if case is None else own.isel({f"{dataset}_case": case})
        fields = ("image", "prediction", "confidence") if kind else ("image", "image_prediction", "image_confidence")
        return Pictures(*(one[f"{dataset}_{kind}{name}"].values for name in fields))

    clean = pictures("clean_")
    first: dict[str, int] = {}
    for index, name in enumerate(own[f"{dataset}_case"].values):
        first.setdefault(str(name).rpartition("_")[0], index)
    cases = list(first.values())
    pages = -(-len(cases) // _ROWS)
    each = -(-len(cases) // pages)
    found = {}
    for page in range(pages):
        some = cases[page * each : (page + 1) * each]
        shown = {_title(str(own[f"{dataset}_case"].values[index])): pictures("", index) for index in some}
        found[f"pictures_{dataset}_{page + 1}"] = plot_attacked(clean, shown, class_names=class_names)
    return found


def _title(case: str) -> str:
    attack, _, norm = case.rpartition("_")
    return f"{attack}, {NORM_TITLES.get(norm, norm)}"
