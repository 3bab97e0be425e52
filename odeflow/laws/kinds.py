"""Laws of a random perturbation: by which factor the size epsilon of each example's perturbation is multiplied.

A law is given to `odeflow.Adversary`. The theory averages over it by quadrature; the simulation draws from it.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from odeflow.laws.density import few_nodes, has_mean_square

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["Continuous", "Discrete", "Law", "Uniform", "from_record", "quadratures", "record"]

_NODES = 32  # of a panel of a uniform law
_MOST_PANELS = 256


@dataclass(frozen=True)
class Uniform:
    """The factor is uniform in [low, high].

    Raises
    ------
    TypeError, ValueError
        If not 0 <= low < high, both finite numbers.
    """

    low: float = 0.0
    """Least factor, >= 0."""
    high: float = 1.0
    """Largest factor, > low."""

    def __post_init__(self) -> None:
        _make_floats(self, "low", "high")
        if not (0 <= self.low < self.high and math.isfinite(self.high)):
            raise ValueError(f"low = {self.low!r}, high = {self.high!r}: allowed is 0 <= low < high, both finite")

    def nodes(self, width: float = math.inf, reach: float = math.inf) -> tuple[Array, Array]:
        """Return factors and weights of a quadrature over the law, of functions that vary over `width` of the factor.

        Gauss-Legendre rules, exact to rounding for the averages of the theory.
        """
        import numpy as np

        del reach
        panels = _panels(self, self.high - self.low, 10 * width)
        x, weights = np.polynomial.legendre.leggauss(_NODES)
        half = (self.high - self.low) / (2 * panels)
        middles = self.low + half * (2 * np.arange(panels) + 1)
        return (middles[:, None] + half * x).ravel(), np.tile(weights / (2 * panels), panels)

    def table(self) -> tuple[Array, Array]:
        """Return levels of the cumulative distribution and the factors there, between which a draw interpolates."""
        import numpy as np

        return np.array([0.0, 1.0]), np.array([self.low, self.high])


@dataclass(frozen=True)
class Discrete:
    """The factor is one of several values, with given probabilities.

    Raises
    ------
    TypeError, ValueError
        If a value is negative or not finite, a probability is not positive, or they do not match or sum to 1.
    """

    values: tuple[float, ...] = (1.0,)
    """Factors, >= 0."""
    probabilities: tuple[float, ...] = (1.0,)
    """Their probabilities, > 0, which sum to 1."""

    def __post_init__(self) -> None:
        for name in ("values", "probabilities"):
            try:
                object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
            except (TypeError, ValueError):
                raise TypeError(f"{name} = {getattr(self, name)!r} is of the wrong type: allowed are numbers") from None
        if not self.values or not all(0 <= value < math.inf for value in self.values):
            raise ValueError(f"values = {self.values!r}: allowed are finite numbers >= 0, at least one")
        good = len(self.probabilities) == len(self.values) and all(q > 0 for q in self.probabilities)
        if not good or not abs(sum(self.probabilities) - 1) <= 1e-12:
            raise ValueError(
                f"probabilities = {self.probabilities!r}: allowed are {len(self.values)} positive numbers that sum to 1"
            )

    def nodes(self, width: float = math.inf, reach: float = math.inf) -> tuple[Array, Array]:
        """Return the values and their probabilities (exact for every function)."""
        import numpy as np

        del width, reach
        return np.array(self.values), np.array(self.probabilities)

    def table(self) -> tuple[Array, Array]:
        """Return levels of the cumulative distribution and the factors there, with steps between the values."""
        import numpy as np

        ends = np.cumsum(self.probabilities)
        ends[-1] = 1.0
        starts = np.concatenate([[0.0], ends[:-1]])
        return np.stack([starts, ends], 1).ravel(), np.repeat(np.array(self.values), 2)


@dataclass(frozen=True, eq=False, repr=False)
class Continuous:
    """The factor has any continuous law on [0, inf) with a finite mean: a frozen distribution of `scipy.stats`.

    Two are equal if their distributions have the same name and arguments.

    Raises
    ------
    TypeError, ValueError
        If it is not one frozen continuous distribution, if its support reaches below 0, or if its mean is not a finite
        number > 0.

    Examples
    --------
    >>> from scipy import stats
    >>> values, weights = Continuous(stats.pareto(3, loc=-1)).nodes()
    >>> round(float(weights @ values), 10)
    0.5
    """

    distribution: Any
    """For example ``scipy.stats.gamma(4, scale=0.25)``. Its density may have heavy tails, poles, jumps and kinks."""

    def __post_init__(self) -> None:
        if not (hasattr(self.distribution, "dist") and hasattr(self.distribution, "pdf")):
            allowed = "allowed is a frozen continuous distribution of scipy.stats"
            raise TypeError(f"distribution = {self.distribution!r} is of the wrong type: {allowed}")
        try:
            low, mean = float(self.distribution.support()[0]), self._mean
        except TypeError:
            raise ValueError(f"{self!r} has arrays for parameters: allowed are numbers, which make one law") from None
        if not low >= 0:
            raise ValueError(f"distribution has support from {low!r}: allowed is a support in [0, inf)")
        if not 0 < mean < math.inf:
            raise ValueError(f"distribution has the mean {mean!r}: allowed is a finite mean > 0")

    def __repr__(self) -> str:
        distribution = self.distribution
        named = (f"{name}={_plain(value)}" for name, value in distribution.kwds.items())
        return f"Continuous({distribution.dist.name}({', '.join([*map(_plain, distribution.args), *named])}))"

    def __eq__(self, other: object) -> bool:
        return record(self) == record(other) if isinstance(other, Continuous) else NotImplemented

    def __hash__(self) -> int:
        return hash(json.dumps(record(self)))

    @cached_property
    def _mean(self) -> float:
        with warnings.catch_warnings():  # where scipy integrates
            warnings.simplefilter("ignore")
            return float(self.distribution.mean())

    @cached_property
    def _rules(self) -> dict[tuple[float, int], tuple[Array, Array]]:
        return {}

    def nodes(self, width: float | None = None, reach: float | None = None) -> tuple[Array, Array]:
        """Return factors and weights of a quadrature over the law.

        Of functions that vary over `width` of the factor up to `reach`, and beyond that are as smooth as powers. Gaussian
        rules of the density itself, in panels: the total, the mean and a finite mean square are exact, and the averages
        of the theory are converged to 1e-10; of a density that jumps, the mean to 1e-6 at least, or it is refused.

        Parameters
        ----------
        width, reach
            > 0; default: a quarter of the mean, 8 times the mean.

        Raises
        ------
        ValueError
            If the density does not have the total 1 and the distribution's mean, or if `width` is too small.
        """
        import numpy as np

        width = self._mean / 4 if width is None else width
        last = max(8 * self._mean if reach is None else reach, 4 * self._mean)
        last = min(last, self._quantile)
        panels = _panels(self, last, 5 * width)
        if (last, panels) not in self._rules:
            edges = np.append(np.linspace(0, last, panels + 1), [2 * last, 4 * last])
            x, weights = few_nodes(self.distribution, self._mean, edges)
            total, mean = float(weights.sum()), float(weights @ x)
            if not (abs(total - 1) < 1e-7 and abs(mean - self._mean) < 1e-6 * self._mean):
                raise ValueError(
                    f"law = {self!r} has a density with the total {total:.9g} and the mean {mean:.9g}, where scipy says "
                    f"1 and {self._mean:.9g}: allowed is a law whose density can be integrated"
                )
            self._rules[last, panels] = x, weights / total
        return self._rules[last, panels]

    @cached_property
    def _quantile(self) -> float:
        """The factor beyond which there are 1e-10 of them, about."""
        quantile = float(self.distribution.isf(1e-10))
        return quantile if self._mean < quantile < math.inf else self._mean

    @cached_property
    def has_mean_square(self) -> bool:
        """Whether the mean square is finite."""
        return has_mean_square(self.distribution, self._mean)

    def table(self) -> tuple[Array, Array]:
        """Return levels of the cumulative distribution and the factors there, between which a draw interpolates.

        Between 400 quantiles, whose tails are in geometric progression down to the least uniform number that is drawn,
        the factors are equidistant: few quantiles, because scipy often finds one by searching.
        """
        return self._table

    @cached_property
    def _table(self) -> tuple[Array, Array]:
        import numpy as np

        lower = np.concatenate([np.geomspace(2.0**-53, 0.05, 150), np.linspace(0.06, 0.5, 45)])
        with np.errstate(all="ignore"):
            below, above = self.distribution.ppf(lower), self.distribution.isf(lower[::-1])
        for quantiles, level in ((below, lower), (above, lower[::-1])):
            if not np.all(np.isfinite(quantiles[level > 1e-9])):
                raise ValueError(f"law = {self!r} has quantiles that are not finite: it cannot be drawn from")
        below, above = (_refined(x[np.isfinite(x)]) for x in (below, above))
        with np.errstate(all="ignore"):
            levels = np.concatenate([self.distribution.cdf(below), 1 - self.distribution.sf(above[1:])])
        levels[0], levels[-1] = 0.0, 1.0
        return np.maximum.accumulate(levels), np.concatenate([below, above[1:]])


Law = Uniform | Discrete | Continuous
"""Any of the laws."""


def _plain(value: Any) -> str:
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def _make_floats(law: Any, *names: str) -> None:
    for name in names:
        value = getattr(law, name)
        if isinstance(value, bool | str) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} = {value!r} is not a number: allowed is a finite number >= 0")
        object.__setattr__(law, name, float(value))


def record(law: Law) -> dict[str, Any]:
    """Return what a result's attributes say of a law, in what JSON can hold: `from_record` makes the law again."""
    kind = {"kind": type(law).__name__}
    if isinstance(law, Continuous):
        args, named = law.distribution.args, law.distribution.kwds
        values = {name: float(value) for name, value in named.items()}
        return {**kind, "distribution": law.distribution.dist.name, "args": [float(x) for x in args], "kwds": values}
    return kind | {field.name: getattr(law, field.name) for field in fields(law)}


