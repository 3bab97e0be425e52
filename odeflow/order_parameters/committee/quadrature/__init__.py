"""Averages of the two-layer network over the fields of a cluster, one file a kind of integrand.

`averages` is what the kernels call: the type of the rule says which of the files computes them.
"""

# ruff: noqa: ARG005 -- each rule takes of the arguments what it needs
from __future__ import annotations

from typing import NamedTuple

from numba.extending import overload

from odeflow.order_parameters.committee.averages import add_averages
from odeflow.order_parameters.committee.quadrature.plain import PlainRule, add_averages_plain

__all__ = ["OneUnit", "averages"]


class OneUnit(NamedTuple):
    """The rule of `odeflow.order_parameters.committee.averages`."""

    scratch: int = 1


def averages(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    r"""Add `share` times the averages over x = m + sqrt(v) L y, y ~ N(0, 1), to `sums`, in the layout of `sums`."""
    raise NotImplementedError


@overload(averages)
def _averages(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    if rule.instance_class is PlainRule:
        return lambda m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums: add_averages_plain(
            m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums
        )
    if rule.instance_class is OneUnit:
        return lambda m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums: add_averages(
            m[0], v, Q[0, 0], c[0], 0.0, b, tau, epsilon, share, sums
        )
    return None
