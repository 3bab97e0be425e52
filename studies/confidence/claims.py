"""What the study confidence says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.common.tables import listed, noted
from studies.registry import Claim

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "table"]

ALLOWANCE = 1.0
"""What the mean over nets of N inputs may differ by from the theory beside its statistical error, in units of 1/N."""


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what the study claims."""
    N, share = data.N.item(), data.share.sel(alpha=data.simulated_alpha, level=data.measured_level)
    ratio, where = _agreement(data.simulated_share, share, share * (1 - share) / data.tests.item(), N)
    yield Claim(
        f"linear nets, N = {N}: the share that an attack reaches is within 4 standard errors + {ALLOWANCE:g}/N of the "
        "theory, at all times, delta and levels",
        f"largest difference {ratio:.2f} of that (p, |w|, training, alpha, delta = {where})",
        ratio <= 1,
        rival="a theory with the share off by 0.1",
    )
    if data.simulated_alpha[-1] == data.alpha.values[-1]:
        ratio, where = _agreement(data.simulated_auc.isel(simulated_alpha=-1), data.auc, 0.0, N)
        yield Claim(
            "and so is the AUC of confidence for right against wrong predictions, at the last time",
            f"largest difference {ratio:.2f} of that (p, |w|, training, alpha, delta = {where})",
            ratio <= 1,
            rival="the same, for what does not depend on the scale of the confidence",
        )
    epsilon = data.epsilon.item()
    at = {"delta": epsilon, "alpha": data.alpha.values[-1]}
    change = data.share.sel(at).sel(level=0.9, method="nearest")
    change = change.sel(training="at") / change.sel(training="standard")
    fixed, free = (change.sel(rule=rule).values for rule in data.rule.values)
    yield Claim(
        f"theory, delta = training epsilon = {epsilon:g}, level 0.9: adversarial training changes the share by less "
        "than a fifth where |w| = 1, and lowers it by more than two fifths where |w| is free",
        f"factors {listed(fixed)} and {listed(free)} for p = {listed(data.p.values, 1)}",
        bool((abs(fixed - 1) < 0.2).all() and (free < 0.6).all()),
        rival="the null that it lowers confidence in both models or in neither, or the two models exchanged",
    )
    gain = data.accepted.sel(delta=epsilon, bound=0.05)
    gain = gain.sel(training="at") - gain.sel(training="standard")
    yield Claim(
        "theory: but it separates little better, the accepted share of the clean examples changes by less than 0.06",
        f"by {float(gain.min()):.3f} to {float(gain.max()):.3f}",
        float(abs(gain).max()) < 0.06,
        rival="a gain in separation as large as the fall of the share",
    )
    yield from _claims_of_nets(data)


def _agreement(found: xr.DataArray, expected: xr.DataArray, variance: Any, N: int) -> tuple[float, str]:
    """Return the largest difference of the mean over runs from the theory, in units of what is allowed, and where.

    `variance` is the least that a run can have. The mean may differ by 4 standard errors and ALLOWANCE / N.
    """
    noise = np.maximum(found.std("run", ddof=1), np.sqrt(variance)) / np.sqrt(found.sizes["run"])
    ratio = abs(found.mean("run") - expected) / (4 * noise + ALLOWANCE / N)
    worst = ratio.isel(ratio.argmax(...))
    names = ("p", "rule", "training", "simulated_alpha", "delta")
    return float(worst), ", ".join(str(worst[name].item()) for name in names)


def _claims_of_nets(data: xr.Dataset) -> Iterator[Claim]:
    epsilon = data.net_epsilon.item()
    error = abs(data.net_share - data.linear_share.sel(level=data.measured_level))
    inside = error.where(data.net_delta <= epsilon + 1e-9, drop=True)
    linear = float(error.sel(net=["linear, standard", "linear, AT"]).max())
    yield Claim(
        "linear nets on images: the attack reaches what the locally linear prediction says, within 0.005",
        f"largest difference {linear:.4f}",
        linear <= 0.005,
        rival="an attack that is too weak, or a prediction that forgets the box",
    )
    limit = 0.06 if data.attrs["data_set"].startswith("digits") else 0.03  # of 95 and of 500 images
    mean = inside.max(["net_delta", "measured_level"]).max("seed")
    yield Claim(
        f"deep AT nets: it says the share within {limit:g} at all levels up to the training epsilon, for standard ones "
        "it does not",
        f"AT {float(mean.sel(net='conv, AT')):.3f}, standard {float(mean.sel(net='conv, standard')):.3f}",
        float(mean.sel(net="conv, AT")) <= limit < float(mean.sel(net="conv, standard")),
        rival="standard nets, for which the prediction must fail: one that says nothing would fail both",
    )
    at, standard = (data.sel(net=net, net_delta=epsilon) for net in ("conv, AT", "conv, standard"))
    shares = [one.net_share.sel(measured_level=0.9, method="nearest").values for one in (standard, at)]
    yield Claim(
        f"deep nets, delta = training epsilon = {epsilon:g}: after AT the share at the level 0.9 is less than half "
        "of that after standard training, for every seed",
        f"{listed(shares[0])} after standard training, {listed(shares[1])} after AT",
        bool((shares[1] < shares[0] / 2).all()),
        rival="the null that adversarial training leaves the shares as they are",
    )
    areas = [one.net_auc.values for one in (standard, at)]
    yield Claim(
        "there confidence tells right from wrong predictions at attacked points better after AT (AUC), for every seed",
        f"{listed(areas[0])} after standard training, {listed(areas[1])} after AT",
        bool((areas[1] > areas[0]).all()),
        rival="the null that adversarial training only scales the confidence: the AUC would stay",
    )
    yield _auc_claim(data)
    beyond = data.net_accepted.sel(bound=0.05).sel(net_delta=1.5 * epsilon, method="nearest")
    parts = [beyond.sel(net=net).values for net in ("conv, standard", "conv, AT")]
    yield Claim(
        f"and beyond, at delta = {beyond.net_delta.item():g}, more clean images are accepted at the level that at most "
        "5 % of the attacked ones exceed wrongly, for every seed",
        f"{listed(parts[0])} after standard training, {listed(parts[1])} after AT",
        bool((parts[1] > parts[0]).all()),
        rival="the same null, beyond the training epsilon",
    )


