"""What the studies ccat_mnist and ccat_cifar10 say: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from studies.ccat.measure import Setting
from studies.ccat.plan import TRAININGS
from studies.common.tables import noted
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "rows", "table"]


def rows(data: xr.Dataset, setting: Setting) -> dict[str, xr.DataArray]:
    """Return the rows of the table, shares along training."""
    found = {"Err": data.test_error, "Err(tau)": data.thresholded_test_error}
    threats = [(t, f"{data.norm.values[t]} {data.epsilon.values[t]:g}") for t in _shown_threats(data, setting)]
    for name, variable in (("RErr", data.robust_error), ("RErr(tau)", data.thresholded_robust_error)):
        found |= {f"{name} {text}": variable.isel(threat=threat) for threat, text in threats}
    for kind in data.noise.values:
        found[f"FPR {kind} noise"] = data.noise_fpr.sel(noise=kind)
        found[f"FPR distal, {kind}"] = data.distal_fpr.sel(noise=kind)
    return found


def _shown_threats(data: xr.Dataset, setting: Setting) -> list[int]:
    """Return the indices of the norms' main sizes: in L-infinity all from the training's size on."""
    least = setting.threats.linf[0] - 1e-9
    pairs = zip(data.norm.values, data.epsilon.values, strict=True)
    return [index for index, (norm, epsilon) in enumerate(pairs) if norm != "linf" or epsilon >= least]


def table(data: xr.Dataset, setting: Setting) -> str:
    """Return errors and false-positive rates of each training, beside the published ones."""
    lines = noted(data)
    lines.append(
        f"{data.attrs['data_set']}, first {setting.examples} test images, tau at 99 % TPR on the last "
        f"{setting.validation}; in %, in brackets the published number"
    )
    lines.append(f"{'':22}" + "".join(f"{training:>18}" for training in TRAININGS))
    lines.append(f"{'tau':22}" + "".join(f"{value:18.4f}" for value in data.tau.values))
    for name, values in rows(data, setting).items():
        published = setting.published.get(name, {})
        cells = [
            f"{100 * value:9.2f}" + (f"{f'({published[training]:g})':>9}" if training in published else " " * 9)
            for training, value in zip(TRAININGS, values.values, strict=True)
        ]
        lines.append(f"{name:22}" + "".join(cells))
    lines.append(f"{'training time, s':22}" + "".join(f"{value:9.0f}         " for value in data.seconds.values))
    lines += [
        f"sign of false robustness, {training}: {text}"
        for training, text in zip(TRAININGS, data.failed_checks.values, strict=True)
        if text
    ]
    return "\n".join(lines)


def claims(data: xr.Dataset, name: str, setting: Setting, *, quick: bool) -> Iterator[Claim]:
    """Yield what the study claims."""
    small, large = (_threat(data, "linf", epsilon) for epsilon in setting.threats.linf)
    errors = data.test_error
    robust, rejecting = (values.isel(threat=small) for values in (data.robust_error, data.thresholded_robust_error))
    beyond = data.thresholded_robust_error.isel(threat=large)
    count = setting.examples

    def rate(values: xr.DataArray, training: str) -> float:
        return float(values.sel(training=training))

    def percent(*values: float) -> str:
        return ", ".join(f"{100 * value:.2f} %" for value in values)

    def noise(*shares: float) -> float:
        return float(np.sqrt(sum(share * (1 - share) for share in shares) / count))

    def attacked(error: float) -> tuple[str, bool]:
        clean = rate(errors, "standard")
        return f"{percent(error)} for {percent(clean)}", error > clean + 2 * noise(error, clean)

    yield contest(
        f"standard training: attacks of size {setting.threats.linf[0]:g} find more errors than there are without, by more than 2 "
        "standard errors",
        attacked,
        rate(robust, "standard"),
        rival="an attack that does nothing",
        against=rate(errors, "standard"),
    )
    if name == "ccat_cifar10" and quick:
        return  # a few steps on a few images: nothing more can be said

    def lower(training: str) -> tuple[str, bool]:
        before, after = rate(robust, "standard"), rate(robust, training)
        return f"{percent(after)} for {percent(before)}", after < before - 2 * noise(before, after)

    yield contest(
        f"adversarial training lowers the robust error at epsilon = {setting.threats.linf[0]:g} below standard training's, by "
        "more than 2 standard errors",
        lower,
        "at",
        rival="standard training itself",
        against="standard",
    )
    fpr = data.distal_fpr.max("noise")
    most, least = (0.2, 0.5) if quick else (0.01, 0.95)
    yield contest(
        f"CCAT accepts at most {most:.0%} of the distal adversarial examples",
        lambda training: (percent(rate(fpr, training)), rate(fpr, training) <= most),
        "ccat",
        rival="adversarial training",
        against="at",
    )
    yield contest(
        f"standard and adversarial training accept at least {least:.0%} of them",
        lambda some: (percent(*(rate(fpr, one) for one in some)), min(rate(fpr, one) for one in some) >= least),
        ("standard", "at"),
        rival="CCAT",
        against=("ccat",),
    )
    yield contest(
        "with rejection, CCAT errs less than adversarial training beyond the training epsilon, at "
        f"{setting.threats.linf[1]:g}",
        lambda one: (
            f"{percent(rate(beyond, one))} for {percent(rate(beyond, 'at'))}",
            rate(beyond, one) < rate(beyond, "at"),
        ),
        "ccat",
        rival="standard training with rejection",
        against="standard",
    )
    if quick:
        return
    yield contest(
        "CCAT's test error is at most that of adversarial training",
        lambda one: (
            f"{percent(rate(errors, one))} for {percent(rate(errors, 'at'))}",
            rate(errors, one) <= rate(errors, "at"),
        ),
        "ccat",
        rival="standard training",
        against="standard",
    )
    if setting.dataset == "mnist":

        def bounded(training: str) -> tuple[str, bool]:
            found = rate(rejecting, training), rate(beyond, training)
            return percent(*found), found[0] <= 0.10 and found[1] <= 0.15

        yield contest(
            "CCAT's robust error with rejection is at most 10 % at epsilon = 0.3 and 15 % at 0.4",
            bounded,
            "ccat",
            rival="adversarial training with rejection",
            against="at",
        )

        def published(training: str) -> tuple[str, bool]:
            found = rate(errors, training), rate(data.pgd_error, training), rate(robust, training)
            return percent(*found), found[0] <= 0.017 and found[1] <= 0.06 and found[2] <= 0.09

        yield contest(
            "adversarial training errs on at most 1.7 % of the images, 6 % under PGD on cross-entropy and 9 % under all "
            "attacks at epsilon = 0.3",
            published,
            "at",
            rival="CCAT without rejection",
            against="ccat",
        )
    passed = data.failed_checks.values
    yield contest(
        "no sign of false robustness",
        lambda texts: ("; ".join(text for text in texts if text) or "all checks passed", not any(texts)),
        passed,
        rival="a net that hides its gradient: larger steps, more steps or no gradient at all would find more",
        why="the study trains no such net; the tests of the checks have some",
    )


def _threat(data: xr.Dataset, norm: str, epsilon: float) -> int:
    return int(np.flatnonzero((data.norm == norm) & np.isclose(data.epsilon, epsilon))[0])
