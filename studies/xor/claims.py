"""What the study xor says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.common.tables import allowed_share
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "extrapolated", "resting_length", "table"]

Array = npt.NDArray[np.float64]

STATE, ERRORS = ("M", "Q", "theta", "b"), ("error", "fgsm_error")
WITHOUT_NOISE = ("eta = 0.1", "overlaps of N = 500 at N = 5000")
OTHERWISE = ("attack on the margin", "output bias learns")
OF_N = 10.0  # c of the allowance c/N
HALF = 1 / np.sqrt(2)  # half the distance of two neighbouring centres


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Check theory against simulation, the collapse against its equation, and what random starts depend on."""
    yield from _of_learning(data)
    yield from _of_collapse(data)
    yield from _of_starts(data)


def _of_learning(data: xr.Dataset) -> Iterator[Claim]:
    attacked = data.isel(line=data.line_epsilon.values > 0)
    free = data.isel(line=data.line_epsilon.values == 0)  # of the same units, in the same order
    for title, mine, other, rival in (
        ("AT", attacked, free, "standard training"),
        ("standard training", free, attacked, "AT"),
    ):
        for text, names in (("M, Q, theta and b", STATE), ("E and S under FGSM", ERRORS)):

            def near(theory: xr.Dataset, mine: xr.Dataset = mine, names: tuple[str, ...] = names) -> tuple[str, bool]:
                share = max(_largest_share(mine, theory, name) for name in names)
                return f"largest difference is {share:.2f} of that", share <= 1

            yield contest(
                f"{title}: mean {text} of simulations within 4 standard errors + {OF_N:g}/N of the theory, at all times",
                near,
                mine,
                rival=f"the theory of {rival}",
                against=other,
            )


def _largest_share(simulated: xr.Dataset, theory: xr.Dataset, name: str) -> float:
    """Return how far means are from a theory that may be another line's, in units of what is allowed."""
    runs = simulated[f"simulated_{name}"].transpose("run", ...)
    expected = theory[name].assign_coords(line=simulated.line)
    return float(allowed_share(runs, expected, OF_N / simulated.line_N).max())


def extrapolated(data: xr.Dataset) -> Array:
    """Return the epsilon at which the branch reaches w = 0, linearly from its two shortest states, shape (v,)."""
    last = data.resting_epsilon.isel(length=[-2, -1])
    q = last.length.values
    first, second = last.isel(length=0).values, last.isel(length=1).values
    found: Array = second - q[1] * (second - first) / (q[1] - q[0])
    return found


def resting_length(data: xr.Dataset, epsilon: Array) -> Array:
    """Return the length of the specialised state as eta -> 0 at the variance of the simulations, 0 beyond the collapse."""
    branch = data.resting_epsilon.sel(v=float(data.noisy_v)).dropna("length")
    x = np.concatenate([branch.values, [float(data.noisy_critical)]])
    order = np.argsort(x)
    found: Array = np.interp(epsilon, x[order], np.concatenate([branch.length.values, [0.0]])[order])
    return found


def _of_collapse(data: xr.Dataset) -> Iterator[Claim]:
    ends = extrapolated(data)

    def near(expected: Array) -> tuple[str, bool]:
        rows = zip(data.v.values, ends, expected, strict=True)
        text = "v = " + ", ".join(f"{v:g}: {end:.4f} for {one:.4f}" for v, end, one in rows)
        return text, bool((np.abs(ends - expected) < 0.002).all())

    yield contest(
        "eta -> 0: the branch of the specialised state reaches w = 0 at the epsilon of the equation, to 0.002",
        near,
        data.critical_epsilon.values,
        rival="half the distance of neighbouring centres: clusters without a width",
        against=np.full(len(ends), HALF),
    )
    N = int(data.simulated_N)
    sizes = data.simulated_size.values
    theory = data.noisy_length.dropna("size").interp(size=sizes).values
    runs = data.simulated_length.rename(simulated_run="run")
    mean, error = runs.mean("run").values, (runs.std("run", ddof=1) / np.sqrt(runs.sizes["run"])).values

    def holds(expected: Array) -> tuple[str, bool]:
        share = np.abs(mean - expected) / (4 * error + 5 / N)
        rows = zip(sizes, mean, expected, strict=True)
        text = "at " + ", ".join(f"{size:g}: {m:.3f} for {e:.3f}" for size, m, e in rows)
        return text, bool((share <= 1).all())

    yield contest(
        f"eta = {float(data.noisy_eta):g}, N = {N}, epsilon over the critical one: mean length of the weights within 4 "
        "standard errors + 5/N of the theory's, after the same time",
        holds,
        theory,
        rival="the limit eta -> 0, in which nothing is left beyond 1",
        against=resting_length(data, sizes * float(data.noisy_critical)),
    )


