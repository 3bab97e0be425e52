"""A network of two layers under attack."""

from odeflow.order_parameters.committee.network import Committee
from odeflow.order_parameters.committee.starts import random_start

__all__ = ["Committee", "random_start"]
