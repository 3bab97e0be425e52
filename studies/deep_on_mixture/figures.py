"""Figures of the study of deeper nets on the mixture: theory as lines, nets as points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.plot import draw_lines, draw_points, label_panels, legend_above, new_figure, style, symbol

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = {"linear": "o", "two layers": "s", "three layers": "^"}
DASHES: dict[str, Any] = {"linear": "-", "two layers": (0, (4, 1.6)), "three layers": (0, (1, 1.2))}
COLORS = {"linear": "C0", "two layers": "C1", "three layers": "C2"}
TEXTS = {"linear": "linear nets", "two layers": "one hidden layer", "three layers": "two hidden layers"}
TRAININGS = {"standard": "standard training", "epsilon=1, FGSM": r"AT, $\varepsilon=1$"}
LATER = {
    **TRAININGS,
    "epsilon=0.5, FGSM": r"AT, $\varepsilon=0.5$",
    "epsilon=1, FGSM, after standard": r"AT, $\varepsilon=1$, after standard",
    "epsilon=0.5, FGSM, after standard": r"AT, $\varepsilon=0.5$, after standard",
}
PANELS = {  # what is measured: its theory, its label
    "measured_error": ("error", "$E$"),
    "measured_adversarial_error": ("adversarial_error", r"$S$ at $\varepsilon_\mathrm{test}=1$"),
    "R_eff": ("R", r"$R$, $R_\mathrm{eff}$"),
    "size_b_eff": ("size_b", r"$|b|$, $|b_\mathrm{eff}|$"),
    "measured_curve": ("curve", r"$S$ at $\alpha=100$"),
}
PREDICTIONS = {
    "overlap_prediction": r"theory, $R_\mathrm{eff}$ and $b_\mathrm{eff}$",
    "gaussian_prediction": "Gaussian margins",
    "local_prediction": "linear at each example",
}
GREY: dict[str, Any] = {"color": "0.3", "markerfacecolor": "0.3"}


def figures(data: xr.Dataset) -> dict[str, Figure]:
    """Return a figure for each prior, one of long learning where it is there, and one of predictions of S."""
    result = {f"p{p:g}": _scenario(data.isel(setting=data.p == p), p) for p in np.unique(data.p)}
    if data.alpha.max() > 100:
        result["longer"] = _longer(data)
    return result | {"predictions": _predictions(data), "committees": _committees(data)}


def _one(data: xr.Dataset, **of: Any) -> xr.Dataset | None:
    """Return the setting with these properties, without empty times and runs; None if there is none."""
    chosen = np.flatnonzero(np.all([data[name].values == value for name, value in of.items()], axis=0))
    if not len(chosen):
        return None
    one = data.isel(setting=int(chosen[0]))
    one["size_b_eff"] = abs(one.b_eff)
    return one.dropna("alpha", how="all", subset=["R_eff"]).dropna("run", how="all", subset=["R_eff"])


def _line(one: xr.Dataset, name: str, ax: Axes, **look: Any) -> None:
    values = one[name]
    if "theory_alpha" in values.dims:
        values = values.sel(theory_alpha=slice(1, one.alpha.max())).rename(theory_alpha="alpha")
    draw_lines(values, ax, **look)


def _points(one: xr.Dataset, name: str, ax: Axes, **look: Any) -> None:
    values = one[name]
    draw_points(values.sel(alpha=slice(1, None)) if "alpha" in values.dims else values, ax, **look)


def _scenario(data: xr.Dataset, p: float) -> Figure:
    """Draw a training in each row; E, S, R_eff and b_eff over alpha to 100, and the robustness curve."""
    figure, axes = new_figure(len(TRAININGS), len(PANELS), width="double", height=3.9)
    sizes = sorted(np.unique(data.N))
    for row, (training, title) in enumerate(TRAININGS.items()):
        for ax, (name, (theory, text)) in zip(axes[row], PANELS.items(), strict=True):
            for net, color in COLORS.items():
                for N in sizes:
                    one = _one(data, net=net, N=N, training=training)
                    if one is None:
                        continue
                    one = one.sel(alpha=slice(0, 100))
                    if sizes[-1] == N:
                        if net == "linear":
                            _line(one, theory, ax, color="black", zorder=1)
                        else:
                            _line(one, f"own_{theory}", ax, color=color, linestyle=DASHES[net], linewidth=1)
                    face = color if sizes[-1] == N else "white"
                    _points(one, name, ax, color=color, fmt=MARKS[net], markerfacecolor=face, markersize=2.8)
                pgd = _one(data, net=net, N=sizes[-1], training=training.replace("FGSM", "PGD"))
                if pgd is not None and "PGD" in pgd.training.item():
                    _points(pgd.sel(alpha=slice(0, 100)), name, ax, color=color, fmt="x", elinewidth=0, capsize=0)
            _axes(ax, name, text, last=row == len(TRAININGS) - 1)
        with style():
            axes[row, 0].set_title(title, loc="left", fontsize=8)
    with style():
        label_panels(axes.flat)
        _legend(figure, data, p, [int(N) for N in sizes])
    return figure  # type: ignore[no-any-return]


def _axes(ax: Axes, name: str, text: str, *, last: bool) -> None:
    with style():
        curve = name == "measured_curve"
        if not curve:
            ax.set_xscale("log")
        if name != "size_b_eff":
            ax.set_ylim(-0.03, 1.03)
        ax.set_ylabel(text, fontsize=8)
        ax.set_xlabel(symbol("test_epsilon" if curve else "alpha") if last else "", fontsize=8)


def _legend(figure: Figure, data: xr.Dataset, p: float, sizes: list[int]) -> None:
    from matplotlib.lines import Line2D

    there = set(data.net.values)
    handles = [Line2D([], [], color="black", label="theory")]
    handles += [
        Line2D(
            [], [], color=color, marker=MARKS[net], linestyle="" if net == "linear" else DASHES[net], label=TEXTS[net]
        )
        for net, color in COLORS.items()
        if net in there
    ]
    handles.append(Line2D([], [], **GREY, linestyle="--", label="theory with the nets' own rates"))
    for N in sizes:
        look = GREY if sizes[-1] == N else GREY | {"markerfacecolor": "white"}
        handles.append(Line2D([], [], **look, marker="o", linestyle="", label=f"$N={N}$ (mean, s.d. of the nets)"))
    if any("PGD" in training for training in data.training.values):
        handles.append(Line2D([], [], **GREY, marker="x", linestyle="", label="trained with PGD (mean)"))
    legend_above(figure, handles, [str(one.get_label()) for one in handles], title=f"$p={p:g}$")


def _longer(data: xr.Dataset) -> Figure:
    """Draw R_eff over long learning at N = 100: a prior in each row, a training in each column."""
    figure, axes = new_figure(2, len(LATER), width="double", height=3.5)
    for row, p in zip(axes, np.unique(data.p), strict=True):
        for ax, (training, title) in zip(row, LATER.items(), strict=True):
            for net in ("two layers", "three layers"):
                one = _one(data, N=100, p=p, net=net, training=training)
                if one is None:
                    continue
                look = {"color": COLORS[net], "linewidth": 1}
                warm = "after" in training
                if warm or net == "two layers":
                    _line(one, "R", ax, **(look if warm else look | {"color": "black"}), zorder=1)
                _line(one, "own_R", ax, **look, linestyle=DASHES[net])
                _points(one, "R_eff", ax, color=COLORS[net], fmt=MARKS[net])
            _axes(ax, "R_eff", "", last=p == data.p.max())
            with style():
                ax.set_title(title.replace(", after", ",\nafter") if p == data.p.min() else "", fontsize=8)
        with style():
            row[0].set_ylabel(rf"$R$, $R_\mathrm{{eff}}$ for $p={p:g}$", fontsize=8)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color="0.3", label="theory"), Line2D([], [], **GREY, linestyle="--")]
    handles[1].set_label("theory with the nets' own rates")
    handles += [
        Line2D([], [], color=COLORS[net], marker=MARKS[net], linestyle="", label=f"{TEXTS[net]}, $N=100$ (mean, s.d.)")
        for net in ("two layers", "three layers")
    ]
    with style():
        legend_above(figure, handles, [str(one.get_label()) for one in handles])
    label_panels(axes.flat)
    return figure  # type: ignore[no-any-return]


def _predictions(data: xr.Dataset) -> Figure:
    """Draw the measured S of each deep net at alpha = 100 and three predictions of it."""
    figure, axes = new_figure(1, len(PREDICTIONS), width="double", height=2.7)
    deep = data.isel(setting=data.net != "linear").sel(alpha=100)
    for ax, (name, text) in zip(axes[0], PREDICTIONS.items(), strict=True):
        ax.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=0)
        for net, color in COLORS.items():
            for attacked in (False, True):
                one = deep.isel(setting=(deep.net == net) & ((deep.epsilon > 0) == attacked))
                if not one.sizes["setting"]:
                    continue
                face = {"markerfacecolor": color if not attacked else "white"}
                label = f"{TEXTS[net]}, " + ("adversarial training" if attacked else "standard training")
                x, y = one[name].values.ravel(), one.measured_adversarial_error.values.ravel()
                ax.plot(x, y, MARKS[net], color=color, markersize=2.4, markeredgewidth=0.6, label=label, **face)
        with style():
            ax.set(xlim=(0.15, 1.02), ylim=(0.15, 1.02))
            ax.set_xlabel(f"$S$ predicted: {text}", fontsize=7)
    with style():
        axes[0, 0].set_ylabel(r"$S$ measured with PGD, $\varepsilon_\mathrm{test}=1$", fontsize=8)
        label_panels(axes[0])
        legend_above(figure, *axes[0, 0].get_legend_handles_labels())
    return figure  # type: ignore[no-any-return]


def _committees(data: xr.Dataset) -> Figure:
    """Draw M and Q of nets by the theory's own rule beside it, the differences in standard errors, and nets of many units."""
    figure, axes = new_figure(1, 4, width="double", height=2.5)
    data = data.drop_dims([dim for dim in ("alpha", "run") if dim in data.dims])  # of the other nets
    shown = int(np.flatnonzero(data.hidden.values == data.hidden.values.max())[0])
    one = (
        data.isel(committee=shown)
        .rename(committee_run="run", committee_alpha="alpha")
        .dropna("run", how="all", subset=["committee_measured"])
    )
    units = range(1, int(one.hidden) + 1)
    for ax, names in zip(axes[0], ([f"M{k}" for k in units], [f"Q{k}{k}" for k in units]), strict=False):
        for i, name in enumerate(names):
            draw_lines(one.committee_theory.sel(entry=name), ax, color=f"C{i}", label=f"{i + 1}")
            draw_points(one.committee_measured.sel(entry=name), ax, color=f"C{i}", markersize=3)
    with style():
        axes[0, 0].set(ylabel="$M_k$", xlabel=symbol("alpha"))
        axes[0, 1].set(ylabel="$Q_{kk}$", xlabel=symbol("alpha"))
        for ax in axes[0, :2]:
            ax.set_title(str(one.committee.item()), loc="left", fontsize=7)
        axes[0, 0].legend(title="unit", ncols=2, fontsize=7, title_fontsize=7)
        late = data.isel(committee_alpha=slice(1, None))
        gap = late.committee_measured.mean("committee_run") - late.committee_theory
        error = late.committee_measured.std("committee_run", ddof=1) / np.sqrt(
            late.committee_measured.count("committee_run")
        )
        z = (gap / error).values.ravel()
        z = z[np.isfinite(z)]
        x = np.linspace(-4.5, 4.5, 200)
        axes[0, 2].hist(z, bins=np.arange(-4.5, 4.6, 0.5), density=True, color="C0", alpha=0.4)
        axes[0, 2].plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color="black")
        axes[0, 2].set(xlabel="(mean - theory)/s.e.", ylabel="density")
        axes[0, 2].set_title("all nets", loc="left", fontsize=7)
    many = data.sel(group="R_out").rename(committee_alpha="alpha", many_run="run")
    for name, color, text in (("reduced", "C0", "FGSM"), ("standard", "C1", "no attack")):
        draw_lines(many[f"many_{name}"].mean("run"), axes[0, 3], color=color, label=f"reduced, {text}")
    draw_points(many.many_measured, axes[0, 3], color="C0", markersize=3, label="nets, FGSM")
    with style():
        axes[0, 3].set(ylabel=r"overlap of $\sum_k c_k w_k$", xlabel=symbol("alpha"))
        axes[0, 3].set_title("20 ReLU", loc="left", fontsize=7)
        axes[0, 3].legend(fontsize=7)
        label_panels(axes[0])
    return figure  # type: ignore[no-any-return]
