"""The kernels' models from the parts: which quadrature, which attack, what of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.model import Adversary, Data, TeacherStudent
from odeflow.order_parameters.base import Array
from odeflow.order_parameters.committee.quadrature import OneUnit
from odeflow.order_parameters.committee.quadrature.plain import plain_rule
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack
from odeflow.order_parameters.committee.states import directions
from odeflow.order_parameters.committee.units import ACTIVATIONS, ERF, GAINS

if TYPE_CHECKING:
    from odeflow.order_parameters.committee.network import Committee

__all__ = ["attack_of", "model_of"]

_KINDS = {"fgsm": FGSM, "margin": MARGIN, "pgd": PGD, "worst": WORST}


def attack_of(adversary: Adversary) -> Attack:
    """Return the adversary's attack as the kernels take it."""
    return Attack(_KINDS[adversary.attack], adversary.attack_steps, adversary.attack_step)


def model_of(
    network: Committee,
    mixture: Data,
    adversary: Adversary,
    table: Array,
    nodes: Array,
    weights: Array,
    tolerance: float,
) -> Any:
    """Return the kernel's model of some points.

    Parameters
    ----------
    network, mixture, adversary
        What is the same at all points.
    table
        Numbers, a row a point, as `odeflow.order_parameters.committee.kernel.ClusterModel` has them.
    nodes, weights
        Factors of epsilon, and their weights.
    tolerance
        Of the quadrature.
    """
    from odeflow.order_parameters.committee.kernel import ClusterModel

    kind, gain = ACTIVATIONS[network.activation], GAINS[network.activation]
    gram, shares, labels = directions(mixture)
    if isinstance(mixture, TeacherStudent):
        raise NotImplementedError
    rule = OneUnit() if network.hidden == 1 and kind == ERF and adversary.attack == "fgsm" else plain_rule(kind, 40)
    return ClusterModel(
        np.ascontiguousarray(table), nodes, weights, np.ascontiguousarray(gram @ shares), shares, labels,
        network.hidden, gain, attack_of(adversary), rule,
    )  # fmt: skip
