"""What the study surrogates claims, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from studies.common.tables import allowed_share, listed, noted
from studies.registry import Claim, contest
from studies.surrogates.plan import SEED, TESTS, Plan
from studies.surrogates.rankings import by_chance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "table"]

FOLLOWS = 0.5
"""Least mean tau of two orders that agree; a random order of eight learners reaches it in one case of 25 at a single size."""
ROUNDING = 1e-12
"""Of a mean of taus, which are whole numbers of pairs over all pairs."""
EXACT = 1e-6
"""How far logit pairing of a linear unit may be from a decay: the tolerance of the integration."""
COST = 0.005
"""By which a learner's error is higher than another's where it is said to be."""


def claims(data: xr.Dataset, plan: Plan) -> Iterator[Claim]:
    """Yield the claims; their tolerances were set before the nets were trained."""
    allowance = 3 / plan.N  # terms of order 1/N
    yield contest(
        f"R, b and Q of runs at N = {plan.N} are those of the theory at alpha = 100, within 4 standard errors and 3/N",
        lambda state: _on(data.run_state, state, allowance),
        data.state,
        rival="the theory without what is each learner's own",
        against=data.state_without,
    )
    paired = data.pairing
    yield contest(
        f"logit pairing of a linear unit is a decay of its weights by beta epsilon^2: the same errors within {EXACT:g}",
        lambda found: _same(paired.sel(as_what="pairing"), found),
        paired.sel(as_what="decay"),
        rival="the same training without the decay",
        against=paired.sel(as_what="neither"),
    )
    for one, other, text in (
        ("seed", "logistic", "both rules of the theory rank the learners alike"),
        ("logistic", "linear", "linear nets follow the ranking of the theory of the logistic loss"),
        ("logistic", "convolutional", "convolutional nets follow the ranking of the theory of the logistic loss"),
        ("linear", "convolutional", "convolutional nets have the ranking of linear nets"),
    ):
        errors = _errors(data, other)
        yield contest(
            f"{text}: tau of {FOLLOWS} or more, in the mean over the test attacks",
            lambda tau: (f"{tau:.2f}", bool(tau >= FOLLOWS - ROUNDING)),
            float(data.tau.sel(pair=f"{one}, {other}").mean()),
            rival="what one random order in 20 exceeds",
            against=by_chance(errors, SEED),
        )
    strong = data.theory.sel(size=slice(1, None))
    yield contest(
        f"in theory, noise on the input is no substitute for an attack: at least {COST} more error than adversarial training under attacks of "
        "the training's size and above, under both rules",
        lambda name: _dearer(strong.sel(learner=name) - strong.sel(learner="adversarial")),
        "noise",
        rival="TRADES with the weight 6",
        against="TRADES, 6",
    )


def _errors(data: xr.Dataset, who: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the errors of a rule or a kind of nets, (learners, test attacks)."""
    found = data.theory.sel(rule=who) if who in data.rule else data.net.sel(kind=who).mean("seed")
    return np.asarray(found.sel(size=list(TESTS)).transpose("learner", "size").values)


def _on(runs: xr.DataArray, lines: xr.DataArray, allowance: float) -> tuple[str, bool]:
    share = float(allowed_share(runs, lines, allowance).max())  # the greatest over all rules, learners and variables
    return f"off by {share:.2f} of that at most", share <= 1


def _same(one: xr.DataArray, other: xr.DataArray) -> tuple[str, bool]:
    off = float(abs(one - other).max())
    return f"{off:.1g}", off <= EXACT


def _dearer(more: xr.DataArray) -> tuple[str, bool]:
    least = float(more.min())
    return f"{least:.4f} more, at least", least >= COST


def table(data: xr.Dataset) -> str:
    """Return the errors of all learners under each attack, and how far the orders agree."""
    columns = [*(f"theory, {rule}" for rule in data.rule.values), *(f"nets, {kind}" for kind in data.kind.values)]
    lines = noted(data)
    sizes = [0.0, *TESTS]
    lines.append(f"{'':<18}" + "".join(f"{column:>36}" for column in columns))
    lines.append(f"{'attack / training':<18}" + "".join("".join(f"{size:7g}" for size in sizes) + " " for _ in columns))
    for learner in data.learner.values:
        one = data.sel(learner=learner)
        rows = [one.theory.sel(rule=rule).values for rule in data.rule.values]
        rows += [one.net.sel(kind=kind).mean("seed").values for kind in data.kind.values]
        lines.append(f"{learner:<18}" + " ".join("".join(f"{value:7.3f}" for value in row) for row in rows))
    lines.append("")
    lines.append("Kendall's tau of two orders, at each size of the test attack")
    for pair in data.pair.values:
        tau = data.tau.sel(pair=pair)
        lines.append(f"{pair:<28}{listed(tau.values, 2)}; mean {float(tau.mean()):.2f}")
    return "\n".join(lines)
