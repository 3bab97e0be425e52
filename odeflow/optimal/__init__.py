"""The least errors that there can be: of linear classifiers of the seed model, and of any classifier of given examples."""

from odeflow.optimal.linear import optimal_classifier, stationary_biases
from odeflow.optimal.matching import lower_bound

__all__ = ["lower_bound", "optimal_classifier", "stationary_biases"]
