"""Attacks that find the nearest example beside Foolbox's, at equal settings: as often, and no farther in the median."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import EAD, CarliniWagner, DeepFool, MinimalAttack
from tests.external.conftest import Case

REASON = "compares with Foolbox: make external"
foolbox = pytest.importorskip("foolbox", reason=REASON)

# Foolbox and what it imports are not ours to repair
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

THEIRS = foolbox.attacks
PENALTY: dict[str, Any] = {"steps": 60, "confidence": 0.0}
ORDER = {"l2": 2.0, "linf": float("inf"), "l1": 1.0}


def theirs(attack: Any, case: Case, images: Tensor, labels: Tensor, order: float) -> Tensor:
    """Their distances, infinite where nothing was found: then they return black images."""
    model = foolbox.PyTorchModel(case.net, bounds=(0.0, 1.0), device="cpu")
    _, z, _ = attack(model, images, labels, epsilons=None)
    with torch.no_grad():
        found = (case.net(z).argmax(1) != labels) & z.flatten(1).any(1)
    distance: Tensor = torch.linalg.vector_norm((z - images).flatten(1), ord=order, dim=1)
    return distance.masked_fill(~found, torch.inf)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (CarliniWagner("l2", **PENALTY), THEIRS.L2CarliniWagnerAttack(stepsize=0.01, **PENALTY)),
        (CarliniWagner("l2", line_search=0, **PENALTY), THEIRS.L2CarliniWagnerAttack(stepsize=0.01, **PENALTY)),
        (EAD("l1", **PENALTY), THEIRS.EADAttack(regularization=1e-3, decision_rule="L1", **PENALTY)),
        (EAD("l1", line_search=0, **PENALTY), THEIRS.EADAttack(regularization=1e-3, decision_rule="L1", **PENALTY)),
        (DeepFool("l2"), THEIRS.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)),
        (DeepFool("linf"), THEIRS.LinfDeepFoolAttack(steps=50, candidates=10, overshoot=0.02)),
    ],
    ids=["cw", "cw-no-line-search", "ead", "ead-no-line-search", "deepfool-l2", "deepfool-linf"],
)
def test_as_often_and_no_farther(own: MinimalAttack, other: Any, case: Case) -> None:
    images, labels = case.images[:30], case.labels[:30]
    distance = own(case.net, images, labels, generator=torch.Generator().manual_seed(0)).length[0]
    its = theirs(other, case, images, labels, ORDER[own._norm.name])
    assert its.isfinite().double().mean() > 0.5  # theirs is an attack
    assert distance.isfinite().sum() >= its.isfinite().sum()
    assert distance.median() <= 1.02 * its.median()
