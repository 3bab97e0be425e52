"""A model's parameters: data, learning rule, adversary. Frozen, validated, dimensionless."""

from odeflow.model.adversary import ATTACKS, NORMS, Adversary, Attack, Norm
from odeflow.model.bounds import MOST
from odeflow.model.clusters import GaussianClusters, xor
from odeflow.model.factor import Factor
from odeflow.model.mixture import GaussianMixture
from odeflow.model.parts import COMMON, Data, check_constant, check_known, check_parts, numeric_parameters, parameters
from odeflow.model.rule import ACTIVATIONS, LOSSES, STEPS, UPDATES, Activation, LearningRule, Loss, Steps, Update
from odeflow.model.teacher import TeacherStudent
from odeflow.parameters import checked_count, checked_number

__all__ = [
    "ACTIVATIONS",
    "ATTACKS",
    "COMMON",
    "LOSSES",
    "MOST",
    "NORMS",
    "STEPS",
    "UPDATES",
    "Activation",
    "Adversary",
    "Attack",
    "Data",
    "Factor",
    "GaussianClusters",
    "GaussianMixture",
    "LearningRule",
    "Loss",
    "Norm",
    "Steps",
    "TeacherStudent",
    "Update",
    "check_constant",
    "check_known",
    "check_parts",
    "checked_count",
    "checked_number",
    "numeric_parameters",
    "parameters",
    "xor",
]
