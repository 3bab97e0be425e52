"""The perceptron under attack: one linear unit, the seed's model and its variants."""

from odeflow.order_parameters.perceptron.network import Perceptron

__all__ = ["Perceptron"]
