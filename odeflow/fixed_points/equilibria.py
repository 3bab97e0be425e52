r"""Fixed points of the seed model's dynamics: where learning can end, whether it stays there, and how fast it comes.

**The equations.** With the margins :math:`s = M - b` and :math:`t = M + b`, :math:`M = \rho R/2 - \varepsilon`, of the
two attacked centres, the bias rests where both classes pull with the same force F,

.. math:: p\,D_1(s; v_1) = (1-p)\,D_1(t; v_2) = F,

a curve in the plane of s and t that depends on p, v1 and v2 alone. There the equation of R is divisible by F,

.. math:: \frac{1-R^2}{R} = \frac{\eta_w}{2\rho}\,Q, \qquad Q = r(s; v_1) + r(t; v_2), \qquad r(u; v) = v\,\frac{D_2}{D_1},

and has one root R(Q) > 0. So to each point of the curve belongs one epsilon, :math:`\varepsilon = \rho R(Q)/2 -
(s+t)/2`, and the fixed points are the zeros of a function of one variable on a known curve.

**What is proved.** (1) :math:`\psi = \ln D_1` is strictly concave, so the curve consists of two graphs, t(s) if p D1 has
the lower peak and s(t) otherwise, and each of their points is found by a monotone Newton iteration. (2) At fixed M the
logarithm L(b) of the ratio of the forces has L''' > 0 (because the hazard of the normal distribution is convex), so that
at most three biases balance; each is bracketed between the turning points of L, which are bracketed too. (3) |delta| <
1.3776 bounds Q and so confines M to an interval; on each of the at most three arcs of the curve within it, the sign of
epsilon(s) - epsilon at the ends is known. In the limit of small learning rates the interval is a point: **all fixed
points are found**. At finite eta_w, each arc that runs through the interval has a fixed point, which is bracketed, and
no fixed point is outside the arcs. **By resolution**: that an arc has no two further zeros. Where it is shorter than 3 sqrt(1 + 2v) and the
derivative at both ends and at the zero is the same within a factor 2, this is taken for granted; elsewhere at least 24
pieces and their extrema are searched.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.errors import adversarial_error, classification_error
from odeflow.integrate import broadcast_table
from odeflow.labels import label
from odeflow.model import Adversary, GaussianMixture, LearningRule, check_parts, checked_number
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "PARAMETERS",
    "FixedPoints",
    "fixed_points",
    "fixed_points_batch",
    "jacobian",
    "parameter_table",
    "seed_parameters",
    "solve_table",
]

Array = npt.NDArray[np.float64]

PARAMETERS = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "second_order")
"""The seed model's parameters: the columns of the compiled solver's table."""

_PARTS = (GaussianMixture, LearningRule, Adversary)


class FixedPoints(NamedTuple):
    """Fixed points of many parameter points, as plain arrays; at most 6 at one point, sorted by b, padded with nan."""

    R: Array
    """Overlap, shape (points, 6)."""
    b: Array
    """Bias, shape (points, 6)."""
    stable: npt.NDArray[np.bool_]
    """Whether both eigenvalues have a negative real part, shape (points, 6); False where padded."""
    eigenvalues: npt.NDArray[np.complex128]
    """Of the Jacobian, per unit of alpha, the one with the larger real part first, shape (points, 6, 2)."""
    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # not tuple.count
    """Number of fixed points, shape (points,)."""


def fixed_points(
    mixture: GaussianMixture, rule: LearningRule, adversary: Adversary, *, test_epsilon: float | None = None
) -> xr.Dataset:
    """Return all fixed points of (R, b) with R in [-1, 1] and b finite (exact as N grows).

    Found by bracketing, see the module's docstring for what is proved. In the limit of small learning rates
    (``second_order=False``) the fixed points with R = 1 come first and those with R = -1, always unstable, last.

    A stable fixed point far out, say |b| > 8 at unit variance, exists but is not reached in practice: the forces there
    are exponentially small (`relaxation_time`). One with |b| above 1e4 (1 + |M|) (1 + v1 + v2), which takes
    variances that differ by 1/4 to four digits, is taken to be at infinity and is not returned.

    Parameters
    ----------
    mixture, rule, adversary
        The model; only the seed model's (squared loss, erf, |w| = 1, every example attacked with the same epsilon).
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: the adversary's.

    Returns
    -------
    Dataset
        With dim fixed_point, in rising order of b: R, b, stable (bool), error, adversarial_error, and eigenvalues with
        dims fixed_point, eigenvalue (complex128, which netCDF files of this package keep). It may have no entry: for
        v1 and v2 that differ by 1/4 or more the bias can run away.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; for rho = 0 without second order, where every R is at rest.

    Examples
    --------
    >>> points = fixed_points(GaussianMixture(p=0.5), LearningRule(), Adversary(1.5))
    >>> points.stable.values.tolist()
    [True, False, True]
    """
    import xarray as xr

    model = seed_parameters(mixture, rule, adversary)
    if test_epsilon is None:
        test_epsilon = adversary.epsilon
    test_epsilon = checked_number("test_epsilon", test_epsilon, least=0)
    points = fixed_points_batch(**model)
    found = slice(0, int(points.count[0]))
    R, b = (xr.DataArray(values[0, found], dims="fixed_point") for values in (points.R, points.b))
    data = {
        "R": R,
        "b": b,
        "stable": ("fixed_point", points.stable[0, found]),
        "eigenvalues": (("fixed_point", "eigenvalue"), points.eigenvalues[0, found]),
        "error": classification_error(R, b, mixture),
        "adversarial_error": adversarial_error(R, b, mixture, test_epsilon),
    }
    del model["second_order"]
    attrs = provenance("fixed_points", mixture, rule, adversary, test_epsilon=test_epsilon)
    result = label(xr.Dataset(data, {**model, "test_epsilon": test_epsilon}, attrs))
    result["stable"].attrs = {"long_name": "whether small deviations decay", "units": "1"}
    result["eigenvalues"].attrs = {"long_name": "eigenvalues of the Jacobian, per unit of alpha", "units": "1"}
    return result


def fixed_points_batch(**model: Any) -> FixedPoints:
    """Return all fixed points of many parameter points at once, on all cores (exact as N grows).

    Parameters
    ----------
    **model
        Fields of GaussianMixture, LearningRule and Adversary by name, with their defaults. Numbers or arrays; all
        broadcast together, and a point is a point of the broadcast shape in C order. Fields of the model's variants
        are allowed with their defaults only.

    Returns
    -------
    FixedPoints
        Plain arrays.

    Raises
    ------
    TypeError, ValueError
        If an argument is unknown or not allowed.

    Examples
    --------
    >>> fixed_points_batch(epsilon=[0.0, 1.5]).count.tolist()
    [1, 3]
    """
    return solve_table(parameter_table(model))


def jacobian(
    R: npt.ArrayLike, b: npt.ArrayLike, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> Array:
    r"""Return the Jacobian of (dR/dalpha, db/dalpha) at any (R, b) (exact as N grows).

    Parameters
    ----------
    R, b
        Overlap in [-1, 1] and bias, of any shapes that broadcast.
    mixture, rule, adversary
        The seed model.

    Returns
    -------
    ndarray
        Shape (..., 2, 2): rows dR/dalpha and db/dalpha, columns the derivatives by R and b.

    Raises
    ------
    TypeError, ValueError
        If the model is not allowed.
    """
    from odeflow.fixed_points.forces import log_force, noise_ratio, noise_slope, slope

    model = seed_parameters(mixture, rule, adversary)
    p, rho, v1, v2 = model["p"], model["rho"], model["v1"], model["v2"]
    eta_w, eta_b, epsilon = model["eta_w"], model["eta_b"], model["epsilon"]
    R, b = np.broadcast_arrays(np.asarray(R, np.float64), np.asarray(b, np.float64))
    s, t = rho * R / 2 - epsilon - b, rho * R / 2 - epsilon + b
    D_s, D_t = p * np.exp(log_force(s, v1)), (1 - p) * np.exp(log_force(t, v2))
    dD_s, dD_t = D_s * slope(s, v1), D_t * slope(t, v2)
    J = np.empty((*R.shape, 2, 2))
    J[..., 0, 0] = eta_w * rho / 2 * ((1 - R**2) * rho / 2 * (dD_s + dD_t) - 2 * R * (D_s + D_t))
    J[..., 0, 1] = eta_w * rho / 2 * (1 - R**2) * (dD_t - dD_s)
    J[..., 1, 0] = eta_b * rho / 2 * (dD_t - dD_s)
    J[..., 1, 1] = eta_b * (dD_s + dD_t)
    if rule.second_order:
        N_s, N_t = D_s * noise_ratio(s, v1), D_t * noise_ratio(t, v2)  # p v <delta^2>
        dN_s, dN_t = N_s * noise_slope(s, v1), N_t * noise_slope(t, v2)
        J[..., 0, 0] -= eta_w**2 / 2 * (N_s + N_t + R * rho / 2 * (dN_s + dN_t))
        J[..., 0, 1] -= eta_w**2 / 2 * R * (dN_t - dN_s)
    return J


def seed_parameters(mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> dict[str, Any]:
    """Return the seed model's parameters by name, or raise if a part is a variant or leaves every R at rest."""
    check_parts(mixture=mixture, rule=rule, adversary=adversary)
    values = {field.name: getattr(part, field.name) for part in (mixture, rule, adversary) for field in fields(part)}
    return _without_variants(values)


