"""The unspecialised fixed points of networks with several units, and how fast the units' differences grow there.

Units with the same output weight (and the same of whatever does not learn) can be put in any order, and the rates with them.
So states in which all of them are alike stay so: there the learning of a network that starts with small random weights comes
nearly to rest, on a plateau. In coordinates of such states and of the differences, the Jacobian at a fixed point falls into two
blocks: one says how the plateau is approached, the other how it is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.search import ROUGH, Flow, distinct, flow_at, newton, start_state, swapped, units_of
from odeflow.integrate import labelled
from odeflow.model import Adversary, Data, LearningRule, check_constant, numeric_parameters
from odeflow.order_parameters import Network
from odeflow.order_parameters.base import Array, checked_network, flat, recorded
from odeflow.parameters import checked_number, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Blocks", "blocks", "named", "specialisation_rate", "symmetric_fixed_points"]

Start = Mapping[str, npt.ArrayLike]


class Blocks(NamedTuple):
    """The flow among states whose units are alike, and that of the differences, linear around such a state."""

    alike: Flow
    differences: Flow


def symmetric_fixed_points(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    network: Network,
    start: Start | None = None,
    test_epsilon: float | None = None,
) -> xr.Dataset:
    """Return the fixed points at which all units with the same output weight are alike (exact as N grows).

    They are those that Newton's method finds among such states, from the network's guesses: one can be missed.

    Parameters
    ----------
    mixture, rule, adversary
        The model.
    network
        What learns: of at least two units.
    start
        Values by the name of the order parameter, as for `integrate`: of what does not learn, such as output weights of either
        sign, and a state from which the search starts as well.
    test_epsilon
        Perturbation at which the adversarial measures are evaluated, >= 0; default: the adversary's.

    Returns
    -------
    Dataset
        With dim fixed_point: the order parameters, the network's errors or losses; approach_rate, the largest real part of the
        eigenvalues among states with units alike (< 0: learning comes there if the units begin alike); specialisation_rate,
        that of the others, by which differences of the units grow, per unit of alpha; eigenvalues of both, the former first,
        with dim eigenvalue. Perhaps without an entry.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; among them a network of which no two units are alike.

    Examples
    --------
    >>> from odeflow import Committee, xor
    >>> pair = Committee(hidden=2, activation="relu")
    >>> points = symmetric_fixed_points(xor(v=0.5), LearningRule(0.2), Adversary(attack="margin"), network=pair)
    >>> points.sizes["unit"]
    2
    """
    import xarray as xr

    checked_network(network).check(mixture, rule, adversary)
    check_constant(rule, adversary)
    test_epsilon = checked_number("test_epsilon", adversary.epsilon if test_epsilon is None else test_epsilon, least=0)
    given = None if start is None else start_state(network, mixture, rule, start)
    y = network.guesses(mixture, rule, adversary, given)
    variables = network.variables(rule, mixture)
    if given is not None:
        y = np.concatenate([flat(given, variables)[None], y])
    alike, differences = blocks(flow_at(network, mixture, rule, adversary, y), y[0])
    y = y - y @ differences.basis @ differences.basis.T
    rough = distinct(alike, newton(alike, distinct(alike, y), converged=ROUGH), near=1e2 * ROUGH)
    alike, differences = alike.sharpened(), differences.sharpened()
    states = differences.regular(alike.regular(distinct(alike, newton(alike, rough))))
    approach, growth = alike.eigenvalues(states), differences.eigenvalues(states)
    numbers = numeric_parameters(mixture, rule, adversary, network)
    data = labelled(network, mixture, rule, states, ("fixed_point",), numbers, test_epsilon)
    data["approach_rate"] = ("fixed_point", approach.real.max(axis=1, initial=-np.inf))
    data["specialisation_rate"] = ("fixed_point", growth.real.max(axis=1, initial=-np.inf))
    data["eigenvalues"] = (("fixed_point", "eigenvalue"), np.concatenate([approach, growth], axis=1))
    attrs = provenance(
        "symmetric_fixed_points", mixture, rule, adversary, **recorded(network), test_epsilon=test_epsilon
    )
    return named(label(xr.Dataset(data, {**numbers, "test_epsilon": test_epsilon}, attrs)))


def specialisation_rate(
    mixture: Data, rule: LearningRule, adversary: Adversary, *, network: Network, start: Start | None = None
) -> float:
    """Return the rate at which small differences of the units grow on the plateau, per unit of alpha (exact as N grows).

    That is at the symmetric fixed point to which learning comes if the units begin alike (`symmetric_fixed_points`). Near it the
    differences are multiplied by e in a time of 1 over this rate; they decay where it is negative.

    Parameters
    ----------
    mixture, rule, adversary, network, start
        As for `symmetric_fixed_points`.

    Returns
    -------
    float
        The rate.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; if no such fixed point is found, or several are.
    """
    points = symmetric_fixed_points(mixture, rule, adversary, network=network, start=start)
    rates = points.specialisation_rate.values[points.approach_rate.values < 0]
    if len(rates) != 1:
        raise ValueError(
            f"{len(rates)} symmetric fixed points attract units that are alike: allowed is one; symmetric_fixed_points has all"
            " that were found, and takes a start"
        )
    return float(rates[0])


def blocks(flow: Flow, state: Array) -> Blocks:
    """Return the parts of a flow at states that are as this one in what does not learn.

    Raises
    ------
    ValueError
        If no two units are alike.
    """
    variables = flow.variables
    rest = state - flow.basis @ (flow.basis.T @ state)
    moved = []
    units = units_of(variables)
    for k, l in combinations(range(units), 2):
        order = list(range(units))
        order[k], order[l] = l, k
        if np.allclose(swapped(rest, variables, tuple(order)), rest, rtol=0, atol=1e-12):
            moved.append(swapped(flow.basis.T, variables, tuple(order)) @ flow.basis - np.eye(flow.basis.shape[1]))
    if not moved:
        raise ValueError(
            f"network = {flow.network!r} has no two units that are alike: allowed are several units, of which two have the same"
            " output weight and threshold"
        )
    # states that no exchange of two alike units changes, and what is orthogonal to them
    _, sizes, vectors = np.linalg.svd(np.concatenate([one.T for one in moved]))
    fixed = np.concatenate([sizes, np.zeros(len(vectors) - len(sizes))]) < 1e-9
    return Blocks(
        replace(flow, basis=np.ascontiguousarray(flow.basis @ vectors[fixed].T)),
        replace(flow, basis=np.ascontiguousarray(flow.basis @ vectors[~fixed].T)),
    )


def named(data: xr.Dataset) -> xr.Dataset:
    """Give the rates their names."""
    names = {
        "approach_rate": "largest real part of the eigenvalues among states with units alike, per unit of alpha",
        "specialisation_rate": "largest real part of the eigenvalues of differences of the units, per unit of alpha",
        "stable": "whether small deviations decay",
        "growth_rate": "largest real part of the eigenvalues, per unit of alpha",
    }
    for name, text in names.items():
        if name in data:
            data[name].attrs = {"long_name": text, "units": "1"}
    return data
