"""What the study theory_on_data shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odeflow.plot import draw_lines, draw_points, label_panels, legend_above, new_figure, style, symbol
from studies.theory_on_data.plan import DUAL, SAMPLES, THEORIES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["figure"]

TITLES = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}


def figure(data: xr.Dataset) -> Figure:
    """Draw a setting in each row: S over the test epsilon; norm, b and E over training."""
    rows = data.sizes["setting"]
    drawn, axes = new_figure(rows, 4, width="double", height=0.8 + 1.2 * rows)
    looks: dict[str, dict[str, Any]] = {
        "Gaussian": {"color": "C0", "fmt": "o", "markerfacecolor": "white"},
        "images": {"color": "C1", "fmt": "s"},
    }
    colors = {"eta -> 0": {"color": "0.55", "linestyle": "--"}, "with noise": {"color": "C0"}}
    for row, ax_row in enumerate(axes):
        one = data.isel(setting=row)
        norm = one.norm.item()
        for ax, name in zip(ax_row, ("adversarial_error", "dual_norm", "b", "error"), strict=True):
            dim, x = ("test", "test_epsilon") if name == "adversarial_error" else ("time", "examples")
            for theory, text in THEORIES.items():
                line = one[name].sel(theory=theory).swap_dims({dim: x})
                draw_lines(line, ax, label=text, **colors[theory])
            for sample, text in SAMPLES.items():
                points = one[f"simulated_{name}"].sel(sample=sample).dropna("run", how="all")
                points = points.swap_dims({f"simulated_{dim}": f"simulated_{x}"}).rename({f"simulated_{x}": x})
                draw_points(points, ax, label=text, **looks[sample])
            with style():
                ax.set_ylabel(symbol(DUAL[norm] if name == "dual_norm" else name))
                below = symbol(x) if dim == "test" else "examples"
                ax.set_xlabel(below if row == rows - 1 else "", fontsize=8)
        below = one.bound.swap_dims(test="test_epsilon")
        draw_lines(below, ax_row[0], label="no classifier is below", color="k", linestyle=":")
        with style():
            ax_row[0].set_ylabel(symbol("adversarial_error"))
            ax_row[0].axvline(one.epsilon.item(), color="0.8", linewidth=0.8, zorder=0)
            space = {"l2": "L_2", "linf": r"L_\infty"}[norm]
            title = rf"${space}$, $\varepsilon={one.epsilon.item():g}$, $\eta={one.eta.item():g}$"
            ax_row[0].set_title(title, loc="left", fontsize=8)
    with style():
        handles, texts = axes[0, 0].get_legend_handles_labels()
        images, classes = data.pair.values[0].split(" ", 1)
        title = (
            f"{TITLES[images]}, {classes.replace('vs', 'against')}; points: mean and s.d. of {data.runs.values[0]} runs"
        )
        label_panels(axes.flat)
        legend_above(drawn, handles, texts, title=title)
    return drawn  # type: ignore[no-any-return]