def solve_table(table: Array) -> FixedPoints:
    """Return the fixed points of a table with the columns `PARAMETERS`, unchecked."""
    from odeflow.fixed_points import kernel as equilibria_kernel
    from odeflow.numerics.threads import map_blocks

    points, most = len(table), equilibria_kernel.MOST
    state = np.full((points, most, 2), np.nan)
    eigenvalues = np.full((points, most, 2), complex(np.nan, np.nan))
    stable = np.zeros((points, most), np.bool_)
    count = np.zeros(points, np.int64)

    def work(first: int, last: int) -> None:
        equilibria_kernel.fixed_points(table, first, last, state, eigenvalues, stable, count)

    map_blocks(work, points, least=64)
    return FixedPoints(state[..., 0].copy(), state[..., 1].copy(), stable, eigenvalues, count)


def parameter_table(model: dict[str, Any]) -> Array:
    """Return checked parameters as rows in the order of `PARAMETERS`, from fields by name that broadcast."""
    defaults = {field.name: field.default for part in _PARTS for field in fields(part)}
    for name in model:
        if name not in defaults:
            raise TypeError(f"{name!r} is not a parameter: allowed are {', '.join(PARAMETERS)}")
    values = _without_variants({**defaults, **model})
    table = broadcast_table(PARAMETERS, values)
    p, rho, v1, v2, eta_w, eta_b, epsilon, second_order = table.T
    checks = {
        "p": ((p > 0) & (p < 1), "in (0, 1)"),
        "rho": (
            (rho > 0) | (rho == 0) & (second_order != 0),
            ">= 0, and > 0 without second_order (else every R is at rest)",
        ),
        "v1": (v1 > 0, "> 0"),
        "v2": (v2 > 0, "> 0"),
        "eta_w": (eta_w > 0, "> 0"),
        "eta_b": (eta_b > 0, "> 0"),
        "epsilon": (epsilon >= 0, ">= 0"),
        "second_order": ((second_order == 0) | (second_order == 1), "True or False"),
    }
    for (name, (good, allowed)), column in zip(checks.items(), table.T, strict=True):
        bad = ~(good & np.isfinite(column))
        if np.any(bad):
            raise ValueError(f"{name} = {float(column[bad][0])!r} is out of range: allowed is {allowed}")
    return table


def _without_variants(values: dict[str, Any]) -> dict[str, Any]:
    """Return the seed model's parameters, or raise if another field does not have its default."""
    for part in _PARTS:
        for field in fields(part):
            value = values[field.name]
            if field.name not in PARAMETERS and not (value is field.default or np.all(value == field.default)):
                raise ValueError(
                    f"{field.name} = {value!r}: allowed is {field.default!r}, because fixed points are known for the "
                    "seed model only"
                )
    return {name: values[name] for name in PARAMETERS}
