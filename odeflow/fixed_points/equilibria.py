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

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.search import search
from odeflow.fixed_points.sensitivity import checked_names, derivatives
from odeflow.integrate import broadcast_table, check_column, labelled
from odeflow.model import (
    Adversary,
    Data,
    GaussianMixture,
    LearningRule,
    check_constant,
    check_parts,
    numeric_parameters,
)
from odeflow.order_parameters import Network, Perceptron
from odeflow.order_parameters.base import checked_network, recorded
from odeflow.order_parameters.perceptron.reference import jacobian
from odeflow.parameters import checked_number, label, parameter_of
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "PARAMETERS",
    "FixedPoints",
    "fixed_points",
    "fixed_points_batch",
    "is_seed",
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

    @property
    def state(self) -> dict[str, Array]:
        """The order parameters by name."""
        return {"R": self.R, "b": self.b}


def fixed_points(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    network: Network = Perceptron(),
    start: Mapping[str, npt.ArrayLike] | None = None,
    test_epsilon: float | None = None,
    sensitivities: Sequence[str] = (),
) -> xr.Dataset:
    """Return the fixed points of the order parameters (exact as N grows).

    Of the seed's model all, with R in [-1, 1] and b finite: found by bracketing, see the module's docstring for what is
    proved. In the limit of small learning rates (``second_order=False``) the fixed points with R = 1 come first and those
    with R = -1, always unstable, last. Of the variants and of other networks those that Newton's method finds from a grid
    of guesses (`odeflow.fixed_points.search`): one can be missed. Of more than two units, whose rates take long, fewer guesses are
    followed, with a coarser quadrature before the last steps, and more is missed: the end of a trajectory as `start` is among the
    guesses. (Four ReLU units on `xor` took a minute of one core at a tolerance of 1e-3; of erf, several times as long.) Of those that
    differ in the order of a network's units alone, one is returned. At the edge of the possible states, as where a student has learned its teacher to perfection, the rates have
    no derivatives on one side, and no fixed point is found.

    A stable fixed point far out, say |b| > 8 at unit variance, exists but is not reached in practice: the forces there
    are exponentially small (`relaxation_time`). One with |b| above 1e4 (1 + |M|) (1 + v1 + v2), which takes
    variances that differ by 1/4 to four digits, is taken to be at infinity and is not returned.

    Parameters
    ----------
    mixture, rule, adversary
        The model.
    network
        What learns.
    start
        Values by the name of the order parameter, as for `integrate`: of what does not learn, such as output weights of either
        sign, and a state from which the search starts as well. (Those of the seed's perceptron are found without.)
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: the adversary's.
    sensitivities
        Parameters by which derivatives are added, numbers of mixture, rule and adversary by name: how the fixed points move.

    Returns
    -------
    Dataset
        With dim fixed_point, in rising order of b: the order parameters, R and b, stable (bool), error,
        adversarial_error (or the network's `measures`), and eigenvalues with dims fixed_point, eigenvalue (complex128, which netCDF files of this package
        keep). It may have no entry: for v1 and v2 that differ by 1/4 or more the bias can run away. With sensitivities also
        R_derivative, b_derivative, error_derivative and so on, dims fixed_point and parameter (nan at a bifurcation); that of
        adversarial_error by epsilon moves the test's epsilon with the adversary's, unless it is given.

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

    checked_network(network).check(mixture, rule, adversary)
    check_constant(rule, adversary)
    names, given_epsilon = checked_names(sensitivities, mixture, rule, adversary), test_epsilon
    if test_epsilon is None:
        test_epsilon = adversary.epsilon
    test_epsilon = checked_number("test_epsilon", test_epsilon, least=0)
    if isinstance(network, Perceptron) and isinstance(mixture, GaussianMixture) and is_seed(rule, adversary):
        points = fixed_points_batch(**seed_parameters(mixture, rule, adversary))
        found = slice(0, int(points.count[0]))
        states = np.stack([points.R[0, found], points.b[0, found]], axis=1)
        eigenvalues, stable = points.eigenvalues[0, found], points.stable[0, found]
    else:
        states, eigenvalues = search(network, mixture, rule, adversary, start)
        stable = eigenvalues.real.max(axis=1, initial=-np.inf) < 0
    numbers = numeric_parameters(mixture, rule, adversary, network)
    data = labelled(network, mixture, rule, states, ("fixed_point",), numbers, test_epsilon)
    data["stable"] = ("fixed_point", stable)
    data["eigenvalues"] = (("fixed_point", "eigenvalue"), eigenvalues)
    coords: dict[str, Any] = {**numbers, "test_epsilon": test_epsilon}
    if names:
        coords["parameter"] = list(names)
        for name, values in derivatives(network, mixture, rule, adversary, states, names, given_epsilon).items():
            dims = ("fixed_point", "parameter", *(f"{name}_{i}" for i in range(values.ndim - 2)))
            about = {"long_name": f"derivative of {name.removesuffix('_derivative')} by a parameter", "units": "1"}
            data[name] = (dims, values, about)
    attrs = provenance("fixed_points", mixture, rule, adversary, **recorded(network), test_epsilon=test_epsilon)
    return label(xr.Dataset(data, coords, attrs))


def is_seed(rule: LearningRule, adversary: Adversary) -> bool:
    """Return whether the perceptron is the seed's: squared loss, erf, |w| = 1, all attacked alike, and learning rates > 0."""
    seed = LearningRule(eta_w=rule.eta_w, eta_b=rule.eta_b, second_order=rule.second_order)
    return rule == seed and adversary == Adversary(adversary.epsilon) and rule.eta_w > 0 and rule.eta_b > 0


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


def seed_parameters(mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> dict[str, Any]:
    """Return the seed model's parameters by name, or raise if a part is a variant or leaves every R at rest."""
    check_parts(mixture=mixture, rule=rule, adversary=adversary)
    values = {field.name: getattr(part, field.name) for part in (mixture, rule, adversary) for field in fields(part)}
    return _without_variants(values)


def solve_table(table: Array) -> FixedPoints:
    """Return the fixed points of a table with the columns `PARAMETERS`, unchecked."""
    from odeflow.fixed_points import kernel as equilibria_kernel
    from odeflow.numerics.threads import Flag, map_blocks

    points, most = len(table), equilibria_kernel.MOST
    state = np.full((points, most, 2), np.nan)
    eigenvalues = np.full((points, most, 2), complex(np.nan, np.nan))
    stable = np.zeros((points, most), np.bool_)
    count = np.zeros(points, np.int64)

    def work(first: int, last: int, stop: Flag) -> None:
        equilibria_kernel.fixed_points(table, first, last, stop, state, eigenvalues, stable, count)

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
    known = {name: parameter for part in _PARTS for name, parameter in parameter_of(part).items()}
    for name, column in zip(PARAMETERS, table.T, strict=True):
        check_column(name, known[name], column)
    rho, second_order = table[:, PARAMETERS.index("rho")], table[:, PARAMETERS.index("second_order")]
    if np.any((rho == 0) & (second_order == 0)):
        raise ValueError("rho = 0.0 is out of range: allowed is > 0 without second_order (else every R is at rest)")
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
    for name in ("eta_w", "eta_b"):
        if np.any(np.equal(values[name], 0)):
            raise ValueError(
                f"{name} = 0.0 is out of range: allowed is > 0, for what does not learn is at rest everywhere"
            )
    return {name: values[name] for name in PARAMETERS}
