"""How curves are told apart: by colour, dash and marker at once, so that no one of them is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from odeflow.plot.sheet import style

__all__ = ["Look", "looks"]

Dash = str | tuple[float, tuple[float, ...]]

# as long as one another, so that each shows whole in a legend
_DASHES: tuple[Dash, ...] = (
    "-",
    (0, (4, 1.6)),
    (0, (5, 1.4, 1, 1.4)),
    (0, (1, 1.2)),
    (0, (7, 1.6)),
    (0, (4, 1.2, 1, 1.2, 1, 1.2)),
    (0, (2, 1)),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Look:
    """What one curve looks like."""

    color: Any
    dash: Dash
    marker: str

    def line(self) -> dict[str, Any]:
        """Return the properties of a line, for `draw_lines`."""
        return {"color": self.color, "linestyle": self.dash}

    def points(self) -> dict[str, Any]:
        """Return the properties of points, for `draw_points`: hollow, so that a line shows beneath them."""
        return {"color": self.color, "fmt": self.marker, "markerfacecolor": "white"}


def looks(count: int, *, ordered: bool = False) -> list[Look]:
    """Return the looks of so many curves: no two have the same colour and dash and marker, in grey neither.

    Parameters
    ----------
    count
        Number of curves.
    ordered
        Whether they are values of a parameter: colours are then a scale from dark to bright, and otherwise those of
        ``rcParams["axes.prop_cycle"]``.
    """
    from matplotlib import colormaps, rcParams

    with style():
        cycle = rcParams["axes.prop_cycle"].by_key().get("color", ["black"])
    if ordered:
        cycle = [tuple(color) for color in colormaps["viridis"](np.linspace(0, 0.85, max(count, 1)))]
    kinds = len(_DASHES)
    return [
        Look(cycle[i % len(cycle)], _DASHES[(i + i // kinds) % kinds], _MARKERS[(i + 2 * (i // kinds)) % kinds])
        for i in range(count)
    ]
