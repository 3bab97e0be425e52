"""What the study of the collapse shows and says: labels, claims, table and figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.parameters import LABELS
from odeflow.plot import draw_lines, draw_points, new_figure, style, symbol
from studies.registry import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["END", "RECALL", "SHOWN_RHO", "claims", "describe", "figures", "table"]

RECALL = 0.1
"""A net that recognises a smaller share of the minority has collapsed."""
SHOWN_RHO = 2.0
"""Separation of the centres in the panels that have one."""
END = 100.0
"""Learning time alpha at which nets are judged."""
_SHOWN_TIMES = END, 30.0, 300.0
_UNITS = "half the separation"


def describe(data: xr.Dataset) -> None:
    """Give each variable its long name and unit."""
    critical = "training epsilon at which the recall of the minority falls below the share"
    theory = "theory's {} at the end of training, over the training epsilon"
    names = {
        "size": "training epsilon",
        "line_rho": LABELS["rho"][0],
        "line_alpha": LABELS["alpha"][0],
        "share": "share of the minority class below which a net has collapsed",
        "rule": "learning rule: |w| = 1 with eta_w = 0.04, or free |w| with eta_w = 0.4",
        "theory_recall": theory.format("recall of the minority class"),
        "theory_b": theory.format("bias in units of |w|"),
        "theory_error": theory.format("classification error"),
        "theory_trained_recall": theory.format("recall of the minority class") + ", started from a trained state",
        "theory_critical": f"theory's critical epsilon over rho: {critical}",
        "theory_critical_in_time": f"theory's critical epsilon over alpha: {critical}",
        "net": "net, trained online on the mixture",
        "rho": LABELS["rho"][0],
        "N": LABELS["N"][0],
        "depth": "layers of weights",
        "start": "first weights: random, or of a training without attack",
        "net_rule": "learning rule of the net",
        "time": "learning time alpha at which the net is measured",
        "net_run": LABELS["run"][0],
        "net_point": "index of the training epsilon",
        "image_point": "index of the training epsilon",
        "net_epsilon": "training epsilon",
        "recall": "recall of the minority class, on clean examples",
        "error": LABELS["error"][0],
        "R": "cosine between the direction of the centres and the gradient of the margin, mean over examples",
        "b": "bias in units of |w|, of linear nets",
        "critical": f"measured {critical}",
        "expected": f"theory's {critical}, for a linear net of the same rule and start, share {RECALL:g}",
        "image_theory": "theory on data in the limit of small learning rates, or with the noise of SGD",
        "image_run": LABELS["run"][0],
        "image_norm": LABELS["norm"][0],
        "image_eta": "learning rate of weights and bias, per example",
        "classes": "majority against minority",
        "unit": "half the distance of the class means in the norm of the attack, in units of a pixel's range",
        "image_epsilon": "training epsilon",
        "image_theory_recall": "theory's recall of the minority class, of the mean weights",
        "image_theory_error": "theory's classification error",
        "image_theory_b": "theory's bias",
        "image_theory_norm": "theory's L2 norm of the weights",
        "image_theory_critical": f"theory's {critical}",
        "image_recall": "recall of the minority class on the test images",
        "image_error": "classification error on the test images",
        "image_b": LABELS["b"][0],
        "image_norm_of_w": LABELS["l2_norm"][0],
        "image_critical": f"measured {critical}",
        "conv": "norm of the attack on the convolutional net, and share of the training over which epsilon grows",
        "seed": "seed of the convolutional net",
        "conv_epsilon": "training epsilon",
        "conv_unit": "half the distance of the class means of its training images, in units of a pixel's range",
        "conv_recall": "recall of the minority class on the test images, convolutional net",
        "conv_error": "classification error on the test images, weighted by the priors, convolutional net",
        "conv_critical": f"measured {critical}, convolutional net",
    }
    lengths = {"size", "theory_critical", "theory_critical_in_time", "net_epsilon", "critical", "expected", "image_epsilon",
               "image_theory_critical", "image_critical", "conv_epsilon", "conv_critical"}  # fmt: skip
    for name, text in names.items():
        data[name].attrs = {"long_name": text, "units": _UNITS if name in lengths else "1"}


# --- what is said ---


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
    """Check what the study claims."""
    N, tolerance = (100, 0.1) if quick else (1000, 0.05)
    yield _near(_chosen(data, depth=1, N=N, net_rule="|w| = 1"), tolerance, f"linear nets, |w| = 1, N = {N}")
    yield _near(_chosen(data, depth=1, N=100, net_rule="free |w|"), 0.1, "linear nets, free |w|, N = 100")
    line = data.sel(rule="|w| = 1", size=slice(0, 1.3))
    points = _chosen(data, depth=1, N=N, net_rule="|w| = 1", rho=SHOWN_RHO).isel(case=0).sel(time=END)
    b, error = (points[name].mean("net_run").dropna("net_point") for name in ("b", "error"))
    above = error.where(points.net_epsilon[error.net_point] >= 0.5, drop=True)
    moves = bool((line.theory_b.diff("size") < 0).all() and (b.diff("net_point") < 0).all())
    grows = bool(
        (line.theory_error.sel(size=slice(0.5, None)).diff("size") > 0).all() and (above.diff("net_point") > 0).all()
    )
    best = line.theory_error.idxmin("size").item()
    yield Claim(
        f"rho = {SHOWN_RHO:g}: with every step of epsilon the bias moves out, and from 0.5 on the clean error grows, theory and "
        f"linear nets, N = {N}",
        f"nets: b from {b[0].item():.2f} to {b[-1].item():.2f}, E from {error[0].item():.3f} to {error[-1].item():.3f}; "
        f"theory's E is least at {best:.2f}: {line.theory_error.min().item():.4f}",
        moves and grows,
    )
    deep = data.isel(case=np.flatnonzero(data.depth > 1))
    for start, least, most, text in (
        ("random", 0.0, 0.6, "from random weights collapse below 0.6 of the linear theory's critical epsilon"),
        ("trained", 0.65, 1.0, "that were trained without attack before, at 0.65 to 1 of it"),
    ):
        some = _chosen(deep, start=start)
        some = some.isel(case=np.flatnonzero(some.rho >= SHOWN_RHO))
        share = _mean(some) / at_end(some, "expected").values
        yield Claim(
            f"ReLU nets {text}, rho >= {SHOWN_RHO:g}",
            f"{_range(share)} of it",
            share.size > 0 and bool(((share >= least) & (share < most)).all()),
        )
    if not quick:
        slow = _at_both_times(_chosen(deep, start="random"))
        yield Claim(
            f"from random weights it is in part a matter of time: at alpha = 300 the critical epsilon is larger than at {END:g}",
            "; ".join(f"{name}, rho = {rho:g}: {a:.3f}, {b:.3f}" for name, rho, a, b in slow),
            all(b > a for _, _, a, b in slow) and bool(slow),
        )
    yield from _claims_on_images(data, quick=quick)


def _at_both_times(deep: xr.Dataset) -> list[tuple[str, float, float, float]]:
    """Return name, rho, and the critical epsilons at alpha = 100 and 300 of the nets that were measured at both."""
    result = []
    for k in range(deep.sizes["case"]):
        one = deep.isel(case=k)
        if one.rho >= SHOWN_RHO and _found(one, 300.0).size:
            early, late = (float(_found(one, time).mean()) for time in (END, 300.0))
            result.append((one.net.item(), one.rho.item(), early, late))
    return result


def _near(some: xr.Dataset, tolerance: float, what: str) -> Claim:
    measured, expected = _mean(some), at_end(some, "expected").values
    gap = np.abs(measured / expected - 1)
    return Claim(
        f"{what}: critical epsilon within {tolerance:.0%} of theory's",
        "rho = " + ", ".join(f"{rho:g}: {m:.3f} for {e:.3f}" for rho, m, e in zip(some.rho.values, measured, expected, strict=True)),
        bool((gap <= tolerance).all()) and gap.size > 0,
    )  # fmt: skip


def _claims_on_images(data: xr.Dataset, *, quick: bool) -> Iterator[Claim]:
    weights = data.image_theory_norm.sel(image_theory="eta -> 0")
    left = float((weights.where(data.image_epsilon > 0.99) / weights.isel(image_point=0)).max())
    yield Claim(
        "theory on images, eta -> 0: the weights vanish (below 2 %) from half the distance of the class means on",
        f"at most {left:.1%} of those without attack are left",
        left < 0.02,
    )
    tolerance = 0.2 if quick else 0.15
    gap = abs(
        data.image_critical.mean("image_run", skipna=False) / data.image_theory_critical.sel(image_theory="with noise")
        - 1
    )
    yield Claim(
        f"linear classifiers on images: critical epsilon within {tolerance:.0%} of the theory's, with the noise of SGD",
        f"differences {_range(100 * gap.values, '.1f')} %",
        bool((gap <= tolerance).all()),
    )
    kinds = {kind: data.conv_critical.sel(conv=kind) for kind in data.conv.values}
    for norm in ("l2", "linf"):
        at_once, slowly = (kinds.get(f"{norm}, ramp {ramp:g}") for ramp in (0.0, 0.5))
        if at_once is None or slowly is None:
            continue
        last = data.conv_epsilon.sel(conv=f"{norm}, ramp 0.5").max().item()
        least = float(slowly.fillna(last).min())  # those that did not collapse
        yield Claim(
            f"convolutional nets, {norm}: with a slowly growing epsilon they collapse later, each seed",
            f"at once: {_range(at_once.values)}; slowly: {'beyond ' if slowly.isnull().any() else ''}{least:.2f}",
            bool(at_once.max(skipna=False) < least),
        )


def _range(values: Any, form: str = ".2f") -> str:
    numbers = np.asarray(values, np.float64)
    if np.isnan(numbers).any() or not numbers.size:
        return "not all collapse"
    return f"{numbers.min():{form}} to {numbers.max():{form}}"


def table(data: xr.Dataset) -> str:
    """Return the numbers to print."""
    lines = [data.attrs["note"]] if data.attrs["note"] else []
    lines += [
        f"critical epsilon over half the separation: recall of the minority falls below {RECALL:g}; mean +- s.d. of runs",
        "(n of them collapse within the measured range, where not all)",
        f"{'on mixtures, p = 0.7':33}{'rho':>4}{'recall,':>9}{'theory,':>9}{'measured':>12}",
        f"{'':37}{'eps. = 0':>9}{'linear':>9}" + "".join(f"{f'alpha = {time:g}':>20}" for time in _SHOWN_TIMES),
    ]
    for k in range(data.sizes["case"]):
        one = data.isel(case=k)
        start = one.recall.sel(time=END).isel(net_point=0).mean().item()
        lines.append(
            f"{one.net.item():33}{one.rho.item():4g}{f'{start:.3f}' if one.net_epsilon[0] == 0 else '-':>9}"
            f"{one.expected.sel(time=END).item():9.3f}"
            + "".join(f"{_cell(_found(one, time)):>20}" for time in _SHOWN_TIMES)
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
    lines += [
        "",
        f"{'on images, p = 0.7':36}{'unit':>8}{'theory, eta -> 0':>18}{'theory with noise':>19}{'linear, by SGD':>22}",
    ]
    for k in range(data.sizes["pair"]):
        one = data.isel(pair=k)
        theory = one.image_theory_critical.values
        text = f"{one.classes.item()}, {one.image_norm.item()}, linear"
        lines.append(
            f"{text:36}{one.unit.item():8.3f}{theory[0]:18.3f}{theory[1]:19.3f}{_cell(one.image_critical.values):>22}"
        )
    for kind in data.conv.values:
        one = data.sel(conv=kind)
        lines.append(
            f"{f'3 against 7, {kind}, conv.':36}{one.conv_unit.item():8.3f}{'':37}{_cell(one.conv_critical.values):>22}"
        )
        shown = one.conv_recall.mean("seed").values
        recalls = ", ".join(
            f"{size:g}: {x:.2f}" for size, x in zip(one.conv_epsilon.values, shown, strict=True) if np.isfinite(x)
        )
        lines.append(f"    recall over epsilon: {recalls}")
    return "\n".join(lines)


def _mean(some: xr.Dataset) -> Any:
    """Return the mean critical epsilon of each case at the end of training: NaN if one of its runs did not collapse."""
    return np.array([_found(some.isel(case=k), END).mean() for k in range(some.sizes["case"])])


def _found(one: xr.Dataset, time: float) -> Any:
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


# --- what is shown ---

_LOOKS: dict[str, dict[str, Any]] = {
    "linear, N = 1000": {"color": "C0", "zorder": 4},
    "linear, N = 100": {"color": "C0", "markerfacecolor": "white", "markersize": 5},
    "linear, N = 100, free": {"color": "0.2", "markerfacecolor": "white"},
    "20 ReLU, random start": {"color": "C3", "fmt": "v"},
    "20 ReLU, trained start": {"color": "C2", "fmt": "^"},
    "20 + 20 ReLU, random start": {"color": "C3", "fmt": "v", "markerfacecolor": "white"},
    "20 + 20 ReLU, trained start": {"color": "C2", "fmt": "^", "markerfacecolor": "white"},
    "20 ReLU, N = 1000, random start": {"color": "C1", "fmt": "<"},
    "20 ReLU, N = 1000, trained start": {"color": "C4", "fmt": ">"},
}
_EPSILON = r"$\varepsilon/(\rho/2)$"
_CRITICAL = r"critical $\varepsilon/(\rho/2)$"


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Draw the mixtures, and the images."""
    return {"mixtures": _mixtures(data), "images": _images(data)}


