"""What the study online_or_batch claims, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.common.tables import listed
from studies.online_or_batch.plan import TESTS, Plan
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "table"]

Array = npt.NDArray[np.float64]

GROWS = 1.05  # factor by which constant rates fall further behind from the last but one alpha to the last
SAVED = 0.2  # of the excess of constant rates, by rates that fall, at the last alpha
HIGHER = 1.1  # factor between the boundary errors of one pass and of the batch, from alpha = FROM on
FROM = 16.0
WINS = 0.97  # ratio of excesses below which one pass wins
SAME = 1e-9  # by which a grid may beat the optimum


def claims(data: xr.Dataset, plan: Plan) -> Iterator[Claim]:
    """Yield the claims."""
    excess = data.adversarial_error - data.least
    ratio = excess / excess.sel(learner="batch")
    attacked = ratio.sel(test_epsilon=TESTS[-1])
    mean, allowed = _runs(data, plan)
    S = data.adversarial_error.sel(alpha=data.simulated_alpha)
    lines = [
        S.sel(learner=name, drop=True).transpose(*mean[i].dims).values for i, name in enumerate(("constant", "batch"))
    ]
    yield contest(
        "at finite N both learners are on their lines, within 4 standard errors and 1/N",
        lambda theory: _near([m.values for m in mean], theory, [a.values for a in allowed]),
        lines,
        rival="the other learner's line",
        against=lines[::-1],
    )
    least, standard = (data[name] for name in ("grid", "standard"))
    of = least.mixture.str.startswith("p = 0.5")
    optimum = data.adversarial_error.sel(learner="batch").isel(alpha=-2)
    yield contest(
        f"no ridge and training attack of a grid of 16 x 16 beat the batch optimum, by more than {SAME:g}",
        lambda found: (
            f"it is lower by {listed((found - least).values[~of.values].ravel(), 6)}",
            bool((found - least).max() < SAME),
        ),
        optimum,
        rival="the best ridge without an attack in training",
        against=standard,
    )
    yield contest(
        f"with an attack, constant rates fall behind the batch: the ratio of what is above the least error grows {GROWS} fold in "
        "the last factor of alpha",
        _grows,
        attacked.sel(learner="constant"),
        rival="falling rates",
        against=attacked.sel(learner="falling"),
    )
    last = excess.isel(alpha=-1)
    yield contest(
        f"falling rates save {SAVED:.0%} or more of what constant rates leave above the least error, at the last alpha",
        lambda found: (
            listed((1 - found / last.sel(learner="constant")).values.ravel(), 2),
            bool((found <= (1 - SAVED) * last.sel(learner="constant")).all()),
        ),
        last.sel(learner="falling"),
        rival="the null, constant rates themselves",
        against=last.sel(learner="constant"),
    )
    with_attack = data.sel(test_epsilon=TESTS[-1]).isel(alpha=data.alpha.values >= FROM)
    yield contest(
        f"from alpha = {FROM:g} on, attacks orthogonal to B hurt one pass at constant rates {HIGHER} times as much as the batch, or more",
        lambda error: _higher(error.sel(learner="constant") / error.sel(learner="batch")),
        with_attack.boundary_error,
        rival="the clean error E of the same classifiers",
        against=with_attack.error,
    )
    falling = ratio.sel(learner="falling").isel(alpha=data.alpha.values >= FROM)
    unequal = falling.isel(mixture=~of.values)
    yield contest(
        f"without an attack and of unequal classes, one pass at falling rates is below the batch optimum from alpha = {FROM:g} on: "
        f"ratios below {WINS}",
        lambda found: (listed((found.min(), found.max()), 3), bool((found < WINS).all())),
        unequal.sel(test_epsilon=0.0),
        rival="the same with an attack",
        against=unequal.sel(test_epsilon=TESTS[-1]),
    )


def _runs(data: xr.Dataset, plan: Plan) -> tuple[list[xr.DataArray], list[xr.DataArray]]:
    """Return means of the runs of both learners, and how far these may be from the theory."""
    mean, allowed = [], []
    for name, N in (("online", plan.N_online), ("batch", plan.N_batch)):
        runs, dim = data[f"{name}_runs"], f"{name}_run"
        mean.append(runs.mean(dim))
        allowed.append(4 * runs.std(dim, ddof=1) / runs.sizes[dim] ** 0.5 + 1 / N)
    return mean, allowed


def _near(mean: list[Array], theory: list[Array], allowed: list[Array]) -> tuple[str, bool]:
    off = [float(np.max(np.abs(m - t) / a)) for m, t, a in zip(mean, theory, allowed, strict=True)]
    return f"off by {listed(off, 2)} of that at most (one pass, batch)", max(off) <= 1


def _grows(ratio: xr.DataArray) -> tuple[str, bool]:
    factor = (ratio.isel(alpha=-1) / ratio.isel(alpha=-2)).values
    return f"{listed(ratio.isel(alpha=-2).values, 2)} to {listed(ratio.isel(alpha=-1).values, 2)}", bool(
        np.all(factor > GROWS)
    )


def _higher(ratio: xr.DataArray) -> tuple[str, bool]:
    return f"{float(ratio.min()):.3f} to {float(ratio.max()):.3f} times", bool((ratio >= HIGHER).all())


def table(data: xr.Dataset) -> str:
    """Return what is above the least error, by learner, and the settings of constant rates and of the batch."""
    names = ["least", "constant", "falling", "batch", "eta_w", "eta_b", "epsilon", "ridge", "epsilon"]
    lines = [f"{'mixture':<18}{'test':>6}{'alpha':>7}" + "".join(f"{name:>10}" for name in names)]
    for mixture in data.mixture.values:
        for test in data.test_epsilon.values:
            for alpha in data.alpha.values:
                one = data.sel(mixture=mixture, test_epsilon=test, alpha=alpha)
                rates, epsilon = one.sel(rates="constant"), one.best_epsilon
                values = [float(one.least), *(one.adversarial_error - one.least).values]
                values += [float(rates.eta_w), float(rates.eta_b), float(epsilon.sel(learner="constant"))]
                values += [float(one.ridge), float(epsilon.sel(learner="batch"))]
                lines.append(f"{mixture:<18}{test:6g}{alpha:7g}" + "".join(f"{value:10.4g}" for value in values))
    lines.append(
        "constant, falling, batch: adversarial error above the least; then the settings of constant rates, and of the batch"
    )
    return "\n".join(lines)
