"""What the study deep_on_mixture says of two-layer nets that learn by the theory's own rule: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.deep_on_mixture.committees import MANY
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["committee_claims", "committee_table"]

Array = npt.NDArray[np.float64]

OF_N = 5.0  # c of the allowance c/N
OFF = 0.01  # what a wrong theory is off by


def _apart(data: xr.Dataset, off: float = 0.0) -> tuple[Array, Array, Array]:
    """Return mean - theory, standard error and N of all entries after the start, of one dimension."""
    late = data.isel(committee_alpha=slice(1, None))
    runs = late.committee_measured
    error = runs.std("committee_run", ddof=1) / np.sqrt(runs.count("committee_run"))
    gap = runs.mean("committee_run") - late.committee_theory - off
    N = data.committee_N.broadcast_like(gap)
    there = np.isfinite(gap.values) & np.isfinite(error.transpose(*gap.dims).values)
    return gap.values[there], error.transpose(*gap.dims).values[there], N.transpose(*gap.dims).values[there]


def committee_claims(data: xr.Dataset) -> Iterator[Claim]:
    """Check nets in R^N against the two-layer theory, and those with many units against the reduced simulation."""
    hidden = ", ".join(f"{K:g}" for K in np.unique(data.hidden))
    N = ", ".join(f"{N:g}" for N in np.unique(data.committee_N))

    def near(off: float) -> tuple[str, bool]:
        gap, error, N = _apart(data, off)
        share = np.abs(gap) / (4 * error + OF_N / N)
        return f"largest of {share.size} differences is {share.max():.2f} of that", bool((share <= 1).all())

    small = float(data.committee_N.min()) < 500
    yield contest(
        f"{hidden} hidden units by the theory's rule, FGSM and PGD, N = {N}: mean order parameters at all times, E and S at the "
        f"end, within 4 standard errors + {OF_N:g}/N of the two-layer theory",
        near,
        0.0,
        rival=f"a theory that is off by {5 * OFF if small else OFF:g} in each",
        against=5 * OFF if small else OFF,
    )

    def spread(off: float) -> tuple[str, bool]:
        gap, error, _ = _apart(data, off)
        size = float(np.sqrt(((gap / error) ** 2).mean()))
        return f"{size:.2f}", size < 1.5

    yield contest(
        "the same: root mean square of (mean - theory) in standard errors below 1.5",
        spread,
        0.0,
        rival=f"a theory that is off by {3 * OFF if small else OFF:g} in each",
        against=3 * OFF if small else OFF,
    )
    measured = data.many_measured.isel(committee_alpha=slice(1, None))

    def same(name: str) -> tuple[str, bool]:
        other = data[name].isel(committee_alpha=slice(1, None))
        variance = sum(one.var("many_run", ddof=1) / one.sizes["many_run"] for one in (measured, other))
        gap = abs(measured.mean("many_run") - other.mean("many_run")) / np.sqrt(variance)
        return f"largest of {gap.size} differences is {float(gap.max()):.2f} standard errors", float(gap.max()) < 4

    yield contest(
        f"{MANY} ReLU units, N = {int(data.many_N)}: means over the units of like sign, and the overlap of sum_k c_k w_k with B, as "
        "in the reduced simulation from the same starts, within 4 standard errors",
        same,
        "many_reduced",
        rival="the reduced simulation without an attack",
        against="many_standard",
    )


def committee_table(data: xr.Dataset) -> list[str]:
    """Return how far nets are from the theory, a setting a line, and the overlap of nets with many units."""
    lines = [
        "two-layer nets by the theory's rule: size of mean - theory of the order parameters at all times after the start",
        f"{'':14}{'N':>6}{'runs':>6}{'largest':>10}{'r.m.s. in s.e.':>16}{'E':>9}{'theory':>9}{'S, FGSM':>9}{'theory':>9}",
    ]
    for i in range(data.sizes["committee"]):
        one = data.isel(committee=[i])
        gap, error, N = _apart(one)
        end = one.isel(committee=0, committee_alpha=-1)
        runs = end.committee_measured.mean("committee_run")
        cells = [
            f"{float(x.sel(entry=name)):9.4f}" for name in ("error", "fgsm_error") for x in (runs, end.committee_theory)
        ]
        count = int(one.committee_measured.count("committee_run").max())
        lines.append(
            f"{one.committee.item():14}{N[0]:6g}{count:6d}{np.abs(gap).max():10.4f}"
            f"{np.sqrt(((gap / error) ** 2).mean()):16.2f}" + "".join(cells)
        )
    end = data.sel(group="R_out").isel(committee_alpha=-1)
    cells = []
    for name, text in (("many_measured", "nets"), ("many_reduced", "reduced"), ("many_standard", "reduced, no attack")):
        runs = end[name]
        cells.append(f"{text} {float(runs.mean()):.4f} ({float(runs.std(ddof=1)) / np.sqrt(runs.size):.4f})")
    lines.append(
        f"{MANY} ReLU units, N = {int(data.many_N)}, overlap of sum_k c_k w_k with B at the end: " + ", ".join(cells)
    )
    return lines