def _mixtures(data: xr.Dataset) -> Figure:
    """Draw recall, b and E over epsilon, and the critical epsilon over rho and alpha."""
    figure, axes = new_figure(2, 3, width=7.2, height=4.9)
    (recall, bias, error), (deep, over_rho, over_alpha) = axes
    colors = {"|w| = 1": "C0", "free |w|": "0.2"}
    theory = {
        "|w| = 1": r"theory, $|w|=1$, $\eta_w=0.04$",
        "free |w|": r"theory, $|w|$ free, $\eta_w=0.4$, either start",
    }
    line = data.sel(rule="|w| = 1", size=slice(0, 1.4))
    for ax, name in ((recall, "recall"), (bias, "b"), (error, "error")):
        draw_lines(line[f"theory_{name}"], ax, color="C0", label=theory["|w| = 1"])
    free = data.sel(rule="free |w|", size=slice(0, 1.4))
    draw_lines(free.theory_recall, deep, color="0.2", label=theory["free |w|"])
    for k in range(data.sizes["case"]):
        one = data.isel(case=k).sel(time=END)
        net = one.net.item()
        points = one.swap_dims(net_point="net_epsilon").rename(net_run="run")[["recall", "b", "error"]]
        points = points.dropna("run", how="all", subset=["recall"]).dropna("net_epsilon", how="all", subset=["recall"])
        if one.rho == SHOWN_RHO:
            panels = (
                ((recall, "recall"), (bias, "b"), (error, "error"))
                if one.net_rule == "|w| = 1"
                else ((deep, "recall"),)
            )
            for ax, name in panels:
                draw_points(points[name], ax, label=net, **_LOOKS[net])
        found = _found(data.isel(case=k), END)
        if np.isfinite(found).all():
            with style():
                over_rho.errorbar(one.rho + _shift(net), found.mean(), found.std(ddof=1), **_marker(net))
    for rule, color in colors.items():
        line = data.sel(rule=rule)
        draw_lines(line.theory_critical.sel(share=RECALL), over_rho, color=color)
        draw_lines(line.theory_critical_in_time.sel(share=RECALL), over_alpha, color=color)
        for ax, name, x in (
            (over_rho, "theory_critical", "line_rho"),
            (over_alpha, "theory_critical_in_time", "line_alpha"),
        ):
            ax.fill_between(
                line[x], line[name].isel(share=0), line[name].isel(share=-1), color=color, alpha=0.13, linewidth=0
            )
    for case in np.flatnonzero(data.rho.values == SHOWN_RHO):
        one = data.isel(case=int(case))
        found = {time: _found(one, time) for time in one.time.values.tolist()}
        found = {time: values for time, values in found.items() if values.size and np.isfinite(values).all()}
        mean, spread = ([f(values) for values in found.values()] for f in (np.mean, lambda x: np.std(x, ddof=1)))
        with style():
            over_alpha.errorbar(
                np.array(list(found)) * np.exp(1.2 * _shift(one.net.item())), mean, spread, **_marker(one.net.item())
            )
    with style():
        for ax in (recall, deep):
            ax.axhline(RECALL, color="0.6", linestyle="--", linewidth=0.7, zorder=0)
            ax.set(ylabel="recall of the minority", ylim=(-0.02, 0.85))
        for ax in (recall, bias, error, deep):
            ax.set(xlabel=_EPSILON)
        bias.set(ylabel="bias " + symbol("b"))
        error.set(ylabel="classification error " + symbol("error"))
        recall.set_title(r"linear, $|w|=1$, $\rho=2$", loc="left")
        deep.set_title(r"$|w|$ free, $\rho=2$", loc="left")
        over_rho.set(xlabel=symbol("rho"), ylabel=_CRITICAL, ylim=(0, 1.45))
        over_alpha.set(xlabel=symbol("alpha"), ylabel=_CRITICAL, xscale="log", ylim=(0, 1.6))
        over_rho.set_title("bands: recall 0.05 to 0.2", loc="left", fontsize=8)
        over_alpha.set_title(r"$\rho=2$", loc="left")
        handles: dict[str, Any] = {}
        for ax in (recall, deep):
            handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
        runs = "; points: mean and s.d. over nets"
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3,
                      title=rf"Mixtures, $p=0.7$, $\alpha=100${runs}", title_fontsize=8)  # fmt: skip
    return figure  # type: ignore[no-any-return]


