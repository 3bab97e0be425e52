"""Which attacks an evaluation runs, and at which sizes of the perturbation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepcheck.attacks import registry
from deepcheck.attacks.base import Attack, checked_epsilons
from deepcheck.attacks.noise import UniformNoise
from deepcheck.attacks.norms import L0, L1, NORMS, Norm
from deepcheck.attacks.pgd import PGD, targeted_pgd, whole_steps
from deepcheck.attacks.square import Square
from deepcheck.attacks.starts import Gaussian, OneOf, UniformBall, UniformLength, Zero
from deepcheck.checks import checked_choice
from deepcheck.defences.base import Adaptive, Defence, Oblivious
from deepcheck.evaluation.standard import CUSTOMARY, standard_attack
from odeflow.model import checked_count

__all__ = [
    "SUITES",
    "THREATS",
    "Planned",
    "Threats",
    "adaptive",
    "confidence_attack",
    "oblivious",
    "planned_suite",
    "standard_suite",
    "suite",
]


@dataclass(frozen=True)
class Planned:
    """An attack, and the sizes it is run at; one that has to be prepared is prepared for these.

    Raises
    ------
    ValueError, TypeError
        If the sizes are not different finite numbers >= 0, one at least.
    """

    attack: Attack
    epsilons: tuple[float, ...]

    def __post_init__(self) -> None:
        epsilons, _ = checked_epsilons(self.epsilons)
        if len(set(epsilons)) < len(epsilons):
            raise ValueError(f"epsilon = {list(epsilons)} is not allowed: different numbers are")
        object.__setattr__(self, "epsilons", epsilons)


@dataclass(frozen=True)
class Threats:
    """Sizes of the perturbations that a net is attacked with. Pixels are in [0, 1]."""

    linf: tuple[float, ...]
    """The training attack's size first, then larger ones."""
    l2: float
    l1: float
    l0: float
    """Number of pixels, times channels, that are changed."""
    curve: tuple[float, ...] = ()
    """Smaller sizes in L-infinity, for the robustness curve."""
    flow: float = 1.0
    """Longest displacement of a pixel, in pixels."""
    colour: float = 0.06
    """Largest change of a coordinate of colours, see `deepcheck.attacks.spatial.colour.Colour`."""
    rigid: float = 1.0
    """Share of 30 degrees and 3 pixels, for rotations and translations."""
    combined: float = 1.0
    """What the bounds of several transformations together are multiplied by."""


THREATS = {
    "mnist": Threats(linf=(0.3, 0.4), l2=3.0, l1=18.0, l0=15.0, curve=(0.05, 0.1, 0.15, 0.2, 0.25)),
    "digits": Threats(linf=(0.2, 0.3), l2=1.0, l1=4.0, l0=4.0, curve=(0.05, 0.1, 0.15)),
    "cifar10": Threats(linf=(0.03, 0.06), l2=1.0, l1=18.0, l0=10.0, curve=(0.005, 0.01, 0.02)),
}
"""By data set; those of MNIST and CIFAR-10 are those of Stutz, Hein and Schiele (ICML 2020), where they are given."""

BOX_NORMS: dict[str, Norm] = NORMS | {
    "l1": L1(coordinates=8, shares=(0.1, 0.005)),
    "l0": L0(coordinates=8, shares=(0.02, 0.002)),
}
"""Steps in L1 and L0 change several pixels: one alone reaches its bound, and the projection then takes others back. They are
many at first and few in the end: with 32 of 784 in every step, a standard net on MNIST seemed twice as robust in L1."""
_STEP_SIZES = {"linf": 0.05, "l2": 0.1, "l1": 0.1, "l0": 0.5}
"""First step of the attacks on confidence, as a share of epsilon, if there are steps enough."""
_SHARES = {"linf": 0.1, "l2": 0.1, "l1": 0.25, "l0": 0.5}
"""The same for the attacks on the class without backtracking."""
_FIRST = 0.25
"""The same for those with backtracking, which shortens it."""
_CROSSINGS = 2.5
"""All steps of an attack together, in units of epsilon, at least: the ball is 2 across."""
_ENOUGH = 40
"""Steps below which no attack is shortened."""
_TARGETS = 9
"""Classes that the targeted attacks aim at."""


