"""Attacks do not wait for a GPU at every step: their waits are counted on a device that is pretended."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from deepcheck.attacks.base import BudgetAttack
from deepcheck.attacks.black_box import search
from deepcheck.attacks.black_box.noise import UniformNoise
from deepcheck.attacks.black_box.square import Square
from deepcheck.attacks.gradient import pgd
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.pgd import PGD, targeted_pgd
from deepcheck.attacks.starts import Gaussian, OneOf, UniformBall, UniformLength, Zero
from tests.deepcheck.pgd_cases import EPSILON, Smooth, classified, generator, pictures
from tests.deepcheck.pretended import exists, pretended, waits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not exists(), reason="this torch has no devices of one's own"),
]
STARTS = OneOf((Zero(), UniformBall(), UniformLength(), Gaussian()))
GOALS = ("margin", "wrong_confidence")
"""An objective that is reached, and one that is not."""


def attacks(count: int) -> dict[str, BudgetAttack]:
    """Attacks with so many steps, draws or queries."""

    def ascent(norm: str, goal: str, factor: float | None, momentum: float) -> PGD:
        of = "direction" if momentum < 1 else "gradient"
        options = {"relative_step_size": 0.1, "backtracking": factor, "momentum": momentum, "momentum_of": of}
        return PGD(norm, goal, steps=count, **options)  # type: ignore[arg-type]

    cases = [(norm, goal, factor, 0.9) for norm in NORMS for goal, factor in zip(GOALS, (1.5, None), strict=True)]
    cases += [("linf", "margin", None, 0.0), ("l2", "wrong_confidence", 1.5, 1.0)]
    return {
        **{"pgd {} {} {} {}".format(*case): ascent(*case) for case in cases},
        "targeted": targeted_pgd("linf", steps=count, restarts=1),
        **{f"noise {norm}": UniformNoise(norm, "wrong_confidence", draws=count) for norm in NORMS},
        "noise that stops": UniformNoise("linf", "margin", draws=count),
        **{f"square {norm} {goal}": Square(norm, goal, queries=count) for norm in ("linf", "l2") for goal in GOALS},
    }


def waited(work: Callable[[torch.device], object]) -> int:
    with pretended() as device, waits() as found:
        work(device)
    return found.total()


def never_reached(objective: Objective | str) -> bool:
    assert isinstance(objective, Objective)
    logits, labels = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    return objective.reached(logits, labels, labels) is None


@pytest.mark.parametrize("name", attacks(1))
def test_an_attack_waits_at_every_fifth_step_at_most(name: str) -> None:
    attack = attacks(1)[name]
    images = pictures(6, torch.float32)[0]
    labels = classified(Smooth(24, dtype=torch.float32), images)
    labels[0] = (labels[0] + 1) % 4  # it is finished before the first step

    def counted(count: int) -> int:
        with pretended() as device:
            x, y, model = images.to(device), labels.to(device), Smooth(24, dtype=torch.float32).to(device)
            with waits() as found:
                epsilon = 0.2 * EPSILON[attack._norm.name]
                done = attacks(count)[name](model, x, y, epsilon=epsilon, generator=generator(), batch_size=6)
            assert (done.prediction.cpu() == labels).any() or never_reached(attack.objective)  # some never finish
        return found.total()

    if name.startswith("square l2"):
        counted(15)  # which makes the patterns, once for all
    few, many = counted(5), counted(15)
    assert many <= few + (0 if never_reached(attack.objective) else 10 / 5)


def test_that_nothing_waits_is_seen_where_something_does() -> None:
    class Asking(Smooth):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            return -logits if logits.sum() > 1e9 else logits

    attack = PGD("linf", "wrong_confidence", steps=5, relative_step_size=0.1)

    def work(attack: PGD, device: torch.device) -> None:
        x, y = (one.to(device) for one in pictures(8, torch.float32))
        attack(Asking(24, dtype=torch.float32).to(device), x, y, epsilon=0.1, generator=generator())

    assert (
        waited(lambda device: work(replace(attack, steps=8), device)) == waited(lambda device: work(attack, device)) + 3
    )


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_of_training_never_waits(norm: str) -> None:
    attack = PGD(norm, steps=7, relative_step_size=0.5, keep="last", start=STARTS)
    with pretended() as device:
        x, y = (one.to(device) for one in pictures(8, torch.float32))
        model = Smooth(24, dtype=torch.float32).to(device)
        with waits() as found:
            attack.perturb(model, x, y, 0.5, generator())
    assert not found


CASES = {
    "pgd": PGD("l2", "margin", steps=30, relative_step_size=0.1, backtracking=1.5, momentum=0.9),
    "square": Square("linf", queries=60),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_found_does_not_depend_on_when_it_looks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = pictures(40)
    model = Smooth(24)
    y, attack, found = classified(model, x), CASES[name], []
    for every in (1, 3, 1000):
        for module in (pgd, search):
            monkeypatch.setattr(module, "looks", lambda step, every=every: step % every == 0)
        epsilon = 0.5 * EPSILON[attack._norm.name]
        found.append(attack(model, x, y, epsilon=epsilon, generator=generator()))
    assert 0.1 < (found[0].prediction != y).float().mean() < 0.9
    for other in found[1:]:
        torch.testing.assert_close(other.images, found[0].images, rtol=0, atol=1e-9)
        assert torch.equal(other.prediction, found[0].prediction)
