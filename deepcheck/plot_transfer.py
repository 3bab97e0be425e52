"""The figure of a transfer matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepcheck.checks import checked_choice
from odeflow.plot import new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot_transfer"]

_LABELS = {
    "accuracy": "accuracy of the target (%)",
    "success": "broken, of what the target got right (%)",
}


def plot_transfer(matrix: xr.Dataset, variable: str = "accuracy") -> Figure:
    """Draw a transfer matrix: a row for each attacker, a column for each target, a panel for each epsilon, with numbers.

    Parameters
    ----------
    matrix
        From `deepcheck.evaluation.transfer_matrix`.
    variable
        "accuracy" or "success".

    Returns
    -------
    Figure
        Shares in percent; the attack on a net itself, on the diagonal, is framed.

    Raises
    ------
    ValueError, TypeError
        If it is no such matrix.
    """
    checked_choice("variable", variable, _LABELS)
    if variable not in matrix or not {"attacker", "target"} <= set(matrix[variable].dims):
        raise ValueError(
            f"matrix lacks {variable} by attacker and target: allowed is what deepcheck.evaluation.transfer_matrix returns"
        )
    share = matrix[variable]
    share = share.expand_dims("epsilon") if "epsilon" not in share.dims else share
    share = 100 * share.transpose("epsilon", "attacker", "target")
    attackers, targets = [str(one) for one in share["attacker"].values], [str(one) for one in share["target"].values]
    panels = len(share)
    with style():
        size = 0.55 * len(targets)
        figure, axes = new_figure(1, panels, width=1.9 + panels * size, height=1.3 + 0.45 * len(attackers))
        for number, (ax, values) in enumerate(zip(axes[0], share, strict=True)):
            drawn = ax.imshow(values.values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
            for (row, column), value in np.ndenumerate(values.values):
                colour = "black" if value > 55 else "white"
                text = f"{value:.1f}" if np.isfinite(value) else "none"
                ax.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
                if attackers[row] == targets[column]:
                    frame = {"fill": False, "edgecolor": colour, "linewidth": 0.9}
                    ax.add_patch(_rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **frame))
            ax.set_xticks(range(len(targets)), targets, rotation=45, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(len(attackers)), attackers if number == 0 else [""] * len(attackers))
            ax.minorticks_off()
            ax.tick_params(length=0)
            ax.set_title(rf"$\varepsilon={float(values['epsilon']):.3g}$", fontsize=8)
            ax.set_xlabel("target")
        axes[0, 0].set_ylabel("attacker")
        bar = figure.colorbar(drawn, ax=list(axes[0]), pad=0.02)
        bar.set_label(_LABELS[variable])
    return figure  # type: ignore[no-any-return]


def _rectangle(*place: object, **options: object) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle(*place, **options)  # type: ignore[arg-type]
