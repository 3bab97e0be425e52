"""Which nets are trained and how hard they are attacked: full and quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deepcheck.attacks import registry
from deepcheck.attacks.norms import NORMS
from deepcheck.training import Recipe, recipe

__all__ = [
    "AGAINST_MASKED",
    "KINDS",
    "MASKED",
    "OTHER",
    "TRANSFER",
    "UNIVERSAL",
    "Case",
    "Setting",
    "cases",
    "kind_of",
    "setting_of",
]

KINDS = {
    "gradient": "by gradient",
    "minimal": "nearest",
    "black_box": "by queries",
    "prepared": "prepared elsewhere",
    "spatial": "of shape and colour",
}
"""Folder of `deepcheck.attacks` to what its attacks are called; those of other folders are "other"."""
OTHER = "other"

EPSILONS: dict[str, dict[str, float]] = {
    "mnist": {"linf": 0.3, "l2": 1.5, "l1": 10.0, "l0": 10.0},
    "cifar10": {"linf": 8 / 255, "l2": 0.5, "l1": 12.0, "l0": 10.0},
    "digits": {"linf": 0.2, "l2": 1.0, "l1": 4.0, "l0": 4.0},
}
"""Sizes of the perturbations, by data set and norm. What is measured otherwise, such as a flow, has its own, below."""
SIZES = {"flow": 1.0, "colour": 0.06, "rigid": 1.0, "combined": 1.0}
"""Sizes of transformations: pixels; the range of colours; the largest angle and shift that the attack allows; all bounds."""
UNIVERSAL = 0.2
"""Size in L-infinity of universal perturbations on MNIST: they and noise are run at it, too."""

TRANSFER = "substitute"
"""The attack in the registry that is found on another net."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pgd_confidence": ("pgd", {"objective": "wrong_confidence"}),
}
"""Attacks that are not in the registry under a name of their own, but that a claim is about."""
_EVERYWHERE = ("linf", "l2")
"""Norms in which the variants are run."""


@dataclass(frozen=True)
class Case:
    """An attack in a norm, and how hard it is run."""

    attack: str
    norm: str
    epsilons: tuple[float, ...]
    """The first is the norm's main one."""
    images: int
    maker: str
    """Its name in the registry."""
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = OTHER

    @property
    def name(self) -> str:
        """What it is called in files."""
        return f"{self.attack}_{self.norm}"


@dataclass(frozen=True)
class Setting:
    """Which nets of one data set are trained, and the images that they are attacked on."""

    dataset: str
    recipes: dict[str, Recipe]
    """By the name of the net."""
    train_images: int
    """Number of training images, the first ones."""
    validation: int
    """Test images, the last ones, which set the threshold of confidence."""
    quick: bool


MASKED = 1e6
"""Factor of the logits of the net that hides its gradient; it is the standard net else."""
AGAINST_MASKED = (("pgd", "linf"), ("square", "linf"))
"""What this net meets."""


# --- effort ---

_IMAGES = {
    "by gradient": 60,
    "nearest": 30,
    "by queries": 20,
    "prepared elsewhere": 100,
    "of shape and colour": 30,
    OTHER: 30,
}
_QUICK_IMAGES = 10
_SEARCHES: dict[str, Any] = {"steps": 100, "searches": 4, "step_size": 0.05, "initial_c": 0.1}
_FULL: dict[str, tuple[int | None, dict[str, Any]]] = {
    "fgsm": (100, {}),
    "bim": (100, {}),
    "mim": (100, {}),
    "targeted_pgd": (None, {"steps": 20}),
    "confident_pgd": (20, {"steps": 20, "restarts": 9}),
    "apgd": (None, {"steps": 50}),
    "apgd_ce": (None, {"steps": 50}),
    "apgd_t": (None, {"steps": 25}),
    "deepfool": (60, {}),
    "fab": (None, {"steps": 30}),
    "fab_t": (60, {"steps": 20}),
    "carlini_wagner": (10, _SEARCHES),
    "ead": (20, _SEARCHES),
    "jsma": (10, {}),
    "uniform_noise": (100, {"draws": 10}),
    "square": (60, {}),
    "spsa": (15, {"steps": 40, "samples": 32}),
    "nes": (15, {"steps": 40, "samples": 25}),
    "hop_skip_jump": (20, {"queries": 2000}),
    "opt_attack": (10, {"queries": 5000}),
    "zoo": (4, {"steps": 200, "bisections": 3, "c": 1.0, "learning_rate": 0.05}),
    "universal": (None, {"passes": 5}),
    "substitute": (None, {"epochs": 5}),
}
"""Images, None for those of the kind, and options that are not the defaults. What is not here runs with its defaults."""
_QUICK = {
    "steps": 10, "queries": 100, "draws": 10, "samples": 8, "bisections": 2, "iterations": 5, "rounds": 3, "passes": 1,
    "starts": 3, "prepare_on": 50, "epochs": 2, "directions": 5, "coordinates": 16, "restarts": 3, "searches": 2,
    "line_search": 3, "angles": 7, "shifts": 3,
}  # fmt: skip
"""Most of each option in the quick form, where an attack has it as a number."""


