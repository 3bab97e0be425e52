r"""The least adversarial error that any classifier can have on given examples of two classes (exact).

Let x and z be examples of the two classes whose balls of radius :math:`\varepsilon` have a point in common. Whatever a classifier
says at that point, it errs on one of the two under attack. So the examples on which it does not err have no such pair among
them, and those on which it errs are a vertex cover of the bipartite graph of such pairs. Conversely, what is left of a vertex
cover has disjoint balls, and the classifier that gives each ball its label errs on the cover alone. Hence the least error is the
size of the smallest vertex cover over the number of examples, and by König's theorem

.. math:: S^*(\varepsilon) = \frac{1}{n_+ + n_-} \max \{|M| : M \text{ a matching of pairs with } |x - z| \le 2\varepsilon\}.

Two balls have a point in common just if their midpoint is one, that is if the distance is at most :math:`2\varepsilon`. The midpoint
of two images in a box is in the box: attacks that keep the bounds of the pixels have the same bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.model import MOST, NORMS
from odeflow.numerics.memory import check_memory
from odeflow.parameters import as_numbers, checked_array, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["lower_bound"]

Array = npt.NDArray[np.float64]

_ROUNDING = 1e-12
"""Relative: distances that exceed 2 epsilon by less, as those of pixels do that are multiples of 1/255, are taken for equal."""
_MOST_EPSILONS = 2**16 - 1


def lower_bound(plus: npt.ArrayLike, minus: npt.ArrayLike, epsilon: npt.ArrayLike, norm: str = "l2") -> xr.DataArray:
    r"""Return the least adversarial error of any classifier on these examples of two classes (exact).

    No function of an example, linear or deep, trained or made by hand, has a smaller error on these examples under the worst
    perturbation of size epsilon, and there is one that has this error. It is the maximum of a matching of pairs, one of each
    class, that are at most 2 epsilon apart, over the number of examples. Attacks that keep pixels in their box have the same bound.

    It is a statement on these examples, in which each counts the same, and not on the law that they are drawn from: among few examples
    few are near to each other, so that more of them have a larger bound.

    Parameters
    ----------
    plus, minus
        Examples of either class, shapes (n, ...) and (m, ...): vectors or images, finite.
    epsilon
        Sizes of the perturbation, >= 0, a number or shape (epsilon,), in the units of the examples.
    norm
        Norm in which epsilon is the size: "l2" or "linf".

    Returns
    -------
    DataArray
        adversarial_error, with the dim epsilon if there are several; at most the share of the smaller class. At epsilon = 0 it
        counts examples that stand in both classes.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or the pairs (2 bytes each, and 14 more if all are near) do not fit into memory.

    References
    ----------
    A. Bhagoji, D. Cullina and P. Mittal, Lower bounds on adversarial robustness from optimal transport, NeurIPS 2019
    (arXiv:1909.12272), section 4.

    Examples
    --------
    >>> plus, minus = [[0.0], [1.0], [5.0]], [[1.5], [9.0]]
    >>> lower_bound(plus, minus, [0.2, 0.25, 1.75, 2.0]).values
    array([0. , 0.2, 0.2, 0.4])
    """
    import xarray as xr

    x, z = _points("plus", plus), _points("minus", minus)
    if x.shape[1:] != z.shape[1:]:
        raise ValueError(f"minus has examples of shape {z.shape[1:]}: allowed is {x.shape[1:]}, that of plus")
    sizes = _sizes(epsilon)
    if norm not in NORMS:
        raise ValueError(f"norm = {norm!r} is unknown: allowed is one of {', '.join(NORMS)}")
    error = _matched(x.reshape(len(x), -1), z.reshape(len(z), -1), sizes, norm) / (len(x) + len(z))
    dims = ("epsilon",) * sizes.ndim
    attributes = provenance("optimal.lower_bound", n_plus=len(x), n_minus=len(z), shape=x.shape[1:], norm=norm)
    return label(xr.DataArray(error, {"epsilon": (dims, sizes)}, dims, "adversarial_error", attributes))


def _points(name: str, values: Any) -> Array:
    """Return examples as an array, or raise an error that says what is wrong."""
    array = checked_array(name, values)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}: allowed is (examples, ...), at least one of at least one number"
        )
    return array


def _sizes(epsilon: Any) -> Array:
    """Return the sizes of perturbations as an array, or raise an error that says what is wrong."""
    sizes = as_numbers("epsilon", epsilon)
    if sizes.ndim > 1 or not 1 <= sizes.size <= _MOST_EPSILONS:
        raise ValueError(
            f"epsilon has shape {sizes.shape}: allowed are a number or 1 to {_MOST_EPSILONS} numbers in a row"
        )
    bad = ~((sizes >= 0) & (sizes <= MOST))
    if bad.any():
        raise ValueError(
            f"epsilon = {float(sizes[bad].flat[0])!r} is out of range: allowed are finite numbers >= 0 and <= {MOST:g}"
        )
    return sizes


def _matched(plus: Array, minus: Array, epsilon: Array, norm: str) -> npt.NDArray[np.int64]:
    """Return the size of the maximum matching of pairs that are at most 2 epsilon apart, for each epsilon."""
    from odeflow.optimal.distances import levels

    pairs = len(plus) * len(minus)
    check_memory(16.0 * pairs, f"{len(plus)} x {len(minus)} pairs need up to", "allowed are fewer examples")
    unique, where = np.unique(epsilon, return_inverse=True)
    # by a power of 2, so that squares of distances that count are neither lost nor too large; others may be infinite
    extent = max(float(np.abs(plus).max()), float(np.abs(minus).max()))
    exponent = max(int(np.frexp(unique[-1] or extent)[1]), int(np.frexp(extent)[1]) - 1000)
    lengths = np.ldexp(2 * unique * (1 + _ROUNDING), -exponent)
    level = levels(np.ldexp(plus, -exponent), np.ldexp(minus, -exponent), lengths, norm)
    found = np.zeros(len(unique), np.int64)
    edges = 0
    for k in range(len(unique)):
        near = level <= k
        before, edges = edges, int(np.count_nonzero(near))
        found[k] = found[k - 1] if k else 0
        if edges > before:
            found[k] = _matching(near)
        if found[k] == min(near.shape):
            found[k:] = found[k]
            break
    return found[where.reshape(epsilon.shape)]


def _matching(near: npt.NDArray[np.bool_]) -> int:
    """Return the size of the maximum matching of a bipartite graph: which rows and columns are neighbours."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    neighbours = np.flatnonzero(near)
    neighbours %= near.shape[1]
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(near, axis=1))])
    graph = csr_array(
        (np.ones(len(neighbours), np.bool_), neighbours.astype(np.int32), ends.astype(np.int32)), near.shape
    )
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))
