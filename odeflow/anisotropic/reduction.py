r"""A large problem in L2 in a subspace that grows until its solution is that of the whole.

The best weights solve :math:`2(\mu - \varepsilon w/|w|) = t_+C_+w + t_-C_-w` (`odeflow.anisotropic.optimal`). In an orthonormal
basis V the same problem is posed for :math:`V^T\mu` and :math:`V^TC_\tau V`, with the same norm, and what is left over of the
equation is where V is extended, by a block Krylov space of :math:`C_\lambda`. A step costs products with the covariances, and no
factorisation of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.mixture import Mixture

__all__ = ["Subproblem", "grown"]

Array = npt.NDArray[np.float64]

_FIRST, _LATER = 12, 5  # blocks of the Krylov space in the first step, and in the later ones
_LARGEST_SHARE = 0.4  # of N: with so many directions the whole problem is as cheap
_DEPENDENT = 1e-8


class Subproblem(NamedTuple):
    """The problem in the basis V."""

    mixture: Mixture
    basis: Array
    """V, shape (N, size)."""
    products: tuple[Array, Array]
    """C_+ V and C_- V, shape (N, size)."""


def grown(mixture: Mixture, seeds: Callable[[Subproblem | None], tuple[Array, float] | None]) -> bool:
    """Grow the subspace until `seeds` has no more directions for it; return whether that was before it became too large.

    Parameters
    ----------
    mixture
        The whole problem; its covariances are full.
    seeds
        Called with the problem in the subspace (None at first, when there is none): returns directions to extend it by,
        shape (N, directions), and the lambda of their Krylov space; or None where the solution is good enough.
    """
    N = mixture.N
    plus, minus = mixture.covariances
    V, CV = np.empty((N, 0)), [np.empty((N, 0)), np.empty((N, 0))]
    problem: Subproblem | None = None
    blocks = _FIRST
    while (found := seeds(problem)) is not None:
        block, mix = found
        for _ in range(blocks):
            block = _orthonormal(block, V)
            if block.shape[1] == 0:
                break
            new = [plus @ block, minus @ block]
            V = np.hstack([V, block])
            CV = [np.hstack([old, more]) for old, more in zip(CV, new, strict=True)]
            block = mix * new[0] + (1 - mix) * new[1]
        size = 0 if problem is None else problem.basis.shape[1]
        if V.shape[1] == size or V.shape[1] > _LARGEST_SHARE * N:
            return False
        inside = [V.T @ product for product in CV]
        inside = [(C + C.T) / 2 for C in inside]
        problem = Subproblem(Mixture(mixture.p, mixture.means @ V, np.stack(inside)), V, (CV[0], CV[1]))
        blocks = _LATER
    return True


def _orthonormal(block: Array, V: Array) -> Array:
    """Return an orthonormal basis of what the columns of a block add to V."""
    block = block / np.maximum(np.linalg.norm(block, axis=0), 1e-300)
    for _ in range(2):  # once more for what rounding leaves
        block = block - V @ (V.T @ block)
    U, sizes, _ = np.linalg.svd(block, full_matrices=False)
    new = U[:, sizes > _DEPENDENT]
    new = new - V @ (V.T @ new)
    return np.asarray(np.linalg.qr(new)[0])
