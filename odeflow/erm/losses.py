r"""The losses of the margin, their proximal maps, and quadrature over a Gaussian margin.

A loss l falls with the attacked margin t. With V > 0, the proximal map of x is the t that minimises
:math:`\ell(t) + (t - x)^2/(2V)`; then :math:`x = t + V\ell'(t)`, the derivative of the minimum (Moreau's envelope) by x is
:math:`f = \ell'(t)` and the second is :math:`h = \ell''/(1 + V\ell'')`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["LOSSES", "Averages", "Loss", "normal_nodes"]

Array = npt.NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(14)
_TAIL = 9.0  # the Gaussian weight beyond it is 1e-19
_STEPS = np.linspace(-_TAIL, _TAIL, 7)
_TURNS = np.array([-36.0, -12.0, -4.5, -1.5, 1.5, 4.5, 12.0, 36.0])  # panels in t between which 1 / (1 + e^t) is smooth


class Averages(NamedTuple):
    """Nodes of averages over a standard normal xi, of which x = centre + sd xi; each of shape (..., nodes)."""

    xi: Array
    weight: Array
    """The density of xi times the width of the node."""
    loss: Array
    """l(t)"""
    f: Array
    """l'(t)"""
    h: Array
    """df/dx"""


class Loss(Protocol):
    """What the equations need to know of a loss."""

    name: str
    positive_part: bool
    """Whether margins above the attack's can have no loss, or equal ones alone: what makes data separable."""

    def averages(self, centre: Array, sd: Array, V: Array, breaks: Array) -> Averages:
        """Return nodes at which averages over x ~ N(centre, sd^2) are exact to 1e-13.

        The arguments have one shape (...); `breaks` has another axis, of values of xi between which what else is averaged is
        smooth.
        """

    def value(self, t: Array) -> Array:
        """Return l(t)."""

    def slope(self, t: Array) -> Array:
        """Return l'(t)."""

    def constant(self, p: Array) -> Array:
        """Return the best bias without weights, for a share p of labels +1."""


class Logistic:
    """ln(1 + exp(-t))."""

    name = "logistic"
    positive_part = True

    def averages(self, centre: Array, sd: Array, V: Array, breaks: Array) -> Averages:
        """Integrate over t, of which x = t + V l'(t) is a smooth function: no equation is solved at the nodes."""
        V, centre, sd = V[..., None], centre[..., None], sd[..., None]
        edges = np.concatenate([np.broadcast_to(_STEPS, (*centre.shape[:-1], _STEPS.size)), breaks], axis=-1)
        edges = self._proximal(centre + sd * np.clip(edges, -_TAIL, _TAIL), V)
        low, high = edges[..., :1], edges[..., _STEPS.size - 1 : _STEPS.size]
        t, width = _panels(np.concatenate([edges, np.clip(_TURNS, low, high)], axis=-1))
        small = np.exp(-np.abs(t))
        rising = np.where(t > 0, small, 1.0) / (1 + small)  # 1 / (1 + e^t)
        curvature = small / (1 + small) ** 2
        xi = (t - V * rising - centre) / sd
        slope = 1 + V * curvature
        weight = width * slope / sd * np.exp(-(xi**2) / 2) / np.sqrt(2 * np.pi)
        return Averages(xi, weight, np.log1p(small) + np.maximum(-t, 0), -rising, curvature / slope)

    @staticmethod
    def _proximal(x: Array, V: Array) -> Array:
        """Return t with t - V / (1 + e^t) = x, by Newton's method from the side on which it is monotone."""
        x, V = np.broadcast_arrays(x, V)
        t = np.where(
            x + V / 2 > 0, np.maximum(x, np.log(np.maximum(V / (2 * np.maximum(-x, 1.0)), 1.0))), np.minimum(x + V, 0.0)
        )
        # right of 0 a start beyond the root is brought back by the first step
        for _ in range(100):
            small = np.exp(-np.abs(t))
            step = (x - t + V * np.where(t > 0, small, 1.0) / (1 + small)) / (1 + V * small / (1 + small) ** 2)
            t = t + step
            if np.all(np.abs(step) <= 1e-9 * (1 + np.abs(t))):
                break
        return t

    def value(self, t: Array) -> Array:
        """Return l(t)."""
        return np.asarray(np.logaddexp(0.0, -t))

    def slope(self, t: Array) -> Array:
        """Return l'(t)."""
        small = np.exp(-np.abs(t))
        return np.asarray(-np.where(t > 0, small, 1.0) / (1 + small))

    def constant(self, p: Array) -> Array:
        """Return the best bias without weights."""
        return np.asarray(np.log1p(-p) - np.log(p))


