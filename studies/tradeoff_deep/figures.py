"""Figure of the study tradeoff_deep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import label_panels, new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["figure"]

COLORS = {"linear": "C0", "two layers": "C1", "convolutional": "C1"}
MARKS = {"linear": "o", "two layers": "s", "convolutional": "s"}
POINTS: dict[str, Any] = {"fmt": "o", "zorder": 3, "elinewidth": 0.8, "capthick": 0.8, "markeredgewidth": 0.9}


def figure(data: xr.Dataset) -> Figure:
    """Draw S over E, above, and S over the training epsilon, below; for the mixture and for images."""
    drawn, axes = new_figure(2, 2, width="double", height=5.2)
    titles = {"mixture": r"mixture, $p=0.7$", "images": str(data.attrs["title"])}
    with style():
        for column, (world, title) in enumerate(titles.items()):
            plane, best = axes[:, column]
            test = data.test_epsilon.sel(world=world).item()
            line = [data[f"{world}_line_{key}"] for key in ("error", "adversarial_error")]
            plane.plot(*line, color="0.4", label="theory")
            best.plot(data[f"{world}_line"], line[1], color="0.4")
            at = int(np.argmin(line[1].values))
            _star(plane, line[0][at], line[1][at], "0.4")
            _star(best, data[f"{world}_line"][at], line[1][at], "0.4")
            labelled: list[Any] = []  # points that have a label
            for net in data[f"{world}_net"].values:
                _draw(plane, best, data, world, str(net), labelled)
            if world == "images":
                below = float(data.images_bound.max())
                best.axhline(below, color="k", linewidth=1.0, linestyle=":")
                plane.plot([], [], color="k", linewidth=1.0, linestyle=":", label="no classifier is below")
            best.axvline(test, color="0.8", linewidth=0.8, zorder=0)
            S = rf"adversarial error $S$ at $\varepsilon_\mathrm{{test}}={test:g}$"
            plane.set(xlabel="classification error $E$", ylabel=S)
            best.set(xlabel=r"training $\varepsilon$", ylabel=S)
            for ax in (plane, best):
                ax.yaxis.label.set_size(7.5)
            plane.plot([], [], "*", color="0.4", markeredgecolor="k", markersize=7, label=r"least $S$")
            handles, labels = plane.get_legend_handles_labels()
            plane.legend(handles, labels, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.08), title=title)
        label_panels(axes.flat)
        axes[0, 1].set_xlim(left=-0.004)
        for ax in axes[:, 1]:
            ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])
    return drawn  # type: ignore[no-any-return]


def _draw(plane: Any, best: Any, data: xr.Dataset, world: str, net: str, labelled: list[Any]) -> None:
    """Draw mean and standard deviation of the nets, and the training epsilons beside their points in the plane."""
    color, run = COLORS[net], f"{world}_run"
    chosen = data.sel({f"{world}_net": net}).dropna(run, how="all", subset=[f"{world}_error"])
    E, S = (chosen[f"{world}_{key}"] for key in ("error", "adversarial_error"))
    training = chosen[f"{world}_training"].values
    spread = {"yerr": S.std(run, ddof=1), "color": color}
    text = {"linear": "linear nets", "two layers": "nets with a hidden layer", "convolutional": "convolutional nets"}
    plane.errorbar(
        E.mean(run), S.mean(run), xerr=E.std(run, ddof=1), label=text[net], **spread, **POINTS | {"fmt": MARKS[net]}
    )
    plane.plot(E.mean(run), S.mean(run), color=color, linewidth=0.6, linestyle=":")
    best.errorbar(training, S.mean(run), **spread, **POINTS | {"fmt": MARKS[net]})
    points = np.stack([E.mean(run), S.mean(run)], axis=1)
    extent = np.ptp(data[f"{world}_adversarial_error"].mean(run).values)
    for point, epsilon in zip(points, training, strict=True):
        if all(np.abs(point - other).max() > 0.08 * extent for other in labelled):  # no text on text
            labelled.append(point)
            text_of = {"textcoords": "offset points", "fontsize": 7, "color": color, "zorder": 5}
            plane.annotate(f"{epsilon:g}", point, (4, 4), **text_of)
    at = int(np.argmin(S.mean(run).values))
    _star(plane, E.mean(run)[at], S.mean(run)[at], color)
    _star(best, training[at], S.mean(run)[at], color)


def _star(ax: Any, x: Any, y: Any, color: str) -> None:
    ax.plot(x, y, "*", color=color, markeredgecolor="k", markeredgewidth=0.5, markersize=7, zorder=4)
