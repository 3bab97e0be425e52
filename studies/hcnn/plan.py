"""Which nets are trained, how far they are attacked and embedded, and with which effort: full, quick, and with a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepcheck.training import Recipe, recipe

__all__ = ["EMBEDDINGS", "LEVELS", "NETS", "PUBLISHED", "Behind", "Effort", "Setting", "setting_of"]

LEVELS = (0.9, 0.95, 0.99)
"""Confidences of the tables of Wu et al. (ICML 2018)."""
NETS = {"at": "AT", "natural": "natural"}
"""The nets: how they learn, and what they are called."""
EMBEDDINGS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "mcn": ("MCN", {}),
    "hcnn": ("HCNN", {"penalty": 0.5}),
    "ncn": ("NCN", {"level": 0.9}),
    "mcn_shannon": ("Shannon", {}),
    "mcn_renyi": ("Renyi", {"order": 4.0}),
}
"""The embeddings by their names in `deepcheck.defences.DEFENCES`: what they are called, and their options beside xi."""


PUBLISHED = {0.010: (94, 208, 50, 0), 0.015: (114, 260, 66, 29)}
"""Of table 4, CIFAR-10: radius of attack and embedding to the places of the true class after a label change. Their sum at 0.015 is the
printed total; of the other outcome 8,621 of 8,648 and 8,511 of 8,531 are first."""


@dataclass(frozen=True)
class Effort:
    """How hard nets are attacked, and on how many images."""

    images: int
    """For rejection, tables 2 and 3."""
    steps: int
    starts: int
    """For each wrong class."""
    few: int
    """For separation at delta, table 1."""
    few_steps: int
    few_starts: int
    carlini: int
    """Of these for the attack of Carlini and Wagner."""
    carlini_steps: int
    carlini_searches: int
    ranked: int
    """For the table of the embedded points, table 4: each is attacked towards every wrong class."""
    reduced: int
    """Attacks there that only reduce the confidence and whose embedded points are looked at, drawn at random."""
    inner: int
    """Steps of the embeddings."""
    outer: int
    """Steps of the attacks on a net behind an embedding."""
    surrogate: int
    """Steps of the embedding that they follow."""
    many: int
    """Images for the nets of Proposition 1."""


@dataclass(frozen=True)
class Behind:
    """A net behind an embedding of radius xi, attacked within eta on so many images; without an embedding xi is 0."""

    net: str
    embedding: str
    xi: float
    eta: float
    images: int

    @property
    def key(self) -> tuple[str, ...]:
        """What its part of the result is called."""
        return "behind", self.net, self.embedding, f"{self.xi:g}", f"{self.eta:g}"

    @property
    def title(self) -> str:
        """What tables call it."""
        what = f"{EMBEDDINGS[self.embedding][0]} xi {self.xi:.3g}" if self.xi else "alone"
        return f"{NETS[self.net]}, {what}, eta {self.eta:.3g}"


@dataclass(frozen=True)
class Setting:
    """What is done with a data set."""

    dataset: str
    delta: float
    """Of adversarial training, in L-infinity."""
    etas: tuple[float, ...]
    """Radii of the attacks, the last one delta."""
    ranked: tuple[float, ...]
    """Radii of attack and embedding both, for the table of the embedded points."""
    behind: tuple[Behind, ...]
    """What is attacked behind an embedding. The net alone is attacked within the same radii, on the same images."""
    train_images: int
    epochs: int
    natural_epochs: int
    changes: Mapping[str, Any]
    """Of both recipes."""
    training_attack: Mapping[str, Any]
    effort: Effort
    seeds: int
    """Nets of each method for Proposition 1."""
    methods: tuple[str, ...]
    """Their methods; they learn the digits, whatever the data set is."""
    quick: bool = False

    @property
    def radii(self) -> tuple[float, ...]:
        """Radii of the attacks on the nets, rising: the etas, delta, and half of the smallest."""
        return tuple(sorted({self.etas[0] / 2, *self.etas, self.delta}))

    @property
    def rows(self) -> tuple[Behind, ...]:
        """What is attacked: the nets alone, on as many images as behind an embedding, and then these."""
        alone: dict[tuple[str, float], int] = {}
        for one in self.behind:
            alone[one.net, one.eta] = max(alone.get((one.net, one.eta), 0), one.images)
        first = [Behind(net, "mcn", 0.0, eta, images) for (net, eta), images in alone.items()]
        return tuple(sorted((*first, *self.behind), key=lambda one: (list(NETS).index(one.net), one.eta)))

    def recipe_of(self, net: str) -> Recipe:
        """Return how a net of `NETS` learns."""
        if net == "natural":
            return recipe(self.dataset, "standard", epochs=self.natural_epochs, **self.changes)
        return recipe(self.dataset, "at", epochs=self.epochs, **self.changes, **self.training_attack)


_SMALL: dict[str, Any] = {
    "model": "conv_small", "width": None, "augmentation": "none", "precision": "float32", "learning_rate": 0.05, "validation": 200,
}  # fmt: skip
_QUICK = Effort(
    images=60, steps=15, starts=1, few=60, few_steps=20, few_starts=2, carlini=4, carlini_steps=100, carlini_searches=2, ranked=60, reduced=30, inner=15, outer=8,
    surrogate=5, many=60,
)  # fmt: skip
_FULL = Effort(
    images=1000, steps=40, starts=1, few=300, few_steps=100, few_starts=10, carlini=20, carlini_steps=1000, carlini_searches=4, ranked=1000, reduced=300, inner=100, outer=20,
    surrogate=15, many=200,
)  # fmt: skip


def setting_of(dataset: str, *, quick: bool) -> Setting:
    """Return what is done with a data set; the digits may stand in for MNIST.

    On CIFAR-10 the radii are those of the paper. On the other two they have about the same ratios to the radius of training,
    8/255 there.
    """
    if dataset == "digits":
        changes: dict[str, Any] = {"batch_size": 32, "validation": 100}
        attack: dict[str, Any] = {"attack_steps": 4, "step_size": 0.1, "ramp": 0.4}
        return Setting(
            dataset, 0.2, (0.06, 0.1, 0.13, 0.2), (0.06, 0.1), _behind(0.06, 0.1, 0.2, *((24, 16) if quick else (200, 100))), 1200, 15, 15,
            changes, attack, _QUICK if quick else replace(_FULL, images=300, few=200, few_starts=3, ranked=300),
            1 if quick else 5, METHODS, quick,
        )  # fmt: skip
    if dataset == "cifar10":
        changes = {
            "model": "preact_resnet18", "normalised": True, "batch_size": 512, "learning_rate": 0.4, "average": 0.995,
            "precision": "bfloat16",
        }  # fmt: skip
        return Setting(
            dataset, 8 / 255, (0.010, 0.015, 0.020, 0.030), (0.010, 0.015), _behind(0.010, 0.015, 0.030, 400, 200), 50_000, 30, 15,
            changes, {"first_steps": 2}, _FULL, 5, (), quick,
        )  # fmt: skip
    attack = {"attack_steps": 5, "step_size": 0.12, "ramp": 0.4, "epsilon": 0.3, "first_steps": None}
    return Setting(
        dataset, 0.3, (0.1, 0.15, 0.2, 0.3), (0.1, 0.15), _behind(0.1, 0.15, 0.3, 400, 150), 30_000, 12, 4, _SMALL, attack, _FULL, 5,
        METHODS, quick,
    )  # fmt: skip


METHODS = ("standard", "at", "trades", "alp")
"""How the nets of Proposition 1 learn."""


def _behind(small: float, middle: float, large: float, many: int, few: int) -> tuple[Behind, ...]:
    """Return what is attacked behind an embedding, for three radii of which twice the middle one is at most delta.

    The embeddings are compared where errors are frequent enough, within the largest radius.
    """
    of_at = [
        Behind("at", "mcn", small, small, many), Behind("at", "mcn", middle, middle, many), Behind("at", "mcn", small, large, few),
        Behind("at", "mcn", large, large, few),
    ]  # fmt: skip
    others = [Behind("at", name, small, large, few) for name in EMBEDDINGS if name != "mcn"]
    natural = [Behind("natural", "mcn", small, small, few)]
    return (*of_at, *others, *natural)
