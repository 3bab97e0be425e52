"""How a network is trained: one frozen configuration, and the ones that are used for each data set and method.

Torch is loaded only when a method is used, so that a command line can be built from this quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from deepcheck.checks import checked_choice
from deepcheck.training.methods import METHODS, Method
from deepcheck.training.methods.standard import Standard
from deepcheck.training.schedules import SCHEDULES
from odeflow.model import checked_count, checked_number

__all__ = ["DEFAULTS", "METHODS", "RECIPES", "Recipe", "recipe", "recorded", "threat"]

ModelName = Literal[
    "linear", "conv_small", "conv_leaky", "conv_threshold", "madry_mnist", "resnet_ccat", "preact_resnet18", "wrn28_10"
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines the weights of a trained network, but for the images.

    Raises
    ------
    ValueError, TypeError
        If a field is out of its range.
    """

    method: Method = field(default_factory=Standard)
    """The training method with its own settings; `METHODS` has them all."""
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
    """Largest shift of the augmentation in pixels, in [0, 1024]."""
    validation: int = 1000
    """Training images kept apart, the last ones, for the accuracies that are shown, >= 1."""
    test_norm: Literal["linf", "l2"] | None = None
    """Norm of the attack on the images kept apart; None: that of the training attack, or linf."""
    test_epsilon: float | None = None
    """Radius of the attack on the images kept apart, >= 0; None: that of the training attack, or 0."""
    patience: int | None = None
    """Stop when the robust validation error has not gone down for this many epochs, and return the best weights.
    None: train to the end, and return the last weights."""
    seed: int = 0
    """Seed of weights, order and attacks, >= 0 and below 2^63."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: mixed precision (autocast)."""

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise TypeError(
                f"method = {self.method!r} is of the wrong type: allowed is a Method, say Standard(); "
                "recipe(dataset, name) takes a name"
            )
        checked_choice("model", self.model, get_args(ModelName))
        checked_choice("optimiser", self.optimiser, ("sgd", "adam"))
        checked_choice("schedule", self.schedule, SCHEDULES)
        checked_choice("augmentation", self.augmentation, ("none", "crop", "crop_flip"))
        checked_choice("precision", self.precision, ("float32", "bfloat16"))
        if self.test_norm is not None:
            checked_choice("test_norm", self.test_norm, ("linf", "l2"))
        least = {"epochs": 1, "batch_size": 2, "validation": 1}
        for name, low in least.items():
            checked_count(name, getattr(self, name), low)
        checked_count("padding", self.padding, 0, most=1024)
        checked_count("seed", self.seed, 0, most=2**63 - 1)
        for name in ("patience", "width"):
            if getattr(self, name) is not None:
                checked_count(name, getattr(self, name), 1)
        if self.patience is not None and self.method.stages() > 1:
            raise ValueError(
                f"patience = {self.patience} with method = {self.method.name!r} is not allowed: its stages go to their end"
            )
        checked_number("learning_rate", self.learning_rate, above=0)
        for name in ("momentum", "average"):
            checked_number(name, getattr(self, name), least=0, below=1)
        checked_number("weight_decay", self.weight_decay, least=0)
        if self.test_epsilon is not None:
            checked_number("test_epsilon", self.test_epsilon, least=0)

    @property
    def threat(self) -> tuple[Literal["linf", "l2"], float]:
        """Norm and radius of the perturbations that the network is to withstand: of the test, or of the training.

        (linf, 0) where neither is given.
        """
        return threat(asdict(self))

    def changed(self, **changes: Any) -> Recipe:
        """Return this recipe with some fields changed, each where it belongs: its own, and those of its method.

        Raises
        ------
        ValueError, TypeError
            If neither has a field of this name, or a value is out of range.

        Examples
        --------
        >>> recipe("mnist", "at").changed(epochs=3, epsilon=0.2).method.epsilon
        0.2
        """
        if "method" in changes:
            return replace(self, method=changes.pop("method")).changed(**changes)
        own, theirs = [one.name for one in fields(self)], self.method.settings()
        for name in changes:
            checked_choice("field of a recipe", name, [*own, *theirs])
        method = replace(self.method, **{name: changes.pop(name) for name in theirs if name in changes})
        return replace(self, method=method, **changes)

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the best network, and not the last: with `patience`, or because the method says so."""
        return self.patience is not None or self.method.keeps_best

    def model_options(self) -> dict[str, int]:
        """Return the options of `deepcheck.models.build`."""
        if self.width is None:
            return {}
        return {"channels" if self.model in ("resnet_ccat", "preact_resnet18") else "width": self.width}

    def training_method(self) -> Method:
        """Return the method: `method`, by its former name."""
        return self.method

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a checkpoint or report; the inverse of `dataclasses.asdict`.

        Raises
        ------
        ValueError, TypeError
            If the method is not one of `METHODS`, a field is unknown, or a value is out of range.
        """
        own = dict(recorded(values))
        method = dict(own.pop("method"))
        kind = METHODS[checked_choice("method", method.pop("name"), METHODS)]
        return cls(method=kind()).changed(**own, **method)


def recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe out of a file as `dataclasses.asdict` gives it.

    In files that are older than methods with fields of their own, all fields stand side by side, and `method` is a name.

    Raises
    ------
    ValueError
        If there is no method of this name.
    """
    own = dict(values)
    name = own.get("method", "standard")
    if not isinstance(name, str):
        return own
    former = ("norm", "epsilon", "attack_steps", "step_size", "ramp", "attacked_share", "rho")
    theirs = {one: own.pop(one) for one in former if one in own}
    kind = METHODS[checked_choice("method", name, METHODS)]
    if kind is Standard:  # its robust accuracy was that under the attack that it does not train with
        norm = theirs.get("norm", "linf")
        own |= {"test_norm": None if norm == "linf" else norm, "test_epsilon": theirs.get("epsilon", 0.3)}
    own["method"] = {one.name: theirs.get(one.name, one.default) for one in fields(kind)}
    return own


def threat(values: Mapping[str, Any] | None) -> tuple[Literal["linf", "l2"], float]:
    """Return norm and radius of the perturbations that a network is to withstand, out of its recipe in a file.

    See `Recipe.threat`. Without a recipe: those that are usual on MNIST, (linf, 0.3).
    """
    if not values:
        return "linf", 0.3
    own = recorded(values)
    norm, epsilon = own.get("test_norm"), own.get("test_epsilon")
    return norm or own["method"].get("norm", "linf"), own["method"].get("epsilon", 0.0) if epsilon is None else epsilon


# fmt: off
DEFAULTS: dict[str, dict[str, Any]] = {
    "mnist": {
        "learning_rate": 0.05, "average": 0.999,
        "epsilon": 0.3, "attack_steps": 10, "step_size": 0.06,
    },
    "cifar10": {
        "model": "preact_resnet18", "normalised": True, "augmentation": "crop_flip",
        "epochs": 30, "batch_size": 128, "learning_rate": 0.2, "weight_decay": 5e-4,
        "epsilon": 8 / 255, "attack_steps": 10, "step_size": 2 / 255,
    },
    "digits": {
        "epochs": 60, "batch_size": 32, "learning_rate": 0.05, "validation": 200,
        "epsilon": 0.2, "attack_steps": 10, "step_size": 0.05,
    },
}
# fmt: on
"""What a recipe has for a data set, with every method that has such a field; a method's own are in its `recipes`. Everything
else has the default of `Recipe` or of the method. Where the method has no `epsilon`, it is the test's."""


def recipe(dataset: str, method: str, **changes: Any) -> Recipe:
    """Return the recipe for a data set and a method, with some fields changed, its own or those of the method.

    Raises
    ------
    ValueError, TypeError
        If there is no such data set, method or field, or a value is out of range.

    Examples
    --------
    >>> one = recipe("mnist", "at", epsilon=0.2, epochs=3)
    >>> one.epochs, one.method.epsilon
    (3, 0.2)
    """
    usual = DEFAULTS[checked_choice("dataset", dataset, DEFAULTS)]
    kind = METHODS[checked_choice("method", method, METHODS)]
    plain = Recipe(method=kind())
    known = {*(one.name for one in fields(Recipe)), *plain.method.settings()}
    shared = {name: value for name, value in usual.items() if name in known}
    if "epsilon" not in known:
        shared["test_epsilon"] = usual["epsilon"]
    return plain.changed(**(shared | dict(kind.recipes.get(dataset, {})) | changes))


RECIPES: dict[tuple[str, str], Recipe] = {
    (dataset, method): recipe(dataset, method) for dataset in DEFAULTS for method in METHODS
}
"""What is used for a data set and a method where nothing else is asked for."""
