"""Small convolutional networks, for MNIST and the like."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

__all__ = ["conv_leaky", "conv_small", "conv_threshold", "madry_mnist"]


def conv_threshold(in_shape: tuple[int, int, int], *, width: int = 1, levels: int = 4) -> tuple[nn.Module, int]:
    """Return the features of conv_small behind a pointwise layer, and their number: 167,182 weights on MNIST.

    A convolution of 1 x 1 pixels and a ReLU give every pixel `levels` soft thresholds of its own, of which the network
    can compose a step: pixels that are nearly black or white then look the same after an attack as before. Networks that
    withstand L-infinity attacks on MNIST learn such thresholds in their first layer (Madry et al., ICLR 2018, appendix C).

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 4 x 4 pixels.
    width
        Factor of the channels, 16 and 32.
    levels
        Channels of the pointwise layer.
    """
    in_channels, height, columns = in_shape
    body, d = conv_small((levels, height, columns), width=width)
    return nn.Sequential(nn.Conv2d(in_channels, levels, 1), nn.ReLU(), body), d


def conv_leaky(in_shape: tuple[int, int, int], *, width: int = 1) -> tuple[nn.Module, int]:
    """Return the features of conv_small with leaky ReLUs, of slope 0.1 below 0, and their number: 166,406 weights on MNIST.

    Where all hidden units of conv_small are at 0, the logits are the last layer's biases, and their gradient by the image is
    exactly 0. A net that is trained to predict the uniform distribution learns that, and attacks by gradient, those of its
    training among them, stay where they are. Here there is a gradient everywhere.

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 4 x 4 pixels.
    width
        Factor of the channels, 16 and 32.
    """
    return _small(in_shape, width, lambda: nn.LeakyReLU(0.1))


def conv_small(in_shape: tuple[int, int, int], *, width: int = 1) -> tuple[nn.Module, int]:
    """Return the features of a small network, and their number: 166,406 weights on MNIST with the head for 10 classes.

    Two convolutions of 4 x 4 pixels, each of which halves the image, and 100 hidden units: the network of Wong and
    Kolter (ICML 2018), also of Wong, Rice and Kolter (ICLR 2020).

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 4 x 4 pixels.
    width
        Factor of the channels, 16 and 32.
    """
    return _small(in_shape, width, nn.ReLU)


def _small(in_shape: tuple[int, int, int], width: int, activation: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    """Return two convolutions and a hidden layer of 100 units, with an activation of their own each."""
    in_channels, height, columns = in_shape
    first, second = 16 * width, 32 * width
    body = nn.Sequential(
        nn.Conv2d(in_channels, first, 4, stride=2, padding=1),
        activation(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (columns // 4), 100),
        activation(),
    )
    return body, 100


def madry_mnist(in_shape: tuple[int, int, int], *, width: int = 1) -> tuple[nn.Module, int]:
    """Return the features of Madry's network, and their number: 3,274,634 weights on MNIST with a head for 10 classes.

    Two convolutions of 5 x 5 pixels, each followed by a maximum over 2 x 2 pixels, and 1024 hidden units: the network
    of Madry et al. (ICLR 2018) for MNIST. Its weights start as all others here do (the original: normal numbers of
    standard deviation 0.1, truncated, and biases of 0.1).

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 4 x 4 pixels.
    width
        Factor of the channels, 32 and 64.
    """
    in_channels, height, columns = in_shape
    first, second = 32 * width, 64 * width
    body = nn.Sequential(
        nn.Conv2d(in_channels, first, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (columns // 4), 1024),
        nn.ReLU(),
    )
    return body, 1024
