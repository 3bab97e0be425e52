from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.draws import Source
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.starts import Start
from deepcheck.data import load
from deepcheck.models import build


@dataclass(frozen=True)
class Case:
    """A net trained for some seconds, and the test images."""

    net: nn.Module
    images: Tensor
    labels: Tensor

    def right(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(self.net(images).argmax(1) == self.labels)

    def unsure(self) -> Tensor:
        """Images at which the gradient of the cross-entropy has digits enough in single precision: 1 - p is far above its eps."""
        with torch.no_grad():
            rest = self.net(self.images).double().softmax(1)
        return torch.as_tensor(1 - rest.gather(1, self.labels[:, None]).squeeze(1) > 1e-3)

    def accuracy(self, images: Tensor) -> float:
        return float(self.right(images).double().mean())


@dataclass(frozen=True, eq=False)
class Given(Start):
    """Perturbations that another library has drawn."""

    delta: Tensor

    def __call__(self, norm: Norm, like: Tensor, epsilon: float | Tensor, source: Source) -> Tensor:
        del norm, epsilon, source
        assert self.delta.shape == like.shape
        return self.delta.to(like)


@pytest.fixture(scope="session")
def case() -> Case:
    data = load("digits")
    X, y = torch.tensor(data.train_images).float() / 255, torch.tensor(data.train_labels)
    draw = torch.Generator().manual_seed(0)
    net = build("conv_small", 10, (1, 8, 8), generator=draw)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _epoch in range(8):
        for batch in torch.randperm(len(X), generator=draw).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(X[batch]), y[batch]).backward()
            optimizer.step()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    found = Case(net.eval(), torch.tensor(data.test_images).float() / 255, torch.tensor(data.test_labels))
    assert found.accuracy(found.images) > 0.9
    return found


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """NumPy's global random numbers, which the toolbox draws from, start anew, and go on afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
