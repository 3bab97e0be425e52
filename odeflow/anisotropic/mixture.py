"""Two Gaussian classes with any means and covariances: given, isotropic, or estimated from labelled samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.model import GaussianMixture, checked_count, checked_number
from odeflow.numerics.threads import blas_threads

__all__ = ["LABELS_OF_CLASSES", "Mixture", "Samples", "checked_weights", "labelled_samples", "real_array"]

Array = npt.NDArray[np.float64]

LABELS_OF_CLASSES = (1.0, -1.0)
"""The labels tau, in the order in which the classes stand in every array: +1 first."""

_LARGEST = 1e75  # of means and samples: their fourth powers are finite


@dataclass(frozen=True, eq=False)
class Mixture:
    """Two Gaussian classes in R^N.

    An example has label tau = +1 with probability p, else -1, and is drawn from N(m_tau, C_tau).

    Raises
    ------
    TypeError, ValueError
        If a shape does not fit, a value is not finite, or a covariance is not symmetric and positive semidefinite. A
        singular covariance is allowed.

    Examples
    --------
    >>> Mixture(p=0.5, means=[[1.0, 0.0], [-1.0, 0.0]], covariances=[[1.0, 1.0], [1.0, 1.0]])
    Mixture(N=2, p=0.5, diagonal)
    """

    p: float
    """Prior of the class +1, in (0, 1)."""
    means: Array
    """Means of the classes +1 and -1, shape (2, N)."""
    covariances: Array
    """Their covariances, shape (2, N, N); or (2, N), the diagonals of diagonal ones."""
    samples: tuple[int, int] | None = None
    """Numbers of samples of each class from which they were estimated; None: they are exact."""

    def __post_init__(self) -> None:
        p = checked_number("p", self.p, above=0, below=1)
        means = _finite("means", np.array(real_array("means", self.means)), _LARGEST)
        if means.ndim != 2 or means.shape[0] != 2 or means.shape[1] < 1:
            raise ValueError(f"means have shape {means.shape}: allowed is (2, N), the class +1 first")
        N = means.shape[1]
        covariances = _finite("covariances", np.array(real_array("covariances", self.covariances)), _LARGEST**2)
        if covariances.shape not in ((2, N, N), (2, N)):
            raise ValueError(
                f"covariances have shape {covariances.shape}: allowed is {(2, N, N)}, or {(2, N)} for diagonal ones"
            )
        with blas_threads(N):
            for tau, C in zip(LABELS_OF_CLASSES, covariances, strict=True):
                _check_semidefinite(f"the covariance of the class {tau:+g}", C)
        samples = self.samples
        if samples is not None:
            if real_array("samples", samples).shape != (2,):
                raise ValueError(f"samples = {samples!r}: allowed are two whole numbers >= 1, or None")
            samples = (checked_count("samples", samples[0], 1), checked_count("samples", samples[1], 1))
        for name, value in (("p", p), ("means", means), ("covariances", covariances), ("samples", samples)):
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        kind = "diagonal" if self.diagonal else "full covariances"
        of = "" if self.samples is None else f", of {sum(self.samples)} samples: n/N={sum(self.samples) / self.N:.3g}"
        return f"Mixture(N={self.N}, p={self.p:.6g}, {kind}{of})"

    @property
    def N(self) -> int:
        """Dimension of the input."""
        return int(self.means.shape[1])

    @property
    def diagonal(self) -> bool:
        """Whether the covariances are diagonal, and stored so."""
        return self.covariances.ndim == 2

    @property
    def priors(self) -> tuple[float, float]:
        """Priors of the classes +1 and -1."""
        return self.p, 1 - self.p

    def variances(self, w: npt.ArrayLike) -> Array:
        """Variance of w.xi in each class, w' C_tau w: shape (..., 2) for w of shape (..., N)."""
        w = checked_weights(w, self.N, "the mixture")
        if self.diagonal:
            return np.stack([(w * w) @ C for C in self.covariances], axis=-1)
        return np.stack([np.einsum("...i,...i->...", w @ C, w) for C in self.covariances], axis=-1)

    @classmethod
    def isotropic(cls, mixture: GaussianMixture, *, N: int) -> Mixture:
        """Return the seed model's data in R^N: centres +-(rho/2) B, covariances v_tau I, with B the first axis.

        Parameters
        ----------
        mixture
            The seed model's mixture.
        N
            Dimension of the input, >= 1.
        """
        if not isinstance(mixture, GaussianMixture):
            raise TypeError(f"mixture = {mixture!r} is of the wrong type: allowed is a GaussianMixture")
        N = checked_count("N", N, 1)
        means = np.zeros((2, N))
        means[:, 0] = mixture.rho / 2, -mixture.rho / 2
        return cls(mixture.p, means, np.stack([np.full(N, mixture.v1), np.full(N, mixture.v2)]))

    @classmethod
    def from_samples(
        cls, X: npt.ArrayLike, y: npt.ArrayLike, *, shrinkage: float | Literal["ledoit-wolf"] = 0.0
    ) -> Mixture:
        r"""Estimate the mixture from labelled samples: their priors, means and covariances.

        The covariance is that of the samples themselves, the sum of squares divided by the number of samples. It may
        be singular (pixels that never change).

        Parameters
        ----------
        X
            Samples, shape (samples, N).
        y
            Labels +1 and -1, shape (samples,).
        shrinkage
            The share s in [0, 1] of :math:`(1 - s)\,C + s\,(\mathrm{tr}\,C/N)\,I`, by default 0; or "ledoit-wolf", for
            each class the share that minimises the expected squared error (needs scikit-learn). Without it, each class
            needs more samples than dimensions; with it, at least two samples.

        Raises
        ------
        TypeError, ValueError
            If a shape, a label or a sample is not allowed, or a class has too few samples.

        References
        ----------
        O. Ledoit and M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate
        Analysis 88 (2004) 365.

        Examples
        --------
        >>> rng = np.random.default_rng(1)
        >>> y = np.where(rng.random(100) < 0.3, 1, -1)
        >>> Mixture.from_samples(rng.standard_normal((100, 3)), y)
        Mixture(N=3, p=0.3, full covariances, of 100 samples: n/N=33.3)
        """
        X, y = labelled_samples(X, y)
        if not isinstance(shrinkage, str) or shrinkage != "ledoit-wolf":
            shrinkage = checked_number("shrinkage", shrinkage, least=0, most=1)
        N = X.shape[1]
        means, covariances, counts = np.empty((2, N)), np.empty((2, N, N)), [0, 0]
        for k, tau in enumerate(LABELS_OF_CLASSES):
            samples = X[y == tau]
            n = counts[k] = len(samples)
            least = 2 if shrinkage else N + 1
            if n < least:
                fewer = "" if least == 2 else ", or fewer (two or more) with shrinkage > 0 ('ledoit-wolf' chooses it)"
                raise ValueError(
                    f"the class {tau:+g} has {n} sample{'s'[: n != 1]} in {N} dimensions, too few for a covariance: "
                    f"allowed are at least {least}{fewer}"
                )
            means[k], C = _moments(samples)
            share = _ledoit_wolf(samples - means[k]) if shrinkage == "ledoit-wolf" else shrinkage
            covariances[k] = (1 - share) * C + share * np.trace(C) / N * np.eye(N)
        return cls(float((y == 1).mean()), means, covariances, (counts[0], counts[1]))

    @classmethod
    def of(cls, X: npt.ArrayLike, y: npt.ArrayLike) -> Mixture:
        """Return the mixture with the moments of samples as they are, however few: to describe, not to learn from.

        Parameters
        ----------
        X, y
            As for `from_samples`.
        """
        X, y = labelled_samples(X, y)
        (m_plus, C_plus), (m_minus, C_minus) = (_moments(X[y == tau]) for tau in LABELS_OF_CLASSES)
        counts = int((y == 1).sum()), int((y == -1).sum())
        return cls(float((y == 1).mean()), np.stack([m_plus, m_minus]), np.stack([C_plus, C_minus]), counts)


