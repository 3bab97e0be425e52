"""What the study theory_on_data says: claims and table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from studies.common.bounds import none_below
from studies.registry import Claim, contest
from studies.theory_on_data.plan import CAUSES, SAMPLES, THEORIES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "pairs_of", "table"]

LIMIT = "the limit eta -> 0"
ISOTROPIC = "the theory of classes with the same means and variances, but no covariances"
CLOSER = 0.8  # of the difference of the limit: what counts as closer
DOUBT = 0.08  # a larger difference of S is marked in the table


def pairs_of(data: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the settings of each pair of classes."""
    return {pair: data.isel(setting=np.flatnonzero(data.pair == pair)) for pair in dict.fromkeys(data.pair.values)}


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what the study claims of each pair."""
    for pair, one in pairs_of(data).items():
        gap, norms = one.difference, abs(one.norm_difference)
        l2, linf = one.norm == "l2", one.norm == "linf"
        three = pair == "mnist 3 vs 7"
        yield _within(0.02 if three else 0.03, gap.sel(sample="Gaussian"), f"{pair}: S on Gaussian samples")
        if three:
            fast, slow = one.eta == 0.01, one.eta == 0.002
            yield _within(0.07, norms.where(fast), f"{pair}, eta 0.01: norms, on Gaussian samples and on images,")
            if slow.any():
                yield _closer(norms.sel(sample="Gaussian")[slow], f"{pair}, eta 0.002: norms on Gaussian samples", 0.5)
        limit = float(gap.sel(sample="images", theory="eta -> 0").where(l2).max())
        yield contest(
            f"{pair}, L2: S on the images within {0.05 if three else 0.08:g} of theory with noise (that of the limit eta -> 0 is "
            f"off by {limit:.3f}: this does not tell the two apart)",
            _test(0.05 if three else 0.08),
            gap.sel(sample="images", theory="with noise").where(l2),
            rival=ISOTROPIC,
            against=one.isotropic_difference.sel(sample="images").where(l2),
        )
        images = gap.sel(sample="images")
        if three:
            yield _within(0.06, images.where(linf), f"{pair}, L-infinity: S on the images")
        else:
            yield _closer(images[linf], f"{pair}, L-infinity: S on the images", CLOSER)
    yield _bound(data)


def _bound(data: xr.Dataset) -> Claim:
    """Compare SGD on the images, every run at every test epsilon, with what no classifier can avoid."""
    least = data.simulated_adversarial_error.sel(sample="images").min("run")
    cases, names = [], []
    for setting in data.setting.values:
        one = data.sel(setting=setting)
        every = {"test": np.searchsorted(one.test_epsilon, one.simulated_test_epsilon)}
        cases.append(
            [least.sel(setting=setting).values, one.bound.isel(every).values, one.bound_at_larger.isel(every).values]
        )
        names += [f"{setting}, tested at {epsilon:.3g}" for epsilon in one.simulated_test_epsilon.values]
    measured, bound, larger = np.concatenate(cases, axis=1)
    return none_below(measured, bound, larger, names)


def _test(tolerance: float) -> Callable[[xr.DataArray], tuple[str, bool]]:
    return lambda differences: (
        f"largest difference {float(differences.max()):.3f}",
        float(differences.max()) <= tolerance,
    )


def _within(tolerance: float, differences: xr.DataArray, what: str) -> Claim:
    """Compare theory with noise and its limit with one tolerance."""
    limit, noise = (differences.sel(theory=theory) for theory in THEORIES)
    statement = f"{what} within {tolerance:g} of theory with noise"
    return contest(statement, _test(tolerance), noise, rival=LIMIT, against=limit)


def _closer(differences: xr.DataArray, what: str, share: float) -> Claim:
    """Compare theory with noise and its limit setting by setting."""
    limit, noise = (differences.sel(theory=theory).values for theory in THEORIES)
    return contest(
        f"{what}: theory with noise differs by less than {share:.0%} of what the limit eta -> 0 differs by",
        lambda found: (", ".join(f"{value:.3f}" for value in found), bool((found < share * limit).all())),
        noise,
        rival=LIMIT,
        against=limit,
    )


def _lacking(data: xr.Dataset) -> str:
    missing = data.attrs["missing"]
    return "none is missing" if missing == "none" else f"MISSING, and so left out: {missing}"


def table(data: xr.Dataset) -> str:
    """Return what theory and SGD differ by, and why."""
    width = max(map(len, data.setting.values)) + 1
    pairs = [(sample, theory) for sample in SAMPLES for theory in THEORIES]
    lines = [
        f"data sets: {_lacking(data)}",
        "",
        f"{'theory to SGD':{width}}{'largest difference of S':^40}{'difference of the norm at the end':^40}",
        f"{'':{width}}" + 2 * (f"{'on Gaussian samples':>20}" + f"{'on images':>20}"),
        f"{'':{width}}" + 4 * "".join(f"{theory.removeprefix('with '):>10}" for theory in THEORIES),
    ]
    for setting in data.setting.values:
        one = data.sel(setting=setting)
        S, norm = (
            [one[name].sel(sample=s, theory=t).item() for s, t in pairs] for name in ("difference", "norm_difference")
        )
        lines.append(f"{setting:{width}}" + "".join(f"{x:10.3f}" for x in S) + "".join(f"{x:+10.1%}" for x in norm))
    texts = (*CAUSES, "S", "class +1", "class -1", "theory", "images")
    groups = f"{'parts of the largest difference of S':^56}{'skewness of margins':^28}{'E at the end':^28}"
    lines += [
        "",
        f"{'theory with noise to SGD on images':{width}}{groups}",
        f"{'':{width}}" + "".join(f"{text:>14}" for text in texts),
    ]
    for setting in data.setting.values:
        one = data.sel(setting=setting)
        whole = one.difference.sel(theory="with noise", sample="images").item()
        numbers = "".join(f"{x:14.3f}" for x in (*one.part.values, whole, *one.skewness.values))
        error = (
            one.error.sel(theory="with noise")[-1].item(),
            one.simulated_error.sel(sample="images")[..., -1].mean().item(),
        )
        lines.append(
            f"{setting:{width}}{numbers}" + "".join(f"{x:14.5f}" for x in error) + (" *" if whole > DOUBT else "")
        )
    for setting in data.setting.values[np.isfinite(data.held_out_error).all("test").values]:
        one = data.sel(setting=setting)
        every = {"test": np.searchsorted(one.test_epsilon, one.simulated_test_epsilon)}
        held_out, se = (one[name].isel(every).values for name in ("held_out_error", "held_out_error_se"))
        plug_in = one.adversarial_error.sel(theory="with noise").isel(every).values
        images = one.simulated_adversarial_error.sel(sample="images").mean("run").values
        lines.append(
            f"{setting}: few samples. Theory with noise on images that were left out is above that on all by at most "
            f"{(held_out - plug_in).max():.3f}, with a standard error of at most {se.max():.3f}; it differs from SGD on the "
            f"test images by at most {abs(held_out - images).max():.3f}"
        )
    for setting in data.setting.values:
        one = data.sel(setting=setting).isel(test=-1, simulated_test=-1)
        if one.bound > 0:
            S = one.simulated_adversarial_error.sel(sample="images").mean("run").item()
            lines.append(
                f"{setting}: tested at {one.test_epsilon.item():.3g}, no classifier of these test images is below {one.bound.item():.3f}; SGD "
                f"has {S:.3f}"
            )
    lines.append(f"* S differs by more than {DOUBT:g}: the theory does not hold")
    lines.append(
        "E is small where only the tails of the margins err: negative skewness makes them longer than a Gaussian's"
    )
    return "\n".join(lines)
