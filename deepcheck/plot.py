"""Figures of deepcheck, in odeflow's style: attacks, ROC and robustness curves, confidences, images. Nothing changes a global setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.thresholds import accepted
from odeflow.plot import looks, new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot_attacks", "plot_confidences", "plot_distal", "plot_images", "plot_robustness_curves", "plot_roc"]

_NORMS = {"linf": r"$L_\infty$", "l2": r"$L_2$", "l1": r"$L_1$", "l0": r"$L_0$"}


def plot_attacks(table: xr.Dataset) -> Figure:
    """Draw the robust accuracy under each attack, below the worst case of all attacks in its norm, with standard errors.

    Parameters
    ----------
    table
        From `deepcheck.evaluation.attack_table`.

    Returns
    -------
    Figure
        One line for each row of the table, a group for each norm and epsilon; the vertical line is the accuracy without an
        attack. Bars are one standard error.

    Raises
    ------
    ValueError
        If it is no such table.
    """
    missing = [name for name in ("robust_accuracy", "standard_error", "accuracy") if name not in table]
    if missing:
        raise ValueError(f"table lacks {', '.join(missing)}: allowed is what deepcheck.evaluation.attack_table returns")
    worst = table["attack"].values == "all"
    y = np.arange(len(worst)) + 0.6 * np.cumsum(worst)  # some room above each group
    share, error = table["robust_accuracy"].values, table["standard_error"].values
    accuracy, spread = table["accuracy"].item(), table["accuracy_standard_error"].item()
    with style():
        figure, axes = new_figure(width="single", height=0.6 + 0.135 * (y[-1] + 1))
        ax = axes[0, 0]
        first, second = (line["color"] for line in _lines(2))
        ax.axvspan(accuracy - spread, accuracy + spread, color="0.75", alpha=0.5, linewidth=0)
        ax.axvline(accuracy, color="0.4", linewidth=0.8, label="no attack")
        for chosen, color, marker, size, label in (
            (~worst, first, "o", 3.2, "one attack"),
            (worst, second, "D", 3.6, "worst case of all"),
        ):
            bars = {"fmt": marker, "markersize": size, "color": color, "elinewidth": 0.8, "zorder": 3}
            ax.errorbar(share[chosen], y[chosen], xerr=error[chosen], label=label, clip_on=False, **bars)
        for edge in y[worst][1:]:
            ax.axhline(edge - 0.8, color="0.85", linewidth=0.6, zorder=0)
        names = [
            rf"{_NORMS.get(str(norm), str(norm))}, $\varepsilon={epsilon:.4g}$" if group else str(attack)
            for group, norm, epsilon, attack in zip(
                worst, table["norm"].values, table["epsilon"].values, table["attack"].values, strict=True
            )
        ]
        ax.set_yticks(y, names)
        for text, group in zip(ax.get_yticklabels(), worst, strict=True):
            text.set_fontsize(7)
            text.set_color("black" if group else "0.3")
        ax.tick_params(axis="y", which="both", length=0, pad=6)
        ax.minorticks_off()
        ax.set(xlim=(0, 1), ylim=(y[-1] + 0.8, y[0] - 0.8), xlabel="robust accuracy")
        ax.spines["left"].set_visible(False)
        figure.legend(loc="outside upper center", ncols=3, handletextpad=0.4, columnspacing=1.2)
    return figure  # type: ignore[no-any-return]


def plot_roc(curves: Mapping[str, xr.Dataset]) -> Figure:
    """Draw ROC curves, with the area under each in the legend and the diagonal of mere chance.

    Parameters
    ----------
    curves
        Name to what `deepcheck.evaluation.roc` or `detection` returned.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError, TypeError
        If there is none, or one is no ROC curve.
    """
    _check_mapping("curves", curves)
    for name, curve in curves.items():
        if not all(variable in curve for variable in ("fpr", "tpr", "auc")):
            raise ValueError(
                f"curves[{name!r}] lacks fpr, tpr or auc: allowed is what deepcheck.evaluation.roc returns"
            )
    with style():
        figure, axes = new_figure(width="single", height=3.2)
        ax = axes[0, 0]
        ax.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=1)
        for (name, curve), line in zip(curves.items(), _lines(len(curves)), strict=True):
            text = f"{name} (area {float(curve['auc']):.3f})"
            ax.plot(curve["fpr"].values, curve["tpr"].values, label=text, clip_on=False, **line)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="false positive rate", ylabel="true positive rate")
        ax.legend(loc="lower right")
    return figure  # type: ignore[no-any-return]


def plot_robustness_curves(curves: Mapping[str, xr.DataArray]) -> Figure:
    """Draw robust errors over the size of the perturbation, as points joined by lines.

    Parameters
    ----------
    curves
        Name to a DataArray with the dim epsilon, as from `deepcheck.evaluation.robustness_curve` or
        `odeflow.robustness_curve`. Where it has the coordinate accepted, one standard error is shaded.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError, TypeError
        If there is none, or one has other dims.
    """
    _check_mapping("curves", curves)
    for name, curve in curves.items():
        if curve.dims != ("epsilon",):
            raise ValueError(f"curves[{name!r}] has the dims {curve.dims}: allowed is one dim epsilon")
    with style():
        figure, axes = new_figure(width="single")
        ax = axes[0, 0]
        for (name, curve), look in zip(curves.items(), looks(len(curves)), strict=True):
            epsilon, error = curve["epsilon"].values, curve.values
            marked = {"marker": look.marker} if len(epsilon) <= 30 else {}
            ax.plot(epsilon, error, label=name, clip_on=False, **look.line(), **marked)
            if "accepted" in curve.coords:
                count = np.where(curve["accepted"].values > 0, curve["accepted"].values, np.nan)
                spread = np.sqrt(error * (1 - error) / count)
                ax.fill_between(epsilon, error - spread, error + spread, color=look.color, alpha=0.2, linewidth=0)
        ax.set(ylim=(0, 1), xlabel=r"size of the perturbation $\varepsilon$", ylabel="robust error")
        ax.set_xlim(left=0)
        ax.legend()
    return figure  # type: ignore[no-any-return]


def plot_confidences(confidences: Mapping[str, npt.ArrayLike], *, tau: float | None = None, bins: int = 40) -> Figure:
    """Draw histograms of confidences on one scale, with the threshold from which on they are accepted.

    Parameters
    ----------
    confidences
        Name to confidences in [0, 1], say "clean" and "adversarial". The legend gives the share that is accepted.
    tau
        Confidence threshold, drawn as a vertical line.
    bins
        Number of bins in [0, 1].

    Returns
    -------
    Figure

    Raises
    ------
    ValueError, TypeError
        If there is nothing to draw, if a confidence is not in [0, 1], or `bins` is less than 1.
    """
    _check_mapping("confidences", confidences)
    if bins < 1:
        raise ValueError(f"bins = {bins!r} is out of range: allowed is 1 or more")
    arrays = {name: np.asarray(values).ravel() for name, values in confidences.items()}
    for name, values in arrays.items():
        if not np.all((values >= 0) & (values <= 1 + 1e-6)):
            raise ValueError(f"confidences[{name!r}] has values out of range: allowed is [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    with style():
        figure, axes = new_figure(width="single")
        ax = axes[0, 0]
        for (name, values), line in zip(arrays.items(), _lines(len(arrays)), strict=True):
            count = np.histogram(np.minimum(values, 1), edges)[0] / max(len(values), 1)
            text = name if tau is None or not len(values) else f"{name}: {accepted(values, tau).mean():.1%} accepted"
            ax.stairs(count, edges, fill=True, color=line["color"], alpha=0.25)
            ax.stairs(count, edges, label=text, linewidth=1.2, **line)
        if tau is not None:
            ax.axvline(tau, color="0.25", linewidth=0.9, zorder=3)
            side = {"ha": "right", "xytext": (-3, -2)} if tau > 0.5 else {"ha": "left", "xytext": (3, -2)}
            ax.annotate(
                rf"$\tau={tau:.3g}$",
                (tau, 1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=7,
                **side,
            )
        ax.set(xlim=(0, 1), xlabel="confidence", ylabel="share of the examples")
        ax.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=min(len(arrays), 2))
    return figure  # type: ignore[no-any-return]


def plot_images(
    images: npt.ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    confidences: npt.ArrayLike | None = None,
    columns: int | None = None,
    row_names: Sequence[str] | None = None,
    size: float = 0.85,
) -> Figure:
    """Draw images in a grid, row by row, each under its title and confidence.

    Parameters
    ----------
    images
        Shape (n, channels, height, width), in [0, 1], with 1 channel (grey) or 3 (red, green, blue).
    titles
        A text for each, such as its predicted class.
    confidences
        A number for each, shown as a percentage after the title; NaN shows none.
    columns
        Images in a row; default: 8, or n if less.
    row_names
        A text for each row, to its left.
    size
        Width of an image in inches.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If shapes or values are not allowed, or numbers do not match.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images have the shape {images.shape}: allowed is (n, 1 or 3, height, width)")
    if not np.all((images >= 0) & (images <= 1)):
        raise ValueError(f"images have values in {images.min():g}..{images.max():g}: allowed is [0, 1]")
    count = len(images)
    texts = [""] * count if titles is None else [str(title) for title in titles]
    shown = np.full(count, np.nan) if confidences is None else np.asarray(confidences, np.float64)
    for name, given in (("titles", len(texts)), ("confidences", shown.size)):
        if given != count:
            raise ValueError(f"{name} are {given}: allowed is one for each of the {count} images")
    columns = min(count, 8) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns = {columns!r} is out of range: allowed is 1 or more")
    rows = math.ceil(count / columns)
    if row_names is not None and len(row_names) != rows:
        raise ValueError(f"row_names are {len(row_names)}: allowed is one for each of the {rows} rows")
    texts = [_with_share(text, value) for text, value in zip(texts, shown, strict=True)]
    height = size * images.shape[2] / images.shape[3] + (0.2 if any(texts) else 0)
    with style():
        width = columns * (size + 0.06) + (0.2 if row_names else 0)
        figure, axes = new_figure(rows, columns, width=width, height=rows * (height + 0.04))
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, name in zip(axes[:, 0], row_names or (), strict=False):
            place = {"va": "center", "ha": "right", "rotation": 90, "transform": ax.transAxes}
            ax.text(-0.06, 0.5, name, fontsize=7, **place)
        for ax, image, text in zip(axes.flat, images, texts, strict=False):
            colour: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if len(image) == 1 else {}
            ax.imshow(np.moveaxis(image, 0, -1).squeeze(-1) if len(image) == 1 else np.moveaxis(image, 0, -1), **colour)
            ax.set_title(text, fontsize=7, pad=2)
    return figure  # type: ignore[no-any-return]


