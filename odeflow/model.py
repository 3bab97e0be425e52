"""The seed model's parameters: data, learning rule, adversary. Frozen, validated, dimensionless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from odeflow.laws import Law, from_record
from odeflow.parameters import (
    a,
    checked,
    checked_count,
    checked_number,
    choice,
    described,
    number,
    parameter_of,
    switch,
    thing,
)

__all__ = [
    "Adversary",
    "GaussianMixture",
    "LearningRule",
    "check_parts",
    "checked_count",
    "checked_number",
    "parameters",
]


Loss = Literal["squared", "hinge", "logistic", "perceptron"]
Activation = Literal["erf", "tanh", "linear", "sign"]
Update = Literal["all", "non_robust"]
Norm = Literal["l2", "linf"]

LOSSES: tuple[Loss, ...] = get_args(Loss)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
UPDATES: tuple[Update, ...] = get_args(Update)
NORMS: tuple[Norm, ...] = get_args(Norm)


MOST = 1e6
"""Largest separation, variance, perturbation and learning rate of a model.

With it, and the least variance 1 / MOST, squares and ratios of what a model holds stay far from the ends of floating point, and
sums keep half of their digits: every function that takes a model answers within its accuracy, or says that it could not.
"""


@described
@dataclass(frozen=True)
class GaussianMixture:
    """Two isotropic Gaussian clusters in R^N with opposite centres.

    An example has label tau = +1 with probability p, else -1, and is drawn from N(tau (rho/2) B, v_tau I) with |B| = 1.

    Raises
    ------
    TypeError, ValueError
        If a field is not a finite number in its range.

    Examples
    --------
    >>> GaussianMixture(p=0.7)
    GaussianMixture(p=0.7, rho=2.0, v1=1.0, v2=1.0)
    """

    p: float = number(0.5, "prior of the class +1", "p", above=0, below=1)
    rho: float = number(2.0, "separation of the centres", r"\rho", least=0, most=MOST)
    v1: float = number(1.0, "variance of the class +1", "v_1", least=1 / MOST, most=MOST)
    v2: float = number(1.0, "variance of the class -1", "v_2", least=1 / MOST, most=MOST)

    def __post_init__(self) -> None:
        checked(self)


@described
@dataclass(frozen=True)
class LearningRule:
    """One-pass SGD on a loss of the output g(x), x = w.xi - b; by default the seed model's.

    The update's factor is delta = tau f(tau x), with f the negative derivative of the loss by the margin tau x: for the
    squared loss (1 - tau g(x))^2 / 2, f = (1 - g) g'; for the hinge loss, g' where g < 1; for the logistic loss,
    g' / (1 + e^g); for the perceptron loss, g' where g < 0.

    The activation "sign" has no derivative; its g' is taken as 1, which with the perceptron loss is Rosenblatt's rule.
    It is allowed with the losses squared and perceptron.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed.
    """

    eta_w: float = number(0.04, "learning rate of the weights", r"\eta_w", above=0, most=MOST)
    eta_b: float = number(0.2, "learning rate of the bias", r"\eta_b", above=0, most=MOST)
    second_order: bool = switch(
        True,
        "whether the terms in eta_w^2 of the theory are kept",
        "Without them, the theory is the limit of small learning rates. A simulation always has its full learning rate.",
    )
    loss: Loss = choice("squared", "loss of the output", LOSSES)
    activation: Activation = choice("erf", "output unit g", ACTIVATIONS)
    update: Update = choice(
        "all",
        "examples that are learned from",
        UPDATES,
        "All, or only those on which the adversary succeeds (tau x < 0 after the attack).",
    )
    normalised: bool = switch(
        True,
        "whether the perceptron's |w| is kept at 1",
        "Otherwise its squared length Q is a third order parameter. The weights of other networks are always free.",
    )

    def __post_init__(self) -> None:
        checked(self)
        if self.activation == "sign" and self.loss not in ("squared", "perceptron"):
            raise ValueError(f"activation = 'sign' with loss = {self.loss!r}: allowed are squared and perceptron")

    @classmethod
    def per_example(cls, eta: float, N: int, *, eta_b: float | None = None, **fields: Any) -> LearningRule:
        """Return the rule w <- w + eta delta xi, b <- b - eta_b delta: eta_w = N eta, and likewise for the bias.

        Parameters
        ----------
        eta
            Learning rate of the weights per example, > 0.
        N
            Dimension of the input, >= 1.
        eta_b
            Learning rate of the bias per example, > 0; default: eta.
        **fields
            Other fields of the rule; unlike elsewhere, `normalised` is False by default.

        Examples
        --------
        >>> rule = LearningRule.per_example(0.01, N=784)
        >>> rule.eta_w, rule.eta_b, rule.normalised
        (7.84, 7.84, False)
        """
        N = checked_count("N", N, 1)
        eta = checked_number("eta", eta, above=0)
        eta_b = eta if eta_b is None else checked_number("eta_b", eta_b, above=0)
        return cls(**{"eta_w": eta * N, "eta_b": eta_b * N, "normalised": False, **fields})


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


def check_parts(**parts: object) -> None:
    """Raise a TypeError if an argument named mixture, rule or adversary is not what its name says."""
    kinds = {"mixture": GaussianMixture, "rule": LearningRule, "adversary": Adversary}
    for name, part in parts.items():
        if not isinstance(part, kinds[name]):
            hint = "; for this one there is odeflow.anisotropic" if type(part).__name__ == "Mixture" else ""
            raise TypeError(f"{name} = {part!r} is of the wrong type: allowed is {a(kinds[name].__name__)}{hint}")
        if isinstance(part, Adversary) and part.norm != "l2":
            raise ValueError(
                f"norm = {part.norm!r}: allowed is 'l2', because the seed model's data have no axes; "
                "odeflow.anisotropic has both"
            )


def parameters(*parts: Any) -> dict[str, Any]:
    """Return the fields of some parts of the model by name, in order."""
    return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}


def numeric_parameters(*parts: Any) -> dict[str, float]:
    """Return those fields that are numbers: the ones that stand as coordinates in a result."""
    return {
        name: getattr(part, name)
        for part in parts
        for name, parameter in parameter_of(part).items()
        if parameter.range is not None
    }
