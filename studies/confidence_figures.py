"""What the study confidence says: its claims, its table and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from odeflow.parameters import label
from odeflow.plot import draw_lines, draw_points, new_figure, style
from studies.registry import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["claims", "describe_variables", "figures", "table"]

ALLOWANCE = 1.0
"""What the mean over nets of N inputs may differ by from the theory beside its statistical error, in units of 1/N."""
SHOWN = 0.5  # prior in the figure of theory
RULES = {"fixed": "$|w|=1$", "free": "$|w|$ free"}
TRAININGS = {"standard": "standard", "at": "AT"}
NETS = {"conv, standard": "standard", "conv, AT": "AT", "conv, CCAT": "CCAT"}  # of the figures
TICKS = (0.5, 0.9, 0.99, 0.999)
LEAST = 1e-3  # share, on logarithmic axes
OPEN: dict[str, Any] = {"markerfacecolor": "white"}


def describe_variables(data: xr.Dataset) -> None:
    """Give each variable its long name and unit."""
    names = {
        "share": "share of the examples whose attack reaches the level in a wrong class, theory",
        "simulated_share": "the same, of linear nets that learned online, attacked with PGD",
        "net_share": "the same, of nets trained on images, attacked with PGD",
        "linear_share": "the same, predicted from each example's linear approximation",
        "gaussian_share": "the same, predicted from Gaussian margins with their means and variances",
        "clean_share": "share of the clean examples that are right with a confidence of at least the level, theory",
        "net_clean_share": "the same, of nets trained on images",
        "auc": "area under the ROC curve of confidence, right against wrong at attacked points, theory",
        "simulated_auc": "the same, of linear nets that learned online",
        "net_auc": "the same, of nets trained on images",
        "symmetric_auc": "the same, of the seed model with equal priors and the same adversarial error",
        "auc_curve": "area under the ROC curve of the seed model with equal priors over its adversarial error",
        "error": "adversarial error",
        "linear_auc": "the same, predicted from each example's linear approximation",
        "least_level": "least level that at most the given share of attacked examples exceeds while wrong, theory",
        "net_least_level": "the same, of nets trained on images",
        "accepted": "share of the clean examples that are right and exceed that level, theory",
        "net_accepted": "the same, of nets trained on images",
        "length": "length of the weights, theory",
        "simulated_length": "length of the weights of linear nets that learned online",
        "net_margin": "signed margin of the true class after the attack",
        "longer_gain": "most that a longer attack adds to the share at a level, training epsilon",
        "level": "confidence in a wrong class",
        "measured_level": "confidence in a wrong class, where it is measured",
        "bound": "share of the attacked examples that may be wrong above the level",
        "delta": "size of the perturbation in testing, L2",
        "net_delta": "size of the perturbation in testing, L-infinity",
        "net_epsilon": "size of the perturbation in training, L-infinity",
        "simulated_alpha": "learning time, examples per dimension",
        "rule": "whether the length of the weights is kept at 1",
        "net": "net and training method",
        "seed": "seed of the training",
        "tests": "number of fresh examples that each linear net is attacked on",
    }
    label(data)
    for name, text in names.items():
        data[name].attrs = {"long_name": text, "units": "1"}


# --- claims ---


def claims(data: xr.Dataset) -> Iterator[Claim]:
    """Yield what the study claims."""
    N, share = data.N.item(), data.share.sel(alpha=data.simulated_alpha, level=data.measured_level)
    ratio, where = _agreement(data.simulated_share, share, share * (1 - share) / data.tests.item(), N)
    yield Claim(
        f"linear nets, N = {N}: the share that an attack reaches is within 4 standard errors + {ALLOWANCE:g}/N of the "
        "theory, at all times, delta and levels",
        f"largest difference {ratio:.2f} of that (p, |w|, training, alpha, delta = {where})",
        ratio <= 1,
    )
    if data.simulated_alpha[-1] == data.alpha.values[-1]:
        ratio, where = _agreement(data.simulated_auc.isel(simulated_alpha=-1), data.auc, 0.0, N)
        yield Claim(
            "and so is the AUC of confidence for right against wrong predictions, at the last time",
            f"largest difference {ratio:.2f} of that (p, |w|, training, alpha, delta = {where})",
            ratio <= 1,
        )
    epsilon = data.epsilon.item()
    at = {"delta": epsilon, "alpha": data.alpha.values[-1]}
    change = data.share.sel(at).sel(level=0.9, method="nearest")
    change = change.sel(training="at") / change.sel(training="standard")
    fixed, free = (change.sel(rule=rule).values for rule in data.rule.values)
    yield Claim(
        f"theory, delta = training epsilon = {epsilon:g}, level 0.9: adversarial training changes the share by less "
        "than a fifth where |w| = 1, and lowers it by more than two fifths where |w| is free",
        f"factors {_list(fixed)} and {_list(free)} for p = {_list(data.p.values, 1)}",
        bool((abs(fixed - 1) < 0.2).all() and (free < 0.6).all()),
    )
    gain = data.accepted.sel(delta=epsilon, bound=0.05)
    gain = gain.sel(training="at") - gain.sel(training="standard")
    yield Claim(
        "theory: but it separates little better, the accepted share of the clean examples changes by less than 0.06",
        f"by {float(gain.min()):.3f} to {float(gain.max()):.3f}",
        float(abs(gain).max()) < 0.06,
    )
    yield from _claims_of_nets(data)


def _agreement(found: xr.DataArray, expected: xr.DataArray, variance: Any, N: int) -> tuple[float, str]:
    """Return the largest difference of the mean over runs from the theory, in units of what is allowed, and where.

    `variance` is the least that a run can have. The mean may differ by 4 standard errors and ALLOWANCE / N.
    """
    noise = np.maximum(found.std("run", ddof=1), np.sqrt(variance)) / np.sqrt(found.sizes["run"])
    ratio = abs(found.mean("run") - expected) / (4 * noise + ALLOWANCE / N)
    worst = ratio.isel(ratio.argmax(...))
    names = ("p", "rule", "training", "simulated_alpha", "delta")
    return float(worst), ", ".join(str(worst[name].item()) for name in names)


def _claims_of_nets(data: xr.Dataset) -> Iterator[Claim]:
    epsilon = data.net_epsilon.item()
    error = abs(data.net_share - data.linear_share.sel(level=data.measured_level))
    inside = error.where(data.net_delta <= epsilon + 1e-9, drop=True)
    linear = float(error.sel(net=["linear, standard", "linear, AT"]).max())
    yield Claim(
        "linear nets on images: the attack reaches what the locally linear prediction says, within 0.005",
        f"largest difference {linear:.4f}",
        linear <= 0.005,
    )
    limit = 0.06 if data.attrs["data_set"].startswith("digits") else 0.03  # of 95 and of 500 images
    mean = inside.max(["net_delta", "measured_level"]).max("seed")
    yield Claim(
        f"deep AT nets: it says the share within {limit:g} at all levels up to the training epsilon, for standard ones "
        "it does not",
        f"AT {float(mean.sel(net='conv, AT')):.3f}, standard {float(mean.sel(net='conv, standard')):.3f}",
        float(mean.sel(net="conv, AT")) <= limit < float(mean.sel(net="conv, standard")),
    )
    at, standard = (data.sel(net=net, net_delta=epsilon) for net in ("conv, AT", "conv, standard"))
    shares = [one.net_share.sel(measured_level=0.9, method="nearest").values for one in (standard, at)]
    yield Claim(
        f"deep nets, delta = training epsilon = {epsilon:g}: after AT the share at the level 0.9 is less than half "
        "of that after standard training, for every seed",
        f"{_list(shares[0])} after standard training, {_list(shares[1])} after AT",
        bool((shares[1] < shares[0] / 2).all()),
    )
    areas = [one.net_auc.values for one in (standard, at)]
    yield Claim(
        "there confidence tells right from wrong predictions at attacked points better after AT (AUC), for every seed",
        f"{_list(areas[0])} after standard training, {_list(areas[1])} after AT",
        bool((areas[1] > areas[0]).all()),
    )
    yield _auc_claim(data)
    beyond = data.net_accepted.sel(bound=0.05).sel(net_delta=1.5 * epsilon, method="nearest")
    parts = [beyond.sel(net=net).values for net in ("conv, standard", "conv, AT")]
    yield Claim(
        f"and beyond, at delta = {beyond.net_delta.item():g}, more clean images are accepted at the level that at most "
        "5 % of the attacked ones exceed wrongly, for every seed",
        f"{_list(parts[0])} after standard training, {_list(parts[1])} after AT",
        bool((parts[1] > parts[0]).all()),
    )


def _auc_claim(data: xr.Dataset) -> Claim:
    """Compare the AUC of nets with that of the seed model with the same adversarial error."""
    error = data.net_share.isel(measured_level=0)
    some = (error > 0.005) & (error < 0.995) & (data.net != "conv, CCAT")
    off = abs(data.net_auc - data.symmetric_auc).where(some)
    return Claim(
        "over all delta, the AUC is that of the seed model with equal priors and the same adversarial error, within "
        "0.08 in the mean over standard and AT nets",
        f"mean difference {float(off.mean()):.3f}, largest {float(off.max()):.3f}",
        float(off.mean()) <= 0.08,
    )


def _list(values: Any, digits: int = 3) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in np.ravel(values))


# --- table ---


def table(data: xr.Dataset) -> str:
    """Return the numbers as lines of text."""
    lines = [data.attrs["note"]] if data.attrs["note"] else []
    epsilon, alpha = data.epsilon.item(), data.alpha.values[-1]
    lines += [
        f"seed model, rho = 2, alpha = {alpha:g}; AT with epsilon = {epsilon:g}, attack with delta = {epsilon:g}",
        f"{'p':>4}  {'|w|':6}{'training':9}{'|w|':>7}{'share at level 0.5':>21}{'0.9':>9}{'0.988':>9}{'AUC':>9}"
        + f"{'level 5 %':>12}{'accepted':>10}",
    ]
    for p in data.p.values:
        for rule in data.rule.values:
            for training in data.training.values:
                one = data.sel(p=p, rule=rule, training=training, delta=epsilon).isel(alpha=-1)
                five = one.sel(bound=0.05)
                lines.append(
                    f"{p:4g}  {rule:6}{training:9}{one.length.item():7.3f}{_at(one.share, 0.5):21.4f}"
                    f"{_at(one.share, 0.9):9.4f}{_at(one.share, 0.988):9.4f}{one.auc.item():9.3f}"
                    f"{five.least_level.item():12.4f}{five.accepted.item():10.3f}"
                )
    size = data.net_epsilon.item()
    lines += [
        "",
        f"{data.attrs['data_set']}, training epsilon = {size:g} in L-infinity; mean and s.d. of {data.sizes['seed']} "
        + f"seeds, {data.sizes['example']} test images",
        f"{'net':17}{'delta':>6}{'share at 0.5':>15}{'0.9':>15}{'0.988':>15}{'AUC':>8}{'level 1 %':>11}{'5 %':>8}"
        + f"{'accepted':>10}{'linear':>8}{'Gauss':>7}",
    ]
    for net in data.net.values:
        for delta in data.net_delta.values:
            one = data.sel(net=net, net_delta=delta)
            cells = [one.net_share.sel(measured_level=level, method="nearest") for level in (0.5, 0.9, 0.988)]
            off = [_off(one, name) for name in ("linear_share", "gaussian_share")]
            levels = one.net_least_level.mean("seed").values
            lines.append(
                f"{net:17}{delta:6g}" + "".join(f"{float(c.mean()):9.3f} {float(c.std(ddof=1)):5.3f}" for c in cells)
                + f"{float(one.net_auc.mean()):8.3f}{levels[0]:11.4f}{levels[1]:8.4f}"
                f"{float(one.net_accepted.sel(bound=0.05).mean()):10.3f}{off[0]:8.3f}{off[1]:7.3f}"
            )  # fmt: skip
    gains = ", ".join(f"{net} {float(data.longer_gain.sel(net=net).max()):.3f}" for net in data.net.values)
    lines += [
        "accepted: clean images right above the level that at most 5 % of the attacked ones exceed while wrong",
        "linear, Gauss: most over levels that the predicted share differs from the measured one, seeds' mean",
        f"a longer attack of three starts adds to the share, at the training epsilon, at most: {gains}",
    ]
    return "\n".join(lines)


def _at(values: xr.DataArray, level: float) -> float:
    return float(values.sel(level=level, method="nearest"))


def _off(one: xr.Dataset, name: str) -> float:
    difference = one[name].sel(level=one.measured_level) - one.net_share
    return float(abs(difference).max("measured_level").mean("seed"))


# --- figures ---


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return all figures by name."""
    with style():
        result = {"theory": _figure_of_theory(data), "images": _figure_of_images(data), "margins": _margins(data)}
        if data.attrs["note"]:
            for name in ("images", "margins"):
                result[name].suptitle(f"not the data set of the study, but {data.attrs['data_set']}", fontsize=8)
    return result


