"""The figures of the study mnist_3v7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import expit

from odeflow.plot import draw_lines, draw_points, label_panels, legend_above, looks, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["figures", "final"]

SYMBOLS = {"l2": "$L_2$", "linf": r"$L_\infty$"}
NAMES = {"l2": "$w/|w|_2$", "linf": r"$\mathrm{sign}\,w$"}  # of the unit perturbations


def figures(data: xr.Dataset, shape: tuple[int, ...]) -> dict[str, Figure]:
    """Return all figures by name; `shape` is that of an image: channels, height, width."""
    with style():
        return {
            "outputs": _figure_of_outputs(data),
            "errors": _figure_of_errors(data),
            "weights": _figure_of_weights(data, shape),
            "digits": _figure_of_digits(data, shape),
        }


def final(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the adversarial error at the end of training: in theory, and of each run."""
    simulated = data.simulated_adversarial_error.isel(simulated_examples=-1).rename(simulated_level="level")
    simulated = simulated.assign_coords(test_epsilon=data.test_epsilon.sel(level=simulated.level))
    return data.adversarial_error.isel(examples=-1), simulated


def _figure_of_outputs(data: xr.Dataset) -> Figure:
    """Draw the distribution of the output for each class, without and with each attack: of the first run, in theory."""
    figure, axes = new_figure(data.sizes["attack"], data.sizes["training"], width="double", height=5.0)
    for column, training in zip(axes.T, data.training.values, strict=True):
        one = data.sel(training=training)
        reach = float((abs(one.output_mean) + 3 * one.output_sd).max())
        for ax, attack in zip(column, data.attack.values, strict=True):
            _draw_outputs(one.sel(attack=attack), ax, reach)
            at: dict[str, Any] = {"norm": "l2", "level": 0} if attack == "none" else {"norm": attack, "level": 1}
            expected, error = (100 * float(values.sel(at | {"training": training}).mean()) for values in final(data))
            name = "E" if attack == "none" else "S"
            ax.set_title(rf"${name}={error:.1f}\,\%$, theory ${expected:.1f}\,\%$", fontsize=7, pad=3)
            ax.set(xlabel="", ylabel="", xlim=(-reach, reach), ylim=(0, 1.1 * ax.dataLim.y1))
            ax.tick_params(labelbottom=ax is column[-1])
        above: dict[str, Any] = {"ha": "center", "va": "bottom", "transform": column[0].transAxes}
        column[0].text(0.5, 1.17, _training(data, training), fontsize=8, **above)
        column[-1].set_xlabel(r"output $w\cdot\xi-b$")
    for ax, attack in zip(axes[:, 0], data.attack.values, strict=True):
        ax.set_ylabel(f"{_attack(data, attack)}\nprobability density", fontsize=8)
    _legend(figure, axes[0, 0], f"{data.attrs['title']}; outputs of the first run for the test images")
    return figure  # type: ignore[no-any-return]


def _draw_outputs(panel: xr.Dataset, ax: Axes, reach: float) -> None:
    x = np.linspace(-reach, reach, 401)
    for color, tau in enumerate(panel["class"].values):
        line = panel.sel({"class": tau})
        outputs = panel.simulated_output.values[panel.label.values == tau]
        bars: dict[str, Any] = {"bins": 50, "range": (-reach, reach), "density": True, "alpha": 0.35}
        ax.hist(outputs, color=f"C{color}", label=f"{line.digit.item()}, SGD", **bars)
        z = (x - line.output_mean.item()) / line.output_sd.item()
        density = np.exp(-(z**2) / 2) / (np.sqrt(2 * np.pi) * line.output_sd.item())
        gaussian = xr.DataArray(density, {"output": x}, "output")
        draw_lines(gaussian, ax, label=f"{line.digit.item()}, theory", **looks(2)[color].line())
    ax.axvline(0, color="0.3", linewidth=0.7, linestyle=":")