def plot_distal(records: xr.Dataset, class_names: Sequence[str] | None = None, *, columns: int = 8) -> Figure:
    """Draw noise, and under it what an attack made of it, each with the predicted class and the confidence.

    Parameters
    ----------
    records
        From `deepcheck.evaluation.distal`.
    class_names
        Names of the classes; default: their numbers.
    columns
        Images in a row, at most so many of each kind of noise are shown.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If `records` have no images, `columns` is less than 1, or there are fewer names than classes predicted.
    """
    if "image_prediction" not in records or "noise" not in records.coords:
        raise ValueError("records lack image_prediction or noise: allowed is what deepcheck.evaluation.distal returns")
    if columns < 1:
        raise ValueError(f"columns = {columns!r} is out of range: allowed is 1 or more")
    kinds = records["noise"].values[records["shown"].values]
    images, titles, confidences = [], [], []
    for kind in dict.fromkeys(kinds.tolist()):
        places = np.flatnonzero(kinds == kind)[:columns]
        one = records.isel(example=records["shown"].values[places])
        attacked = records.isel(shown=places)
        for pixels, prediction, confidence in (
            ("noise_image", one["clean_prediction"], one["clean_confidence"]),
            ("image", attacked["image_prediction"], attacked["image_confidence"]),
        ):
            images.append(records[pixels].values[places])
            largest = int(prediction.max())
            if class_names is not None and largest >= len(class_names):
                raise ValueError(
                    f"class_names has {len(class_names)} names: allowed is one for each class, of which {largest} is predicted"
                )
            titles += [class_names[index] if class_names else str(index) for index in prediction.values]
            confidences.append(confidence.values)
    return plot_images(np.concatenate(images), titles, confidences=np.concatenate(confidences), columns=len(places))


def _with_share(text: str, value: float) -> str:
    if not np.isfinite(value):
        return text
    return f"{text} ({value:.0%})" if text else f"{value:.0%}"


def _lines(count: int) -> list[dict[str, Any]]:
    """Return the looks of so many lines: no two of the same colour and dash."""
    return [look.line() for look in looks(count)]


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} are of the wrong type {type(value).__name__}: allowed is a dict of names to what to draw"
        )
    if not value:
        raise ValueError(f"{name} = {{}} has nothing to draw: allowed is one entry or more")