def _figure_of_theory(data: xr.Dataset) -> Figure:
    """Draw the share over the level, theory and linear nets, and the share against what is accepted."""
    figure, axes = new_figure(1, 3, width=7.2, height=2.5)
    epsilon = data.epsilon.item()
    one = data.sel(p=SHOWN, delta=epsilon).isel(alpha=-1, simulated_alpha=-1)
    for ax, (rule, text) in zip(axes[0], RULES.items(), strict=False):
        for color, (training, name) in enumerate(TRAININGS.items()):
            last = one.sel(rule=rule, training=training)
            draw_lines(_at_time(data, rule, training), ax, color=f"C{color}", label=name)
            draw_points(last.simulated_share.rename(measured_level="level"), ax, color=f"C{color}", **OPEN)
        _levels(ax)
        ax.set_title(text)
        ax.set_ylabel("share of attacked examples")
    alpha = data.simulated_alpha.values[-1]
    title = f"lines: theory\npoints: $N={data.N.item()}$\n" + rf"$\alpha={alpha:g}$, $\delta={epsilon:g}$"
    axes[0, 0].legend(title=title, loc="lower left", title_fontsize=7)
    plane = axes[0, 2]
    for color, (training, name) in enumerate(TRAININGS.items()):
        for rule, dashes in (("fixed", "-"), ("free", (0, (4, 2.5)))):
            last = one.sel(rule=rule, training=training)
            text = f"{name}, {RULES[rule]}"
            plane.plot(last.share.values, last.clean_share.values, linestyle=dashes, color=f"C{color}", label=text)
    plane.set(xlabel="share wrong, attacked", ylabel="share right, clean", xlim=(0, None), ylim=(0, 1))
    plane.set_title(rf"at the same level, $\alpha={data.alpha.values[-1]:g}$")
    plane.legend(loc="lower right", fontsize=6)
    return figure  # type: ignore[no-any-return]


