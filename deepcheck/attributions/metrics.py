"""How alike two maps are: the largest pixels that they share, and the rank correlations of Kendall and Spearman.

All take two arrays of sizes, shape (n, pixels), such as `deepcheck.attributions.maps.pixel_sizes` returns, and compare row with
row. Maps have ties: integrated gradients of a black pixel from black are exactly 0, and most pixels of a digit are black.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from odeflow.model import checked_count

__all__ = ["kendall_tau", "spearman_rho", "top_pixels", "top_pixels_shared"]


def top_pixels(sizes: Tensor, k: int) -> Tensor:
    """Return where the k largest of each row are, shape (n, pixels), bool; of equal ones those that come first.

    Raises
    ------
    ValueError, TypeError
        If there are not so many pixels.
    """
    checked_count("k", k, 1, most=sizes.shape[1])
    index = sizes.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(sizes, dtype=torch.bool).scatter_(1, index, True)


def top_pixels_shared(first: Tensor, second: Tensor, k: int) -> Tensor:
    """Return the share of the k largest pixels of one map that are among the k largest of the other, shape (n,).

    Of two maps without a relation it is k / pixels in the mean. Where a map has fewer than k pixels that are not 0, the rest
    are those that come first.
    """
    both = top_pixels(first, k) & top_pixels(second, k)
    return both.sum(1).to(first.dtype) / k


def kendall_tau(first: Tensor, second: Tensor) -> npt.NDArray[np.float64]:
    r"""Return Kendall's :math:`\tau_b` of each row, shape (n,); NaN where a map is constant, which has no ranks.

    .. math::
        \tau_b = \frac{\sum_{i<j} \mathrm{sgn}(a_i - a_j)\, \mathrm{sgn}(b_i - b_j)}
                      {\sqrt{\sum_{i<j} \mathrm{sgn}(a_i - a_j)^2 \; \sum_{i<j} \mathrm{sgn}(b_i - b_j)^2}}

    (Kendall, 1945), computed by scipy in a time of order D log D.
    """
    from scipy import stats

    return _by_row(lambda a, b: stats.kendalltau(a, b).statistic, first, second)


def spearman_rho(first: Tensor, second: Tensor) -> npt.NDArray[np.float64]:
    """Return Spearman's rank correlation of each row, shape (n,), ties with their mean rank; NaN where a map is constant."""
    from scipy import stats

    return _by_row(lambda a, b: np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1], first, second)


def _by_row(function: Any, first: Tensor, second: Tensor) -> npt.NDArray[np.float64]:
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"maps have the shapes {tuple(first.shape)} and {tuple(second.shape)}: allowed are two of (n, pixels)"
        )
    rows = zip(first.detach().cpu().double().numpy(), second.detach().cpu().double().numpy(), strict=True)
    return np.array([function(a, b) if np.ptp(a) > 0 and np.ptp(b) > 0 else np.nan for a, b in rows], np.float64)
