"""How far two orders of the learners agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

__all__ = ["agreement", "by_chance"]

Array = npt.NDArray[np.float64]


def agreement(one: Array, other: Array) -> Array:
    """Return Kendall's tau-b of the orders of two sets of errors, shape (learners, sizes), at each size; 0 where one is all ties."""
    taus = [kendalltau(a, b).statistic for a, b in zip(one.T, other.T, strict=True)]
    return np.nan_to_num(np.array(taus, np.float64))


def by_chance(errors: Array, seed: int, *, draws: int = 2000, quantile: float = 0.95) -> float:
    """Return the quantile of the mean tau, over the sizes, of these errors with random orders of the learners.

    A random order is the same at all sizes: the sizes are no independent chances to agree.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(errors)).astype(np.float64)[:, None] for _ in range(draws)]
    means = [agreement(np.broadcast_to(order, errors.shape), errors).mean() for order in orders]
    return float(np.quantile(means, quantile))
