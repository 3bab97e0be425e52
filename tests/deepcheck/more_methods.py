"""Two training methods that need more than a loss: a teacher, and an ensemble."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.base import Model
from deepcheck.models import Ensemble, Network
from deepcheck.training import Method
from deepcheck.training.methods import Name
from odeflow.model import checked_count, checked_number


@dataclass(frozen=True, kw_only=True)
class Teacher(Method):
    """Cross-entropy, and agreement with the exponential average of the weights (Tarvainen and Valpola, 2017)."""

    name: Name = field(init=False, default="teacher", repr=False)
    decay: float = 0.9
    """Decay of the average per step, in [0, 1)."""
    agreement: float = 1.0
    """Weight of the squared difference of probabilities, >= 0."""

    def __post_init__(self) -> None:
        checked_number("decay", self.decay, least=0, below=1)
        checked_number("agreement", self.agreement, least=0)

    def start(self, network: Network, **_: Any) -> nn.Module:
        return copy.deepcopy(network).requires_grad_(False).eval()

    def loss(self, model: Model, images: Tensor, labels: Tensor, *, state: nn.Module, **_: Any) -> Tensor:
        logits = model(images).float()
        difference = logits.softmax(1) - state(images).float().softmax(1)
        disagreement: Tensor = (difference**2).sum(1).mean()
        return F.cross_entropy(logits, labels) + self.agreement * disagreement

    def after_step(self, *, network: Network, state: nn.Module, **_: Any) -> None:
        with torch.no_grad():
            for mean, tensor in zip(state.state_dict().values(), network.state_dict().values(), strict=True):
                mean.copy_(torch.lerp(mean, tensor, 1 - self.decay) if mean.is_floating_point() else tensor)


@dataclass(frozen=True, kw_only=True)
class Diverse(Method):
    """An ensemble with the diversity of the members' wrong probabilities (Pang et al., ICML 2019, without entropy)."""

    name: Name = field(init=False, default="diverse", repr=False)
    members: int = 2
    """Networks, >= 2."""
    diversity: float = 0.1
    """Weight of log det of the products of the unit vectors of wrong probabilities, >= 0."""

    def __post_init__(self) -> None:
        checked_count("members", self.members, 2)
        checked_number("diversity", self.diversity, least=0)

    def network(self, build: Callable[..., Network]) -> Network:
        return Ensemble([build() for _ in range(self.members)])

    def loss(self, model: Any, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        logits = model.member_logits(images).float()  # (K, n, classes)
        own = sum((F.cross_entropy(one, labels) for one in logits), torch.zeros((), device=labels.device))
        wrong = logits.softmax(2) * (1 - F.one_hot(labels, logits.shape[2]))
        M = F.normalize(wrong, dim=2).transpose(0, 1)  # (n, K, classes)
        gram = M @ M.mT + 1e-6 * torch.eye(self.members, device=labels.device)
        return own - self.diversity * torch.logdet(gram.float()).mean()


MORE: dict[str, type[Method]] = {"teacher": Teacher, "diverse": Diverse}