def _auc_claim(data: xr.Dataset) -> Claim:
    """Compare the AUC of nets with that of the seed model with the same adversarial error."""
    error = data.net_share.isel(measured_level=0)
    some = (error > 0.005) & (error < 0.995) & (data.net != "conv, CCAT")
    off = abs(data.net_auc - data.symmetric_auc).where(some)
    return Claim(
        "over all delta, the AUC is that of the seed model with equal priors and the same adversarial error, within "
        "0.08 in the mean over standard and AT nets",
        f"mean difference {float(off.mean()):.3f}, largest {float(off.max()):.3f}",
        float(off.mean()) <= 0.08,
        rival="an AUC that goes with the net and not with its adversarial error: 1 less the expected one, say",
    )


def table(data: xr.Dataset) -> str:
    """Return the numbers as lines of text."""
    lines = noted(data)
    epsilon, alpha = data.epsilon.item(), data.alpha.values[-1]
    lines += [
        f"seed model, rho = 2, alpha = {alpha:g}; AT with epsilon = {epsilon:g}, attack with delta = {epsilon:g}",
        f"{'p':>4}  {'|w|':6}{'training':9}{'|w|':>7}{'share at level 0.5':>21}{'0.9':>9}{'0.988':>9}{'AUC':>9}"
        + f"{'level 5 %':>12}{'accepted':>10}",
    ]
    for p in data.p.values:
        for rule in data.rule.values:
            for training in data.training.values:
                one = data.sel(p=p, rule=rule, training=training, delta=epsilon).isel(alpha=-1)
                five = one.sel(bound=0.05)
                lines.append(
                    f"{p:4g}  {rule:6}{training:9}{one.length.item():7.3f}{_at(one.share, 0.5):21.4f}"
                    f"{_at(one.share, 0.9):9.4f}{_at(one.share, 0.988):9.4f}{one.auc.item():9.3f}"
                    f"{five.least_level.item():12.4f}{five.accepted.item():10.3f}"
                )
    size = data.net_epsilon.item()
    lines += [
        "",
        f"{data.attrs['data_set']}, training epsilon = {size:g} in L-infinity; mean and s.d. of {data.sizes['seed']} "
        + f"seeds, {data.sizes['example']} test images",
        f"{'net':17}{'delta':>6}{'share at 0.5':>15}{'0.9':>15}{'0.988':>15}{'AUC':>8}{'level 1 %':>11}{'5 %':>8}"
        + f"{'accepted':>10}{'linear':>8}{'Gauss':>7}",
    ]
    for net in data.net.values:
        for delta in data.net_delta.values:
            one = data.sel(net=net, net_delta=delta)
            cells = [one.net_share.sel(measured_level=level, method="nearest") for level in (0.5, 0.9, 0.988)]
            off = [_off(one, name) for name in ("linear_share", "gaussian_share")]
            levels = one.net_least_level.mean("seed").values
            lines.append(
                f"{net:17}{delta:6g}" + "".join(f"{float(c.mean()):9.3f} {float(c.std(ddof=1)):5.3f}" for c in cells)
                + f"{float(one.net_auc.mean()):8.3f}{levels[0]:11.4f}{levels[1]:8.4f}"
                f"{float(one.net_accepted.sel(bound=0.05).mean()):10.3f}{off[0]:8.3f}{off[1]:7.3f}"
            )  # fmt: skip
    gains = ", ".join(f"{net} {float(data.longer_gain.sel(net=net).max()):.3f}" for net in data.net.values)
    lines += [
        "accepted: clean images right above the level that at most 5 % of the attacked ones exceed while wrong",
        "linear, Gauss: most over levels that the predicted share differs from the measured one, seeds' mean",
        f"a longer attack of three starts adds to the share, at the training epsilon, at most: {gains}",
    ]
    return "\n".join(lines)


def _at(values: xr.DataArray, level: float) -> float:
    return float(values.sel(level=level, method="nearest"))


def _off(one: xr.Dataset, name: str) -> float:
    difference = one[name].sel(level=one.measured_level) - one.net_share
    return float(abs(difference).max("measured_level").mean("seed"))
