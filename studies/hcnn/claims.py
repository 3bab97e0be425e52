"""What the study hcnn says. The tolerances are the published numbers of Wu et al. (ICML 2018), and those of the theory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.common.tables import allowed_share, listed
from studies.hcnn.found import errors_of
from studies.hcnn.measure import ATTACKS, STATIC
from studies.hcnn.plan import LEVELS
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims"]

AT_MOST, AT_LEAST = 14 / 75, 247 / 300
"""The published bounds on the share of separation of the AT net and of the natural one."""
NOTHING = 0.95
"""What is left of AWPR where rejection does nothing; published: 0.998."""
SECOND = 2 / 3
"""Of the label changes, those with the true class at the first or the second point; published: 0.86 and 0.80."""
RESTORED, KEPT = 0.15, 0.98
"""Of the label changes, and of the reductions of confidence, those with the true class first; published: 0.27, 0.24, and 0.997, 0.998."""
SURE = 2.0
"""Standard errors of a paired difference."""


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what the study claims of the nets that it has."""
    yield from _separation(data)
    yield from _rejection(data)
    if "small" in data.dims:
        yield _propositions(data)
    yield from _ranks(data)
    yield from _adaptive(data)
    if "linear_awpr" in data:
        yield from _linear(data)
    if "unit_runs" in data:
        yield from _two_layers(data)


def _separation(data: xr.Dataset) -> Iterator[Claim]:
    """Yield that the AT net separates within delta, and the natural one does not (table 1)."""
    one = data.sel(level=LEVELS[0])
    yield contest(
        f"within delta, confidence {LEVELS[0]:g}: the AT net's share of points with a confident wrong answer is at most 14/75, by its exact upper "
        "bound at confidence 0.9",
        lambda net: (f"{float(one.few_upper.sel(net=net)):.3f}", float(one.few_upper.sel(net=net)) <= AT_MOST),
        "at",
        rival="the natural net",
        against="natural",
    )
    yield contest(
        "and the natural net's is at least 247/300, by its exact lower bound",
        lambda net: (f"{float(one.few_lower.sel(net=net)):.3f}", float(one.few_lower.sel(net=net)) >= AT_LEAST),
        "natural",
        rival="the AT net",
        against="at",
    )


