r"""Phases of the seed model: where the number of its fixed points changes.

In the limit of small learning rates the end states follow from the balance of the two classes' forces at :math:`M =
\rho/2 - \varepsilon` (`odeflow.fixed_points.equilibria`). Two fixed points meet where L = dL/db = 0. The slopes of the log-forces are
then opposite, :math:`\varphi_1(s) = -\varphi_2(t) = w`, which gives s and t as functions of w, and along them

.. math:: \frac{dL}{dw} = w \left(\frac1{\varphi_1'(s)} - \frac1{\varphi_2'(t)}\right),

whose bracket changes sign at most once (it falls with w). So L(w) has at most three zeros, which are bracketed between
its turning points, w = 0 and the zero of the bracket: **all bifurcations are found**. At a finite learning rate they move
by O(eta_w); each is followed along the curve of balanced forces to the extremum of epsilon that it becomes, which is
bracketed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.equilibria import fixed_points_batch, seed_parameters
from odeflow.model import Adversary, GaussianMixture, LearningRule, check_parts
from odeflow.order_parameters.perceptron.forces import curvature, log_force, noise_ratio, noise_slope, peak, slope
from odeflow.parameters import label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["KINDS", "critical_epsilon", "phase_boundary", "runaway_direction", "with_kinds"]

Array = npt.NDArray[np.float64]

KINDS = ("fold", "pitchfork", "from_infinity", "stability")
"""Kinds of bifurcations: two fixed points appear or vanish; b = 0 loses its stability to a pair; a fixed point comes in
from infinite b; the stability changes but not the number of fixed points."""

_FAR = 1e6  # slopes of the log-force beyond which no zero is looked for


def runaway_direction(mixture: GaussianMixture) -> int:
    """Return whether a bias that is far out runs away: +1 (to +inf), -1 (to -inf) or 0 (it comes back) (exact).

    Far out, the force of the class that is deep on its own side falls as exp(-2 b^2/(1+4v)), that of the other as
    exp(-b^2/(1+2v)). So the far bias comes back, unless the variances differ by more than 1/4: then calling everything
    by the name of the class with the larger variance attracts, at every epsilon, rho and p and at any learning rate.
    At a difference of exactly 1/4 that is so where rho R/2 < epsilon.

    Parameters
    ----------
    mixture
        The data.

    Returns
    -------
    int

    Examples
    --------
    >>> runaway_direction(GaussianMixture(v1=1.0, v2=1.3))
    1
    """
    check_parts(mixture=mixture)
    return int(mixture.v2 >= mixture.v1 + 0.25) - int(mixture.v1 >= mixture.v2 + 0.25)


def critical_epsilon(mixture: GaussianMixture, rule: LearningRule) -> xr.Dataset:
    """Return every epsilon >= 0 at which the number of fixed points changes (exact as N grows; located to 1e-10).

    For p = 1/2 and v1 = v2 that is the pitchfork in which b = 0 becomes unstable, at epsilon = rho R/2 - u*, with u* of
    `odeflow.order_parameters.perceptron.forces.peak` and R = 1 in the limit of small learning rates. Otherwise they are folds: two fixed points, one
    of them stable, appear or vanish. In the limit of small learning rates all are found and the boundaries in the plane
    of epsilon and rho are straight lines, rho/2 - epsilon = constant. At a finite learning rate, those that come from
    these are found; further ones (say by a large eta_w) can be found with `odeflow.fixed_points.continuation.branches`.

    Parameters
    ----------
    mixture, rule
        The seed model.

    Returns
    -------
    Dataset
        With dim bifurcation, in rising order of epsilon: epsilon, R, b, kind (index into `KINDS`), and
        stable_below, stable_above (the number of stable fixed points just below and above epsilon).

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or rho = 0.

    Examples
    --------
    >>> rule = LearningRule(second_order=False)
    >>> critical_epsilon(GaussianMixture(p=0.5), rule).epsilon.values.round(8).tolist()
    [1.38875459]
    """
    import xarray as xr

    model = seed_parameters(mixture, rule, Adversary())
    if mixture.rho == 0:
        raise ValueError("rho = 0.0 is out of range: allowed is > 0")
    symmetric = mixture.p == 0.5 and mixture.v1 == mixture.v2
    if symmetric:
        margins = [(float(peak(mixture.v1)), float(peak(mixture.v2)))]
    else:
        margins = _distinct(_moved_fold(*fold, model) for fold in _folds(mixture))
    rows = []
    for s, t in margins:
        R = _overlap(s, t, model)
        epsilon = mixture.rho * R / 2 - (s + t) / 2
        if epsilon < 0:
            continue
        near = fixed_points_batch(**{**model, "epsilon": np.maximum(epsilon + np.array([-1e-6, 1e-6]), 0)})
        rows.append((epsilon, R, (t - s) / 2, int(symmetric), *np.sum(near.stable, axis=1)))
    columns = np.array(sorted(rows), np.float64).reshape(-1, 6).T
    names = ("epsilon", "R", "b", "kind", "stable_below", "stable_above")
    data = {name: ("bifurcation", column) for name, column in zip(names, columns, strict=True)}
    result = xr.Dataset(data, attrs=provenance("critical_epsilon", mixture, rule))
    return with_kinds(label(result))


def phase_boundary(
    mixture: GaussianMixture, rule: LearningRule, *, parameter: str, values: npt.ArrayLike
) -> xr.Dataset:
    """Return the curves epsilon_c along a parameter of the mixture or the rule (exact as N grows).

    Parameters
    ----------
    mixture, rule
        The seed model.
    parameter
        Any of p, rho, v1, v2, eta_w.
    values
        Its values, shape (parameter,).

    Returns
    -------
    Dataset
        What `critical_epsilon` returns, with the dims bifurcation and `parameter`. The bifurcations are in rising order
        of b; nan where there are fewer.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> boundary = phase_boundary(GaussianMixture(p=0.6), LearningRule(), parameter="rho", values=[1.0, 2.0])
    >>> boundary.epsilon.round(3).values.tolist()
    [[0.992, 1.492]]
    """
    import xarray as xr

    allowed = ("p", "rho", "v1", "v2", "eta_w")
    if parameter not in allowed:
        raise ValueError(f"parameter = {parameter!r} is unknown: allowed is one of {', '.join(allowed)}")
    grid = np.atleast_1d(np.asarray(values, np.float64))
    parts = [critical_epsilon(*_with(mixture, rule, parameter, value)).sortby("b") for value in grid]
    most = max((part.sizes["bifurcation"] for part in parts), default=0)
    whole = [part.pad(bifurcation=(0, most - part.sizes["bifurcation"]), constant_values=np.nan) for part in parts]
    coordinate = xr.DataArray(grid, dims=parameter, name=parameter)
    result: xr.Dataset = xr.concat(whole, coordinate).transpose("bifurcation", parameter)
    result.attrs = provenance("phase_boundary", mixture, rule, parameter=parameter, values=grid)
    return with_kinds(label(result))


def _with(
    mixture: GaussianMixture, rule: LearningRule, parameter: str, value: float
) -> tuple[GaussianMixture, LearningRule]:
    change: dict[str, Any] = {parameter: value}
    if hasattr(mixture, parameter):
        return replace(mixture, **change), rule
    return mixture, replace(rule, **change)


def with_kinds(result: xr.Dataset) -> xr.Dataset:
    """Give the variables about bifurcations their names, kind also its CF flags."""
    result["kind"].attrs = {
        "long_name": "kind of bifurcation",
        "flag_values": np.arange(len(KINDS), dtype=np.float64),
        "flag_meanings": " ".join(KINDS),
    }
    for name, where in (("stable_below", "below"), ("stable_above", "above")):
        if name in result:
            result[name].attrs = {"long_name": f"number of stable fixed points {where} epsilon", "units": "1"}
    return result


# Folds in the limit of small learning rates


def _folds(mixture: GaussianMixture) -> list[tuple[float, float]]:
    """Return the margins s, t at which two zeros of L(b) meet, in rising order of b."""
    prior = math.log(mixture.p) - math.log1p(-mixture.p)
    v1, v2 = mixture.v1, mixture.v2

    def margins(w: float) -> tuple[float, float]:
        return _margin_of_slope(w, v1), _margin_of_slope(-w, v2)

    def L(w: float) -> float:
        s, t = margins(w)
        return prior + float(log_force(s, v1) - log_force(t, v2))

    def bend(w: float) -> float:
        s, t = margins(w)
        return float(curvature(t, v2) - curvature(s, v1))

    turning = [-_FAR, 0.0, _FAR]
    if bend(-_FAR) > 0 > bend(_FAR):
        turning = sorted([*turning, _zero(bend, -_FAR, _FAR)])
    zeros = []
    for low, high in pairwise(turning):
        if L(low) * L(high) < 0:
            zeros.append(_zero(L, low, high))
    return [margins(w) for w in zeros]


def _margin_of_slope(w: float, v: float) -> float:
    """Return the u with slope(u) = w: bracketed by the bounds of the curvature around the peak."""
    u = float(peak(v))
    reach = -w * (1 + 2 * v) / 2, -w * (1 + 4 * v) / 4
    low, high = sorted(u + step * factor for step, factor in zip(reach, (1.001, 0.999), strict=True))
    return _zero(lambda x: float(slope(x, v)) - w, low, high) if w else u


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=1e-14, rtol=1e-14, maxiter=500))


# Their continuation to a finite learning rate


def _overlap(s: float, t: float, model: dict[str, Any]) -> float:
    """Return R at rest for balanced forces."""
    if not model["second_order"]:
        return 1.0
    c = model["eta_w"] / (2 * model["rho"]) * (noise_ratio(s, model["v1"]) + noise_ratio(t, model["v2"]))
    return float(2 / (c + np.hypot(c, 2)))


def _distinct(margins: Iterable[tuple[float, float] | None]) -> list[tuple[float, float]]:
    """Return those that exist, once each."""
    kept: list[tuple[float, float]] = []
    for one in margins:
        if one is not None and all(math.dist(one, other) > 1e-6 for other in kept):
            kept.append(one)
    return kept


def _moved_fold(s: float, t: float, model: dict[str, Any]) -> tuple[float, float] | None:
    """Return the margins of the fold at the model's learning rate, from those at eta_w to 0; None if it is gone.

    The curve of balanced forces is followed in the margin x of the class with the lower peak; the fold is where
    epsilon(x) is extremal.
    """
    if not model["second_order"]:
        return s, t
    prior = math.log(model["p"]) - math.log1p(-model["p"])
    v_x, v_y, x0, y0 = model["v1"], model["v2"], s, t
    over_s = prior + log_force(peak(v_x), v_x) <= log_force(peak(v_y), v_y)
    if not over_s:
        v_x, v_y, x0, y0, prior = v_y, v_x, y0, x0, -prior
    top = float(peak(v_y))
    side = math.copysign(1.0, y0 - top)

    def other(x: float) -> float:
        level = prior + float(log_force(x, v_x))
        far = top + side * math.sqrt((float(log_force(top, v_y)) - level) * (1 + 2 * v_y) * 1.01)
        return _zero(lambda y: float(log_force(y, v_y)) - level, *sorted((top, far)))

    def epsilon_slope(x: float) -> float:
        y = other(x)
        dy = float(slope(x, v_x) / slope(y, v_y))
        r_x, r_y = noise_ratio(x, v_x), noise_ratio(y, v_y)
        dQ = r_x * (noise_slope(x, v_x) - slope(x, v_x)) + r_y * (noise_slope(y, v_y) - slope(y, v_y)) * dy
        per_Q = model["eta_w"] / (2 * model["rho"])
        c = per_Q * (r_x + r_y)
        dR = -2 / (c + np.hypot(c, 2)) / np.hypot(c, 2) * per_Q * dQ
        return float(model["rho"] / 2 * dR - (1 + dy) / 2)

    step = 1e-3
    while epsilon_slope(x0 - step) * epsilon_slope(x0 + step) > 0:
        step *= 2
        if step > 1e3:
            return None
    x = _zero(epsilon_slope, x0 - step, x0 + step)
    return (x, other(x)) if over_s else (other(x), x)
