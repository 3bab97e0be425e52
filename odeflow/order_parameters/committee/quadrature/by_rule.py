"""The averages by the type of their rule, which says which file computes them: what the kernels call."""

from __future__ import annotations

from numba.extending import overload

from odeflow.order_parameters.committee.quadrature import erf, relu

__all__ = ["averages", "scratch"]


def averages(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    """Add `share` times the averages over x = m + sqrt(v) L y, y ~ N(0, 1), to `sums`, in the layout of that module."""
    raise NotImplementedError


def scratch(K, rule):
    """Return the size of `work`."""
    raise NotImplementedError


_BY_RULE = {
    erf.Rule: (erf.add_averages_erf, erf.scratch),
    relu.ReluRule: (relu.add_averages_relu, relu.scratch),
}


@overload(averages)
def _averages(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    return _BY_RULE[rule.instance_class][
        0
    ].py_func  # not a function that calls it: each level costs a compilation of all below


@overload(scratch)
def _scratch(K, rule):
    return _BY_RULE[rule.instance_class][1].py_func
