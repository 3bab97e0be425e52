"""Defense-GAN and the attack on its manifold, with generators whose nearest image is known in closed form."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.draws import Draws
from deepcheck.checks import CheckpointError
from deepcheck.defences import BPDA, Adaptive, Behind, DefenseGAN, OnManifold
from deepcheck.defences.onto_manifold import OntoManifold, along_manifold
from deepcheck.generators import Generator, GeneratorRecipe, nearest, train_generator
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_generator import linear_generator
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net

pytestmark = on_every_device
SIMPLE: dict[str, Any] = {"steps": 40, "restarts": 2}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def net() -> models.Network:
    return trained_net()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Plane(nn.Module):
    """Images of two pixels with the sum 1: G(z) = (0.5 + z, 0.5 - z)."""

    latent, out_shape = 1, (1, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        return (0.5 + torch.cat([z, -z], 1)).view(-1, 1, 1, 2)


class Circle(nn.Module):
    """Images of two pixels on a circle: G(z) = 2 (cos z, sin z)."""

    latent, out_shape = 1, (1, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        return 2 * torch.cat([z.cos(), z.sin()], 1).view(-1, 1, 1, 2)


def first_pixel(x: Tensor) -> Tensor:
    """Class 1 where the first pixel is above one half."""
    value = x.flatten(1)[:, 0] - 0.5
    return 10 * torch.stack([-value, value], 1)


def test_it_is_the_net_on_the_nearest_image(net: models.Network, digits: Digits) -> None:
    G = linear_generator()
    defence = DefenseGAN(net, generator=G, steps=100, restarts=2)
    x = digits.test[:60]
    torch.testing.assert_close(defence.projected(x), G.projected(x), rtol=0, atol=2e-3)
    with torch.no_grad():
        torch.testing.assert_close(defence(x), net(G.projected(x)), rtol=0.02, atol=0.05)


def test_what_the_generator_has_made_stays(net: models.Network) -> None:
    G = linear_generator()
    made = G(torch.randn(20, G.latent, generator=draw()))
    torch.testing.assert_close(DefenseGAN(net, generator=G).projected(made), made, rtol=0, atol=1e-3)


def test_the_starts_are_drawn_image_by_image(net: models.Network, digits: Digits) -> None:
    """From the seed of the call and the place of the image: the first images of a batch are those of a smaller one."""
    G, x = linear_generator(), digits.test[:9]
    one, other = (DefenseGAN(net, generator=G, steps=3, restarts=2, seed=4) for _ in range(2))
    torch.testing.assert_close(one.nearest(x)[:4], other.nearest(x[:4]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one.nearest(x), other.nearest(x[:4]).repeat(3, 1)[:9], atol=1e-2)
    again = DefenseGAN(net, generator=G, steps=3, restarts=2, seed=5)
    like = x.new_zeros(9, 2, G.latent)
    z = nearest(G, x, Draws.of(draw(5), like).normal(like), steps=3)[0]
    assert not torch.allclose(again.nearest(x), z, atol=1e-2)  # these keys are an attack's


def test_the_surrogate_has_the_gradient_of_the_projection(net: models.Network, digits: Digits) -> None:
    """Which is linear and known for a linear generator; the identity's is another one."""
    G = linear_generator()
    defence = DefenseGAN(net, generator=G, steps=100, restarts=1)
    x = digits.test[:8].clone().requires_grad_()
    (found,) = torch.autograd.grad(defence.surrogate()(x)[:, 3].sum(), x)
    y = digits.test[:8].clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(G.projected(y))[:, 3].sum(), y)
    (identity,) = torch.autograd.grad(Behind(BPDA(defence.projected), net)(x)[:, 3].sum(), x)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert float((identity - expected).norm() / expected.norm()) > 0.5


def test_a_curved_manifold_has_the_gradient_at_its_nearest_point() -> None:
    """On a circle of radius 2 the nearest point moves by 2/3 of a tangential change at a distance of 1 from it: to first order
    along the tangent, 1, but for the curvature, that is left out."""
    circle = Circle()
    z, change = torch.tensor([[0.3]]), torch.tensor([[[[0.0, 0.1]]]])
    tangent = torch.tensor([-torch.sin(z[0, 0]), torch.cos(z[0, 0])])
    moved = along_manifold(circle, z, change)
    torch.testing.assert_close(moved.flatten(), 0.1 * tangent[1] * tangent, rtol=2e-3, atol=1e-6)


def test_its_generator_is_a_copy(net: models.Network) -> None:
    G = Generator((1, 8, 8), latent=2, width=2, generator=draw()).train()
    defence = DefenseGAN(net, generator=G, **SIMPLE)
    defence(torch.rand(2, 1, 8, 8, generator=draw()))
    assert G.training
    assert all(weight.grad is None and weight.requires_grad for weight in G.parameters())
    assert defence.G is not G


def test_a_generator_of_a_file(net: models.Network, tmp_path: Path) -> None:
    from deepcheck.data import load

    recipe = GeneratorRecipe(latent=2, width=2, steps=1, batch_size=4, validation=5)
    trained = train_generator(recipe, load("digits"), out=tmp_path / "gan", device="cpu").generator
    x = torch.rand(3, 1, 8, 8, generator=draw())
    ours, theirs = (DefenseGAN(net, generator=one, **SIMPLE).projected(x).cpu() for one in (tmp_path / "gan", trained))
    torch.testing.assert_close(ours, theirs)


