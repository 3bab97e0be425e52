"""What the study defences says. Every tolerance was set before the first run, from the literature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from studies.defences.found import Found
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims"]

SURE = 2.0
"""Standard errors of a difference."""
POINT = 0.01
"""What a defence may lose that keeps its claim."""
NOTHING = 0.01
"""Accuracy of a defence that has fallen."""
MOST = 0.5
"""Share of what a defence gains that it loses, at least, if it loses most of it."""
SLIGHT = 0.05
"""A gain below this is none that could be lost."""
HALF = 0.5
"""Accuracy of a net that has learned to withstand the attack."""
KEEP = ("at", "trades")
UNDER_EOT = ("resize_pad", "noise_layers", "gaussian_noise", "noise_ensemble")
UNDER_ITS_GRADIENT = ("defense_gan",)
UNDER_STEPS = ("alp", "vertex_mixup")


def claims(data: xr.Dataset, *, quick: bool) -> Iterator[Claim]:
    """Yield what the study claims of the defences that it has; the quick form has too few images and steps for some."""
    every = {str(name): Found(data, str(name)) for name in data.subject.values}
    standard, at = every["standard"], every["at"]
    if "distillation" in every:
        yield _falls(every["distillation"], at)
    for name in (*UNDER_EOT, *UNDER_ITS_GRADIENT):
        if name in every:
            yield _loses_most(
                every[name],
                standard,
                at,
                "the mean over draws" if name in UNDER_EOT else "the gradient of its projection and on the manifold",
            )
    if quick:
        return
    for name in UNDER_STEPS:
        if name in every:
            yield _loses(every[name], at)
    for name in KEEP:
        if name in every:
            yield _keeps(every[name], every.get("distillation", standard))
    yield _suite([every[name] for name in KEEP if name in every], every.get("distillation", standard))
    if "corrupted" in data:
        yield from _corruptions(data)


def _falls(distillation: Found, at: Found) -> Claim:
    """Yield that defensive distillation is broken (Carlini and Wagner, S&P 2017)."""

    def fallen(one: Found) -> tuple[str, bool]:
        before, after = one.right("claimed").mean(), one.right("adaptive").mean()
        return f"{before:.3f} under the claimed, {after:.3f} under the adaptive", before >= HALF and after <= NOTHING

    return contest(
        "distillation leaves at least half of the images under gradients of the probability in single precision, and at most "
        f"{NOTHING:.0%} under attacks on the margin, as Carlini and Wagner's",
        fallen,
        distillation,
        rival="AT",
        against=at,
    )


def _loses_most(defence: Found, standard: Found, at: Found, attack: str) -> Claim:
    """Yield that most of what a defence at test time gains is not there (Athalye, Carlini and Wagner, ICML 2018)."""

    def loses(one: Found) -> tuple[str, bool]:
        count = min(one.images, standard.images)
        bare = standard.right("adaptive")[:count].mean()
        claimed, left = (one.right(column)[:count].mean() - bare for column in ("claimed", "adaptive"))
        text = f"gains {claimed:.3f} as claimed, keeps {left:.3f}"
        return text, claimed > SLIGHT and left <= (1 - MOST) * claimed

    return contest(
        f"{defence.title} loses at least {MOST:.0%} of what it gains on the bare net, in robust accuracy, under {attack}",
        loses,
        defence,
        rival="AT, from its claimed evaluation to its adaptive one",
        against=at,
    )


def _loses(one: Found, at: Found) -> Claim:
    """Yield that a method loses under many steps what it keeps under few."""

    def loses(found: Found) -> tuple[str, bool]:
        gap, error = found.lost("claimed", "adaptive")
        return f"{gap:.3f} +- {error:.3f}", gap > POINT + SURE * error

    return contest(
        f"{one.title}: the accuracy under the claimed evaluation is above that under many steps and restarts by more than {POINT:.0%} "
        f"and {SURE:g} standard errors",
        loses,
        one,
        rival="AT",
        against=at,
    )


def _keeps(one: Found, other: Found) -> Claim:
    """Yield that a method keeps what was claimed."""

    def keeps(found: Found) -> tuple[str, bool]:
        gap, error = found.lost("claimed", "adaptive")
        left = float(found.right("adaptive").mean())
        return f"{gap:.3f} +- {error:.3f}, {left:.3f} left", gap <= POINT + SURE * error and left >= HALF

    return contest(
        f"{one.title} loses at most {POINT:.0%} from the claimed evaluation to the adaptive one, but for {SURE:g} standard errors, and "
        "keeps half of the images",
        keeps,
        one,
        rival=other.title,
        against=other,
    )


def _suite(kept: Sequence[Found], other: Found) -> Claim:
    """Yield that the standard suite is enough where no gradient is hidden."""

    def enough(case: tuple[Sequence[Found], str]) -> tuple[str, bool]:
        some, column = case
        texts, holds = [], True
        for found in some:
            gap, error = found.lost(column, "adaptive")
            texts.append(f"{found.title} {gap:.3f} +- {error:.3f}")
            holds &= gap <= POINT
        return "; ".join(texts), holds

    return contest(
        f"the standard suite is enough for {' and '.join(one.title for one in kept)}: attacks that are longer take at most {POINT:.0%} more",
        enough,
        (kept, "standard"),
        rival=f"the claimed evaluation of {other.title}",
        against=([other], "claimed"),
    )


BRIGHT = ("fog", "brightness", "contrast")
"""Corruptions under which nets are worse that learn from attacks in L-infinity at 0.3 (Mu and Gilmer, 2019)."""
NOISY = ("gaussian_noise", "shot_noise", "impulse_noise")
"""Corruptions that are small and everywhere, as attacks are."""


def _corruptions(data: xr.Dataset) -> Iterator[Claim]:
    """Yield that robustness to attacks is not robustness to what happens by itself."""
    there = data.corruption.values.tolist()
    bright, noisy = ([name for name in names if name in there] for names in (BRIGHT, NOISY))
    if not bright or not noisy:
        return

    def worse(names: list[str]) -> tuple[str, bool]:
        wrong = data.corrupted.sel(corruption=names).mean("corruption")
        at, standard = (wrong.sel(subject=name).dropna("example") for name in ("at", "standard"))
        more = (at - standard).values
        error = float(more.std(ddof=1) / len(more) ** 0.5)
        return f"{float(at.mean()):.3f} for {float(standard.mean()):.3f}, +- {error:.3f}", more.mean() > SURE * error

    yield contest(
        f"AT errs more than standard training on images with {', '.join(bright)}, by more than {SURE:g} standard errors",
        worse,
        bright,
        rival=f"the same with {', '.join(noisy)}",
        against=noisy,
    )
