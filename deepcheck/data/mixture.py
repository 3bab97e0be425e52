"""Examples of the seed model's mixture of two Gaussian clusters, as data like any other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deepcheck.data.images import TwoClasses
from odeflow.model import GaussianMixture, check_parts, checked_count

__all__ = ["mixture_classes"]


def mixture_classes(
    mixture: GaussianMixture,
    *,
    N: int,
    train: int,
    test: int,
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
) -> TwoClasses:
    """Draw training and test examples of the mixture in N dimensions.

    The direction B between the centres is the first axis: the mixture has no other, so nothing is lost.

    Parameters
    ----------
    mixture
        Priors, separation and variances.
    N
        Dimension of the input, >= 1.
    train, test
        Numbers of examples, >= 1; each one's class is drawn.
    rng
        Seed or source of the random numbers. None: fresh ones.

    Returns
    -------
    TwoClasses
        With labels +1 and -1, the shape (1, 1, N), and nothing subtracted. `positive` and `negative` are 1 and 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is not allowed.

    Examples
    --------
    >>> from odeflow import GaussianMixture
    >>> mixture_classes(GaussianMixture(p=0.7), N=100, train=1000, test=500, rng=1)
    TwoClasses('mixture': 1000 training and 500 test examples, N=100)
    """
    check_parts(mixture=mixture)
    N = checked_count("N", N, 1)
    counts = checked_count("train", train, 1), checked_count("test", test, 1)
    generator = np.random.default_rng(rng)
    (X_train, y_train), (X_test, y_test) = (_draw(mixture, N, count, generator) for count in counts)
    return TwoClasses("mixture", 1, 0, X_train, y_train, X_test, y_test, np.zeros(N), (1, 1, N))


def _draw(
    mixture: GaussianMixture, N: int, count: int, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return examples, shape (count, N), and their labels."""
    tau = np.where(generator.random(count) < mixture.p, 1.0, -1.0)
    X = generator.standard_normal((count, N)) * np.sqrt(np.where(tau > 0, mixture.v1, mixture.v2))[:, None]
    X[:, 0] += tau * mixture.rho / 2
    return X, tau
