"""Suites of attacks: their steps cross the ball, whatever their number."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from deepcheck import models
from deepcheck.attacks import PGD, UniformNoise, fgsm
from deepcheck.attacks.starts import Zero
from deepcheck.data import load
from deepcheck.defences.base import Adaptive
from deepcheck.evaluation import SUITES, THREATS, Planned, Threats, evaluate, planned_suite, robust_error, suite
from deepcheck.evaluation.distal import distal_attack
from deepcheck.evaluation.suites import cannot_cross, confidence_attack


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 1000])
def test_the_steps_of_every_suite_cross_the_ball(steps: int) -> None:
    """Together 2.5 epsilon, whatever their number, and also what momentum takes to build up."""
    for name, data in product(SUITES.keys() - {"standard"}, THREATS):  # whose attacks adapt their steps
        planned = planned_suite(name, data, steps=steps)
        ascents = {name: one for name, one in planned.items() if isinstance(one.attack, PGD)}
        assert len(ascents) >= 6
        for one in ascents.values():
            assert isinstance(one.attack, PGD)
            assert one.attack.steps >= min(steps, 40)
            assert one.attack.relative_step_size is not None
            for epsilon in one.epsilons:
                assert one.attack.reach(epsilon) >= 2.5 * epsilon * (1 - 1e-12)
        assert cannot_cross(planned) == []
    assert distal_attack(steps=steps).reach(0.3) >= 0.75 * (1 - 1e-12)
    # with steps enough they are as long as they were
    assert suite("mnist", steps=1000)["pgd_linf"].attack.relative_step_size == 0.1  # type: ignore[attr-defined]
    assert confidence_attack("linf", steps=1000, restarts=1).relative_step_size == 0.05


def test_how_far_the_steps_go() -> None:
    attack = PGD("linf", steps=10, relative_step_size=0.1)
    assert attack.reach(0.5) == pytest.approx(0.5)
    assert replace(attack, relative_step_size=None, step_size=0.1).reach(0.5) == pytest.approx(1.0)
    m, far = 0.0, 0.0
    for _ in range(10):
        m = 0.9 * m + 0.1
        far += 0.1 * m
    assert replace(attack, momentum=0.9).reach(1.0) == pytest.approx(far)
    assert replace(attack, momentum=0.9, momentum_of="gradient").reach(1.0) == pytest.approx(1.0)
    short = {"random": Planned(attack, (0.1,)), "wrapped": Planned(Adaptive(attack), (0.2,))}
    fine = {
        "image": Planned(replace(attack, start=Zero()), (0.1,)),
        "fgsm": Planned(fgsm(), (0.1,)),
        "noise": Planned(UniformNoise("l1"), (0.1,)),
    }
    assert cannot_cross(short | fine) == ["random", "wrapped"]


@pytest.mark.slow
def test_few_steps_find_what_many_find() -> None:
    """The robust error with 20 steps is that with 100, but for 3 images of 60: step sizes go with their number."""
    digits, generator = load("digits"), torch.Generator().manual_seed(0)
    net = models.build("conv_small", 10, digits.shape, generator=generator)
    x, y = torch.tensor(digits.train_images).float() / 255, torch.tensor(digits.train_labels)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[:600]), y[:600]).backward()
        optimiser.step()
    threats = Threats(linf=(0.05,), l2=0.4, l1=1.5, l0=2.0)
    errors = []
    for steps in (20, 100):
        planned = {name: one for name, one in suite(threats, steps=steps, restarts=1).items() if "pgd" in name}
        records = evaluate(net, digits, planned, examples=60, validation=0)
        errors.append([robust_error(records, norm=name, epsilon=getattr(threats, name)) for name in ("l2", "l1", "l0")])
        errors[-1].append(robust_error(records, norm="linf", epsilon=0.05))
    np.testing.assert_allclose(errors[0], errors[1], rtol=0, atol=3 / 60)
    assert min(errors[0]) > 0.2  # or it would say nothing
