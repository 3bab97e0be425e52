"""Mixtures of two classes to test with, and samples of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic import Mixture
from odeflow.anisotropic.simulate import _Drawn

Array = npt.NDArray[np.float64]


def random_mixture(N: int, seed: int = 0, p: float = 0.4) -> Mixture:
    """Two classes with different covariances, of rank N - 1, and a decaying spectrum."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((2, N)) / np.sqrt(N)
    means[1] -= 3 * means[0]
    roots = rng.standard_normal((2, N, N)) / np.arange(1, N + 1) ** 0.7
    roots[:, -1] = 0  # the last input never varies
    means[:, -1] = 0
    return Mixture(p, means, np.stack([root @ root.T / 3 for root in roots]))


def drawn(mixture: Mixture, n: int) -> tuple[Array, Array]:
    X, _, tau = next(_Drawn(mixture, np.random.SeedSequence(11), 1).draw(n))
    return X[0], tau[0]
