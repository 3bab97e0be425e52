r"""Maps that say which pixels a prediction rests on: saliency, gradient times input, integrated gradients.

All are made of gradients by the image of one number F that a net says of an image and a class y:

=================  =====================================================
`logit`            :math:`F = z_y`, the default, as in the published attacks on maps
`probability`      :math:`F = p_y`
`loss`             :math:`F = -\log p_y`, which training methods explain
=================  =====================================================
"""

from __future__ import annotations

import abc
import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from deepcheck.attacks.base import Model, checked_images, checked_logits, evaluating, frozen, plain
from deepcheck.attacks.calls import logits_of
from deepcheck.attacks.gradients import NO_GRADIENT
from deepcheck.attacks.objectives import CrossEntropy
from deepcheck.checks import checked_choice
from deepcheck.device import exact_float32
from odeflow.model import checked_count, checked_number

__all__ = [
    "EXPLAINED",
    "MAPS",
    "AttributionMap",
    "GradientTimesInput",
    "IntegratedGradients",
    "Saliency",
    "explained",
    "integrated",
    "pixel_sizes",
]

Explained = Literal["logit", "probability", "loss"]
Rule = Literal["midpoint", "trapezoid"]
EXPLAINED = ("logit", "probability", "loss")
RULES = ("midpoint", "trapezoid")


def explained(logits: Tensor, classes: Tensor, of: str = "logit") -> Tensor:
    """Return F, shape (n,), of logits, shape (n, K), for a class of each, shape (n,): see the table above."""
    if of == "loss":
        return CrossEntropy()(logits, classes)
    return (logits if of == "logit" else logits.softmax(1)).gather(1, classes[:, None]).squeeze(1)


def gradient(model: Model, points: Tensor, classes: Tensor, of: str, *, create_graph: bool = False) -> Tensor:
    """Return the gradient of F by the points, shape (n, ...): each by its own. The graph of the points is kept on request.

    Raises
    ------
    ValueError
        If the model has none.
    """
    with torch.enable_grad():
        z = points if points.requires_grad else points.detach().requires_grad_()
        F = explained(logits_of(model, z), classes, of)
        found = torch.autograd.grad(F.sum(), z, create_graph=create_graph, allow_unused=True) if F.requires_grad else ()
    if not found or found[0] is None:
        raise ValueError(NO_GRADIENT)
    return found[0]


def integrated(
    model: Model,
    start: Tensor,
    end: Tensor,
    classes: Tensor,
    *,
    steps: int,
    of: str = "logit",
    rule: str = "midpoint",
    create_graph: bool = False,
) -> Tensor:
    r"""Return integrated gradients along the straight line from `start` to `end`, both of shape (n, ...). Nothing is checked.

    .. math:: \mathrm{IG} = (x' - x) \circ \int_0^1 \nabla F(x + t (x' - x))\, dt

    The integral is a sum over m = `steps` intervals: of their midpoints, or by the trapezoid rule of their m + 1 ends. Both
    are of order 1/m^2 where F is smooth, and 1/m where the line crosses kinks of ReLUs (a jump of the gradient within an
    interval). The sum over pixels is F(x') - F(x) up to this error: completeness (Sundararajan, Taly, Yan, ICML 2017).

    With `create_graph` gradients pass through: to the model's parameters, and to an end that asks for them.
    """
    if rule == "midpoint":
        t = (torch.arange(steps, dtype=end.dtype, device=end.device) + 0.5) / steps
        weight = torch.full_like(t, 1 / steps)
    else:
        t = torch.arange(steps + 1, dtype=end.dtype, device=end.device) / steps
        weight = torch.full_like(t, 1 / steps)
        weight[[0, -1]] /= 2
    difference = end - start
    along = (-1, *[1] * end.ndim)
    z = (start + t.view(along) * difference).flatten(0, 1)
    g = gradient(model, z, classes.repeat(len(t)), of, create_graph=create_graph)
    return difference * (weight.view(along) * g.view(len(t), *end.shape)).sum(0)


def pixel_sizes(maps: Tensor) -> Tensor:
    """Return how much a map gives to each pixel: absolute values, summed over the channels, shape (n, pixels).

    Parameters
    ----------
    maps
        Shape (n, channels, height, width); or (n, D), of which every entry is a pixel.
    """
    return maps.abs().sum(1).flatten(1) if maps.ndim == 4 else maps.abs().flatten(1)


