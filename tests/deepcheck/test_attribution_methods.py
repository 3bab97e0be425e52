"""Training for robust attributions: the limits in which it is another method, its attack, and its gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck import models
from deepcheck.attributions.ascent import path_size
from deepcheck.attributions.maps import integrated
from deepcheck.attributions.smooth import Smoothed
from deepcheck.training import METHODS, recipe
from deepcheck.training.methods.ig_norm import AttributionMethod, IGNorm
from deepcheck.training.methods.ig_sum_norm import IGSumNorm
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

pytestmark = on_every_device

FEW: dict[str, Any] = {"attack_steps": 3, "step_size": 0.05, "epsilon": 0.1, "path_steps": 8, "attack_path_steps": 2}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net(name: str = "conv_small") -> models.Network:
    if name == "conv_small":
        return models.build(name, 10, (1, 8, 8), generator=generator()).train()
    return models.build(name, 10, (1, 8, 8), generator=generator(), channels=2).train()


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 8, 8, generator=generator(1)), torch.randint(10, (n,), generator=generator(2))


def followed(method: Any, model: models.Network) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of a batch and its gradient."""
    x, y = batch()
    loss = method.loss(model, x, y, progress=0.7, generator=generator(3), state=None)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize(
    ("method", "same"),
    [
        (IGNorm(attribution=0.0, **FEW), METHODS["standard"]()),
        (
            IGSumNorm(beta=0.0, ramp=0.9, **FEW),
            METHODS["at"](attack_steps=3, step_size=0.05, epsilon=0.1, ramp=0.9),  # type: ignore[call-arg]
        ),
    ],
)
@pytest.mark.parametrize("name", ["conv_small", "preact_resnet18"])
def test_without_attributions_it_is_another_method(method: Any, same: Any, name: str) -> None:
    ours, theirs = (followed(one, net(name)) for one in (method, same))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", [IGNorm, IGSumNorm])
def test_the_loss_is_its_formula(kind: type[AttributionMethod]) -> None:
    method, model = kind(**FEW), net()
    x, y = batch()
    z = method.attacked(model, x, y, *method.drawn(x, progress=0.7, generator=generator(3)))
    assert float((z - x).abs().max()) == pytest.approx(0.1, rel=1e-6)
    assert bool(((z >= 0) & (z <= 1)).all())
    loss, _ = followed(method, model)
    of = x if kind is IGNorm else z
    paths = integrated(model, x, z, y, steps=8, of="loss")
    expected = F.cross_entropy(model(of), y) + method.path_weight() * path_size(paths).mean()
    torch.testing.assert_close(loss, expected.detach())


def test_attributions_are_at_least_the_change_of_the_loss() -> None:
    model, (x, y) = Smoothed(net().double().eval(), 5.0), batch()
    x = x.double()
    z = (x + 0.3 * torch.sign(torch.randn(x.shape, generator=generator(4)))).clamp(0, 1)
    paths = integrated(model, x, z, y, steps=200, of="loss")
    with torch.no_grad():
        change = F.cross_entropy(model(z), y, reduction="none") - F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(paths.flatten(1).sum(1), change, rtol=1e-4, atol=1e-7)  # as the net is smooth
    assert bool((path_size(paths) >= change.abs() - 1e-7).all())
    assert bool((path_size(paths) > 2 * change.abs()).any())  # and it is more than that


def test_the_attack_finds_larger_attributions_than_noise_of_its_size() -> None:
    data = digits_as_tensors()
    model, x, y = trained_net(), data.test[:64], data.labels[:64]
    method = IGNorm(epsilon=0.2, attack_steps=8, step_size=0.06, attack_path_steps=4)
    noise = (x + 0.2 * torch.sign(torch.randn(x.shape, generator=generator(4)))).clamp(0, 1)
    z = method.attacked(model, x, y, *method.drawn(x, progress=0.9, generator=generator(3)))
    ours, theirs = (path_size(integrated(model, x, one, y, steps=20, of="loss")) for one in (z, noise))
    gain = ours - theirs
    assert float(gain.mean()) > 4 * float(gain.std()) / len(x) ** 0.5


def test_the_gradient_of_the_attributions_is_that_of_their_differences() -> None:
    model, (x, y) = net(), batch()
    method = IGNorm(**FEW)
    z = (x + 0.1 * torch.sign(torch.randn(x.shape, generator=generator(4)))).clamp(0, 1)
    model, x, z = model.double(), x.double(), z.double()
    weights = list(model.parameters())
    gradient = torch.autograd.grad(method.mean_path_size(model, x, z, y), weights, materialize_grads=True)
    direction = [torch.randn(one.shape, generator=generator(5)).double() for one in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    step, values = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight.add_(d, alpha=sign * step)
            values.append(float(method.mean_path_size(model, x, z, y)))
            for weight, d in zip(weights, direction, strict=True):
                weight.sub_(d, alpha=sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-3)


def test_attributions_of_an_image_depend_on_no_other_image_of_the_batch() -> None:
    model, (x, y) = net("preact_resnet18"), batch(4)  # batch norms, in train mode
    method, z = IGNorm(**FEW), (batch(4)[0] + 0.1).clamp(0, 1)
    with torch.no_grad():
        whole = method.mean_path_size(model, x, z, y)
        each = [method.mean_path_size(model, x[i : i + 1], z[i : i + 1], y[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(whole, torch.stack(each).mean())
    assert model.training


def test_a_compiled_net_is_explained_as_it_is() -> None:
    model = net()
    compiled = torch.compile(model, backend="eager")
    x, y = batch()
    losses = [
        IGNorm(**FEW).loss(one, x, y, progress=0.5, generator=generator(3), state=None) for one in (model, compiled)
    ]
    torch.testing.assert_close(losses[0], losses[1])
    assert model.training


def test_steps_and_radius_grow() -> None:
    method = IGNorm(epsilon=0.3, attack_steps=8, first_steps=2, growth=0.5, step_size=0.05, ramp=0.4)
    radii = [method.epsilon_at(progress) for progress in (0.0, 0.2, 0.4, 0.9)]
    assert radii == pytest.approx([0.0, 0.15, 0.3, 0.3])
    first, last = method.attack_at(0.2), method.attack_at(0.6)
    assert (first.steps, last.steps) == (4, 8)
    assert first.step_size == pytest.approx(0.05)  # at least epsilon / steps, 0.0375
    assert method.attack_at(0.0).steps == 2
    assert IGNorm(epsilon=0.3, attack_steps=8, first_steps=2, growth=0.5, step_size=0.05).attack_at(
        0.0
    ).step_size == pytest.approx(0.15)


@pytest.mark.parametrize("name", ["ig_norm", "ig_sum_norm"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("path_steps", 0), ("attack_path_steps", 0), ("ramp", 1.5), ("epsilon", -1.0), ("factor", -0.1)],
)
def test_bad_settings(name: str, field: str, value: float) -> None:
    field = {"factor": "attribution" if name == "ig_norm" else "beta"}.get(field, field)
    with pytest.raises(ValueError, match=rf"{field} = {value} is"):
        recipe("digits", name, **{field: value})
