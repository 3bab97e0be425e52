"""Figures. Theory is drawn as lines, simulation as points with error bars; matplotlib is used here and only here.

`draw_lines` and `draw_points` take ``ax=None`` and return the artists they made; `plot` picks the natural picture of
results. Nothing changes a global setting, and what a user has set in ``rcParams`` or a matplotlibrc stays.
"""

from odeflow.plot.artists import draw_lines, draw_map, draw_points, label_contours
from odeflow.plot.labels import symbol
from odeflow.plot.layout import clear_legend, label_panels, legend_above
from odeflow.plot.looks import Look, looks
from odeflow.plot.pictures import plot
from odeflow.plot.sheet import FORMATS, WIDTHS, Width, new_figure, save_figure, style, width_of

__all__ = [
    "FORMATS",
    "WIDTHS",
    "Look",
    "Width",
    "clear_legend",
    "draw_lines",
    "draw_map",
    "draw_points",
    "label_contours",
    "label_panels",
    "legend_above",
    "looks",
    "new_figure",
    "plot",
    "save_figure",
    "style",
    "symbol",
    "width_of",
]
