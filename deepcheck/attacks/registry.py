"""All attacks by name: what suites, the command line and the common tests make them from.

An attack takes part everywhere by one line in `ATTACKS`: in `deepcheck attack RUN --attack NAME`, in `suite(...,
attacks=[NAME])`, and in the tests that every attack must pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from deepcheck.attacks.base import Attack, BudgetAttack
from deepcheck.attacks.black_box.hop_skip_jump import HopSkipJump
from deepcheck.attacks.black_box.local_search import LocalSearch
from deepcheck.attacks.black_box.noise import UniformNoise
from deepcheck.attacks.black_box.opt_attack import OptAttack
from deepcheck.attacks.black_box.spsa import SPSA, nes
from deepcheck.attacks.black_box.square import Square
from deepcheck.attacks.black_box.zoo import ZOO
from deepcheck.attacks.gradient.apgd import APGD, apgd_ce, apgd_t
from deepcheck.attacks.gradient.confident import confident_pgd
from deepcheck.attacks.gradient.pgd import bim, fgsm, mim, pgd, targeted_pgd
from deepcheck.attacks.measures import SIZES, Measure
from deepcheck.attacks.minimal.base import MinimalAttack, WithinBudget
from deepcheck.attacks.minimal.carlini_wagner import CarliniWagner
from deepcheck.attacks.minimal.deepfool import DeepFool
from deepcheck.attacks.minimal.ead import EAD
from deepcheck.attacks.minimal.fab import FAB, fab_t
from deepcheck.attacks.minimal.jsma import JSMA
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.prepared.base import PreparedAttack
from deepcheck.attacks.prepared.transfer import Substitute
from deepcheck.attacks.prepared.universal import UniversalPerturbation
from deepcheck.attacks.spatial.rotation import Rotation
from deepcheck.attacks.spatial.transformed import Combined, ReColorAdv, StAdv
from deepcheck.checks import checked_choice

__all__ = ["ATTACKS", "MEASURES", "listed", "make", "norms_of", "options_of", "within_budget"]

ATTACKS: dict[str, Callable[..., BudgetAttack | MinimalAttack | PreparedAttack[Attack]]] = {
    "pgd": pgd,
    "fgsm": fgsm,
    "bim": bim,
    "mim": mim,
    "targeted_pgd": targeted_pgd,
    "confident_pgd": confident_pgd,
    "apgd": APGD,
    "apgd_ce": apgd_ce,
    "apgd_t": apgd_t,
    "square": Square,
    "uniform_noise": UniformNoise,
    "spsa": SPSA,
    "nes": nes,
    "deepfool": DeepFool,
    "hop_skip_jump": HopSkipJump,
    "opt_attack": OptAttack,
    "stadv": StAdv,
    "recolor": ReColorAdv,
    "rotation": Rotation,
    "combined": Combined,
    "zoo": ZOO,
    "local_search": LocalSearch,
    "fab": FAB,
    "fab_t": fab_t,
    "universal": UniversalPerturbation,
    "substitute": Substitute,
    "carlini_wagner": CarliniWagner,
    "ead": EAD,
    "jsma": JSMA,
}
"""Name to what makes the attack, from a norm and the options of `options_of`, all of which have defaults."""
MEASURES: dict[str, Measure] = {**NORMS, **SIZES}
"""Norms, and what measures transformations, by name."""


def make(name: str, norm: Measure | str, **options: Any) -> BudgetAttack | MinimalAttack | PreparedAttack[Attack]:
    """Return an attack by its name. One that is prepared first has the method `prepare`, which returns the attack.

    Parameters
    ----------
    name
        Out of ATTACKS.
    norm
        Of the perturbation, or what else measures it: out of MEASURES.
    options
        See `options_of`; the others have their defaults.

    Raises
    ------
    ValueError, TypeError
        If the name or an option is unknown, or a value is not allowed.

    Examples
    --------
    >>> make("square", "l2", queries=100).queries
    100
    """
    maker = ATTACKS[checked_choice("attack", name, ATTACKS)]
    for option in options:
        checked_choice(f"option of {name}", option, options_of(name))
    return maker(norm, **options)


def within_budget(attack: BudgetAttack | MinimalAttack | PreparedAttack[Attack]) -> Attack:
    """Return an attack that takes an epsilon: the attack itself, or a minimal one through `WithinBudget`.

    One that is to be prepared first is returned as it is; `deepcheck.evaluation.evaluate` prepares it.
    """
    return WithinBudget(attack) if isinstance(attack, MinimalAttack) else attack


def options_of(name: str) -> dict[str, Any]:
    """Return the options of an attack and their defaults, in order; the norm is not among them."""
    parameters = inspect.signature(ATTACKS[name]).parameters
    return {key: one.default for key, one in parameters.items() if key != "norm"}


def norms_of(name: str) -> list[str]:
    """Return the names of the norms, or other measures, that an attack knows."""
    known = []
    for norm in MEASURES:
        try:
            make(name, norm)
        except ValueError:
            continue
        known.append(norm)
    return known


def listed() -> str:
    """Return a text with a line for each attack: name, norms, and what it is, with its source."""
    parts = []
    for name, maker in ATTACKS.items():
        about = (inspect.getdoc(maker) or "").splitlines()[0].removeprefix("Return ")
        parts.append(f"{name:<16} {' '.join(norms_of(name)):<16} {about}")
    return "\n".join(parts)
