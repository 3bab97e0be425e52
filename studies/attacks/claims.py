"""What the study attacks says. Every tolerance was set before the first run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.attacks.found import LABELS, Net
from studies.attacks.plan import KINDS, TRANSFER, UNIVERSAL
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["STANDARD", "claims"]

WHITE = KINDS["gradient"], KINDS["minimal"]
BLACK = (KINDS["black_box"],)
STANDARD = ("apgd_ce", "apgd_t", "fab_t", "square")
"""What AutoAttack's standard suite is made of (Croce and Hein, ICML 2020)."""
NULL = ("pgd",)
"""The rival: PGD on cross-entropy, 40 steps from one start."""
NEAREST = ("fab", "carlini_wagner")
"""Attacks that are to come nearer than DeepFool."""
ALLOWED = 0.02
"""Share of the images by which a suite may miss what others find."""


def claims(data: xr.Dataset, *, quick: bool) -> Iterator[Claim]:
    """Yield what the study claims of the attacks that are in the registry; the quick form has too few steps for some."""
    nets = {str(name): Net(data, str(name)) for name in data.net.values}
    masked = nets.pop("masked")
    standard, at, ccat = (nets[name] for name in ("standard", "at", "ccat"))
    yield from _white_and_black(list(nets.values()), masked)
    yield from _distances(standard, at, ccat, times=1.0 if quick else 2.0)
    if not quick:
        yield from _confidence(at, ccat)
        yield from _nearest(standard, at)
        yield from _suite(at, ccat)
        yield from _prepared(standard, at)
        yield from _zoo(standard)


def _white_and_black(plain: Sequence[Net], masked: Net) -> Iterator[Claim]:
    """Yield whether attacks that see gradients find what those by queries find, unless the gradient is masked."""

    def no_weaker(some: Sequence[Net]) -> tuple[str, bool]:
        texts, holds = [], True
        for net in some:
            for norm in ("linf", "l2"):
                white, black = net.attacks(norm, WHITE), net.attacks(norm, BLACK)
                if not white or not black:
                    continue
                missed, count = net.missed(white, black, norm)
                holds &= missed <= ALLOWED
                texts.append(f"{LABELS[net.name]}, {norm} {100 * missed:.0f} % of {count}")
        return "; ".join(texts), holds

    yield contest(
        f"in L-infinity and L2, attacks by queries break at most {ALLOWED:.0%} of the images that none breaks that sees "
        "gradients, on every net",
        no_weaker,
        plain,
        rival="the standard net with its logits times a million, which has no gradient of cross-entropy: PGD on it, and Square",
        against=[masked],
    )


def _confidence(at: Net, ccat: Net) -> Iterator[Claim]:
    """Yield what rejection by confidence changes."""
    seekers = [name for name in at.attacks("linf") if "confidence" not in name]

    def saved(net: Net) -> tuple[str, bool]:
        count = net.most_images(seekers, "linf")
        lost, accepted = 1 - net.robust(seekers, "linf", count), net.accepted_error(seekers, "linf", count)
        return f"{lost:.2f} wrong, {accepted:.2f} wrong and accepted", lost - accepted >= 0.4

    yield contest(
        "CCAT in L-infinity: of what all attacks on the class break, rejection by confidence takes back at least 40 % of the "
        "images",
        saved,
        ccat,
        rival="AT",
        against=at,
    )


def _distances(standard: Net, at: Net, ccat: Net, *, times: float) -> Iterator[Claim]:
    """Yield how near the attacks that look for the nearest come."""
    nearest = standard.attacks("linf", [KINDS["minimal"]])
    count = standard.images(nearest, "linf")
    before = _median(standard.distance(nearest, "linf", count))

    def farther(net: Net) -> tuple[str, bool]:
        after = _median(net.distance(nearest, "linf", count))
        return f"median {after:.3f} for {before:.3f}", after > times * before

    yield contest(
        f"the median of the least distances in L-infinity is more than {times:g} times as large after AT, in its own norm, as "
        "after standard training",
        farther,
        at,
        rival="CCAT, which does not move the boundary but the confidence",
        against=ccat,
    )


