"""A result as it is drawn: its order parameters entry by entry, its errors, and the parameters that tell it apart."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.model import LearningRule
from odeflow.order_parameters import NETWORKS
from odeflow.parameters import LABELS, entries_of
from odeflow.schedule import from_record

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "ERRORS",
    "FEW",
    "LOSSES",
    "Source",
    "configuration_of",
    "differing",
    "drawn_of",
    "is_schedule",
    "parameters_of",
    "shared",
    "source_of",
]

ERRORS = ("error", "fgsm_error", "adversarial_error")
LOSSES = ("loss", "adversarial_loss")
SCHEDULED = ("epsilon", "eta_w", "eta_b")
"""Parameters that may change with learning time: they are drawn where they do."""
FEW = 7
"""Curves in a panel, at most."""
_TOGETHER = 4  # entries of a matrix in one panel, at most
_OF_DATA = ("cosine", "l1_norm", "l2_norm")
_TIMES = ("alpha", "examples")
_COUNTED = ("fixed_point", "branch", "bifurcation", "eigenvalue", "run")  # dims of states, not of an array's entries
_BAND = ("_mean", "_sd")  # of a variable over runs, as theory has them
_MOST_DRAWN = 8  # variables of a Dataset that is none of the package's


@dataclass(frozen=True)
class Source:
    """One result, ready to draw."""

    data: xr.Dataset
    names: tuple[str, ...]
    """Variables that are drawn."""
    parameters: dict[str, Any]
    """Everything that is the same in the whole result, numbers and words."""
    made_by: str = ""
    """The function that made it, where that is known."""

    @property
    def simulated(self) -> bool:
        """Whether it is of Monte Carlo runs."""
        return any("run" in self.data[name].dims for name in self.names)

    @property
    def dims(self) -> list[Hashable]:
        """Dimensions of what is drawn, but for runs."""
        return list(dict.fromkeys(dim for name in self.names for dim in self.data[name].dims if dim != "run"))

    @property
    def level(self) -> bool:
        """Whether it is but numbers: fixed points of one model, or one classifier."""
        return set(self.dims) <= {"fixed_point"}

    def band(self, name: str) -> tuple[xr.DataArray, xr.DataArray] | None:
        """Return between what the theory expects of a variable at finite N: its mean over runs -+ a standard deviation."""
        mean, spread = (f"{name}{suffix}" for suffix in _BAND)
        if mean not in self.data or spread not in self.data:
            return None
        return self.data[mean] - self.data[spread], self.data[mean] + self.data[spread]

    @property
    def flat(self) -> Source:
        """At the last time, where curves over time, one for each value of the only parameter, could not be told apart."""
        others = [dim for dim in self.dims if dim != "alpha"]
        if "alpha" not in self.dims or not others:
            return self
        few = len(others) == 1 and self.data.sizes[others[0]] <= FEW and self.data.sizes["alpha"] > 1
        if few:
            return self
        last = self.data.isel(alpha=-1)
        return replace(self, data=last, parameters=self.parameters | {"alpha": float(last["alpha"])})

    def axes(self) -> tuple[Hashable, Hashable | None] | None:
        """Return the dim that curves are over, and the one that has a curve for each value; None for maps."""
        dims = self.dims
        if len(dims) == 1:
            return dims[0], None
        small = min(dims, key=lambda dim: (self._is_numeric(dim), dim in _TIMES, self.data.sizes[dim]))
        if len(dims) == 2 and self.data.sizes[small] <= FEW:
            return next(dim for dim in dims if dim != small), small
        return None

    def _is_numeric(self, dim: Hashable) -> bool:
        return dim in self.data.coords and bool(np.issubdtype(self.data[dim].dtype, np.number))


def source_of(result: xr.Dataset | xr.DataArray) -> Source:
    """Return what is drawn of a result.

    Raises
    ------
    TypeError, ValueError
        If it is no result, or nothing of it can be drawn.
    """
    import xarray as xr

    if isinstance(result, xr.DataArray):
        result = result.rename("values" if result.name is None else result.name)
        result = result.to_dataset()
    if not isinstance(result, xr.Dataset):
        raise TypeError(f"a result of type {type(result).__name__} is no picture: allowed are Datasets and DataArrays")
    data = drawn_of(result)
    names = tuple(str(name) for name in data.data_vars if name != "stable" and not str(name).endswith(_BAND))
    over = tuple(name for name in names if set(data[name].dims) - {"run"})
    names = over or names  # numbers beside curves are no curves
    return Source(data, names, parameters_of(result), str(configuration_of(result).get("function", "")))


def drawn_of(result: xr.Dataset) -> xr.Dataset:
    """Return what is drawn of a result: order parameters, arrays entry by entry, and the errors or losses.

    Of a perceptron's free weights also the cosine R/sqrt(Q) and the bias b/sqrt(Q), on which alone the errors depend. An array
    of which no entry changes in all of the result, such as output weights that do not learn, is left out. Parameters that
    change with alpha are drawn too. Each entry of an
    array has the attribute `group`: those of one group are drawn into one panel.
    """
    known = {"M", "R", *_OF_DATA}
    known |= {variable.name for kind in NETWORKS.values() for variable in kind().starts(LearningRule())}
    if {"R", "b", "Q"} <= {*result.data_vars} and result["Q"].dims == result["R"].dims:
        root = np.sqrt(result["Q"])
        ratios = {
            "cosine": (result["R"] / root).assign_attrs(symbol=LABELS["cosine"][1]),
            "scaled_b": (result["b"] / root).assign_attrs(symbol=r"b/\sqrt{Q}"),
        }
        result, known = result.assign(ratios), known | {*ratios}
    found: dict[str, xr.DataArray] = {}
    drawn: dict[str, xr.DataArray] = {}
    chosen = [str(name) for name in result.data_vars if name in known]
    chosen += [name for name in (*ERRORS, *LOSSES) if name in result.data_vars]
    if not chosen:
        numeric = [str(name) for name, array in result.data_vars.items() if np.issubdtype(array.dtype, np.number)]
        chosen = numeric if len(numeric) <= _MOST_DRAWN else []
    for frozen in (False, True):  # also what does not change, if nothing does
        for name in () if drawn else tuple(chosen):
            dims = [dim for dim in result[name].dims if dim not in result.coords]
            found |= _drawn(name, result[name], dims, frozen=frozen)
        drawn = found
    bands = [f"{name}{suffix}" for name in drawn for suffix in _BAND]
    others = [name for name in ("stable", *bands) if name in result.data_vars]
    scheduled = [name for name in SCHEDULED if name in result.coords and result[name].dims == ("alpha",)]
    changing = {name: result[name].reset_coords(drop=True).assign_attrs(symbol=LABELS[name][1]) for name in scheduled}
    return result[others].assign(drawn).drop_vars(scheduled).assign(changing)


def _drawn(name: str, values: xr.DataArray, dims: Sequence[Hashable], *, frozen: bool) -> dict[str, xr.DataArray]:
    """Return what is drawn of a variable: itself, or its entries by name; nothing of an array that is frozen, unless it may be.

    `dims` have no values, but count entries.
    """
    entries = [dim for dim in dims if dim not in _COUNTED]
    several = any(values.sizes[dim] > 1 for dim in entries)
    over = [dim for dim in values.dims if dim not in entries]
    if (
        not frozen
        and several
        and math.prod(values.sizes[dim] for dim in over) > 1
        and bool((values == values.isel(dict.fromkeys(over, 0))).all())
    ):
        return {}
    found: dict[str, xr.DataArray] = {}
    tex = values.attrs.get("symbol", LABELS.get(name, ("", ""))[1])
    together = len(entries) < 2 or sum(1 for _ in entries_of(values, entries)) <= _TOGETHER
    symmetric = {"unit", "other_unit"} <= {*entries}
    for index, entry in entries_of(values, entries):
        one = entry.drop_vars([key for key, of in values.coords.items() if {*of.dims} & {*entries}])  # of one entry
        at = "".join(str(i + 1) for i in index) if several else ""
        if not at:
            found[name] = one.assign_attrs(symbol=tex)
            continue
        # of a matrix a panel for each row; of a symmetric one, one for its diagonal and one for the rest
        row = str(index[0] == index[1] if symmetric else index[0])
        group = name if together else f"{name} {row}"
        found[f"{name}{at}"] = one.assign_attrs(symbol=f"{tex}_{{{at}}}", group=group)
    return found


def parameters_of(result: xr.Dataset) -> dict[str, Any]:
    """Return everything that is the same in the whole result: coordinates without dims, and the configuration's rest."""
    values = {str(name): array.item() for name, array in result.coords.items() if not array.dims}
    configuration = configuration_of(result)
    options = configuration.get("options")
    network = options.get("network") if isinstance(options, dict) else None
    for part in (*configuration.values(), network):
        if isinstance(part, dict):
            swept = {*map(str, result.coords)}
            values |= {
                key: value
                for key, value in part.items()
                if isinstance(value, str | bool | int | float) and key not in swept and key not in result.data_vars
            }
            values |= {key: from_record(value) for key, value in part.items() if is_schedule(value)}
    return values


