"""What the study confidence shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from odeflow.plot import draw_lines, draw_points, label_panels, legend_above, looks, new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures"]

SHOWN = 0.5  # prior in the figure of theory
RULES = {"fixed": "$|w|=1$", "free": "$|w|$ free"}
TRAININGS = {"standard": "standard", "at": "AT"}
NETS = ("standard", "AT", "CCAT")  # deep ones, of the figures
DEEP = {"conv": "convolutional"}
TICKS = (0.5, 0.9, 0.99, 0.999)
LEAST = 1e-3  # share, on logarithmic axes
OPEN: dict[str, Any] = {"markerfacecolor": "white"}


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return all figures by name."""
    with style():
        result = {"theory": _figure_of_theory(data)} if "p" in data.dims else {}
        result |= {"images": _figure_of_images(data), "margins": _margins(data)}
        title = "" if "p" in data.dims else f"{data.attrs['data_set']}, {data.attrs['deep']} nets"
        if data.attrs["note"]:
            title = f"not the data set of the study, but {data.attrs['data_set']}"
        for name in ("images", "margins") if title else ():
            result[name].suptitle(title, fontsize=8)
    return result


def _figure_of_theory(data: xr.Dataset) -> Figure:
    """Draw the share over the level, theory and linear nets, and the share against what is accepted."""
    figure, axes = new_figure(1, 3, width="double", height=2.6)
    epsilon = data.epsilon.item()
    one = data.sel(p=SHOWN, delta=epsilon).isel(alpha=-1, simulated_alpha=-1)
    for ax, (rule, text) in zip(axes[0], RULES.items(), strict=False):
        for look, (training, name) in zip(looks(len(TRAININGS)), TRAININGS.items(), strict=True):
            last = one.sel(rule=rule, training=training)
            draw_lines(_at_time(data, rule, training), ax, label=name, **look.line())
            draw_points(last.simulated_share.rename(measured_level="level"), ax, **look.points())
        _levels(ax)
        ax.set_title(text)
        ax.set_ylabel("share of attacked examples")
    alpha = data.simulated_alpha.values[-1]
    title = f"lines: theory\npoints: $N={data.N.item()}$\n" + rf"$\alpha={alpha:g}$, $\delta={epsilon:g}$"
    axes[0, 0].legend(title=title, loc="lower left", title_fontsize=7)
    plane = axes[0, 2]
    cases = [(training, rule) for training in TRAININGS for rule in RULES]
    for look, (training, rule) in zip(looks(len(cases)), cases, strict=True):
        last = one.sel(rule=rule, training=training)
        text = f"{TRAININGS[training]}, {RULES[rule]}"
        plane.plot(last.share.values, last.clean_share.values, label=text, **look.line())
    plane.set(xlabel="share wrong, attacked", ylabel="share right, clean", xlim=(0, None), ylim=(0, 1))
    plane.set_title(rf"at the same level, $\alpha={data.alpha.values[-1]:g}$")
    plane.legend(loc="lower right")
    label_panels(axes[0])
    return figure  # type: ignore[no-any-return]


def _at_time(data: xr.Dataset, rule: str, training: str) -> xr.DataArray:
    """Return theory at the last time of the linear nets."""
    at = {"p": SHOWN, "delta": data.epsilon.item(), "rule": rule, "training": training}
    share: xr.DataArray = data.share.sel(at).sel(alpha=data.simulated_alpha[-1].item())
    return share


def _figure_of_images(data: xr.Dataset) -> Figure:
    """Draw the share over the level and over delta, measured and predicted, what is accepted, and the AUC."""
    figure, axes = new_figure(2, 2, width="double", height=5.0)
    size = data.net_epsilon.item()
    over, along, kept, area = axes.flat
    for look, name in zip(looks(len(NETS)), NETS, strict=True):
        one = data.sel(net=f"{data.attrs['deep']}, {name}").rename(seed="run")
        points: dict[str, Any] = look.points()
        color = look.color
        at = one.sel(net_delta=size)
        level = one.sel(level=0.9, measured_level=0.9, method="nearest")
        for ax, here, dim in ((over, at, "level"), (along, level, "net_delta")):
            draw_lines(here.linear_share.mean("run"), ax, color=color, linewidth=1.1)
            draw_lines(here.gaussian_share.mean("run"), ax, color=color, linewidth=0.9, linestyle="--")
            values = here.net_share.rename(measured_level="level") if dim == "level" else here.net_share
            draw_points(values, ax, label=name, **points)
        draw_points(one.net_accepted.sel(bound=0.05), kept, linestyle=look.dash, label=name, **points)
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
    label_panels(axes.flat)
    legend_above(figure, handles, texts)
    return figure  # type: ignore[no-any-return]


def _draw_auc(data: xr.Dataset, ax: Axes) -> None:
    """Draw the AUC of every net at every delta against its adversarial error, through the seed model's."""
    draw_lines(data.auc_curve, ax, color="0.3", label="seed model, $p=1/2$")
    for net in data.net.values:
        color = 0 if "standard" in net else 1 if "AT" in net and "CCAT" not in net else 2
        one = data.sel(net=net)
        mark: dict[str, Any] = {"marker": looks(3)[color].marker, "color": f"C{color}"}
        mark |= {"fillstyle": "left"} if net.startswith("linear") else OPEN
        ax.plot(one.net_share.isel(measured_level=0).values.ravel(), one.net_auc.values.ravel(), linestyle="", **mark)
    ax.plot([], [], "o", color="0.3", label="linear nets", fillstyle="left")
    ax.plot([], [], "o", color="0.3", label=f"{DEEP.get(data.attrs['deep'], data.attrs['deep'])} nets", **OPEN)
    ax.axhline(0.5, color="0.3", linewidth=0.7, linestyle=":")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xlabel="adversarial error", ylabel="AUC of right against wrong")
    ax.set_title(r"attacked images, all $\delta$")
    ax.legend(loc="upper right")


def _margins(data: xr.Dataset) -> Figure:
    """Draw the distribution of the confidence in the right class without and with attack, of all seeds."""
    figure, axes = new_figure(1, len(NETS), width="double", height=2.3)
    edges = np.linspace(0, 1, 21)
    size = data.net_epsilon.item()
    shown = [0.0, size, min(data.net_delta.values, key=lambda delta: abs(delta - 2 * size))]
    for ax, name in zip(axes[0], NETS, strict=True):
        net = f"{data.attrs['deep']}, {name}"
        for color, delta in enumerate(shown):
            values = expit(data.net_margin.sel(net=net, net_delta=delta).values.astype(float).ravel())
            counts = np.histogram(values, edges)[0] / len(values)
            ax.stairs(counts, edges, fill=True, color=f"C{color}", alpha=0.25)
            text = "no attack" if not delta else rf"$\delta={delta:g}$"
            ax.stairs(counts, edges, linewidth=1.1, label=text, **looks(len(shown))[color].line())
        ax.axvline(0.5, color="0.3", linewidth=0.7, linestyle=":")
        ax.set(xlim=(0, 1), ylim=(LEAST, 1.1), yscale="log", xlabel="confidence in the right class", title=name)
    axes[0, 0].set_ylabel("share of the images")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    label_panels(axes[0])
    legend_above(figure, handles, texts)
    return figure  # type: ignore[no-any-return]


def _levels(ax: Axes) -> None:
    """Spread the levels near 1, and draw the share logarithmically."""
    from matplotlib.ticker import NullFormatter, NullLocator

    ax.set_xscale("logit")
    ax.set(yscale="log", ylim=(LEAST, 1.2), xlim=(0.45, 0.9999), xlabel="confidence in a wrong class")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
