"""The adversary: how an example is moved before it is learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from odeflow.laws import Law, from_record
from odeflow.model.bounds import MOST
from odeflow.parameters import checked, checked_count, checked_number, choice, described, number, thing
from odeflow.schedule import Scheduled

__all__ = ["ATTACKS", "NORMS", "Adversary", "Attack", "Norm"]

Norm = Literal["l2", "linf"]

NORMS: tuple[Norm, ...] = get_args(Norm)

Attack = Literal["fgsm", "margin", "pgd", "worst", "blind"]

ATTACKS: tuple[Attack, ...] = get_args(Attack)


@described
@dataclass(frozen=True)
class Adversary:
    """An adversary that moves an example by at most epsilon; by default FGSM with epsilon = 0, standard training.

    A perceptron's example is moved against its label, xi - tau epsilon s, s the gradient of |w|_*: in L2, s = w / |w|; in
    L-infinity, s = sign(w). For a linear classifier this is the worst perturbation of that size. Against two-layer networks
    (`Committee`) there are four attacks, see `attack`. `epsilon_ratio`, `clean_weight` and the attack "blind" are for the
    perceptron alone. Where labels are flipped (`LearningRule.label_noise`), tau is the label that the learner sees.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed.
    """

    epsilon: Scheduled = number(
        0.0, "size of the perturbation in training", r"\varepsilon", least=0, most=MOST, scheduled=True
    )
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
    attack: Attack = choice(
        "fgsm",
        "attack",
        ATTACKS,
        "On a perceptron fgsm, the worst, or blind: along the direction of the centres, by -tau epsilon B, whatever the weights "
        "are, as transferred from an ideal classifier. On a two-layer network fgsm: along the gradient of the loss; margin: along "
        "that of -tau phi; pgd: `attack_steps` steps along the gradient of the loss, projected; worst: the largest loss.",
    )
    attack_steps: int = thing(10, "steps of pgd", "At least 1.")
    attack_step: float = thing(0.25, "length of a step of pgd, in units of epsilon", "> 0.")
    epsilon_ratio: float = number(
        1.0,
        "factor of epsilon for examples that are seen with the label -1",
        r"\varepsilon_-/\varepsilon",
        least=0,
        most=MOST,
        note="The errors are at the same epsilon for both classes.",
    )
    clean_weight: float = number(
        0.0,
        "weight of the loss on the same example without attack",
        r"\kappa",
        least=0,
        most=1,
        note="The loss on the attacked example has the weight 1 - clean_weight.",
    )

    def __post_init__(self) -> None:
        checked(self)
        object.__setattr__(self, "attack_steps", checked_count("attack_steps", self.attack_steps, 1, most=10_000))
        object.__setattr__(self, "attack_step", checked_number("attack_step", self.attack_step, above=0, most=MOST))
        law: object = self.law
        if isinstance(law, Mapping):  # as the attributes of a result have it
            object.__setattr__(self, "law", from_record(law))
        if self.law is not None and not isinstance(self.law, Law):
            raise TypeError(f"law = {self.law!r} is of the wrong type: allowed is a law of odeflow.laws, or None")
