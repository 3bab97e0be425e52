"""Recording and playing back, with the buffers that CUDA graphs have: on the CPU the function is called on them."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.draws import keys
from deepcheck.attacks.pgd import PGD
from deepcheck.graphs import Captured, Result


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net() -> nn.Sequential:
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    return nn.Sequential(*layers)


def batch(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels, and keys of random numbers."""
    images = torch.rand(n, 1, 8, 8, generator=generator(seed))
    return images, torch.randint(10, (n,), generator=generator(seed)), keys(generator(seed), torch.arange(n))


class Counted:
    """A function, and where the inputs of each call were."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.places: list[tuple[int, ...]] = []

    def __call__(self, *arguments: Any) -> Result:
        self.places.append(tuple(one.data_ptr() for one in arguments if isinstance(one, Tensor)))
        result: Result = self.function(*arguments)
        return result


def test_the_second_call_records_and_each_later_one_reads_the_same_places() -> None:
    counted = Counted(lambda x, y: (x * y, x.sum()))
    captured = Captured(counted)
    for seed in range(5):
        x, y = torch.rand(3, generator=generator(seed)), torch.rand(3, generator=generator(seed + 9))
        product, total = captured(x, y)
        assert torch.equal(product, x * y)
        assert torch.equal(total, x.sum())
    assert repr(captured) == "Captured(1 recording)"
    first, recording, *played = counted.places
    assert len(played) == 4
    assert first != recording
    assert all(place == recording for place in played)


def test_results_are_not_overwritten_and_inputs_are_not_changed() -> None:
    captured = Captured(lambda x: x.add_(1))  # what it returns is its own input
    inputs = [torch.full((2,), float(value)) for value in range(5)]
    results = [captured(one.clone()) for one in inputs]
    for one, result in zip(inputs, results, strict=True):
        assert isinstance(result, Tensor)
        assert torch.equal(result, one + 1)
    kept = torch.ones(2)
    captured(kept)
    assert torch.equal(kept, torch.ones(2))


def test_an_attack_that_is_recorded_is_the_attack() -> None:
    model = net().eval().requires_grad_(False)
    attack = PGD("linf", steps=4, relative_step_size=0.5, keep="last", stop_when_reached=False)

    def perturbed(x: Tensor, y: Tensor, key: Tensor, epsilon: float) -> Tensor:
        return attack.perturb_with(model, x, y, epsilon, key)

    captured = Captured(perturbed, nets=[model])
    for seed in range(4):
        x, y, key = batch(seed=seed)
        expected = attack.perturb(model, x, y, 0.1, generator(seed))
        assert torch.equal(captured(x, y, key, 0.1), expected)  # type: ignore[arg-type]
        with torch.no_grad():
            model.get_parameter("4.weight").mul_(-0.9)  # as an optimiser does: in place
    assert repr(captured) == "Captured(1 recording)"


@pytest.mark.parametrize("what", ["shape", "strides", "dtype", "number", "mode", "parameters", "autocast", "gradients"])
def test_what_is_not_as_it_was_recorded_is_not_played_back(what: str) -> None:
    model = net().eval()
    counted = Counted(lambda x, scale: scale * model(x))
    captured = Captured(counted, nets=[model])
    x = batch()[0]
    for _ in range(3):
        captured(x, 1.0)
    other, scale = x, 1.0
    autocast, gradients = torch.autocast("cpu", torch.bfloat16, enabled=what == "autocast"), what != "gradients"
    if what == "shape":
        other = x[:4]
    elif what == "strides":
        other = x.mT
    elif what == "dtype":
        model.double()
        other = x.double()
    elif what == "number":
        scale = 2.0
    elif what == "mode":
        model.train()
    elif what == "parameters":
        model[4] = nn.Linear(4 * 36, 10).eval()
    with autocast, torch.set_grad_enabled(gradients):
        for _ in range(4):
            expected = scale * copy.deepcopy(model)(other)
            found = captured(other, scale)
            assert isinstance(found, Tensor)
            assert torch.equal(found, expected)
    assert repr(captured) == "Captured(2 recordings)"
    assert len(set(counted.places[-3:])) == 1


def test_running_means_move_once_a_call() -> None:
    model, plain = net(), net()
    plain.load_state_dict(model.state_dict())
    captured = Captured(model, nets=[model])
    for seed in range(4):
        x = batch(seed=seed)[0]
        captured(x)
        plain(x)
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in model.state_dict().items())


def test_gradients_that_are_returned_train_a_net() -> None:
    model, plain = net(), net()
    plain.load_state_dict(model.state_dict())

    def loss(of: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            value = F.cross_entropy(of(x).float(), y)
        return value, *torch.autograd.grad(value, list(of.parameters()))

    captured = Captured(lambda x, y: loss(model, x, y), nets=[model])
    optimisers = [torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9) for one in (model, plain)]
    for seed in range(5):
        x, y, _ = batch(seed=seed)
        for of, optimiser, found in zip((model, plain), optimisers, (captured(x, y), loss(plain, x, y)), strict=True):
            for parameter, gradient in zip(of.parameters(), found[1:], strict=True):
                parameter.grad = gradient
            optimiser.step()
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), plain.parameters(), strict=True))
    assert repr(captured) == "Captured(1 recording)"


def test_what_cannot_be_recorded_is_called_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def once_failing(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) in (2, 6):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return 2 * x

    captured = Captured(once_failing)
    for n in (3, 3, 3, 4, 4, 4):
        assert torch.equal(captured(torch.ones(n)), torch.full((n,), 2.0))  # type: ignore[arg-type]
    assert calls == [3, 3, 3, 3, 4, 4, 4, 4]  # the first call, that which failed, those in its place
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].endswith(
        "once_failing cannot be recorded, and is called step by step: operation not permitted when stream is capturing"
    )


def test_an_error_of_the_function_itself_is_raised() -> None:
    def failing(x: Tensor) -> Tensor:
        raise ZeroDivisionError(f"of {len(x)}")

    captured = Captured(failing)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="of 3"):
            captured(torch.ones(3))


def test_few_recordings_are_kept_and_what_comes_once_is_not_recorded() -> None:
    counted = Counted(lambda x, number: number * x)
    captured = Captured(counted, most=2)
    for number in range(100):
        captured(torch.ones(2), number)
    assert repr(captured) == "Captured(0 recordings)"
    for number in (200, 201, 200, 201, 200, 202, 202):
        assert torch.equal(captured(torch.ones(2), number), number * torch.ones(2))  # type: ignore[arg-type]
    assert repr(captured) == "Captured(2 recordings)"  # of 200 and 202
    counted.places.clear()
    for _ in range(3):
        captured(torch.ones(2), 200)
    assert len(counted.places) == 3
    assert len(set(counted.places)) == 1
    x = torch.ones(2)
    for _ in range(2):
        captured(x, 201)  # dropped: not recorded again
        assert counted.places[-1] == (x.data_ptr(),)


def test_a_count_of_recordings() -> None:
    with pytest.raises(ValueError, match="most"):
        Captured(lambda x: x, most=0)