def test_misuse(net: models.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = (
        "generator = 'runs/mnist_generator' does not exist: train it by "
        "`deepcheck generator --dataset mnist --out runs/mnist_generator`"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        DefenseGAN(net)
    G = linear_generator()
    wrong: dict[str, Any] = {"steps": 0, "restarts": 0, "rate": 0.0, "momentum": 1.0}
    for option, value in wrong.items():
        with pytest.raises(ValueError, match=f"{option} = {value} is out of range"):
            DefenseGAN(net, generator=G, **{option: value})
    with pytest.raises(TypeError, match="generator is of the wrong type int"):
        DefenseGAN(net, generator=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator is of the wrong type Linear: .* latent and out_shape"):
        DefenseGAN(net, generator=nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"generator makes images of shape \(1, 1, 2\), and the net takes \(1, 8, 8\)"):
        DefenseGAN(net, generator=Plane())
    with pytest.raises(ValueError, match=r"generator makes images of shape \(1, 1, 2\), and these have \(1, 2, 2\)"):
        DefenseGAN(first_pixel, generator=Plane())(torch.rand(3, 1, 2, 2))


# the attack on the manifold


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_image_of_the_other_class_is_found(norm: str) -> None:
    """On the plane the class changes at (0.5, 0.5). From (0.2, 0.8) that is 0.3 away in L-infinity, 0.42 in L2."""
    defence = DefenseGAN(first_pixel, generator=Plane(), rate=0.3, **SIMPLE)
    x, y = torch.tensor([0.2, 0.8]).view(1, 1, 1, 2), torch.tensor([0])
    far = 0.3 if norm == "linf" else 0.3 * 2**0.5
    attack = OnManifold(norm, steps=400, rate=0.01, kappa=0.0)
    assert isinstance(defence.surrogate(), OntoManifold)
    for epsilon in (0.5 * far, 1.2 * far):
        found = attack(defence.surrogate(), x, y, epsilon=epsilon, generator=draw())
        missing = 2**0.5 * 0.3 * max(0.0, 1 - epsilon / far)  # from the edge of the ball to (0.5, 0.5)
        assert int(found.prediction) == 1  # G(z) itself
        assert float(-found.objective) == pytest.approx(missing, abs=0.02)
        assert float(found.length) <= epsilon
        judged = Adaptive(attack)(defence, x, y, epsilon=epsilon, generator=draw())
        assert int(judged.prediction) == int(epsilon > far)


def test_it_finds_nothing_where_the_generator_makes_one_class_only() -> None:
    class Left(Plane):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(-z.abs() - 0.1)

    defence = DefenseGAN(first_pixel, generator=Left(), **SIMPLE)
    x, y = torch.tensor([0.2, 0.8]).view(1, 1, 1, 2), torch.tensor([0])
    found = Adaptive(OnManifold(steps=50))(defence, x, y, epsilon=0.5, generator=draw())
    assert int(found.prediction) == 0
    assert float(found.objective) < -1  # the margin at (0.4, 0.6) is -2


def test_with_a_generator_of_all_images_it_is_an_attack_on_the_net(net: models.Network, digits: Digits) -> None:
    """Every image within the budget is on the manifold then: the nearest are found, and the defence errs."""
    x, y = digits.test[:60], digits.labels[:60]
    defence = DefenseGAN(net, generator=linear_generator(64), steps=100, restarts=1)
    found = Adaptive(OnManifold(steps=150))(defence, x, y, epsilon=0.2, generator=draw())
    plain = PGD("linf", "margin", steps=20, relative_step_size=0.2)(net, x, y, epsilon=0.2, generator=draw())
    share = float((plain.prediction != y).double().mean())
    assert float((found.prediction != y).double().mean()) > 0.9 * share
    assert (found.length <= 0.2).all()


def test_restarts_count_and_reach_no_farther(net: models.Network, digits: Digits) -> None:
    x, y = digits.test[:20], digits.labels[:20]
    surrogate = DefenseGAN(net, generator=linear_generator(), **SIMPLE).surrogate()
    found = OnManifold(steps=20, restarts=3)(surrogate, x, y, epsilon=0.1, generator=draw())
    assert found.restart_objective.shape == (3, 20)
    assert len(found.restart_objective[:, 0].unique()) == 3
    assert (found.queries == 20).all()
    reached = found.prediction != y
    best = torch.where(reached, found.restart_objective, -torch.inf).amax(0)
    torch.testing.assert_close(found.objective[reached.any(0)], best[reached.any(0)])


def test_the_attack_is_on_a_defense_gan_alone(net: models.Network, digits: Digits) -> None:
    with pytest.raises(TypeError, match="model is of the wrong type Network: allowed is the surrogate of a DefenseGAN"):
        OnManifold(steps=1)(net, digits.test[:2], digits.labels[:2], epsilon=0.1, generator=draw())
    with pytest.raises(ValueError, match="objective = cross_entropy is not allowed: margin or targeted_margin is"):
        OnManifold(objective="cross_entropy")
    wrong: dict[str, Any] = {"steps": 0, "rate": 0.0, "weight": 0.0, "kappa": -1.0, "spread": -1.0}
    for option, value in wrong.items():
        with pytest.raises(ValueError, match=f"{option} = {value} is out of range"):
            OnManifold(**{option: value})
