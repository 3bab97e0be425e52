"""What is defended, how it was attacked when it was proposed, and how it is attacked here: full and quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from deepcheck.defences.registry import DEFENCES
from deepcheck.training import METHODS, Recipe, recipe

__all__ = ["ATTACKED", "COLUMNS", "Case", "Setting", "Subject", "cases", "setting_of", "subjects"]

Meets = Literal["itself", "net", "draw", "surrogate"]
COLUMNS = {"claimed": "claimed", "standard": "standard suite", "adaptive": "adaptive"}
"""Kind of evaluation to what tables and figures call it, in order: each holds what the ones before it found."""


@dataclass(frozen=True)
class Case:
    """An attack, how hard it is run, and what it is told of the defence."""

    column: str
    """Out of COLUMNS."""
    title: str
    maker: str
    """Its name in the registry of attacks; "standard" for the suite."""
    options: Mapping[str, Any] = field(default_factory=dict)
    meets: Meets = "itself"
    """What the gradients are of: of a net "itself"; of a defence of the bare "net", of one "draw", or of its "surrogate"."""
    images: int | None = None
    """How many of the first images; None: all that the subject meets."""

    @property
    def name(self) -> str:
        """What it is called in files."""
        words = "_".join("".join(one if one.isalnum() else " " for one in self.title.lower()).split())
        return f"{self.column}_{words}"


@dataclass(frozen=True)
class Subject:
    """A net that was trained by a method, or a defence around one."""

    name: str
    title: str
    method: str
    """Of the net, out of METHODS."""
    claimed: Case
    """As it was attacked when it was proposed."""
    source: str
    """Where."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the method's recipe."""
    times: float = 1.0
    """Epochs, in those of adversarial training: more where an epoch is short, or has teacher and student."""
    defence: str | None = None
    """Out of DEFENCES, around the net."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the defence."""
    adaptive: tuple[Case, ...] = ()
    """Attacks that no other subject meets."""
    effort: Literal["net", "draws", "dear"] = "net"
    """How much one pass costs: that of a net, of many draws, or of an optimisation."""

    @property
    def is_here(self) -> bool:
        """Whether method and defence are in this version."""
        return self.method in METHODS and (self.defence is None or self.defence in DEFENCES)


@dataclass(frozen=True)
class Effort:
    """How hard one kind of subject is attacked."""

    images: int
    suite: Mapping[str, int]
    """Steps and queries of the standard suite."""
    steps: int
    restarts: int


@dataclass(frozen=True)
class Setting:
    """Which images are learned and attacked, and how hard."""

    dataset: str
    epsilon: float
    train_images: int
    validation: int
    epochs: int
    changes: Mapping[str, Any]
    """Of every recipe."""
    training_attack: Mapping[str, Any]
    """Of the recipes whose method has an attack of several steps, where its own changes do not say otherwise."""
    efforts: Mapping[str, Effort]
    corruptions: str
    """The benchmark of natural corruptions."""
    generator: Mapping[str, Any]
    """Of the recipe of the generator."""
    quick: bool

    def recipe_of(self, subject: Subject) -> Recipe:
        """Return how the net of a subject is trained: the method's own recipe, with the changes that all share."""
        known = {*METHODS[subject.method].settings(), *(one.name for one in fields(Recipe))}
        attack = {name: value for name, value in self.training_attack.items() if name in known}
        epochs = round(subject.times * self.epochs)
        changes = {**self.changes, "validation": self.validation, "epochs": epochs, **attack, **subject.changes}
        return recipe(self.dataset, subject.method, **changes)


# --- as they were attacked when they were proposed ---


def _pgd(steps: int, share: float, *, restarts: int = 1, meets: Meets = "itself", **more: Any) -> Case:
    """Return PGD on cross-entropy with steps of this share of epsilon."""
    title = f"PGD-{steps}" + (f"-{restarts}" if restarts > 1 else "")
    options = {"steps": steps, "relative_step_size": share, "restarts": restarts, **more}
    return Case("claimed", title, "pgd", options, meets)


