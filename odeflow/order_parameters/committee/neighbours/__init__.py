r"""Errors of a network of two layers that answers as its most confident neighbour does, with and without rejection.

The answer at a point is that of the point within a distance xi whose output is largest in size: the sign of the mid-range,
max + min of the output there, with the confidence max(max, -min). The adversary, who moves an example by up to eta, knows that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erfinv, ndtr

from odeflow.model import Data, TeacherStudent
from odeflow.order_parameters.base import Points
from odeflow.order_parameters.committee.states import TwoLayers, cluster_numbers, directions, part
from odeflow.order_parameters.committee.units import ACTIVATIONS, ERF, GAINS

__all__ = ["MEASURES", "composed_errors", "of_states"]

Array = npt.NDArray[np.float64]

MEASURES: dict[str, tuple[str, ...]] = {
    "error": ("xi",),
    "adversarial_error": ("xi", "eta"),
    "separation": ("level", "xi", "eta"),
    "awpr": ("level", "xi", "eta"),
    "awpr_without_rejection": ("xi", "eta"),
    "recall": ("level", "xi"),
    "recall_of_correct": ("level", "xi"),
}
"""What is known, and the axes of each."""

_REACH = 8.0  # standard deviations
_MOST = 40_000  # nodes
_TURN = 1e-5  # least cosine of half the angle between units that pull against each other


def of_states(
    network: TwoLayers, state: Mapping[str, Any], mixture: Data, points: Points, shape: tuple[int, ...], **options: Any
) -> dict[str, tuple[tuple[str, ...], Array]]:
    """Return `composed_errors` of states of shape ``shape``, each with its axes after those of the states."""
    if isinstance(mixture, TeacherStudent):
        raise TypeError("mixture has a teacher: allowed are data of classes, whose answers are right or wrong")
    if network.hidden > 2:
        raise ValueError(f"hidden = {network.hidden}: allowed are 1 and 2 where the most confident neighbour answers")
    kind, gain = ACTIVATIONS[network.activation], GAINS[network.activation]
    M, Q, c, theta, b = part(state, mixture)
    _, p, v = cluster_numbers(mixture, points)
    _, shares, labels = directions(mixture)
    parts = {"M": gain * M @ shares, "Q": gain**2 * Q, "c": c, "theta": gain * theta, "b": b, "p": p, "v": v}
    sizes = {"M": 2, "Q": 2, "c": 1, "theta": 1, "b": 0, "p": 1, "v": 1}
    rows = {
        name: np.broadcast_to(one, (*shape, *one.shape[one.ndim - sizes[name] :])).reshape(
            -1, *one.shape[one.ndim - sizes[name] :]
        )
        for name, one in parts.items()
    }
    found = [
        composed_errors(kind, **{name: one[i] for name, one in rows.items()}, tau=labels, **options)
        for i in range(math.prod(shape))
    ]
    return {
        name: (axes, np.reshape([one[name] for one in found], (*shape, *found[0][name].shape)))
        for name, axes in MEASURES.items()
    }


def composed_errors(
    kind: int, M: Array, Q: Array, c: Array, theta: Array, b: float, p: Array, v: Array, tau: Array,
    t: Array, eta: Array, xi: Array, *, step: float = 0.008,
) -> dict[str, Array]:  # fmt: skip
    r"""Return the errors of one state.

    Parameters
    ----------
    kind, M, Q, c, theta, b, p, v, tau
        As for `odeflow.order_parameters.committee.errors.clean_error`, without leading axes; one or two units.
    t
        Thresholds of \|phi\|, >= 0, from which an answer is accepted, shape (level,).
    eta, xi
        Radii, >= 0, shapes (eta,) and (xi,).
    step
        Distance of the nodes, in units of the least standard deviation, with two units.

    Returns
    -------
    dict of ndarray
        By the names of `MEASURES`, with their axes; nan where the state is not finite, or where the weights of two units are
        parallel and pull against each other.
    """
    shape = {"level": t.size, "xi": xi.size, "eta": eta.size}
    found = {name: np.full([shape[axis] for axis in axes], np.nan) for name, axes in MEASURES.items()}
    live = c != 0
    if not all(np.all(np.isfinite(part)) for part in (M, Q, c, theta, b)) or np.any(np.diag(Q)[live] <= 0):
        return found
    lines = _one_unit if np.count_nonzero(live) <= 1 else _two_units
    arguments = (kind, M[live], Q[np.ix_(live, live)], c[live], theta[live], float(b))
    for j, radius in enumerate(xi):
        graphs = lines(*arguments, v, t, eta, float(radius), step)
        if graphs is not None:
            _fill(found, j, graphs, p, v, tau)
    return found


class _Graphs:
    """Half-lines y <= f of the answer -1, y >= f of the answer +1, on lines of constant s."""

    def __init__(self, centre: Array, weight: Array, found: Array, dilate: Any, eta: Array):
        self.centre, self.weight = centre, weight  # (a,), (a, s)
        self.answer = {1: found[0], -1: found[1]}  # (s,)
        self.accepted = {1: found[2::2], -1: found[3::2]}  # (level, s)
        self.dilate, self.eta = dilate, eta

    def reached(self, graph: Array, side: int, radius: float) -> Array:
        """Return the graph of the points within a radius of a region."""
        found: Array = graph if radius == 0 else -side * self.dilate(-side * graph, radius)
        return found

    def mass(self, cluster: int, graph: Array, side: int, spread: float) -> Array:
        """Return the cluster's probability of a region on each line."""
        found: Array = ndtr(-side * (graph - self.centre[cluster]) / spread)
        return found


