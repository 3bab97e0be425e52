"""How a network is trained: one frozen configuration, and the ones that are used for each data set and method.

Torch is loaded only when the method is made, so that a command line can be built from this quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from deepcheck.checks import checked_choice
from deepcheck.training.schedules import SCHEDULES
from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    from deepcheck.training.methods import Method

__all__ = ["METHODS", "RECIPES", "Recipe", "recipe"]

MethodName = Literal["standard", "at", "ccat"]
ModelName = Literal[
    "linear", "conv_small", "conv_threshold", "madry_mnist", "resnet_ccat", "preact_resnet18", "wrn28_10"
]
METHODS: tuple[str, ...] = get_args(MethodName)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines the weights of a trained network, but for the images.

    Raises
    ------
    ValueError, TypeError
        If a field is out of its range.
    """

    method: MethodName = "standard"
    """standard, at (adversarial training) or ccat (confidence-calibrated adversarial training)."""
    model: ModelName = "conv_small"
    """Name of the network, out of `deepcheck.models.NAMES`."""
    width: int | None = None
    """Channels of a residual network, or the factor of the channels of another, >= 1; None: as published."""
    normalised: bool = False
    """Let the network subtract the mean of the training images and divide by their standard deviation, by channel."""
    epochs: int = 20
    """Passes over the training images, >= 1."""
    batch_size: int = 64
    """Examples per step, >= 2."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """sgd: with Nesterov momentum; adam."""
    learning_rate: float = 0.05
    """Largest learning rate, > 0."""
    momentum: float = 0.9
    """Momentum of sgd, in [0, 1)."""
    weight_decay: float = 2e-4
    """Factor of |w|^2 / 2 in the loss, >= 0."""
    schedule: Literal["cyclic", "step", "constant"] = "cyclic"
    """Learning rate over training: cyclic (up, then down to 0), step (a tenth at 1/2 and at 3/4) or constant."""
    average: float = 0.0
    """Decay per step of the exponential average of the weights, in [0, 1), which is then the result; 0: the last
    weights."""
    augmentation: Literal["none", "crop", "crop_flip"] = "none"
    """Random shifts by up to `padding` pixels, and mirror images."""
    padding: int = 4
    """Largest shift of the augmentation in pixels, >= 0."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the training attack; ccat: linf."""
    epsilon: float = 0.3
    """Radius of the training attack, >= 0; ccat: > 0."""
    attack_steps: int = 10
    """Steps of the training attack, >= 1."""
    step_size: float = 0.06
    """Step of the training attack, > 0."""
    ramp: float = 0.0
    """Share of the training over which the radius grows from 0 to epsilon, in [0, 1]; at only."""
    attacked_share: float = 1.0
    """Share of each batch that is attacked, in (0, 1]; at only (ccat attacks one half)."""
    rho: float = 10.0
    """Power of the transition to the uniform distribution, > 0; ccat only."""
    validation: int = 1000
    """Training images kept apart, the last ones, for the accuracies that are shown, >= 1."""
    patience: int | None = None
    """Stop when the robust validation error has not gone down for this many epochs, and return the best weights.
    None: train to the end, and return the last weights."""
    seed: int = 0
    """Seed of weights, order and attacks, >= 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: mixed precision (autocast)."""

    def __post_init__(self) -> None:
        checked_choice("method", self.method, METHODS)
        checked_choice("model", self.model, get_args(ModelName))
        checked_choice("optimiser", self.optimiser, ("sgd", "adam"))
        checked_choice("schedule", self.schedule, SCHEDULES)
        checked_choice("augmentation", self.augmentation, ("none", "crop", "crop_flip"))
        checked_choice("precision", self.precision, ("float32", "bfloat16"))
        least = {"epochs": 1, "batch_size": 2, "padding": 0, "attack_steps": 1, "validation": 1, "seed": 0}
        for name, low in least.items():
            checked_count(name, getattr(self, name), low)
        for name in ("patience", "width"):
            if getattr(self, name) is not None:
                checked_count(name, getattr(self, name), 1)
        for name in ("learning_rate", "step_size", "rho"):
            checked_number(name, getattr(self, name), above=0)
        for name in ("momentum", "average"):
            checked_number(name, getattr(self, name), least=0, below=1)
        checked_number("weight_decay", self.weight_decay, least=0)
        checked_number("ramp", self.ramp, least=0, most=1)
        checked_number("attacked_share", self.attacked_share, above=0, most=1)
        checked_choice("norm", self.norm, ("linf", "l2") if self.method != "ccat" else ("linf",))
        if self.method == "ccat":
            checked_number("epsilon", self.epsilon, above=0)
        checked_number("epsilon", self.epsilon, least=0)

    def model_options(self) -> dict[str, int]:
        """Return the options of `deepcheck.models.build`."""
        if self.width is None:
            return {}
        return {"channels" if self.model in ("resnet_ccat", "preact_resnet18") else "width": self.width}

    def training_method(self) -> Method:
        """Return the method with its attack."""
        from deepcheck.attacks.pgd import PGD
        from deepcheck.training.adversarial import AdversarialTraining
        from deepcheck.training.ccat import CCAT, ccat_attack
        from deepcheck.training.standard import Standard

        if self.method == "standard":
            return Standard()
        if self.method == "ccat":
            attack = ccat_attack(steps=self.attack_steps, step_size=self.step_size)
            return CCAT(attack, self.epsilon, self.rho)
        attack = PGD(self.norm, steps=self.attack_steps, step_size=self.step_size, keep="last", stop_when_reached=False)
        return AdversarialTraining(attack, self.epsilon, self.attacked_share, self.ramp)


