"""One step of training: from a batch of images to new weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.models import Network
from deepcheck.training import parallel
from deepcheck.training.augmentation import crop, flip
from deepcheck.training.averaging import Average
from deepcheck.training.recipe import Recipe
from deepcheck.training.schedules import SCHEDULES

__all__ = ["Learner"]


class Learner:
    """A network that learns, and all that changes with it from step to step.

    Parameters
    ----------
    recipe
        What to do.
    network
        On its device, with its first weights.
    noise
        Source of all random numbers of augmentation and method. One on the CPU gives the same numbers for every device.
    group
        The processes that share every batch.
    """

    def __init__(self, recipe: Recipe, network: Network, noise: torch.Generator, group: parallel.Group) -> None:
        self.recipe, self.network, self.noise, self.group = recipe, network, noise, group
        self.device = next(network.parameters()).device
        self.method = recipe.method
        self.state = self.method.start(network, batch_size=recipe.batch_size // group.size, generator=noise)
        if self.state is not None:
            self.state.to(self.device)
        self.optimiser = _optimiser(recipe, network)
        self.average = Average(network, recipe.average) if recipe.average else None
        self._rate = SCHEDULES[recipe.schedule]

    @property
    def result(self) -> Network:
        """The network with the averaged weights, or with the last ones."""
        return self.network if self.average is None else self.average.network

    def augmented(self, images: Tensor) -> Tensor:
        """Return images, shape (n, C, H, W), changed at random as the recipe says."""
        if self.recipe.augmentation != "none":
            images = crop(images, self.recipe.padding, self.noise)
        if self.recipe.augmentation == "crop_flip":
            images = flip(images, self.noise)
        return images

    def step(self, model: Model, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Take one step along the gradient and return the loss.

        Parameters
        ----------
        model
            The network, compiled or not.
        images, labels
            Shape (n, C, H, W) in [0, 1], and (n,).
        progress
            Share of the training that is over, in [0, 1).
        """
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = self.recipe.learning_rate * self._rate(progress)
        with self.precision():
            loss = self.method.loss(model, images, labels, progress=progress, generator=self.noise, state=self.state)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.group.average_gradients(self.network)
        self.optimiser.step()
        self.method.after_step(network=self.network, progress=progress, state=self.state)
        if self.average is not None:
            self.average.update(self.network)
        return loss.detach()

    def precision(self) -> torch.autocast:
        """Return the context in which the network is used."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")


def _optimiser(recipe: Recipe, network: Network) -> torch.optim.Optimizer:
    weights = list(network.parameters())
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if weights[0].is_cuda:  # one kernel for all weights
        options["fused"] = True
    if recipe.optimiser == "adam":
        return torch.optim.Adam(weights, **options)
    return torch.optim.SGD(weights, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)
