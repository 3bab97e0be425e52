"""The figures of the study defences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepcheck.plot_attacks import Pictures, plot_attacked
from odeflow.plot import label_panels, legend_above, looks, new_figure, style
from odeflow.plot.layout import add_title
from studies.defences.found import Found
from studies.defences.plan import COLUMNS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures", "gaps"]

_ROWS = 9
"""Subjects on a page of pictures."""


def figures(data: xr.Dataset, class_names: Sequence[str]) -> dict[str, Figure]:
    """Return all figures by name."""
    with style():
        found = {"gap": gaps(data)}
        if "mean_corruption_error" in data:
            found["corruptions"] = _corruptions(data)
        if "scikit-learn" in data.attrs["note"]:
            for figure in found.values():
                add_title(figure, f"not the data set of the study, but {data.attrs['data_set']}")
        found |= _pictures(data, class_names)
    return found


def gaps(data: xr.Dataset) -> Figure:
    """Draw the accuracies of each subject from the claimed evaluation to the adaptive one, and their difference.

    The largest gap is above. Bars are standard errors: of a share, and of a difference on the same images.
    """
    order = np.argsort(data.gap.values, kind="stable")
    one = data.isel(subject=order)
    height = np.arange(len(order))
    figure, axes = new_figure(1, 2, width="double", height=1.1 + 0.19 * len(order))
    axes[0, 0].get_gridspec().set_width_ratios([1.7, 1])
    left, right = axes[0]
    handles = []
    clean = left.scatter(one.accuracy, height, marker="|", s=30, color="0.5", zorder=2)
    left.hlines(height, one.adaptive, one.claimed, color="0.75", linewidth=1.2, zorder=1)
    for column, look in zip(COLUMNS, looks(len(COLUMNS)), strict=True):
        handles.append(
            left.errorbar(
                one[column], height, xerr=one[f"{column}_se"], fmt=look.marker, color=look.color, markersize=4, elinewidth=0.8,
                capsize=0, zorder=3,
            )
        )  # fmt: skip
    left.set_yticks(height, one.title.values.tolist())
    left.set(xlim=(-0.02, 1.02), xlabel=rf"accuracy, $L_\infty$, $\varepsilon={data.attrs['epsilon']:.3g}$")
    right.barh(height, one.gap, xerr=one.gap_se, height=0.6, color="C3", alpha=0.8, error_kw={"elinewidth": 0.8})
    right.set(xlabel="claimed less adaptive")
    right.set_yticks(height, [])
    for ax in (left, right):
        ax.set_ylim(-0.6, len(order) - 0.4)
        ax.tick_params(axis="y", length=0)
        ax.yaxis.minorticks_off()
        ax.grid(axis="y", color="0.92", linewidth=0.6)
        ax.set_axisbelow(True)
    label_panels(axes.flat)
    legend_above(figure, [clean, *handles], ["no attack", *COLUMNS.values()])
    return figure  # type: ignore[no-any-return]


def _corruptions(data: xr.Dataset) -> Figure:
    """Draw the errors under each corruption, and their mean over the accuracy that attacks leave."""
    raise NotImplementedError


def _pictures(data: xr.Dataset, class_names: Sequence[str]) -> dict[str, Figure]:
    """Return pictures of what the attack makes of each subject that leaves fewest images, so many on a page."""

    def pictures(one: xr.Dataset, kind: str) -> Pictures:
        names = f"{kind}image" if kind else "image", *(f"{kind or 'image_'}{name}" for name in ("prediction", "confidence"))
        return Pictures(*(one[name].values for name in names))

    names = [str(name) for name in data.subject.values]
    pages = -(-len(names) // _ROWS)
    each = -(-len(names) // pages)
    found = {}
    for page in range(pages):
        shown = {}
        for name in names[page * each : (page + 1) * each]:
            one = Found(data, name)
            places = one.places(*COLUMNS)
            worst = min(places, key=lambda place, one=one: one.right_after(place).mean())
            shown[f"{one.title}"] = pictures(one.rows.isel(row=worst), "")
        first = data.sel(subject=names[page * each])
        found[f"pictures_{page + 1}"] = plot_attacked(pictures(first, "clean_"), shown, class_names=class_names)
    return found