_PGD40 = _pgd(40, 1 / 30)
"""40 steps of 0.01 at epsilon = 0.3."""
_PGD20 = _pgd(20, 1 / 4)
"""20 steps of 2/255 at epsilon = 8/255."""
_FGSM_ON_NET = Case("claimed", "FGSM on the net alone", "fgsm", meets="net")
_DEEPFOOL_ON_NET = Case("claimed", "DeepFool on the net alone", "deepfool", meets="net")
_PROBABILITY = _pgd(40, 1 / 30, objective="probability")
ATTACKED = ("at", "trades", "alp", "interpolated_at", "vertex_mixup", "fast_at", "free_at")
"""Subjects that learn from attacked images, and are claimed to withstand the attack."""


def subjects() -> list[Subject]:
    """Return what is defended, in the order of the table."""
    return [
        Subject("standard", "standard", "standard", _PGD40, "Madry et al. 2018, of a net without defence"),
        Subject("at", "AT", "at", _PGD40, "Madry et al. 2018"),
        Subject("trades", "TRADES", "trades", _PGD40, "Zhang et al. 2019"),
        Subject("alp", "ALP", "alp", _PGD40, "Kannan et al. 2018"),
        Subject("interpolated_at", "interpolated AT", "interpolated_at", _pgd(7, 1 / 4), "Lamb et al. 2019"),
        Subject("vertex_mixup", "vertex mixup", "vertex_mixup", _PGD20, "Lee et al. 2020"),
        Subject("cure", "CURE", "cure", _PGD20, "Moosavi-Dezfooli et al. 2019"),
        Subject("llr", "LLR", "llr", _PGD20, "Qin et al. 2019"),
        Subject("fast_at", "fast AT", "fast_at", _pgd(50, 1 / 30, restarts=10), "Wong et al. 2020", times=2),
        Subject("free_at", "free AT", "free_at", _PGD20, "Shafahi et al. 2019", times=0.5),
        Subject("random_at", "AT, random size", "random_at", _PGD40, "as AT"),
        Subject("non_robust_at", "AT, non-robust only", "non_robust_at", _PGD40, "as AT"),
        Subject("ig_norm", "IG-NORM", "ig_norm", _PGD40, "Chen et al. 2019", times=0.5),
        Subject("ig_sum_norm", "IG-SUM-NORM", "ig_sum_norm", _PGD40, "Chen et al. 2019", times=0.5),
        Subject(
            "distillation", "distillation", "distillation", replace(_PROBABILITY, title="PGD-40 on the probability"),
            "gradients of the softmax in single precision, as in Papernot et al. 2016", adaptive=_OF_DISTILLATION, times=2,
        ),
        Subject("bit_depth", "bit depth", "standard", _FGSM_ON_NET, "Xu et al. 2018", defence="bit_depth"),
        Subject("median", "median filter", "standard", _DEEPFOOL_ON_NET, "Xu et al. 2018", defence="median"),
        Subject("jpeg", "JPEG", "standard", _FGSM_ON_NET, "Dziugaite et al. 2016", defence="jpeg"),
        Subject(
            "gaussian_noise", "noise on the image", "standard", _DEEPFOOL_ON_NET, "as resize and pad", defence="gaussian_noise",
            effort="draws",
        ),
        Subject(
            "noise_layers", "noise layers", "noise_layers", replace(_pgd(20, 1 / 4, meets="net"), title="PGD-20 on one pass"),
            "gradients of one random pass, as in Liu et al. 2018", defence="noise_ensemble", effort="draws",
        ),
        Subject(
            "resize_pad", "resize and pad", "standard", _DEEPFOOL_ON_NET, "Xie et al. 2018", defence="resize_pad", effort="draws",
        ),
        Subject(
            "defense_gan", "Defense-GAN", "standard", _FGSM_ON_NET, "Samangouei et al. 2018", defence="defense_gan", options={"steps": 100, "restarts": 2}, adaptive=_OF_DEFENSE_GAN, effort="dear",
        ),
    ]  # fmt: skip


# --- as they are attacked here ---

_OF_DISTILLATION: tuple[Case, ...] = (
    Case("adaptive", "C&W", "carlini_wagner", {"steps": 100, "searches": 4, "step_size": 0.05}, images=100),
)
"""Beside what every net meets."""
_OF_DEFENSE_GAN = (
    Case(
        "adaptive", "PGD with momentum", "pgd",
        {"objective": "margin", "steps": 30, "relative_step_size": 0.25, "momentum": 0.75, "restarts": 1}, "surrogate",
    ),
    Case("adaptive", "on the manifold", "on_manifold", {"steps": 500, "restarts": 2}, "surrogate"),
)  # fmt: skip
"""Long steps, for the descent of the defence takes back what is short; momentum, for its starts differ from step to step."""


