"""The same attacks in the Adversarial Robustness Toolbox: image by image where nothing is random, else no better."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck.attacks import UniversalPerturbation
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd
from tests.external.conftest import Case, Given, seeded

REASON = "compares with the Adversarial Robustness Toolbox: make external"
art_classification = pytest.importorskip("art.estimators.classification", reason=REASON)
art_utils = pytest.importorskip("art.utils", reason=REASON)
evasion = pytest.importorskip("art.attacks.evasion", reason=REASON)

# the toolbox and what it imports are not ours to repair
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

EPSILONS = {"linf": [0.02, 0.05, 0.1, 0.15], "l2": [0.1, 0.3, 0.6, 1.0]}
ORDER = {"linf": math.inf, "l2": 2}
STEPS, SHARE = 20, 0.1


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def theirs(
    name: str, norm: str, case: Case, epsilon: float, bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0
) -> Tensor:
    classifier = art_classification.PyTorchClassifier(
        case.net,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=bounds,
        device_type="cpu",
    )
    options: dict[str, Any] = {"norm": ORDER[norm], "eps": epsilon, "batch_size": 500}
    if name == "fgsm":
        attack = evasion.FastGradientMethod(classifier, **options)
    elif name == "mim":
        attack = evasion.MomentumIterativeMethod(
            classifier, eps_step=SHARE * epsilon, max_iter=STEPS, decay=1.0, verbose=False, **options
        )
    else:
        attack = evasion.ProjectedGradientDescent(
            classifier,
            eps_step=SHARE * epsilon,
            max_iter=STEPS,
            num_random_init=int(name == "pgd"),
            verbose=False,
            **options,
        )
    with seeded(seed):
        return torch.from_numpy(attack.generate(case.images.numpy(), case.labels.numpy()))


def their_start(norm: str, case: Case, epsilon: float, seed: int) -> Tensor:
    """The first perturbation of `theirs` with this seed."""
    n, D = len(case.images), case.images[0].numel()
    with seeded(seed):
        delta = art_utils.random_sphere(n, D, epsilon, ORDER[norm])
    return torch.from_numpy(delta.astype(np.float32)).view_as(case.images)


@pytest.mark.parametrize(
    ("norm", "name", "attack"),
    [
        ("linf", "fgsm", fgsm()),
        ("l2", "fgsm", fgsm("l2")),
        ("linf", "bim", bim(steps=STEPS, relative_step_size=SHARE)),
        ("l2", "bim", bim("l2", steps=STEPS, relative_step_size=SHARE)),
        ("linf", "mim", mim(steps=STEPS, relative_step_size=SHARE)),
        ("l2", "mim", mim("l2", steps=STEPS, relative_step_size=SHARE)),
    ],
    ids=["fgsm-linf", "fgsm-l2", "bim-linf", "bim-l2", "mim-linf", "mim-l2"],
)
def test_without_a_random_start_the_images_are_the_same(norm: str, name: str, attack: PGD, case: Case) -> None:
    """In a box that is wide: at its edge, the L2 steps here do not lose length to pixels that cannot move.

    Where a gradient is next to zero its sign is up to rounding, so nearly all pixels agree, not all. Of images that the net is
    nearly sure of, their gradient of the cross-entropy has few digits in single precision: those are left out.
    """
    wide = (-9.0, 9.0)
    for epsilon in EPSILONS[norm]:
        own = replace(attack, bounds=wide, keep="last")(
            case.net, case.images, case.labels, epsilon=epsilon, generator=generator()
        ).images
        agree = ((own - theirs(name, norm, case, epsilon, wide)).abs() < 1e-4 * epsilon)[case.unsure()]
        assert len(agree) > 100
        assert float(agree.double().mean()) > 0.999


@pytest.mark.parametrize(("norm", "name"), [("linf", "fgsm"), ("l2", "fgsm"), ("linf", "mim")])
def test_without_a_random_start_accuracy_is_no_higher(norm: str, name: str, case: Case) -> None:
    attack = fgsm(norm) if name == "fgsm" else mim(norm, steps=STEPS, relative_step_size=SHARE)
    clean = case.accuracy(case.images)
    accuracies = [case.accuracy(theirs(name, norm, case, epsilon)) for epsilon in EPSILONS[norm]]
    own = attack(case.net, case.images, case.labels, epsilon=EPSILONS[norm], generator=generator()).images
    assert all(case.accuracy(images) <= accuracy for images, accuracy in zip(own, accuracies, strict=True))
    assert min(accuracies) < clean - 0.2  # theirs is an attack


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_from_the_same_random_starts_accuracy_is_no_higher(norm: str, case: Case) -> None:
    """Whatever is misclassified at the end there was so at some step here.

    In L2, where steps here differ at the edge of the box, that holds for the mean over some starts.
    """
    for epsilon in EPSILONS[norm]:
        mine, its = [], []
        for seed in range(4):
            attack = replace(
                pgd(norm, steps=STEPS, relative_step_size=SHARE), start=Given(their_start(norm, case, epsilon, seed))
            )
            own = attack(case.net, case.images, case.labels, epsilon=epsilon, generator=generator()).images
            mine.append(case.right(own).double())
            its.append(case.right(theirs("pgd", norm, case, epsilon, seed=seed)).double())
        assert torch.stack(mine).mean() <= torch.stack(its).mean()
        if norm == "linf":
            assert (torch.stack(mine) <= torch.stack(its)).all()
    assert torch.stack(its).mean() < 0.3  # theirs is an attack


def test_a_universal_perturbation_fools_no_fewer(case: Case) -> None:
    """Theirs by DeepFool image after image, ours in groups and by gradient, as often over the same images."""
    x, epsilon, passes = case.images[:40], 0.3, 1
    with torch.no_grad():
        before = case.net(x).argmax(1)
    classifier = art_classification.PyTorchClassifier(
        case.net,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = evasion.UniversalPerturbation(
        classifier,
        attacker="deepfool",
        attacker_params={"max_iter": 10, "verbose": False},
        delta=1e-6,
        max_iter=passes,
        eps=epsilon,
        norm=math.inf,
        verbose=False,
    )
    state = random.getstate()
    random.seed(0)
    with seeded(0):
        attack.generate(x.numpy(), before.numpy())
    random.setstate(state)
    its = torch.from_numpy(np.asarray(attack.noise))
    assert float(its.abs().max()) <= epsilon * (1 + 1e-6)

    with torch.no_grad():
        rate = float((case.net((x + its).clamp(0, 1)).argmax(1) != before).double().mean())
    assert rate > 0.1  # theirs is an attack
    for method in ("deepfool", "gradient"):
        own = UniversalPerturbation(method=method, passes=passes, group=10)
        found = own.prepare(case.net, x, case.labels[:40], epsilon=epsilon, generator=generator())
        assert found.rates[0] >= rate, method