def _at_time(data: xr.Dataset, rule: str, training: str) -> xr.DataArray:
    """Return theory at the last time of the linear nets."""
    at = {"p": SHOWN, "delta": data.epsilon.item(), "rule": rule, "training": training}
    share: xr.DataArray = data.share.sel(at).sel(alpha=data.simulated_alpha[-1].item())
    return share


def _figure_of_images(data: xr.Dataset) -> Figure:
    """Draw the share over the level and over delta, measured and predicted, what is accepted, and the AUC."""
    figure, axes = new_figure(2, 2, width=6.4, height=5.0)
    size = data.net_epsilon.item()
    over, along, kept, area = axes.flat
    for color, (net, name) in enumerate(NETS.items()):
        one = data.sel(net=net).rename(seed="run")
        points: dict[str, Any] = {"color": f"C{color}", **OPEN}
        at = one.sel(net_delta=size)
        level = one.sel(level=0.9, measured_level=0.9, method="nearest")
        for ax, here, dim in ((over, at, "level"), (along, level, "net_delta")):
            draw_lines(here.linear_share.mean("run"), ax, color=f"C{color}", linewidth=1.1)
            draw_lines(here.gaussian_share.mean("run"), ax, color=f"C{color}", linewidth=0.9, linestyle="--")
            values = here.net_share.rename(measured_level="level") if dim == "level" else here.net_share
            draw_points(values, ax, label=name, **points)
        draw_points(one.net_accepted.sel(bound=0.05), kept, linestyle="-", label=name, **points)
    _levels(over)
    over.set(ylabel="share of attacked images", title=rf"$\delta=\varepsilon={size:g}$")
    along.set(ylabel="share of attacked images", title="wrong with a confidence of 0.9 or more")
    kept.set(ylabel="share of clean images", title="accepted where 5 % of attacked pass")
    for ax in (along, kept):
        ax.set(ylim=(-0.03, 1.05), xlabel=r"size of the attack $\delta$")
        ax.axvline(size, color="0.3", linewidth=0.7, linestyle=":")
    _draw_auc(data, area)
    handles, texts = over.get_legend_handles_labels()
    for text, dashes in (("locally linear prediction", "-"), ("Gaussian prediction", "--")):
        handles += over.plot([], [], color="0.3", linestyle=dashes, linewidth=1.0)
        texts.append(text)
    figure.legend(handles, texts, loc="outside upper center", ncols=len(handles))
    return figure  # type: ignore[no-any-return]


