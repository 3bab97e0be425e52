"""Images for the studies: MNIST or what stands in for it, two classes of it for deep nets, and where these nets are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from deepcheck.checks import checked_choice
from deepcheck.data import DataError, Images, load, two_class_images
from studies.common.subject import OWN, Subject

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "TITLES",
    "Class",
    "batch_at",
    "classes_text",
    "examples",
    "images_of",
    "load_or_digits",
    "place",
    "placed",
]

POSITIVE, NEGATIVE = 3, 7
"""The digits with the labels +1 and -1, the classes 1 and 0."""
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "digits": "scikit-learn's digits, not MNIST"}
Class = int | str


def load_or_digits(name: str = "mnist", *, download: bool = True) -> tuple[Images, str]:
    """Return a data set, or scikit-learn's digits where it cannot be had, and then a note that says so."""
    try:
        return load(name, download=download), ""
    except DataError as error:
        return load("digits"), f"Not {TITLES[name]}, but scikit-learn's digits of 8 x 8 pixels, because {error}"


def images_of(subject: Subject = OWN, *, quick: bool) -> tuple[Images, str]:
    """Return the images that a study is about, and a note if others stand in for them.

    For MNIST scikit-learn's digits do in the quick form, and where there is none. All classes are there:
    `two_class_images` and `two_classes` take the pair.

    Raises
    ------
    DataError
        If another data set is not there.
    ValueError
        If it does not have the classes.
    """
    if subject.dataset != "mnist":
        images, note = load(subject.dataset, download=not quick), ""
    elif quick:
        images, note = load("digits"), "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    else:
        images, note = load_or_digits()
    for name in subject.classes:
        checked_choice("classes", name, images.class_names)
    return images, note


def classes_text(pair: tuple[Class, Class]) -> str:
    """Return what titles call a pair."""
    return f"{pair[0]} against {pair[1]}"


_PLACE: ContextVar[torch.device | None] = ContextVar("place", default=None)


def place() -> torch.device:
    """Return where nets are: the GPU, if there is one, unless `placed` has another."""
    return _PLACE.get() or torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def placed(device: torch.device) -> Iterator[None]:
    """Let nets be on a device, in this process."""
    token = _PLACE.set(device)
    try:
        yield
    finally:
        _PLACE.reset(token)


def batch_at(device: torch.device) -> int:
    """Return how many images deep nets are given at once: a GPU would wait for work with as few as suit a processor."""
    return 100 if device.type == "cpu" else 500


def examples(images: Images, count: int, pair: tuple[Class, Class] = (POSITIVE, NEGATIVE)) -> tuple[Tensor, Tensor]:
    """Return some test images of a pair, spread evenly over the data set, in [0, 1], and their classes 1 and 0."""
    two = two_class_images(images, *pair)
    total = len(two.test_labels)
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    device = place()
    x = torch.tensor(two.test_images[chosen]).to(device).float() / 255
    return x, torch.tensor(two.test_labels[chosen]).to(device)
