"""Tables in LaTeX: parameters and results with the field's symbols, rounded, with standard errors as in 0.123(4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.parameters import LABELS, checked_count
from odeflow.plot.sources import ERRORS, configuration_of, drawn_of, is_schedule
from odeflow.schedule import Schedule, from_record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["escaped", "latex", "number", "with_error"]

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
_FEW_DIGITS = 4
_NOT_SHOWN = ("status", "stable", "eigenvalues", "kind", "growth_rate")
_STATES = ("fixed_point", "branch", "bifurcation")
_NO_VALUE = "--"


def latex(
    result: xr.Dataset | xr.DataArray, *, rows: int = 25, caption: str | None = None, label: str | None = None
) -> str:
    r"""Return a table of the parameters and one of the results, for ``\input`` in any LaTeX document.

    No package is needed. Symbols are those of the axes and of the paper. Numbers of the theory have four significant
    digits; of simulations it is the mean over the runs, with the standard error of the mean in units of the last digit,
    of which there is one (two if they begin with 1): 0.123(4).

    Parameters
    ----------
    result
        What `integrate`, `simulate`, `sweep`, `fixed_points`, `branches`, `phase_boundary`, `critical_epsilon`,
        `optimal_classifier` or `robustness_curve` (as a DataArray) returned, or any labelled Dataset of numbers.
    rows
        Rows of results, at most, >= 1. Of more points so many are shown, evenly spaced, the last one always; a comment
        says how many there are. A sweep is shown at its last alpha.
    caption, label
        Of the table, as text, which is escaped, and as the name for ``\ref``.

    Returns
    -------
    str
        A ``table`` environment.

    Raises
    ------
    TypeError, ValueError
        If it is no result, it has nothing to show, or `rows` is out of range.
    """
    import xarray as xr

    rows = checked_count("rows", rows, 1)
    if isinstance(result, xr.DataArray):
        result = result.to_dataset(name="value" if result.name is None else result.name)
    if not isinstance(result, xr.Dataset):
        raise TypeError(f"a result of type {type(result).__name__} has no table: allowed are Datasets and DataArrays")
    for dim in [dim for dim in _STATES if dim in result.dims]:  # rows that only fill up an array
        found = [name for name, array in result.data_vars.items() if dim in array.dims and array.dtype.kind == "f"]
        result = result.dropna(dim, how="all", subset=found) if found else result
    head, body, note = _results(result, rows)
    parameters = _parameter_rows(result)
    lines = [r"\begin{table}", r"\centering", r"\small\setlength{\tabcolsep}{4pt}"]
    if caption is not None:
        lines.append(rf"\caption{{{escaped(caption)}}}")
    if label is not None:
        lines.append(rf"\label{{{label}}}")
    if parameters:
        lines += [*_tabular(r"lp{0.62\linewidth}l", ["", "parameter", "value"], parameters), "", r"\medskip", ""]
    lines += [f"% {line}" for line in note]
    lines += [*_tabular("r" * len(head), head, body), r"\end{table}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return a text in which no character means anything to LaTeX."""
    return "".join(_ESCAPES.get(letter, letter) for letter in " ".join(str(text).split()))


