"""What every defence is: a function from images to logits, around a net, that says how it is to be attacked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Attack, Attacked, BudgetAttack, Model
from deepcheck.attacks.in_order import InOrder
from deepcheck.attacks.judged import InPrecision, judged
from deepcheck.defences.wrappers import EOT
from odeflow.model import checked_count

__all__ = ["Adaptive", "Defence", "Oblivious"]


class Defence(nn.Module, ABC):
    """A defence at test time: it wraps a net, and is again a function from images in [0, 1], shape (n, ...), to logits.

    A subclass has the method `_logits`, says whether it is `random` and whether it `has_gradient`, and stands in DEFENCES. One
    without a gradient also has the method `surrogate`.

    Parameters
    ----------
    net
        A function from images to logits.
    seed
        Of a random one: from the same seed it draws the same numbers, call after call on batches of the same sizes.
    """

    random: bool = False
    """Whether the same images give other logits in the next call."""
    has_gradient: bool = True
    """Whether the logits have a useful gradient by the images."""

    def __init__(self, net: Model, *, seed: int = 0) -> None:
        super().__init__()
        self.net = net
        self.reseed(seed)

    @abstractmethod
    def _logits(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""

    def surrogate(self) -> Model:
        """Return the differentiable model that an attack on this defence follows.

        Of a random one the mean of 30 draws (EOT), else the defence itself. One without a gradient names its own.
        """
        if not self.has_gradient:
            raise NotImplementedError(
                f"{type(self).__name__} has no gradient, and no surrogate: allowed is one with BPDA"
            )
        return EOT(self) if self.random else self

    def own_attacks(self, norm: str) -> dict[str, Attack]:
        """Return the attacks by name that are made for this defence alone, in a norm; here none.

        They follow the surrogate, as all attacks in `Adaptive` do, and an adaptive evaluation runs them beside the others.
        """
        del norm
        return {}

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K), for images in [0, 1]. Without a gradient of its own, it passes none on."""
        if self.has_gradient:
            return self._logits(images)
        with torch.no_grad():
            return self._logits(images)

    def reseed(self, seed: int) -> None:
        """Start the random numbers from a seed, >= 0."""
        self._seed = checked_count("seed", seed, 0)
        self._generators: dict[torch.device, torch.Generator] = {}

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the source of random numbers on a device."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


@dataclass(frozen=True)
class Adaptive:
    """The attack that a defence must be judged by: it follows the defence's surrogate, and the defence itself is the judge.

    The images are those that the attack finds on `Defence.surrogate`: the best of all its restarts. Prediction and confidence
    are what the defence then says of them, in one call, so that there is one restart in the result. A random defence is not
    asked again until it fails, and an attack on it does not stop at the first draw that is wrong, which may be luck: where it has
    `stop_when_reached`, that is False.
    """

    attack: Attack
    """Any attack: with gradients or without."""

    @property
    def norm(self) -> object:
        """The norm that `epsilon` bounds."""
        return self.attack.norm

    @property
    def objective(self) -> object:
        """What the attack maximises, if it says so."""
        return getattr(self.attack, "objective", "")

    @property
    def effort(self) -> str:
        """Of attacks in order all their names, as one: what each leaves, the defence was not asked."""
        return " + ".join(name for name, _ in self.attack.attacks) if isinstance(self.attack, InOrder) else ""

    def followed(self, model: Defence) -> Model:
        """Return what the attack follows: the surrogate of the defence."""
        return model.surrogate()

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        batch_size: int = 500,
        **options: Any,
    ) -> Attacked:
        """Attack a defence on some examples; the arguments are those of the attack.

        Raises
        ------
        TypeError
            If the model is no Defence.
        ValueError, TypeError
            If an argument is not allowed; before any attack.
        """
        if not isinstance(model, Defence):
            raise TypeError(f"model is of the wrong type {type(model).__name__}: allowed is a Defence")
        attack = _patient(self.attack) if model.random else self.attack
        found = attack(
            self.followed(model), images, labels, epsilon=epsilon, generator=generator, batch_size=batch_size, **options
        )
        return judged(found, model, labels, batch_size)


@dataclass(frozen=True)
class Oblivious(Adaptive):
    """An attack that does not know of the defence: it follows the net behind it, and the defence is the judge.

    What many articles claimed by. It measures nothing of what a defence is worth against an attack that knows of it.
    """

    def followed(self, model: Defence) -> Model:
        """Return what the attack follows: the net behind the defence."""
        return model.net


def _patient(attack: Attack) -> Attack:
    """Return an attack that goes on with what is wrong already: the attack, those in it, or all of those in order."""
    if isinstance(attack, InOrder):
        return replace(attack, attacks=tuple((name, _patient(one)) for name, one in attack.attacks))
    if isinstance(attack, InPrecision):
        return replace(attack, attack=_patient(attack.attack))
    return replace(attack, stop_when_reached=False) if isinstance(attack, BudgetAttack) else attack