def _moments(samples: Array) -> tuple[Array, Array]:
    """Return mean and covariance, the sum of squares divided by the number of samples."""
    mean = samples.mean(axis=0)
    centred = samples - mean
    with blas_threads(centred.shape[1]):
        return mean, centred.T @ centred / len(centred)


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples: data to learn from, or to measure errors on.

    Raises
    ------
    TypeError, ValueError
        If a shape, a label or a sample is not allowed.
    """

    X: Array
    """Samples, shape (samples, N)."""
    y: Array
    """Labels +1 and -1, both present, shape (samples,)."""

    def __post_init__(self) -> None:
        X, y = labelled_samples(self.X, self.y)
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "y", y)

    def __repr__(self) -> str:
        return f"Samples({len(self.y)} in {self.N} dimensions)"

    @property
    def N(self) -> int:
        """Dimension of the input."""
        return int(self.X.shape[1])


def checked_weights(w: npt.ArrayLike, N: int, of: str) -> Array:
    """Return weights (..., N) as an array of float64, or raise if they are no finite numbers or of another dimension."""
    w = real_array("w", w)
    if w.shape[-1:] != (N,):
        raise ValueError(f"w has shape {w.shape}: allowed is (..., {N}), the dimension of {of}")
    if not np.isfinite(w).all():
        raise ValueError(f"w contains {float(w[~np.isfinite(w)].flat[0])!r}: allowed are finite numbers")
    return w


def labelled_samples(X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
    """Return samples (n, N) and labels (n,) as arrays of float64, or raise an error that says what is wrong."""
    X, y = real_array("X", X), real_array("y", y)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}: allowed is (samples, N); images are flattened to one row each")
    if y.shape != X.shape[:1]:
        raise ValueError(f"y has shape {y.shape}: allowed is {X.shape[:1]}, one label for each row of X")
    values = np.unique(y)
    if not np.array_equal(values, (-1, 1)):
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
        raise ValueError(f"y has the values {shown}: allowed are +1 and -1, both; for example np.where(y == a, 1, -1)")
    return _finite("X", X, _LARGEST), y


def real_array(name: str, values: Any) -> Array:
    """Return an array of real numbers as float64."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cUSmM":
            raise TypeError
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is not an array of real numbers") from None


