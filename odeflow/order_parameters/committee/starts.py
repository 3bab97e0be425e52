"""Where a two-layer network starts when its weights are drawn at random."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.model import (
    Data,
    GaussianClusters,
    GaussianMixture,
    TeacherStudent,
    check_parts,
    checked_count,
    checked_number,
)
from odeflow.model.clusters import gram_factor
from odeflow.order_parameters.base import Array
from odeflow.order_parameters.committee.states import cluster_numbers, directions

if TYPE_CHECKING:
    from odeflow.order_parameters.base import Network

__all__ = ["random_start"]


def random_start(
    network: Network, mixture: Data, *, size: float, N: int, rng: Any = None, runs: int | None = None
) -> dict[str, Array]:
    r"""Draw the overlaps of a two-layer network whose weights are w_k ~ N(0, (size^2/N) I_N) (exact at any N).

    The overlaps are drawn, and no vector of N entries. In an orthonormal basis of the r directions that the centres (or the
    teacher's weights) span, the weights have K r independent coordinates P ~ N(0, size^2/N): the overlaps with the centres mu
    are M = P mu^T, which is Gaussian with the covariance (size^2/N) mu_a.mu_b for each unit. The other N - r coordinates enter
    by their products alone: Q = P P^T + (size^2/N) W with W ~ Wishart_K(N - r, I), drawn as A A^T with A lower triangular,
    A_ii^2 ~ chi^2(N - r - i + 1) and A_ij ~ N(0, 1) below (Bartlett's decomposition). So Q is close to size^2 times the
    identity, and M and what of Q is off the diagonal are of the order 1/sqrt(N): as N grows, the start is symmetric, and
    it is these which decide how long a symmetric network takes to specialise.

    Parameters
    ----------
    network
        A `Committee`.
    mixture
        Its data.
    size
        Length of the weights, > 0: the mean of Q_kk is size^2.
    N
        Dimension of the input, >= r + K.
    rng
        Seed, SeedSequence or Generator; None: fresh entropy.
    runs
        Number of starts, >= 1, one after the other of one stream, so that more begin with those of fewer. None: one
        start, without the axis.

    Returns
    -------
    dict
        For `start=` of `integrate` and, with runs, of `simulate`: "M" of shape (..., K) for a GaussianMixture (with the
        class +1), (..., K, clusters) for GaussianClusters, or with a teacher "R" of shape (..., K, teacher's units); and "Q" of
        shape (..., K, K). Output weights, thresholds and bias are not drawn: add them, or leave their defaults.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> from odeflow import xor
    >>> from odeflow.order_parameters import Committee
    >>> start = random_start(Committee(4, "relu"), xor(), size=0.5, N=1000, rng=1)
    >>> start["M"].shape, start["Q"].shape, bool(abs(start["Q"][0, 0] - 0.25) < 0.05)
    ((4, 4), (4, 4), True)
    """
    from odeflow.order_parameters.committee.network import Committee

    if not isinstance(network, Committee):
        raise TypeError(f"network = {network!r} has no random start: allowed is a Committee(...)")
    check_parts(data=(GaussianMixture, GaussianClusters, TeacherStudent), mixture=mixture)
    size = checked_number("size", size, above=0)
    K = network.hidden
    scale = math.sqrt(float(cluster_numbers(mixture, vars(mixture))[0]))
    mu = scale * gram_factor("gram", directions(mixture).gram)  # (directions, r)
    r = mu.shape[1]
    N = checked_count("N", N, r + K, f" for K = {K} and data of rank {r}")
    count = 1 if runs is None else checked_count("runs", runs, 1)
    generator = np.random.default_rng(rng)
    M, Q = np.empty((count, K, len(mu))), np.empty((count, K, K))
    freedoms = N - r - np.arange(K)
    for run in range(count):
        P = size / math.sqrt(N) * generator.standard_normal((K, r))
        A = np.tril(generator.standard_normal((K, K)), -1) + np.diag(np.sqrt(generator.chisquare(freedoms)))
        M[run] = P @ mu.T
        Q[run] = P @ P.T + size**2 / N * (A @ A.T)
    Q = (Q + np.swapaxes(Q, 1, 2)) / 2
    if isinstance(mixture, GaussianMixture):
        M = M[..., 0]
    first = "R" if isinstance(mixture, TeacherStudent) else "M"
    return {first: M, "Q": Q} if runs is not None else {first: M[0], "Q": Q[0]}
