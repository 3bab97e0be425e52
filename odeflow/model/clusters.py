"""Data of any number of Gaussian clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow.model.bounds import MOST
from odeflow.parameters import checked, checked_number, described, number, thing

__all__ = ["GaussianClusters", "gram_factor", "matrix_of", "vector_of", "xor"]

Array = npt.NDArray[np.float64]
Matrix = tuple[tuple[float, ...], ...]

_SMALL = 1e-10  # of the largest eigenvalue of a Gram matrix: less is 0


@described
@dataclass(frozen=True)
class GaussianClusters:
    """Isotropic Gaussian clusters in R^N, each with a label +1 or -1.

    An example is of cluster a with probability p_a, and is then drawn from N(s mu_a, u v_a I), with the scale s and the
    spread u. The centres are given by coordinates in some orthonormal directions, or by their products mu_a.mu_b alone:
    nothing else of them matters.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed: among them a Gram matrix that is not positive semidefinite.

    Examples
    --------
    >>> three = GaussianClusters(means=[[1, 0], [-1, 0], [0, 1]], labels=[1, -1, -1], weights=[0.5, 0.25, 0.25])
    >>> three.labels, three.products(scaled=True).shape
    ((1.0, -1.0, -1.0), (3, 3))
    """

    means: Any = thing(
        None, "coordinates of the centres, shape (clusters, dimensions)", "Either these or `gram` are given."
    )
    labels: Any = thing(None, "labels of the clusters, each +1 or -1")
    weights: Any = thing(None, "probabilities of the clusters", "None: the same of all.")
    variances: Any = thing(None, "variances of the clusters, > 0", "None: 1.")
    gram: Any = thing(None, "products mu_a.mu_b of the centres, shape (clusters, clusters)")
    scale: float = number(1.0, "factor of the centres", "s", least=0, most=MOST)
    spread: float = number(1.0, "factor of the variances", "u", least=1 / MOST, most=MOST)

    def __post_init__(self) -> None:
        checked(self)
        if (self.means is None) == (self.gram is None):
            raise ValueError(
                f"means = {self.means!r} and gram = {self.gram!r}: allowed is one of the two, and None for the other"
            )
        name = "means" if self.gram is None else "gram"
        centres = matrix_of(name, getattr(self, name))
        object.__setattr__(self, name, centres)
        clusters = len(centres)
        if name == "gram":
            gram_factor("gram", np.array(centres))
        if self.labels is None:
            raise ValueError(f"labels = None: allowed are {clusters} numbers, each +1 or -1")
        default: dict[str, Any] = {"labels": None, "weights": [1 / clusters] * clusters, "variances": [1.0] * clusters}
        for field, plain in default.items():
            given = getattr(self, field)
            object.__setattr__(self, field, vector_of(field, plain if given is None else given, clusters, "cluster"))
        for label in self.labels:
            if label not in (1.0, -1.0):
                raise ValueError(f"labels contain {label!r}: allowed are +1 and -1")
        for weight in self.weights:
            checked_number("weights", weight, least=0, most=1)
        if abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights = {self.weights!r} sum to {sum(self.weights)!r}: allowed is a sum of 1")
        for variance in self.variances:
            checked_number("variances", variance, least=1 / MOST, most=MOST)

    def products(self, *, scaled: bool = True) -> Array:
        """Return mu_a.mu_b, shape (clusters, clusters); those of the data, or without the scale."""
        X = self.coordinates(scaled=scaled)
        return X @ X.T if self.gram is None else np.array(self.gram) * (self.scale**2 if scaled else 1.0)

    def coordinates(self, *, scaled: bool = True) -> Array:
        """Return the centres in an orthonormal basis, shape (clusters, dimensions); of the data, or without the scale."""
        X = np.array(self.means) if self.gram is None else gram_factor("gram", np.array(self.gram))
        return self.scale * X if scaled else X


def xor(rho: float = 2.0, v: float = 1.0) -> GaussianClusters:
    """Return the four clusters of XOR: centres +-(rho/2) e_1 with the label +1, +-(rho/2) e_2 with -1, variance v.

    No linear rule is better than chance. The distance of two opposite centres is rho, of two neighbours rho / sqrt(2).

    Examples
    --------
    >>> xor(rho=2.0, v=0.1).spread
    0.1
    """
    scale = checked_number("rho", rho, least=0, most=2 * MOST) / 2
    means = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
    spread = checked_number("v", v, least=1 / MOST, most=MOST)
    return GaussianClusters(means, (1, 1, -1, -1), scale=scale, spread=spread)


def matrix_of(name: str, value: Any) -> Matrix:
    """Return a matrix of finite numbers as tuples, or raise an error that names it."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} is no matrix of numbers: allowed is an array of two dimensions") from None
    if array.ndim != 2 or array.size == 0 or not np.all(np.isfinite(array)):
        raise ValueError(f"{name} = {value!r}: allowed is an array of two dimensions of finite numbers, not empty")
    largest = np.abs(array).max()
    if largest > MOST:
        raise ValueError(f"{name} has an entry of size {largest:g}: allowed are at most {MOST:g}")
    return tuple(tuple(row) for row in array.tolist())


def gram_factor(name: str, gram: Array) -> Array:
    """Return X with X X^T = gram, shape (vectors, rank), or raise a ValueError if there is none.

    The rows are coordinates of vectors that have these products, in an orthonormal basis.
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"{name} has shape {gram.shape}: allowed is a square matrix")
    if not np.allclose(gram, gram.T, rtol=1e-12, atol=1e-12):
        raise ValueError(f"{name} is not symmetric: allowed is a matrix of products of vectors")
    values, vectors = np.linalg.eigh(gram)
    if values[0] < -_SMALL * max(1.0, values[-1]):
        raise ValueError(
            f"{name} has the eigenvalue {float(values[0]):.6g}: allowed is a positive semidefinite matrix, which products of "
            "vectors are"
        )
    kept = values > _SMALL * max(values[-1], 1e-300)
    factor: Array = vectors[:, kept] * np.sqrt(values[kept])
    return factor


def vector_of(name: str, value: Sequence[float], size: int, each: str) -> tuple[float, ...]:
    """Return finite numbers, one for each of something, as a tuple, or raise an error that names them."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} are no numbers: allowed are {size}, one for each {each}") from None
    if array.shape != (size,) or not np.all(np.isfinite(array)):
        raise ValueError(f"{name} = {value!r}: allowed are {size} finite numbers, one for each {each}")
    return tuple(array.tolist())