def _fill(found: dict[str, Array], j: int, graphs: _Graphs, p: Array, v: Array, tau: Array) -> None:
    """Sum over the clusters what the adversary reaches: entries of the radius xi with the number j."""
    eta, levels = graphs.eta, graphs.accepted[1].shape[0]
    E, S, q = 0.0, np.zeros(len(eta)), np.zeros((levels, len(eta)))
    gained, accepted, right = np.zeros_like(q), np.zeros(levels), np.zeros(levels)
    attacked = {
        (side, i): graphs.reached(graphs.answer[side], side, size) for side in (1, -1) for i, size in enumerate(eta)
    }
    reached = {
        (side, l, i): graphs.reached(graphs.accepted[side][l], side, size)
        for side in (1, -1) for l in range(levels) for i, size in enumerate(eta)
    }  # fmt: skip
    for a, (prior, label) in enumerate(zip(p, tau, strict=True)):
        spread, wrong, weight = math.sqrt(v[a]), -int(label), prior * graphs.weight[a]
        clean = graphs.mass(a, graphs.answer[wrong], wrong, spread)
        E += float(weight @ clean)
        for i in range(len(eta)):
            S[i] += weight @ graphs.mass(a, attacked[wrong, i], wrong, spread)
            for l in range(levels):
                mass = graphs.mass(a, reached[wrong, l, i], wrong, spread)
                q[l, i] += weight @ mass
                gained[l, i] += weight @ np.maximum(mass - clean, 0.0)
        for l in range(levels):
            # an output of 0 is an error, and is accepted by a threshold of 0
            other = graphs.mass(a, graphs.accepted[wrong][l], wrong, spread)
            own = np.minimum(graphs.mass(a, graphs.accepted[-wrong][l], -wrong, spread), 1 - clean)
            right[l] += weight @ own
            accepted[l] += weight @ (own + other)
    found["error"][j], found["adversarial_error"][j], found["separation"][:, j] = E, S, q
    with np.errstate(divide="ignore", invalid="ignore"):
        found["awpr"][:, j] = gained / (1 - E)
        found["awpr_without_rejection"][j] = (S - E) / (1 - E)
        found["recall_of_correct"][:, j] = right / (1 - E)
    found["recall"][:, j] = accepted


