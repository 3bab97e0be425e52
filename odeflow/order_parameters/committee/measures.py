"""What a result says of a two-layer network beside its order parameters: errors of a classifier, losses of a regression."""

from __future__ import annotations

from typing import Any

from odeflow.model import Data, TeacherStudent
from odeflow.order_parameters.base import Array, Points
from odeflow.order_parameters.committee.errors import adversarial_error, clean_error, fgsm_error
from odeflow.order_parameters.committee.states import TwoLayers, cluster_numbers, directions
from odeflow.order_parameters.committee.units import ACTIVATIONS, GAINS

__all__ = ["measured", "names"]


def names(network: TwoLayers, mixture: Data) -> tuple[str, ...]:
    """Return what is known of a network on some data: the worst case of more than two erf units is not."""
    if isinstance(mixture, TeacherStudent):
        return "loss", "adversarial_loss"
    is_known = network.activation == "relu" or network.hidden <= 2
    return ("error", "fgsm_error", *(("adversarial_error",) if is_known else ()))


def measured(
    network: TwoLayers, parts: tuple[Array, ...], mixture: Data, points: Points, epsilon: Any
) -> dict[str, Any]:
    """Return the errors or losses of states, given as `odeflow.order_parameters.committee.states.part` returns them.

    `fgsm_error` is under FGSM on the loss, whatever the network was trained with; `adversarial_error` is that in the worst
    case. Losses are clean and under FGSM.
    """
    if isinstance(mixture, TeacherStudent):
        from odeflow.order_parameters.committee.teacher_losses import losses

        return dict(
            zip(
                names(network, mixture),
                losses(network, parts, mixture, cluster_numbers(mixture, points)[0], epsilon),
                strict=True,
            )
        )
    kind, gain = ACTIVATIONS[network.activation], GAINS[network.activation]
    M, Q, c, theta, b = parts
    _, p, v = cluster_numbers(mixture, points)
    _, shares, labels = directions(mixture)
    state = (gain * M @ shares, gain**2 * Q, c, gain * theta, b)
    # three units of ReLU and more: 1e-4 takes milliseconds a state, 1e-5 a second
    tolerance = 0.1 * network.tolerance if network.hidden <= 2 else max(network.tolerance, 1e-4)
    data: dict[str, Any] = {"p": p, "v": v, "tau": labels, "tolerance": tolerance}
    found = {
        "error": lambda: clean_error(kind, *state, **data),
        "fgsm_error": lambda: fgsm_error(kind, *state, **data, epsilon=epsilon),
        "adversarial_error": lambda: adversarial_error(kind, *state, **data, epsilon=epsilon),
    }
    return {name: found[name]() for name in names(network, mixture)}
