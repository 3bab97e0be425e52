"""What the studies ccat_mnist and ccat_cifar10 say: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from studies.ccat.measure import Setting
from studies.ccat.plan import TRAININGS
from studies.common.tables import noted
from studies.registry import Claim

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
    at, ccat = (data.sel(training=training) for training in ("at", "ccat"))
    small, large = (_threat(data, "linf", epsilon) for epsilon in setting.threats.linf)

    def rates(values: xr.DataArray) -> str:
        return ", ".join(f"{one} {100 * float(values.sel(training=one)):.2f} %" for one in TRAININGS)

    curve = data.curve.sel(rule="all")
    falls = float(curve.diff("size").min())
    yield Claim(
        "the robust error does not fall with the size of the perturbation, and is never below the test error",
        f"least step {falls:.4f}",
        falls >= 0 and bool((data.robust_error >= data.test_error).all()),
        rival="records that are mixed up, or attacks that forget what smaller ones found",
    )
    if name == "ccat_cifar10" and quick:
        return  # a few steps on a few images: nothing more can be said
    robust = data.robust_error.isel(threat=small)
    yield Claim(
        f"adversarial training lowers the robust error at epsilon = {setting.threats.linf[0]:g} below standard training's",
        rates(robust),
        float(robust.sel(training="at")) < float(robust.sel(training="standard")),
        rival="standard training itself: the null that adversarial training does nothing",
    )
    fpr = data.distal_fpr.max("noise")
    most, least = (0.2, 0.5) if quick else (0.01, 0.95)
    yield Claim(
        f"CCAT accepts at most {most:.0%} of the distal adversarial examples, standard and adversarial training at least "
        f"{least:.0%}",
        rates(fpr),
        float(fpr.sel(training="ccat")) <= most and float(fpr.sel(training=["standard", "at"]).min()) >= least,
        rival="standard and adversarial training themselves, which must accept them: an attack that is too weak would fail it",
    )
    other = data.thresholded_robust_error.isel(threat=large)
    yield Claim(
        "with rejection, CCAT errs less than adversarial training beyond the training epsilon, at "
        f"{setting.threats.linf[1]:g}",
        rates(other),
        float(ccat.thresholded_robust_error[large]) < float(at.thresholded_robust_error[large]),
        rival="adversarial training with the same rejection rule",
    )
    if quick:
        return
    yield Claim(
        "CCAT's test error is at most that of adversarial training",
        rates(data.test_error),
        float(ccat.test_error) <= float(at.test_error),
        rival="adversarial training itself",
    )
    if setting.dataset == "mnist":
        bounds = {small: 0.10, large: 0.15}
        errors = {threat: float(ccat.thresholded_robust_error[threat]) for threat in bounds}
        yield Claim(
            "CCAT's robust error with rejection is at most 10 % at epsilon = 0.3 and 15 % at 0.4",
            ", ".join(f"{100 * error:.2f} %" for error in errors.values()),
            all(errors[threat] <= bound for threat, bound in bounds.items()),
            rival="standard and adversarial training at 0.4, which err on every image that is accepted",
        )
        found = float(at.test_error), float(at.pgd_error), float(at.robust_error[small])
        yield Claim(
            "adversarial training errs on at most 1.7 % of the images, 6 % under PGD on cross-entropy and 9 % under all "
            "attacks at epsilon = 0.3",
            ", ".join(f"{100 * error:.2f} %" for error in found),
            found[0] <= 0.017 and found[1] <= 0.06 and found[2] <= 0.09,
            rival="a training that is too short, or one whose robustness does not survive stronger attacks",
        )
    passed = data.failed_checks.values
    yield Claim(
        "no sign of false robustness",
        "; ".join(text for text in passed if text) or "all checks passed",
        not any(passed),
        rival="a net that hides its gradient: larger steps, more steps or no gradient at all would find more",
    )


def _threat(data: xr.Dataset, norm: str, epsilon: float) -> int:
    return int(np.flatnonzero((data.norm == norm) & np.isclose(data.epsilon, epsilon))[0])
