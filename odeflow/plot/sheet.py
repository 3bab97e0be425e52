"""The style sheet, widths of journals, figures and their files."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odeflow.parameters import checked_number
from odeflow.provenance import check_target, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "WIDTHS", "Width", "new_figure", "save_figure", "style", "width_of"]

FORMATS = (".pdf", ".png", ".svg")
"""Suffixes of figure files."""

WIDTHS = {"single": 3.4, "double": 7.0}
"""Widths in inches: of one column of a journal, and of both."""

Width = float | Literal["single", "double"] | None
"""What a width can be: a name, inches, or None for the natural one."""

_LEAST_WIDTH, _LARGEST_WIDTH = 0.5, 30.0


@cache
def _sheet() -> dict[str, Any]:
    """Return the settings of the package's style sheet."""
    import matplotlib as mpl

    with resources.as_file(resources.files("odeflow") / "odeflow.mplstyle") as file:
        sheet: Any = mpl.rc_params_from_file(file, use_default_template=False)
        return dict(sheet)


@contextmanager
def style() -> Iterator[None]:
    """Within this context, matplotlib draws with the package's style sheet ``odeflow.mplstyle``.

    A setting that the user has changed, in a matplotlibrc, with a style of theirs or in ``rcParams``, stays as it is: the
    sheet takes the place of matplotlib's defaults, and of nothing else. Afterwards all settings are as they were.
    """
    import matplotlib as mpl

    settings: Any = mpl.rcParams
    default: Any = mpl.rcParamsDefault
    with mpl.rc_context():
        settings.update({key: value for key, value in _sheet().items() if settings[key] == default[key]})
        yield


def width_of(width: Width, default: Width = "single") -> float:
    """Return a width in inches.

    Parameters
    ----------
    width
        "single" (3.4 inches, one column of a journal), "double" (7.0, both), inches, or None.
    default
        What None stands for.

    Raises
    ------
    TypeError, ValueError
        If it is none of these.
    """
    chosen = default if width is None else width
    if isinstance(chosen, str):
        if chosen not in WIDTHS:
            raise ValueError(f"width = {chosen!r} is unknown: allowed is {', '.join(WIDTHS)} or a number of inches")
        return WIDTHS[chosen]
    assert chosen is not None
    return checked_number("width", chosen, least=_LEAST_WIDTH, most=_LARGEST_WIDTH)


def new_figure(rows: int = 1, columns: int = 1, *, width: Width = None, height: float | None = None) -> Any:
    """Return a figure and its axes in the package's style, without a window and without global state.

    Parameters
    ----------
    rows, columns
        Grid of panels.
    width
        "single" (3.4 inches), "double" (7.0) or inches; default: 3.4 a panel.
    height
        Height in inches; default: 2.5 a panel.

    Returns
    -------
    tuple
        Figure, and an array of Axes of shape (rows, columns).

    Raises
    ------
    TypeError, ValueError
        If the width is not allowed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width_of(width, 3.4 * columns), height or 2.5 * rows))
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: float | None = None) -> Path:
    """Save a figure by suffix (.pdf, .png, .svg), beside the target and renamed: there is never half a file.

    Parameters
    ----------
    figure
        Any figure of matplotlib.
    path
        Target; its folder must exist.
    dpi
        Dots an inch, in [10, 2400], of a .png and of what is drawn as an image in the others; default: 300.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, PermissionError
        If the target is not one (see `odeflow.provenance.check_target`), or `dpi` is out of range.
    SaveError
        If writing fails.
    """
    target = check_target(path, FORMATS)
    dots: Any = {} if dpi is None else {"dpi": checked_number("dpi", dpi, least=10, most=2400)}
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    content = io.BytesIO()
    with style(), _quiet("fontTools"):
        figure.savefig(content, format=target.suffix[1:], metadata=undated.get(target.suffix), **dots)
    write_bytes(target, content.getbuffer())
    return target


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a logger's warnings back: fontTools has one for each font it embeds, about the font's date."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
