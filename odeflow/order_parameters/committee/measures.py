"""What a result says of a two-layer network beside its order parameters: errors of a classifier, losses of a regression."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from odeflow.model import Adversary, Data, TeacherStudent
from odeflow.order_parameters.base import Array, Points
from odeflow.order_parameters.committee.errors import adversarial_error, clean_error, fgsm_error
from odeflow.order_parameters.committee.states import (
    MOST_UNITS,
    TwoLayers,
    cluster_numbers,
    directions,
    teacher_is_integrated,
)
from odeflow.order_parameters.committee.units import ACTIVATIONS, GAINS

__all__ = ["measured", "names"]


def names(network: TwoLayers, mixture: Data) -> tuple[str, ...]:
    """Return what a result says of a network on some data: what is known, or those of it that the network asks for.

    The worst case of more than two erf units is not known, and of more than `MOST_UNITS` units only the clean error is.
    """
    known: tuple[str, ...]
    if isinstance(mixture, TeacherStudent):
        known = ("loss", "adversarial_loss") if teacher_is_integrated(network.hidden, mixture.units) else ()
    elif network.hidden > MOST_UNITS:
        known = ("error",)
    elif network.activation == "relu" or network.hidden <= 2:
        known = ("error", "fgsm_error", "adversarial_error")
    else:
        known = ("error", "fgsm_error")
    if network.errors is None:
        return known
    for name in network.errors:
        if name not in known:
            raise ValueError(_unknown(name, known))
    return tuple(name for name in known if name in network.errors)


def _unknown(name: str, known: tuple[str, ...]) -> str:
    hint = ""
    if name == "adversarial_error" and "fgsm_error" in known:
        hint = "; odeflow.order_parameters.committee.errors.adversarial_error_bound is a lower bound of it"
    return f"errors has {name!r}: allowed for this network and these data are {', '.join(known) or 'none'}{hint}"


def measured(
    network: TwoLayers, parts: tuple[Array, ...], mixture: Data, points: Points, epsilon: Any
) -> dict[str, Any]:
    """Return the errors or losses of states, given as `odeflow.order_parameters.committee.states.part` returns them.

    `fgsm_error` is under FGSM on the loss, whatever the network was trained with; `adversarial_error` is that in the worst
    case. Losses are clean and under FGSM.
    """
    if isinstance(mixture, TeacherStudent):
        sizes = {"loss": 0.0, "adversarial_loss": epsilon}
        return {name: _loss(network, parts, mixture, points, sizes[name]) for name in names(network, mixture)}
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


def _loss(network: TwoLayers, parts: tuple[Array, ...], mixture: TeacherStudent, points: Points, epsilon: Any) -> Array:
    """Return 1/2 <(phi - tau)^2> of states under FGSM, shape (...), by the quadrature of the rates; nan where there are no such
    weights. Exact at any N for given weights, up to the tolerance.
    """  # noqa: D205 -- one sentence
    from odeflow.order_parameters.committee.batch import PARAMETERS
    from odeflow.order_parameters.committee.models import evaluated, model_of

    R, Q, c, theta, b = parts
    scale = cluster_numbers(mixture, points)[0]
    shape = np.broadcast_shapes(b.shape, scale.shape, np.shape(epsilon))
    numbers = {**dict.fromkeys(PARAMETERS, 0.0), "epsilon": epsilon, "fraction": 1.0, "scale": scale}
    constants = np.stack([np.broadcast_to(value, shape) for value in numbers.values()], axis=-1)
    sizes = (2, 2, 1, 1, 0)
    entries = [
        one.reshape(*one.shape[: one.ndim - axes], math.prod(one.shape[one.ndim - axes :]))
        for one, axes in zip((R, Q, c, theta, b), sizes, strict=True)
    ]
    states = np.concatenate([np.broadcast_to(one, (*shape, one.shape[-1])) for one in entries], axis=-1)
    constants, states = (rows.reshape(-1, rows.shape[-1]) for rows in (constants, states))
    model = model_of(network, mixture, Adversary(), constants, np.ones(1), np.ones(1), network.tolerance)
    return evaluated(model, constants, states, states.shape[1] + 1)[:, -1].reshape(shape) / 2
