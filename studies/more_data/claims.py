"""What the study more_data says. Tolerances are standard errors over runs and test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.common.bounds import none_below
from studies.common.tables import noted
from studies.more_data.plan import Deep, Linear
from studies.more_data.theory import MIXTURE, THEORIES, known_ends
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["changes", "claims", "table", "with_gaps"]

SURE = 2.0
"""Standard errors."""


def with_gaps(data: xr.Dataset) -> xr.Dataset:
    """Add what the errors differ by, as means over runs, and their standard errors.

    What is wrong under attack and not without is a share g of the test images, of which the variance is g (1 - g) / images; that of
    the mean of the runs is added, where there are several.
    """
    standard = data.error.where(data.epsilon == 0).groupby("world").max().sel(world=data.world)
    data["standard_error"] = standard.drop_vars("world").assign_coords(data.error.coords)
    pairs = {
        "gap": (data.adversarial_error, data.error),
        "standard_gap": (data.standard_adversarial_error, data.standard_error),
        "cost": (data.error, data.standard_error),
    }
    for name, (larger, smaller) in pairs.items():
        difference = larger - smaller
        runs = difference.count("run")
        over_runs = (difference.var("run", ddof=1) / runs).where(runs > 1, 0.0)
        if name == "cost":  # errors of two nets on the same images
            share = larger.mean("run") * (1 - larger.mean("run")) + smaller.mean("run") * (1 - smaller.mean("run"))
        else:
            share = (difference.mean("run") * (1 - difference.mean("run"))).clip(0)
        data[name] = difference.mean("run")
        data[f"{name}_se"] = np.sqrt(over_runs + share / data.images)
    return data


def rows_of(data: xr.Dataset, world: str) -> xr.Dataset:
    """Return the rows of one world after adversarial training, along epsilon, and the sizes that it has."""
    one = data.isel(row=np.flatnonzero((data.world == world) & (data.epsilon > 0))).swap_dims(row="epsilon")
    return one.isel(size=np.flatnonzero(np.isfinite(one.examples.values).all(axis=0)))


def changes(one: xr.Dataset, name: str, epsilons: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Return what a gap is with the fewest and the most examples, how it has changed, and its standard error."""
    found = []
    for epsilon in epsilons:
        gap, se = (one[key].sel(epsilon=epsilon).values for key in (name, f"{name}_se"))
        found.append((gap[0], gap[-1], gap[-1] - gap[0], float(np.hypot(se[0], se[-1]))))
    return found


def _text(one: xr.Dataset, name: str, epsilons: Sequence[float]) -> str:
    found = zip(epsilons, changes(one, name, epsilons), strict=True)
    return ", ".join(f"{a:.3f} to {b:.3f} +- {se:.3f} at {epsilon:.3g}" for epsilon, (a, b, _, se) in found)


def claims(data: xr.Dataset, plans: Mapping[str, Linear | Deep]) -> Iterator[Claim]:
    """Yield what the study claims."""
    yield _theory(data)
    yield _bound(data)
    for world, plan in plans.items():
        one = rows_of(data, world)
        if isinstance(plan, Linear):
            yield from (_closes(one, f"{plan.title}, linear", epsilon) for epsilon in plan.closes)
        elif plan.images == "mnist":  # there are too few digits for what would change
            yield from (_closes(one, f"{plan.title}, deep", epsilon) for epsilon in plan.epsilons[1:])
    if "cifar10 deep" in plans:
        yield from _widens(data, plans)


def _theory(data: xr.Dataset) -> Claim:
    """Compare the gap with many examples, where there is one, with that without any."""
    epsilon = data.theory_epsilon.values
    end = (data.theory_adversarial_error - data.theory_error).isel(alpha=-1)
    wider = end.values > known_ends(epsilon)[0]
    known = np.isfinite(end.values)
    half = MIXTURE.rho / 2

    def foretold(says: npt.NDArray[np.bool_]) -> tuple[str, bool]:
        texts = [
            f"{name}: "
            + ", ".join(
                f"{e:g} {'widened' if w else 'closed'}" for e, w, k in zip(epsilon, row, there, strict=True) if k
            )
            for name, row, there in zip(data.theory.values, wider, known, strict=True)
        ]
        return "; ".join(texts), bool((wider == says)[known].all())

    return contest(
        "theory, least loss on n examples and one pass: in the end more data has closed the gap for every epsilon below half the "
        f"separation, {half:g}, and widened it for every one from there on that leaves weights",
        foretold,
        epsilon >= half,
        rival="the null that a robust classifier only needs more data",
        against=np.zeros(len(epsilon), bool),
    )


