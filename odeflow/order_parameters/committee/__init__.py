"""A network of two layers under attack, so far with one hidden unit."""

from odeflow.order_parameters.committee.network import Committee

__all__ = ["Committee"]
