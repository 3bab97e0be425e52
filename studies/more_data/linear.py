"""Linear classifiers that minimise the attacked loss of some images: logistic loss, L2, and a ridge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.optimize import minimize
from scipy.special import expit

from deepcheck.data import TwoClasses
from odeflow.anisotropic import empirical_adversarial_error

__all__ = ["learned", "measured"]

Array = npt.NDArray[np.float64]

_TINY = 1e-10
"""Added to |w|^2, whose root has no gradient at 0."""
_STEPS = 2000


def learned(X: Array, y: Array, epsilon: float) -> tuple[Array, float]:
    r"""Return the weights and bias with the least loss on attacked images.

    .. math:: \sum_i \ln(1 + e^{-t_i}) + \tfrac12 |w|^2, \qquad t_i = y_i (w\cdot x_i - b) - \varepsilon |w|_2

    The worst perturbation of a linear classifier is known, so this is adversarial training with the exact inner maximum.
    The ridge is that of scikit-learn's LogisticRegression. The problem is convex.

    Parameters
    ----------
    X, y
        Images, shape (n, N), and labels +1 and -1.
    epsilon
        Size of the perturbation in L2.
    """
    n = len(X)

    def loss(parameters: Array) -> tuple[float, Array]:
        w, b = parameters[:-1], parameters[-1]
        length = np.sqrt(w @ w + _TINY)
        t = y * (X @ w - b) - epsilon * length
        slope = -expit(-t)  # of the loss by t
        gradient = np.append((y * slope) @ X - epsilon * slope.sum() * w / length + w, -(y @ slope))
        return float(np.logaddexp(0, -t).sum() + w @ w / 2) / n, gradient / n

    start = np.append(0.1 * (y @ X) / n, 0.0)
    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "ftol": 1e-12, "gtol": 1e-7}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:-1], float(found[-1])


def measured(pair: TwoClasses, epsilons: tuple[float, ...], sizes: tuple[int, ...], seed: int) -> xr.Dataset:
    """Return the errors of classifiers that learn from the first images of a random order, and their mean margin.

    E and S are exact, on all test images; S of each classifier at the epsilon of its training and, under `standard`, of the one of
    standard training at every epsilon. The margin is that of the test images, y (w.x - b) / |w|: the mean distance from the boundary.
    """
    order = np.random.default_rng(seed).permutation(len(pair.y_train))
    every = np.array(epsilons)
    data = {
        name: np.full((len(every), len(sizes)), np.nan) for name in ("error", "adversarial_error", "margin", "standard")
    }
    for k, n in enumerate(sizes):
        X, y = pair.X_train[order[:n]], pair.y_train[order[:n]]
        for i, epsilon in enumerate(every):
            w, b = learned(X, y, epsilon)
            errors = empirical_adversarial_error(w, b, pair.X_test, pair.y_test, [0.0, *every], "l2")
            data["error"][i, k], data["adversarial_error"][i, k] = errors[0], errors[1 + i]
            data["margin"][i, k] = np.mean(pair.y_test * (pair.X_test @ w - b)) / np.linalg.norm(w)
            if epsilon == 0:
                data["standard"][:, k] = errors[1:]
    dims = "epsilon", "size"
    return xr.Dataset(
        {name: (dims, values) for name, values in data.items()}, {"epsilon": every, "examples": ("size", list(sizes))}
    )
