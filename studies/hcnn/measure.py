"""What is measured of a net: separation and confidence, the embedded points, and the net behind an embedding.

Shapes: n examples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks.calls import evaluating, logits_of
from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.attacks.minimal.base import WithinBudget
from deepcheck.attacks.minimal.carlini_wagner import CarliniWagner
from deepcheck.attacks.objectives import TargetedCrossEntropy, TargetedOdds
from deepcheck.attacks.starts import OneOf, UniformBall, Zero
from deepcheck.attacks.targets import every_other_class
from deepcheck.defences.base import Adaptive, Oblivious
from deepcheck.defences.neighbours import MCN, PulledBack
from deepcheck.defences.registry import make
from deepcheck.evaluation.separation import wrong_confidences

if TYPE_CHECKING:
    from torch import nn

    from deepcheck.attacks.base import Attack
    from studies.hcnn.plan import Behind

__all__ = ["ATTACKS", "BATCH", "PLACES", "SEED", "STATIC", "carlini", "composed", "ranks", "separated", "shown"]

SEED = 20261205
BATCH = 200
"""Images that a net sees at once."""
_PAST = 1e-3
"""Log-odds beyond the level that the attack of Carlini and Wagner aims at, so that rounding does not undo it."""
PLACES = ("first", "second", "other", "missing")
"""Where the true class is among the embedded points, by their confidence; missing: the net says another class at its own point."""
STATIC = ("transfer of confidence", "transfer of the margin")
"""Attacks that know nothing of the embedding."""
ATTACKS = (*STATIC, "pulled back", "on the surrogate")
"""Attacks on a net behind an embedding, in order."""


def separated(net: nn.Module, x: Tensor, y: Tensor, radii: Sequence[float], *, steps: int, starts: int) -> xr.Dataset:
    """Return the largest confidence in each wrong class within each radius; see `wrong_confidences`."""
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(SEED), "batch_size": BATCH}
    return wrong_confidences(net, x, y, delta=list(radii), steps=steps, starts=starts, **options)


def carlini(
    net: nn.Module, x: Tensor, y: Tensor, radius: float, level: float, *, steps: int, searches: int
) -> xr.Dataset:
    """Return what the attack of Carlini and Wagner for this confidence finds, in L-infinity and alone."""
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(SEED), "batch_size": BATCH}
    nearest = CarliniWagner("linf", TargetedOdds(level), confidence=_PAST, steps=steps, searches=searches)
    return wrong_confidences(net, x, y, delta=[radius], attacks={"carlini_wagner": WithinBudget(nearest)}, **options)


def towards_every_class(net: nn.Module, x: Tensor, y: Tensor, eta: float, *, steps: int, seed: int) -> Tensor:
    """Return what attacks for the largest confidence make of each image, towards each wrong class, shape (K - 1, n, ...)."""
    K = logits_of(net, x[:1]).shape[1]
    attack = PGD(
        "linf", TargetedCrossEntropy(goal="never"), steps=steps, relative_step_size=2.5 / steps, start=UniformBall()
    )
    options: dict[str, Any] = {"epsilon": eta, "generator": torch.Generator().manual_seed(seed), "batch_size": BATCH}
    images: Tensor = attack(net, x, y, targets=every_other_class(y, K), **options).images
    return images


def ranks(net: nn.Module, x: Tensor, y: Tensor, radius: float, *, steps: int, inner: int, reduced: int) -> xr.Dataset:
    """Return where the true class is among the embedded points of attacked images (table 4).

    Each image that is classified correctly is attacked towards every wrong class; attack and embedding have the same radius, and the
    attack is one on the net alone. The embedded points are those of all attacked images whose class has changed, and of so many of
    the others, drawn at random.

    Returns
    -------
    Dataset
        Dim pair, the attacked images that were looked at: whether the class has `changed`, and the `place`, of `PLACES`. Without a
        dim: how many there are of the two kinds, `changes` and `reductions`.
    """
    right = _said(net, x)[1] == y
    x, y = x[right], y[right]
    attacked = towards_every_class(net, x, y, radius, steps=steps, seed=SEED).flatten(0, 1)
    labels = y.repeat(len(attacked) // max(len(y), 1))
    changed = _said(net, attacked)[1] != labels
    draw = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED)).to(labels.device)
    rest = draw[~changed[draw]]
    rows = torch.cat([changed.nonzero().squeeze(1), rest[:reduced]])
    place = [labels.new_zeros(0)]
    defence = MCN(net, xi=radius, steps=inner)
    for some in rows.split(BATCH) if len(rows) else ():
        found, label = defence.neighbours(attacked[some]), labels[some]
        rank = (found.order == label).byte().argmax(0).clamp(max=2)  # of the label, in order of confidence
        own = found.prediction.gather(0, label[None])[0]
        place.append(torch.where(own == label, rank, 3))
    return xr.Dataset(
        {
            "changed": ("pair", changed[rows].cpu().numpy().astype(np.int8)),
            "place": ("pair", torch.cat(place).cpu().numpy().astype(np.int8)),
            "changes": int(changed.sum()),
            "reductions": len(rest),
        }
    )


def defended(net: nn.Module, embedding: str, options: Mapping[str, Any], xi: float, inner: int, surrogate: int) -> Any:
    """Return a net behind an embedding of radius xi."""
    return make(embedding, net, xi=xi, steps=inner, attack_steps=surrogate, **options)


def attacks_of(*, outer: int) -> dict[str, Attack]:
    """Return the attacks on a net behind an embedding, by the names of `ATTACKS`."""
    margin = PGD("linf", "margin", steps=40, relative_step_size=5 / 40, backtracking=1.5, restarts=3)
    confident = PGD("linf", "wrong_confidence", steps=40, relative_step_size=5 / 40, backtracking=1.5, restarts=3)
    start = OneOf((Zero(), UniformBall()))
    on_surrogate = PGD(
        "linf",
        "margin",
        steps=outer,
        relative_step_size=2.5 / outer,
        momentum=0.5,
        start=start,
        stop_when_reached=False,
    )
    pulled = PulledBack("linf", steps=40, polish=max(outer // 4, 1))
    both = Oblivious(confident), Oblivious(margin), Adaptive(pulled), Adaptive(on_surrogate)
    return dict(zip(ATTACKS, both, strict=True))


def composed(
    net: nn.Module, one: Behind, options: Mapping[str, Any], x: Tensor, y: Tensor, *, inner: int, outer: int, surrogate: int,
) -> xr.Dataset:  # fmt: skip
    """Return what a net behind an embedding says of the images, as they are and after each attack.

    Without an embedding it is the net itself, under the attacks that are not on one: the others are left out.
    """
    model = defended(net, one.embedding, options, one.xi, inner, surrogate) if one.xi else net
    clean_confidence, clean = _said(model, x)
    wrong = np.full((len(ATTACKS), len(x)), -1, np.int8)
    confidence = np.full((len(ATTACKS), len(x)), np.nan, np.float32)
    for number, attack in enumerate(attacks_of(outer=outer).values()):
        if not one.xi and not isinstance(attack, Oblivious):
            continue
        what: Any = attack.attack if isinstance(attack, Oblivious) and not one.xi else attack
        generator = torch.Generator().manual_seed(SEED + number)
        found = what(model, x, y, epsilon=one.eta, generator=generator, batch_size=BATCH)
        p, said = _said(model, found.images)
        wrong[number], confidence[number] = (said != y).cpu().numpy(), p.cpu().numpy()
    return xr.Dataset(
        {
            "clean_wrong": ("example", (clean != y).cpu().numpy().astype(np.int8)),
            "clean_confidence": ("example", clean_confidence.cpu().numpy()),
            "wrong": (("attack", "example"), wrong),
            "confidence": (("attack", "example"), confidence),
        },
        {"attack": list(ATTACKS)},
    )


def shown(net: nn.Module, x: Tensor, y: Tensor, radius: float, *, steps: int, inner: int, count: int) -> xr.Dataset:
    """Return some attacked images and their embedded points, for a figure: first those whose class has changed from the true one."""
    attacked = towards_every_class(net, x, y, radius, steps=steps, seed=SEED)
    defence = MCN(net, xi=radius, steps=inner)
    with evaluating(net), torch.no_grad():
        right = _said(net, x)[1] == y
        changed = torch.stack([(_said(net, images)[1] != y) & right for images in attacked])
        rows = changed.any(0).byte().argsort(descending=True, stable=True)[:count]
        target = changed[:, rows].byte().argmax(0)
        images = attacked[target, rows]
        found = defence.neighbours(images)
        p, prediction = _said(net, images)
        clean_p, clean = _said(net, x[rows])
    pixels = ("channel", "pixel_row", "pixel_column")
    return xr.Dataset(
        {
            "image": (("shown", *pixels), x[rows].cpu().numpy()),
            "image_prediction": ("shown", clean.cpu().numpy()),
            "image_confidence": ("shown", clean_p.cpu().numpy()),
            "label": ("shown", y[rows].cpu().numpy()),
            "attacked": (("shown", *pixels), images.cpu().numpy()),
            "attacked_prediction": ("shown", prediction.cpu().numpy()),
            "attacked_confidence": ("shown", p.cpu().numpy()),
            "point": (("point_class", "shown", *pixels), found.points.cpu().numpy()),
            "point_prediction": (("point_class", "shown"), found.prediction.cpu().numpy()),
            "point_confidence": (("point_class", "shown"), found.confidence.cpu().numpy()),
        }
    )


def _said(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return confidence and prediction, shape (n,) both."""
    with evaluating(model), torch.no_grad():
        logits = torch.cat([logits_of(model, part).float() for part in images.split(BATCH)])
    found = logits.softmax(1).max(1)
    return found.values, found.indices