class Hinge:
    """max(1 - t, 0)."""

    name = "hinge"
    positive_part = True

    def averages(self, centre: Array, sd: Array, V: Array, breaks: Array) -> Averages:
        """Integrate over xi between the kinks: f is -1 below x = 1 - V, 0 above x = 1, and a line between."""
        kinks = (np.stack([1 - V, np.ones_like(V)], axis=-1) - centre[..., None]) / sd[..., None]
        xi, weight = normal_nodes(centre, kinks, breaks)
        x, V = centre[..., None] + sd[..., None] * xi, V[..., None]
        f = np.clip((x - 1) / V, -1.0, 0.0)
        h = np.where((x < 1) & (x > 1 - V), 1 / V, 0.0)
        return Averages(xi, weight, np.maximum(1 - (x - V * f), 0.0), f, h)

    def value(self, t: Array) -> Array:
        """Return l(t)."""
        return np.maximum(1 - t, 0.0)

    def slope(self, t: Array) -> Array:
        """Return l'(t), 0 at the kink."""
        return np.where(t < 1, -1.0, 0.0)

    def constant(self, p: Array) -> Array:
        """Return the best bias without weights, 0 where all between -1 and 1 are."""
        return -np.sign(p - 0.5)


class Squared:
    """(1 - t)^2 / 2."""

    name = "squared"
    positive_part = False

    def averages(self, centre: Array, sd: Array, V: Array, breaks: Array) -> Averages:
        """Integrate over xi; f is a line."""
        xi, weight = normal_nodes(centre, breaks)
        x, V = centre[..., None] + sd[..., None] * xi, V[..., None]
        f = (x - 1) / (1 + V)
        return Averages(xi, weight, f**2 / 2, f, np.broadcast_to(1 / (1 + V), f.shape))

    def value(self, t: Array) -> Array:
        """Return l(t)."""
        return np.asarray((1 - t) ** 2 / 2)

    def slope(self, t: Array) -> Array:
        """Return l'(t)."""
        return np.asarray(t - 1)

    def constant(self, p: Array) -> Array:
        """Return the best bias without weights."""
        return np.asarray(1 - 2 * p)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (Logistic(), Hinge(), Squared())}
"""Name to loss."""


def normal_nodes(centre: Array, *breaks: Array) -> tuple[Array, Array]:
    """Return nodes of a standard normal variable and their weights, on panels between breaks, shape (..., any)."""
    steps = np.broadcast_to(_STEPS, (*centre.shape, _STEPS.size))
    xi, width = _panels(np.clip(np.concatenate([steps, *breaks], axis=-1), -_TAIL, _TAIL))
    return xi, width * np.exp(-(xi**2) / 2) / np.sqrt(2 * np.pi)


def _panels(edges: Array) -> tuple[Array, Array]:
    """Return Gauss-Legendre nodes and their widths on the panels between edges, which are sorted first."""
    edges = np.sort(edges, axis=-1)
    half = np.diff(edges, axis=-1)[..., None] / 2
    nodes = edges[..., :-1, None] + half * (1 + _NODES)
    flat = (*edges.shape[:-1], -1)
    return nodes.reshape(flat), (half * _WEIGHTS).reshape(flat)