def cases(subject: Subject, setting: Setting) -> list[Case]:
    """Return the attacks on a subject: the claimed one, the standard suite, and those that know the defence."""
    effort = setting.efforts[subject.effort]
    meets: Meets = "itself" if subject.defence is None else "surrogate"
    steps, restarts = effort.steps, effort.restarts
    suite = Case("standard", "standard suite", "standard", dict(effort.suite), meets)
    # steps that are taken back are for what is smooth: neither the mean of some draws nor a projection by descent is
    ascent: dict[str, Any] = {"relative_step_size": 2.5 / steps}
    if subject.defence is None:
        ascent = {"relative_step_size": 5 / steps, "backtracking": 1.5}
    margin = Case(
        "adaptive", "PGD on the margin", "pgd",
        {"objective": "margin", "steps": steps, "restarts": restarts, **ascent}, meets,
    )  # fmt: skip
    entropy = Case(
        "adaptive", "PGD on cross-entropy", "pgd",
        {"steps": steps, "relative_step_size": 2.5 / steps, "restarts": max(restarts // 2, 1)}, meets,
    )  # fmt: skip
    own = [_shorter(one, setting) for one in subject.adaptive]
    return [_shorter(subject.claimed, setting), suite, margin, entropy, *own]


_MOST = {"steps": 10, "searches": 2, "restarts": 2}
"""Most of each option of an own attack in the quick form."""


def _shorter(case: Case, setting: Setting) -> Case:
    """Return an attack as it is in the setting: the quick form has fewer steps, that reach as far."""
    if not setting.quick:
        return case
    options = dict(case.options)
    steps = options.get("steps", 0)
    options |= {name: min(options[name], most) for name, most in _MOST.items() if name in options}
    if "relative_step_size" in options:
        options["relative_step_size"] *= steps / options["steps"]
    return replace(case, options=options)


_FULL = {
    "net": Effort(250, {"steps": 25, "queries": 1000}, steps=200, restarts=5),
    "draws": Effort(100, {"steps": 15, "queries": 150}, steps=60, restarts=2),
    "dear": Effort(60, {"steps": 2, "queries": 10}, steps=20, restarts=1),
}
_QUICK = {
    "net": Effort(40, {"steps": 5, "queries": 50}, steps=20, restarts=2),
    "draws": Effort(20, {"steps": 3, "queries": 10}, steps=8, restarts=1),
    "dear": Effort(6, {"steps": 2, "queries": 4}, steps=3, restarts=1),
}


def setting_of(dataset: str, *, quick: bool) -> Setting:
    """Return what is done with a data set; the digits may stand in for MNIST."""
    efforts = _QUICK if quick else _FULL
    changes: dict[str, Any]
    attack: dict[str, Any]
    if dataset == "digits":
        changes = {"batch_size": 32}
        attack = {"attack_steps": 4, "step_size": 0.1, "ramp": 0.4}
        generator = {"steps": 100 if quick else 1000, "every": 100}
        return Setting(
            dataset, 0.2, 1000, 100, 10 if quick else 25, changes, attack, efforts, "mnist_c", generator, quick
        )
    if dataset == "cifar10":
        large = {
            "net": Effort(1000, {"steps": 50, "queries": 2000}, steps=200, restarts=3),
            "draws": Effort(200, {"steps": 20, "queries": 200}, steps=100, restarts=2),
        }
        changes = {
            "model": "preact_resnet18",
            "normalised": True,
            "batch_size": 512,
            "learning_rate": 0.4,
            "average": 0.995,
            "precision": "bfloat16",
        }
        attack = {"first_steps": 2}
        return Setting(dataset, 8 / 255, 50_000, 1000, 30, changes, attack, large, "cifar10_c", {}, quick)
    changes = {
        "model": "conv_small", "width": None, "augmentation": "none", "precision": "float32", "learning_rate": 0.05,
    }  # fmt: skip
    attack = {"attack_steps": 5, "step_size": 0.12, "ramp": 0.4, "epsilon": 0.3, "first_steps": None}
    return Setting(dataset, 0.3, 10_000, 200, 12, changes, attack, efforts, "mnist_c", {}, quick)
