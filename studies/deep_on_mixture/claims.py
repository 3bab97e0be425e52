"""What the study deep_on_mixture says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xarray as xr

from studies.deep_on_mixture.committee_claims import committee_claims, committee_table
from studies.deep_on_mixture.plan import END, LARGE, TEST
from studies.registry import Claim, contest

__all__ = ["EXACT", "SAMPLED", "claims", "misses", "table"]

Array = npt.NDArray[np.float64]

EXACT = {"exact_R": "R", "exact_b": "b"}
"""The state of linear nets; their E and S follow from it."""
PREDICTIONS = {
    "overlap_prediction": "the theory for R_eff and b_eff",
    "gaussian_prediction": "Gaussian margins",
    "local_prediction": "margins that are linear at each example",
}
SAMPLED = {
    "measured_error": "error",
    "measured_adversarial_error": "adversarial_error",
    "measured_curve": "curve",
}


def misses(data: xr.Dataset, pairs: dict[str, str], off: float = 0.0) -> Array:
    """Return what mean and theory differ by, for all linear nets, after the start; its standard error, and 1/N.

    Shape (3, number of means). The theory is off by what is given, for a rival.
    """
    linear = data.isel(setting=data.net == "linear", alpha=data.alpha > 0)
    linear = linear.sel(theory_alpha=linear.alpha.values)
    found = []
    for measured, theory in pairs.items():
        values, expected = linear[measured], linear[theory]
        if "alpha" in values.dims:
            expected = expected.rename(theory_alpha="alpha")
        error = values.std("run", ddof=1) / np.sqrt(values.count("run"))
        three = xr.broadcast(values.mean("run") - expected - off, error, 1 / linear.N)
        found.append(np.stack([one.values.ravel() for one in three]))
    result = np.concatenate(found, axis=1)
    there: Array = result[:, np.isfinite(result).all(axis=0)]
    return there


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Check the linear nets against the theory, and say what is as clear in the deeper ones."""
    sizes = " and ".join(f"{N:g}" for N in np.unique(data.N))
    small = not (data.N == LARGE).any()  # the quick form
    forms = (
        ("R and b, from which E and S follow,", EXACT, 0.05 if small else 0.02),
        ("E, S and robustness curve on test examples", SAMPLED, 0.05 if small else 0.02),
    )
    for text, pairs, off in forms:

        def near(off: float, pairs: dict[str, str] = pairs) -> tuple[str, bool]:
            miss, error, finite = misses(data, pairs, off)
            share = float((abs(miss) / (4 * error + finite)).max())
            return f"largest difference is {share:.2f} of that", share <= 1

        yield contest(
            f"linear nets, N = {sizes}: mean {text} within 4 standard errors + 1/N of the theory, at all times",
            near,
            0.0,
            rival=f"a theory that is off by {off:g} in each",
            against=off,
        )
    if not small:

        def spread(off: float) -> tuple[str, bool]:
            miss, error, _ = misses(data.isel(setting=data.N == LARGE), EXACT, off)
            size = float(np.sqrt(((miss / error) ** 2).mean()))
            return f"{size:.2f}", size < 1.5

        yield contest(
            f"linear nets, N = {LARGE}: root mean square of (mean - theory) in standard errors, of R and b, below 1.5",
            spread,
            0.0,
            rival="a theory that is off by 0.006 in both, which the claims above do not notice everywhere",
            against=0.006,
        )

    deep = data.isel(setting=data.net != "linear")
    end = deep.sel(alpha=END, theory_alpha=END)
    standard = end.isel(setting=end.epsilon == 0)

    def slow(R: xr.DataArray) -> tuple[str, bool]:
        ratio = float((R / standard.R).max())
        return f"at most {ratio:.2f} of it", ratio < 0.6

    yield contest(
        f"standard training, alpha = {END:g}: mean R_eff of deeper nets below 0.6 of the linear theory's R",
        slow,
        standard.R_eff.mean("run"),
        rival="linear nets, by theory: depth that does not matter",
        against=standard.R,
    )
    cold = end.isel(setting=(end.epsilon == 1) & ~end.training.str.contains("after"))

    def blind(R: xr.DataArray) -> tuple[str, bool]:
        return f"at most {float(R.max()):.3f}", float(R.max()) < 0.25

    yield contest(
        f"AT with epsilon = 1 from a random start, alpha = {END:g}: R_eff of every deeper net below 0.25",
        blind,
        cold.R_eff,
        rival="linear nets, by theory",
        against=cold.R,
    )
    both = end.isel(setting=np.isin(end.epsilon, (0, 1)) & ~end.training.str.contains("after"))
    mean = both.R_eff.mean("run")
    seed = abs(mean - both.R)

    def explains(R: xr.DataArray) -> tuple[str, bool]:
        miss = abs(mean - R)
        text = f"by {float(miss.min()):.2f} to {float(miss.max()):.2f}, at most {float((miss / seed).max()):.2f} of it"
        return text, bool((miss < seed / 2).all())

    yield contest(
        f"the same trainings: with the nets' own rates the theory misses their mean R_eff at alpha = {END:g} by less than "
        "half of what it misses with the seed's rates",
        explains,
        both.own_R,
        rival="the theory with the seed's rates",
        against=both.R,
    )

    def local(S: xr.DataArray) -> tuple[str, bool]:
        gap = float(abs(both.measured_adversarial_error - S).mean("run").max())
        return f"at most {gap:.3f}", gap < 0.08

    overlap = local(both.overlap_prediction)[0]

    yield contest(
        "the same trainings: S measured with PGD differs from that of locally linear margins by less than 0.08, in the "
        f"mean over the nets (from the theory's S at R_eff and b_eff {overlap})",
        local,
        both.local_prediction,
        rival="the clean error: an attack that does nothing",
        against=both.measured_error,
    )

    if "committee" in data.dims:
        yield from committee_claims(data)


