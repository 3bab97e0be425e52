"""The style sheet, figures and their files."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odeflow.provenance import check_target, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "new_figure", "save_figure", "style"]

FORMATS = (".pdf", ".png", ".svg")
"""Suffixes of figure files."""


@contextmanager
def style() -> Iterator[None]:
    """Within this context, matplotlib draws with the package's style sheet ``odeflow.mplstyle``."""
    import matplotlib as mpl
    from matplotlib import style as mpl_style

    with resources.as_file(resources.files("odeflow") / "odeflow.mplstyle") as sheet, mpl.rc_context():
        mpl_style.use(sheet)
        yield


def new_figure(rows: int = 1, columns: int = 1, *, width: float | None = None, height: float | None = None) -> Any:
    """Return a figure and its axes in the package's style, without a window and without global state.

    Parameters
    ----------
    rows, columns
        Grid of panels.
    width, height
        Size in inches; default: 3.4 and 2.5 a panel.

    Returns
    -------
    tuple
        Figure, and an array of Axes of shape (rows, columns).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width or 3.4 * columns, height or 2.5 * rows))
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure by suffix (.pdf, .png, .svg), beside the target and renamed: there is never half a file.

    Raises
    ------
    ValueError, FileNotFoundError, PermissionError
        If the target is not one (see `odeflow.provenance.check_target`).
    SaveError
        If writing fails.
    """
    target = check_target(path, FORMATS)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    content = io.BytesIO()
    with style(), _quiet("fontTools"):
        figure.savefig(content, format=target.suffix[1:], metadata=undated.get(target.suffix))
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
