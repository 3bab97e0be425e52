"""Theory of adversarial training in a solvable model, with Monte Carlo checks."""

from typing import TYPE_CHECKING, Any

from odeflow._moved import find_moved
from odeflow.errors import adversarial_error, classification_error, robustness, robustness_curve
from odeflow.fixed_points.continuation import branches
from odeflow.fixed_points.equilibria import fixed_points, fixed_points_batch
from odeflow.fixed_points.path import follow
from odeflow.fixed_points.phases import critical_epsilon, phase_boundary, runaway_direction
from odeflow.fixed_points.plateau import plateau_length
from odeflow.fixed_points.relaxation import end_states_batch, learning_time, relaxation_time
from odeflow.fixed_points.symmetric import specialisation_rate, symmetric_fixed_points
from odeflow.integrate import IntegrationError, integrate, integrate_batch
from odeflow.model import Adversary, Factor, GaussianClusters, GaussianMixture, LearningRule, TeacherStudent, xor
from odeflow.optimal import optimal_classifier
from odeflow.order_parameters import Committee, Perceptron
from odeflow.order_parameters.perceptron.reference import jacobian, rates
from odeflow.provenance import SaveError, load, package_version, save
from odeflow.schedule import Schedule
from odeflow.simulate import simulate
from odeflow.sweep import SweepError, SweepInterrupted, sweep

if TYPE_CHECKING:
    from odeflow.plot.tables import latex

__all__ = [
    "Adversary",
    "Committee",
    "Factor",
    "GaussianClusters",
    "GaussianMixture",
    "IntegrationError",
    "LearningRule",
    "Perceptron",
    "SaveError",
    "Schedule",
    "SweepError",
    "SweepInterrupted",
    "TeacherStudent",
    "__version__",
    "adversarial_error",
    "branches",
    "classification_error",
    "critical_epsilon",
    "end_states_batch",
    "fixed_points",
    "fixed_points_batch",
    "follow",
    "integrate",
    "integrate_batch",
    "jacobian",
    "latex",
    "learning_time",
    "load",
    "optimal_classifier",
    "phase_boundary",
    "plateau_length",
    "rates",
    "relaxation_time",
    "robustness",
    "robustness_curve",
    "runaway_direction",
    "save",
    "simulate",
    "specialisation_rate",
    "sweep",
    "symmetric_fixed_points",
    "xor",
]

__version__ = package_version()

find_moved()


def __getattr__(name: str) -> Any:
    """Load what is for presentation alone when it is asked for."""
    if name == "latex":
        from odeflow.plot.tables import latex

        return latex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
