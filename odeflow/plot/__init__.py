"""Figures. Theory is drawn as lines, simulation as points with error bars; matplotlib is used here and only here.

`draw_lines` and `draw_points` take ``ax=None`` and return the artists they made; `plot` picks the natural picture of a
result. Nothing changes a global setting.
"""

from odeflow.plot.artists import draw_lines, draw_map, draw_points
from odeflow.plot.labels import symbol
from odeflow.plot.pictures import plot
from odeflow.plot.sheet import FORMATS, new_figure, save_figure, style

__all__ = ["FORMATS", "draw_lines", "draw_map", "draw_points", "new_figure", "plot", "save_figure", "style", "symbol"]
