"""What a caller of projected gradient ascent relies on: batches, generators, epsilons, and a model left as it was."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks.judged import InPrecision
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd
from deepcheck.attacks.starts import Zero
from deepcheck.attacks.targets import every_class, every_other_class
from tests.deepcheck.devices import on_every_device, rounding
from tests.deepcheck.pgd_cases import ATTACKS, EPSILON, Linear, Smooth, generator, pictures

pytestmark = on_every_device

# --- batches, generators, epsilons ---


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_result_does_not_depend_on_the_batch_size(name: str, norm: str) -> None:
    images, labels = pictures(23)
    model = Linear(24, 4)
    attack = replace(ATTACKS[name](norm), steps=6)
    results = [
        attack(model, images, labels, epsilon=EPSILON[norm] / 4, generator=generator(), batch_size=size)
        for size in (500, 23, 7, 1)
    ]
    for other in results[1:]:
        for field in results[0].__dataclass_fields__:
            torch.testing.assert_close(getattr(other, field), getattr(results[0], field), rtol=0, atol=rounding())


@pytest.mark.parametrize("name", ["pgd", "confidence"])
def test_random_numbers_come_from_the_generator_alone(name: str) -> None:
    images, labels = pictures(10)
    model, attack = Smooth(24), replace(ATTACKS[name]("l2"), steps=3)
    state = torch.get_rng_state()
    first, again, other = (
        attack(model, images, labels, epsilon=0.3, generator=generator(seed)).images for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_several_epsilons_get_a_first_axis() -> None:
    images, labels = pictures(10)
    model, attack = Smooth(24), pgd("l2", steps=4, relative_step_size=0.5, restarts=2)
    several = attack(model, images, labels, epsilon=[0.3, 0.0, 0.6], generator=generator())
    one = attack(model, images, labels, epsilon=0.3, generator=generator())
    listed = attack(model, images, labels, epsilon=[0.3], generator=generator())
    assert several.images.shape == (3, *images.shape)
    assert several.objective.shape == (3, 10)
    assert several.restart_objective.shape == several.prediction.shape == (3, 2, 10)
    assert several.confidence.shape == several.length.shape == (3, 2, 10)
    assert one.images.shape == images.shape
    assert one.prediction.shape == (2, 10)
    for field in one.__dataclass_fields__:
        assert torch.equal(getattr(several, field)[0], getattr(one, field))
        assert torch.equal(getattr(listed, field)[0], getattr(one, field))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_epsilon_zero_returns_the_images(name: str, norm: str) -> None:
    images, labels = pictures(10)
    attack = replace(ATTACKS[name](norm), steps=3)
    if attack.step_size is not None:
        attack = replace(attack, step_size=0.1)
    attacked = attack(Smooth(24), images, labels, epsilon=0, generator=generator())
    assert torch.equal(attacked.images, images)
    assert (attacked.length == 0).all()


def test_no_images_give_no_results() -> None:
    images, labels = pictures(10)
    attacked = pgd(steps=3, relative_step_size=0.5, restarts=2)(
        Smooth(24), images[:0], labels[:0], epsilon=[0.1, 0.2], generator=generator()
    )
    assert attacked.images.shape == (2, 0, 2, 3, 4)
    assert attacked.prediction.shape == (2, 2, 0)


# --- the model ---


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_gets_its_mode_back(fails: bool) -> None:
    draw = generator(3)
    net = models.build("resnet_ccat", 4, (2, 8, 8), generator=draw, channels=4, blocks=1)
    net.train()
    for index, module in enumerate(net.modules()):
        if index % 3 == 1:
            module.training = False
    modes = [module.training for module in net.modules()]
    assert {True, False} <= set(modes)
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    seen: list[bool] = []
    calls = 0

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal calls
        calls += 1
        seen.append(any(each.training for each in net.modules()))
        if fails and calls == 3:
            raise RuntimeError("the device is gone")

    net.register_forward_pre_hook(look)
    images, labels = torch.rand(6, 2, 8, 8, generator=draw), torch.zeros(6, dtype=torch.int64)
    attack = replace(pgd(steps=3, relative_step_size=0.5), stop_when_reached=False)
    if fails:
        with pytest.raises(RuntimeError, match="the device is gone"):
            attack(net, images, labels, epsilon=0.1, generator=generator())
    else:
        attack(net, images, labels, epsilon=0.1, generator=generator())
    assert [module.training for module in net.modules()] == modes
    assert seen
    assert not any(seen)
    for name, value in net.named_buffers():
        assert torch.equal(value, buffers[name])


def test_the_model_keeps_its_gradients() -> None:
    images, labels = pictures(5)
    model = Smooth(24)
    model.W1.grad = torch.ones_like(model.W1)
    with torch.no_grad():  # whatever the caller is in
        attacked = pgd(steps=2, relative_step_size=0.5)(model, images, labels, epsilon=0.1, generator=generator())
    assert not attacked.images.requires_grad
    assert model.W1.grad is not None
    assert (model.W1.grad == 1).all()
    assert model.W2.grad is None
    assert model.W1.requires_grad


def test_the_result_says_how_much_it_is() -> None:
    for shape in ((7, 2), (7, 1, 2, 3)):
        images, labels = torch.rand(shape, generator=generator()), torch.zeros(7, dtype=torch.int64)
        attack = pgd(steps=1, relative_step_size=0.5, restarts=2)
        for epsilon in (0.1, [0.1, 0.2]):
            attacked = attack(lambda x: x.flatten(1)[:, :2], images, labels, epsilon=epsilon, generator=generator())
            assert repr(attacked) == "Attacked(7 images, 2 restarts)"


def test_a_function_is_a_model_and_half_precision_is_widened() -> None:
    images, labels = pictures(20, torch.float32)
    model = Smooth(24, dtype=torch.float32)
    attacked = pgd(steps=3, relative_step_size=0.5)(
        lambda x: model(x).bfloat16(), images, labels, epsilon=0.1, generator=generator()
    )
    assert attacked.objective.dtype is torch.float32
    assert attacked.confidence.dtype is torch.float32


def test_constant_models_do_no_harm() -> None:
    """All gradients are zero: nothing is NaN, and every image stays where it starts."""
    images, labels = pictures(5)
    for norm in NORMS:
        for attack in (
            fgsm(norm),
            mim(norm, steps=3, relative_step_size=0.5),
            bim(norm, steps=3, relative_step_size=1),
        ):
            attacked = attack(
                lambda x: 0 * x.flatten(1)[:, :3], images, torch.zeros_like(labels), epsilon=2.0, generator=generator()
            )
            assert torch.equal(attacked.images, images)
            assert attacked.objective.isfinite().all()


def test_several_targets_in_one_call_are_those_one_by_one() -> None:
    """With the same random numbers; the first axis is that of the targets, the second that of the epsilons."""
    draw = torch.Generator().manual_seed(1)
    net = models.build("linear", 4, (1, 3, 4), generator=draw)
    images, labels = torch.rand(6, 1, 3, 4, generator=draw), torch.arange(6) % 4
    attack = PGD("linf", "targeted_margin", steps=5, relative_step_size=0.5, restarts=2)
    every = every_class(labels, 4)
    common = {"epsilon": [0.05, 0.3], "batch_size": 4}
    found = attack(net, images, labels, targets=every, generator=torch.Generator().manual_seed(2), **common)  # type: ignore[arg-type]
    assert found.images.shape == (4, 2, *images.shape)
    for target, row in enumerate(every):
        one = attack(net, images, labels, targets=row, generator=torch.Generator().manual_seed(2), **common)  # type: ignore[arg-type]
        for field in one.__dataclass_fields__:
            assert torch.equal(getattr(found, field)[target], getattr(one, field))
    reached = (found.prediction == every[:, None, None, :]).any(2)
    assert reached[:, 1].sum() > reached[:, 0].sum()
    assert {*every_other_class(labels, 4)[:, 1].tolist()} == {0, 2, 3}
    quick = InPrecision(attack, "bfloat16")
    assert quick(net, images, labels, targets=every, generator=draw, **common).images.shape == found.images.shape  # type: ignore[arg-type]


def test_queries_until_the_goal() -> None:
    """One step turns the first image, none the second, which is wrong as it is; the third takes all steps."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.full_like(x[:, 0], 0.5), x[:, 0]], 1)

    images, labels = torch.tensor([[0.45, 0.0], [0.6, 0.0], [0.1, 0.0]]), torch.zeros(3, dtype=torch.int64)
    attack = PGD("linf", "margin", steps=8, step_size=0.1, start=Zero(), restarts=2)
    found = attack(model, images, labels, epsilon=0.3, generator=torch.Generator().manual_seed(0))
    assert found.queries.tolist() == [[2, 1, 9], [0, 0, 9]]
    goes_on = replace(attack, stop_when_reached=False)
    found = goes_on(model, images, labels, epsilon=0.3, generator=torch.Generator().manual_seed(0))
    assert found.queries.tolist() == [[9, 9, 9], [9, 9, 9]]