def _finite(name: str, array: Array, largest: float) -> Array:
    """Return the array, or raise an error that names its first entry that is not finite, or beyond `largest`."""
    allowed = np.abs(array) <= largest  # not so for nan
    if not allowed.all():
        first = np.unravel_index(np.argmin(allowed), array.shape)
        where = f"[{', '.join(str(i) for i in first)}]" if array.ndim else ""
        raise ValueError(
            f"{name}{where} = {float(array[first])!r}: allowed are finite numbers, at most {largest:g} in size"
        )
    return array


def _check_semidefinite(name: str, C: Array) -> None:
    if C.ndim == 1:
        if np.any(C < 0):
            raise ValueError(f"{name} has the variance {float(C.min())!r}: allowed are variances >= 0")
        return
    scale = float(np.abs(C).max())
    if np.abs(C - C.T).max() > 1e-10 * scale:
        raise ValueError(f"{name} differs from its transpose by {float(np.abs(C - C.T).max())!r}: allowed is symmetric")
    shifted = C + np.eye(len(C)) * (1e-9 * max(scale, 1e-300) * len(C))
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(C)[0])
        raise ValueError(f"{name} has the eigenvalue {least!r}: allowed are eigenvalues >= 0") from None


def _ledoit_wolf(samples: Array) -> float:
    try:
        from sklearn.covariance import ledoit_wolf_shrinkage  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError("shrinkage='ledoit-wolf' needs scikit-learn: pip install 'odeflow[data]'") from None
    return float(ledoit_wolf_shrinkage(samples, assume_centered=True))
