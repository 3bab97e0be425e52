"""Figures of natural corruptions: errors by corruption and severity, and what the corruptions look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from deepcheck.corruptions.base import SEVERITIES, checked_severities
from deepcheck.corruptions.registry import chosen
from deepcheck.evaluation.corrupted import corrupted_images
from odeflow.plot import new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_corrupted", "plot_corruptions"]

_SIZE, _NAMES = 0.62, 1.25
"""Inches: of a picture, and of the names of the corruptions."""
_MOST_ROWS = 16
"""Corruptions below one another; more go into a second column."""


def plot_corruptions(errors: xr.Dataset) -> Figure:
    """Draw the errors as a table of numbers on colours: a row for each corruption, a column for each severity.

    Parameters
    ----------
    errors
        From `deepcheck.evaluation.corruption_errors`.

    Returns
    -------
    Figure
        Errors in percent. The line on the colour bar is the error without a corruption.

    Raises
    ------
    ValueError
        If it has no errors by corruption and severity.
    """
    if "error" not in errors or set(errors["error"].dims) != {"corruption", "severity"}:
        raise ValueError(
            "errors has no error by corruption and severity: allowed is what deepcheck.evaluation.corruption_errors returns"
        )
    share = 100 * errors["error"].transpose("corruption", "severity")
    names, severities = share["corruption"].values, share["severity"].values
    with style():
        figure, axes = new_figure(1, 1, width=2.2 + 0.42 * len(severities), height=0.9 + 0.2 * len(names))
        ax = axes[0, 0]
        drawn = ax.imshow(share.values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(share.values):
            colour = "black" if value > 55 else "white"
            ax.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=6, color=colour)
        ax.set_xticks(range(len(severities)), [str(one) for one in severities])
        ax.set_yticks(range(len(names)), [_spoken(name) for name in names])
        ax.minorticks_off()
        ax.tick_params(length=0)
        ax.set_xlabel("severity")
        bar = figure.colorbar(drawn, ax=ax, pad=0.03)
        bar.set_label("error (%)")
        bar.ax.axhline(100 * errors["clean_error"].item(), color="white", linewidth=1.2)
    return figure  # type: ignore[no-any-return]


def plot_corrupted(
    image: Tensor,
    corruptions: Iterable[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    *,
    seed: int = 0,
) -> Figure:
    """Draw one image as it is, and in every corruption and severity.

    Parameters
    ----------
    image
        Shape (1, 1 or 3, height, width), pixels in [0, 1].
    corruptions, severities
        As for `deepcheck.evaluation.corruption_errors`.
    seed
        Of the corruptions, >= 0: the picture is what the first test image becomes there.

    Returns
    -------
    Figure
        A row for each corruption, first the image as it is; more than 16 stand in two columns.

    Raises
    ------
    ValueError, TypeError
        If an argument is not allowed, or there is not one image.
    """
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"image has the shape {tuple(image.shape)}: allowed is (1, channels, height, width)")
    severities = checked_severities(severities)
    names = chosen(corruptions, image.shape[1])
    columns = 1 if len(names) <= _MOST_ROWS else 2
    rows = -(-len(names) // columns)
    wide = 1 + len(severities)
    width, height = columns * (_NAMES + wide * _SIZE), (rows + 0.35) * _SIZE
    with style():
        figure, axes = new_figure(rows, columns * wide, width=width, height=height)
        figure.set_layout_engine("none")
        for ax in axes.flat:
            ax.set_axis_off()
        for k, name in enumerate(names):
            row, block = k % rows, k // rows
            left = block * (_NAMES + wide * _SIZE) + _NAMES
            top = (rows - 1 - row) * _SIZE
            seen = [image, *(corrupted_images(name, image, severity, seed=seed) for severity in severities)]
            for column, one in enumerate(seen):
                ax = axes[row, block * wide + column]
                place = (left + column * _SIZE, top, 0.96 * _SIZE, 0.96 * _SIZE)
                ax.set_position(tuple(a / b for a, b in zip(place, (width, height) * 2, strict=True)))
                _draw(ax, one)
                if row == 0:
                    text = "clean" if column == 0 else f"{severities[column - 1]}"
                    ax.set_title(text, fontsize=7, pad=2)
            figure.text(
                (left - 0.06) / width, (top + _SIZE / 2) / height, _spoken(name), fontsize=7, ha="right", va="center"
            )
    return figure  # type: ignore[no-any-return]


def _draw(ax: Axes, image: Tensor) -> None:
    pixels = image[0].double().cpu().numpy()
    if len(pixels) == 1:
        ax.imshow(pixels[0], cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(np.moveaxis(pixels, 0, -1))


def _spoken(name: object) -> str:
    return str(name).replace("_", " ").replace("jpeg", "JPEG")
