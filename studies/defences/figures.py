"""The figures of the study defences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepcheck.plot_attacks import Pictures, plot_attacked
from odeflow.plot import label_panels, legend_above, looks, new_figure, style
from odeflow.plot.layout import add_title
from studies.common.names import name_points
from studies.defences.found import Found
from studies.defences.plan import COLUMNS

if TYPE_CHECKING:
    import xarray as xr
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
    """Draw the error under each natural corruption, the mean over severities, and all of them over what attacks leave."""
    one = data.isel(subject=np.argsort(data.mean_corruption_error.values, kind="stable")[::-1])
    shown = one.corrupted.mean("example").transpose("subject", "corruption").values
    count = one.sizes["subject"]
    figure, axes = new_figure(1, 2, width="double", height=max(1.2 + 0.19 * count, 3.4))
    axes[0, 0].get_gridspec().set_width_ratios([1.35, 1])
    table, plane = axes[0]
    drawn = table.imshow(
        100 * shown, cmap="magma_r", vmin=0, vmax=max(float(100 * shown.max()), 1.0), aspect="auto", origin="lower"
    )
    table.set_yticks(np.arange(count), one.title.values.tolist())
    names = [str(name).replace("_", " ") for name in one.corruption.values]
    table.set_xticks(np.arange(len(names)), names, rotation=90)
    table.tick_params(length=0, which="both")
    table.minorticks_off()
    figure.colorbar(drawn, ax=table, location="top", shrink=0.8, pad=0.02, label="error under a corruption, %")
    plane.errorbar(
        one.adaptive, one.mean_corruption_error, xerr=one.adaptive_se, yerr=one.mean_corruption_error_se, fmt="o", markersize=4,
        elinewidth=0.8, color="C0", zorder=3,
    )  # fmt: skip
    low, high = float(one.mean_corruption_error.min()), float(one.mean_corruption_error.max())
    plane.set(
        xlabel="robust accuracy, adaptive attack", ylabel="mean error under corruptions", xlim=(-0.06, 1.3), ylim=(0.8 * low, 1.1 * high),
    )  # fmt: skip
    plane.set_xticks(np.arange(0, 1.1, 0.25))
    label_panels(axes.flat)
    figure.draw_without_rendering()  # now it is known where the points are
    name_points(figure, plane, one.adaptive.values, one.mean_corruption_error.values, one.title.values.tolist())
    return figure  # type: ignore[no-any-return]


def _pictures(data: xr.Dataset, class_names: Sequence[str]) -> dict[str, Figure]:
    """Return pictures of what the attack makes of each subject that leaves fewest images, so many on a page."""

    def pictures(one: xr.Dataset, kind: str) -> Pictures:
        names = (
            f"{kind}image" if kind else "image",
            *(f"{kind or 'image_'}{name}" for name in ("prediction", "confidence")),
        )
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
            worst = places[int(np.argmin([one.right_after(place).mean() for place in places]))]
            shown[f"{one.title}"] = pictures(one.rows.isel(row=worst), "")
        first = data.sel(subject=names[page * each])
        found[f"pictures_{page + 1}"] = plot_attacked(pictures(first, "clean_"), shown, class_names=class_names)
    return found