def _nearest(standard: Net, at: Net) -> Iterator[Claim]:
    """Yield whether attacks that search longer than DeepFool come nearer."""
    able = [name for name in NEAREST if name in standard.attacks("l2")]
    rival = "hop_skip_jump"
    if able and rival in standard.attacks("l2"):
        both = [*able, "deepfool", rival]

        def nearer(names: Sequence[str]) -> tuple[str, bool]:
            texts, holds = [], True
            for net in (standard, at):
                count = net.images(both, "l2")
                bound = _median(net.distance(["deepfool"], "l2", count))
                found = [_median(net.distance([name], "l2", count)) for name in names]
                holds &= max(found) <= bound
                medians = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, found, strict=True))
                texts.append(f"{LABELS[net.name]}: {medians}, deepfool {bound:.3f}")
            return "; ".join(texts), holds

        yield contest(
            f"in L2, the medians of {' and '.join(able)} are at most DeepFool's, on the standard and the AT net",
            nearer,
            able,
            rival="HopSkipJump, which sees labels alone",
            against=[rival],
        )


def _suite(at: Net, ccat: Net) -> Iterator[Claim]:
    """Yield whether a suite finds what all attacks find together."""
    if not set(STANDARD) <= set(at.attacks("linf")):
        return

    def enough(case: tuple[Net, Sequence[str]]) -> tuple[str, bool]:
        net, chosen = case
        missed, count = net.missed(chosen, net.attacks("linf"), "linf")
        return f"{100 * missed:.0f} % of {count} images are broken by others alone", missed <= ALLOWED

    yield contest(
        f"AT in L-infinity: {', '.join(STANDARD)} together miss at most {ALLOWED:.0%} of the images that any attack breaks",
        enough,
        (at, STANDARD),
        rival="a suite of PGD on cross-entropy alone (40 steps), on CCAT",
        against=(ccat, NULL),
    )


def _prepared(standard: Net, at: Net) -> Iterator[Claim]:
    """Yield what attacks find that are prepared on other images, or on another net."""
    if "universal" in standard.attacks("linf"):

        def fools(name: str) -> tuple[str, bool]:
            row = standard.row(name, "linf", UNIVERSAL)
            count = int(row.images)
            correct = standard.correct(count)
            share = float((row.broken.values[:count][correct] == 1).mean())
            return f"{share:.0%} of {correct.sum()} images", share > 0.5

        yield contest(
            f"one universal perturbation of size {UNIVERSAL:g} in L-infinity breaks more than half of the held-out images that the "
            "standard net classifies correctly",
            fools,
            "universal",
            rival="the best of ten uniform noises of that size, for each image",
            against="uniform_noise",
        )
    if TRANSFER in at.attacks("linf"):

        def weaker(name: str) -> tuple[str, bool]:
            count = at.images([name, "pgd"], "linf")
            left, direct = (~at.broken([one], "linf", count) for one in (name, "pgd"))
            gain = left.astype(float) - direct
            error = float(gain.std(ddof=1)) / count**0.5
            return f"{left.mean():.2f} for {direct.mean():.2f}, +- {error:.2f}", gain.mean() > 2 * error

        yield contest(
            "AT in L-infinity: attacks that are found on another net leave more images than PGD on the net itself, by more "
            "than 2 standard errors of the difference",
            weaker,
            TRANSFER,
            rival="PGD itself",
            against="pgd",
        )


def _zoo(standard: Net) -> Iterator[Claim]:
    """Yield whether differences do in the place of the gradient."""
    if not {"zoo", "carlini_wagner", "deepfool"} <= set(standard.attacks("l2")):
        return

    def close(name: str) -> tuple[str, bool]:
        count = standard.images(["zoo", "carlini_wagner", "deepfool"], "l2")
        mine, its = (float(standard.distance([one], "l2", count).mean()) for one in (name, "carlini_wagner"))
        return f"{mine:.3f} for {its:.3f} on {count} images, a ratio of {mine / its:.3f}", mine <= 1.05 * its

    yield contest(
        "ZOO's mean distance in L2 on the standard net is at most 1.05 times that of Carlini and Wagner's attack",
        close,
        "zoo",
        rival="DeepFool",
        against="deepfool",
    )


def _median(distances: npt.NDArray[np.float64]) -> float:
    """Return the median, infinite where there is none."""
    return float(np.median(distances)) if distances.size else float("inf")
