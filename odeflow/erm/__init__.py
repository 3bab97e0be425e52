"""The static limit: adversarial empirical risk minimisation on alpha N examples, in theory and on data."""

from odeflow.erm.data import ProbitTeacher
from odeflow.erm.empirical import MinimisationError, Minimiser, minimise
from odeflow.erm.existence import separability_threshold
from odeflow.erm.experiment import simulate
from odeflow.erm.optimal import optimal_epsilon, optimal_ridge
from odeflow.erm.theory import ConvergenceError, solve

__all__ = [
    "ConvergenceError",
    "MinimisationError",
    "Minimiser",
    "ProbitTeacher",
    "minimise",
    "optimal_epsilon",
    "optimal_ridge",
    "separability_threshold",
    "simulate",
    "solve",
]