def _shift(net: str) -> float:
    """Return by how much a ReLU net's points are moved aside, so that they can be told apart."""
    return 0.04 * max(list(_LOOKS).index(net) - 5, -2) if "ReLU" in net else 0.0


def _marker(net: str) -> dict[str, Any]:
    return {"fmt": "o", "elinewidth": 0.8, "zorder": 3, **_LOOKS[net]}


def _images(data: xr.Dataset) -> Figure:
    """Draw the recall over epsilon: linear classifiers in each norm, and convolutional nets."""
    norms = [norm for norm in ("l2", "linf") if norm in data.image_norm]
    figure, axes = new_figure(1, len(norms) + 1, width=2.4 * (len(norms) + 1), height=3.4)
    names = {"l2": "$L_2$", "linf": r"$L_\infty$"}
    pairs = list(dict.fromkeys(data.classes.values.tolist()))
    for ax, norm in zip(axes[0], norms, strict=False):
        for k in np.flatnonzero(data.image_norm.values == norm):
            one = (
                data.isel(pair=k)
                .swap_dims(image_point="image_epsilon")
                .dropna("image_epsilon", subset=["image_recall"])
            )
            color = f"C{pairs.index(one.classes.item())}"
            for theory, dash in (("eta -> 0", ":"), ("with noise", "-")):
                draw_lines(
                    one.image_theory_recall.sel(image_theory=theory), ax, color=color, linestyle=dash, linewidth=1
                )
            draw_points(one.image_recall.rename(image_run="run"), ax, color=color, label=one.classes.item())
        with style():
            ax.set_title(f"linear, {names[norm]}", loc="left")
            ax.plot([], [], color="0.3", linewidth=1, label="theory with noise")
            ax.plot([], [], color="0.3", linestyle=":", linewidth=1, label=r"theory, $\eta\to0$")
    deep = axes[0, -1]
    for kind in data.conv.values:
        norm, ramp = kind.split(", ")
        one = data.sel(conv=kind).swap_dims(conv_point="conv_epsilon").dropna("conv_epsilon", subset=["conv_recall"])
        slow = ramp != "ramp 0"
        look: dict[str, Any] = {"markerfacecolor": "white"} if slow else {}
        look["fmt"] = ("s" if norm == "l2" else "D") + ("--" if slow else "-")
        text = f"{names[norm]}, {'growing ' if slow else ''}" + r"$\varepsilon$" + ("" if slow else " at once")
        draw_points(one.conv_recall.rename(seed="run"), deep, color="C3" if norm == "l2" else "C4", label=text, linewidth=0.8, **look)  # fmt: skip
    with style():
        deep.set_title("convolutional, 3 against 7", loc="left")
        for ax in axes[0]:
            ax.axhline(RECALL, color="0.6", linestyle="--", linewidth=0.7, zorder=0)
            ax.axvline(1, color="0.8", linewidth=0.8, zorder=0)
            ax.set(
                xlabel=r"$\varepsilon\,/\,\frac{1}{2}\|m_+-m_-\|$", ylabel="recall of the minority", ylim=(-0.04, 1.04)
            )
            ax.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.3))
        digits = "MNIST" if data.attrs["data_set"] == "mnist" else "the digits of scikit-learn, not MNIST"
        figure.suptitle(
            f"{digits}: 70 % of the training images in the majority\npoints: mean and s.d. over runs", fontsize=8
        )
    return figure  # type: ignore[no-any-return]
