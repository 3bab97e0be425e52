"""What is known of any network, by its state: errors against epsilon; of two layers, with the most confident neighbour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from odeflow.errors.linear import of_training
from odeflow.errors.margins import Confidence, checked_radius, confidence_threshold
from odeflow.model import Data, LearningRule, numeric_parameters
from odeflow.order_parameters import Committee, Network, Perceptron
from odeflow.order_parameters.base import Array, OrderParameter, checked_network, recorded
from odeflow.parameters import as_numbers, checked_number, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["composed", "robustness"]

_CLEAN = ("error", "loss")


def robustness(
    state: Mapping[Any, Any], mixture: Data, epsilon: Any = None, *, network: Network = Perceptron()
) -> xr.Dataset:
    """Return what is known of networks against the size of the test perturbation: their errors, or losses.

    As exact as the network's `measured`: the perceptron's errors, and those of two-layer networks up to their quadrature.

    Parameters
    ----------
    state
        Order parameters by name: a result of `integrate`, `simulate`, `sweep` or `fixed_points`, or arrays of shape
        ``(..., *sizes)`` whose leading axes broadcast.
    mixture
        The data. What a result has as coordinates, such as swept parameters, goes before it.
    epsilon
        Increasing test perturbations >= 0, shape (epsilon,). Default: 21 values from 0 to 1.
    network
        What has these order parameters.

    Returns
    -------
    Dataset
        The network's measures with the dims of the states and epsilon, last; the clean ones without epsilon. A coordinate
        epsilon of a result, the training's, is called training_epsilon.

    Raises
    ------
    TypeError
        If an order parameter is missing.
    ValueError
        If epsilon is not one-dimensional, not increasing, or negative, or shapes do not go together.

    Examples
    --------
    >>> from odeflow import Adversary, Committee, GaussianMixture, LearningRule, integrate
    >>> net = Committee(hidden=2)
    >>> end = integrate(GaussianMixture(), LearningRule(0.5), Adversary(), network=net, alpha=[5.0], start={"c": [1, 0.5]})
    >>> robustness(end, GaussianMixture(), [0.0, 0.5], network=net).adversarial_error.dims
    ('alpha', 'epsilon')
    """
    import xarray as xr

    grid = np.linspace(0, 1, 21) if epsilon is None else np.atleast_1d(as_numbers("epsilon", epsilon))
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or np.any(np.diff(grid) <= 0) or np.any(grid < 0):
        raise ValueError(f"epsilon = {epsilon!r} is not a grid: allowed are increasing finite numbers >= 0")
    states = _States.of(state, mixture, network)
    values = {name: np.expand_dims(one, len(states.shape)) for name, one in states.values.items()}
    points = {name: np.expand_dims(one, -1) if np.ndim(one) else one for name, one in states.points.items()}
    found = network.measured(values, mixture, points, grid)
    data: dict[str, Any] = {}
    for name, measure in found.items():
        clean = name in _CLEAN
        full = np.broadcast_to(measure, (*states.shape, 1 if clean else grid.size))
        data[name] = (states.dims, full[..., 0]) if clean else ((*states.dims, "epsilon"), full)
    attrs = provenance("robustness", mixture, **recorded(network))
    return label(xr.Dataset(data, {**states.coords, "epsilon": grid}, attrs))


def composed(
    state: Mapping[Any, Any],
    mixture: Data,
    level: Any,
    eta: Any,
    xi: Any = 0.0,
    *,
    network: Committee,
    confidence: Confidence = "linear",
    step: float = 0.008,
) -> xr.Dataset:
    r"""Return the errors of two-layer networks that answer as the most confident point within xi does, with rejection.

    The answer is the sign of the mid-range of the output within xi, max + min, its confidence grows with max(max, -min). The
    adversary moves an example by up to eta, and knows the rule: every measure is in the worst case. Exact at any N for one unit;
    for two up to a quadrature, with an error of some 2e-6 for units of erf and 1e-4 for those of ReLU.

    Parameters
    ----------
    state
        Order parameters by name: a result of `integrate`, `simulate` or `sweep`, or arrays, as for `robustness`.
    mixture
        The data: classes, not a teacher. What a result has as coordinates, such as swept parameters, goes before it.
    level
        Of confidence, in [1/2, 1), from which an answer is accepted; a number, or shape (level,).
    eta
        Size of the perturbation, >= 0; a number, or shape (eta,).
    xi
        Radius in which the most confident neighbour answers, >= 0; a number, or shape (xi,). 0: the point itself.
    network
        A `Committee` of one or two units.
    confidence
        What is read as the confidence in the class +1; by default (1 + phi)/2 between 0 and 1, the estimate of the class's
        probability that the squared loss fits. See `confidence_threshold`.
    step
        Distance of the nodes of the quadrature, in units of the least standard deviation, with two units.

    Returns
    -------
    Dataset
        With the dims of the states, and level, xi and eta where they are not numbers: `error`, clean; `adversarial_error`;
        `separation`, the share that an attack brings to a wrong answer of at least the level; `awpr`,
        `awpr_without_rejection`, `recall` and `recall_of_correct` as `rejection` has them, where "right" is said of the composed
        classifier. nan where the weights of two units are parallel and pull against each other.

    Raises
    ------
    TypeError, ValueError
        If an order parameter is missing, the network is another or has more units, or a level or a radius is out of range.

    Examples
    --------
    >>> from odeflow import Adversary, GaussianMixture, LearningRule, integrate
    >>> mixture, net = GaussianMixture(p=0.7), Committee()
    >>> end = integrate(mixture, LearningRule(0.5, 0.5), Adversary(), network=net, alpha=[20.0]).isel(alpha=-1)
    >>> composed(end, mixture, 0.5, 0.5, [0.0, 1.0], network=net).adversarial_error.values.round(4)
    array([0.3088, 0.29  ])
    """
    import xarray as xr

    from odeflow.order_parameters.committee.neighbours import of_states

    if not isinstance(network, Committee):
        raise TypeError(
            f"network = {network!r}: allowed is a Committee; for the perceptron there is most_confident_neighbour"
        )
    checked_number("step", step, least=1e-4, most=0.1)
    radii = {"eta": checked_radius("eta", eta), "xi": checked_radius("xi", xi)}
    t = confidence_threshold(level, confidence)
    sizes = {"level": np.asarray(as_numbers("level", level)), **{name: np.asarray(one) for name, one in radii.items()}}
    for name, one in sizes.items():
        if one.ndim > 1:
            raise ValueError(f"{name} has shape {one.shape}: allowed is a number, or a list of numbers")
    states = _States.of(state, mixture, network)
    options = {"eta": np.atleast_1d(sizes["eta"]), "xi": np.atleast_1d(sizes["xi"]), "step": step}
    found = of_states(network, states.values, mixture, states.points, states.shape, t=np.atleast_1d(t), **options)
    data = {}
    for name, (axes, values) in found.items():
        numbers = tuple(len(states.dims) + i for i, axis in enumerate(axes) if sizes[axis].ndim == 0)
        kept = [axis for axis in axes if sizes[axis].ndim]
        data[name] = ((*states.dims, *kept), values.squeeze(numbers))
    coords = {**states.coords, **{name: one for name, one in sizes.items() if one.ndim == 0 or one.ndim == 1}}
    named = confidence if isinstance(confidence, str) else getattr(confidence, "__name__", "a function")
    attrs = provenance("composed", mixture, **recorded(network), confidence=named)
    return label(xr.Dataset(data, coords, attrs))


class _States(NamedTuple):
    """States of a network as arrays that broadcast, and what goes with them."""

    values: dict[str, Array]
    """Order parameters by name, shape ``(*shape, *sizes)``."""
    points: dict[str, Any]
    """Parameters of the data, numbers or of shape ``shape``."""
    dims: list[str]
    shape: tuple[int, ...]
    coords: dict[Any, Any]

    @classmethod
    def of(cls, state: Mapping[Any, Any], mixture: Data, network: Network) -> _States:
        """Return the order parameters that a network has of this state, or raise an error if one is missing."""
        import xarray as xr

        checked_network(network)
        variables = network.variables(LearningRule(normalised="Q" not in state), mixture)
        missing = [variable.name for variable in variables if variable.name not in state]
        if missing:
            raise TypeError(
                f"state has no {missing[0]}: allowed for the {network.name} are {', '.join(v.name for v in variables)}"
            )
        named = {variable.name: _with_dims(variable, state[variable.name]) for variable in variables}
        entries = {dim for variable in variables for dim in variable.dims}
        arrays = dict(zip(named, xr.broadcast(*named.values(), exclude=entries), strict=True))
        first = arrays[variables[0].name].isel(dict.fromkeys(variables[0].dims, 0), drop=True)
        dims = [str(dim) for dim in first.dims]
        values = {
            variable.name: arrays[variable.name].transpose(*dims, *variable.dims).values for variable in variables
        }
        points: dict[str, Any] = numeric_parameters(mixture)
        for name in points:
            known = next((array.coords[name] for array in arrays.values() if name in array.coords), None)
            if known is not None:
                points[name] = known.broadcast_like(first).transpose(*dims).values
        coords = {name: value for name, value in first.coords.items() if {*value.dims} <= {*dims}}
        return cls(values, points, dims, first.shape, coords)


def _with_dims(variable: OrderParameter, values: Any) -> Any:
    """Return an order parameter as a DataArray: the leading axes of an array are called axis1, the last, axis2, ..."""
    import xarray as xr

    if not hasattr(values, "dims"):
        values = as_numbers(variable.name, values)
        lead = values.ndim - len(variable.sizes)
        if lead < 0 or values.shape[lead:] != variable.sizes:
            raise ValueError(f"{variable.name} has shape {values.shape}: allowed is {variable.shapes}")
        values = xr.DataArray(values, dims=(*(f"axis{lead - i}" for i in range(lead)), *variable.dims))
    return of_training(values)