def _draw_auc(data: xr.Dataset, ax: Axes) -> None:
    """Draw the AUC of every net at every delta against its adversarial error, through the seed model's."""
    draw_lines(data.auc_curve, ax, color="0.3", label="seed model, $p=1/2$")
    for net in data.net.values:
        color = 0 if "standard" in net else 1 if "AT" in net and "CCAT" not in net else 2
        one = data.sel(net=net)
        mark = {"marker": "s" if net.startswith("linear") else "o", "color": f"C{color}", **OPEN}
        ax.plot(one.net_share.isel(measured_level=0).values.ravel(), one.net_auc.values.ravel(), linestyle="", **mark)
    ax.plot([], [], "s", color="0.3", label="linear nets", **OPEN)
    ax.plot([], [], "o", color="0.3", label="convolutional nets", **OPEN)
    ax.axhline(0.5, color="0.3", linewidth=0.7, linestyle=":")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xlabel="adversarial error", ylabel="AUC of right against wrong")
    ax.set_title(r"attacked images, all $\delta$")
    ax.legend(loc="upper right", fontsize=6.5)


def _margins(data: xr.Dataset) -> Figure:
    """Draw the distribution of the confidence in the right class without and with attack, of all seeds."""
    figure, axes = new_figure(1, len(NETS), width=7.2, height=2.3)
    edges = np.linspace(0, 1, 21)
    size = data.net_epsilon.item()
    shown = [0.0, size, min(data.net_delta.values, key=lambda delta: abs(delta - 2 * size))]
    for ax, (net, name) in zip(axes[0], NETS.items(), strict=True):
        for color, delta in enumerate(shown):
            values = expit(data.net_margin.sel(net=net, net_delta=delta).values.astype(float).ravel())
            counts = np.histogram(values, edges)[0] / len(values)
            ax.stairs(counts, edges, fill=True, color=f"C{color}", alpha=0.25)
            text = "no attack" if not delta else rf"$\delta={delta:g}$"
            ax.stairs(counts, edges, color=f"C{color}", label=text)
        ax.axvline(0.5, color="0.3", linewidth=0.7, linestyle=":")
        ax.set(xlim=(0, 1), ylim=(LEAST, 1.1), yscale="log", xlabel="confidence in the right class", title=name)
    axes[0, 0].set_ylabel("share of the images")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=3)
    return figure  # type: ignore[no-any-return]


def _levels(ax: Axes) -> None:
    """Spread the levels near 1, and draw the share logarithmically."""
    from matplotlib.ticker import NullFormatter, NullLocator

    ax.set_xscale("logit")
    ax.set(yscale="log", ylim=(LEAST, 1.2), xlim=(0.45, 0.9999), xlabel="confidence in a wrong class")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
