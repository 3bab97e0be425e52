"""What the data are to a two-layer network: the overlaps of its state, the clusters' numbers, which starts are possible."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from odeflow.model import Data, GaussianClusters, GaussianMixture, TeacherStudent
from odeflow.order_parameters.base import Array, OrderParameter, Points
from odeflow.parameters import Range

__all__ = [
    "MOST_STUDENT",
    "MOST_TEACHER",
    "MOST_UNITS",
    "Directions",
    "TwoLayers",
    "check_lengths",
    "check_starts",
    "cluster_numbers",
    "columns",
    "coordinates",
    "directions",
    "part",
    "state_variables",
    "teacher_is_integrated",
]

_ROUNDING = 1e-9  # of the largest entry: how far a Gram matrix may be from positive semidefinite


class TwoLayers(Protocol):
    """What of a `Committee` the other files of this folder read."""

    @property
    def hidden(self) -> int:
        """Number of hidden units."""

    @property
    def activation(self) -> str:
        """Name of the hidden unit."""

    @property
    def eta_c(self) -> float:
        """Learning rate of the output weights."""

    @property
    def eta_theta(self) -> float:
        """Learning rate of the thresholds."""

    @property
    def tolerance(self) -> float:
        """Error of the right-hand side that the quadrature aims at."""

    @property
    def errors(self) -> tuple[str, ...] | None:
        """Names of the errors that results have; None: all that are known."""


def state_variables(units: int, mixture: Data) -> tuple[OrderParameter, ...]:
    """Return M (with a teacher, R), Q, c, theta and b."""
    unit, pair = (("unit",), (units,)), (("unit", "other_unit"), (units, units))
    if isinstance(mixture, TeacherStudent):
        first = OrderParameter(
            "R", "overlap of a unit's weights with a teacher's", "R", Range(), 0.0,
            ("unit", "teacher_unit"), (units, mixture.units),
        )  # fmt: skip
    elif isinstance(mixture, GaussianClusters):
        first = OrderParameter(
            "M", "overlap of a unit's weights with the centre of a cluster", "M", Range(), 0.0,
            ("unit", "cluster"), (units, len(mixture.labels)),
        )  # fmt: skip
    else:
        first = OrderParameter(
            "M", "overlap of a unit's weights with the centre of the class +1", "M", Range(), 0.0, *unit
        )
    # of one unit Q is a length; of more, overlaps of either sign
    Q = Range(above=0) if units == 1 else Range()
    return (
        first,
        OrderParameter("Q", "overlap of two units' weights", "Q", Q, 1.0, *pair, diagonal=True),
        OrderParameter("c", "output weight of a unit", "c", Range(), 1.0, *unit),
        OrderParameter("theta", "threshold of a unit", r"\theta", Range(), 0.0, *unit),
        OrderParameter("b", "output bias", "b"),
    )


MOST_UNITS = 6
"""Hidden units that are integrated over at most: each takes some 20 times as long as one less. Simulations have no bound."""

MOST_STUDENT, MOST_TEACHER = 4, 3
"""Units of a student and of its teacher that are integrated over at most."""


def teacher_is_integrated(hidden: int, units: int) -> bool:
    """Return whether the averages over the fields of a student and its teacher can be had."""
    return 1 <= hidden <= MOST_STUDENT and 1 <= units <= MOST_TEACHER


class Directions(NamedTuple):
    """The directions whose overlaps with the weights are in the state, without the data's scale."""

    gram: Array
    """Their products, shape (directions, directions)."""
    shares: Array
    """The clusters' centres as sums of them, shape (directions, clusters); none with a teacher."""
    labels: Array
    """Labels of the clusters, shape (clusters,)."""


def directions(mixture: Data) -> Directions:
    """Return the directions of the state: mu_+ of the seed's mixture, all centres of clusters, the teacher's weights."""
    if isinstance(mixture, GaussianMixture):
        return Directions(np.eye(1), np.array([[1.0, -1.0]]), np.array([1.0, -1.0]))
    gram = mixture.products(scaled=False)
    if isinstance(mixture, TeacherStudent):
        return Directions(gram, np.empty((len(gram), 0)), np.empty(0))
    return Directions(gram, np.eye(len(gram)), np.array(mixture.labels))


def cluster_numbers(mixture: Data, points: Points) -> tuple[Array, Array, Array]:
    """Return the squared scale, the priors and the variances at some points, shapes (...), (..., clusters) twice."""
    if isinstance(mixture, GaussianMixture):
        p, v1, v2 = np.broadcast_arrays(*(np.asarray(points[name], np.float64) for name in ("p", "v1", "v2")))
        scale = (np.asarray(points["rho"], np.float64) / 2) ** 2
        return scale, np.stack([p, 1 - p], axis=-1), np.stack([v1, v2], axis=-1)
    scale = np.asarray(points["scale"], np.float64) ** 2
    if isinstance(mixture, TeacherStudent):
        return scale, np.empty((*scale.shape, 0)), np.empty((*scale.shape, 0))
    spread = np.asarray(points["spread"], np.float64)
    weights = np.broadcast_to(mixture.weights, (*spread.shape, len(mixture.weights)))
    return scale, weights, spread[..., None] * np.array(mixture.variances)


