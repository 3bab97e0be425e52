"""The adversary: how an example is moved before it is learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from odeflow.laws import Law, from_record
from odeflow.model.bounds import MOST
from odeflow.parameters import checked, choice, described, number, thing

__all__ = ["NORMS", "Adversary", "Norm"]

Norm = Literal["l2", "linf"]

NORMS: tuple[Norm, ...] = get_args(Norm)


@described
@dataclass(frozen=True)
class Adversary:
    """FGSM adversary: it moves an example by epsilon against its label, xi - tau epsilon s, s the gradient of |w|_*.

    In L2, s = w / |w|; in L-infinity, s = sign(w). For a linear classifier this is the worst perturbation of that size.
    The default is standard training.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed.
    """

    epsilon: float = number(0.0, "size of the perturbation in training", r"\varepsilon", least=0, most=MOST)
    fraction: float = number(
        1.0, "fraction of the examples that are attacked", "f", least=0, most=1, note="The others are left as they are."
    )
    law: Law | None = thing(
        None,
        "law of a random factor of epsilon (odeflow.laws), drawn anew for each example",
        "None: the factor is 1. Also as a result's attributes have it.",
    )
    norm: Norm = choice(
        "l2",
        "norm of the perturbation",
        NORMS,
        "linf is for odeflow.anisotropic alone: the seed model has no axes.",
    )

    def __post_init__(self) -> None:
        checked(self)
        law: object = self.law
        if isinstance(law, Mapping):  # as the attributes of a result have it
            object.__setattr__(self, "law", from_record(law))
        if self.law is not None and not isinstance(self.law, Law):
            raise TypeError(f"law = {self.law!r} is of the wrong type: allowed is a law of odeflow.laws, or None")
