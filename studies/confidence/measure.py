"""What is measured of nets: the margins that attacks leave, and what predicts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy.special import expit
from torch import Tensor

from deepcheck.attacks.norms import NORMS, per_example
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import OneOf, UniformBall, Zero
from deepcheck.data import Images
from deepcheck.match.margins import gradients
from deepcheck.models import Network
from deepcheck.training.online import draw, train_online
from odeflow import Adversary, GaussianMixture, LearningRule
from studies.common.images import place
from studies.confidence.margins import auc_at, share, t_erf

Array = npt.NDArray[np.float64]

SEED = 20260219
LEVELS = expit(np.log(3) * np.arange(33) / 4)
MEASURED = LEVELS[::4]
"""Odds of 1, 3, 9, ..: the levels 0.5, 0.75, 0.9, 0.964, .., 0.99985."""

PRIORS = (0.5, 0.7)
RULES = {"fixed": LearningRule(), "free": LearningRule(normalised=False)}
ADVERSARIES = {"standard": Adversary(0.0), "at": Adversary(0.5)}
NAMES = {"standard": "standard", "at": "AT", "ccat": "CCAT"}
"""What methods of training are called."""
SIZES = (0.0, 0.25, 0.5, 1.0)
"""Radii delta of the attacks on the seed model."""


@dataclass(frozen=True)
class Setting:
    """What the two forms of the study differ in."""

    N: int
    alpha: tuple[float, ...]
    """Times at which the linear nets that learn online are attacked."""
    online: int
    """Number of these nets for each model."""
    tests: int
    """Fresh examples on which each of them is attacked."""
    seeds: int
    """Number of nets of each kind that are trained on images."""
    epochs: int
    examples: int
    """Test images that are attacked."""
    epsilon: float
    """Training epsilon in L-infinity."""
    sizes: tuple[float, ...]
    """Radii delta of the attacks on images."""
    ccat_epochs: int = 9
    steps: int = 20
    restarts: int = 2
    validation: int = 200
    batch_size: int = 64
    classes: tuple[str, str] = ("3", "7")
    """Classes of the data set with the labels +1 and -1."""
    deep: str = "conv_small"
    """Model of the deep nets."""
    recipe: tuple[tuple[str, Any], ...] = ()
    """Other fields of the recipe of the deep nets, with their values."""
    of_linear: tuple[tuple[str, Any], ...] = ()
    """The same of the linear ones."""

    @property
    def label(self) -> str:
        """What the deep nets are called."""
        return "conv" if self.deep == "conv_small" else self.deep

    @property
    def nets(self) -> dict[str, tuple[str, str]]:
        """The nets by name: model and method of training."""
        deep = {f"{self.label}, {NAMES[method]}": (self.deep, method) for method in NAMES}
        return {f"linear, {NAMES[method]}": ("linear", method) for method in ("standard", "at")} | deep


# --- linear nets that learn online ---


def simulate(p: float, rule: str, training: str, setting: Setting, seed: int) -> xr.Dataset:
    """Train linear nets online, and return share, AUC and |w| at each time, after an attack on fresh examples."""
    mixture = GaussianMixture(p=p)
    generator = torch.Generator().manual_seed(seed)
    attack = PGD(
        "l2", "wrong_confidence", steps=4, relative_step_size=0.5, start=Zero(), bounds=(-np.inf, np.inf)
    )  # fmt: skip
    options: dict[str, Any] = {"N": setting.N, "alpha": setting.alpha, "runs": setting.online}
    times = []
    for _, nets in train_online(mixture, RULES[rule], ADVERSARIES[training], generator=generator, **options):
        parts = []
        for index in range(setting.online):
            net = nets.net(index)
            xi, tau = draw(mixture, (setting.tests,), setting.N, generator)

            def logits(x: Tensor, net: Any = net) -> Tensor:
                z = net(x)  # (1 + erf z) / 2 = Phi(sqrt(2) z)
                result: Tensor = torch.special.log_ndtr(np.sqrt(2) * torch.cat([-z, z], 1))
                return result

            classes = (tau[:, 0] > 0).long()
            found = attack(logits, xi, classes, epsilon=SIZES[1:], generator=generator)
            with torch.no_grad():
                points = [xi, *found.images]
                parts.append(torch.stack([(tau * net(x))[:, 0] for x in points]).double().numpy())
        margin = np.stack(parts)
        length = nets.weights[0].norm(dim=2)[:, 0].double().numpy()
        times.append(
            xr.Dataset(
                {
                    "simulated_share": (("run", "delta", "measured_level"), share(margin, t_erf(MEASURED))),
                    "simulated_auc": (("run", "delta"), np.apply_along_axis(auc_at, -1, margin)),
                    "simulated_length": ("run", length),
                }
            )
        )
    return xr.concat(times, "simulated_alpha")


# --- nets on images ---


def margins_of(network: Network, images: Images, setting: Setting, seed: int) -> xr.Dataset:
    """Return the margins of a net, clean and attacked, measured and predicted."""
    device = place()
    x = torch.tensor(images.test_images[: setting.examples]).to(device).float().div_(255)
    y = torch.tensor(images.test_labels[: setting.examples]).to(device)
    generator = torch.Generator(device).manual_seed(SEED + seed)
    attacked = attacked_margins(network, x, y, setting.sizes, setting.steps, setting.restarts, generator)
    few = min(100, setting.examples)
    longer = attacked_margins(network, x[:few], y[:few], (setting.epsilon,), 4 * setting.steps, 3, generator)[0]
    return xr.Dataset(
        {
            "margin": (("net_delta", "example"), attacked),
            "linear_margin": (("net_delta", "example"), linear_margins(network, x, y, setting.sizes)),
            "longer_margin": ("few", longer),
            "label": ("example", np.where(y.cpu().numpy() == 1, 1, -1)),
        }
    )


def attacked_margins(
    network: Any, x: Tensor, y: Tensor, sizes: Sequence[float], steps: int, restarts: int, generator: torch.Generator
) -> Array:
    """Return the least signed margin that an attack finds within each size and the box, shape (sizes, n).

    Of two classes, that is the largest confidence in the wrong one. An upper bound; exact for linear nets.
    """
    attack = PGD(
        "linf", "margin", steps=steps, relative_step_size=2.5 / steps, start=OneOf((Zero(), UniformBall())),
        restarts=restarts, stop_when_reached=False,
    )  # fmt: skip
    found = -attack(network, x, y, epsilon=list(sizes), generator=generator).objective.double().cpu().numpy()
    return np.asarray(np.minimum.accumulate(found, axis=0))


def linear_margins(network: Any, x: Tensor, y: Tensor, sizes: Sequence[float]) -> Array:
    """Return the signed margins after the strongest attack, if each example's linear approximation held (sizes, n)."""
    tau = torch.where(y == 1, 1.0, -1.0)
    parts = []
    batch = 500
    for (z, gradient), points, sign in zip(gradients(network, x, batch), x.split(batch), tau.split(batch), strict=True):
        down = -gradient * per_example(sign, x)
        moved = [(points + size * NORMS["linf"].steepest(down)).clamp(0, 1) - points for size in sizes]
        parts.append(torch.stack([sign * z - (down * move).flatten(1).sum(1) for move in moved]).double().cpu())
    return np.asarray(torch.cat(parts, 1).numpy())