def _rejection(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what rejection at 0.9 leaves of AWPR (tables 2 and 3)."""
    at_level = data.sel(level_curve=LEVELS[0])

    def left(net: str) -> tuple[Any, Any]:
        one = at_level.sel(net=net)
        return one.awpr.values, one.awpr_without_rejection.values

    def halved(net: str) -> tuple[str, bool]:
        after, before = left(net)
        return f"{listed(after)} of {listed(before)}", bool(before[-1] > 0 and (after <= before / 2).all())

    yield contest(
        f"rejection at {LEVELS[0]:g} at least halves the AT net's AWPR at every eta",
        halved,
        "at",
        rival="the natural net",
        against="natural",
    )

    def nothing(net: str) -> tuple[str, bool]:
        after, before = (float(values[0]) for values in left(net))
        return f"{after:.3f} of {before:.3f}", after >= NOTHING * before > 0

    yield contest(
        f"and at the smallest eta it leaves at least {NOTHING:.0%} of the natural net's, as published",
        nothing,
        "natural",
        rival="the AT net",
        against="at",
    )

    def nothing_where_all_break(net: str) -> tuple[str, bool]:
        after, before = left(net)
        broken = before >= 0.99
        text = f"{listed(after[broken])} of {listed(before[broken])}" if broken.any() else "there is no such eta"
        return text, bool(broken.any() and (after[broken] >= NOTHING * before[broken]).all())

    yield contest(
        f"or where the attack turns 99 % of the natural net's points, which it did at the smallest eta there: at least {NOTHING:.0%} is left",
        nothing_where_all_break,
        "natural",
        rival="the AT net",
        against="at",
    )


def _propositions(data: xr.Dataset) -> Claim:
    """Yield Proposition 1 for every small net."""

    def bounds(case: tuple[str, str]) -> tuple[str, bool]:
        room = data[case[0]] - data.small_share
        tight = float((data[case[0]] / data.small_share.where(data.small_share > 0)).min())
        violated = int((room < -1e-12).any([dim for dim in room.dims if dim != "small"]).sum())
        return f"violated by {violated} of {data.sizes['small']} nets; least ratio {tight:.2f}", violated == 0

    return contest(
        "Proposition 1: in no small net is the share above the bound by the mean of the worst loss, which an attack of its own on the loss "
        "finds, at any level, radius and of both losses",
        bounds,
        ("small_bound", "loss"),
        rival="the bound by the loss without an attack",
        against=("small_clean_bound", "loss"),
    )


def _ranks(data: xr.Dataset) -> Iterator[Claim]:
    """Yield where the true class is among the AT net's embedded points (table 4)."""
    at = data.places.sel(ranked_net="at").sum("ranked")
    changed, reduced = (
        at.sel(outcome=outcome).values.astype(float) for outcome in ("label change", "confidence reduction")
    )

    def first_two(counts: Any) -> tuple[str, bool]:
        total = counts.sum()
        share = counts[:2].sum() / total if total else np.nan
        return f"{share:.3f} of {total:.0f}", bool(share >= SECOND)

    yield contest(
        f"AT net: where an attack has changed the class, the true one is that of the most confident point or of the second one in at least "
        f"{SECOND:.0%}",
        first_two,
        changed,
        rival="a random order of ten points",
        against=changed.sum() * np.array([0.1, 0.1, 0.8, 0.0]),
    )

    def restored(counts: tuple[Any, Any]) -> tuple[str, bool]:
        back, stay = (one[0] / one.sum() if one.sum() else np.nan for one in counts)
        return f"{back:.3f} and {stay:.3f}", bool(back >= RESTORED and stay >= KEPT)

    yield contest(
        f"and MCN restores at least {RESTORED:.0%} of these answers, and keeps at least {KEPT:.0%} of those whose confidence alone was reduced",
        restored,
        (changed, reduced),
        rival="the net itself, which restores none",
        against=(changed.sum() * np.array([0.0, 1.0, 0.0, 0.0]), reduced.sum() * np.array([1.0, 0.0, 0.0, 0.0])),
    )


def _rows(data: xr.Dataset, embedding: str) -> list[tuple[xr.Dataset, xr.Dataset]]:
    """Return the AT net behind an embedding, and alone under the same radius, row by row."""
    some = [data.isel(row=place) for place in range(data.sizes["row"])]
    at = [row for row in some if row.row_net.item() == "at"]
    alone = {float(row.row_eta): row for row in at if not float(row.row_xi)}
    return [
        (row, alone[float(row.row_eta)]) for row in at if float(row.row_xi) and row.row_embedding.item() == embedding
    ]


def _paired(first: Any, second: Any) -> tuple[float, float]:
    """Return by how much the first are more than the second, and the standard error; on the images that both have."""
    n = min(len(first), len(second))
    difference = first[:n].astype(float) - second[:n]
    return float(difference.mean()), float(difference.std(ddof=1) / n**0.5)


def _adaptive(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what an attack that knows the embedding finds, and what is left of the embedding."""
    rows = _rows(data, "mcn")

    def pooled(pairs: list[tuple[Any, Any]]) -> tuple[str, bool]:
        n = [min(len(a), len(b)) for a, b in pairs]
        gain, error = _paired(
            *(np.concatenate([one[:m] for one, m in zip(some, n, strict=True)]) for some in zip(*pairs, strict=True))
        )
        return f"{gain:+.3f} +- {error:.3f}", gain > SURE * error

    yield contest(
        f"AT net behind MCN: attacks that know it find more wrong answers than those on the net alone, by more than {SURE:g} standard errors, "
        "over all radii",
        pooled,
        [(errors_of(row, ATTACKS), errors_of(row, STATIC)) for row, _ in rows],
        rival="the net alone: one of these attacks more",
        against=[(errors_of(alone, STATIC), errors_of(alone, STATIC[1:])) for _, alone in rows],
    )

    def no_better(attacks: tuple[str, ...]) -> tuple[str, bool]:
        found = [_paired(errors_of(row, attacks), errors_of(alone, STATIC)) for row, alone in rows]
        text = ", ".join(f"{gain:+.3f} +- {error:.3f}" for gain, error in found)
        return f"error behind MCN less error of the net alone: {text}", all(
            gain >= -SURE * error for gain, error in found
        )

    yield contest(
        f"and then MCN is no better than the net alone under its own attacks, at any radii, but for {SURE:g} standard errors",
        no_better,
        ATTACKS,
        rival="judged by the attacks on the net alone",
        against=STATIC,
    )


# --- the mixture ---


def _linear(data: xr.Dataset) -> Iterator[Claim]:
    """Yield that linear nets with a reject option, and behind MCN, have what the theory says."""
    theory = data[["linear_awpr", "linear_recall"]].sel(linear_curve=data.linear_level.values, method="nearest")
    theory = theory.rename(linear_curve="linear_level").assign_coords(linear_level=data.linear_level)
    allowance = 2.0 / float(data.linear_N)

    def agree(xi: Any) -> tuple[str, bool]:
        parts = []
        for ours, its in (("linear_net_awpr", "linear_awpr"), ("linear_net_recall", "linear_recall")):
            expected = theory[its].sel(xi=xi).assign_coords(xi=data.xi.values)
            parts.append(float(allowed_share(data[ours], expected, allowance).max()))
        return f"largest difference {max(parts):.2f} of that", max(parts) <= 1

    yield contest(
        "linear nets that learned from the mixture: AWPR and recall, of the net and behind MCN attacked through it, are within 4 standard "
        "errors + 2/N of the theory, at all levels and radii",
        agree,
        data.xi.values,
        rival="the theory in which the embedding does not lower the threshold",
        against=np.zeros(data.sizes["xi"]),
    )


def _two_layers(data: xr.Dataset) -> Iterator[Claim]:
    """Yield that two-layer nets behind MCN err as the theory says, and that it helps them."""
    for case in data.case.values:
        one = data.sel(case=case)
        allowance = 2.0 / float(one.unit_N)

        def agree(theory: Any, one: xr.Dataset = one, allowance: float = allowance) -> tuple[str, bool]:
            clean, attacked = theory
            pairs = ((one.unit_clean_runs, clean), (one.unit_runs, attacked))
            most = max(float(allowed_share(runs, expected, allowance, "unit_run").max()) for runs, expected in pairs)
            return f"largest difference {most:.2f} of that", most <= 1

        constant = [
            theory.isel(unit_point=0, drop=True) + 0 * theory for theory in (one.unit_clean_theory, one.unit_theory)
        ]
        yield contest(
            f"two-layer nets, {case}: their errors behind MCN, without an attack and with one through it of radius {float(one.unit_eta):g}, "
            "are within 4 standard errors + 2/N of the theory, at all xi",
            agree,
            (one.unit_clean_theory, one.unit_theory),
            rival="a net whose answers the embedding does not change, as a linear one's",
            against=tuple(constant),
        )
