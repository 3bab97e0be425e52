"""Pictures of the attack on explanations: images and their maps, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.plot import new_figure, style, width_of
from odeflow.plot.sheet import Width

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot_attributions"]

_NAMES, _GAP, _TEXT, _EDGE = 0.98, 0.08, 0.17, 0.03
"""Inches: of the rows' names, between two images, of a line of text, and at the figure's edges."""
_LARGEST = 0.95
"""Width of a picture, in inches."""
_MOST = 0.99
"""Quantile of a pair of maps that is drawn in full colour."""


def plot_attributions(
    records: xr.Dataset, *, class_names: Sequence[str] | None = None, width: Width = "double"
) -> Figure:
    r"""Draw images and attacked images, the difference, and the map of each.

    Parameters
    ----------
    records
        From `deepcheck.attributions.attribution_robustness` with `shown`; about six images have room in the width of a page.
    class_names
        Names of the classes; default: their numbers.
    width
        "single", "double" or inches.

    Returns
    -------
    Figure
        A column for each image, with its class above, and below the share of the largest k pixels of the map that the attack
        left among them. Maps are of one scale in each column: red speaks for the class, blue against it, and the largest
        hundredth is clipped; over channels they are summed. The difference is red where the image became brighter, blue
        where darker, white for none, in full colour at epsilon.

    Raises
    ------
    ValueError
        If there are no pictures in the records, or too many for the width.
    """
    missing = [name for name in ("image", "attacked_image", "map", "attacked_map") if name not in records]
    if missing:
        raise ValueError(
            f"records lack {', '.join(missing)}: allowed is what attribution_robustness returns with shown = 1 or more"
        )
    image, attacked, first, second = (
        records[name].values for name in ("image", "attacked_image", "map", "attacked_map")
    )
    inches = width_of(width)
    n, (_, _, high, wide) = len(image), image.shape
    size = min(_LARGEST, (inches - _NAMES - _EDGE - (n - 1) * _GAP) / max(n, 1))
    if n == 0 or size <= 0.1:
        raise ValueError(f"shown are {n} images: allowed are one or more, which have room in {inches:g} inches")
    tall = size * high / wide
    rows = ("image", "attacked", "difference", "map", "map, attacked")
    height = len(rows) * (tall + _GAP) + 2 * _TEXT + 2 * _EDGE
    shared = records["top_pixels_shared"].sel(change="attack", example=records["shown"]).values
    labels = records["label"].sel(example=records["shown"]).values
    epsilon, k = float(records["epsilon"]), int(records["k"])
    with style():
        figure, axes = new_figure(len(rows), n, width=inches, height=height)
        figure.set_layout_engine("none")
        for column in range(n):
            maps = [one[column].sum(0) for one in (first, second)]
            scale = float(np.quantile(np.abs(np.concatenate([one[one != 0] for one in maps] or [np.ones(1)])), _MOST))
            pictures = [image[column], attacked[column], attacked[column] - image[column], *maps]
            for row, picture in enumerate(pictures):
                top = _EDGE + _TEXT + row * (tall + _GAP)
                left = _NAMES + column * (size + _GAP)
                ax = axes[row, column]
                ax.set_position((left / inches, 1 - (top + tall) / height, size / inches, tall / height))
                ax.set(xticks=[], yticks=[])
                ax.tick_params(which="both", length=0)
                ax.minorticks_off()
                for spine in ax.spines.values():
                    spine.set(visible=row > 1, color="0.8", linewidth=0.5)
                if row < 2:
                    _draw(ax, picture)
                else:
                    signed = picture.mean(0) if picture.ndim == 3 else picture
                    most = (epsilon if row == 2 else scale) or 1.0
                    ax.imshow(signed, cmap="RdBu_r", vmin=-most, vmax=most)
            label = int(labels[column])
            axes[0, column].set_title(str(class_names[label]) if class_names else str(label), fontsize=7, pad=2)
            axes[-1, column].set_xlabel(f"{shared[column]:.0%}", fontsize=7, labelpad=2)
        for row, name in enumerate(rows):
            middle = _EDGE + _TEXT + row * (tall + _GAP) + tall / 2
            place = ((_NAMES - 0.08) / inches, 1 - middle / height)
            figure.text(*place, name, fontsize=7, ha="right", va="center")
        foot = ((_NAMES - 0.08) / inches, (_EDGE + 0.75 * _TEXT + _GAP) / height)
        figure.text(*foot, f"top {k} shared", fontsize=7, ha="right", va="center")
    return figure  # type: ignore[no-any-return]


def _draw(ax: Any, image: npt.NDArray[Any]) -> None:
    if len(image) == 1:
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(np.moveaxis(image, 0, -1))
