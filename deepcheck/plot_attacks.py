"""Pictures of attacks: clean images, what attacks make of them, and the difference, with what a net says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.calls import evaluating, logits_of
from odeflow.model import checked_count, checked_number
from odeflow.plot import new_figure, style, width_of
from odeflow.plot.sheet import Width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FACTORS", "Pictures", "pictures_of", "plot_attacked"]

FACTORS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""By which differences are enlarged: the largest that keeps all but a hundredth of a row's in range."""
_CLIPPED = 0.01
"""Share of the differences of a row that may be out of range, of those that are not 0."""

_NAMES, _GAP, _TEXT, _EDGE = 0.98, 0.10, 0.165, 0.03
"""Inches: of the rows' names, between two images, of a line of text, and at the figure's edges."""
_LARGEST = 0.95
"""Width of a picture, in inches."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images, and what a net says of them.

    Raises
    ------
    ValueError
        If shapes or values are not allowed, or numbers do not match.
    """

    images: npt.NDArray[Any]
    """Shape (n, channels, height, width), in [0, 1], with 1 channel (grey) or 3 (red, green, blue)."""
    prediction: npt.NDArray[Any]
    """The predicted classes, shape (n,)."""
    confidence: npt.NDArray[Any]
    """Their probabilities, shape (n,)."""

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
            raise ValueError(f"images have the shape {images.shape}: allowed is (n, 1 or 3, height, width)")
        if not np.all((images >= 0) & (images <= 1)):
            raise ValueError(f"images have values in {images.min():g}..{images.max():g}: allowed is [0, 1]")
        object.__setattr__(self, "images", images)
        for name in ("prediction", "confidence"):
            values = np.asarray(getattr(self, name))
            if values.shape != (len(images),):
                raise ValueError(
                    f"{name} has the shape {values.shape}: allowed is one for each of {len(images)} images"
                )
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.images)


def pictures_of(model: Model, images: Tensor, *, batch_size: int = 500) -> Pictures:
    """Return images with the class that a model predicts for each, and its probability.

    Parameters
    ----------
    model
        A function from images to logits. A module is put into eval mode, and back afterwards.
    images
        Shape (n, 1 or 3, height, width), in [0, 1], one at least.
    batch_size
        Images that the model sees at once, >= 1.
    """
    checked_count("batch_size", batch_size, 1)
    with evaluating(model), torch.no_grad():
        logits = torch.cat([logits_of(model, part) for part in images.detach().split(batch_size)])
    confidence, prediction = logits.softmax(1).max(1)
    return Pictures(images.detach().double().cpu().numpy(), prediction.cpu().numpy(), confidence.double().cpu().numpy())


