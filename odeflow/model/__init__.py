"""The seed model's parameters: data, learning rule, adversary. Frozen, validated, dimensionless."""

from odeflow.model.adversary import NORMS, Adversary, Norm
from odeflow.model.bounds import MOST
from odeflow.model.mixture import GaussianMixture
from odeflow.model.parts import check_parts, numeric_parameters, parameters
from odeflow.model.rule import ACTIVATIONS, LOSSES, UPDATES, Activation, LearningRule, Loss, Update
from odeflow.parameters import checked_count, checked_number

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "MOST",
    "NORMS",
    "UPDATES",
    "Activation",
    "Adversary",
    "GaussianMixture",
    "LearningRule",
    "Loss",
    "Norm",
    "Update",
    "check_parts",
    "checked_count",
    "checked_number",
    "numeric_parameters",
    "parameters",
]
