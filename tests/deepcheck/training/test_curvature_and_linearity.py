"""Regularisers of curvature and local linearity, held to closed forms of linear nets."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.training.methods import cure, llr
from deepcheck.training.methods.cure import CURE, direction
from deepcheck.training.methods.llr import LLR, least_linear
from deepcheck.training.second_order import losses_and_gradients, losses_of, slopes, uncompiled, violation
from tests.deepcheck.linear_nets import near

K, D = 4, 64


def linear() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(D, K))


def smooth() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(D, 20), nn.Softplus(), nn.Linear(20, K))


def batch(n: int = 7) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 8, 8, generator=source), torch.randint(K, (n,), generator=source)


def loss_of(method: Any, net: nn.Module, x: Tensor, y: Tensor, progress: float = 0.9) -> Tensor:
    loss: Tensor = method.loss(net, x, y, progress=progress, generator=torch.Generator().manual_seed(2))
    return loss.detach()


# --- curvature ---


@pytest.mark.parametrize("power", [1, 2])
def test_the_curvature_of_a_linear_net_is_that_of_the_softmax(power: int) -> None:
    """grad l = W^T (p - e_y), so that its change is W^T (p(x + h z) - p(x)), whatever the label is."""
    net, (x, y) = linear(), batch()
    gamma, h = 0.7, 3.0
    W, b = (tensor.detach().double() for tensor in net[1].parameters())
    flat = x.flatten(1).double()
    p = (flat @ W.T + b).softmax(1)
    z = ((p - F.one_hot(y, K)) @ W).sign() / D**0.5
    change = ((((flat + h * z) @ W.T + b).softmax(1) - p) @ W).norm(dim=1) ** power
    expected = F.cross_entropy(flat @ W.T + b, y) + gamma * change.mean()
    torch.testing.assert_close(direction(net, x, y).flatten(1).double(), z, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        loss_of(CURE(gamma=gamma, h=h, power=power), net, x, y).double(), expected, rtol=1e-5, atol=1e-6
    )
    assert float(change.mean()) > 1e-3


@pytest.mark.parametrize(
    "method", [CURE(gamma=5.0, h=2.0), CURE(gamma=5.0, h=2.0, power=2), LLR(epsilon=0.2, attack_steps=3, step_size=0.1)]
)
def test_the_gradient_by_the_weights_passes_through_that_by_the_images(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss changes along its gradient as the gradient says, to second order: a central difference.

    No gradient passes through the choice of the second point, which is held here.
    """
    net, (x, y) = smooth(), batch()
    drawn = method.drawn(x, progress=0.9, generator=torch.Generator().manual_seed(2))
    z = direction(net, x, y)
    moved = least_linear(net, x, y, *LLR(epsilon=0.2).drawn(x, progress=0.9, generator=torch.Generator()))
    monkeypatch.setattr(cure, "direction", lambda *_: z)
    monkeypatch.setattr(llr, "least_linear", lambda *_: moved)
    weights = list(net.parameters())
    gradient = torch.autograd.grad(method.loss_of(net, x, y, *drawn), weights)
    size = sum(float(one.square().sum()) for one in gradient)
    step = 0.01 / size**0.5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, one in zip(weights, gradient, strict=True):
                weight.add_(one, alpha=sign * step)
        values.append(float(method.loss_of(net, x, y, *drawn).detach()))
        with torch.no_grad():
            for weight, one in zip(weights, gradient, strict=True):
                weight.sub_(one, alpha=sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(size, rel=0.02)


def test_the_regulariser_of_curvature_has_its_limits() -> None:
    net, (x, y) = smooth(), batch()
    plain = F.cross_entropy(net(x), y).detach()
    torch.testing.assert_close(loss_of(CURE(gamma=0.0), net, x, y), plain)
    torch.testing.assert_close(loss_of(CURE(gamma=1.0, h=2.0, ramp=0.5), net, x, y, progress=0.0), plain)
    for power in (1, 2):
        by_h = [float(loss_of(CURE(gamma=10.0, h=h, power=power), net, x, y) - plain) for h in (0.2, 0.4)]
        assert by_h[1] / by_h[0] == pytest.approx(2.0**power, rel=0.1)  # |h H z|^power for small h
    assert [CURE(h=2.0, ramp=0.5).h_at(progress) for progress in (0.0, 0.25, 0.5, 0.9)] == [0.0, 1.0, 2.0, 2.0]


def test_the_direction_has_length_one_and_is_zero_where_the_loss_is_flat() -> None:
    net, (x, y) = smooth(), batch()
    torch.testing.assert_close(direction(net, x, y).flatten(1).norm(dim=1), torch.ones(7))
    with torch.no_grad():
        list(net.parameters())[2].zero_()
    assert not direction(net, x, y).any()
    assert bool(loss_of(CURE(), net, x, y).isfinite())


# --- local linearity ---


def test_a_linear_loss_of_a_linear_net_violates_nothing() -> None:
    net, (x, _) = linear(), batch()
    W, b = net[1].parameters()

    def losses(z: Tensor) -> Tensor:
        return (z.flatten(1) @ W.T + b)[:, 1] - 2 * (z.flatten(1) @ W.T + b)[:, 3]

    g = violation(losses, x, *losses_and_gradients(losses, x))
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(g(far), torch.zeros(7), rtol=0, atol=1e-5)
    curved = losses_of(net, torch.zeros(7, dtype=torch.int64))
    assert float(violation(curved, x, *slopes(curved, x))(far).detach().min()) > 1e-5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_logistic_loss_of_a_linear_net_is_least_linear_at_an_edge(norm: Any) -> None:
    """With the margin m and the reach r = epsilon |w|_*, g = l(m -+ r) - l(m) +- l'(m) r: ascent finds one of the two."""
    net, x, y = near(20, edges=False, width=0.05)
    epsilon = 0.05
    method = LLR(norm=norm, epsilon=epsilon, attack_steps=8, step_size=0.03, violation_weight=1.7, slope_weight=0.6)
    m = (net(x).diff(dim=1).squeeze(1) * (2 * y - 1)).detach()
    r = epsilon * float(net.w.detach().norm(p=1.0 if norm == "linf" else 2.0))
    losses = losses_of(net, y)
    moved = least_linear(net, x, y, *method.drawn(x, progress=0.9, generator=torch.Generator().manual_seed(2)))
    end = net(moved).diff(dim=1).squeeze(1).detach() * (2 * y - 1)
    torch.testing.assert_close((end - m).abs(), torch.full_like(m, r), rtol=1e-3, atol=1e-5)
    g = F.softplus(-end) - F.softplus(-m) + torch.sigmoid(-m) * (end - m)
    found = violation(losses, x, *slopes(losses, x))(moved)
    torch.testing.assert_close(found.detach().double(), g, rtol=1e-3, atol=1e-5)
    expected = (F.softplus(-m) + 1.7 * g + 0.6 * torch.sigmoid(-m) * r).mean()
    torch.testing.assert_close(loss_of(method, net, x, y).double(), expected, rtol=1e-3, atol=1e-5)


def test_the_regulariser_of_linearity_has_its_limits() -> None:
    net, (x, y) = smooth(), batch()
    plain = F.cross_entropy(net(x), y).detach()
    options: dict[str, Any] = {"attack_steps": 2, "step_size": 0.1}
    without = LLR(violation_weight=0.0, slope_weight=0.0, epsilon=0.2, **options)
    torch.testing.assert_close(loss_of(without, net, x, y), plain)
    torch.testing.assert_close(loss_of(LLR(epsilon=0.0, **options), net, x, y), plain)
    torch.testing.assert_close(loss_of(LLR(epsilon=0.2, ramp=0.5, **options), net, x, y, progress=0.0), plain)
    found = float(loss_of(LLR(epsilon=0.2, **options), net, x, y))
    source = torch.Generator().manual_seed(2)
    moved = least_linear(net, x, y, *LLR(epsilon=0.2, **options).drawn(x, progress=0.9, generator=source))
    losses = losses_of(net, y)
    loss, gradient = slopes(losses, x)
    slope = ((moved - x) * gradient).flatten(1).sum(1)
    by_hand = loss + 4 * (losses(moved) - loss - slope).abs() + 3 * slope.abs()
    assert found == pytest.approx(float(by_hand.detach().mean()), rel=1e-5)


def test_a_compiled_net_is_taken_as_it_was() -> None:
    net = smooth()
    compiled = torch.compile(net, backend="eager")
    assert uncompiled(compiled) is net
    assert uncompiled(net) is net
    function = net.forward
    assert uncompiled(function) is function


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (CURE, {"gamma": -1.0}, "gamma = -1"),
        (CURE, {"h": 0.0}, "h = 0"),
        (CURE, {"power": 3}, "power = 3"),
        (CURE, {"ramp": 2.0}, "ramp = 2"),
        (LLR, {"violation_weight": -1.0}, "violation_weight = -1"),
        (LLR, {"slope_weight": -0.5}, "slope_weight = -0.5"),
        (LLR, {"ramp": -0.1}, "ramp = -0.1"),
        (LLR, {"attack_steps": 0}, "attack_steps = 0"),
    ],
)
def test_what_is_out_of_range_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)
