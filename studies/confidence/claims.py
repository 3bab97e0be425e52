"""What the study confidence says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np
import xarray as xr

from studies.common.tables import listed, noted
from studies.registry import Claim, contest

__all__ = ["claims", "table"]

ALLOWANCE = 1.0
"""What the mean over nets of N inputs may differ by from the theory beside its statistical error, in units of 1/N."""


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what the study claims of that which is there: theory and nets that learn online, and nets on images."""
    if "p" in data.dims:
        yield from _claims_of_theory(data)
    yield from _claims_of_nets(data)


def _claims_of_theory(data: xr.Dataset) -> Iterator[Claim]:
    N, share = data.N.item(), data.share.sel(alpha=data.simulated_alpha, level=data.measured_level)

    def reaches(expected: xr.DataArray) -> tuple[str, bool]:
        return _agreement(data.simulated_share, expected, expected * (1 - expected) / data.tests.item(), N)

    yield contest(
        f"linear nets, N = {N}: the share that an attack reaches is within 4 standard errors + {ALLOWANCE:g}/N of the "
        "theory, at all times, delta and levels",
        reaches,
        share,
        rival="the theory of an attack that does nothing",
        against=share.isel(delta=0, drop=True).expand_dims(delta=share.delta).transpose(*share.dims),
    )
    if data.simulated_alpha[-1] == data.alpha.values[-1]:
        yield contest(
            "and so is the AUC of confidence for right against wrong predictions, at the last time",
            lambda auc: _agreement(data.simulated_auc.isel(simulated_alpha=-1), auc, 0.0, N),
            data.auc,
            rival="the line AUC = 1 - S",
            against=1 - data.share.isel(alpha=-1, level=0, drop=True),
        )
    epsilon = data.epsilon.item()
    share = data.share.sel(delta=epsilon, alpha=data.alpha.values[-1]).sel(level=0.9, method="nearest")
    change = share.sel(training="at") / share.sel(training="standard")

    def lowers(rules: list[str]) -> tuple[str, bool]:
        fixed, free = (change.sel(rule=rule).values for rule in rules)
        text = f"factors {listed(fixed)} and {listed(free)} for p = {listed(data.p.values, 1)}"
        return text, bool((abs(fixed - 1) < 0.2).all() and (free < 0.6).all())

    yield contest(
        f"theory, delta = training epsilon = {epsilon:g}, level 0.9: adversarial training changes the share by less "
        "than a fifth where |w| = 1, and lowers it by more than two fifths where |w| is free",
        lowers,
        list(data.rule.values),
        rival="the two models exchanged",
        against=list(data.rule.values[::-1]),
    )
    accepted = data.accepted.sel(bound=0.05)
    before = accepted.sel(training="standard", delta=epsilon)

    def little(after: xr.DataArray) -> tuple[str, bool]:
        gain = after - before
        return f"by {float(gain.min()):.3f} to {float(gain.max()):.3f}", float(abs(gain).max()) < 0.06

    yield contest(
        "theory: but it separates little better, the accepted share of the clean examples changes by less than 0.06",
        little,
        accepted.sel(training="at", delta=epsilon),
        rival="standard training under an attack of half the size",
        against=accepted.sel(training="standard", delta=epsilon / 2),
    )


def _agreement(found: xr.DataArray, expected: xr.DataArray, variance: Any, N: int) -> tuple[str, bool]:
    """Say what the largest difference of the mean over runs from the theory is, in units of what is allowed, and where.

    `variance` is the least that a run can have. The mean may differ by 4 standard errors and ALLOWANCE / N.
    """
    noise = np.maximum(found.std("run", ddof=1), np.sqrt(variance)) / np.sqrt(found.sizes["run"])
    ratio = abs(found.mean("run") - expected) / (4 * noise + ALLOWANCE / N)
    worst = ratio.isel(ratio.argmax(...))
    names = ("p", "rule", "training", "simulated_alpha", "delta")
    where = ", ".join(str(worst[name].item()) for name in names if name in worst.coords)
    return f"largest difference {float(worst):.2f} of that (p, |w|, training, alpha, delta = {where})", float(
        worst
    ) <= 1


