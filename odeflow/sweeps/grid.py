"""Grids of parameters: the points of a sweep, in C order, and where they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Grid"]

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """The product of the values of several parameters. A point's index counts them in C order."""

    values: dict[str, npt.NDArray[Any]]
    """Distinct values of each parameter, in the order of the dims."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each parameter."""
        return tuple(len(values) for values in self.values.values())

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    def points(self, index: Index) -> dict[str, npt.NDArray[Any]]:
        """Return the parameters of some points, each of shape (points,)."""
        at = np.unravel_index(index, self.shape)
        return {name: values[i] for (name, values), i in zip(self.values.items(), at, strict=True)}

    def corners(self) -> Index:
        """Return the indices of the points with the least and largest values of each parameter."""
        extremes = [(int(np.argmin(values)), int(np.argmax(values))) for values in self.values.values()]
        return np.unique(np.ravel_multi_index(np.array([*itertools.product(*extremes)]).T, self.shape))

    def find(self, points: Mapping[str, npt.NDArray[Any]]) -> Index:
        """Return the indices of points whose values equal the grid's exactly; -1 for those that are not on the grid."""
        at, known = [], np.True_
        for name, values in self.values.items():
            order = np.argsort(values)
            i = order[np.minimum(np.searchsorted(values, points[name], sorter=order), len(values) - 1)]
            at.append(i)
            known = known & (values[i] == points[name])
        return np.where(known, np.ravel_multi_index(at, self.shape), -1)

    def box_shape(self, most: int) -> tuple[int, ...]:
        """Return the shape of the largest box of consecutive points with at most `most` points."""
        shape = [1] * len(self.shape)
        for axis in reversed(range(len(shape))):
            shape[axis] = max(1, min(self.shape[axis], most // math.prod(shape)))
            if shape[axis] < self.shape[axis]:
                break
        return tuple(shape)

    def boxes(self, most: int) -> Iterator[tuple[slice, tuple[slice, ...]]]:
        """Cover the grid by boxes of consecutive points: yield their range of indices, and their slice of each dim."""
        box = self.box_shape(most)
        counts = [-(-size // step) for size, step in zip(self.shape, box, strict=True)]
        first = 0
        for corner in np.ndindex(*counts):
            where = tuple(
                slice(i * step, min((i + 1) * step, size))
                for i, step, size in zip(corner, box, self.shape, strict=True)
            )
            last = first + math.prod(part.stop - part.start for part in where)
            yield slice(first, last), where
            first = last