def _bound(data: xr.Dataset) -> Claim:
    """Compare every measured adversarial error with what no classifier can avoid."""
    attacked = data.isel(row=np.flatnonzero(data.epsilon > 0))
    names = "adversarial_error", "standard_adversarial_error"
    least = np.min([attacked[name].min(["size", "run"]).values for name in names], axis=0)
    where = [f"{one.world.item()} at epsilon = {one.epsilon.item():.3g}" for one in attacked.bound]
    return none_below(least, attacked.bound.values, attacked.bound_at_larger.values, where)


def _closes(one: xr.Dataset, what: str, epsilon: float) -> Claim:
    few, most = one.examples.values[0, [0, -1]]

    def closed(name: str) -> tuple[str, bool]:
        ((_, _, change, se),) = changes(one, name, [epsilon])
        return _text(one, name, [epsilon]), change < -SURE * se

    return contest(
        f"{what}: after adversarial training at epsilon = {epsilon:.3g}, S - E is smaller with {most:,.0f} images than with {few:,.0f}, by "
        f"more than {SURE:g} standard errors",
        closed,
        "gap",
        rival="standard training under the same attack",
        against="standard_gap",
    )


def _widens(data: xr.Dataset, plans: Mapping[str, Linear | Deep]) -> Iterator[Claim]:
    """Yield where more data does not help, with the nets of the other data set as the rival."""
    cifar10 = rows_of(data, "cifar10 deep")
    largest = float(cifar10.epsilon[-1])
    other = next(world for world in plans if world.endswith("deep") and world != "cifar10 deep")
    rival = rows_of(data, other)
    texts = {
        "gap": "S - E",
        "cost": "the clean error after adversarial training less that after standard training",
    }
    for name, text in texts.items():

        def wider(one: xr.Dataset, name: str = name) -> tuple[str, bool]:
            most = [float(one.epsilon[-1])]
            ((_, _, change, se),) = changes(one, name, most)
            return _text(one, name, most), change > SURE * se

        yield contest(
            f"CIFAR-10, deep: {text} grows from the fewest images to the most at epsilon = {largest:.3g}, by more than {SURE:g} standard "
            "errors",
            wider,
            cifar10,
            rival=f"{plans[other].title} at epsilon = {float(rival.epsilon[-1]):.3g}",
            against=rival,
        )


def table(data: xr.Dataset) -> str:
    """Return E, S and their difference for each number of examples, and what standard training has."""
    lines = noted(data)
    epsilon = data.theory_epsilon.values
    ends = known_ends(epsilon)
    for theory in data.theory.values:
        one = data.sel(theory=theory)
        gap = (one.theory_adversarial_error - one.theory_error).values
        lines += [
            f"theory, {THEORIES[str(theory)]}, mixture: S - E (nan: no weights are left)",
            f"{'epsilon':>9}{'no data':>9}"
            + "".join(f"{f'alpha {a:.3g}':>12}" for a in data.alpha.values[::10])
            + f"{'all data':>10}",
        ]
        for e, row, start, end in zip(epsilon, gap[:, ::10], *ends, strict=True):
            lines.append(f"{e:9g}{start:9.3f}" + "".join(f"{value:12.3f}" for value in row) + f"{end:10.3f}")
    for world in dict.fromkeys(data.world.values):
        one = rows_of(data, str(world))
        norm = {"l2": "L2", "linf": "L-infinity"}[one.norm.values[0]]
        lines += [
            "",
            f"{one.title.values[0]}, {one.kind.values[0]}, {norm}, {int(one.images.values[0])} test images: E/S after AT, and S - E "
            + "after standard training",
            f"{'epsilon':>9}{'bound':>8}" + "".join(f"{f'{n:,.0f} images':>17}" for n in one.examples.values[0]),
        ]
        for k, e in enumerate(one.epsilon.values):
            row = one.isel(epsilon=k)
            E, S = row.error.mean("run").values, row.adversarial_error.mean("run").values
            cells = zip(E, S, row.standard_gap.values, strict=True)
            text = "".join(f"{f'{a:.3f}/{b:.3f} {c:.2f}':>17}" for a, b, c in cells)
            lines.append(f"{e:9.3g}{float(row.bound):8.3f}{text}")
    return "\n".join(lines)
