"""Labelled images, and pairs of their classes as vectors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DataError", "Images", "TwoClasses", "guess", "two_class_images", "two_classes"]


class DataError(RuntimeError):
    """A data set is not there, or its files are not what they should be."""


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A data set of labelled images, as `load` returns it. Its arrays are read-only."""

    name: str
    """Name of the data set."""
    train_images: npt.NDArray[np.uint8]
    """Training images, shape (n, channels, height, width), in 0..255."""
    train_labels: npt.NDArray[np.int64]
    """Their classes, shape (n,): indices into `class_names`."""
    test_images: npt.NDArray[np.uint8]
    """Test images, in the format of the training images."""
    test_labels: npt.NDArray[np.int64]
    """Their classes."""
    class_names: tuple[str, ...]
    """Names of the classes."""
    source: str
    """Where the data came from: a folder, or "scikit-learn"."""

    def __post_init__(self) -> None:
        _make_read_only(self, "train_images", "train_labels", "test_images", "test_labels")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image: channels, height, width."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def __repr__(self) -> str:
        return (
            f"Images({self.name!r}: {len(self.train_images)} training and {len(self.test_images)} test images of shape "
            f"{self.shape}, {len(self.class_names)} classes, from {self.source!r})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class TwoClasses:
    """Two classes of a data set as vectors with labels +1 and -1, as `two_classes` returns them, read-only."""

    name: str
    """Data set and classes, say "mnist 3 vs 7"."""
    positive: int
    """Index of the class with label +1."""
    negative: int
    """Index of the class with label -1."""
    X_train: npt.NDArray[np.float64]
    """Training examples, shape (n, N): pixels in [0, 1], less `mean`."""
    y_train: npt.NDArray[np.float64]
    """Their labels, +1 or -1, shape (n,)."""
    X_test: npt.NDArray[np.float64]
    """Test examples: pixels in [0, 1], less the same `mean`."""
    y_test: npt.NDArray[np.float64]
    """Their labels."""
    mean: npt.NDArray[np.float64]
    """What was subtracted, shape (N,): the mean of all training examples of the two classes, or zero."""
    shape: tuple[int, int, int]
    """Shape of one image: channels, height, width; N is their product."""

    def __post_init__(self) -> None:
        _make_read_only(self, "X_train", "y_train", "X_test", "y_test", "mean")

    @property
    def N(self) -> int:
        """Input dimension."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return (
            f"TwoClasses({self.name!r}: {len(self.X_train)} training and {len(self.X_test)} test examples, N={self.N})"
        )


def _make_read_only(instance: Images | TwoClasses, *names: str) -> None:
    for name in names:
        array = getattr(instance, name).view()
        array.flags.writeable = False
        object.__setattr__(instance, name, array)


def two_classes(images: Images, positive: int | str, negative: int | str, *, centre: bool = True) -> TwoClasses:
    """Return the examples of two classes as vectors with labels +1 and -1, in the order of the data set.

    Parameters
    ----------
    images
        A data set from `load`.
    positive, negative
        Classes that get the label +1 and -1: an index, or a name out of `images.class_names`.
    centre
        Subtract the mean image of all training examples of the two classes, from the test examples too.

    Returns
    -------
    TwoClasses
        `X_train` and `X_test` have shape (n, N), with N = channels x height x width.

    Raises
    ------
    ValueError, TypeError
        If a class does not exist, if both are the same, or if an argument is of the wrong type.
    DataError
        If a class has no training image.

    Examples
    --------
    >>> from deepcheck.data import load
    >>> pair = two_classes(load("digits"), 3, 7)
    >>> pair
    TwoClasses('digits 3 vs 7': 267 training and 95 test examples, N=64)
    >>> bool(abs(pair.X_train.mean(axis=0)).max() < 1e-12)
    True
    """
    plus, minus = _checked_pair(images, positive, negative)
    if not isinstance(centre, bool):
        raise TypeError(f"centre = {centre!r} is not a bool: allowed is True or False")
    X_train, y_train = _vectors(images.train_images, images.train_labels, plus, minus)
    X_test, y_test = _vectors(images.test_images, images.test_labels, plus, minus)
    mean = X_train.mean(axis=0) if centre else np.zeros(X_train.shape[1])
    X_train -= mean
    X_test -= mean
    return TwoClasses(
        name=f"{images.name} {images.class_names[plus]} vs {images.class_names[minus]}",
        positive=plus,
        negative=minus,
        X_train=X_train,
        y_train=y_train,
        X_test=X_test,
        y_test=y_test,
        mean=mean,
        shape=images.shape,
    )


def _vectors(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], plus: int, minus: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the examples of two classes, shape (n, N), in [0, 1], and their labels."""
    chosen = np.flatnonzero((labels == plus) | (labels == minus))
    X = images[chosen].reshape(len(chosen), math.prod(images.shape[1:])) / 255.0
    return X, np.where(labels[chosen] == plus, 1.0, -1.0)


def _checked_class(argument: str, value: object, images: Images) -> int:
    """Return the index of a class that is given by its index or name."""
    names = images.class_names
    allowed = f"allowed is an index in 0..{len(names) - 1} or a name out of {', '.join(names)}"
    if isinstance(value, str):
        if value in names:
            return names.index(value)
        raise ValueError(f"{argument} = {value!r} is no class of {images.name}{guess(value, names)}: {allowed}")
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} = {value!r} is of the wrong type: {allowed}")
    if not 0 <= value < len(names):
        raise ValueError(f"{argument} = {value!r} is no class of {images.name}: {allowed}")
    return int(value)


def guess(given: str, allowed: Sequence[str]) -> str:
    """Return what may have been meant, for a message."""
    close = difflib.get_close_matches(given.lower(), allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def two_class_images(images: Images, positive: int | str, negative: int | str) -> Images:
    """Return the images of two classes as a data set of its own: the class 1 is `positive`, the class 0 `negative`.

    Parameters
    ----------
    images
        A data set from `load`.
    positive, negative
        Classes, as for `two_classes`.

    Returns
    -------
    Images
        Its images are in the order of the data set; its name is, say, "mnist 3 vs 7".

    Raises
    ------
    ValueError, TypeError, DataError
        As `two_classes`.

    Examples
    --------
    >>> from deepcheck.data import load
    >>> two_class_images(load("digits"), 3, 7).class_names
    ('7', '3')
    """
    plus, minus = _checked_pair(images, positive, negative)
    parts = {}
    for part in ("train", "test"):
        labels = getattr(images, f"{part}_labels")
        chosen = np.flatnonzero((labels == plus) | (labels == minus))
        parts[f"{part}_images"] = getattr(images, f"{part}_images")[chosen]
        parts[f"{part}_labels"] = (labels[chosen] == plus).astype(np.int64)
    names = images.class_names[minus], images.class_names[plus]
    return Images(f"{images.name} {names[1]} vs {names[0]}", class_names=names, source=images.source, **parts)


def _checked_pair(images: Images, positive: int | str, negative: int | str) -> tuple[int, int]:
    """Return the indices of two different classes with training images."""
    if not isinstance(images, Images):
        raise TypeError(f"images = {images!r} is of the wrong type: allowed is a data set from deepcheck.data.load")
    plus = _checked_class("positive", positive, images)
    minus = _checked_class("negative", negative, images)
    if plus == minus:
        raise ValueError(f"positive = {positive!r} and negative = {negative!r} are the same class: allowed are two")
    for index in (plus, minus):
        if index not in images.train_labels:
            raise DataError(f"class {images.class_names[index]!r} has no training image in {images.source!r}")
    return plus, minus