def _figure_of_errors(data: xr.Dataset) -> Figure:
    """Draw the adversarial error over test epsilon at the end of training, and over learning time."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    figure, axes = new_figure(2, data.sizes["norm"], width="double", height=4.8)
    for (above, below), norm in zip(axes.T, data.norm.values, strict=True):
        for look, training in zip(looks(data.sizes["training"]), data.training.values, strict=True):
            at: dict[str, Any] = {"norm": norm, "training": training}
            points: dict[str, Any] = look.points()
            theory, simulated = (end.sel(at).swap_dims(level="test_epsilon") for end in final(data))
            draw_lines(theory, above, label=_training(data, training), **look.line())
            draw_points(simulated, above, **points)
            draw_lines(data.adversarial_error.sel(at | {"level": 1}), below, **look.line())
            simulated = data.simulated_adversarial_error.sel(at | {"simulated_level": 1})
            draw_points(simulated.rename(simulated_examples="examples"), below, **points)
        below_all = data.bound.sel(norm=norm).swap_dims(level="test_epsilon")
        draw_lines(below_all, above, label="no classifier is below", color="k", linestyle=":")
        epsilon = _epsilon(data, norm)
        above.axvline(epsilon, color="0.3", linewidth=0.7, linestyle=":")
        above.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        above.set(xlabel=rf"$\varepsilon_\mathrm{{test}}$ in {SYMBOLS[norm]}", ylabel="adversarial error $S$")
        above.set_ylim(-0.02, 1.02)
        below.set(xscale="log", xlabel="images learned", ylim=(0, None))
        below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        below.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        below.xaxis.set_minor_formatter(NullFormatter())
        below.set_ylabel(rf"$S$ at $\varepsilon_\mathrm{{test}}={epsilon:g}$ in {SYMBOLS[norm]}")
    label_panels(axes.flat)
    runs = f"lines: theory, points: SGD, mean and s.d. of {data.sizes['run']} runs"
    _legend(figure, axes[0, 0], f"{data.attrs['title']}; {runs}")
    return figure  # type: ignore[no-any-return]


def _figure_of_weights(data: xr.Dataset, shape: tuple[int, ...]) -> Figure:
    """Draw the unit perturbations of each training as images: those of SGD's first run, and in theory."""
    figure, _ = new_figure(width="double", height=3.0)
    figure.clear()
    with style():
        for block, training in zip(figure.subfigures(1, data.sizes["training"]), data.training.values, strict=True):
            one = data.sel(training=training)
            axes = block.subplots(data.sizes["norm"], 2)
            sources = {"SGD": one.simulated_perturbation, "theory": one.perturbation}
            for row, norm in zip(axes, data.norm.values, strict=True):
                largest = max(float(abs(source.sel(norm=norm)).max()) for source in sources.values())
                for ax, source in zip(row, sources.values(), strict=True):
                    colours = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
                    image = _draw_image(source.sel(norm=norm).values, shape, ax, **colours)
                row[0].set_ylabel(NAMES[norm], fontsize=8)
                if norm == "l2":
                    bar = block.colorbar(image, ax=list(row), location="bottom", aspect=30, pad=0.03)
                    bar.ax.tick_params(labelsize=7)
                    bar.ax.locator_params(nbins=5)
            for ax, text in zip(axes[0], sources, strict=True):
                ax.set_title(text, fontsize=7, pad=3)
            numbers = rf"$|w|_1/|w|_2={one.simulated_sparsity[0].item():.1f}$; cosine {one.cosine[0].item():.3f}"
            block.suptitle(f"{_training(data, training)}\n{numbers}", fontsize=8)
        norms = f"unit perturbations in {SYMBOLS['l2']} (above) and {SYMBOLS['linf']} (below)"
        figure.suptitle(f"{data.attrs['title']}; {norms}", fontsize=8)
    return figure  # type: ignore[no-any-return]


def _figure_of_digits(data: xr.Dataset, shape: tuple[int, ...]) -> Figure:
    """Draw test images before and after the attacks on the first run's classifiers, and what these say."""
    rows = [("standard", "none"), *((training, norm) for norm in SYMBOLS for training in ("standard", norm))]
    figure, axes = new_figure(len(rows), data.sizes["shown"], width="double", height=6.9)
    figure.get_layout_engine().set(h_pad=0.02, hspace=0)
    pixels = np.stack([data.shown_image.sel(training=training, attack=attack) for training, attack in rows])
    beyond = np.ceil(20 * max(-pixels.min(), pixels.max() - 1)) / 20  # how far they leave [0, 1]
    grey = {"cmap": "gray", "vmin": -beyond, "vmax": 1 + beyond}
    for i, (line, (training, attack)) in enumerate(zip(axes, rows, strict=True)):
        one = data.sel(training=training).isel(image=data.shown)
        right = expit(one.label * one.simulated_output)  # probability of the right digit
        for k, ax in enumerate(line):
            _draw_image(pixels[i, k], shape, ax, **grey)
            if attack != "none":
                before, after = (right.sel(attack=name)[k].item() for name in ("none", attack))
                look = {"color": "C1", "weight": "bold"} if after <= 0.5 else {}
                ax.set_xlabel(f"{before:.2f} → {after:.2f}", fontsize=7, labelpad=2, **look)
        who = "standard" if training == "standard" else "adversarial"
        line[0].set_ylabel(_attack(data, attack) + (f"\n{who} training" if attack != "none" else ""), fontsize=7)
    effects = []
    for norm, name in SYMBOLS.items():
        free = final(data)[1].sel(norm=norm, level=1, training="standard")[0].item()
        clipped = data.clipped_error.sel(attack=norm, training="standard").item()
        effects.append(f"from {free:.2f} to {clipped:.2f} in {name}")
    figure.suptitle(
        f"{data.attrs['title']}, the first test images of each; "
        "below each, the probability of the right digit before → after the attack\n"
        f"Black is a pixel of ${-beyond:g}$ and white one of {1 + beyond:g}: nothing is clipped.\n"
        f"Clipping to [0, 1] would lower $S$ after standard training {' and '.join(effects)}.",
        fontsize=7,
    )
    return figure  # type: ignore[no-any-return]


def _draw_image(values: npt.NDArray[np.float64], shape: tuple[int, ...], ax: Axes, **colours: Any) -> AxesImage:
    """Draw the first channel of an image without axes."""
    ax.set(xticks=[], yticks=[])
    ax.minorticks_off()
    ax.spines[:].set_visible(False)
    return ax.imshow(values.reshape(shape)[0], **colours)


def _epsilon(data: xr.Dataset, norm: str) -> float:
    """Return the size of the perturbation in training."""
    return float(data.test_epsilon.sel(norm=norm, level=1))


def _training(data: xr.Dataset, training: str) -> str:
    if training == "standard":
        return "standard training"
    return rf"adversarial, {SYMBOLS[training]}, $\varepsilon={_epsilon(data, training):g}$"


def _attack(data: xr.Dataset, attack: str) -> str:
    if attack == "none":
        return "no attack"
    return rf"attack in {SYMBOLS[attack]}, $\varepsilon={_epsilon(data, attack):g}$"


def _legend(figure: Figure, ax: Axes, title: str) -> None:
    with style():
        handles, texts = ax.get_legend_handles_labels()
        legend_above(figure, handles, texts, title=title)