def table(data: xr.Dataset) -> str:
    """Return E, S and R_eff at alpha = 100, with theory; own rates; how well S is predicted."""
    head = f"{'N':>5}{'p':>5}  {'net':13}{'training':35}{'E':>11}{'theory':>7}{'S':>11}{'theory':>7}{'R_eff':>11}"
    lines = [head + f"{'theory':>7}{'own':>6}"]
    pairs = {"measured_error": "error", "measured_adversarial_error": "adversarial_error", "R_eff": "R"}
    for setting in data.setting.values:
        one = data.sel(setting=setting, alpha=END, theory_alpha=END)
        row = f"{one.N.item():5d}{one.p.item():5.1f}  {one.net.item():13}{one.training.item():35}"
        for name, theory in pairs.items():
            spread = round(1e3 * one[name].std(ddof=1).item())
            row += f"{one[name].mean().item():.3f}({spread})".rjust(11) + f"{one[theory].item():7.3f}"
        lines.append(row + f"{one.own_R.item():6.2f}")
    lines.append(
        f"alpha = {END:g}, S at test epsilon {TEST:g}; in brackets: s.d. of the nets, in units of the last digit"
    )
    lines.append("own: R of the theory with the nets' own rates, which at random starts are")
    for net in dict.fromkeys(data.net.values):
        some = data.isel(setting=(data.net == net) & ~data.training.str.contains("after"))
        lines.append(
            f"  {net:13} eta_w = {float(some.own_eta_w.mean()):.4f} ({float(some.own_eta_w.std()):.4f}), eta_b = "
            f"{float(some.own_eta_b.mean()):.3f} ({float(some.own_eta_b.std()):.3f}), b(0) = 0 "
            f"({float(some.b_eff.sel(alpha=0).std()):.2f})"
        )
    deep = data.isel(setting=data.net != "linear").sel(alpha=END)
    lines.append(
        f"S of deeper nets at alpha = {END:g}, mean and largest size of its difference from the S predicted by"
    )
    for name, text in PREDICTIONS.items():
        gap = abs(deep.measured_adversarial_error - deep[name])
        cells = [f"standard {_two(gap[deep.epsilon == 0])}", f"after AT {_two(gap[deep.epsilon > 0])}"]
        lines.append(f"  {text:42}" + ", ".join(cells))
    return "\n".join(lines + (["", *committee_table(data)] if "committee" in data.dims else []))


def _two(gap: xr.DataArray) -> str:
    return f"{float(gap.mean()):.3f}, {float(gap.max()):.3f}"
