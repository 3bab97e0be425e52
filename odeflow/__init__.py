"""Theory of adversarial training in a solvable model, with Monte Carlo checks."""

from odeflow.errors import adversarial_error, classification_error, robustness_curve
from odeflow.integrate import IntegrationError, integrate, integrate_batch
from odeflow.model import Adversary, GaussianMixture, LearningRule
from odeflow.optimal import optimal_classifier
from odeflow.provenance import SaveError, load, save
from odeflow.simulate import simulate

__all__ = [
    "Adversary",
    "GaussianMixture",
    "IntegrationError",
    "LearningRule",
    "SaveError",
    "adversarial_error",
    "classification_error",
    "integrate",
    "integrate_batch",
    "load",
    "optimal_classifier",
    "robustness_curve",
    "save",
    "simulate",
]