def from_record(values: Mapping[str, Any]) -> Law:
    """Return the law that a result's attributes describe.

    Raises
    ------
    ValueError
        If they describe none, or one of a distribution that scipy.stats does not have.
    """
    rest = dict(values)
    kinds: dict[Any, Any] = {"Uniform": Uniform, "Discrete": Discrete, "Continuous": _continuous}
    kind = kinds.get(rest.pop("kind", ""))
    if kind is None:
        raise ValueError(
            f"law = {dict(values)!r} is no record of a law: allowed are those in the attributes of results"
        )
    try:
        law: Law = kind(**rest)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"law = {dict(values)!r} is no record of a law: {error}") from None
    return law


def _continuous(distribution: str, args: list[float], kwds: dict[str, float]) -> Continuous:
    from scipy import stats

    return Continuous(getattr(stats, distribution)(*args, **kwds))


def quadratures(law: Law | None, widths: Array, reaches: Array) -> list[tuple[npt.NDArray[np.int64], Array, Array]]:
    """Return the quadratures over a law that some points need: which points, factors and weights.

    Parameters
    ----------
    law
        None: the factor is 1.
    widths, reaches
        Over which factors the functions vary that are averaged at each point, and up to which, > 0, shape (points,).
        Each point's quadrature depends on its own two numbers alone.
    """
    import numpy as np

    if law is None:
        return [(np.arange(widths.size), np.ones(1), np.ones(1))]
    few = np.stack(
        [np.floor(np.log2(widths.clip(2.0**-60, 2.0**60))), np.ceil(np.log2(reaches.clip(2.0**-60, 2.0**60)))]
    )
    kinds, kind = np.unique(few, axis=1, return_inverse=True)
    rules: dict[bytes, tuple[list[int], Array, Array]] = {}
    for i, (width, reach) in enumerate(2.0**kinds.T):
        factors, weights = law.nodes(width, reach)
        rules.setdefault(factors.tobytes(), ([], factors, weights))[0].append(i)
    return [(np.flatnonzero(np.isin(kind, i)), factors, weights) for i, factors, weights in rules.values()]


def _refined(x: Array) -> Array:
    """Return rising numbers with 40 more between neighbours."""
    import numpy as np

    x = np.maximum.accumulate(x)
    between = x[:-1, None] + np.diff(x)[:, None] * np.arange(41) / 41
    return np.append(between.ravel(), x[-1])


def _panels(law: Law, length: float, longest: float) -> int:
    """Return how many panels hold a length: a power of two."""
    wanted = length / longest
    if wanted > _MOST_PANELS:
        raise ValueError(
            f"law = {law!r} cannot be averaged in panels of {longest:.3g} of its factors, as the attack's averages need: "
            "allowed is a smaller epsilon, or larger variances v1 and v2"
        )
    return 1 << max(0, math.ceil(math.log2(max(wanted, 1.0))))
