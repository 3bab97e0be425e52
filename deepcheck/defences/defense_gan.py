"""The nearest image of a generator in the place of the image."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Attack, Model
from deepcheck.attacks.draws import Draws, keys
from deepcheck.defences.base import Defence
from deepcheck.defences.on_manifold import OnManifold
from deepcheck.defences.onto_manifold import OntoManifold
from deepcheck.generators import load_generator, nearest
from odeflow.model import checked_count, checked_number

__all__ = ["DefenseGAN"]


class DefenseGAN(Defence):
    r"""The net on what a generator makes nearest to the image: net(G(z*)), z* = argmin |G(z) - x|^2.

    Defense-GAN (Samangouei, Kabkab and Chellappa, ICLR 2018). z* is approximate: gradient descent with momentum from several
    random starts, of which the best counts (`deepcheck.generators.nearest`). The starts are drawn anew in every call, so that
    the same image gives other logits. An image is never let through as it is, however far G(z*) is from it.

    It has no gradient of its own. Its `surrogate`, `OntoManifold`, is the same projection with the gradient that it has to first
    order, and without averaging over starts: every step of an attack has its own. The second attack that belongs to it is
    `OnManifold`. BPDA with the identity (Athalye, Carlini and Wagner, ICML 2018) is `Behind(BPDA(defence.projected), defence.net)`.

    Parameters
    ----------
    net, seed
        See `Defence`; the starts are drawn from the seed.
    generator
        The file or folder of one that `deepcheck generator` has left; or a module from latent vectors, N(0, 1), to images that
        has `latent` and `out_shape`, as `deepcheck.generators.Generator`, which is copied.
    steps
        Gradient steps from each start, >= 1; the paper's number is 200.
    restarts
        Starts R, >= 1; the paper's number is 10.
    rate
        Of the descent on the mean squared error of a pixel, > 0; the paper's number is 10.
    momentum
        Of the descent, in [0, 1).

    Raises
    ------
    CheckpointError
        If there is no generator in that place; the message has the command that trains one.
    ValueError, TypeError
        If an option is out of its range, or the generator makes images of another shape than the net takes.
    """

    random = True
    has_gradient = False

    def __init__(
        self,
        net: Model,
        *,
        generator: nn.Module | str | os.PathLike[str] = "runs/mnist_generator",
        steps: int = 200,
        restarts: int = 10,
        rate: float = 10.0,
        momentum: float = 0.7,
        seed: int = 0,
    ) -> None:
        super().__init__(net, seed=seed)
        self.steps = checked_count("steps", steps, 1)
        self.restarts = checked_count("restarts", restarts, 1)
        checked_number("rate", rate, above=0)
        checked_number("momentum", momentum, least=0, below=1)
        self.rate, self.momentum = rate, momentum
        self.G = _generator(generator)
        self._check_shape(getattr(net, "in_shape", self.G.out_shape), "the net takes")

    def nearest(self, images: Tensor) -> Tensor:
        """Return the latent vectors z* of images, shape (n, latent), from starts that are drawn now."""
        self._check_shape(tuple(images.shape[1:]), "these have")
        source = self.generator(torch.device("cpu"))  # whose seeds are the same on every device
        key = keys(source, torch.arange(len(images), device=images.device))
        with torch.inference_mode(False):
            x = images.detach().clone().float()
            self.G.to(x.device)
            starts = Draws(key).normal(x.new_zeros(len(x), self.restarts, self.G.latent))
            return nearest(self.G, x, starts, steps=self.steps, rate=self.rate, momentum=self.momentum)[0]

    def projected(self, images: Tensor) -> Tensor:
        """Return G(z*), in the precision of the images."""
        with torch.no_grad():
            made: Tensor = self.G(self.nearest(images))
            return made.to(images.dtype)

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.projected(images))
        return logits

    def surrogate(self) -> Model:
        """Return the net behind the same projection, with its gradient."""
        return OntoManifold(self)

    def own_attacks(self, norm: str) -> dict[str, Attack]:
        """Return the attack in latent space, in the norms that have a ball."""
        return {"on_manifold": OnManifold(norm)} if norm in ("linf", "l2", "l1") else {}

    def _check_shape(self, shape: tuple[int, ...], whose: str) -> None:
        if tuple(shape) != self.G.out_shape:
            raise ValueError(f"generator makes images of shape {self.G.out_shape}, and {whose} {tuple(shape)}")


def _generator(given: object) -> Any:
    """Return a generator, in eval mode: a copy, or the one of a file. Raise TypeError or CheckpointError."""
    if isinstance(given, str | os.PathLike):
        return load_generator(given)
    if not isinstance(given, nn.Module) or not hasattr(given, "latent") or not hasattr(given, "out_shape"):
        raise TypeError(
            f"generator is of the wrong type {type(given).__name__}: allowed is the path of one, or a module that has latent "
            "and out_shape"
        )
    return copy.deepcopy(given).eval()
