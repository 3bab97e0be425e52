"""Theory for two classes with any means and covariances, such as those of real data."""

from odeflow.anisotropic.errors import adversarial_error, empirical_adversarial_error
from odeflow.anisotropic.held_out import cross_validate, cross_validate_optimum
from odeflow.anisotropic.integrate import integrate
from odeflow.anisotropic.mixture import Mixture, Samples
from odeflow.anisotropic.optimal import optimal_classifier
from odeflow.anisotropic.simulate import simulate
from odeflow.anisotropic.validity import ClosureWarning

__all__ = [
    "ClosureWarning",
    "Mixture",
    "Samples",
    "adversarial_error",
    "cross_validate",
    "cross_validate_optimum",
    "empirical_adversarial_error",
    "integrate",
    "optimal_classifier",
    "simulate",
]
