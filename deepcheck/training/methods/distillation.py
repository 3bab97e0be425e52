"""Defensive distillation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import Method, Name
from odeflow.model import checked_number

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deepcheck.attacks.base import Model
    from deepcheck.models import Network

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation(Method):
    r"""Defensive distillation (Papernot et al., S&P 2016): a student learns a teacher's probabilities at temperature T.

    Both are trained on softmax(z / T): the teacher on the labels, the student on what the teacher says, from first weights as
    those of the teacher were. At test T is 1, so that logits are about T times as far apart as usual. Their cross-entropy then has
    a gradient of exactly 0 in single precision; the margin has one, and the net is no more robust than another.

    The logits are T times what the last layer gives (`scale` of `deepcheck.models.build`), so that training at T starts, and goes on,
    as any training does. The functions that a net can be are the same. Where the last layer's weights have to grow by T themselves,
    at learning rates that suit T = 1, conv_small on the digits stayed at the uniform prediction for 60 epochs.
    """

    name: Name = field(init=False, default="distillation", repr=False)
    recipes: ClassVar = {"mnist": {"epochs": 24}}
    temperature: float = 100.0
    """Temperature T of training, > 0."""
    teacher: str = ""
    """The teacher's checkpoint, or the folder where it is: a net of the same architecture that was trained at the same temperature.
    Empty: the first half of the epochs trains it, the second half the student."""

    def __post_init__(self) -> None:
        checked_number("temperature", self.temperature, above=0)
        if not isinstance(self.teacher, str):
            raise TypeError(f"teacher = {self.teacher!r} is of the wrong type: allowed is a path as text, or ''")

    def stages(self) -> int:
        """Return 2, teacher and student; or 1, the student, where the teacher is given."""
        return 1 if self.teacher else 2

    def network(self, build: Callable[..., Network]) -> Network:
        """Return the network of the recipe with logits in units of T."""
        return build(scale=self.temperature)

    def start(self, network: Network, **_: Any) -> nn.Module:
        """Return the teacher; where it is to be trained, the first weights, of which the student will begin."""
        teacher = copy.deepcopy(network) if not self.teacher else _teacher(self.teacher, network)
        return teacher.requires_grad_(False).eval()

    def next_stage(self, *, network: Network, state: Any) -> None:
        """Let what has been trained be the teacher, and the student begin from the first weights."""
        trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(state.state_dict())
        state.load_state_dict(trained)

    def loss(
        self, model: Model, images: Tensor, labels: Tensor, *, progress: float, state: nn.Module, **_: Any
    ) -> Tensor:
        """Return the mean cross-entropy at temperature T, of the labels or of the teacher's probabilities."""
        import torch
        from torch.nn import functional as F

        T = self.temperature
        targets = labels
        if progress * self.stages() >= self.stages() - 1:
            with torch.no_grad():
                targets = (state(images).float() / T).softmax(1)
        return F.cross_entropy(model(images).float() / T, targets)


def _teacher(path: str, network: Network) -> Network:
    """Return the network of a checkpoint, where the network to train is.

    Raises
    ------
    CheckpointError
        If there is none.
    ValueError
        If it is of another architecture, or for other images or classes.
    """
    from deepcheck import checkpoint

    teacher = checkpoint.load_model(checkpoint.result_in(Path(path)))
    ours, theirs = network.spec, teacher.spec
    of_weights = {*ours, *theirs} - {"mean", "std", "noise", "scale"}
    if any(ours.get(name) != theirs.get(name) for name in of_weights):
        raise ValueError(f"teacher = {path!r} is {teacher!r}: allowed is a net as the student, {network!r}")
    return teacher.to(next(network.parameters()).device)