def is_schedule(value: Any) -> bool:
    """Return whether what a configuration has is the record of a schedule."""
    return isinstance(value, dict) and value.get("kind") == "Schedule"


def configuration_of(result: xr.Dataset) -> dict[str, Any]:
    """Return what made a result, as far as its attributes say so."""
    try:
        read = json.loads(result.attrs.get("configuration", "{}"))
    except (TypeError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def differing(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return, for each source, the parameters by which it differs from others: N only where simulations differ in it."""
    names = list(dict.fromkeys(name for source in sources for name in source.parameters))
    found: list[dict[str, Any]] = [{} for _ in sources]
    for name in names:
        told = [source.parameters.get(name) for source in sources if name in source.parameters]
        if len({repr(value) for value in told}) > 1:
            for one, source in zip(found, sources, strict=True):
                if name in source.parameters:
                    one[name] = source.parameters[name]
    for one in found:  # the same number twice says nothing new
        if one.get("test_epsilon") == one.get("epsilon"):
            one.pop("test_epsilon", None)
    return found


def shared(sources: Iterable[Source]) -> dict[str, Any]:
    """Return the parameters that are the same in all sources."""
    first, *others = (source.parameters for source in sources)
    return {
        name: value
        for name, value in first.items()
        if all(name not in other or repr(other[name]) == repr(value) for other in others)
    }