def number(value: float, decimals: int | None = None) -> str:
    """Return a number as LaTeX: with so many decimals, or with four significant digits.

    Beyond a million and below a thousandth, if no decimals are given, it is a multiple of a power of ten.
    """
    if math.isnan(value):
        return _NO_VALUE
    if math.isinf(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    if decimals is None:
        if value == 0:
            return "$0$"
        power = math.floor(math.log10(abs(float(f"{value:.{_FEW_DIGITS - 1}e}"))))
        if not -3 <= power < 6:
            return rf"${value / 10.0**power:.{_FEW_DIGITS - 1}f}\times10^{{{power}}}$"
        decimals = max(_FEW_DIGITS - 1 - power, 0)
    rounded = f"{value:.{decimals}f}"
    return f"${rounded.lstrip('-') if float(rounded) == 0 else rounded}$"


def with_error(value: float, error: float) -> str:
    """Return a number with its standard error in units of the last digit, such as 0.123(4); 12.3(1.4) across the point."""
    if not math.isfinite(value) or not math.isfinite(error) or error < 0:
        return number(value)
    if error == 0:
        return number(value)
    scale = math.floor(math.log10(max(abs(value), error)))
    if not -3 <= scale < 6:
        inner = with_error(value / 10.0**scale, error / 10.0**scale).strip("$")
        return rf"${inner}\times10^{{{scale}}}$"
    digits = 2 if f"{error:.1e}"[0] == "1" else 1
    power = math.floor(math.log10(float(f"{error:.{digits - 1}e}")))  # after rounding: 0.096 is 0.10
    digits = 2 if f"{error:.{digits - 1}e}"[0] == "1" else 1
    last = power - digits + 1
    if last >= 0:
        return f"${round(value, -last):.0f}({round(error, -last):.0f})$"
    inside = f"{error:.{-last}f}"
    if power < 0:
        inside = f"{round(error * 10.0**-last)}"
    rounded = f"{value:.{-last}f}"
    return f"${rounded.lstrip('-') if float(rounded) == 0 else rounded}({inside})$"


def _tabular(columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline\hline", " & ".join(head) + r" \\", r"\hline"]
    return [*lines, *(" & ".join(row) + r" \\" for row in rows), r"\hline\hline", r"\end{tabular}"]


def _symbol(name: Hashable, values: xr.DataArray | None = None) -> str:
    """Return the symbol of a variable or parameter in mathematics, or its name."""
    tex = LABELS.get(str(name), ("", ""))[1] if values is None else values.attrs.get("symbol", "")
    tex = tex or LABELS.get(str(name), ("", ""))[1]
    return f"${tex}$" if tex else escaped(str(name).replace("_", " "))


def _parameter_rows(result: xr.Dataset) -> list[list[str]]:
    """Return symbol, meaning and value of each parameter that is the same in the whole result."""
    found: dict[str, Any] = {str(name): array.item() for name, array in result.coords.items() if not array.dims}
    configuration = configuration_of(result)
    for part in configuration.values():
        if isinstance(part, Mapping):
            known = {name: value for name, value in part.items() if name in LABELS and name not in result.variables}
            found |= {name: value for name, value in known.items() if name not in found and value is not None}
            found |= {name: from_record(value) for name, value in part.items() if is_schedule(value)}
    if "run" in result.dims:
        found["runs"] = result.sizes["run"]
    rows = []
    for name, value in found.items():
        if not isinstance(value, str | bool | int | float | Schedule):
            continue
        text = LABELS[name][0] if name in LABELS else str(name).replace("_", " ")
        tex = LABELS[name][1] if name in LABELS else ""
        rows.append([f"${tex}$" if tex else "", escaped(text), _parameter(value)])
    return rows


def _parameter(value: Any) -> str:
    """Return a parameter as it was given: it is not rounded, unless it has more than ten digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | Schedule):
        return escaped(str(value).removeprefix("Schedule."))
    if not math.isfinite(value):
        return number(value)
    mantissa, _, power = f"{value:.10g}".partition("e")
    return f"${mantissa}$" if not power else rf"${mantissa}\times10^{{{int(power)}}}$"


def _results(result: xr.Dataset, most: int) -> tuple[list[str], list[list[str]], list[str]]:
    """Return head and rows of the results, and comments on what is shown."""
    data = drawn_of(result)
    extra = {name: result[name] for name in result.data_vars if name not in data and name not in _NOT_SHOWN}
    names = [str(name) for name in data.data_vars if name != "stable"]
    numeric = [str(name) for name, array in extra.items() if np.issubdtype(array.dtype, np.number)]
    if not names or {"bifurcation", "branch"} & {*result.dims}:
        data, names = result, [*(n for n in map(str, result.data_vars) if n not in _NOT_SHOWN and n not in ERRORS), *(n for n in ERRORS if n in result)]  # fmt: skip
        names = [name for name in names if name in numeric or (name in data and np.issubdtype(data[name].dtype, np.number))]  # fmt: skip
    note: list[str] = []
    dims = list(dict.fromkeys(dim for name in names for dim in data[name].dims if dim != "run"))
    if "branch" in dims and "bifurcation" in dims:
        names = [name for name in names if "bifurcation" not in data[name].dims]
        dims.remove("bifurcation")
    if "alpha" in dims and len(dims) > 1:
        data = data.isel(alpha=-1)
        dims.remove("alpha")
        note.append(f"at alpha = {float(data['alpha']):g}, the last of {result.sizes['alpha']}")
    if not names:
        raise ValueError(
            f"there is nothing to show: the variables are {', '.join(map(str, result.data_vars)) or 'none'}"
        )
    chosen, count = _chosen({dim: data.sizes[dim] for dim in dims}, most)
    shown = math.prod(len(one) for one in chosen)
    if shown < count:
        note.append(f"{shown} of {count} points")
    at_coordinates = [dim for dim in dims if dim in data.coords]
    points = [dict(zip(dims, index, strict=True)) for index in itertools.product(*chosen)]
    columns: list[tuple[str, list[str]]] = [
        (_symbol(dim), [_parameter(_item(data[dim].values[point[dim]])) for point in points]) for dim in at_coordinates
    ]
    for name, array in data.coords.items():  # what goes with a dimension, such as the state of a fixed point
        own = array.dims and {*array.dims} <= {*dims} and name not in dims
        if own and np.issubdtype(array.dtype, np.number) and not any(array.equals(data[dim].rename(name)) for dim in array.dims if dim in data.coords):  # fmt: skip
            cells = [array.isel({dim: i for dim, i in point.items() if dim in array.dims}) for point in points]
            columns.append((_symbol(name, array), _column(cells)))
    begin = len(columns)
    for name in names:
        cells = [data[name].isel({dim: i for dim, i in point.items() if dim in data[name].dims}) for point in points]
        columns.append((_symbol(name, data[name]), _column(cells)))
    columns += _stability(result, points)
    rows = [list(row) for row in zip(*(cells for _, cells in columns), strict=True)]
    # of branches and fixed points that are not there, nothing is said
    values = range(begin, begin + len(names))
    if {*_STATES} & {*dims}:
        rows = [row for row in rows if any(row[i] != _NO_VALUE for i in values)]
    return [head for head, _ in columns], rows, note


def _item(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _chosen(sizes: Mapping[Hashable, int], most: int) -> tuple[list[list[int]], int]:
    """Return indices along each dimension so that there are at most so many points, the last along each among them.

    Fixed points and branches are thinned out last.
    """
    kept = dict(sizes)
    while math.prod(kept.values()) > most:
        dim = max(kept, key=lambda dim: (kept[dim] > 1 and dim not in _STATES, kept[dim]))
        kept[dim] = max(1, min(kept[dim] - 1, 4 * most)) if kept[dim] > 1 else 0
    chosen = [
        np.unique(np.linspace(0, size - 1, keep).round().astype(int)).tolist() if keep > 1 else [size - 1][:keep]
        for size, keep in zip(sizes.values(), kept.values(), strict=True)
    ]
    return chosen, math.prod(sizes.values())


def _column(cells: Sequence[xr.DataArray]) -> list[str]:
    """Return the numbers of a column: means with standard errors, or so rounded that the points stand under each other."""
    if any("run" in cell.dims for cell in cells):
        return [_mean(cell.values.astype(float)) for cell in cells]
    if cells and str(cells[0].name) not in LABELS and all(float(cell).is_integer() for cell in cells):  # they count
        return [_parameter(float(cell)) for cell in cells]
    if any(cell.dtype == bool for cell in cells):
        return ["yes" if cell.item() else "no" for cell in cells]
    values = [float(cell) for cell in cells]
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    if not sizes or max(sizes) >= 1e6 or max(sizes) < 1e-3:
        return [number(value) for value in values]
    decimals = max(_FEW_DIGITS - 1 - math.floor(math.log10(max(sizes))), 0)
    small = 10.0**-decimals
    return [number(value) if 0 < abs(value) < small else number(value, decimals) for value in values]


def _mean(runs: Any) -> str:
    runs = runs[np.isfinite(runs)]
    if not runs.size:
        return _NO_VALUE
    if runs.size == 1:
        return number(float(runs[0]))
    return with_error(float(runs.mean()), float(runs.std(ddof=1)) / math.sqrt(runs.size))


def _stability(result: xr.Dataset, points: Sequence[Mapping[Hashable, int]]) -> list[tuple[str, list[str]]]:
    """Return columns with the stability of fixed points and the time in which deviations decay."""
    columns: list[tuple[str, list[str]]] = []
    if "stable" in result and {"fixed_point", "branch"} & {*result["stable"].dims}:
        stable = [bool(result["stable"].isel(dict(point))) for point in points]
        columns.append(("stability", ["stable" if one else "unstable" for one in stable]))
        rate: xr.DataArray | None = result.get("growth_rate")
        if "eigenvalues" in result:
            rate = result["eigenvalues"].real.max("eigenvalue")
        if rate is not None:
            rates = [float(rate.isel(dict(point))) for point in points]
            columns.append((r"relaxation time", [number(-1 / r) if s and r < 0 else _NO_VALUE for r, s in zip(rates, stable, strict=True)]))  # fmt: skip
    if "kind" in result and "branch" not in result.dims and "bifurcation" in result.dims:
        names = str(result["kind"].attrs.get("flag_meanings", "")).split()
        kinds = [float(result["kind"].isel(dict(point))) for point in points]
        columns.append(("kind", [escaped(names[int(k)].replace("_", " ")) if 0 <= k < len(names) else _NO_VALUE for k in kinds]))  # fmt: skip
    return columns
