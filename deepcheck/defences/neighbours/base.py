"""What all embeddings share: a net that is asked about a point near the image, one that it is more sure of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Bounds, Model, checked_bounds, plain
from deepcheck.attacks.calls import HALVES, logits_of
from deepcheck.attacks.norms import NORMS, Norm, rounded
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.defences.base import Defence
from deepcheck.defences.neighbours.ascent import Found, ascend
from deepcheck.defences.neighbours.goals import Goal
from odeflow.model import checked_count, checked_number

__all__ = ["AT_ONCE", "Batch", "Embedding"]

AT_ONCE = {"cpu": 250}
"""Points that the net sees at once, by kind of device; elsewhere 500."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images whose neighbours are looked for."""

    net: Model
    images: Tensor
    """Shape (n, ...), in single precision at least."""
    dtype: torch.dtype
    """Precision that they came in, and that the net is asked in."""
    classes: int
    """The number K of classes."""

    def __len__(self) -> int:
        return len(self.images)

    def asked(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the net as a search around some of the images asks it: from points to logits."""
        if images.dtype is self.dtype:
            return lambda z: logits_of(self.net, z)
        return lambda z: logits_of(self.net, rounded(z, images, self.dtype))

    def parts(self, copies: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield copies of the images, all of them time after time, in parts that the net can see at once, and their rows."""
        n, count = len(self), copies * len(self)
        at_once = AT_ONCE.get(self.images.device.type, 500)
        for start in range(0, count, at_once):
            rows = slice(start, min(start + at_once, count))
            yield rows, self.images[torch.arange(rows.start, rows.stop, device=self.images.device) % n]

    def out(self, points: Tensor) -> Tensor:
        """Return points, shape (..., n, ...), in the precision that the images came in."""
        return points if points.dtype is self.dtype else rounded(points, self.images.expand_as(points), self.dtype)


class Embedding(Defence):
    """The net at another point near the image: F(H(x)). A subclass says which, by its method `_embedded`.

    Nothing is drawn: the search begins at the image. It has no gradient of its own, as the point is the end of a search.

    Parameters
    ----------
    net, seed
        See `Defence`; there is nothing random in it. The net must return logits, whose softmax is its confidence.
    xi
        Radius of the ball around the image, >= 0.
    norm
        Of that ball: linf, l2 or l1, or a Norm that has a dual one.
    steps
        Gradients of each search, >= 1.
    attack_steps
        The same in the surrogate that attacks follow, >= 1.
    bounds
        Least and largest value of a pixel; infinite ones are allowed.

    Raises
    ------
    ValueError, TypeError
        If an option is out of its range. When it is called: if a pixel is out of bounds, or if the net returns one output
        for each image, or probabilities.
    """

    has_gradient = False

    def __init__(
        self,
        net: Model,
        *,
        xi: float = 0.1,
        norm: Norm | str = "linf",
        steps: int = 100,
        attack_steps: int = 20,
        bounds: Bounds = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(net, seed=seed)
        self.xi = checked_number("xi", xi, least=0)
        self.norm: Norm = as_norm(norm)
        if self.norm.dual is None:
            raise ValueError(f"norm = {self.norm.name} is not allowed: linf, l2 or l1 is, which have a dual norm")
        self.dual = NORMS[self.norm.dual]
        self.steps = checked_count("steps", steps, 1)
        self.attack_steps = checked_count("attack_steps", attack_steps, 1)
        self.bounds = checked_bounds(bounds)

    @abstractmethod
    def _embedded(self, batch: Batch, steps: int) -> Tensor:
        """Return the points, shape (n, ...), of n >= 1 images, after searches of so many steps."""

    def embedded(self, images: Tensor, *, steps: int | None = None) -> Tensor:
        """Return H(x), shape (n, ...), in ball and box, in the precision of the images.

        Parameters
        ----------
        images
            Shape (n, ...), pixels in `bounds`.
        steps
            Gradients of each search, >= 1; default: those of the defence.
        """
        if not len(images):
            return images
        with self._batch(images) as batch:
            return batch.out(self._embedded(batch, self._count(steps)))

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.embedded(images))
        return logits

    def _count(self, steps: int | None) -> int:
        return self.steps if steps is None else checked_count("steps", steps, 1)

    @contextmanager
    def _batch(self, images: Tensor) -> Iterator[Batch]:
        """Give images that are checked, n >= 1; without gradients, which may be switched on.

        Raises
        ------
        ValueError, TypeError
            If net or images are not as they must be.
        """
        with torch.inference_mode(False), torch.no_grad():
            given = plain(images)
            low, high = (float(value) for value in torch.aminmax(given))
            if not (self.bounds[0] <= low and high <= self.bounds[1]):
                raise ValueError(f"images have pixels in [{low:g}, {high:g}]: allowed is {list(self.bounds)}")
            logits = logits_of(self.net, given)
            if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
                raise ValueError(
                    "net returned outputs that sum to 1, as probabilities do: allowed are logits; leave the softmax out"
                )
            wide = given.float() if given.dtype in HALVES else given
            yield Batch(self.net, wide, given.dtype, logits.shape[1])

    def _searched(self, batch: Batch, goal: Goal, steps: int, copies: int = 1) -> Found:
        """Return the best points in the ball for a goal of so many copies of the images, all of them time after time."""
        return Found.joined([self._search(batch, x, goal.at(rows), steps) for rows, x in batch.parts(copies)])

    def _search(self, batch: Batch, x: Tensor, goal: Goal, steps: int) -> Found:
        """Return the best points for some of the images, of which the net can see all at once."""
        ball = {"norm": self.norm, "radius": self.xi, "bounds": self.bounds}
        return ascend(batch.asked(x), x, goal, steps=steps, **ball)  # type: ignore[arg-type]