@dataclass(frozen=True)
class AttributionMap(abc.ABC):
    """A map: a frozen configuration that is called with a model, images and classes."""

    _: KW_ONLY
    of: Explained = "logit"
    """What is explained: see the module."""

    name: ClassVar[str]
    passes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        checked_choice("of", self.of, EXPLAINED)

    @abc.abstractmethod
    def attributed(self, model: Model, images: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return the maps, in the shape of the images. Nothing is checked, and the model is used in the mode that it is in."""

    def points(self) -> int:
        """Return at how many points the model is asked for each image."""
        return 1

    @exact_float32()
    def __call__(self, model: Model, images: Tensor, classes: Tensor, *, batch_size: int = 500) -> Tensor:
        """Return the maps of some images.

        Parameters
        ----------
        model
            A function from images to logits, shape (n, K). A module is put into eval mode, and back afterwards.
        images
            Shape (n, ...), numbers of a floating type; of images in [0, 1] black is the image of nothing.
        classes
            What is explained of each image: mostly its true class, or the predicted one. Shape (n,), int64.
        batch_size
            Points that the model sees at once, >= 1, but for one image's, which it always sees together. The result does
            not depend on it, but for rounding.

        Returns
        -------
        Tensor
            In the shape of the images, signed.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed, or the model has no gradient.
        """
        checked_images(images, classes, (-math.inf, math.inf))
        rows = max(1, checked_count("batch_size", batch_size, 1) // self.points())
        x, y = plain(images), plain(classes)
        if not len(x):
            return torch.zeros_like(x)
        with torch.inference_mode(False), torch.no_grad(), evaluating(model), frozen(model):
            checked_logits(model(x[:1].clone()), 1, y)
            parts = [self.attributed(model, x[i : i + rows], y[i : i + rows]) for i in range(0, len(x), rows)]
            return torch.cat(parts)


@dataclass(frozen=True)
class Saliency(AttributionMap):
    """The gradient itself (Simonyan, Vedaldi, Zisserman, ICLR workshop 2014): its absolute values are the saliency.

    Of a linear net it is the row of weights of the class.
    """

    name = "saliency"

    def attributed(self, model: Model, images: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return the gradient of F."""
        return gradient(model, images, classes, self.of, create_graph=create_graph)


@dataclass(frozen=True)
class GradientTimesInput(AttributionMap):
    """The gradient times the image (Shrikumar et al., 2016): integrated gradients from black if F were linear."""

    name = "gradient_times_input"

    def attributed(self, model: Model, images: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return x grad F."""
        return images * gradient(model, images, classes, self.of, create_graph=create_graph)


@dataclass(frozen=True)
class IntegratedGradients(AttributionMap):
    """Integrated gradients (Sundararajan, Taly, Yan, ICML 2017) from an image of one colour, black, to the image.

    Exact for linear nets; else see `integrated` for the error. The rule is that of midpoints: the published code of attacks on
    maps takes the right ends of the intervals, whose error is of order 1/m even where F is smooth.

    Examples
    --------
    >>> from deepcheck import models
    >>> model = models.build("linear", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> images, classes = torch.rand(5, 1, 8, 8), torch.arange(5)
    >>> maps = IntegratedGradients(steps=10)(model, images, classes)
    >>> difference = (model(images) - model(0 * images))[range(5), classes]
    >>> bool(torch.allclose(maps.flatten(1).sum(1), difference, atol=1e-5))
    True
    """

    name = "integrated_gradients"

    _: KW_ONLY
    steps: int = 50
    """Intervals of the path, m >= 1."""
    rule: Rule = "midpoint"
    """midpoint or trapezoid."""
    baseline: float = 0.0
    """Every pixel of the image of nothing, from which the path starts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        checked_choice("rule", self.rule, RULES)
        object.__setattr__(self, "baseline", checked_number("baseline", self.baseline))

    def points(self) -> int:
        """Return at how many points the model is asked for each image."""
        return self.steps + (self.rule == "trapezoid")

    def attributed(self, model: Model, images: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return integrated gradients from the baseline."""
        start = torch.full_like(images, self.baseline)
        options = {"steps": self.steps, "of": self.of, "rule": self.rule, "create_graph": create_graph}
        return integrated(model, start, images, classes, **options)  # type: ignore[arg-type]


MAPS: dict[str, type[AttributionMap]] = {one.name: one for one in (IntegratedGradients, Saliency, GradientTimesInput)}
"""All maps by name."""
