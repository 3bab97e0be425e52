"""Laws of a random perturbation: by which factor the size epsilon of each example's perturbation is multiplied.

A law is given to `odeflow.Adversary`. The theory averages over it by quadrature; the simulation draws from it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["Continuous", "Discrete", "Law", "Uniform"]

_NODES = 32
_CONTINUOUS_NODES = 128
_TABLE = 2**14 + 1


@dataclass(frozen=True)
class Uniform:
    """The factor is uniform in [low, high].

    Raises
    ------
    ValueError
        If not 0 <= low < high, both finite.
    """

    low: float = 0.0
    """Least factor, >= 0."""
    high: float = 1.0
    """Largest factor, > low."""

    def __post_init__(self) -> None:
        if not (0 <= self.low < self.high and math.isfinite(self.high)):
            raise ValueError(f"low = {self.low!r}, high = {self.high!r}: allowed is 0 <= low < high, both finite")

    def nodes(self) -> tuple[Array, Array]:
        """Return factors and weights of a quadrature over the law (exact to rounding for the averages of the theory)."""
        import numpy as np

        x, weights = np.polynomial.legendre.leggauss(_NODES)
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * x, weights / 2

    def table(self) -> tuple[Array, Array]:
        """Return levels of the cumulative distribution and the factors there, between which a draw interpolates."""
        import numpy as np

        return np.array([0.0, 1.0]), np.array([self.low, self.high])


@dataclass(frozen=True)
class Discrete:
    """The factor is one of several values, with given probabilities.

    Raises
    ------
    ValueError
        If a value is negative or not finite, a probability is not positive, or they do not match or sum to 1.
    """

    values: tuple[float, ...] = (1.0,)
    """Factors, >= 0."""
    probabilities: tuple[float, ...] = (1.0,)
    """Their probabilities, > 0, which sum to 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(map(float, self.values)))
        object.__setattr__(self, "probabilities", tuple(map(float, self.probabilities)))
        if not self.values or not all(0 <= value < math.inf for value in self.values):
            raise ValueError(f"values = {self.values!r}: allowed are finite numbers >= 0, at least one")
        good = len(self.probabilities) == len(self.values) and all(q > 0 for q in self.probabilities)
        if not good or abs(sum(self.probabilities) - 1) > 1e-12:
            raise ValueError(
                f"probabilities = {self.probabilities!r}: allowed are {len(self.values)} positive numbers that sum to 1"
            )

    def nodes(self) -> tuple[Array, Array]:
        """Return the values and their probabilities (exact)."""
        import numpy as np

        return np.array(self.values), np.array(self.probabilities)

    def table(self) -> tuple[Array, Array]:
        """Return levels of the cumulative distribution and the factors there, with steps between the values."""
        import numpy as np

        ends = np.cumsum(self.probabilities)
        ends[-1] = 1.0
        starts = np.concatenate([[0.0], ends[:-1]])
        return np.stack([starts, ends], 1).ravel(), np.repeat(np.array(self.values), 2)


@dataclass(frozen=True)
class Continuous:
    """The factor has any continuous law on [0, inf): a frozen distribution of `scipy.stats`.

    Raises
    ------
    TypeError, ValueError
        If it is not a frozen continuous distribution, or if its support reaches below 0.

    Examples
    --------
    >>> from scipy import stats
    >>> values, weights = Continuous(stats.gamma(4, scale=0.25)).nodes()
    >>> round(float(weights @ values), 10)
    1.0
    """

    distribution: Any
    """For example ``scipy.stats.gamma(4, scale=0.25)``; its density should be smooth inside its support."""

    def __post_init__(self) -> None:
        if not (hasattr(self.distribution, "dist") and hasattr(self.distribution, "pdf")):
            allowed = "allowed is a frozen continuous distribution of scipy.stats"
            raise TypeError(f"distribution = {self.distribution!r} is of the wrong type: {allowed}")
        low = float(self.distribution.support()[0])
        if low < 0:
            raise ValueError(f"distribution has support from {low!r}: allowed is a support in [0, inf)")

    def __repr__(self) -> str:
        return f"Continuous({self.distribution.dist.name}{self._arguments()})"

    def _arguments(self) -> str:
        return json.dumps([list(self.distribution.args), self.distribution.kwds])

    def nodes(self) -> tuple[Array, Array]:
        """Return factors and weights of a Gauss-Legendre quadrature between the quantiles 1e-14 and 1 - 1e-14.

        Approximate in general; converged to rounding for densities that are smooth there.
        """
        import numpy as np

        low, high = self.distribution.ppf(1e-14), self.distribution.isf(1e-14)
        x, weights = np.polynomial.legendre.leggauss(_CONTINUOUS_NODES)
        x = (low + high) / 2 + (high - low) / 2 * x
        weights = weights * self.distribution.pdf(x)
        return x, weights / weights.sum()

    def table(self) -> tuple[Array, Array]:
        """Return levels of the cumulative distribution and the factors there, between which a draw interpolates."""
        import numpy as np

        # dense in both tails; the rest beyond 1e-14 is cut off
        turn = (1 - np.cos(np.linspace(0, np.pi, _TABLE))) / 2
        return turn, self.distribution.ppf(np.clip(turn, 1e-14, 1 - 1e-14))


Law = Uniform | Discrete | Continuous
"""Any of the laws."""
