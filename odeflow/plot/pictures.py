"""The natural picture of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odeflow.plot.branches import branches, phase_lines, points
from odeflow.plot.curves import curves, plane
from odeflow.plot.labels import title_of
from odeflow.plot.layout import add_title, label_panels
from odeflow.plot.maps import maps, phases
from odeflow.plot.sheet import Width, style, width_of
from odeflow.plot.sources import Source, shared, source_of

if TYPE_CHECKING:
    from typing import Any

    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot"]


def plot(*results: xr.Dataset | xr.DataArray, width: Width = None, title: bool = False, letters: bool = True) -> Figure:
    """Draw the natural picture of one result, or of several over each other.

    Over alpha, or over one parameter: every order parameter and the two errors in panels, as lines (theory) or as points
    with error bars (dim run); of free weights also the cosine R/sqrt(Q) and b/sqrt(Q), on which the errors depend. The
    entries of an array, such as the overlaps of a two-layer network's units, share panels (a row of a large matrix, and the
    diagonal and the rest of a symmetric one), and arrays that do not change at all are left out. One
    variable over any one dimension, such as a robustness curve: one panel. With a second dimension of at most 7 values:
    one curve a value. Over two larger ones: heat maps with contours, which for simulations are of the mean over the
    runs. A third parameter makes rows of heat maps, at most 4. A sweep whose parameters have more than 7 values is drawn
    at its last alpha.

    Fixed points of one model: a plane; over one parameter: points, filled where stable; over two: the number of stable
    ones. Branches: solid where stable, dashed where not, with their bifurcations. Phase boundaries: curves, and the
    number of stable fixed points on each side.

    Several results over the same dimension: theory and simulation of the same parameters in the same colour, others in
    other colours, dashes and markers; the legend says in which parameters they differ. Fixed points of one model and
    single classifiers become levels, boundaries lines on heat maps. A study's file is drawn by its study.

    Parameters
    ----------
    *results
        What `integrate`, `simulate`, `sweep`, `robustness_curve`, `fixed_points`, `branches` or `phase_boundary` returned.
    width
        "single" (3.4 inches), "double" (7.0) or inches; default: single for one panel, double for more.
    title
        Whether the parameters that are the same everywhere stand above the panels. In a paper they are in the caption.
    letters
        Whether panels have letters, if there are several.

    Returns
    -------
    Figure

    Raises
    ------
    TypeError, ValueError
        If no picture is known for these dims, or the results do not go into one, or the width is not allowed.
    """
    if not results:
        raise ValueError("there is nothing to draw: allowed is at least one result")
    if width is not None:
        width_of(width)
    with style():
        figure, axes, sources = _picture(results, width)
        if letters:
            label_panels(axes)
        if title and sources:
            dims = {dim for source in sources for dim in source.dims}
            runs = {source.data.sizes["run"] for source in sources if source.simulated}
            said = figure.legends or len(runs) != 1  # the legend has their number
            add_title(figure, title_of(shared(sources), dims, 0 if said else runs.pop()))
    return figure


def _picture(results: tuple[Any, ...], width: Width) -> tuple[Figure, list[Any], list[Source]]:
    """Return the figure, its panels and what it draws."""
    followed = [one for one in results if _has(one, "branch")]
    boundaries = [one for one in results if _has(one, "bifurcation") and not _has(one, "branch")]
    for result in results:
        _refuse_study(result)
    plain = [one for one in results if not _has(one, "bifurcation") and not _has(one, "branch")]
    sources = [source_of(one).flat for one in plain]
    if followed:
        if len(results) > 1:
            raise ValueError("branches and other results do not go into one picture: allowed is one of them")
        return *branches(followed[0], width_of(width, "double")), [source_of(followed[0])]
    if not sources:
        if len(boundaries) > 1 or len(boundaries[0]["epsilon"].dims) != 2:
            raise ValueError(
                "no picture is known for single bifurcations: allowed is what phase_boundary returned, alone or on a map"
            )
        return *phase_lines(boundaries[0], width_of(width, "single")), [source_of(boundaries[0])]
    for result, source in zip(plain, sources, strict=True):
        _check(result, source)
    levels = [source for source in sources if source.level]
    others = [source for source in sources if not source.level]
    if not others and len(levels) == 1 and levels[0].dims and len(levels[0].names) > 1:
        return *plane(levels[0], width_of(width, "single")), levels
    if len(others) == 1 and "fixed_point" in others[0].dims and not levels:
        return *_equilibria(plain[0], others[0], width), others
    if len(others) == 1 and others[0].axes() is None and not levels:
        count = len(others[0].names)
        return *maps(others[0], boundaries, width_of(width, "single" if count == 1 else "double")), others
    if boundaries or not others or any("fixed_point" in source.dims for source in others):
        raise _unknown(plain[0], sources[0])
    count = max(len(source.names) for source in others)
    return *curves(others, levels, width_of(width, "single" if count == 1 else "double")), others


def _has(result: Any, dim: str) -> bool:
    return dim in getattr(result, "dims", ()) and "kind" in getattr(result, "data_vars", ())


def _refuse_study(result: Any) -> None:
    """Raise an error for the file of a study."""
    study = getattr(result, "attrs", {}).get("study")
    if study is not None:
        raise ValueError(
            f"this is the result of the study {study!r}, which draws its own figures: "
            f'allowed is "python -m studies run {study}", or a part of it from Python, as in plot(result["R"])'
        )


def _check(result: Any, source: Source) -> None:
    """Raise an error for what no picture is known of."""
    if not source.names or len(set(source.dims) - {"fixed_point"}) > 3:
        raise _unknown(result, source)


def _equilibria(result: Any, source: Source, width: Width) -> tuple[Figure, list[Any]]:
    dims = [dim for dim in source.dims if dim != "fixed_point"]
    if len(dims) == 1:
        return points(source, dims[0], width_of(width, "double"))
    if len(dims) == 2 and "stable" in source.data:
        return phases(source, width_of(width, "single"))
    raise _unknown(result, source)


def _unknown(result: Any, source: Source) -> ValueError:
    found = {str(name): tuple(map(str, source.data[name].dims)) for name in source.names}
    if not found:
        found = {str(name): tuple(map(str, array.dims)) for name, array in list(result.data_vars.items())[:6]}
    return ValueError(
        f"no picture is known for variables with dims {found}: allowed are order parameters and errors over one to three "
        "dimensions beside alpha, with or without 'run': select the others, as in result.sel(rho=2.0)"
    )
