"""What the study of the collapse says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.collapse.measure import END, RECALL, SHOWN_RHO
from studies.common.tables import noted
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["at_end", "claims", "critical_at", "table"]

_SHOWN_TIMES = END, 30.0, 300.0


def at_end(data: xr.Dataset, name: str = "critical") -> xr.DataArray:
    """Return the critical epsilons at the end of training for the share of the definition."""
    values = data[name].sel(time=END)
    return values.sel(share=RECALL) if "share" in values.dims else values


def _chosen(data: xr.Dataset, **what: Any) -> xr.Dataset:
    """Return the cases with these coordinates."""
    mask = np.ones(data.sizes["case"], bool)
    for name, value in what.items():
        mask &= data[name].values == value
    return data.isel(case=np.flatnonzero(mask))


def claims(data: xr.Dataset, *, quick: bool) -> Iterator[Claim]:
    """Check what the study claims of that which is there: of mixtures, of linear classifiers and of nets on images."""
    if "case" in data.dims:
        yield from _claims_on_mixtures(data, quick=quick)
    if "pair" in data.dims:
        yield from _claims_of_linear(data, quick=quick)
    yield from _claims_of_nets(data)


def _claims_on_mixtures(data: xr.Dataset, *, quick: bool) -> Iterator[Claim]:
    N, tolerance = (100, 0.1) if quick else (1000, 0.05)
    yield _near(data, "|w| = 1", N, tolerance)
    yield _near(data, "free |w|", 100, 0.1)
    line = data.sel(rule="|w| = 1", size=slice(0, 1.3))
    points = _chosen(data, depth=1, N=N, net_rule="|w| = 1", rho=SHOWN_RHO).isel(case=0).sel(time=END)
    b, error = (points[name].mean("net_run").dropna("net_point").values for name in ("b", "error"))
    sizes = points.net_epsilon.values[: len(b)]
    by_theory = bool((line.theory_b.diff("size") < 0).all())
    by_theory &= bool((line.theory_error.sel(size=slice(0.5, None)).diff("size") > 0).all())
    best = line.theory_error.idxmin("size").item()

    def moves(nets: tuple[Any, Any]) -> tuple[str, bool]:
        b, error = nets
        text = f"b from {b[0]:.2f} to {b[-1]:.2f}, E from {error[0]:.3f} to {error[-1]:.3f}"
        return text, by_theory and bool((np.diff(b) < 0).all() and (np.diff(error[sizes >= 0.5]) > 0).all())

    yield contest(
        f"rho = {SHOWN_RHO:g}: with every step of epsilon the bias moves out, and from 0.5 on the clean error grows, theory (E "
        f"least at {best:.2f}: {line.theory_error.min().item():.4f}) and linear nets, N = {N}",
        moves,
        (b, error),
        rival="nets that the attack does not change",
        against=(0 * b + b[0], 0 * error + error[0]),
    )
    deep = data.isel(case=np.flatnonzero(data.depth > 1))
    shares = {}
    for start in ("random", "trained"):
        some = _chosen(deep, start=start)
        some = some.isel(case=np.flatnonzero(some.rho >= SHOWN_RHO))
        shares[start] = _mean(some) / at_end(some, "expected").values
    for start, other, least, most, text in (
        (
            "random",
            "trained",
            0.0,
            0.6,
            "from random weights collapse below 0.6 of the linear theory's critical epsilon",
        ),
        ("trained", "random", 0.65, 1.0, "that were trained without attack before, at 0.65 to 1 of it"),
    ):

        def between(share: Any, least: float = least, most: float = most) -> tuple[str, bool]:
            holds = share.size > 0 and bool(((share >= least) & (share < most)).all())
            return f"{_range(share)} of it", holds

        yield contest(
            f"ReLU nets {text}, rho >= {SHOWN_RHO:g}",
            between,
            shares[start],
            rival="nets with the other start",
            against=shares[other],
        )
    if not quick:
        slow = _at_both_times(_chosen(deep, start="random"))
        early = [a for _, _, a, _ in slow]

        def later(critical: list[float]) -> tuple[str, bool]:
            rows = zip(slow, critical, strict=True)
            text = "; ".join(f"{name}, rho = {rho:g}: {c:.3f} for {a:.3f}" for (name, rho, a, _), c in rows)
            return text, bool(slow) and all(c > 1.05 * a for a, c in zip(early, critical, strict=True))

        yield contest(
            "from random weights it is in part a matter of time: at alpha = 300 the critical epsilon is larger than at "
            f"{END:g}, by more than 5 %",
            later,
            [b for _, _, _, b in slow],
            rival="a state at rest",
            against=early,
        )


def _at_both_times(deep: xr.Dataset) -> list[tuple[str, float, float, float]]:
    """Return name, rho, and the critical epsilons at alpha = 100 and 300 of the nets that were measured at both."""
    result = []
    for k in range(deep.sizes["case"]):
        one = deep.isel(case=k)
        if one.rho >= SHOWN_RHO and critical_at(one, 300.0).size:
            early, late = (float(critical_at(one, time).mean()) for time in (END, 300.0))
            result.append((one.net.item(), one.rho.item(), early, late))
    return result


def _near(data: xr.Dataset, rule: str, N: int, tolerance: float) -> Claim:
    some = _chosen(data, depth=1, N=N, net_rule=rule)
    measured = _mean(some)
    (other,) = (one for one in data.rule.values if one != rule)
    theirs = data.theory_critical.sel(rule=other, share=RECALL).interp(line_rho=some.rho.values).values

    def near(expected: Any) -> tuple[str, bool]:
        rows = zip(some.rho.values, measured, expected, strict=True)
        gap = np.abs(measured / expected - 1)
        text = "rho = " + ", ".join(f"{rho:g}: {m:.3f} for {e:.3f}" for rho, m, e in rows)
        return text, bool((gap <= tolerance).all()) and gap.size > 0

    return contest(
        f"linear nets, {rule}, N = {N}: critical epsilon within {tolerance:.0%} of theory's",
        near,
        at_end(some, "expected").values,
        rival="the theory of the other rule",
        against=theirs,
    )


def _claims_of_linear(data: xr.Dataset, *, quick: bool) -> Iterator[Claim]:
    weights = data.image_theory_norm.sel(image_theory="eta -> 0")

    def vanish(size: float) -> tuple[str, bool]:
        left = float((weights.where(data.image_epsilon > size - 0.01) / weights.isel(image_point=0)).max())
        return f"at most {left:.1%} of those without attack are left", left < 0.02

    yield contest(
        "theory on images, eta -> 0: the weights vanish (below 2 %) from half the distance of the class means on",
        vanish,
        1.0,
        rival="from 0.9 of it on",
        against=0.9,
    )
    tolerance = 0.2 if quick else 0.15
    critical = data.image_critical.mean("image_run", skipna=False)

    limit = abs(critical / data.image_theory_critical.sel(image_theory="eta -> 0") - 1)

    def near(theory: str) -> tuple[str, bool]:
        gap = abs(critical / data.image_theory_critical.sel(image_theory=theory) - 1)
        text = f"differences {_range(100 * gap.values, '.1f')} %, mean {100 * float(gap.mean()):.1f} %"
        return text, bool((gap <= tolerance).all() and gap.mean() < 0.8 * limit.mean())

    yield contest(
        f"linear classifiers on images: critical epsilon within {tolerance:.0%} of the theory's, with the noise of SGD, and in "
        "the mean a fifth or more nearer than to that of the limit eta -> 0",
        near,
        "with noise",
        rival="the theory in the limit eta -> 0",
        against="eta -> 0",
    )


def _claims_of_nets(data: xr.Dataset) -> Iterator[Claim]:
    kinds = {kind: data.conv_critical.sel(conv=kind) for kind in data.conv.values}
    for norm in ("l2", "linf"):
        at_once, slowly = (kinds.get(f"{norm}, ramp {ramp:g}") for ramp in (0.0, 0.5))
        if at_once is None or slowly is None:
            continue
        last = data.conv_epsilon.sel(conv=f"{norm}, ramp 0.5").max().item()
        most = float(at_once.max(skipna=False))

        def later(values: xr.DataArray, last: float = last, most: float = most) -> tuple[str, bool]:
            least = float(values.fillna(last).min())  # those that did not collapse
            return f"{'beyond ' if values.isnull().any() else ''}{least:.2f} for at most {most:.2f}", most < least

        yield contest(
            f"{data.attrs['deep']} nets, {norm}: with a slowly growing epsilon they collapse later, each seed",
            later,
            slowly,
            rival="the nets that meet it at once: only the last epsilon counts",
            against=at_once,
        )


def _range(values: Any, form: str = ".2f") -> str:
    numbers = np.asarray(values, np.float64)
    if np.isnan(numbers).any() or not numbers.size:
        return "not all collapse"
    return f"{numbers.min():{form}} to {numbers.max():{form}}"


def table(data: xr.Dataset) -> str:
    """Return the numbers to print."""
    lines = noted(data)
    lines += [
        f"critical epsilon over half the separation: recall of the minority falls below {RECALL:g}; mean +- s.d. of runs",
        "(n of them collapse within the measured range, where not all)",
    ]
    lines += _on_mixtures(data) if "case" in data.dims else []
    lines.append(
        f"{'on images, p = 0.7':36}{'unit':>8}{'theory, eta -> 0':>18}{'theory with noise':>19}{'linear, by SGD':>22}"
    )
    for k in range(data.sizes.get("pair", 0)):
        one = data.isel(pair=k)
        theory = one.image_theory_critical.values
        text = f"{one.classes.item()}, {one.image_norm.item()}, linear"
        lines.append(
            f"{text:36}{one.unit.item():8.3f}{theory[0]:18.3f}{theory[1]:19.3f}{_cell(one.image_critical.values):>22}"
        )
    short = "conv." if data.attrs["deep"] == "convolutional" else data.attrs["deep"]
    for kind in data.conv.values:
        one = data.sel(conv=kind)
        text = f"{data.attrs['deep_classes']}, {kind}, {short}"
        lines.append(f"{text:36}{one.conv_unit.item():8.3f}{'':37}{_cell(one.conv_critical.values):>22}")
        shown = one.conv_recall.mean("seed").values
        recalls = ", ".join(
            f"{size:g}: {x:.2f}" for size, x in zip(one.conv_epsilon.values, shown, strict=True) if np.isfinite(x)
        )
        lines.append(f"    recall over epsilon: {recalls}")
    return "\n".join(lines)


def _on_mixtures(data: xr.Dataset) -> list[str]:
    lines = [
        f"{'on mixtures, p = 0.7':33}{'rho':>4}{'recall,':>9}{'theory,':>9}{'measured':>12}",
        f"{'':37}{'eps. = 0':>9}{'linear':>9}" + "".join(f"{f'alpha = {time:g}':>20}" for time in _SHOWN_TIMES),
    ]
    for k in range(data.sizes["case"]):
        one = data.isel(case=k)
        start = one.recall.sel(time=END).isel(net_point=0).mean().item()
        lines.append(
            f"{one.net.item():33}{one.rho.item():4g}{f'{start:.3f}' if one.net_epsilon[0] == 0 else '-':>9}"
            f"{one.expected.sel(time=END).item():9.3f}"
            + "".join(f"{_cell(critical_at(one, time)):>20}" for time in _SHOWN_TIMES)
        )
    lines += [
        "",
        f"{'theory, rho = 2':24}" + "".join(f"{f'recall < {share:g}':>15}" for share in data.share.values)
        + f"{'alpha = 30':>15}{'alpha = 300':>15}{'alpha = 1000':>15}",
    ]  # fmt: skip
    for rule in data.rule.values:
        one = data.sel(rule=rule)
        numbers = one.theory_critical.interp(line_rho=SHOWN_RHO).values.tolist()
        numbers += [
            one.theory_critical_in_time.sel(share=RECALL).interp(line_alpha=time).item() for time in (30, 300, 999)
        ]
        lines.append(f"{rule:24}" + "".join(f"{x:15.3f}" for x in numbers))
    return [*lines, ""]


def _mean(some: xr.Dataset) -> Any:
    """Return the mean critical epsilon of each case at the end of training: NaN if one of its runs did not collapse."""
    return np.array([critical_at(some.isel(case=k), END).mean() for k in range(some.sizes["case"])])


def critical_at(one: xr.Dataset, time: float) -> Any:
    """Return the critical epsilons of the runs of a case that were measured at a time: none, if it was not measured."""
    if time not in one.time:
        return np.array([])
    there = one.recall.sel(time=time).notnull().any("net_point").values
    return one.critical.sel(share=RECALL, time=time).values[there]


def _cell(values: Any) -> str:
    """Return mean and standard deviation over the runs that collapsed."""
    numbers = np.asarray(values, np.float64)
    found = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return "-"
    if not found.size:
        return "none collapses"
    text = f"{found.mean():.3f} +- {found.std(ddof=1) if found.size > 1 else 0:.3f}"
    return text if found.size == numbers.size else f"{text} ({found.size})"
