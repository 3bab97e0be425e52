"""HopSkipJump in Foolbox and in the Adversarial Robustness Toolbox, at the same number of queries: no farther, nor less often."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import HopSkipJump
from tests.external.conftest import Case

# the libraries and what they import are not ours to repair
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

STEPS = 6
IMAGES = 24


class Counting(nn.Module):
    """A net that counts the images that it is given, and takes those in double precision."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        logits: Tensor = self.net(x.float())
        return logits


def lengths(case: Case, images: Tensor, norm: str) -> Tensor:
    """Distances from the first images, infinite where the class is right."""
    n = len(images)
    delta = (images - case.images[:n]).flatten(1)
    with torch.no_grad():
        right = case.net(images).argmax(1) == case.labels[:n]
    length: Tensor = torch.linalg.vector_norm(delta, ord=2 if norm == "l2" else np.inf, dim=1)
    return length.masked_fill(right, torch.inf)


def compared(case: Case, norm: str, theirs: Tensor, seen: int) -> None:
    n = len(theirs)
    attack = HopSkipJump(norm, queries=seen // n)
    own = attack(case.net, case.images[:n], case.labels[:n], generator=torch.Generator().manual_seed(0))
    assert own.queries.max() <= seen // n
    its = lengths(case, theirs, norm)
    assert own.length[0].isfinite().sum() >= its.isfinite().sum() > 0.9 * n
    assert own.length[0].median() <= 1.02 * its.median()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_farther_than_in_foolbox(norm: str, case: Case) -> None:
    foolbox = pytest.importorskip("foolbox", reason="compares with Foolbox: make external")
    model = Counting(case.net)
    attack = foolbox.attacks.HopSkipJumpAttack(steps=STEPS, constraint=norm)
    state: Any = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        images = case.images[:IMAGES]
        wrong = case.net(images).argmax(1) != case.labels[:IMAGES]
        _, theirs, _ = attack(wrapped, images, case.labels[:IMAGES], epsilons=None)
    np.random.set_state(state)  # noqa: NPY002
    assert (lengths(case, theirs, norm)[wrong] == 0).all()
    compared(case, norm, theirs, model.seen)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_farther_than_in_the_adversarial_robustness_toolbox(norm: str, case: Case) -> None:
    reason = "compares with the Adversarial Robustness Toolbox: make external"
    classification = pytest.importorskip("art.estimators.classification", reason=reason)
    evasion = pytest.importorskip("art.attacks.evasion", reason=reason)
    model = Counting(case.net)
    classifier = classification.PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = evasion.HopSkipJump(classifier, norm=2 if norm == "l2" else np.inf, max_iter=STEPS, verbose=False)
    state: Any = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        theirs = attack.generate(case.images[:IMAGES].numpy(), case.labels[:IMAGES].numpy())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    compared(case, norm, torch.from_numpy(theirs), model.seen)
