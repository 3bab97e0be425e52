"""Attacks that find the nearest example beside the Adversarial Robustness Toolbox's: as often, no farther in the median."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck.attacks import JSMA, CarliniWagner, DeepFool
from deepcheck.attacks.norms import NORMS
from tests.external.conftest import Case

REASON = "compares with the Adversarial Robustness Toolbox: make external"
art_classification = pytest.importorskip("art.estimators.classification", reason=REASON)
evasion = pytest.importorskip("art.attacks.evasion", reason=REASON)

# the toolbox and what it imports are not ours to repair
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def classifier(case: Case) -> Any:
    return art_classification.PyTorchClassifier(
        case.net,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def lengths(z: np.ndarray[Any, Any], images: Tensor, found: Tensor, norm: str) -> Tensor:
    """Their distances; entries that have changed by rounding alone have not."""
    delta = torch.from_numpy(z) - images
    length = NORMS[norm].length(torch.where(delta.abs() > 1e-5, delta, 0.0))
    return length.masked_fill(~found, torch.inf)


def no_worse(own: Tensor, its: Tensor) -> None:
    assert its.isfinite().double().mean() > 0.3  # theirs is an attack
    assert own.isfinite().sum() >= its.isfinite().sum()
    assert own.median() <= 1.02 * its.median()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("gamma", [0.15, 0.5])
def test_jsma_reaches_targets_as_often_with_as_few_pixels(gamma: float, case: Case) -> None:
    """They take two pixels by the slope of the target's logit, here the pair is the best for its probability.

    They end after the share is exceeded, one step later.
    """
    images, labels = case.images[:40], case.labels[:40]
    targets = (labels + 1) % 10
    attack = evasion.SaliencyMapMethod(classifier(case), theta=1.0, gamma=gamma, batch_size=60, verbose=False)
    z = attack.generate(images.numpy(), torch.nn.functional.one_hot(targets, 10).numpy())
    with torch.no_grad():
        found = case.net(torch.from_numpy(z)).argmax(1) == targets
    own = JSMA("l0", "targeted_margin", targets="given", restarts=1, gamma=gamma + 2 / 64)
    no_worse(
        own(case.net, images, labels, targets=targets, generator=generator()).length[0],
        lengths(z, images, found, "l0"),
    )


def test_carlini_wagner_in_linf(case: Case) -> None:
    """In L0 the toolbox's attack ends in a TypeError with NumPy 2."""
    images, labels = case.images[:8], case.labels[:8]
    attack = evasion.CarliniLInfMethod(
        classifier(case), max_iter=60, initial_const=0.1, const_factor=4.0, batch_size=8, verbose=False
    )
    z = attack.generate(images.numpy(), labels.numpy())
    with torch.no_grad():
        found = case.net(torch.from_numpy(z)).argmax(1) != labels
    own = CarliniWagner("linf", steps=60, searches=5, initial_c=0.1)
    no_worse(own(case.net, images, labels, generator=generator()).length[0], lengths(z, images, found, "linf"))


def test_deepfool(case: Case) -> None:
    images, labels = case.images[:40], case.labels[:40]
    z = evasion.DeepFool(classifier(case), max_iter=50, epsilon=0.02, verbose=False).generate(images.numpy())
    with torch.no_grad():
        found = case.net(torch.from_numpy(z)).argmax(1) != labels
    own = DeepFool("l2")(case.net, images, labels, generator=generator()).length[0]
    no_worse(own, lengths(z, images, found, "l2"))
