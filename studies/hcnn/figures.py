"""The figures of the study hcnn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import label_panels, legend_above, looks, new_figure, style
from odeflow.plot.layout import add_title
from studies.hcnn.measure import ATTACKS, PLACES
from studies.hcnn.plan import LEVELS, NETS, PUBLISHED

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures"]

_BARS: dict[str, Any] = {"elinewidth": 0.8, "capsize": 0, "markersize": 4, "markerfacecolor": "white"}


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return all figures by name."""
    with style():
        found = {
            "rejection": rejection(data),
            "confidence": confidence(data),
            "embedded": embedded(data),
            "points": points(data),
        }
        if "linear_awpr" in data:
            found["linear"] = linear(data)
        if "unit_runs" in data:
            found["two_layers"] = two_layers(data)
        if "scikit-learn" in data.attrs["note"]:
            for name, figure in found.items():
                if name not in ("points", "linear", "two_layers"):
                    add_title(figure, f"not the data set of the study, but {data.attrs['data_set']}")
    return found


def rejection(data: xr.Dataset) -> Figure:
    """Draw the share with an accepted adversarial answer over the share of natural points that are accepted.

    A line runs through all levels; points are those of the tables, with their binomial bounds.
    """
    figure, axes = new_figure(1, 2, width="double", height=2.9)
    chosen = looks(data.sizes["eta"], ordered=True)
    handles = []
    for ax, (net, title) in zip(axes.flat, NETS.items(), strict=True):
        one = data.sel(net=net)
        for eta, look in zip(data.eta.values, chosen, strict=True):
            row = one.sel(eta=eta)
            (line,) = ax.plot(row.recall, row.awpr, **look.line(), linewidth=1.1)
            at = row.sel(level_curve=list(LEVELS))
            error = np.abs([at.awpr - at.awpr_lower, at.awpr_upper - at.awpr])
            ax.errorbar(at.recall, at.awpr, error, fmt=look.marker, color=look.color, **_BARS)
            handles.append(line)
        ax.set(
            xlabel="natural points accepted",
            ylabel="accepted wrong answer found",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        ax.set_title(f"{title} net", fontsize=8, loc="right")
    label_panels(axes.flat)
    texts = [rf"$\eta={eta:.3g}$" for eta in data.eta.values]
    legend_above(figure, handles[: len(texts)], texts)
    return figure  # type: ignore[no-any-return]


def confidence(data: xr.Dataset) -> Figure:
    """Draw the largest confidence in a wrong class over the radius, and the share above a level with the bounds of the loss."""
    figure, axes = new_figure(1, 2, width="double", height=2.9)
    left, right = axes.flat
    handles = []
    for (net, title), look in zip(NETS.items(), looks(len(NETS)), strict=True):
        one = data.sel(net=net)
        low, middle, high = np.nanquantile(one.largest.values, (0.1, 0.5, 0.9), axis=-1)
        (line,) = left.plot(data.radius, middle, **look.line(), marker=look.marker, markersize=4)
        left.fill_between(data.radius, low, high, color=look.color, alpha=0.15, linewidth=0)
        at = one.isel(radius=-1)
        right.plot(data.level_curve, at.share, **look.line())
        right.fill_between(data.level_curve, at.share_lower, at.share_upper, color=look.color, alpha=0.25, linewidth=0)
        right.plot(data.level_curve, np.minimum(at.bound, 1), color=look.color, linestyle=":", linewidth=1)
        handles.append((line, f"{title} net"))
    left.set(xlabel="radius of the attack", ylabel="largest confidence in a wrong class", ylim=(-0.02, 1.02))
    right.set(
        xlabel="level $p$", ylabel=rf"share above the level, radius {float(data.radius[-1]):.3g}", ylim=(-0.02, 1.02)
    )
    (dotted,) = right.plot([], [], color="0.4", linestyle=":", linewidth=1)
    handles.append((dotted, "bound by the loss"))
    label_panels(axes.flat)
    legend_above(figure, [handle for handle, _ in handles], [text for _, text in handles])
    return figure  # type: ignore[no-any-return]


def embedded(data: xr.Dataset) -> Figure:
    """Draw where the true class is among the embedded points, and the error behind each embedding under each attack."""
    figure, axes = new_figure(1, 2, width="double", height=3.6)
    axes[0, 0].get_gridspec().set_width_ratios([1, 1.5])
    left, right = axes.flat
    changed = data.places.sel(outcome="label change")
    cases = [(net, radius) for net in data.ranked_net.values for radius in data.ranked.values]
    colors = [look.color for look in looks(len(PLACES))]
    counts = [changed.sel(ranked_net=net, ranked=radius).values for net, radius in cases] + list(PUBLISHED.values())
    shares = np.array([one / max(np.sum(one), 1) for one in counts])
    where, bottom = np.arange(len(counts)), np.zeros(len(counts))
    for place, color, share in zip(PLACES, colors, shares.T, strict=True):
        left.bar(where, share, bottom=bottom, color=color, width=0.7, label=place)
        bottom += share
    named = [f"{NETS[str(net)]}\n{radius:.3g}" for net, radius in cases]
    left.set_xticks(where, [*named, *(f"paper\n{radius:.2g}" for radius in PUBLISHED)], fontsize=7)
    left.set(ylabel="share of the label changes", ylim=(0, 1.02), xlabel=r"net, $\eta=\xi$")
    left.xaxis.minorticks_off()
    left.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    rows = np.arange(data.sizes["row"])
    for i, (attack, look) in enumerate(zip(ATTACKS, looks(len(ATTACKS)), strict=True)):
        right.errorbar(
            data.composed_error.sel(attack=attack), rows + 0.12 * (i - 1.5), xerr=data.composed_error_se.sel(attack=attack),
            fmt=look.marker, color=look.color, label=attack, **_BARS,
        )  # fmt: skip
    titles = [str(text).replace(" xi ", r" $\xi=$").replace(" eta ", r" $\eta=$") for text in data.row_title.values]
    right.set_yticks(rows, titles, fontsize=7)
    right.invert_yaxis()
    right.yaxis.minorticks_off()
    right.grid(axis="y", color="0.92", linewidth=0.6)
    right.set(xlabel="error under the attack", xlim=(-0.02, 1.02))
    right.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    label_panels(axes.flat)
    return figure  # type: ignore[no-any-return]


def points(data: xr.Dataset) -> Figure:
    """Draw attacked images whose class has changed, and the most confident point of each class around them.

    Above each stand class and confidence; that of the most confident point is bold, that of the true class is green.
    """
    some = data.isel(shown=np.flatnonzero(data.shown_net.values == "at"))
    rows, K = some.sizes["shown"], some.sizes["point_class"]
    figure, axes = new_figure(rows, K + 2, width="double", height=0.2 + 0.85 * rows)
    for row, line in enumerate(axes):
        one = some.isel(shown=row)
        label = int(one.label)
        _picture(line[0], one.image, int(one.image_prediction), float(one.image_confidence), label)
        _picture(line[1], one.attacked, int(one.attacked_prediction), float(one.attacked_confidence), label)
        best = int(np.argmax(one.point_confidence.values))
        for k in range(K):
            point = one.isel(point_class=k)
            _picture(line[k + 2], point.point, k, float(point.point_confidence), label, bold=k == best)
    axes[-1, 0].set_xlabel("image", fontsize=7)
    axes[-1, 1].set_xlabel("attacked", fontsize=7)
    axes[-1, 2 + K // 2].set_xlabel("most confident point of each class", fontsize=7)
    return figure  # type: ignore[no-any-return]


def _picture(ax: Axes, image: xr.DataArray, said: int, p: float, label: int, *, bold: bool = False) -> None:
    pixels = np.moveaxis(image.values, 0, -1)
    ax.imshow(pixels.squeeze(), cmap="gray_r" if pixels.shape[-1] == 1 else None, vmin=0, vmax=1)
    ax.set_title(
        f"{said}\n{p:.2f}", fontsize=7, pad=1.5, color="tab:green" if said == label else "black", weight="bold" if bold else "normal"
    )  # fmt: skip
    ax.set(xticks=[], yticks=[])
    ax.minorticks_off()


def linear(data: xr.Dataset) -> Figure:
    """Draw the theory of linear nets with a reject option through what nets have, behind embeddings of several radii."""
    figure, axes = new_figure(1, 2, width="double", height=2.9)
    left, right = axes.flat
    chosen = looks(data.sizes["xi"], ordered=True)
    handles = []
    eta = data.linear_eta.values[1]
    for xi, look in zip(data.xi.values, chosen, strict=True):
        line, nets = data.linear_awpr.sel(xi=xi, linear_eta=eta), data.linear_net_awpr.sel(xi=xi, linear_eta=eta)
        left.plot(data.linear_curve, line, **look.line())
        _mean(left, data.linear_level, nets, look)
        for one in data.linear_eta.values[:2]:
            curve = data.linear_recall.sel(xi=xi), data.linear_awpr.sel(xi=xi, linear_eta=one)
            (drawn,) = right.plot(*curve, **look.line(), linewidth=0.9)
            x = data.linear_net_recall.sel(xi=xi).mean("run")
            _mean(right, x, data.linear_net_awpr.sel(xi=xi, linear_eta=one), look)
            right.annotate(
                rf"$\eta={one:g}$", (float(curve[0][0]), float(curve[1][0])), (-6, 4), textcoords="offset points", fontsize=7, ha="right",
            )  # fmt: skip
        handles.append(drawn)
    left.set(xlabel="level $p$", ylabel=rf"accepted wrong answer found, $\eta={eta:g}$")
    right.set(xlabel="natural points accepted", ylabel="accepted wrong answer found")
    label_panels(axes.flat)
    legend_above(figure, handles, [rf"$\xi={xi:g}$" for xi in data.xi.values])
    return figure  # type: ignore[no-any-return]


def _mean(ax: Axes, x: Any, runs: xr.DataArray, look: Any) -> None:
    error = runs.std("run", ddof=1) / np.sqrt(runs.sizes["run"])
    ax.errorbar(x, runs.mean("run"), error, fmt=look.marker, color=look.color, **_BARS)


def two_layers(data: xr.Dataset) -> Figure:
    """Draw the error of two-layer nets behind MCN over its radius, without an attack and under the best one, through what nets have."""
    figure, axes = new_figure(1, data.sizes["case"], width="double", height=2.9)
    attack, clean = looks(2)
    for ax, case in zip(axes.flat, data.case.values, strict=True):
        one = data.sel(case=case)
        for look, line, runs in (
            (attack, one.unit_line, one.unit_runs),
            (clean, one.unit_clean_line, one.unit_clean_runs),
        ):
            ax.plot(one.unit_curve, line, **look.line())
            _mean(ax, one.unit_xi, runs.rename(unit_run="run"), look)
        ax.set(xlabel=r"radius $\xi$ of the embedding", ylabel="error")
        ax.set_title(rf"{case}, $\eta={float(one.unit_eta):g}$", fontsize=8, loc="right")
    label_panels(axes.flat)
    handles = [axes[0, 0].plot([], [], **look.line())[0] for look in (attack, clean)]
    legend_above(figure, handles, [r"best attack of radius $\eta$", "no attack"])
    return figure  # type: ignore[no-any-return]