def _one_unit(
    kind: int,
    M: Array,
    Q: Array,
    c: Array,
    theta: Array,
    b: float,
    v: Array,
    t: Array,
    eta: Array,
    xi: float,
    step: float,
) -> _Graphs:
    r"""Return numbers in the place of graphs: with y along the weights, the output is monotone in y alone.

    Above y + xi the output is at least t where y is above :math:`\phi^{-1}(t) - \xi`, and the mid-range is 0 at the root of
    :math:`\phi(y + \xi) + \phi(y - \xi)`, which is within xi of that of the output.
    """
    del v, step
    clusters = M.shape[1]
    centre = np.zeros(clusters)
    if c.size == 0:
        upper, lower = np.where(b >= t, -math.inf, math.inf), np.where(b <= -t, math.inf, -math.inf)
        answers = np.array([-math.inf if b >= 0 else math.inf, math.inf if b <= 0 else -math.inf])
    else:
        sign, length = float(np.sign(c[0])), math.sqrt(Q[0, 0])
        gain, shift = abs(float(c[0])), float(theta[0])
        centre = sign * M[0] / length

        def output(y: float) -> float:
            x = sign * length * y - shift
            return b + float(c[0]) * (math.erf(x / math.sqrt(2)) if kind == ERF else max(x, 0.0))

        def begin(level: Any, strict: bool) -> Array:
            """Return where the output begins to be >= a level, or > it, growing with y; inf or -inf where it does not."""
            rise = (np.asarray(level) - b) / gain * sign
            if kind == ERF:
                x = math.sqrt(2) * erfinv(np.clip(rise, -1, 1))
            else:
                x = np.where((rise > 0) | ((rise == 0) & (strict == (sign > 0))), rise, -math.inf)
            return np.asarray((x + shift) / length * sign)

        answers = np.array([_middle(output, float(begin(0.0, strict)), xi, strict) for strict in (False, True)])
        upper = np.maximum(answers[0], begin(t, False) - xi)
        lower = np.minimum(answers[1], begin(-t, True) + xi)
    found = np.concatenate([answers, np.stack([upper, lower], -1).ravel()])[:, None]
    return _Graphs(centre, np.ones((clusters, 1)), found, lambda graph, radius: graph + radius, eta)


def _middle(output: Any, root: float, xi: float, strict: bool) -> float:
    """Return where the mid-range of an output that grows begins to be >= 0, or > 0, from where the output itself does."""
    if xi == 0 or not math.isfinite(root):
        return root
    low, high = root - xi, root + xi
    for _ in range(200):
        y = 0.5 * (low + high)
        if y in (low, high):
            break
        middle = output(y + xi) + output(y - xi)
        if middle < 0 or (strict and middle == 0):
            low = y
        else:
            high = y
    return 0.5 * (low + high)


def _two_units(
    kind: int,
    M: Array,
    Q: Array,
    c: Array,
    theta: Array,
    b: float,
    v: Array,
    t: Array,
    eta: Array,
    xi: float,
    step: float,
) -> _Graphs | None:
    """Return the graphs of `odeflow.order_parameters.committee.neighbours.kernel` on nodes in s."""
    from odeflow.order_parameters.committee.neighbours.kernel import dilated, graphs

    length = np.sqrt(np.diag(Q))
    sign = np.sign(c)
    half = 0.5 * math.acos(float(np.clip(sign[0] * sign[1] * Q[0, 1] / length.prod(), -1.0, 1.0)))
    if math.cos(half) < _TURN:
        return None
    # the units' directions, at the angles half and -half from e, which is the second coordinate
    L = (sign * length)[:, None] * np.array([[math.sin(half), math.cos(half)], [-math.sin(half), math.cos(half)]])
    centre = np.linalg.lstsq(L, M, rcond=1e-12)[0]
    spread, reach = np.sqrt(v), _REACH * np.sqrt(v)
    most = float(eta.max(initial=0.0))
    first, last = float((centre[0] - reach).min()) - most, float((centre[0] + reach).max()) + most
    # where it is steep, nodes on the graph are further apart than on the line
    count = min(max(int((last - first) / (step * float(spread.min()) * math.cos(half))), 200), _MOST)
    s = np.linspace(first, last, count)
    width = s[1] - s[0]
    low, high = float((centre[1] - reach).min()) - most, float((centre[1] + reach).max()) + most
    out = np.zeros((2 + 2 * t.size, count))
    graphs(kind, Q, c, b, -theta, L[:, 0].copy(), L[:, 1].copy(), s, low, high, xi, t, out)
    weight = (
        width
        * np.exp(-0.5 * ((s - centre[0][:, None]) / spread[:, None]) ** 2)
        / (spread[:, None] * math.sqrt(2 * math.pi))
    )

    def dilate(graph: Array, radius: float) -> Array:
        reached = np.empty_like(graph)
        dilated(np.ascontiguousarray(graph), width, radius, reached)
        return reached

    return _Graphs(centre[1], weight, out, dilate, eta)
