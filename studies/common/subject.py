"""What a study is about, where it can be about more than one thing: a data set, two classes of it, and which nets."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from deepcheck.checks import checked_choice
from odeflow.model import checked_count

__all__ = ["DATASETS", "MODELS", "OWN", "Subject"]

DATASETS = ("mnist", "cifar10", "digits")
"""Data sets of which a study can be."""
MODELS = ("conv_small", "madry_mnist", "resnet_ccat", "preact_resnet18")
"""Nets of `deepcheck.models` that a study can train, as wide as published."""


@dataclass(frozen=True)
class Subject:
    """Which images a study is about, and which nets learn them.

    Raises
    ------
    ValueError, TypeError
        If a field is out of its range. Whether the data set has the classes is known when it is there.

    Examples
    --------
    >>> Subject("cifar10", ("airplane", "ship"), seeds=5).suffix
    '_cifar10_airplane_ship_5_seeds'
    """

    dataset: str = "mnist"
    """Out of `DATASETS`."""
    classes: tuple[str, str] = ("3", "7")
    """Names of two different classes of it, the label +1 first; that of a majority, where priors are unequal."""
    seeds: int | None = None
    """Nets of each kind, >= 2; None: as many as the study has."""
    net: str | None = None
    """Out of `MODELS`: this one, as wide as published, is trained in the place of the study's own deep nets."""

    def __post_init__(self) -> None:
        checked_choice("dataset", self.dataset, DATASETS)
        if len(set(self.classes)) != 2:
            raise ValueError(f"classes = {' '.join(self.classes)} is not allowed: two different classes are")
        if self.seeds is not None:
            checked_count("seeds", self.seeds, 2)
        if self.net is not None:
            checked_choice("net", self.net, MODELS)

    @property
    def is_own(self) -> bool:
        """Whether the images and nets are those of the studies as they stand, however many seeds there are."""
        return replace(self, seeds=None) == OWN

    @property
    def folder(self) -> str:
        """What is added to the name of the folder of kept parts: nets of other seeds are in the same."""
        return replace(self, seeds=None).suffix

    @property
    def suffix(self) -> str:
        """What is added to the names of files, nothing for the study as it stands."""
        parts = [] if self.is_own else [self.dataset, *self.classes, *([self.net] if self.net else [])]
        if self.seeds is not None:
            parts += [f"{self.seeds}_seeds"]
        return "".join("_" + re.sub(r"\W+", "_", part) for part in parts)


OWN = Subject()
"""MNIST 3 against 7, and the nets of the study."""