_MNIST = Recipe(epochs=12, learning_rate=0.05, average=0.999)
_CIFAR10 = Recipe(
    model="preact_resnet18",
    normalised=True,
    epochs=30,
    batch_size=128,
    learning_rate=0.2,
    weight_decay=5e-4,
    augmentation="crop_flip",
    epsilon=8 / 255,
)


def _with(base: Recipe, **changes: Any) -> Recipe:
    return Recipe(**({field.name: getattr(base, field.name) for field in fields(base)} | changes))


RECIPES: dict[tuple[str, str], Recipe] = {
    ("mnist", "standard"): _MNIST,
    ("mnist", "at"): _with(
        _MNIST,
        method="at",
        width=2,
        epochs=20,
        epsilon=0.33,
        attack_steps=8,
        step_size=0.08,
        ramp=0.4,
        augmentation="crop",
        padding=1,
    ),
    ("mnist", "ccat"): _with(_MNIST, method="ccat", epochs=16, batch_size=100, attack_steps=40, step_size=0.01),
    ("cifar10", "standard"): _CIFAR10,
    ("cifar10", "at"): _with(_CIFAR10, method="at", attack_steps=10, step_size=2 / 255),
    ("cifar10", "ccat"): _with(
        _CIFAR10, method="ccat", model="resnet_ccat", epsilon=0.03, attack_steps=40, step_size=0.005, epochs=100
    ),
}
_DIGITS = Recipe(epochs=60, batch_size=32, learning_rate=0.05, epsilon=0.2, validation=200)
RECIPES |= {
    ("digits", "standard"): _DIGITS,
    ("digits", "at"): _with(_DIGITS, method="at", attack_steps=10, step_size=0.05, ramp=0.4),
    ("digits", "ccat"): _with(_DIGITS, method="ccat", attack_steps=20, step_size=0.01),
}
"""What is used for a data set and a method where nothing else is asked for."""


def recipe(dataset: str, method: str, **changes: Any) -> Recipe:
    """Return the recipe for a data set and a method, with some fields changed.

    Raises
    ------
    ValueError, TypeError
        If there is no such data set, method or field, or a value is out of range.
    """
    checked_choice("dataset", dataset, dict.fromkeys(name for name, _ in RECIPES))
    checked_choice("method", method, METHODS)
    known = [field.name for field in fields(Recipe)]
    for name in changes:
        checked_choice("field of a recipe", name, known)
    return _with(RECIPES[dataset, method], **changes)
