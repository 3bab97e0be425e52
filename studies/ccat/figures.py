"""The figures of the studies ccat_mnist and ccat_cifar10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepcheck.evaluation import roc
from deepcheck.plot import plot_images
from odeflow.plot import clear_legend, label_panels, legend_above, looks, new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures"]

NAMES = {"standard": "standard", "at": "AT", "ccat": "CCAT"}
NORMS = {"linf": r"L_\infty", "l2": "L_2", "l1": "L_1", "l0": "L_0"}
SHOWN = 6
"""Distal images in a row, for each training."""


def figures(data: xr.Dataset, class_names: Sequence[str]) -> dict[str, Figure]:
    """Return all figures by name."""
    with style():
        result = {
            "errors": _figure_of_errors(data),
            "roc": _figure_of_roc(data),
            "confidences": _figure_of_confidences(data),
            "distal": _figure_of_distal(data, class_names),
        }
        if data.attrs["note"]:
            for figure in result.values():
                figure.suptitle(f"not the data set of the study, but {data.attrs['data_set']}", fontsize=7.5)
    return result


def _figure_of_errors(data: xr.Dataset) -> Figure:
    """Draw the robust error over the size of the perturbation, of all examples and of those that are accepted."""
    figure, axes = new_figure(1, 2, width="double", height=2.7)
    chosen = looks(data.sizes["training"])
    titles = {"all": "all examples", "accepted": "examples of a confidence of $\\tau$ or more"}
    for ax, rule in zip(axes.flat, titles, strict=True):
        for index, training in enumerate(data.training.values):
            curve = data.curve.sel(rule=rule, training=training)
            count = data.accepted.sel(rule=rule, training=training)
            size, error = curve["size"].values, curve.values
            spread = np.sqrt(error * (1 - error) / np.maximum(count.values, 1))
            look = chosen[index]
            ax.plot(size, error, **look.line(), marker=look.marker, label=NAMES[training], clip_on=False)
            ax.fill_between(size, error - spread, error + spread, color=look.color, alpha=0.2, linewidth=0)
        ax.set(
            ylim=(0, 1), xlim=(0, None), xlabel=r"size of the perturbation $\varepsilon$ ($L_\infty$)",
            ylabel="robust error",
        )  # fmt: skip
        ax.set_title(titles[rule], fontsize=7.5)
    label_panels(axes[0])
    axes[0, 0].legend()
    clear_legend(figure, axes[0, 0])
    return figure  # type: ignore[no-any-return]


def _figure_of_roc(data: xr.Dataset) -> Figure:
    """Draw how well the confidence tells adversarial examples from clean ones, for each norm and size."""
    threats = _threats(data)
    figure, axes = new_figure(1, len(threats), width="double", height=2.2)
    chosen = looks(data.sizes["training"])
    for ax, threat in zip(axes.flat, threats, strict=True):
        ax.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for index, training in enumerate(data.training.values):
            one = data.sel(training=training)
            plus = one.clean_confidence.values[one.clean_correct.values == 1]
            minus = one.adversarial_confidence.isel(threat=threat).values
            minus = minus[~np.isnan(minus)]
            if not len(minus):
                continue
            curve = roc(plus, minus)
            text = f"{NAMES[training]} {curve.auc.item():.2f}"
            ax.plot(curve.fpr, curve.tpr, **chosen[index].line(), label=text, clip_on=False)
        _title(ax, data, threat)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="false positive rate", xticks=(0, 0.5, 1))
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.15))
    axes[0, 0].set_ylabel("true positive rate")
    label_panels(axes[0])
    return figure  # type: ignore[no-any-return]


def _figure_of_confidences(data: xr.Dataset) -> Figure:
    """Draw the confidence in clean images, in adversarial examples of the largest size, and in distal ones."""
    threats = _threats(data)
    last = max(index for index in threats if data.norm.values.flat[index] == "linf")
    figure, axes = new_figure(1, data.sizes["training"], width="double", height=2.2)
    edges = np.linspace(0, 1, 26)
    kinds_of = looks(3)
    for ax, training in zip(axes.flat, data.training.values, strict=True):
        one = data.sel(training=training)
        kinds = {
            "test images": one.clean_confidence.values,
            "adversarial": one.adversarial_confidence.isel(threat=last).values,
            "distal": one.distal_confidence.values.ravel(),
        }
        for index, (name, values) in enumerate(kinds.items()):
            values = values[~np.isnan(values)]
            share = np.histogram(np.minimum(values, 1), edges)[0] / max(len(values), 1)
            ax.stairs(share, edges, fill=True, color=f"C{index}", alpha=0.3)
            ax.stairs(share, edges, linewidth=1.1, label=name, **kinds_of[index].line())
        ax.axvline(one.tau.item(), color="0.25", linewidth=0.9)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
        ax.set_title(rf"{NAMES[training]}, $\tau={one.tau.item():.2f}$", fontsize=7.5)
    axes[0, 0].set_ylabel("share of the images")
    label_panels(axes[0])
    legend_above(figure, *axes[0, 0].get_legend_handles_labels())
    return figure  # type: ignore[no-any-return]


def _figure_of_distal(data: xr.Dataset, class_names: Sequence[str]) -> Figure:
    """Draw noise of both kinds, and what an attack makes of it, with each net's class and confidence."""
    kept = data.sizes["shown"] // 2
    columns = np.concatenate([np.arange(min(SHOWN, kept)), kept + np.arange(min(SHOWN, kept))])
    first = data.isel(training=0, shown=columns)
    images, titles, confidences = [first.noise_image.values], [""] * len(columns), [np.full(len(columns), np.nan)]
    for training in data.training.values:
        one = data.sel(training=training).isel(shown=columns)
        images.append(one.distal_image.values)
        titles += [class_names[index] for index in one.shown_distal_prediction.values]
        confidences.append(one.shown_distal_confidence.values)
    return plot_images(
        np.concatenate(images),
        titles,
        confidences=np.concatenate(confidences),
        columns=len(columns),
        row_names=["noise", *(NAMES[training] for training in data.training.values)],
        size=0.49,
    )


def _threats(data: xr.Dataset) -> list[int]:
    """Return one threat for each norm, and for L-infinity the training's size and larger ones."""
    norms, epsilons = data.norm.values, data.epsilon.values
    large = sorted(epsilons[norms == "linf"])[-2:]
    return [index for index, norm in enumerate(norms) if norm != "linf" or epsilons[index] in large]


def _title(ax: Axes, data: xr.Dataset, threat: int) -> None:
    norm, epsilon = data.norm.values[threat], data.epsilon.values[threat]
    ax.set_title(rf"${NORMS[norm]}$, $\varepsilon={epsilon:g}$", fontsize=7.5)
