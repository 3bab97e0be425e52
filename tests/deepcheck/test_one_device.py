"""Nothing is on two devices: on a device that is pretended, what would fail on a GPU fails, and the numbers are the CPU's."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck import checkpoint, models
from deepcheck.attacks import registry
from deepcheck.attacks.base import Attacked
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.prepared.base import PreparedAttack
from deepcheck.attacks.starts import Gaussian, OneOf, UniformBall, UniformLength, Zero
from deepcheck.defences import DEFENCES, Adaptive
from deepcheck.detectors import DETECTORS
from deepcheck.evaluation import Planned, distal, evaluate, sanity_checks
from deepcheck.evaluation.predicted import predictions
from deepcheck.match import layer_features, linearity, margins, measured_curve
from deepcheck.training import METHODS, Method, Recipe
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner
from deepcheck.training.validation import accuracies
from tests.deepcheck.digits_generator import defended
from tests.deepcheck.more_methods import MORE
from tests.deepcheck.pretended import exists, pretended, waits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not exists(), reason="this torch has no devices of one's own"),
]
ALL: dict[str, type[Method]] = {**METHODS, **MORE}
EPSILON = {"linf": 0.1, "l2": 0.8, "l1": 3.0, "l0": 4.0}
SIZES = {"flow": 1.0, "colour": 0.1, "rigid": 1.0, "combined": 1.0}
QUICK: dict[str, Any] = {"steps": 3, "queries": 6, "draws": 3, "restarts": 2, "passes": 2, "epochs": 1, "rounds": 1}
ANYWHERE = OneOf((Zero(), UniformBall(), UniformLength(), Gaussian()))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net(classes: int = 10, name: str = "conv_small", **options: Any) -> models.Network:
    return models.build(name, classes, (1, 8, 8), generator=generator(), mean=[0.3], std=[0.5], **options).eval()


def pictures(classes: int = 10) -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 8, 8, generator=generator(1)), torch.arange(6) % classes


def same_on_both(work: Callable[..., list[Tensor]], of: models.Network, *tensors: Tensor) -> None:
    """What is made of copies of a net and of tensors has the same bits on both devices, and is where these are."""
    here = work(copy.deepcopy(of), *tensors)
    with pretended() as device:
        there = work(copy.deepcopy(of).to(device), *(one.to(device) for one in tensors))
        assert {one.device for one in there} == {device}
        there = [one.cpu() for one in there]
    assert len(here) == len(there) > 0
    for mine, its in zip(here, there, strict=True):
        torch.testing.assert_close(its, mine, rtol=0, atol=0, equal_nan=True)


def fields(found: Attacked) -> list[Tensor]:
    return [getattr(found, name) for name in Attacked.__dataclass_fields__]


@pytest.mark.parametrize("name", registry.ATTACKS)
def test_every_attack(name: str) -> None:
    options = {key: value for key, value in QUICK.items() if key in registry.options_of(name)}
    for norm in registry.norms_of(name):
        epsilon = [(EPSILON | SIZES)[norm]]
        made = registry.within_budget(registry.make(name, norm, **options))

        def work(
            model: models.Network, x: Tensor, y: Tensor, made: Any = made, epsilon: list[float] = epsilon
        ) -> list[Tensor]:
            attack = made
            if isinstance(made, PreparedAttack):
                attack = made.prepare(model, x.flip(0), y.flip(0), epsilon=epsilon, generator=generator(2))
            return fields(attack(model, x, y, epsilon=epsilon, generator=generator(), batch_size=4))

        same_on_both(work, net(), *pictures())


@pytest.mark.parametrize("norm", EPSILON)
def test_momentum_backtracking_starts_and_half_precision(norm: str) -> None:
    attack = PGD(norm, "dlr", steps=3, relative_step_size=0.4, momentum=0.9, backtracking=1.5, start=ANYWHERE)

    def work(model: models.Network, x: Tensor, y: Tensor) -> list[Tensor]:
        wide = fields(attack(model, x, y, epsilon=EPSILON[norm], generator=generator()))
        half = attack(lambda z: model(z.float()), x.half(), y, epsilon=EPSILON[norm], generator=generator())
        return [*wide, *fields(half)]

    same_on_both(work, net(), *pictures())


@pytest.mark.parametrize("method", ALL)
def test_steps_of_every_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "precision", lambda _: nullcontext())
    changes: dict[str, Any] = {"batch_size": 6, "average": 0.9, "augmentation": "crop_flip", "padding": 1}
    changes |= {
        key: value for key, value in {"epsilon": 0.1, "attack_steps": 2}.items() if key in ALL[method].settings()
    }
    options = Recipe(method=ALL[method]()).changed(**changes)
    of = options.method.network(lambda **more: net(name="preact_resnet18", channels=2, **more))

    def work(model: models.Network, x: Tensor, y: Tensor) -> list[Tensor]:
        learner = Learner(options, model.train(), generator(2), Group())
        losses = [learner.step(model, learner.augmented(x), y, step / 2) for step in range(2)]
        shares = accuracies(model, x, y, ("linf", 0.1), generator=generator(), precision=nullcontext())
        return [*losses, *learner.result.state_dict().values(), torch.tensor(shares, device=x.device)]

    same_on_both(work, of, *pictures())


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector(name: str) -> None:
    def work(model: models.Network, x: Tensor, y: Tensor) -> list[Tensor]:
        return [DETECTORS[name]().fit(model, x, y % 2).score(model, x.requires_grad_())]

    same_on_both(work, net(), *pictures())


@pytest.mark.parametrize("name", DEFENCES)
def test_every_defence(name: str) -> None:
    attack = Adaptive(PGD("linf", steps=2, relative_step_size=0.5))

    def work(model: models.Network, x: Tensor, y: Tensor) -> list[Tensor]:
        return fields(attack(defended(name, model), x, y, epsilon=0.1, generator=generator()))

    same_on_both(work, net(), *pictures())


def test_records_of_an_evaluation() -> None:
    planned = {
        name: Planned(registry.within_budget(registry.make(name, "l2", **options)), (0.5, 1.0))
        for name, options in {"pgd": {"steps": 3}, "square": {"queries": 5}, "deepfool": {"steps": 2}}.items()
    }
    x, y = pictures()
    options: dict[str, Any] = {
        "validation": 2,
        "keep_images": True,
        "detectors": {"c": DETECTORS["confidence"]().fit(net(), x, y)},
    }
    here = evaluate(net(), (x, y), planned, **options)
    noise: dict[str, Any] = {"epsilon": 0.1, "count": 2, "steps": 2, "restarts": 1}
    drawn = distal(net(), (1, 8, 8), **noise)
    with pretended() as device:
        assert here.drop_attrs().equals(
            evaluate(net().to(device), (x, y), planned, device=device, **options).drop_attrs()
        )
        assert drawn.drop_attrs().equals(distal(net().to(device), (1, 8, 8), device=device, **noise).drop_attrs())
        checks = sanity_checks(
            net().to(device), x.to(device), y.to(device), epsilon=0.1, generator=generator(), steps=2, queries=3
        )
    assert checks == sanity_checks(net(), x, y, epsilon=0.1, generator=generator(), steps=2, queries=3)


def test_the_bridge_to_the_theory() -> None:
    def results(model: models.Network, x: Tensor, y: Tensor) -> list[Any]:
        curve = measured_curve(model, x, y, epsilon=[0.05, 0.1], generator=generator(), steps=2)
        bent = linearity(model, x, y, epsilon=0.1, generator=generator(), steps=2)
        return [one.drop_attrs() for one in (margins(model, x, y), curve, bent)]

    x, y = pictures(2)
    here, features = results(net(2), x, y), layer_features(net(2), x)
    with pretended() as device:
        there = results(net(2).to(device), x.to(device), y.to(device))
        assert (layer_features(net(2).to(device), x.to(device)) == features).all()
    assert all(mine.equals(its) for mine, its in zip(here, there, strict=True))


def test_a_net_goes_to_a_file_and_comes_back_on_another_device(tmp_path: Any) -> None:
    with pretended() as device:
        tensors = {checkpoint.MODEL + key: one for key, one in net().to(device).state_dict().items()}
        path = checkpoint.write(tmp_path / "net.safetensors", tensors, {"model": net().spec})
        back = checkpoint.load_model(path, device=device)
        assert {one.device for one in back.state_dict().values()} == {device}
        x, _ = pictures()
        there = predictions(back, x.to(device), 4)
    home = predictions(checkpoint.load_model(path), x, 4)
    assert all((mine == its).all() for mine, its in zip(home, there, strict=True))


# --- the device itself ---


def test_tensors_of_two_devices_do_not_go_together() -> None:
    with pretended() as device:
        mine, its = torch.arange(3.0, device=device), torch.arange(3.0)
        wrong: list[Callable[[], object]] = [
            lambda: mine + its,
            lambda: its + mine,
            lambda: torch.cat([mine, its]),
            lambda: torch.stack([mine[0], its[0]]),
            lambda: mine.gather(0, its.long()),
            lambda: torch.where(mine > 0, mine, its),
            lambda: mine.lerp_(its, 0.5),
        ]
        for one in wrong:
            with pytest.raises(RuntimeError, match="same device"):
                one()
        with pytest.raises((RuntimeError, TypeError)):
            mine.numpy()
        assert (mine + its[1]).tolist() == [1, 2, 3]  # numbers of no dimension go everywhere
        assert mine[its.long()].tolist() == [0, 1, 2]  # and indices
        assert torch.tensor([1, 2], device=device).device == device == torch.zeros(2).to(device).device
        assert mine.cpu().device.type == "cpu"


def test_what_is_asked_for_is_counted() -> None:
    with pretended() as device:
        x = torch.arange(4.0).to(device)
        asked: dict[str, Callable[[], object]] = {
            "a value": lambda: float(x.sum()),
            "where a mask is true": lambda: x[x > 1],
            "a copy from the device": lambda: x.cpu(),
            "a copy to the device": lambda: torch.ones(3).to(device),
            "a comparison": lambda: torch.equal(x, x),
        }
        for what, one in asked.items():
            with waits() as found:
                one()
            ((place, reason),) = found
            assert (reason, found.total()) == (what, 1)
            assert place.startswith("tests/deepcheck/test_one_device.py:")
        with waits() as found:
            (x.clone().requires_grad_() * 2).sum().backward()
            x.add_(1).clamp_(min=2).view(2, 2).sort().values.sum()
            torch.where(x > 1, x, 0.0)
            torch.zeros(3, device=device)
        assert not found
