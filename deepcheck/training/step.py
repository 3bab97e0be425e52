"""One step of training: from a batch of images to new weights."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Model
from deepcheck.graphs import Captured
from deepcheck.models import Network
from deepcheck.training import parallel
from deepcheck.training.augmentation import crop, flip
from deepcheck.training.averaging import Average
from deepcheck.training.methods import RecordableMethod
from deepcheck.training.recipe import Recipe
from deepcheck.training.schedules import SCHEDULES

__all__ = ["Learner"]

_LOG = logging.getLogger(__name__)


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
    graphs
        Record the loss and its gradients as a CUDA graph, where the method can be recorded; the log says where not.
    """

    def __init__(
        self, recipe: Recipe, network: Network, noise: torch.Generator, group: parallel.Group, *, graphs: bool = False
    ) -> None:
        self.recipe, self.network, self.noise, self.group = recipe, network, noise, group
        self.device = next(network.parameters()).device
        self.method = recipe.method
        self.state = self.method.start(network, batch_size=recipe.batch_size // group.size, generator=noise)
        if self.state is not None:
            self.state.to(self.device)
        self.stage = 0
        self._begin()
        self._rate = SCHEDULES[recipe.schedule]
        self._graphs = graphs and isinstance(self.method, RecordableMethod)
        self._captured: Captured | None = None
        if graphs and not self._graphs:
            _LOG.info(
                "the method %s cannot be recorded as a CUDA graph: its steps are taken one by one", self.method.name
            )

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
        stage, share = divmod(progress * self.method.stages(), 1)
        if stage > self.stage:
            self.stage = int(stage)
            self.method.next_stage(network=self.network, state=self.state)
            self._begin()
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = self.recipe.learning_rate * self._rate(share)
        loss = (self._played if self._graphs else self._taken)(model, images, labels, progress)
        self.group.average_gradients(self.network)
        self.optimiser.step()
        self.method.after_step(network=self.network, progress=progress, state=self.state)
        if self.average is not None:
            self.average.update(self.network)
        return loss

    def _begin(self) -> None:
        """Begin a stage with the weights that the network has: no momenta, and nothing to average."""
        self.optimiser = _optimiser(self.recipe, self.network)
        self.average = Average(self.network, self.recipe.average) if self.recipe.average else None

    def _taken(self, model: Model, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss, and leave its gradients in the parameters."""
        with self.precision():
            loss = self.method.loss(model, images, labels, progress=progress, generator=self.noise, state=self.state)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()

    def _played(self, model: Model, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Do as `_taken` by a recording: it writes the gradients to where they were when it was made."""
        method = self.method
        assert isinstance(method, RecordableMethod)
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]

        def gradients(images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
            with self.precision():
                loss = method.loss_of(model, images, labels, *drawn)
            places, found = [], []
            for weight, gradient in zip(weights, _gradients(loss, weights), strict=True):
                if gradient is None:  # the loss does not depend on it
                    continue
                if weight.grad is None:  # at the first call, which is no recording yet
                    weight.grad = torch.empty_like(weight)
                places.append(weight.grad)
                found.append(gradient)
            torch._foreach_copy_(places, found)
            return loss.detach()

        if self._captured is None:
            self._captured = Captured(gradients, nets=[self.network])
        loss = self._captured(images, labels, *method.drawn(images, progress=progress, generator=self.noise))
        assert isinstance(loss, Tensor)
        return loss

    def precision(self) -> torch.autocast:
        """Return the context in which the network is used."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")


def _gradients(loss: Tensor, weights: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """Return the gradients of the loss; None where it does not depend on a weight."""
    return torch.autograd.grad(loss, weights, allow_unused=True)


def _optimiser(recipe: Recipe, network: Network) -> torch.optim.Optimizer:
    weights = list(network.parameters())
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if weights[0].is_cuda:  # one kernel for all weights
        options["fused"] = True
    if recipe.optimiser == "adam":
        return torch.optim.Adam(weights, **options)
    return torch.optim.SGD(weights, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)