def coordinates(units: int, mixture: Data) -> Array:
    """Return an orthonormal basis of the state vectors that weights can have, shape (width, coordinates).

    Of M the overlaps with vectors that have the directions' products, of Q each pair of units once.
    """
    from scipy.linalg import block_diag

    gram = directions(mixture).gram
    values, vectors = np.linalg.eigh(gram)
    overlaps = np.kron(np.eye(units), vectors[:, values > _ROUNDING * values[-1]])
    pairs = []
    for k in range(units):
        for l in range(k + 1):
            pair = np.zeros((units, units))
            pair[k, l] = pair[l, k] = 1.0 if k == l else np.sqrt(0.5)
            pairs.append(pair.ravel())
    return np.asarray(block_diag(overlaps, np.transpose(pairs), np.eye(2 * units + 1)))


def check_lengths(units: int, mixture: Data, start: Array) -> None:
    """Raise a ValueError if a unit of a state has no weights: the averages over its field have no limit there."""
    size = len(directions(mixture).gram)
    lengths = start[:, units * size : units * (size + units)][:, :: units + 1]
    bad = np.any(lengths <= 0.0, axis=1)
    if np.any(bad):
        raise ValueError(
            f"Q0 has the diagonal {lengths[bad][0].tolist()!r}: allowed in the theory are squared lengths > 0, and in a "
            "simulation 0 too"
        )


def check_starts(units: int, mixture: Data, scale: Array, start: Array) -> None:
    """Raise a ValueError if no weights have the overlaps of a state.

    Parameters
    ----------
    units
        K.
    mixture
        The data.
    scale
        Squared scales, shape (points,).
    start
        States, shape (points, width).
    """
    gram = directions(mixture).gram
    size = len(gram)
    M = start[:, : units * size].reshape(-1, units, size)
    Q = start[:, units * size : units * (size + units)].reshape(-1, units, units)
    asymmetric = np.abs(Q - np.swapaxes(Q, 1, 2)).max(axis=(1, 2), initial=0.0) > _ROUNDING
    if np.any(asymmetric):
        raise ValueError(f"Q0 = {Q[asymmetric][0].tolist()!r} is not symmetric: allowed is Q0[k, l] = Q0[l, k]")
    least = np.linalg.eigvalsh(Q)[:, 0]
    bad = least < -_ROUNDING * np.abs(Q).max(axis=(1, 2))
    if np.any(bad):
        raise ValueError(
            f"Q0 = {Q[bad][0].tolist()!r} has the eigenvalue {float(least[bad][0]):.6g}: allowed is a positive semidefinite "
            "matrix, which products of weights are"
        )
    name = "R0" if isinstance(mixture, TeacherStudent) else "M0"
    inverse = np.linalg.pinv(gram, hermitian=True)
    outside = np.abs(M - M @ inverse @ gram).max(axis=(1, 2), initial=0.0)
    bad = outside > 1e-9 * (1 + np.abs(M).max(axis=(1, 2), initial=0.0))
    if np.any(bad):
        near = np.round((M @ inverse @ gram)[bad][0], 10) + 0.0
        raise ValueError(
            f"{name} = {M[bad][0].tolist()!r} is no overlap with these centres: where a combination of centres is 0, that of "
            f"their overlaps is 0 too. The nearest that is one is {near.tolist()!r}"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.where(M == 0, 0.0, M / np.sqrt(scale)[:, None, None])  # inf where M is not 0 and the scale is
    finite = np.all(np.isfinite(seen), axis=(1, 2))
    seen = np.where(finite[:, None, None], seen, 0.0)
    rest = Q - seen @ inverse @ np.swapaxes(seen, 1, 2)
    least = np.where(finite, np.linalg.eigvalsh((rest + np.swapaxes(rest, 1, 2)) / 2)[:, 0], -np.inf)
    bad = least < -_ROUNDING * np.maximum(1e-3, np.abs(Q).max(axis=(1, 2)))
    if not np.any(bad):
        return
    if units == 1 and isinstance(mixture, GaussianMixture):
        allowed = "|M0| <= (rho/2) sqrt(Q0)"
    else:
        T = "T" if isinstance(mixture, TeacherStudent) else "T (the centres' products)"
        allowed = f"one with Q0 - {name} T^-1 {name}^T positive semidefinite, with {T}; its least eigenvalue is {least[bad][0]:.6g}"
    value = repr(float(M[bad][0].flat[0])) if units * size == 1 else repr(M[bad][0].tolist())
    raise ValueError(f"{name} = {value} is out of range: allowed is {allowed}")


def columns(points: Points, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return numbers by name as columns, shape (points, names)."""
    return np.stack([np.asarray(points[name], np.float64) for name in names], axis=-1)


def part(state: Any, mixture: Data) -> tuple[Array, Array, Array, Array, Array]:
    """Return the overlaps with all directions (..., K, S), Q, c, theta and b of a state by name."""
    values = [np.asarray(state[name], np.float64) for name in ("Q", "c", "theta", "b")]
    first = np.asarray(state["R" if isinstance(mixture, TeacherStudent) else "M"], np.float64)
    if isinstance(mixture, GaussianMixture):
        first = first[..., None]
    return first, values[0], values[1], values[2], values[3]
