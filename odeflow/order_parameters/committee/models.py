"""The kernels' models from the parts: which quadrature, which attack, what of the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from odeflow.model import Adversary, Data, LearningRule, TeacherStudent
from odeflow.numerics.course import course_of
from odeflow.order_parameters.base import Array
from odeflow.order_parameters.committee.quadrature import erf, relu
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack
from odeflow.order_parameters.committee.states import MOST_UNITS, TwoLayers, cluster_numbers, directions
from odeflow.order_parameters.committee.units import ACTIVATIONS, ERF, GAINS
from odeflow.schedule import largest

__all__ = ["attack_of", "evaluated", "model_of", "simulated"]

_KINDS = {"fgsm": FGSM, "margin": MARGIN, "pgd": PGD, "worst": WORST}


def attack_of(adversary: Adversary) -> Attack:
    """Return the adversary's attack as the kernels take it."""
    return Attack(_KINDS[adversary.attack], adversary.attack_steps, adversary.attack_step)


def model_of(
    network: TwoLayers,
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
        Numbers, a row a point, as `odeflow.order_parameters.committee.kernel.CommitteeModel` has them.
    nodes, weights
        Factors of epsilon, and their weights.
    tolerance
        Of the quadrature.
    """
    from odeflow.order_parameters.committee.kernel import CommitteeModel

    if network.hidden > MOST_UNITS:
        raise ValueError(
            f"hidden = {network.hidden!r} is out of range for the theory: allowed are 1 to {MOST_UNITS}; simulate takes more"
        )
    kind, gain = ACTIVATIONS[network.activation], GAINS[network.activation]
    gram, shares, labels = directions(mixture)
    common = (np.ascontiguousarray(table), nodes, weights)
    if isinstance(mixture, TeacherStudent):
        from odeflow.order_parameters.committee.quadrature import teacher
        from odeflow.order_parameters.committee.teacher_kernel import TeacherModel

        other = mixture.activation
        return TeacherModel(
            *common, np.ascontiguousarray(gram), np.array(mixture.weights), kind, gain,
            ACTIVATIONS[other], GAINS[other], network.hidden, attack_of(adversary),
            teacher.rule(network.hidden, mixture.units, tolerance),
        )  # fmt: skip
    rule = (erf if kind == ERF else relu).rule(network.hidden, tolerance)
    return CommitteeModel(
        *common, np.ascontiguousarray(gram @ shares), shares, labels,
        network.hidden, gain, attack_of(adversary), rule,
    )  # fmt: skip


def evaluated(model: Any, constants: Array, states: Array, width: int) -> Array:
    """Return the rates at states, shape (states, width), each with its row of constants, on all cores.

    `width` is that of the state, or one more for a teacher's student: then the last entry is the mean square error.
    """
    from odeflow.numerics.threads import Flag, map_blocks
    from odeflow.order_parameters.committee.batch import KERNELS

    constants, states = np.ascontiguousarray(constants), np.ascontiguousarray(states)
    out = np.empty((len(states), width))

    def block(first: int, last: int, stop: Flag) -> None:
        KERNELS[type(model)](model, constants[first:last], states[first:last], out[first:last])

    map_blocks(block, len(states), least=4)
    return out


def simulated(
    network: TwoLayers, mixture: Data, rule: LearningRule, adversary: Adversary, start: Array
) -> tuple[Any, Any, Array, Any, Array]:
    """Return the examples, the learning, the directions and the start of a simulation, and the units of its results.

    The simulation has the kernels' units (`odeflow.order_parameters.committee.units`): its states divided by the last are
    the network's. `start` has the shape (width,) or (runs, width).
    """
    from odeflow.order_parameters.committee.monte_carlo import Examples, Learning, State, basis

    gram, shares, labels = directions(mixture)
    scale, priors, variances = cluster_numbers(mixture, vars(mixture))
    along = np.sqrt(scale) * basis(gram)
    if isinstance(mixture, TeacherStudent):
        weights = GAINS[mixture.activation] * along
        law = Examples.of_teacher(mixture.weights, weights, ACTIVATIONS[mixture.activation])
    else:
        law = Examples.clusters(priors, variances, labels, shares.T @ along)
    levels, factors = (np.empty(0), np.empty(0)) if adversary.law is None else adversary.law.table()
    gain = GAINS[network.activation]
    learning = Learning(
        ACTIVATIONS[network.activation], gain**2 * largest(rule.eta_w), network.eta_c, gain**2 * network.eta_theta, largest(rule.eta_b),
        largest(adversary.epsilon), adversary.fraction, attack_of(adversary), levels, factors,
        course_of(adversary.epsilon, rule.eta_w, rule.eta_b), gain**2,
    )  # fmt: skip
    K, S = network.hidden, len(gram)
    units = np.concatenate([np.full(K * S, gain), np.full(K * K, gain**2), np.ones(K), np.full(K, gain), np.ones(1)])
    M, Q, c, theta, b = np.split(start * units, np.cumsum([K * S, K * K, K, K]), axis=-1)
    lead = start.shape[:-1]
    begin = State(M.reshape(*lead, K, S), Q.reshape(*lead, K, K), c, theta, b[..., 0])
    return law, learning, along, begin, units
