r"""Time steps of the closed moments: implicit in the gradient of the dual norm, explicit in the rest of the drift.

The mean obeys u' = E(u) - k(u) s(u). For L-infinity, s is close to sign(w), a stiff term that holds coordinates at zero;
u + k s(u) = y is solved coordinate by coordinate. The step is the two-stage scheme of second order with
:math:`\gamma = 1 - 1/\sqrt2` (U. Ascher, S. Ruuth and R. Spiteri, Implicit-explicit Runge-Kutta methods for
time-dependent partial differential equations, Appl. Numer. Math. 25 (1997) 151, section 2.6). The covariance is half a
step behind: it takes an exact step with the J and D of the middle (leapfrog), and the mean with the covariance of its
own middle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.closure import Closure, Frozen
from odeflow.anisotropic.fluctuations import Fluctuations
from odeflow.anisotropic.validity import Neglected, neglected

__all__ = ["Moments", "StepError", "trajectory"]

Array = npt.NDArray[np.float64]

_GAMMA = 1 - 1 / math.sqrt(2)
_DELTA = 1 - 1 / (2 * _GAMMA)
_SAFETY, _LEAST_FACTOR, _MOST_FACTOR = 0.9, 0.2, 2.0
_FIRST_STEP = 0.1  # over a bound of the rates
_LEAST_STEP = 1e-12  # of the time to come


class StepError(ArithmeticError):
    """The step size has become too small, or there were too many steps."""


@dataclass(frozen=True)
class Moments:
    """Mean and covariance over runs of the weights and the bias at one time."""

    u: Array
    """Mean of (w, b/beta), shape (N + 1,)."""
    fluctuations: Fluctuations
    steps: int
    """Steps so far."""
    neglected: Neglected
    """The largest values so far of what the closure takes to be small."""
    collapsed: bool = False
    """Whether u has vanished: it does not come back."""


def trajectory(
    closure: Closure, u: Array, fluctuations: Fluctuations, times: Array, *, rtol: float, max_steps: int
) -> Iterator[Moments]:
    """Yield the moments at increasing times >= 0.

    Where the limit of small learning rates reaches u = 0 in a finite time, near which the steps would shrink with u, it
    ends there.

    Raises
    ------
    StepError
        If that takes more than max_steps, or steps too small.
    """
    t, dt, steps = 0.0, math.nan, 0
    behind = 0.0  # by how much the covariance lags; `now` is its estimate at t
    now = fluctuations
    started = not closure.collapsed(u)
    largest = Neglected()
    for k, time in enumerate(times):
        while True:
            if started and closure.collapsed(u):
                at_rest = Moments(np.zeros_like(u), fluctuations.scaled(0.0), steps, largest, collapsed=True)
                yield from repeat(at_rest, len(times) - k)
                return
            started = started or not closure.collapsed(u)
            c = closure.products(u)
            frozen = closure.freeze(u, now)
            drift, noise = closure.matrices(u, c, frozen)
            if closure.rule.normalised:
                frozen, drift = closure.normalise(u, c, frozen, now, drift, noise)
            flow = fluctuations.flow(drift, noise, closure.noise_rate)
            if t == time:
                break
            largest = largest.or_more(neglected(closure, u, c, now, flow.noise, float(noise.classes.sum())))
            if math.isnan(dt):
                dt = _FIRST_STEP / max(float(np.abs(drift.classes) @ closure.traces), 1e-300)
            while True:
                h = min(dt, time - t)
                middle = flow(behind + h / 2)
                within = replace(closure.freeze(u, middle), inflation=frozen.inflation)
                new, error = _step(closure, u, c, within, h, rtol)
                if error <= 1:
                    break
                dt = h * (max(_LEAST_FACTOR, _SAFETY / math.sqrt(error)) if error < math.inf else _LEAST_FACTOR)
                if not dt > _LEAST_STEP * time:
                    raise StepError(f"the steps became too small at t = {t:.6g}")
            steps += 1
            if steps > max_steps:
                raise StepError(f"max_steps = {max_steps} led only to t = {t:.6g}")
            u, fluctuations, now, behind = new, middle, flow(behind + h), h / 2
            if closure.rule.normalised:
                factor = 1 / math.sqrt(u[:-1] @ u[:-1] + now.variances()[:-1].sum())
                u = np.append(factor * u[:-1], u[-1])
            grown = h * min(_MOST_FACTOR, _SAFETY / math.sqrt(max(error, 1e-12)))
            dt = grown if h == dt else max(dt, grown)  # a step cut short by an output says little about the next
            t = float(time) if h == time - t else t + h
        yield Moments(u, flow(behind), steps, largest)


def _step(closure: Closure, u: Array, c: Array, frozen: Frozen, h: float, rtol: float) -> tuple[Array, float]:
    """Return the mean after h, and the error estimate in units of the tolerance."""
    start = closure.slope(u, c, frozen)
    inner = _solve(closure, u + _GAMMA * h * start.smooth, _GAMMA * h * start.pull, frozen)
    stage = closure.slope(inner, closure.products(inner), frozen)
    implicit = -stage.pull * closure.s(inner, frozen.V)
    y = u + h * (_DELTA * start.smooth + (1 - _DELTA) * stage.smooth + (1 - _GAMMA) * implicit)
    pull = max(start.pull + (stage.pull - start.pull) / _GAMMA, 0.0)  # at the end of the step
    new = _solve(closure, y, _GAMMA * h * pull, frozen)
    change = stage.smooth + implicit - start.smooth + start.pull * closure.s(u, frozen.V)
    error = h / (2 * _GAMMA) * change / 2
    scale = rtol * (np.linalg.norm(new) + math.sqrt(frozen.V.sum()))
    return new, float(np.linalg.norm(error) / scale)


def _solve(closure: Closure, y: Array, k: float, frozen: Frozen) -> Array:
    """Return the u that solves u + k s(u) = y."""
    return np.append(closure.norm.shrink(y[:-1], k, frozen.V), y[-1])
