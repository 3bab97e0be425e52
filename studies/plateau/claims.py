"""What the study plateau claims, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from studies.common.tables import listed
from studies.plateau.plan import ESCAPED, ETA, Plan
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "table"]

Array = npt.NDArray[np.float64]

GAIN = 1.2  # factor by which the best epsilon must make the rate larger, at every learning rate
WITHIN = (0.1, 0.7)  # where that epsilon must be
STRONG = 0.9  # an epsilon at which the rate must be smaller than without an attack
LEVEL = 1e-3  # of the rank tests
NEAR = 0.05  # of Q_12 on the plateau


def claims(data: xr.Dataset, plan: Plan) -> Iterator[Claim]:
    """Yield the claims."""
    noise = "random noise of the same length, which moves no field as N grows: the rates of epsilon = 0"
    rate = data.specialisation_rate
    yield contest(
        f"at every eta some epsilon in [{WITHIN[0]}, {WITHIN[1]}] makes the units' difference grow {GAIN} times as fast or more",
        _gained,
        rate,
        rival=noise,
        against=rate.sel(epsilon=[0.0])
        .broadcast_like(rate.isel(epsilon=0, drop=True))
        .reindex(epsilon=rate.epsilon, method="ffill"),
    )
    weak, strong = (rate.sel(epsilon=one, method="nearest") for one in (0.0, STRONG))
    yield contest(
        f"and epsilon = {STRONG} makes it grow at most half as fast, at every eta",
        lambda ratio: (f"{float(ratio.min()):.3f} to {float(ratio.max()):.3f} times", bool((ratio <= 0.5).all())),
        strong / weak,
        rival=noise,
        against=weak / weak,
    )
    lengths = data.length.sel(epsilon=list(plan.simulated), method="nearest").values
    escape, slope = (
        data.escape.values,
        data.specialisation_rate.sel(eta=ETA).sel(epsilon=list(plan.simulated), method="nearest").values * ETA,
    )
    yield contest(
        f"the runs reach the difference {ESCAPED} at the theory's alpha, to 4 standard errors of their mean + rate x variance",
        lambda theory: _met(escape, theory, slope),
        lengths,
        rival=noise,
        against=np.full_like(lengths, lengths[0]),
    )
    at = {epsilon: data.escape.sel(simulated_epsilon=epsilon).values for epsilon in (0.0, 0.3, STRONG)}
    half = len(at[0.0]) // 2
    yield contest(
        f"the plateau of the runs is shorter at epsilon = 0.3 than at 0, by a rank test at the level {LEVEL:g}",
        lambda pair: _ranked(*pair),
        (at[0.3], at[0.0]),
        rival="the null: two halves of the runs without an attack",
        against=(at[0.0][:half], at[0.0][half:]),
    )
    yield contest(
        f"and longer at epsilon = {STRONG} than at 0, by the same test",
        lambda pair: _ranked(*pair),
        (at[0.0], at[STRONG]),
        rival="the null: two halves of the runs without an attack",
        against=(at[0.0][:half], at[0.0][half:]),
    )
    found = data.simulated_Q12.mean("run").values
    fixed = data.plateau_Q12.sel(eta=ETA).sel(epsilon=list(plan.simulated), method="nearest").values
    yield contest(
        f"on the plateau the units' overlap Q_12 is that of the symmetric fixed point, within {NEAR}",
        lambda theory: (
            f"{listed(found, 2)} for {listed(theory, 2)}", bool(np.abs(found - theory).max() <= NEAR),
        ),
        fixed,
        rival=noise,
        against=np.full_like(fixed, fixed[0]),
    )  # fmt: skip


def _gained(rate: xr.DataArray) -> tuple[str, bool]:
    best = rate.isel(epsilon=rate.argmax("epsilon"))
    gain = (best / rate.sel(epsilon=0.0)).values
    inside = (best.epsilon.values >= WITHIN[0]) & (best.epsilon.values <= WITHIN[1])
    text = f"{listed(gain, 2)} times, at epsilon = {listed(best.epsilon, 2)}"
    return text, bool(np.all(gain >= GAIN) and np.all(inside))


def _met(escape: Array, theory: Array, slope: Array) -> tuple[str, bool]:
    """Compare mean times with a theory. Noise in ln S of variance s^2 makes them earlier by about s^2 / (2 rate)."""
    variance = escape.var(axis=1, ddof=1)
    allowed = 4 * np.sqrt(variance / escape.shape[1]) + slope * variance
    off = (escape.mean(axis=1) - theory) / allowed
    return f"off by {listed(off, 2)} times that", bool(np.all(np.abs(off) <= 1))


def _ranked(shorter: Array, longer: Array) -> tuple[str, bool]:
    p = float(mannwhitneyu(shorter, longer, alternative="less").pvalue)
    return f"medians {np.median(shorter):.1f} and {np.median(longer):.1f}, p = {p:.1g}", p < LEVEL


def table(data: xr.Dataset, plan: Plan) -> str:
    """Return rates over epsilon, and escape times by theory and in the runs."""
    etas = data.eta.values
    lines = [
        f"{'epsilon':>8}"
        + "".join(f"{f'rate/eta, {eta:g}':>15}" for eta in etas)
        + f"{'Q_12':>8}{'length':>9}{'runs':>18}"
    ]
    for epsilon in data.epsilon.values:
        one = data.sel(epsilon=epsilon)
        cells = "".join(f"{float(one.specialisation_rate.sel(eta=eta)):15.4f}" for eta in etas)
        line = f"{epsilon:8.2f}{cells}{float(one.plateau_Q12.sel(eta=ETA)):8.3f}{float(one.length):9.1f}"
        near = np.abs(np.array(plan.simulated) - epsilon) < 1e-9
        if np.any(near):
            runs = data.escape.isel(simulated_epsilon=int(np.argmax(near))).values
            line += f"{f'{runs.mean():.1f} +- {runs.std(ddof=1):.1f}':>18}"
        lines.append(line)
    lines.append(
        f"rate/eta: growth rate of the units' difference at the symmetric fixed point, by eta; Q_12 and length at eta = {ETA:g};"
        f" runs: mean and standard deviation of alpha at N = {plan.N}, {plan.runs} runs"
    )
    return "\n".join(lines)
