"""The cards, in order of priority."""

from __future__ import annotations

from importlib import import_module

from benchmarks.cuda.card import Card

__all__ = ["NAMES", "card"]

NAMES = (
    "tests",
    "speed",
    "at_cifar10",
    "ccat_cifar10",
    "mnist_full",
    "comparison",
    "attacks_cifar10",
    "defences_cifar10",
    "hcnn_cifar10",
)
"""Names of the cards, each a file of this folder with a ``CARD``: those that come first are run first."""


def card(name: str) -> Card:
    """Return a card by its name.

    Raises
    ------
    ValueError
        If there is none of this name.
    ImportError
        If its file is not there, or cannot be imported.
    """
    if name not in NAMES:
        raise ValueError(f"cards = {name!r} is no card: allowed are {', '.join(NAMES)}")
    found = import_module(f"benchmarks.cuda.cards.{name}").CARD
    assert isinstance(found, Card)
    assert found.name == name, f"the card of {name}.py calls itself {found.name}"
    return found
