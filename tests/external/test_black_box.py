"""Attacks by scores in the Adversarial Robustness Toolbox, at equal settings: no farther, no less often, no more queries."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import ZOO, Square
from tests.external.conftest import Case, seeded

REASON = "compares with the Adversarial Robustness Toolbox: make external"
art_classification = pytest.importorskip("art.estimators.classification", reason=REASON)
evasion = pytest.importorskip("art.attacks.evasion", reason=REASON)

# the toolbox and what it imports are not ours to repair
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

STEPS, BISECTIONS, COORDINATES, RATE = 30, 2, 32, 0.02  # theirs asks for one image at a time


class Counting(nn.Module):
    """The net, and how many images it was asked for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        with torch.no_grad():
            return torch.as_tensor(self.net(x))


def classifier(net: nn.Module) -> Any:
    return art_classification.PyTorchClassifier(
        net,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def right(case: Case, count: int) -> tuple[Tensor, Tensor]:
    """The first images that the net has right."""
    rows = case.right(case.images).nonzero().squeeze(1)[:count]
    return case.images[rows], case.labels[rows]


def test_zoo_is_no_farther_and_fails_no_more_often(case: Case) -> None:
    images, labels = right(case, 4)
    theirs = evasion.ZooAttack(
        classifier(Counting(case.net)),
        learning_rate=RATE,
        max_iter=STEPS,
        binary_search_steps=BISECTIONS,
        initial_const=1.0,
        abort_early=False,
        use_resize=False,
        use_importance=False,
        nb_parallel=COORDINATES,
        verbose=False,
    )
    with seeded(0):
        attacked = torch.from_numpy(theirs.generate(images.numpy(), labels.numpy()))
    with torch.no_grad():
        turned = case.net(attacked).argmax(1) != labels
    length = torch.linalg.vector_norm((attacked - images).flatten(1), dim=1)
    attack = ZOO(steps=STEPS, bisections=BISECTIONS, coordinates=COORDINATES, learning_rate=RATE, c=1.0, abort=False)
    mine = attack(Counting(case.net), images, labels, generator=torch.Generator().manual_seed(0))
    reached = mine.length[0].isfinite()
    assert turned.any()  # theirs is an attack
    assert reached.double().mean() >= turned.double().mean()
    both = reached & turned
    assert float(mine.length[0, both].median()) <= 1.02 * float(length[both].median())


def test_square_turns_no_fewer_with_no_more_queries(case: Case) -> None:
    """In L-infinity: in L2 the toolbox divides by zero on these images."""
    epsilon, queries = 0.12, 200
    images, labels = right(case, 200)
    counting = Counting(case.net)
    theirs = evasion.SquareAttack(
        classifier(counting),
        norm=np.inf,
        eps=epsilon,
        max_iter=queries - 1,
        p_init=0.8,
        nb_restarts=1,
        batch_size=500,
        verbose=False,
    )
    with seeded(0):
        attacked = torch.from_numpy(theirs.generate(images.numpy(), labels.numpy()))
    with torch.no_grad():
        turned = (case.net(attacked).argmax(1) != labels).double().mean()
    mine = Square("linf", queries=queries)(
        case.net, images, labels, epsilon=epsilon, generator=torch.Generator().manual_seed(0)
    )
    share = (mine.prediction[0] != labels).double().mean()
    assert turned > 0.2  # theirs is an attack
    assert share >= turned - 0.07  # two standard errors of a difference of shares of 200
    assert int(mine.queries.sum()) <= 1.05 * counting.asked
