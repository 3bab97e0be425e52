r"""Errors of a linear classifier from its overlaps: clean, attacked, and by attacks that keep the true label.

With the cosine R = w.B/|w| and the bias b/|w|, all attacks move an example against the margin, by epsilon along w, or by
:math:`\varepsilon\sqrt{1 - R^2}` if they must not move it along B.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, owens_t

from odeflow.erm.data import Points, kinds

__all__ = ["MEASURES", "measures"]

Array = npt.NDArray[np.float64]

MEASURES = {
    "error": "classification error",
    "adversarial_error": "adversarial error",
    "misclassification_error": "error under attacks that do not move the example along the true direction",
    "flipped_error": "share of examples whose predicted label such an attack changes",
    "boundary_error": "share of examples that are right, and wrong after such an attack",
}
"""Name to label."""


def wrong(points: Points, R: Array, b: Array, epsilon: Array) -> Array:
    """Return the probability that the margin of a classifier with |w| = 1 is below epsilon; arguments of shape (points,)."""
    of = kinds(points)
    if "tau" in points:  # the margin has a skew normal law
        a = R / np.sqrt(points["tau"] ** 2 + np.maximum(1 - R**2, 1e-300))
        return np.asarray(ndtr(epsilon) - 2 * owens_t(epsilon, a))
    mean = of.o * R[:, None] - of.y * b[:, None]
    return np.asarray(np.sum(of.share * ndtr((epsilon[:, None] - mean) / np.sqrt(of.v)), axis=1))


def measures(points: Points, R: Array, b: Array, epsilon: Array) -> dict[str, Array]:
    """Return all errors by name, each of shape (points,), at attacks of size epsilon (exact for these overlaps)."""
    part = epsilon * np.sqrt(np.maximum(1 - R**2, 0))
    of = kinds(points)
    centre = of.o * R[:, None] - of.y * b[:, None]
    if "tau" in points:
        flipped = 1 - 2 * ndtr(-part)
    else:
        sd = np.sqrt(of.v)
        flipped = np.sum(
            of.share * (ndtr((part[:, None] - centre) / sd) - ndtr((-part[:, None] - centre) / sd)), axis=1
        )
    error, missed = wrong(points, R, b, 0 * epsilon), wrong(points, R, b, part)
    return {
        "error": error,
        "adversarial_error": wrong(points, R, b, epsilon),
        "misclassification_error": missed,
        "flipped_error": np.asarray(flipped),
        "boundary_error": missed - error,
    }
