"""The same attacks in Foolbox: image by image where nothing is random, else no better with the same steps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd
from tests.external.conftest import Case, Given

REASON = "compares with Foolbox: make external"
foolbox = pytest.importorskip("foolbox", reason=REASON)
eagerpy = pytest.importorskip("eagerpy", reason=REASON)

# Foolbox and what it imports are not ours to repair
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

EPSILONS = {"linf": [0.02, 0.05, 0.1, 0.15], "l2": [0.1, 0.3, 0.6, 1.0]}
FOOLBOX = foolbox.attacks
STEPS, SHARE = 20, 0.1


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def theirs(attack: Any, case: Case, epsilon: float, bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = foolbox.PyTorchModel(case.net, bounds=bounds, device="cpu")
        _, images, _ = attack(model, case.images, case.labels, epsilons=epsilon)
    assert isinstance(images, Tensor)
    return images


def their_start(attack: Any, case: Case, epsilon: float, seed: int) -> Tensor:
    """The first perturbation of `theirs` with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = attack.get_random_start(eagerpy.astensor(case.images), epsilon).raw
    assert isinstance(start, Tensor)
    return start - case.images


@pytest.mark.parametrize(
    ("norm", "attack", "other"),
    [
        ("linf", fgsm(), FOOLBOX.LinfFastGradientAttack()),
        ("l2", fgsm("l2"), FOOLBOX.L2FastGradientAttack()),
        (
            "linf",
            bim(steps=STEPS, relative_step_size=SHARE),
            FOOLBOX.LinfBasicIterativeAttack(rel_stepsize=SHARE, steps=STEPS, random_start=False),
        ),
        (
            "l2",
            bim("l2", steps=STEPS, relative_step_size=SHARE),
            FOOLBOX.L2BasicIterativeAttack(rel_stepsize=SHARE, steps=STEPS, random_start=False),
        ),
    ],
    ids=["fgsm-linf", "fgsm-l2", "bim-linf", "bim-l2"],
)
def test_without_a_random_start_the_images_are_the_same(norm: str, attack: PGD, other: Any, case: Case) -> None:
    """In a box that is wide: at its edge, the L2 steps here do not lose length to pixels that cannot move.

    Where a gradient is next to zero its sign is up to rounding, so nearly all pixels agree, not all. Of images that the net is
    nearly sure of, their gradient of the cross-entropy has few digits in single precision: those are left out.
    """
    wide = (-9.0, 9.0)
    for epsilon in EPSILONS[norm]:
        own = replace(attack, bounds=wide, keep="last")(
            case.net, case.images, case.labels, epsilon=epsilon, generator=generator()
        ).images
        agree = ((own - theirs(other, case, epsilon, wide)).abs() < 1e-4 * epsilon)[case.unsure()]
        assert len(agree) > 100
        assert float(agree.double().mean()) > 0.999


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_leaves_no_higher_accuracy(norm: str, case: Case) -> None:
    other = FOOLBOX.LinfFastGradientAttack() if norm == "linf" else FOOLBOX.L2FastGradientAttack()
    clean = case.accuracy(case.images)
    accuracies = [case.accuracy(theirs(other, case, epsilon)) for epsilon in EPSILONS[norm]]
    own = fgsm(norm)(case.net, case.images, case.labels, epsilon=EPSILONS[norm], generator=generator()).images
    assert all(case.accuracy(images) <= accuracy for images, accuracy in zip(own, accuracies, strict=True))
    assert min(accuracies) < clean - 0.2  # theirs is an attack


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_from_the_same_random_starts_accuracy_is_no_higher(norm: str, case: Case) -> None:
    """Whatever is misclassified at the end there was so at some step here.

    In L2, where steps here differ at the edge of the box, that holds for the mean over some starts.
    """
    kind = FOOLBOX.LinfProjectedGradientDescentAttack if norm == "linf" else FOOLBOX.L2ProjectedGradientDescentAttack
    other = kind(rel_stepsize=SHARE, steps=STEPS, random_start=True)
    for epsilon in EPSILONS[norm]:
        mine, its = [], []
        for seed in range(4):
            attack = replace(
                pgd(norm, steps=STEPS, relative_step_size=SHARE),
                start=Given(their_start(other, case, epsilon, seed)),
            )
            own = attack(case.net, case.images, case.labels, epsilon=epsilon, generator=generator()).images
            mine.append(case.right(own).double())
            its.append(case.right(theirs(other, case, epsilon, seed=seed)).double())
        assert torch.stack(mine).mean() <= torch.stack(its).mean()
        if norm == "linf":
            assert (torch.stack(mine) <= torch.stack(its)).all()
    assert torch.stack(its).mean() < 0.3  # theirs is an attack


def test_momentum_leaves_about_the_same_accuracy(case: Case) -> None:
    """Foolbox accumulates signs, not the gradients of length 1 of the paper: another attack, as strong."""
    other = FOOLBOX.LinfMomentumIterativeFastGradientMethod(momentum=1.0, rel_stepsize=SHARE, steps=STEPS)
    attack = mim(steps=STEPS, relative_step_size=SHARE)
    for epsilon in EPSILONS["linf"]:
        own = attack(case.net, case.images, case.labels, epsilon=epsilon, generator=generator()).images
        assert case.accuracy(own) <= case.accuracy(theirs(other, case, epsilon)) + 0.01
    assert case.accuracy(own) < 0.3
