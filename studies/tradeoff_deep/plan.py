"""How nets and classifiers learn, in the full and the quick form."""

from __future__ import annotations

from dataclasses import dataclass

from studies.tradeoff_deep.measure import Online

__all__ = ["ONLINE", "ON_IMAGES", "OnImages"]


@dataclass(frozen=True)
class OnImages:
    """How classifiers learn from images."""

    title: str
    training: tuple[float, ...]
    test: float
    """Size of the test's attack, in L2."""
    largest: float
    """Largest training epsilon of the theory."""
    eta: float
    images: int
    runs: dict[str, int]
    epochs: int
    attacked: int
    """Test images that are attacked, of convolutional nets."""
    within: tuple[float, float]
    """How far E and S of the linear classifiers may be from the theory, beside two standard errors of their mean."""


ONLINE = {
    False: Online(100, 200.0, {"linear": 40, "two layers": 10}, (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25)),
    True: Online(50, 100.0, {"linear": 20, "two layers": 4}, (0.0, 0.25, 0.5, 0.75, 1.0)),
}
ON_IMAGES = {
    "mnist": OnImages("MNIST", (0.0, 1.0, 2.0, 2.5, 3.0), 2.0, 3.2, 0.01, 6_000, {"linear": 100, "convolutional": 3}, epochs=4, attacked=300, within=(0.02, 0.06)),
    "digits": OnImages("scikit-learn's digits, not MNIST", (0.0, 0.4, 0.8, 1.2), 0.8, 1.3, 0.1, 2_000, {"linear": 100, "convolutional": 2}, epochs=15, attacked=95, within=(0.15, 0.25)),
}  # fmt: skip
