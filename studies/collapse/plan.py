"""What the full and the quick form of the study measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from studies.collapse.measure import TIMES, Convolutional, Nets, Pair
from studies.common.subject import OWN, Subject

__all__ = ["FULL", "QUICK", "Plan", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """All that is measured."""

    nets: tuple[Nets, ...]
    pairs: tuple[Pair, ...]
    convolutional: tuple[Convolutional, ...]


_LINEAR = (0.0, 0.6, 0.8, 0.95, 1.1, 1.25)
_FREE = (*_LINEAR, 1.4, 1.6)
_RANDOM = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
_TRAINED = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
_L2 = (0.0, 0.5, 0.75, 0.9, 1.0, 1.05, 1.1, 1.15, 1.25, 1.5)
_LINF = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
_PAIRS = ((3, 7), (4, 9), (0, 1))
_SHORT = TIMES[:2]
FULL = Plan(
    (
        Nets("linear, N = 1000", (), 1000, "|w| = 1", (1.0, 2.0, 3.0), _LINEAR, times=_SHORT),
        Nets("linear, N = 100", (), 100, "|w| = 1", (1.0, 1.5, 2.0, 2.5, 3.0), _LINEAR, 20, times=_SHORT),
        Nets("linear, N = 100, free", (), 100, "free |w|", (1.0, 2.0, 3.0), _FREE, 20, times=_SHORT),
        Nets("20 ReLU, random start", (20,), 100, "free |w|", (1.0, 2.0, 3.0), _RANDOM),
        Nets("20 ReLU, trained start", (20,), 100, "free |w|", (1.0, 2.0, 3.0), _TRAINED, 10, "trained"),
        Nets("20 + 20 ReLU, random start", (20, 20), 100, "free |w|", (2.0,), _RANDOM),
        Nets("20 + 20 ReLU, trained start", (20, 20), 100, "free |w|", (2.0,), _TRAINED, 10, "trained"),
        Nets(
            "20 ReLU, N = 1000, random start", (20,), 1000, "free |w|", (2.0,), (0.0, 0.3, 0.45, 0.6), 5, times=_SHORT
        ),
        Nets(
            "20 ReLU, N = 1000, trained start",
            (20,),
            1000,
            "free |w|",
            (2.0,),
            (0.45, 0.6, 0.75, 0.9),
            5,
            "trained",
            _SHORT,
        ),
    ),
    tuple(Pair(*digits, "l2", _L2) for digits in _PAIRS) + tuple(Pair(*digits, "linf", _LINF) for digits in _PAIRS),
    (
        Convolutional("l2", 0.0, (0.75, 0.9, 1.05, 1.2)),
        Convolutional("l2", 0.5, (1.05, 1.35, 1.65, 1.95)),
        Convolutional("linf", 0.0, (0.3, 0.45, 0.6, 0.75)),
        Convolutional("linf", 0.5, (0.75, 1.0, 1.2, 1.4)),
    ),
)
QUICK = Plan(
    (
        Nets("linear, N = 100", (), 100, "|w| = 1", (2.0,), (0.0, 0.7, 0.85, 1.0, 1.15), times=_SHORT),
        Nets("linear, N = 100, free", (), 100, "free |w|", (2.0,), (0.0, 0.85, 1.0, 1.15, 1.5), times=_SHORT),
        Nets("20 ReLU, random start", (20,), 100, "free |w|", (2.0,), (0.0, 0.3, 0.6, 0.9), times=_SHORT),
        Nets(
            "20 ReLU, trained start", (20,), 100, "free |w|", (2.0,), (0.6, 0.8, 1.0, 1.2, 1.5), 10, "trained", _SHORT
        ),
    ),
    (Pair(3, 7, "l2", (0.0, 0.5, 0.9, 1.0, 1.1, 1.2, 1.4), 0.1, 2000),),
    (Convolutional("l2", 0.0, (0.0, 1.4), 1, 10_000, 15),),
)
_RESIDUAL: dict[str, Any] = {"batch_size": 256, "learning_rate": 0.1, "precision": "bfloat16"}
"""For residual nets as wide as published, which need a GPU."""
_OF_CIFAR10: dict[str, Any] = {"normalised": True, "augmentation": "crop_flip", "weight_decay": 5e-4}


def plan_of(subject: Subject = OWN, name: str = "mnist", *, quick: bool = False) -> Plan:
    """Return what is measured of the images of this name.

    Of other images or nets than the study's own that is the half on images: the mixtures would be the same again.
    """
    plan = QUICK if quick else FULL
    if name == "digits" and not quick:
        plan = replace(plan, pairs=QUICK.pairs, convolutional=QUICK.convolutional)
    if not subject.is_own:
        cifar10, residual = name == "cifar10", "resnet" in (subject.net or "")
        eta = 0.002 if cifar10 else 0.05 if name == "digits" else 0.01
        pairs = tuple(
            replace(pair, positive=subject.classes[0], negative=subject.classes[1], eta=eta)
            for pair in plan.pairs
            if (pair.positive, pair.negative) == _PAIRS[0]
        )
        recipe = (_OF_CIFAR10 if cifar10 else {}) | (_RESIDUAL if residual and not quick else {})
        images, epochs = (2_000, 2) if cifar10 and quick else (10_000, 15) if cifar10 or residual else (None, None)
        convolutional = tuple(
            replace(
                one,
                classes=subject.classes,
                model=subject.net or one.model,
                recipe=tuple(recipe.items()),
                images=images or one.images,
                epochs=epochs or one.epochs,
                # where these nets collapse is not known: the first crossing may be below the least epsilon
                sizes=one.sizes if one.ramp or 0.0 in one.sizes else (0.0, *one.sizes),
            )
            for one in plan.convolutional
        )
        plan = Plan((), pairs, convolutional)
    if subject.seeds is not None:
        plan = replace(plan, convolutional=tuple(replace(one, seeds=subject.seeds) for one in plan.convolutional))
    return plan
