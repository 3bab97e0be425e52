"""What the common tests of attacks are made on: quick options, epsilons, nets in which each example is alone, and pictures."""

from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.attacks import registry
from deepcheck.attacks.base import Attacked, Model
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.prepared.transfer import Transfer
from deepcheck.attacks.prepared.universal import Universal

QUICK: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 4, "restarts": 2},
    "bim": {"steps": 4},
    "mim": {"steps": 4},
    "targeted_pgd": {"steps": 4, "restarts": 3},
    "confident_pgd": {"steps": 4, "restarts": 3},
    "apgd": {"steps": 5, "restarts": 2},
    "apgd_ce": {"steps": 4},
    "apgd_t": {"steps": 4, "restarts": 3},
    "square": {"queries": 12, "restarts": 2},
    "uniform_noise": {"draws": 4},
    "spsa": {"steps": 4, "samples": 12, "learning_rate": 0.1, "restarts": 2},
    "nes": {"steps": 4, "samples": 12, "learning_rate": 0.1},
    "deepfool": {"steps": 8},
    "hop_skip_jump": {"queries": 80, "directions": 20},
    "opt_attack": {"queries": 120, "starts": 10, "directions": 4},
    "stadv": {"steps": 5},
    "recolor": {"steps": 4, "grid": (3, 4, 5)},
    "rotation": {"angles": 3, "shifts": 3},
    "combined": {"steps": 4, "grid": (3, 4, 5)},
    "zoo": {"steps": 12, "coordinates": 8, "bisections": 3, "c": 1.0, "learning_rate": 0.1},
    "local_search": {"rounds": 4, "neighbourhood": 1},
    "fab": {"steps": 4, "restarts": 2},
    "fab_t": {"steps": 4, "restarts": 4},
    "universal": {"passes": 3, "group": 10},
    "substitute": {"net": "linear", "epochs": 20, "group": 10, "learning_rate": 0.05},
    "carlini_wagner": {"steps": 8, "searches": 3, "initial_c": 1.0, "step_size": 0.1},
    "jsma": {"restarts": 2, "gamma": 0.4},
    "ead": {"steps": 8, "searches": 3, "initial_c": 1.0},
}
"""Options that save time, where an attack's defaults take long."""
CARRIED = (Transfer, Universal)
"""Attacks that do not ask the model before they move an image: what is wrong may become right."""
CASES = [(name, norm) for name in registry.ATTACKS for norm in registry.norms_of(name)]
EPSILONS = dict.fromkeys(NORMS, (0.2, 1.2)) | {"linf": (0.03, 0.2), "l1": (0.5, 5.0), "l0": (2.0, 8.0)}
EPSILONS |= {"flow": (0.1, 1.0), "colour": (0.02, 0.2), "rigid": (0.1, 1.0), "combined": (0.2, 2.0)}
SHAPE = (3, 2, 4)
FIELDS = Attacked.__dataclass_fields__


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Rowwise(nn.Module):
    """A net of one hidden layer in which the arithmetic for one example does not depend on the others."""

    def __init__(self, K: int = 4, shift: float = 0.0) -> None:
        super().__init__()
        self.W1 = nn.Parameter(2 * torch.randn(6, 24, generator=generator(7), dtype=torch.float64) / 24**0.5)
        self.W2 = nn.Parameter(torch.randn(K, 6, generator=generator(8), dtype=torch.float64))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).flatten(1)
        hidden = torch.stack([(x * w.to(x.dtype)).sum(1) for w in self.W1], 1).tanh()
        return torch.stack([(hidden * w.to(x.dtype)).sum(1) for w in self.W2], 1) + self.shift


class OneByOne(nn.Module):
    """A net that sees one example at a time."""

    def __init__(self, net: Model) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(one) for one in x.split(1)])


class InPlace(nn.Module):
    """The same, normalised in the memory that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Rowwise()

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.net(x.sub_(0.25).mul_(2.0).div_(2.0).add_(0.25)))


def pictures(n: int = 15, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images with many pixels at the edges of the box."""
    return (1.6 * torch.rand(n, *SHAPE, generator=generator(5), dtype=torch.float64) - 0.3).clamp(0, 1).to(dtype)


def classified(model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the model gives, but for every fifth image."""
    with torch.no_grad():
        labels = model(images.clone()).argmax(1)
    return torch.where(torch.arange(len(images), device=images.device) % 5 == 4, 1 - labels.clamp(max=1), labels)


def same(a: Attacked, b: Attacked, rows: slice | Tensor = slice(None), within: float = 0.0) -> None:
    """The result `a` for some examples is `b`."""
    for field in FIELDS:
        mine, its = getattr(a, field), getattr(b, field)
        mine = mine[:, rows] if field in ("images", "objective") else mine[..., rows]
        torch.testing.assert_close(mine, its, rtol=0, atol=within)
