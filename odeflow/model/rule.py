"""The learning rule: one-pass SGD on a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from odeflow.model.bounds import MOST
from odeflow.model.factor import Factor
from odeflow.parameters import checked, checked_count, checked_number, choice, described, number, switch, thing
from odeflow.schedule import Scheduled

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "STEPS",
    "SURROGATES",
    "UPDATES",
    "Activation",
    "LearningRule",
    "Loss",
    "Steps",
    "Surrogate",
    "Update",
]

Loss = Literal["squared", "hinge", "logistic", "perceptron"]
Activation = Literal["erf", "tanh", "linear", "sign"]
Update = Literal["all", "non_robust"]
Steps = Literal["constant", "line_search", "polyak"]
Surrogate = Literal["none", "trades", "pairing"]

LOSSES: tuple[Loss, ...] = get_args(Loss)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
UPDATES: tuple[Update, ...] = get_args(Update)
STEPS: tuple[Steps, ...] = get_args(Steps)
SURROGATES: tuple[Surrogate, ...] = get_args(Surrogate)


@described
@dataclass(frozen=True)
class LearningRule:
    """One-pass SGD on a loss of the output g(x), x = w.xi - b; by default the seed model's.

    The update's factor is delta = tau f(tau x), with f the negative derivative of the loss by the margin tau x: for the
    squared loss (1 - tau g(x))^2 / 2, f = (1 - g) g'; for the hinge loss, g' where g < 1; for the logistic loss,
    g' / (1 + e^g); for the perceptron loss, g' where g < 0.

    The activation "sign" has no derivative; its g' is taken as 1, which with the perceptron loss is Rosenblatt's rule.
    It is allowed with the losses squared and perceptron.

    Beside the loss, a rule says what an example and its label suffer before they are learned from (`label_noise`,
    `input_noise`, `smoothing`), what is added to the loss of the outputs with and without an attack (`surrogate`), how many are
    averaged in a step (`batch`), and how weights and bias decay. The errors are always those of the data as they are, with their true labels. Fields other than the learning rates, the loss, the activation,
    the update and `second_order` are the perceptron's alone where they do not have their default.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed.
    """

    eta_w: Scheduled = number(
        0.04, "learning rate of the weights", r"\eta_w", least=0, most=MOST, note="0: they are frozen.", scheduled=True
    )
    eta_b: Scheduled = number(
        0.2, "learning rate of the bias", r"\eta_b", least=0, most=MOST, note="0: it is frozen.", scheduled=True
    )
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
    decay_w: float = number(
        0.0,
        "decay of the weights",
        r"\lambda_w",
        least=0,
        most=MOST,
        note="A step multiplies them by 1 - eta_w decay_w / N. Of free weights alone: the length of others does not decay.",
    )
    decay_b: float = number(
        0.0,
        "decay of the bias",
        r"\lambda_b",
        least=0,
        most=MOST,
        note="A step multiplies it by 1 - eta_b decay_b / N.",
    )
    batch: float = number(
        1.0,
        "examples averaged in each step",
        "n",
        least=1,
        most=MOST,
        note="A whole number, that does not grow with N. alpha then counts steps per dimension, of `batch` examples each.",
    )
    label_noise: float = number(
        0.0,
        "probability that a label is flipped in learning",
        r"\nu",
        least=0,
        most=1,
        note="The learner and its adversary see the flipped label.",
    )
    input_noise: float = number(
        0.0,
        "standard deviation of noise added to each component of an example in learning",
        "s",
        least=0,
        most=MOST**0.5,
    )
    smoothing: float = number(
        0.0,
        "smoothing of the labels",
        r"\sigma",
        least=0,
        most=1,
        note="Of the squared loss, whose label tau becomes (1 - smoothing) tau, and of the logistic loss, which becomes the mean "
        "over labels that are flipped with the probability smoothing / 2.",
    )

    surrogate: Surrogate = choice(
        "none",
        "what is added to the loss, of the outputs for an example and for the same one under attack",
        SURROGATES,
        "Of the losses squared and logistic. trades: the loss is that on the example as it is, plus beta times how far the outputs are "
        "apart (half of the square; for the logistic loss the Kullback-Leibler divergence), and the attack is the one that makes this "
        "largest. pairing: plus beta/2 times the square of the outputs' difference, under the attack on the loss.",
    )
    beta: float = number(
        0.0, "weight of the surrogate", r"\beta", least=0, most=MOST, note="0: of trades, training without an attack."
    )
    steps: Steps = choice(
        "constant",
        "how the learning rates follow the state",
        STEPS,
        "line_search: eta_w and eta_b are the largest ones, and both are multiplied by the number in [0, 1] with which a step "
        "decreases the expected loss in learning most; polyak: with which it brings normalised weights nearest to the direction of "
        "the centres. Both are those of the population, which the learner is told.",
    )
    factor: Factor | None = thing(
        None,
        "own factor f(u) of the update, in place of that of the loss and its output",
        "`odeflow.Factor`: a function that numba compiles. None: the loss's.",
    )

    def __post_init__(self) -> None:
        checked(self)
        if self.factor is not None:
            if not isinstance(self.factor, Factor):
                raise TypeError(
                    f"factor = {self.factor!r} is of the wrong type: allowed is a Factor of a function, or None"
                )
            for name, plain in (("loss", "squared"), ("activation", "erf"), ("smoothing", 0.0)):
                if getattr(self, name) != plain:
                    raise ValueError(
                        f"{name} = {getattr(self, name)!r} with factor = {self.factor!r}: allowed is {plain!r}, its default, because "
                        "the factor stands in its place"
                    )
        if self.activation == "sign" and self.loss not in ("squared", "perceptron"):
            raise ValueError(f"activation = 'sign' with loss = {self.loss!r}: allowed are squared and perceptron")
        if self.smoothing and (self.loss not in ("squared", "logistic") or self.activation == "sign"):
            raise ValueError(
                f"smoothing = {self.smoothing!r} with loss = {self.loss!r} and activation = {self.activation!r}: allowed is 0, "
                "but for the losses squared and logistic of erf, tanh and linear"
            )
        if self.surrogate == "none" and self.beta:
            raise ValueError(f"beta = {self.beta!r} with surrogate = 'none': allowed is 0")
        if self.surrogate != "none" and (
            self.loss not in ("squared", "logistic")
            or self.activation == "sign"
            or self.update != "all"
            or self.factor is not None
        ):
            kind = ", ".join(f"{name} = {getattr(self, name)!r}" for name in ("loss", "activation", "update", "factor"))
            raise ValueError(
                f"surrogate = {self.surrogate!r} with {kind}: allowed is 'none', but for the losses squared and logistic of erf, tanh "
                "and linear, update = 'all' and factor = None"
            )
        checked_count("batch", self.batch, 1)
        if self.steps == "polyak" and not self.normalised:
            raise ValueError(
                "steps = 'polyak' with normalised = False: allowed is normalised = True, because free weights have no known length "
                "to arrive at; 'line_search' is for both"
            )

    @classmethod
    def per_example(cls, eta: float, N: int, *, eta_b: float | None = None, **fields: Any) -> LearningRule:
        """Return the rule w <- w + eta delta xi, b <- b - eta_b delta: eta_w = N eta, and likewise for the bias.

        Parameters
        ----------
        eta
            Learning rate of the weights per example, >= 0.
        N
            Dimension of the input, >= 1.
        eta_b
            Learning rate of the bias per example, >= 0; default: eta.
        **fields
            Other fields of the rule; unlike elsewhere, `normalised` is False by default.

        Examples
        --------
        >>> rule = LearningRule.per_example(0.01, N=784)
        >>> rule.eta_w, rule.eta_b, rule.normalised
        (7.84, 7.84, False)
        """
        N = checked_count("N", N, 1)
        eta = checked_number("eta", eta, least=0)
        eta_b = eta if eta_b is None else checked_number("eta_b", eta_b, least=0)
        return cls(**{"eta_w": eta * N, "eta_b": eta_b * N, "normalised": False, **fields})
