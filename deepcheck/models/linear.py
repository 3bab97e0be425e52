"""The linear classifier, the one network that the theory in `odeflow` describes exactly."""

from __future__ import annotations

import math

from torch import nn

__all__ = ["linear"]


def linear(in_shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Return the features of a linear classifier (multinomial logistic regression), and their number.

    The features are the pixels themselves, as a vector; 7,850 weights on MNIST with the head for 10 classes.
    """
    return nn.Flatten(), math.prod(in_shape)