def kind_of(attack: object) -> str:
    """Return what an attack is: by gradient, nearest, by queries or other."""
    folder = type(attack).__module__.removeprefix("deepcheck.attacks.").partition(".")[0]
    return KINDS.get(folder, OTHER)


def cases(setting: Setting) -> list[Case]:
    """Return every attack of the registry in every norm that it knows for such images."""
    found = []
    named: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in registry.ATTACKS} | VARIANTS
    for name, (maker, changes) in named.items():
        for norm in registry.norms_of(maker):
            if name in VARIANTS and norm not in _EVERYWHERE:
                continue
            options, images = _effort(maker, norm, quick=setting.quick)
            epsilon = EPSILONS[setting.dataset].get(norm, SIZES.get(norm, 1.0))
            more = (UNIVERSAL,) if name in ("universal", "uniform_noise") and norm == "linf" else ()
            epsilons = tuple(dict.fromkeys((epsilon, *(more if setting.dataset == "mnist" else ()))))
            kind = kind_of(registry.make(maker, norm))
            found.append(Case(name, norm, epsilons, images, maker, options | changes, kind))
    return sorted(found, key=lambda case: list(NORMS).index(case.norm) if case.norm in NORMS else len(NORMS))


def _effort(maker: str, norm: str, *, quick: bool) -> tuple[dict[str, Any], int]:
    """Return the options of an attack that are not its defaults, and on how many images it is run."""
    images, options = _FULL.get(maker, (None, {}))
    if not quick:
        return dict(options), images or _IMAGES[kind_of(registry.make(maker, norm))]
    usual = registry.options_of(maker) | options
    most = {
        key: min(value, _QUICK[key])
        for key, value in usual.items()
        if key in _QUICK and isinstance(value, int) and not isinstance(value, bool)
    }
    return most, _QUICK_IMAGES


# --- nets ---


def setting_of(dataset: str, *, quick: bool) -> Setting:
    """Return the nets of a data set; the digits may stand in for MNIST."""
    if dataset == "digits":
        factor = 1 if quick else 2
        recipes = {
            "standard": recipe(dataset, "standard", epochs=15 * factor),
            "at": recipe(dataset, "at", epochs=15 * factor, attack_steps=5, step_size=0.1),
            "ccat": recipe(dataset, "ccat", epochs=30 * factor, attack_steps=6, step_size=0.05),
        }
        return Setting(dataset, recipes, 1000, 200, quick)
    if dataset == "mnist":
        recipes = {
            "standard": recipe(dataset, "standard", epochs=4),
            "at": recipe(dataset, "at", epochs=12, width=None, epsilon=0.3, attack_steps=5, step_size=0.12),
            "ccat": recipe(dataset, "ccat", epochs=8, attack_steps=10, step_size=0.1, first_steps=3),
        }
        return Setting(dataset, recipes, 10_000, 1000, quick)
    small: dict[str, Any] = {
        "model": "conv_small",
        "epochs": 8,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "batch_size": 64,
    }
    recipes = {"cifar10_at": recipe(dataset, "at", **small, attack_steps=3, step_size=4 / 255, ramp=0.5)}
    return Setting(dataset, recipes, 10_000, 1000, quick)