def plot_attacked(
    images: Pictures,
    attacked: Mapping[str, Pictures],
    *,
    class_names: Sequence[str] | None = None,
    factor: float | None = None,
    width: Width = "double",
) -> Figure:
    r"""Draw clean images above what each attack makes of them, each beside its difference from the clean one.

    Parameters
    ----------
    images
        Clean images, one a column; about five have room in the width of a page.
    attacked
        Name of an attack to the same images attacked, one attack a row.
    class_names
        Names of the classes; default: their numbers.
    factor
        By which differences are enlarged, > 0; default: for each attack the largest of `FACTORS` with which at most a hundredth
        of its differences is out of range. It stands under the attack's name.
    width
        "single", "double" or inches.

    Returns
    -------
    Figure
        Above each image stand the predicted class and its confidence, in grey where the class is that of the clean image.
        A difference d of a grey image is white where there is none, red where the image became brighter, blue where it became
        darker; of a coloured one it is drawn as 1/2 + factor d / 2, so that mid-grey is none. What is out of range is clipped.

    Raises
    ------
    ValueError
        If there is no attack, images of an attack are others in number or shape, a factor is not allowed, or there are fewer
        names than classes predicted.

    Examples
    --------
    >>> clean = Pictures(np.zeros((2, 1, 4, 4)), np.array([0, 1]), np.array([0.9, 0.8]))
    >>> found = Pictures(np.full((2, 1, 4, 4), 0.2), np.array([1, 1]), np.array([0.7, 0.6]))
    >>> figure = plot_attacked(clean, {"fgsm": found})
    >>> print(*[text.get_text() for text in figure.texts], sep="\n")
    clean
    fgsm
    difference $\times$ 5
    """
    _check(images, attacked, class_names)
    if factor is not None:
        checked_number("factor", factor, above=0)
    inches = width_of(width)
    n, (_, _, high, wide) = len(images), images.images.shape
    size = min(_LARGEST, (inches - _NAMES - _EDGE - (n - 1) * _GAP) / (2 * n))
    if size <= 0.1:
        raise ValueError(f"images are {n}: allowed are fewer, which have room in {inches:g} inches")
    tall = size * high / wide
    height = (1 + len(attacked)) * (tall + _TEXT) + _EDGE
    with style():
        figure, axes = new_figure(1 + len(attacked), 2 * n, width=inches, height=height)
        figure.set_layout_engine("none")

        def place(ax: Axes, row: int, left: float) -> float:
            top = _TEXT + row * (tall + _TEXT)
            ax.set_position((left / inches, 1 - (top + tall) / height, size / inches, tall / height))
            ax.set_axis_off()
            return float(1 - (top + tall / 2) / height)

        for row, (name, some) in enumerate({"clean": images, **attacked}.items()):
            delta = some.images - images.images
            times = _factor(delta) if factor is None else factor
            for column in range(n):
                left = _NAMES + column * (2 * size + _GAP)
                picture, difference = axes[row, 2 * column : 2 * column + 2]
                middle = place(picture, row, left if row else left + size / 2)
                place(difference, row, left + size)
                _draw(picture, some.images[column])
                if row:
                    _draw_difference(difference, delta[column], times)
                else:
                    difference.remove()
                turned = row == 0 or some.prediction[column] != images.prediction[column]
                picture.set_title(
                    _said(some, column, class_names), fontsize=7, pad=2, loc="left" if row else "center",
                    color="black" if turned else "0.55",
                )  # fmt: skip
            text = f"{name}\n" + rf"difference $\times$ {times:g}" if row else name
            figure.text((_NAMES - 0.08) / inches, middle, text, fontsize=7, ha="right", va="center", linespacing=1.3)
    return figure  # type: ignore[no-any-return]


def _check(images: Pictures, attacked: Mapping[str, Pictures], class_names: Sequence[str] | None) -> None:
    if not attacked:
        raise ValueError("attacked = {} has nothing to draw: allowed is one attack or more")
    for name, some in attacked.items():
        if some.images.shape != images.images.shape:
            raise ValueError(
                f"attacked[{name!r}] has images of the shape {some.images.shape}: allowed is that of the clean ones, "
                f"{images.images.shape}"
            )
    largest = max(int(some.prediction.max()) for some in (images, *attacked.values()))
    if class_names is not None and largest >= len(class_names):
        raise ValueError(
            f"class_names has {len(class_names)} names: allowed is one for each class, of which {largest} is predicted"
        )


def _factor(delta: npt.NDArray[Any]) -> float:
    """Return the largest of FACTORS with which few differences are out of range, up to rounding; 1 where there are none."""
    sizes = np.abs(delta[delta != 0])
    most = float(np.quantile(sizes, 1 - _CLIPPED)) if sizes.size else 1.0
    fitting = [factor for factor in FACTORS if factor * most <= 1 + 1e-6]
    return fitting[-1] if fitting else FACTORS[0]


def _said(some: Pictures, column: int, class_names: Sequence[str] | None) -> str:
    index = int(some.prediction[column])
    return f"{class_names[index] if class_names else index} ({some.confidence[column]:.0%})"


def _draw(ax: Axes, image: npt.NDArray[Any]) -> None:
    if len(image) == 1:
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(np.moveaxis(image, 0, -1))


def _draw_difference(ax: Axes, delta: npt.NDArray[Any], factor: float) -> None:
    if len(delta) == 1:
        ax.imshow(factor * delta[0], cmap="RdBu_r", vmin=-1, vmax=1)
    else:
        ax.imshow(np.clip(0.5 + factor * np.moveaxis(delta, 0, -1) / 2, 0, 1))
