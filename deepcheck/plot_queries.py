"""Figures of attacks in odeflow's style: success over queries. Nothing changes a global setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from odeflow.plot import looks, new_figure, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot_queries"]


def plot_queries(success: xr.DataArray) -> Figure:
    """Draw the share of the examples that each attack turns within so many queries, as steps, over a logarithmic axis.

    Parameters
    ----------
    success
        From `deepcheck.evaluation.success_over_queries`. What is turned within no query is not drawn.

    Returns
    -------
    Figure
        One line for each attack, with one standard error shaded.

    Raises
    ------
    ValueError
        If it is no such array, or has no queries above 0.
    """
    if set(success.dims) != {"attack", "queries"} or "examples" not in success.coords:
        raise ValueError(
            f"success has the dims {success.dims}: allowed is what deepcheck.evaluation.success_over_queries returns"
        )
    shown = success.transpose("attack", "queries").sel(queries=success["queries"] > 0)
    if not shown.sizes["queries"]:
        raise ValueError("success has no queries above 0: allowed is one or more, as the axis is logarithmic")
    queries, n = shown["queries"].values, max(int(shown["examples"]), 1)
    with style():
        figure, axes = new_figure(width="single")
        ax = axes[0, 0]
        for share, look in zip(shown, looks(len(shown)), strict=True):
            y = share.values
            spread = np.sqrt(y * (1 - y) / n)
            ax.step(queries, y, where="post", label=str(share["attack"].item()), **look.line())
            ax.fill_between(queries, y - spread, y + spread, step="post", color=look.color, alpha=0.2, linewidth=0)
        ax.set(xscale="log", ylim=(0, 1), xlabel="queries for one example", ylabel="share turned")
        ax.legend()
    return figure  # type: ignore[no-any-return]
