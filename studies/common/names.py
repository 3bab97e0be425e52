"""Names beside the points of a figure, where there is room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["name_points"]


def name_points(figure: Figure, ax: Axes, x: Any, y: Any, names: list[str]) -> None:
    """Write each name beside its point, or where that is taken as near as there is room, with a line to it.

    The figure must have been laid out: `figure.draw_without_rendering()`.
    """
    inside = ax.get_window_extent()
    points = ax.transData.transform(np.column_stack([x, y]))
    scale = figure.dpi / 72
    taken: list[Any] = []
    for place in np.lexsort([points[:, 0], -points[:, 1]]):
        at = points[place]
        text = ax.annotate(
            names[place], (x[place], y[place]), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center",
            color="0.2", zorder=2.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
        )  # fmt: skip
        size = text.get_window_extent()
        wide, tall = size.width, 7.2 * scale
        tries = [(dx, dy) for dx in (*range(4, 150, 8), *range(-4, -60, -8)) for dy in range(-120, 121, 4)]
        for dx, dy in sorted(tries, key=lambda one: (0.35 * one[0] - 2 * (one[0] < 0)) ** 2 + one[1] ** 2):
            left, middle = at[0] + dx * scale - (wide if dx < 0 else 0), at[1] + dy * scale
            box = left, middle - tall / 2, left + wide, middle + tall / 2
            if box[0] < inside.x0 or box[2] > inside.x1 or box[1] < inside.y0 or box[3] > inside.y1:
                continue
            own = 3.2 * scale
            others = np.delete(points, place, axis=0)
            on_point = np.any(
                (others[:, 0] > box[0] - own) & (others[:, 0] < box[2] + own)
                & (others[:, 1] > box[1] - own) & (others[:, 1] < box[3] + own)
            )  # fmt: skip
            if not on_point and not any(_overlap(box, one) for one in taken):
                break
        text.set(position=(dx, dy), ha="right" if dx < 0 else "left")
        taken.append(box)
        if abs(dy) > 4 or not -8 < dx < 12:
            line = {"arrowstyle": "-", "color": "0.7", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
            ax.annotate(
                "", (x[place], y[place]), xytext=(dx - (1 if dx > 0 else -1), dy), textcoords="offset points",
                arrowprops=line, zorder=2.4,
            )  # fmt: skip


def _overlap(one: Any, other: Any) -> bool:
    return bool(one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3])