def long_enough(usual: float, steps: int, momentum: float = 0.0) -> float:
    """Return the length of a step as a share of epsilon: the usual one, or what so few steps need to cross the ball."""
    return max(usual, _CROSSINGS / whole_steps(checked_count("steps", steps, 1), momentum))


def part_of(steps: int, divisor: int) -> int:
    """Return a part of the steps, but no fewer than 40 where there are as many."""
    return max(steps // divisor, min(steps, _ENOUGH))


def confidence_attack(norm: str, *, steps: int, restarts: int) -> PGD:
    """Return the attack on confidence: ascent on max over k != y of p_k, with momentum, backtracking and mixed starts.

    Its step is a twentieth of epsilon in L-infinity at first, or as long as so few steps need to cross the ball, and shrinks
    by a tenth where it would lose confidence.
    """
    momentum = 0.9
    return PGD(
        BOX_NORMS[norm],
        "wrong_confidence",
        steps=steps,
        relative_step_size=long_enough(_STEP_SIZES[norm], steps, momentum),
        momentum=momentum,
        backtracking=1.1,
        start=OneOf((Gaussian(), UniformLength(), Zero())),
        restarts=restarts,
    )


def suite(
    threats: Threats | str,
    *,
    steps: int = 1000,
    restarts: int = 5,
    queries: int = 5000,
    squares: bool = True,
    attacks: Sequence[str] = (),
) -> dict[str, Planned]:
    """Return the attacks of an evaluation, by name.

    ==================== ======= ========================== ===================== ==============
    name                 norm    objective                  steps                 restarts
    ==================== ======= ========================== ===================== ==============
    pgd_NORM             any     cross-entropy              `steps` / 5           `restarts`
    margin_NORM          any     margin                     `steps` / 5           `restarts`
    targeted_NORM        any     margin of a wrong class    `steps` / 5           one for each of 9 classes
    confidence_NORM      any     confidence in wrong class  `steps`               `restarts`
    curve_linf           linf    cross-entropy              `steps` / 10          1
    curve_confidence     linf    confidence in wrong class  `steps` / 10          2
    square_linf, _l2     ...     confidence in wrong class  `queries` evaluations 1
    noise_linf           linf    confidence in wrong class  `queries` / 50 draws  1
    ==================== ======= ========================== ===================== ==============

    No attack is shortened to fewer than 40 steps, and where there are few, each is longer: all steps of a restart together
    are 2.5 epsilon at least, so that a start at one edge of the ball can reach the other. (FGSM, BIM and MIM among further
    `attacks` are what their papers define: they start at the image, and go epsilon in all.) Margins are taken with
    backtracking: steps that lose are not taken, and become shorter.

    Parameters
    ----------
    threats
        Sizes of the perturbations, or the name of a data set out of THREATS. ``suite("standard")`` is `standard_suite()`.
    steps
        Gradient steps of the attacks on confidence, >= 10; the others take a part of them, see above.
    restarts
        Starts of an attack, >= 1. The worst case for each example counts.
    queries
        Evaluations per example in the Square Attack, >= 50.
    squares
        Whether to run the Square Attack: it needs images.
    attacks
        Further attacks out of `deepcheck.attacks.registry.ATTACKS`, with their default options, in all norms, or
        other measures, that they know, as NAME_NORM.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or the data set unknown.
    """
    if threats == "standard":
        return standard_suite()
    checked_count("steps", steps, 10)
    checked_count("restarts", restarts, 1)
    checked_count("queries", queries, 50)
    if not isinstance(threats, Threats):
        threats = THREATS[checked_choice("threats", threats, THREATS)]
    sizes = {"linf": threats.linf, "l2": (threats.l2,), "l1": (threats.l1,), "l0": (threats.l0,)}
    planned: dict[str, Planned] = {}
    for norm, epsilons in sizes.items():
        few = part_of(steps, 5)
        start = OneOf((UniformBall(), Zero())) if norm == "l0" else UniformBall()
        pgd = PGD(
            BOX_NORMS[norm],
            steps=few,
            relative_step_size=long_enough(_SHARES[norm], few),
            start=start,
            restarts=restarts,
            stop_when_reached=False,
        )  # it goes on after the class has changed: a threshold asks how confident the prediction is
        planned[f"pgd_{norm}"] = Planned(pgd, epsilons)
        first = long_enough(_FIRST, few)
        margin = PGD(
            BOX_NORMS[norm],
            "margin",
            steps=few,
            relative_step_size=first,
            backtracking=1.5,
            start=start,
            restarts=restarts,
        )
        targeted = targeted_pgd(BOX_NORMS[norm], steps=few, relative_step_size=first, restarts=_TARGETS)
        planned[f"margin_{norm}"] = Planned(margin, epsilons)
        planned[f"targeted_{norm}"] = Planned(targeted, epsilons)
        planned[f"confidence_{norm}"] = Planned(confidence_attack(norm, steps=steps, restarts=restarts), epsilons)
    if threats.curve:
        few = part_of(steps, 10)
        share = long_enough(_SHARES["linf"], few)
        planned["curve_linf"] = Planned(PGD("linf", steps=few, relative_step_size=share), threats.curve)
        planned["curve_confidence"] = Planned(confidence_attack("linf", steps=few, restarts=2), threats.curve)
    if squares:
        square = Square("linf", "wrong_confidence", queries=queries)
        planned["square_linf"] = Planned(square, threats.linf)
        planned["square_l2"] = Planned(replace(square, norm="l2"), (threats.l2,))
    noise = UniformNoise("linf", "wrong_confidence", draws=max(queries // 50, 1))
    planned["noise_linf"] = Planned(noise, threats.linf)
    for name in attacks:
        for norm in registry.norms_of(checked_choice("attacks", name, registry.ATTACKS)):
            attack = registry.within_budget(registry.make(name, BOX_NORMS.get(norm, norm)))
            if (key := f"{name}_{norm}") in planned:
                raise ValueError(f"attacks = {list(attacks)} is not allowed: {key} is in the suite already")
            planned[key] = Planned(attack, sizes.get(norm) or (float(getattr(threats, norm)),))
    return planned


def gradient_suite(
    threats: Threats | str, *, steps: int = 1000, restarts: int = 5, queries: int = 5000
) -> dict[str, Planned]:
    """Return the attacks of `suite` that follow gradients."""
    planned = suite(threats, steps=steps, restarts=restarts, queries=queries, squares=False)
    return {name: one for name, one in planned.items() if isinstance(one.attack, PGD)}


def linf_suite(
    threats: Threats | str, *, steps: int = 1000, restarts: int = 5, queries: int = 5000
) -> dict[str, Planned]:
    """Return the attacks of `suite` in L-infinity."""
    planned = suite(threats, steps=steps, restarts=restarts, queries=queries)
    return {name: one for name, one in planned.items() if getattr(one.attack.norm, "name", one.attack.norm) == "linf"}


def standard_suite(
    threats: Threats | str | None = None,
    *,
    steps: int = 100,
    queries: int = 5000,
    norms: Sequence[str] = tuple(CUSTOMARY),
    state: str | None = None,
) -> dict[str, Planned]:
    """Return the standard evaluation (`deepcheck.evaluation.standard.standard_attack`) in several norms.

    Parameters
    ----------
    threats
        Sizes of the perturbations, or the name of a data set out of THREATS, of which the first in L-infinity is taken; None:
        those at which nets for CIFAR-10 are compared, 8/255 in L-infinity, 0.5 in L2 and 12 in L1.
    steps, queries, state
        See `standard_attack`.
    norms
        Out of linf, l2 and l1.

    Returns
    -------
    dict
        standard_linf, standard_l2, standard_l1.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or a name unknown.
    """
    if threats is None:
        sizes = CUSTOMARY
    else:
        if not isinstance(threats, Threats):
            threats = THREATS[checked_choice("threats", threats, THREATS)]
        sizes = {"linf": threats.linf[0], "l2": threats.l2, "l1": threats.l1}
    planned = {}
    for norm in norms:
        epsilon = sizes[checked_choice("norms", norm, sizes)]
        planned[f"standard_{norm}"] = Planned(
            standard_attack(norm, steps=steps, queries=queries, state=state), (epsilon,)
        )
    return planned


SUITES: dict[str, Callable[..., dict[str, Planned]]] = {
    "standard": standard_suite,
    "wide": suite,
    "gradient": gradient_suite,
    "linf": linf_suite,
}
"""Name to a function of threats, steps, restarts (but for standard) and queries that returns planned attacks."""


def planned_suite(name: str, threats: Threats | str, **options: Any) -> dict[str, Planned]:
    """Return the attacks of a suite out of SUITES, by name.

    Parameters
    ----------
    name
        Out of SUITES.
    threats
        See `suite`.
    **options
        steps, restarts, queries; see `suite`.

    Raises
    ------
    ValueError, TypeError
        If there is no such suite, or an argument is not allowed.
    """
    return SUITES[checked_choice("suite", name, SUITES)](threats, **options)


def adaptive(planned: Mapping[str, Planned], defence: Defence | None = None) -> dict[str, Planned]:
    """Return the same attacks as those that a `Defence` must be judged by: see `Adaptive`.

    Parameters
    ----------
    planned
        Attacks by name.
    defence
        Where it is given, its own attacks (`Defence.own_attacks`) too, in the norms and at all sizes of the others.
    """
    found = {f"adaptive_{name}": Planned(Adaptive(one.attack), one.epsilons) for name, one in planned.items()}
    if defence is None:
        return found
    sizes: dict[str, dict[float, None]] = {}
    for one in planned.values():
        norm = getattr(one.attack.norm, "name", one.attack.norm)
        sizes.setdefault(str(norm), {}).update(dict.fromkeys(one.epsilons))
    for norm, epsilons in sizes.items():
        for name, attack in defence.own_attacks(norm).items():
            found[f"adaptive_{name}_{norm}"] = Planned(Adaptive(attack), tuple(epsilons))
    return found


def oblivious(planned: Mapping[str, Planned]) -> dict[str, Planned]:
    """Return the same attacks as ones that do not know of the `Defence` that they are run on: see `Oblivious`."""
    return {f"oblivious_{name}": Planned(Oblivious(one.attack), one.epsilons) for name, one in planned.items()}


_COUNTS = (("step", "steps"), ("draw", "draws"), ("query", "queries"))


def effort(attack: object) -> str:
    """Return how hard an attack tries, as text: steps, draws or queries for each example, times restarts.

    An attack that counts otherwise says so in an attribute `effort`, a text.
    """
    own = getattr(attack, "effort", "")
    if isinstance(own, str) and own:
        return own
    inner = getattr(attack, "attack", None)  # of a wrapper, such as Adaptive
    if inner is not None:
        return effort(inner)
    counts = [(getattr(attack, many, None), one, many) for one, many in _COUNTS]
    words = [f"{count} {one if count == 1 else many}" for count, one, many in counts if isinstance(count, int)]
    restarts = getattr(attack, "restarts", 1)
    return ", ".join(words) + (f" x {restarts}" if words and isinstance(restarts, int) and restarts > 1 else "")


def cannot_cross(planned: Mapping[str, Planned]) -> list[str]:
    """Return the names of the attacks by steps that are too short to cross the ball, from where they start.

    From a random start that is 2 epsilon, from the image itself epsilon. Attacks that are not of such steps are left out.
    """
    short = []
    for name, one in planned.items():
        attack = getattr(one.attack, "attack", one.attack)  # of a wrapper, such as Adaptive
        if isinstance(attack, PGD):
            needed = 1 if isinstance(attack.start, Zero) else 2
            if any(attack.reach(epsilon) < needed * epsilon * (1 - 1e-9) for epsilon in one.epsilons):
                short.append(name)
    return short


def described(planned: Mapping[str, Planned]) -> dict[str, Any]:
    """Return text for each attack, for the attributes of a result."""
    return {name: {"attack": repr(one.attack), "epsilons": list(one.epsilons)} for name, one in planned.items()}
