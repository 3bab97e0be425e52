"""The seed model's parameters: data, learning rule, adversary. Frozen, validated, dimensionless."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from odeflow.laws import Law

__all__ = [
    "Adversary",
    "GaussianMixture",
    "LearningRule",
    "check_parts",
    "checked_count",
    "checked_number",
    "parameters",
]


def checked_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """Return `value` as a float, or raise an error that names it, its value and what is allowed.

    Parameters
    ----------
    name
        What the number is called, for the message.
    value
        Any real number (a Python or NumPy scalar).
    above, below
        Open bounds.
    least, most
        Closed bounds.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is not finite, or out of bounds.
    """
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">", above), (">=", least), ("<", below), ("<=", most))
        if math.isfinite(bound)
    ]
    allowed = " and ".join(["a finite number", *bounds])
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} = {value!r} is not a number: allowed is {allowed}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} is not one number: allowed is {allowed}") from None
    if not (math.isfinite(number) and above < number < below and least <= number <= most):
        raise ValueError(f"{name} = {number!r} is out of range: allowed is {allowed}")
    return number


def checked_count(name: str, value: object, least: int, where: str = "") -> int:
    """Return `value` as an int, or raise an error that names it, its value and that a whole number >= `least` is allowed.

    `where` is put into the message to say when that holds.
    """
    number = checked_number(name, value)
    if number != int(number) or number < least:
        raise ValueError(f"{name} = {value!r} is out of range{where}: allowed is a whole number >= {least}")
    return int(number)


def _set_checked(instance: object, name: str, **bounds: float) -> None:
    object.__setattr__(instance, name, checked_number(name, getattr(instance, name), **bounds))


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

    p: float = 0.5
    """Prior of the class +1, in (0, 1)."""
    rho: float = 2.0
    """Separation of the two centres, >= 0."""
    v1: float = 1.0
    """Variance of the class +1, > 0."""
    v2: float = 1.0
    """Variance of the class -1, > 0."""

    def __post_init__(self) -> None:
        _set_checked(self, "p", above=0, below=1)
        _set_checked(self, "rho", least=0)
        _set_checked(self, "v1", above=0)
        _set_checked(self, "v2", above=0)


LOSSES = ("squared", "hinge", "logistic", "perceptron")
ACTIVATIONS = ("erf", "tanh", "linear", "sign")
NORMS = ("l2", "linf")


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

    eta_w: float = 0.04
    """Learning rate of the weights, > 0."""
    eta_b: float = 0.2
    """Learning rate of the bias, > 0."""
    second_order: bool = True
    """Keep the terms in eta_w^2 of the theory; without them, the theory is the limit of small learning rates.
    A simulation always has its full learning rate."""
    loss: Literal["squared", "hinge", "logistic", "perceptron"] = "squared"
    """Loss of the output."""
    activation: Literal["erf", "tanh", "linear", "sign"] = "erf"
    """Output unit g."""
    update: Literal["all", "non_robust"] = "all"
    """Learn from all examples, or only from those on which the adversary succeeds (tau x < 0 after the attack)."""
    normalised: bool = True
    """Keep |w| = 1. Otherwise its squared length Q is a third order parameter."""

    def __post_init__(self) -> None:
        _set_checked(self, "eta_w", above=0)
        _set_checked(self, "eta_b", above=0)
        for name in ("second_order", "normalised"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} = {getattr(self, name)!r} is not a bool: allowed is True or False")
        for name, allowed in (("loss", LOSSES), ("activation", ACTIVATIONS), ("update", ("all", "non_robust"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r} is unknown: allowed is one of {', '.join(allowed)}")
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

    epsilon: float = 0.0
    """Size of the perturbation in training, >= 0."""
    fraction: float = 1.0
    """Fraction of the examples that are attacked, in [0, 1]; the others are left as they are."""
    law: Law | None = None
    """Law of a random factor of epsilon (odeflow.laws), drawn anew for each example; None: the factor is 1."""
    norm: Literal["l2", "linf"] = "l2"
    """Norm in which epsilon is the size: "l2", or "linf" (odeflow.anisotropic alone: the seed model has no axes)."""

    def __post_init__(self) -> None:
        _set_checked(self, "epsilon", least=0)
        if self.norm not in NORMS:
            raise ValueError(f"norm = {self.norm!r} is unknown: allowed is one of {', '.join(NORMS)}")
        _set_checked(self, "fraction", least=0, most=1)
        if self.law is not None and not isinstance(self.law, Law):
            raise TypeError(f"law = {self.law!r} is of the wrong type: allowed is a law of odeflow.laws, or None")


def check_parts(**parts: object) -> None:
    """Raise a TypeError if an argument named mixture, rule or adversary is not what its name says."""
    kinds = {"mixture": GaussianMixture, "rule": LearningRule, "adversary": Adversary}
    for name, part in parts.items():
        if not isinstance(part, kinds[name]):
            hint = "; for this one there is odeflow.anisotropic" if type(part).__name__ == "Mixture" else ""
            raise TypeError(f"{name} = {part!r} is of the wrong type: allowed is a {kinds[name].__name__}{hint}")
        if isinstance(part, Adversary) and part.norm != "l2":
            raise ValueError(
                f"norm = {part.norm!r}: allowed is 'l2', because the seed model's data have no axes; "
                "odeflow.anisotropic has both"
            )


def parameters(*parts: GaussianMixture | LearningRule | Adversary) -> dict[str, Any]:
    """Return the fields of some parts of the model by name, in order."""
    return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}


def numeric_parameters(*parts: GaussianMixture | LearningRule | Adversary) -> dict[str, float]:
    """Return those fields that are numbers: the ones that stand as coordinates in a result."""
    return {name: value for name, value in parameters(*parts).items() if isinstance(value, float)}