def _of_starts(data: xr.Dataset) -> Iterator[Claim]:
    one = data.sel(condition="as it is")
    most = float(one.start_epsilon.max())
    free, attacked = (one.sel(start_epsilon=epsilon) for epsilon in (0.0, most))

    def more(other: xr.Dataset) -> tuple[str, bool]:
        gap, error = float(other.share - free.share), float(np.hypot(other.share_error, free.share_error))
        return (
            f"{float(other.share):.2f} for {float(free.share):.2f}, s.e. of the difference {error:.2f}",
            gap > 4 * error,
        )

    yield contest(
        f"at epsilon = {most:g} a larger share of random starts finds all clusters than without an attack, by 4 standard errors",
        more,
        attacked,
        rival="the same starts without an attack",
        against=free,
    )
    there = set(data.condition.values)
    for names, text in (
        (WITHOUT_NOISE, "it is not the noise of SGD: with eta/5, and at ten times N from the same overlaps,"),
        (
            OTHERWISE,
            "nor the push the wrong way, nor the output bias: with the margin's attack, and where the bias learns,",
        ),
    ):
        some = [name for name in names if name in there]
        if not some:
            continue
        others = data.sel(condition=some, start_epsilon=most)

        def same(expected: xr.Dataset, others: xr.Dataset = others) -> tuple[str, bool]:
            allowed = 4 * np.hypot(others.share_error, float(expected.share_error)) + 0.05
            gap = abs(others.share - float(expected.share))
            text = ", ".join(f"{float(x):.2f}" for x in others.share) + f" for {float(expected.share):.2f}"
            return text, bool((gap <= allowed).all())

        yield contest(
            f"{text} the share at epsilon = {most:g} is the same within 4 standard errors + 0.05",
            same,
            attacked,
            rival="the share without an attack, to which it would fall back",
            against=free,
        )
    missed = data.sel(condition="one centre is missed before", start_epsilon=most)

    def stays(share: float) -> tuple[str, bool]:
        return f"{share:.2f} of them find it", share <= 0.05

    yield contest(
        f"a centre that is missed once is not found later: at epsilon = {most:g}, eta alpha = 20, at most 0.05 of such states",
        stays,
        float(missed.share),
        rival="random starts",
        against=float(attacked.share),
    )
    rates = data.growth.sel(turned_to="one centre") / data.growth.sel(turned_to="two centres")

    def behind(epsilon: float) -> tuple[str, bool]:
        ratio = float(rates.sel(rates_epsilon=epsilon))
        return f"{ratio:.3f} at epsilon = {epsilon:g}", ratio < 0.85

    yield contest(
        "theory, weights that are noise nearly: like units that turn to one centre grow at less than 0.85 of the rate of those "
        "that turn to two",
        behind,
        most,
        rival="no attack",
        against=0.0,
    )
    alone, together = "in R^N, an attack for each unit", "in R^N, the net's attack"
    if alone in there:
        gains = {
            name: data.share.sel(condition=name, start_epsilon=most) - data.share.sel(condition=name, start_epsilon=0.0)
            for name in (alone, together)
        }

        def less(name: str) -> tuple[str, bool]:
            gain = float(gains[name])
            return f"{gain:+.2f} for {float(gains[together]):+.2f}", gain < 0.5 * float(gains[together])

        yield contest(
            "what units share is the attack: where each meets one of its own, the gain is less than half of what it is",
            less,
            alone,
            rival="the net's attack",
            against=together,
        )


def table(data: xr.Dataset) -> str:
    """Return the critical epsilons, lengths through the collapse, and shares."""
    lines = [f"{'v':>5}{'critical epsilon':>18}{'by continuation':>18}"]
    ends = extrapolated(data)
    lines += [
        f"{v:5g}{c:18.4f}{e:18.4f}" for v, c, e in zip(data.v.values, data.critical_epsilon.values, ends, strict=True)
    ]
    lines += [
        "",
        f"length of the weights, v = {float(data.noisy_v):g}, eta = {float(data.noisy_eta):g}, N = {int(data.simulated_N)}",
        f"{'epsilon/critical':>18}{'theory':>9}{'eta -> 0':>10}{'simulated':>16}",
    ]
    sizes = data.simulated_size.values
    theory = data.noisy_length.dropna("size").interp(size=sizes).values
    limit = resting_length(data, sizes * float(data.noisy_critical))
    for i, size in enumerate(sizes):
        runs = data.simulated_length.isel(simulated_size=i)
        spread = float(runs.std(ddof=1)) / np.sqrt(runs.size)
        lines.append(f"{size:18g}{theory[i]:9.3f}{limit[i]:10.3f}{float(runs.mean()):10.3f} +- {spread:.3f}")
    lines += ["", "share of starts that find all clusters, with standard error"]
    for name in data.condition.values:
        one = data.sel(condition=name).dropna("start_epsilon", subset=["share"])
        cells = [f"{float(e):g}: {float(s):.2f} ({float(u):.2f})" for e, s, u in zip(one.start_epsilon, one.share, one.share_error, strict=True)]  # fmt: skip
        lines.append(f"{name:34}" + "  ".join(cells))
    lines += ["", f"{'growth per eta alpha at epsilon =':34}" + "".join(f"{e:8g}" for e in data.rates_epsilon.values)]
    lines += [f"  turned to {one:22}" + "".join(f"{g:8.3f}" for g in data.growth.sel(turned_to=one).values) for one in data.turned_to.values]  # fmt: skip
    return "\n".join(lines)
