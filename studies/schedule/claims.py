"""What the study schedule claims, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from studies.common.tables import listed
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

    from studies.schedule.plan import Plan

__all__ = ["claims", "gain", "net_best", "table"]

Array = npt.NDArray[np.float64]

GROWS = 0.9  # rank correlation of epsilon with time
LEFT = 0.1  # of the gain, where a constant eta_w is chosen as well
EXACT = 0.02  # of epsilon, on pieces of length 2


def gain(data: xr.Dataset) -> xr.DataArray:
    """Return the share of what a constant epsilon leaves above the best classifier that the best schedule takes away."""
    found: xr.DataArray = (data.map_constant_S - data.map_S) / (data.map_constant_S - data.map_classifier_S)
    return found


def net_best(data: xr.Dataset) -> xr.DataArray:
    """Return S of nets with each shape at its better strength, by the mean over seeds."""
    S = data.net_S
    best = S.mean("seed").argmin("strength")
    found: xr.DataArray = S.isel(strength=best)
    return found


def claims(data: xr.Dataset, plan: Plan) -> Iterator[Claim]:
    """Yield the claims."""
    rng = np.random.default_rng(1)
    first = data.map_schedule.isel(alpha_max=0).values.reshape(-1, plan.pieces)
    yield contest(
        f"to alpha = {plan.alpha_max[0]:g} the best epsilon grows at every p and rho: rank correlation with time of {GROWS} or more",
        _grows,
        first,
        rival="the null: the same values in a random order",
        against=rng.permuted(first, axis=1),
    )
    yield contest(
        "and ends above the test's epsilon everywhere",
        lambda ends: (f"{listed(np.array([ends.min(), ends.max()]), 2)} times", bool(np.all(ends > 1))),
        first[:, -1] / np.tile(np.array(plan.rho) / 3, len(plan.p)),
        rival="where the schedules begin",
        against=first[:, 0] / np.tile(np.array(plan.rho) / 3, len(plan.p)),
    )
    last = data.isel(case=-1)
    yield contest(
        f"at p = 1/2 it is the epsilon that makes R grow fastest, within {EXACT} on each piece",
        lambda exact: _near(last.schedule.values, exact),
        data.exact_epsilon.values,
        rival="the best constant",
        against=np.full(plan.pieces, last.constant_epsilon.item()),
    )
    yield contest(
        f"where the best constant eta_w is chosen as well, the schedule gains at most {LEFT:.0%} of what it gains at the seed's rates",
        lambda choice: _left(data, choice),
        "best constant eta_w",
        rival="the seed's eta_w, with no choice",
        against="rates of the seed",
    )
    yield contest(
        "but still it grows: from the first to the last value, whatever is chosen beside it",
        lambda values: (listed(values[:, -1] - values[:, 0], 2), bool(np.all(values[:, -1] > values[:, 0]))),
        data.choice_epsilon.sel(over_time="schedule of epsilon").values,
        rival="constant epsilons",
        against=data.choice_epsilon.sel(over_time="constant epsilon").values,
    )
    S, theory = data.simulated_S.values, data.theory_S.values
    yield contest(
        f"mean S of {plan.runs} runs at N = {plan.N} under the best schedule within 4 standard errors + 1/N of the theory",
        lambda expected: _met(S[1], expected, plan.N),
        float(theory[1]),
        rival="the theory of the best constant",
        against=float(theory[0]),
    )
    yield contest(
        "and less than under the best constant, by more than 4 standard errors",
        lambda pair: _less(*pair, 4.0),
        (S[1], S[0]),
        rival="the null: two halves of the runs under the best constant",
        against=(S[0, ::2], S[0, 1::2]),
    )


def _grows(values: Array) -> tuple[str, bool]:
    ranks = [float(spearmanr(np.arange(row.size), row).statistic) for row in values]
    return f"least {min(ranks):.2f}", min(ranks) >= GROWS


def _near(found: Array, exact: Array) -> tuple[str, bool]:
    worst = float(np.max(np.abs(found - exact)))
    return f"largest difference {worst:.4f}", worst <= EXACT


def _left(data: xr.Dataset, choice: str) -> tuple[str, bool]:
    gains = data.choice_S.sel(over_time="constant epsilon") - data.choice_S.sel(over_time="schedule of epsilon")
    share = float(gains.sel(choice=choice) / gains.sel(choice="rates of the seed"))
    return f"{share:.1%}", share <= LEFT


def _met(S: Array, expected: float, N: int) -> tuple[str, bool]:
    allowed = 4 * S.std(ddof=1) / np.sqrt(S.size) + 1 / N
    return f"{S.mean():.5f} for {expected:.5f}, {allowed:.5f} allowed", bool(abs(S.mean() - expected) <= allowed)


def _less(less: Array, more: Array, errors: float) -> tuple[str, bool]:
    error = float(np.sqrt(less.var(ddof=1) / less.size + more.var(ddof=1) / more.size))
    difference = float(more.mean() - less.mean())
    return f"{difference:.5f}, standard error {error:.5f}", difference > errors * error


def table(data: xr.Dataset, plan: Plan) -> str:
    """Return the best schedules, what is left of their gain, and the nets."""
    lines = [
        "S at the test's epsilon, at the end of training: of the best constant epsilon, of the best schedule, and of the"
    ]
    lines.append("best linear classifier; and the schedule, on pieces of equal length")
    for k, case in enumerate(plan.shown):
        one = data.isel(case=k)
        S = f"{one.constant_S.item():.4f} at {one.constant_epsilon.item():.2f}, {one.S.item():.4f}, {one.classifier_S.item():.4f}"
        lines += [f"{case.text}: {S}", f"    {listed(one.schedule, 2)}"]
    lines += [
        "",
        f"where rates are chosen as well ({plan.shown[0].text}): S of the best constant epsilon, of the best schedule, gain",
    ]
    for choice in data.choice.values:
        constant, free = data.choice_S.sel(choice=choice).values
        lines.append(f"{choice:22}{constant:9.5f}{free:9.5f}{constant - free:9.5f}")
    lines += [
        "",
        "share of what the best constant leaves above the best classifier that the best schedule takes away, p down, rho across",
    ]
    for alpha_max in plan.alpha_max:
        lines.append(f"to alpha = {alpha_max:g}" + "".join(f"{rho:8.1f}" for rho in plan.rho))
        lines += [
            f"{p:14.1f}" + "".join(f"{value:8.1%}" for value in gain(data).sel(alpha_max=alpha_max, p=p).values)
            for p in plan.p
        ]
    lines += ["", *_nets(data)]
    return "\n".join(lines)


def _nets(data: xr.Dataset) -> Iterator[str]:
    best: Any = net_best(data)
    yield "nets: S, mean over seeds, of each shape at its better strength (in units of the test's epsilon); paired differences"
    yield (
        f"{'':38}"
        + "".join(f"{shape:>18}" for shape in data.shape_of.values)
        + f"{'growing - warm-up':>24}{'growing - constant':>24}"
    )
    for kind in data.kind.values:
        one = best.sel(kind=kind).dropna("seed")
        cells = "".join(
            f"{float(one.sel(shape_of=shape).mean()):10.3f} at {float(one.sel(shape_of=shape).strength):.1f}" + " " * 1
            for shape in data.shape_of.values
        )
        for other in ("warm-up", "constant"):
            change = (
                one.sel(shape_of="growing", drop=True).drop_vars("strength", errors="ignore")
                - one.sel(shape_of=other, drop=True).drop_vars("strength", errors="ignore")
            ).values
            cells += f"{f'{change.mean():+.3f} +- {change.std(ddof=1) / np.sqrt(change.size):.3f}':>24}"
        yield f"{kind:38}{cells}"
