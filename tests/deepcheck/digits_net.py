"""A small convolutional net for the digits, trained once in a run of the tests."""

import copy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from deepcheck import models
from deepcheck.data import load
from tests.deepcheck.devices import here


@dataclass(frozen=True)
class Digits:
    """The digits as tensors in [0, 1] with their labels."""

    x: Tensor
    y: Tensor
    test: Tensor
    labels: Tensor


def digits_as_tensors() -> Digits:
    return _digits(here())


@cache
def _digits(where: str) -> Digits:
    del where  # it is where the tensors are made
    images = load("digits")
    return Digits(
        torch.tensor(images.train_images).float() / 255,
        torch.tensor(images.train_labels),
        torch.tensor(images.test_images).float() / 255,
        torch.tensor(images.test_labels),
    )


@cache
def _trained(where: str) -> models.Network:
    digits = _digits(where)
    network = models.build("conv_small", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    draw = torch.Generator().manual_seed(1)
    for _ in range(20):
        for part in torch.randperm(len(digits.x), generator=draw).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(digits.x[part]), digits.y[part]).backward()
            optimiser.step()
    network.zero_grad()
    return network


def trained_net() -> models.Network:
    """Return a copy of the net, which is right about 95 % of the test images, in eval mode."""
    return copy.deepcopy(_trained(here())).eval()