def _claims_of_nets(data: xr.Dataset) -> Iterator[Claim]:
    epsilon, deep = data.net_epsilon.item(), data.attrs["deep"]
    predicted = data.linear_share.sel(level=data.measured_level)

    def exact(values: xr.DataArray) -> tuple[str, bool]:
        largest = float(abs(data.net_share - values).sel(net=["linear, standard", "linear, AT"]).max())
        return f"largest difference {largest:.4f}", largest <= 0.005

    yield contest(
        "linear nets on images: the attack reaches what the locally linear prediction says, within 0.005",
        exact,
        predicted,
        rival="the prediction for an attack of the next smaller size",
        against=predicted.shift(net_delta=1),
    )
    limit = 0.06 if data.attrs["data_set"].startswith("digits") else 0.03  # of 95 and of 500 images
    inside = abs(data.net_share - predicted).where(data.net_delta <= epsilon + 1e-9)
    most = inside.max(["net_delta", "measured_level", "seed"])

    def local(net: str) -> tuple[str, bool]:
        return f"largest difference {float(most.sel(net=net)):.3f}", float(most.sel(net=net)) <= limit

    yield contest(
        f"deep AT nets: it says the share within {limit:g} at all levels up to the training epsilon",
        local,
        f"{deep}, AT",
        rival="standard nets, at the same sizes of the attack",
        against=f"{deep}, standard",
    )
    at, standard = (data.sel(net=net, net_delta=epsilon) for net in (f"{deep}, AT", f"{deep}, standard"))
    null = "the null that training does not matter: the standard nets of the next seeds"
    shares = [one.net_share.sel(measured_level=0.9, method="nearest").values for one in (standard, at)]
    yield contest(
        f"deep nets, delta = training epsilon = {epsilon:g}: after AT the share at the level 0.9 is less than half "
        "of that after standard training, for every seed",
        lambda after: (f"{listed(after)} for {listed(shares[0])}", bool((after < shares[0] / 2).all())),
        shares[1],
        rival=null,
        against=np.roll(shares[0], 1),
    )
    yield _better("there confidence tells right from wrong predictions at attacked points better after AT (AUC)",
                  [one.net_auc.values for one in (standard, at)])  # fmt: skip
    yield from _auc_claims(data)
    beyond = data.net_accepted.sel(bound=0.05).sel(net_delta=1.5 * epsilon, method="nearest")
    parts = [beyond.sel(net=net).values for net in (f"{deep}, standard", f"{deep}, AT")]
    yield _better(
        f"and beyond, at delta = {beyond.net_delta.item():g}, more clean images are accepted at the level that at most 5 % of "
        "the attacked ones exceed wrongly",
        parts,
    )


def _better(what: str, values: list[Any]) -> Claim:
    """Compare all nets of AT with all of standard training."""
    standard, at = values
    runs = len(at)
    return contest(
        f"{what}: the least after AT is above the largest after standard training",
        lambda after: (f"{listed(after)} for {listed(standard)}", bool(after.min() > standard.max())),
        at,
        rival=f"the null that training does not matter, of which 1 order in {comb(2 * runs, runs)} is so: the standard nets again",
        against=standard,
    )


def _auc_claims(data: xr.Dataset) -> Iterator[Claim]:
    """Compare the AUC of nets with that of the seed model with the same adversarial error, and with a line."""
    error = data.net_share.isel(measured_level=0, drop=True)
    some = (error > 0.005) & (error < 0.995) & (data.net != f"{data.attrs['deep']}, CCAT")
    curve, line = data.symmetric_auc, 1 - error

    def off(expected: xr.DataArray) -> xr.DataArray:
        difference: xr.DataArray = abs(data.net_auc - expected).where(some)
        return difference

    def near(expected: xr.DataArray) -> tuple[str, bool]:
        mean, largest = float(off(expected).mean()), float(off(expected).max())
        return f"mean difference {mean:.3f}, largest {largest:.3f}", mean <= 0.08

    yield contest(
        "over all delta, the AUC goes with the adversarial error: it is that of the seed model with equal priors and the same "
        "error, within 0.08 in the mean over standard and AT nets",
        near,
        curve,
        rival="an AUC that does not depend on the error: the mean of all",
        against=xr.zeros_like(curve) + float(data.net_auc.where(some).mean()),
    )
    noise = float((off(line) - off(curve)).mean("net_delta").std(ddof=1))  # over nets
    noise /= float((off(line) - off(curve)).mean("net_delta").count()) ** 0.5

    def nearer(expected: xr.DataArray) -> tuple[str, bool]:
        gain = float((off(line) - off(expected)).mean("net_delta").mean())
        return f"nearer by {gain:.3f} +- {noise:.3f}", gain > 2 * noise

    yield contest(
        "and nearer to that curve than to the line AUC = 1 - S, by more than 2 standard errors over nets",
        nearer,
        curve,
        rival="the line",
        against=line,
    )


def table(data: xr.Dataset) -> str:
    """Return the numbers as lines of text."""
    lines = noted(data)
    lines += [*_of_theory(data), ""] if "p" in data.dims else []
    size = data.net_epsilon.item()
    lines += [
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


def _of_theory(data: xr.Dataset) -> list[str]:
    epsilon, alpha = data.epsilon.item(), data.alpha.values[-1]
    lines = [
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
    return lines


def _at(values: xr.DataArray, level: float) -> float:
    return float(values.sel(level=level, method="nearest"))


def _off(one: xr.Dataset, name: str) -> float:
    difference = one[name].sel(level=one.measured_level) - one.net_share
    return float(abs(difference).max("measured_level").mean("seed"))
