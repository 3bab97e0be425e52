"""What is measured on a figure: its text, what covers what, and what is drawn."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.contour import ContourSet
from matplotlib.text import Text

from odeflow.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["covered", "outside", "overlapping", "small", "written"]


def written(figure: Figure) -> list[Text]:
    """Return every text that is seen; the figure is laid out first."""
    with style():
        figure.draw_without_rendering()
    hidden: set[int] = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            room = 1e-9 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - room <= tick.get_loc() <= high + room or not tick.get_visible():
                    hidden |= {id(tick.label1), id(tick.label2)}
            if not axis.get_visible() or not ax.axison:
                hidden |= {id(text) for text in axis.findobj(Text)}
    found: list[Any] = figure.findobj(Text)
    return [text for text in found if text.get_visible() and text.get_text().strip() and id(text) not in hidden]


def small(figure: Figure, least: float = 7.0) -> dict[str, float]:
    """Return texts that are smaller than so many points."""
    sizes = {text.get_text(): float(text.get_fontsize()) for text in written(figure)}
    return {text: size for text, size in sizes.items() if size < least - 1e-9}


def outside(figure: Figure) -> list[str]:
    """Return texts that are not whole inside the canvas, by more than a third of a point."""
    canvas = figure.bbox.padded(figure.dpi / 216)
    boxes = {text.get_text(): text.get_window_extent() for text in written(figure)}
    return [name for name, box in boxes.items() if not _holds(canvas, box)]


def _holds(outer: Bbox, inner: Bbox) -> bool:
    return bool(np.all(inner.min >= outer.min) and np.all(inner.max <= outer.max))


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Return pairs of texts that lie on one another; those that are turned by an angle are left out."""
    straight = [text for text in written(figure) if text.get_rotation() % 90 == 0]
    boxes = [(text.get_text(), text.get_window_extent().padded(-0.6)) for text in straight]
    return [
        (first, second)
        for i, (first, one) in enumerate(boxes)
        for second, other in boxes[i + 1 :]
        if one.width > 0 and other.width > 0 and one.height > 0 and other.height > 0 and one.overlaps(other)
    ]


def covered(figure: Figure) -> list[Axes]:
    """Return panels in which the legend of the panel, or of the figure, lies on data: curves on a fine grid, and points."""
    written(figure)
    legends = [legend.get_window_extent() for legend in figure.legends]
    found = []
    for ax in figure.axes:
        own = ax.get_legend()
        boxes = [*legends, *([own.get_window_extent()] if own is not None else [])]
        data = np.concatenate([np.empty((0, 2)), *_pixels(ax)])
        data = data[np.isfinite(data).all(axis=1)]
        if any(((data > box.min) & (data < box.max)).all(axis=1).any() for box in boxes):
            found.append(ax)
    return found


def _pixels(ax: Axes) -> list[Any]:
    """Return what is drawn in a panel, as points a pixel or less apart."""
    parts: list[Any] = []
    for line in ax.lines:
        pixels = line.get_transform().transform(np.asarray(line.get_xydata(), float))
        joined = line.get_linestyle() not in ("None", "", " ", "none")
        parts.append(_filled(pixels) if joined else pixels)
    for group in ax.collections:
        if isinstance(group, LineCollection) and not isinstance(group, ContourSet):
            parts += [_filled(group.get_transform().transform(np.asarray(path.vertices))) for path in group.get_paths()]
    return parts


def _filled(pixels: Any) -> Any:
    if len(pixels) < 2:
        return pixels
    return np.concatenate([np.linspace(start, stop, 200) for start, stop in pairwise(pixels)])
