"""Images for the studies: MNIST or what stands in for it, and two digits of it for deep nets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepcheck.data import DataError, Images, load, two_class_images

__all__ = ["NEGATIVE", "POSITIVE", "examples", "images_of", "load_or_digits", "place"]

POSITIVE, NEGATIVE = 3, 7
"""The digits with the labels +1 and -1, the classes 1 and 0."""
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def load_or_digits(name: str = "mnist", *, download: bool = True) -> tuple[Images, str]:
    """Return a data set, or scikit-learn's digits where it cannot be had, and then a note that says so."""
    try:
        return load(name, download=download), ""
    except DataError as error:
        return load("digits"), f"Not {TITLES[name]}, but scikit-learn's digits of 8 x 8 pixels, because {error}"


def images_of(*, quick: bool) -> tuple[Images, str]:
    """Return MNIST, or scikit-learn's digits in the quick form and where there is none, and then a note that says so.

    All classes are there: `two_class_images` and `two_classes` take the pair.
    """
    if quick:
        return load("digits"), "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    return load_or_digits()


def place() -> torch.device:
    """Return where nets are: the GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def examples(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """Return some test images of the pair, spread evenly over the data set, in [0, 1], and their classes 1 and 0."""
    pair = two_class_images(images, POSITIVE, NEGATIVE)
    total = len(pair.test_labels)
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    device = place()
    x = torch.tensor(pair.test_images[chosen]).to(device).float() / 255
    return x, torch.tensor(pair.test_labels[chosen]).to(device)
