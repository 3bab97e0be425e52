"""The attack on explanations: it moves the largest pixels of a map, and leaves the prediction as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from deepcheck.attacks.base import (
    Bounds,
    Model,
    checked_bounds,
    checked_epsilons,
    checked_images,
    checked_logits,
    evaluating,
    frozen,
    plain,
)
from deepcheck.attacks.calls import logits_of
from deepcheck.attacks.checks import checked_indices
from deepcheck.attacks.draws import Draws, keys, mixed
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.objectives import Margin
from deepcheck.attacks.starts import Start, UniformBall
from deepcheck.attributions.maps import AttributionMap, IntegratedGradients, pixel_sizes
from deepcheck.attributions.metrics import top_pixels, top_pixels_shared
from deepcheck.attributions.smooth import Smoothed
from deepcheck.device import exact_float32
from odeflow.model import checked_count, checked_number

__all__ = ["AttributionAttack", "AttributionsAttacked"]


@dataclass(frozen=True, eq=False, repr=False)
class AttributionsAttacked:
    """What an attack on maps found. With several epsilons every field has a first axis for them."""

    images: Tensor
    """Attacked images, (n, ...), in ball and box, each classified as its original: the original where nothing was found."""
    shared: Tensor
    """Share of the k largest pixels of the map that are among the k largest still, (n,): the least of all restarts."""
    moved: Tensor
    """Whether anything was found: the same prediction and fewer pixels shared, (n,), bool."""
    restarts: Tensor
    """`shared` by restart, (restarts, n)."""
    length: Tensor
    """Norm of the perturbation, (n,)."""

    def __repr__(self) -> str:
        return f"AttributionsAttacked({self.shared.shape[-1]} images, {self.restarts.shape[-2]} restarts)"


@dataclass(frozen=True)
class AttributionAttack:
    r"""Projected gradient ascent against the top k of a map (Ghorbani, Abid, Zou, AAAI 2019; Chen et al., NeurIPS 2019).

    With a the sizes of the map's pixels, and T the k largest on the original image, it descends

    .. math:: \sum_{i \in T} a_i(z) \Big/ \sum_i a_i(z)

    in the ball around the image, along signs of the gradient in L-infinity. The gradient is that of a net with softplus in
    the place of ReLUs (`Smoothed`), which has the second derivatives; what is found is judged by the net itself. Where the
    prediction is no longer that of the image, the step goes back, up the margin of that class. Of all points with the same
    prediction the one with the fewest shared pixels is kept, over all restarts, for each example.

    Approximate: an upper bound on the least share in the ball.

    Examples
    --------
    >>> from deepcheck import models
    >>> model = models.build("conv_small", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    >>> attack = AttributionAttack(IntegratedGradients(steps=5), k=16, steps=10)
    >>> found = attack(model, images, torch.arange(5), epsilon=0.1, generator=torch.Generator().manual_seed(2))
    >>> found.images.shape, bool((found.shared < 1).all())
    (torch.Size([5, 1, 8, 8]), True)
    """

    map: AttributionMap = field(default_factory=lambda: IntegratedGradients(steps=20))
    """What explains, and is judged by."""
    norm: Norm | str = "linf"
    """The ball: a name out of `deepcheck.attacks.norms.NORMS`, or a Norm."""
    _: KW_ONLY
    k: int = 100
    """Largest pixels of the map that are to be moved, >= 1."""
    steps: int = 50
    """Gradient steps per restart, >= 1."""
    step_size: float | None = None
    """Length of a step, > 0; None: 2.5 epsilon / steps, and epsilon at most."""
    restarts: int = 1
    """Number of searches, >= 1."""
    start: Start = field(default_factory=UniformBall)
    """Law of the first perturbation."""
    search_steps: int = 10
    """Of integrated gradients, intervals of the path in the gradient that is followed, >= 1: that of the map, if it has fewer."""
    softplus: float | None = 10.0
    """Steepness of the softplus in the search, > 0; None: the net as it is, which of ReLUs says little of logits."""
    bounds: Bounds = (0.0, 1.0)
    """Least and largest value of a pixel."""

    def __post_init__(self) -> None:
        if not isinstance(self.map, AttributionMap):
            raise TypeError(f"map = {self.map!r} is of the wrong type: allowed is one, say IntegratedGradients()")
        if not isinstance(self.start, Start):
            raise TypeError(f"start = {self.start!r} is of the wrong type: allowed is a Start, say UniformBall()")
        object.__setattr__(self, "norm", as_norm(self.norm))
        object.__setattr__(self, "bounds", checked_bounds(self.bounds))
        for name in ("k", "steps", "restarts", "search_steps"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        for name in ("step_size", "softplus"):
            if getattr(self, name) is not None:
                checked_number(name, getattr(self, name), above=0)

    @exact_float32()
    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> AttributionsAttacked:
        """Attack the maps of some images.

        Parameters
        ----------
        model
            A function from images to logits, shape (n, K), differentiable in torch. A module is put into eval mode, and back
            afterwards.
        images
            Shape (n, ...), pixels in `bounds`, float32 or float64. They are not changed.
        labels
            The classes that are explained, shape (n,), int64.
        epsilon
            Radius of the ball, >= 0, or several.
        generator
            Source of the seed. It advances by one number.
        indices
            Numbers of the examples, >= 0, shape (n,), int64; default: 0, ..., n - 1. An example's random numbers depend on
            the seed and its number alone.
        batch_size
            Points that the model sees at once, >= 1, but for those of one image's path, which it sees together. The result
            does not depend on it, but for rounding.
        progress
            Show a progress bar on a terminal.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed, or the model returns no logits or has no gradient.
        """
        epsilons, single = checked_epsilons(epsilon)
        checked_images(images, labels, self.bounds)
        points = max(self.map.points(), self._search_map().points())
        rows = max(1, checked_count("batch_size", batch_size, 1) // points)
        index = checked_indices(indices, images)
        x, y = plain(images), plain(labels)
        checked_count("k", self.k, 1, most=pixel_sizes(x[:1]).shape[1] if len(x) else None)
        key = keys(generator, index)
        parts = range(0, len(x), rows)
        total = len(epsilons) * self.restarts * self.steps * len(parts)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            evaluating(model),
            frozen(model),
            tqdm(total=total, desc="attack on maps", unit="step", disable=None if progress else True) as bar,
        ):
            if len(x):
                checked_logits(logits_of(model, x[:1]), 1, y)
            by_epsilon = []
            for value in epsilons:
                done = [
                    self._batch(model, x[i : i + rows], y[i : i + rows], value, key[i : i + rows], bar) for i in parts
                ]
                by_epsilon.append(_joined(done) if done else _none(x, self.restarts))
        return by_epsilon[0] if single else _each(torch.stack, by_epsilon)

    def _search_map(self) -> AttributionMap:
        """Return the map that the gradient goes through."""
        if isinstance(self.map, IntegratedGradients):
            return replace(self.map, steps=min(self.map.steps, self.search_steps))
        return self.map

    def _step(self, epsilon: float) -> float:
        return min(2.5 / self.steps, 1.0) * epsilon if self.step_size is None else self.step_size

    def _batch(
        self, model: Model, x: Tensor, y: Tensor, epsilon: float, key: Tensor, bar: tqdm[Any]
    ) -> AttributionsAttacked:
        """Attack one batch with all restarts."""
        assert isinstance(self.norm, Norm)
        original, kept_class = pixel_sizes(self.map.attributed(model, x, y)), logits_of(model, x).argmax(1)
        best, least, each = x.clone(), torch.ones_like(original[:, 0]), []
        for restart in range(self.restarts):
            draws = Draws(mixed(mixed(key, restart), 0))
            z = self.norm.confinement(x, epsilon, self.bounds)(x + self.start(self.norm, x, epsilon, draws))
            found, shared = self._search(model, x, y, z, original, kept_class, epsilon, bar)
            better = shared < least
            best, least = torch.where(per_example(better, x), found, best), torch.minimum(shared, least)
            each.append(shared)
        return AttributionsAttacked(best, least, least < 1, torch.stack(each), self.norm.length(best - x))

    def _search(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        z: Tensor,
        original: Tensor,
        kept_class: Tensor,
        epsilon: float,
        bar: tqdm[Any],
    ) -> tuple[Tensor, Tensor]:
        """Return the points of one restart with the fewest pixels shared, and their share."""
        assert isinstance(self.norm, Norm)
        confine, size = self.norm.confinement(x, epsilon, self.bounds), self._step(epsilon)
        top = top_pixels(original, self.k)
        best, least = x.clone(), torch.ones_like(original[:, 0])
        for t in range(self.steps + 1):
            same = logits_of(model, z).argmax(1) == kept_class
            shared = top_pixels_shared(original, pixel_sizes(self.map.attributed(model, z, y)), self.k)
            better = same & (shared < least)
            best, least = torch.where(per_example(better, x), z, best), torch.where(better, shared, least)
            if t == self.steps:
                break
            g = self._gradient(model, z, y, top, kept_class, same)
            norm = self.norm.during(t / max(self.steps - 1, 1), x[0].numel())
            z = confine(z + size * norm.steepest(g))
            bar.update()
        return best, least

    def _gradient(self, model: Model, z: Tensor, y: Tensor, top: Tensor, kept_class: Tensor, same: Tensor) -> Tensor:
        """Return where to go: down the share of the top pixels, or where the prediction has changed, back to it."""
        with torch.enable_grad():
            points = z.detach().requires_grad_()
            searched = model if self.softplus is None else Smoothed(model, self.softplus)
            a = pixel_sizes(self._search_map().attributed(searched, points, y, create_graph=True))
            share = (a * top).sum(1) / a.sum(1).clamp(min=torch.finfo(a.dtype).tiny)
            value = -share
            if not bool(same.all()):
                value = torch.where(same, value, -Margin()(logits_of(model, points), kept_class))
            if not value.requires_grad:
                return torch.zeros_like(z)
            found = torch.autograd.grad(value.sum(), points, allow_unused=True, materialize_grads=True)
        return found[0].nan_to_num(nan=0.0)


def _each(function: Callable[[list[Tensor]], Tensor], some: Sequence[AttributionsAttacked]) -> AttributionsAttacked:
    return AttributionsAttacked(
        **{one.name: function([getattr(part, one.name) for part in some]) for one in fields(some[0])}
    )


def _joined(parts: Sequence[AttributionsAttacked]) -> AttributionsAttacked:
    """Return the batches as one; the examples are the last axis of `restarts`."""
    whole = _each(torch.cat, [replace(part, restarts=part.restarts.T) for part in parts])
    return replace(whole, restarts=whole.restarts.T)


def _none(x: Tensor, restarts: int) -> AttributionsAttacked:
    one = x.new_empty(0)
    return AttributionsAttacked(x.clone(), one, one.bool(), x.new_empty((restarts, 0)), one)
