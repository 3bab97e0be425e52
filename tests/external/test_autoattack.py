"""APGD in AutoAttack (the package pyautoattack), image by image, with the same steps and restarts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import apgd_ce, apgd_t
from tests.external.conftest import Case

REASON = "compares with pyautoattack: make external"
theirs = pytest.importorskip("pyautoattack.autopgd_base", reason=REASON)

pytestmark = pytest.mark.filterwarnings("ignore")  # it is not ours to repair

EPSILONS = {"linf": (0.06, 0.1), "l2": (0.35, 0.6), "l1": (1.0, 2.0)}
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
STEPS, SEEDS = {"ce": 100, "t": 40}, range(3)


def broken_by_them(case: Case, kind: str, norm: str, epsilon: float, seed: int) -> Tensor:
    options = {
        "norm": NAMES[norm],
        "eps": epsilon,
        "n_iter": STEPS[kind],
        "device": "cpu",
        "use_largereps": norm == "l1",
    }
    attack: Any = (
        theirs.APGDAttack_targeted(case.net, seed=seed, **options)
        if kind == "t"
        else theirs.APGDAttack(case.net, seed=seed, loss=kind, **options)
    )
    with torch.random.fork_rng(devices=[]):
        images = attack.perturb(case.images.clone(), case.labels.clone())
    norms = {"linf": torch.inf, "l2": 2, "l1": 1}
    assert (torch.linalg.vector_norm((images - case.images).flatten(1), norms[norm], dim=1) <= epsilon + 1e-4).all()
    return ~case.right(images)


def broken_by_ours(case: Case, kind: str, norm: str, epsilon: float, seed: int) -> Tensor:
    attack = apgd_t(norm, steps=STEPS["t"]) if kind == "t" else apgd_ce(norm, steps=STEPS[kind])
    draw = torch.Generator().manual_seed(seed)
    return ~case.right(attack(case.net, case.images, case.labels, epsilon=epsilon, generator=draw).images)


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("kind", STEPS)
def test_as_many_are_broken_and_hardly_one_by_them_alone(kind: str, norm: str, case: Case) -> None:
    """Accuracy, the mean over seeds, is at most 0.3 points higher.

    Of one run each, some images are broken by chance by theirs alone, as by one of their own seeds alone. Of 1,000 images 2
    at most withstand ours with every seed and theirs with none; of the 359 here, 1.
    """
    for epsilon in EPSILONS[norm]:
        ours = torch.stack([broken_by_ours(case, kind, norm, epsilon, seed) for seed in SEEDS])
        them = torch.stack([broken_by_them(case, kind, norm, epsilon, seed) for seed in SEEDS])
        assert 0.2 < them.double().mean() < 0.95  # theirs is an attack, and some images withstand it
        assert ours.double().mean() >= them.double().mean() - 0.003
        assert int((them.all(0) & ~ours.any(0)).sum()) <= math.ceil(0.002 * len(case.images))
