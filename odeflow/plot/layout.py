"""Where things stand: panels in a width, legends beside the data, letters, titles that fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot.sheet import new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "LEAST_PANEL",
    "add_title",
    "clear_legend",
    "covers_data",
    "grid",
    "inner_labels_off",
    "label_panels",
    "legend_above",
]

LEAST_PANEL = 1.6  # inches, at 7 points


def grid(count: int, width: float, *, most: int = 4, more: float = 0.0) -> tuple[Any, list[Any]]:
    """Return a figure with so many panels, as many in a row as the width has room for, and their axes.

    Parameters
    ----------
    count
        Number of panels.
    width
        Of the figure, in inches.
    most
        Panels in a row, at most.
    more
        Height above the panels, in inches.
    """
    room = max(1, min(most, int(width / LEAST_PANEL)))
    if room == 2 and count == 3:  # under each other rather than a hole
        room = 1
    rows = -(-count // room)
    columns = -(-count // rows)
    height = min(max(1.45, 0.72 * width / columns), 1.7 if rows > 1 else 2.4)
    figure, axes = new_figure(rows, columns, width=width, height=height * rows + more)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, list(axes.flat[:count])


def inner_labels_off(axes: Sequence[Axes]) -> None:
    """Take away the labels of the horizontal axes that another panel has, with the same text, beneath."""
    for ax in axes:
        own = ax.get_subplotspec()
        for other in axes:
            spec = other.get_subplotspec()
            if own is None or spec is None or other.get_xlabel() != ax.get_xlabel():
                continue
            if spec.colspan.start == own.colspan.start and spec.rowspan.start > own.rowspan.start:
                ax.set_xlabel("")
                break


def label_panels(axes: Iterable[Axes]) -> None:
    """Put the letters (a), (b), ... above the left corners of panels, before what stands there, if there are several."""
    panels = list(axes)
    if len(panels) > 1:
        with style():
            for i, ax in enumerate(panels):
                letter = chr(ord("a") + i) if i < 26 else f"a{chr(ord('a') + i - 26)}"
                ax.set_title(f"({letter}) {ax.get_title(loc='left')}".rstrip(), loc="left")


def legend_above(figure: Figure, handles: Sequence[Any], texts: Sequence[str], **more: Any) -> None:
    """Put a legend above the panels, in as many columns as the width has room for."""
    if not handles:
        return
    with style():
        for columns in range(len(handles), 0, -1):
            legend = figure.legend(handles, texts, loc="outside upper center", ncols=columns, **more)
            if columns == 1 or legend.get_window_extent().width <= 0.97 * figure.bbox.width:
                return
            legend.remove()


def covers_data(ax: Axes) -> bool:
    """Return whether the legend of a panel covers lines or points, as the figure is laid out now."""
    from matplotlib.collections import LineCollection

    legend = ax.get_legend()
    if legend is None:
        return False
    box = legend.get_window_extent().padded(4)
    paths: list[Any] = []
    for line in ax.lines:
        path = line.get_transform().transform_path(line.get_path())
        vertices = np.asarray(path.vertices)
        vertices = vertices[np.isfinite(vertices).all(axis=1)]
        if line.get_linestyle() not in ("None", "none", " ", ""):
            paths.append(path)
        if len(vertices) and any(box.padded(line.get_markersize() / 2).contains(*at) for at in vertices.tolist()):
            return True
    for bars in ax.collections:
        if isinstance(bars, LineCollection):
            paths += [bars.get_transform().transform_path(path) for path in bars.get_paths()]
    return any(path.intersects_bbox(box, filled=False) for path in paths)


def clear_legend(figure: Figure, ax: Axes) -> None:
    """Make room above the data where the legend of a panel would cover them; if that does not help, put it on top."""
    with style():
        for _ in range(7):
            figure.draw_without_rendering()
            if not covers_data(ax):
                return
            low, high = ax.get_ylim()
            transform = ax.yaxis.get_transform()
            bottom, top = transform.transform((low, high))
            ax.set_ylim(low, float(transform.inverted().transform(top + 0.18 * (top - bottom))))
        handles, texts = ax.get_legend_handles_labels()
        legend = ax.get_legend()
        if not handles and legend is not None:  # they are the legend's own, and not drawn
            handles = [handle for handle in legend.legend_handles if handle is not None]
            texts = [text.get_text() for text in legend.get_texts()]
        ax.legend(handles, texts, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1 + (len(texts) > 3))


def add_title(figure: Figure, text: str) -> None:
    """Put a title above everything, broken into lines that fit; above a legend it is the legend's."""
    from matplotlib import rcParams

    if not text:
        return
    parts = text.replace("; ", ", ").split(", ")
    size = rcParams["legend.fontsize"]
    title: Any = None
    for lines in range(1, len(parts) + 1):
        each = -(-len(parts) // lines)
        broken = ",\n".join(", ".join(parts[i : i + each]) for i in range(0, len(parts), each))
        if figure.legends:
            figure.legends[-1].set_title(broken)
            title = figure.legends[-1].get_title()
            title.set_multialignment("center")
        else:
            title = figure.suptitle(broken, fontsize=size)
        if title.get_window_extent().width <= 0.97 * figure.bbox.width:
            return
