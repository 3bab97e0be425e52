"""Embeddings by confident neighbours: linear nets, where all is known, and small nets against a grid."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import entropy
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks.norms import NORMS
from deepcheck.defences import HCNN, MCN, NCN, MCNRenyi, MCNShannon
from deepcheck.defences.neighbours import Embedding, base
from deepcheck.defences.neighbours.goals import RenyiEntropy, ShannonEntropy, log_odds
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net

pytestmark = on_every_device
EVERYWHERE = (-math.inf, math.inf)
XI = 0.3
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
every = pytest.mark.parametrize("kind", [MCN, HCNN, NCN, MCNShannon, MCNRenyi])
WEIGHTS = (0.9, -0.4, 0.2, 1.1, -0.7)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def net() -> models.Network:
    return trained_net()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights() -> Tensor:
    return torch.tensor(WEIGHTS, dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    """Two classes with log-odds of +-<w, x>."""
    z = x.flatten(1) @ weights().to(x)
    return torch.stack([z, -z], 1) / 2


def vectors(count: int = 20, size: int = 5) -> Tensor:
    return torch.randn(count, size, generator=draw(), dtype=torch.float64)


def dual(norm: str) -> float:
    w = weights()[None]
    return float(NORMS[str(NORMS[norm].dual)].length(w))


class Smooth(nn.Module):
    """A net of two layers and three classes."""

    def __init__(self, inputs: int = 2, scale: float = 0.7) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 12).double(), nn.Linear(12, 3).double()
        for number, layer in enumerate((self.first, self.second)):
            for part, deviation in ((layer.weight, 1.0), (layer.bias, 0.5)):
                value = torch.randn(part.shape, generator=draw(number), dtype=torch.float64)
                part.data = (scale * deviation * value).to(part)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(torch.tanh(self.first(x.flatten(1))))
        return logits


# linear nets


@norms
def test_of_a_linear_net_it_moves_by_xi_and_the_answer_stays(norm: str) -> None:
    x = vectors()
    a = x @ weights()
    defence = MCN(linear, xi=XI, norm=norm, bounds=EVERYWHERE)
    found = defence.neighbours(x)
    for label, sign in ((0, 1.0), (1, -1.0)):
        torch.testing.assert_close(found.confidence[label], (sign * a + XI * dual(norm)).sigmoid())
        torch.testing.assert_close(found.distance[label], torch.full_like(a, XI))
    moved = defence(x).softmax(1).amax(1)
    torch.testing.assert_close(moved, (a.abs() + XI * dual(norm)).sigmoid())
    assert torch.equal(defence(x).argmax(1), linear(x).argmax(1))


@norms
def test_the_surrogate_of_a_linear_net_has_its_gradient(norm: str) -> None:
    x = vectors().requires_grad_()
    defence = MCN(linear, xi=XI, norm=norm, bounds=EVERYWHERE)
    v = defence.surrogate()(x)
    a = x.detach() @ weights()
    torch.testing.assert_close(v.detach(), torch.stack([a, -a], 1) + XI * dual(norm))
    (gradient,) = torch.autograd.grad((v[:, 0] - v[:, 1]).sum(), x)
    torch.testing.assert_close(gradient, 2 * weights().expand_as(x))


@norms
def test_the_nearest_confident_point_of_a_linear_net(norm: str) -> None:
    """(t - |x|) / |w|_* away, with t the log-odds of the level, to a thousandth of xi; else the most confident point."""
    x, level = vectors(), 0.8
    t = math.log(level / (1 - level))
    for xi in (5.0, 0.5):
        defence = NCN(linear, xi=xi, norm=norm, level=level, bounds=EVERYWHERE)
        found, v = defence.neighbours(x), defence.surrogate()(x)
        for label, sign in ((0, 1.0), (1, -1.0)):
            a = sign * (x @ weights())
            needed = (t - a).clamp_min(0) / dual(norm)
            within = needed <= xi
            assert within.any()
            torch.testing.assert_close(found.distance[label], needed.clamp_max(xi), rtol=0, atol=xi / 1000)
            assert (found.confidence[label][within] >= level).all()
            assert (found.distance[label] >= needed * (1 - 1e-9))[within].all()
            torch.testing.assert_close(found.confidence[label][~within], (a + xi * dual(norm)).sigmoid()[~within])
            expected = torch.where(within, -needed / xi, -1 + a + xi * dual(norm) - t)
            expected = torch.where(needed == 0, a - t, expected)
            torch.testing.assert_close(v[:, label], expected, rtol=0, atol=1e-3)
        assert torch.equal(defence(x).argmax(1), linear(x).argmax(1))
        sure = linear(x).softmax(1).amax(1) >= level
        assert torch.equal(defence.embedded(x)[sure], x[sure])


@norms
def test_the_surrogate_of_the_nearest_point_has_the_gradient_of_the_distance(norm: str) -> None:
    x, level = vectors().requires_grad_(), 0.9
    t = math.log(level / (1 - level))
    v = NCN(linear, xi=10.0, norm=norm, level=level, bounds=EVERYWHERE).surrogate()(x)
    (gradient,) = torch.autograd.grad(v[:, 0].sum(), x)
    already = (x.detach() @ weights() >= t)[:, None]
    unit = weights().expand_as(x)
    torch.testing.assert_close(gradient, torch.where(already, unit, unit / (10.0 * dual(norm))))


@norms
def test_a_penalty_ends_where_it_is_the_slope_of_the_confidence(norm: str) -> None:
    """Of max over r of sigma(a + r |w|) - penalty r, by its stationary point and the ends."""
    a = torch.linspace(-3, 3, 13, dtype=torch.float64)
    x = a[:, None] * weights() / weights().square().sum()
    w, xi, penalty = dual(norm), 4.0, 0.1

    def value(start: float, r: float) -> float:
        return float(1 / (1 + np.exp(-start - r * w)) - penalty * r)

    def best(start: float) -> float:
        ends = [0.0, xi]

        def slope(r: float) -> float:
            p = value(start, r) + penalty * r
            return p * (1 - p) * w - penalty

        top = max(-start / w, 0.0)  # beyond it the confidence is concave
        if top < xi and slope(top) > 0 > slope(xi):
            ends.append(brentq(slope, top, xi))
        return max(ends, key=lambda r: value(start, r))

    found = HCNN(linear, xi=xi, norm=norm, penalty=penalty, bounds=EVERYWHERE).neighbours(x)
    for label, sign in ((0, 1.0), (1, -1.0)):
        expected = torch.tensor([best(float(sign * one)) for one in a], dtype=torch.float64)
        assert ((expected > 0) & (expected < xi)).sum() > 3
        reached = found.confidence[label] - penalty * found.distance[label]
        exact = torch.tensor([value(float(sign * o), float(r)) for o, r in zip(a, expected, strict=True)]).to(reached)
        torch.testing.assert_close(reached, exact, rtol=0, atol=2e-5)  # second order in the last steps, of xi / 1000
        torch.testing.assert_close(found.distance[label], expected, rtol=0, atol=0.02)


def test_between_no_penalty_and_a_large_one(net: models.Network, digits: Digits) -> None:
    x = digits.test[:12]
    most = MCN(net, steps=10)
    assert torch.equal(HCNN(net, steps=10, penalty=0).embedded(x), most.embedded(x))
    assert torch.equal(HCNN(net, steps=10, penalty=1e4).embedded(x), x)
    assert torch.equal(HCNN(net, steps=10, penalty=0).surrogate()(x), most.surrogate()(x))
    some = HCNN(net, steps=10, penalty=3.0).neighbours(x)
    assert (some.distance.amax(0) < 0.1).any()


# small nets against a grid


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_maxima_are_those_of_a_grid(norm: str) -> None:
    model, xi, n = Smooth(), 0.5, 201
    x = torch.rand(6, 2, generator=draw(3), dtype=torch.float64)
    side = torch.linspace(-xi, xi, n, dtype=torch.float64)
    delta = torch.cartesian_prod(side, side)
    delta = delta[NORMS[norm].length(delta) <= xi * (1 + 1e-12)]
    u = MCN(model, xi=xi, norm=norm, attack_steps=100).surrogate()(x)
    for row, point in enumerate(x):
        z = point + delta
        z = z[((z >= 0) & (z <= 1)).all(1)]
        logits = model(z)
        for label in range(3):
            odds = log_odds(logits, torch.full((len(z),), label))
            most = float(odds.max())
            top = z[odds.argmax()][None].clone().requires_grad_()
            (slope,) = torch.autograd.grad(log_odds(model(top), torch.tensor([label])).sum(), top)
            spacing = float(side[1] - side[0]) * float(slope.abs().sum())
            assert most - 1e-4 <= float(u[row, label]) <= most + 2 * spacing + 1e-4


def test_the_point_is_the_most_confident_of_a_grid() -> None:
    model, xi = Smooth(), 0.4
    x = torch.rand(8, 2, generator=draw(5), dtype=torch.float64)
    side = torch.linspace(-xi, xi, 201, dtype=torch.float64)
    delta = torch.cartesian_prod(side, side)
    defence = MCN(model, xi=xi, bounds=EVERYWHERE)
    on_grid = torch.stack([model(point + delta).softmax(1).amax(1).max() for point in x])
    here = defence(x).softmax(1).amax(1)
    assert (here >= on_grid - 1e-4).all()
    assert (defence.embedded(x) - x).abs().amax() <= xi


@pytest.mark.parametrize("bounds", [EVERYWHERE, (0.0, 1.0)], ids=["everywhere", "box"])
@pytest.mark.parametrize(("kind", "options"), [(MCN, {}), (HCNN, {"penalty": 0.2}), (NCN, {"level": 0.95})])
@norms
def test_its_gradient_is_that_of_differences(
    kind: type[Embedding], options: dict[str, Any], norm: str, bounds: tuple[float, float]
) -> None:
    """By Danskin's theorem; in a box entries at its edge do not move with the image."""
    model, h = Smooth(4), 1e-3
    x = 0.1 + 0.8 * torch.rand(6, 4, generator=draw(7), dtype=torch.float64)
    surrogate = kind(model, xi=0.3, norm=norm, attack_steps=400, bounds=bounds, **options).surrogate()
    y = x.clone().requires_grad_()
    v = surrogate(y)
    found = torch.stack([torch.autograd.grad(v[:, k].sum(), y, retain_graph=True)[0] for k in range(3)], 2)
    steps = h * torch.eye(4, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0]).to(x)[None, :, None]
    moved = surrogate((x[:, None, None] + steps).view(-1, 4)).view(6, 4, 2, 3)
    difference = (moved[:, :, 0] - moved[:, :, 1]) / (2 * h)
    error = (found - difference).abs()
    assert float(difference.abs().mean()) > 0.1
    assert float(error.median()) < 1e-3
    assert float((error > 0.02).double().mean()) < 0.06  # where the maximum jumps, or a pixel meets the edge within h


def test_the_entropies_are_scipys() -> None:
    logits = 3 * torch.randn(30, 7, generator=draw(), dtype=torch.float64)
    p = logits.softmax(1)
    shannon = torch.from_numpy(entropy(p.cpu().numpy(), axis=1)).to(logits)
    torch.testing.assert_close(-ShannonEntropy().rise(logits), shannon)
    for a in (0.5, 2.0, 10.0):
        renyi = a / (1 - a) * p.pow(a).sum(1).pow(1 / a).log()
        torch.testing.assert_close(-RenyiEntropy(a).rise(logits), renyi)
    torch.testing.assert_close(-RenyiEntropy(1 + 1e-5).rise(logits), shannon, rtol=1e-3, atol=0)
    torch.testing.assert_close(RenyiEntropy(1e4).rise(logits), p.amax(1).log(), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_entropy_forms_are_the_most_confident_point_where_the_image_has_its_label(
    net: models.Network, digits: Digits
) -> None:
    """Renyi's entropy of large order is -log max p: its search is that of the likeliest label."""
    x = digits.test[:40]
    most = MCN(net, xi=0.05, steps=30).neighbours(x)
    label = net(x).argmax(1)
    same = most.order[0] == label
    assert same.double().mean() > 0.9
    own = most.points[label, torch.arange(len(x))]
    large = MCNRenyi(net, xi=0.05, steps=30, order=1000.0).embedded(x)
    odds = [log_odds(net(z), label) for z in (x, own, large)]
    gained, reached = odds[1] - odds[0], odds[2] - odds[0]
    assert float((reached / gained).median()) > 0.99
    for form in (MCNShannon(net, xi=0.05, steps=30), MCNRenyi(net, xi=0.05, steps=30, order=2.0)):
        reached = log_odds(net(form.embedded(x)), label) - odds[0]
        assert float((reached / gained).median()) > 0.8


# neighbours of digits


@every
@norms
def test_points_are_in_ball_and_box_and_the_net_is_asked_there(
    kind: type[Embedding], norm: str, net: models.Network, digits: Digits
) -> None:
    x, xi = digits.test[:10], {"linf": 0.1, "l2": 0.7, "l1": 3.0}[norm]
    defence = kind(net, xi=xi, norm=norm, steps=8)
    z = defence.embedded(x)
    assert z.dtype == x.dtype
    assert bool(((z >= 0) & (z <= 1)).all())
    assert bool((NORMS[norm].length((z - x).double()) <= xi * (1 + 1e-6)).all())
    assert not torch.equal(z, x)
    torch.testing.assert_close(defence(x), net(z))
    assert torch.equal(kind(net, xi=0, norm=norm, steps=3).embedded(x), x)


def test_neighbours_say_what_the_net_says_of_them(net: models.Network, digits: Digits) -> None:
    x = digits.test[:9]
    for defence in (MCN(net, steps=8), HCNN(net, steps=8), NCN(net, steps=8)):
        found = defence.neighbours(x)
        assert found.points.shape == (10, *x.shape)
        assert found.confidence.shape == found.prediction.shape == found.distance.shape == found.score.shape == (10, 9)
        logits = net(found.points.flatten(0, 1)).view(10, 9, 10)
        torch.testing.assert_close(logits, found.logits, rtol=1e-4, atol=1e-4)
        p = logits.softmax(2)
        torch.testing.assert_close(torch.stack([p[k, :, k] for k in range(10)]), found.confidence)
        torch.testing.assert_close(found.distance, (found.points - x).abs().flatten(2).amax(2))
        assert torch.equal(found.order[0], defence(x).argmax(1))
        assert torch.equal(found.order.sort(0).values, torch.arange(10)[:, None].expand(10, 9))
        same = defence.surrogate()
        defence.attack_steps = defence.steps
        assert torch.equal(same(x).argmax(1), found.order[0])


def test_more_steps_find_no_less(net: models.Network, digits: Digits) -> None:
    x = digits.test[:30]
    few, many = (MCN(net, steps=steps).neighbours(x).score for steps in (2, 60))
    assert float((many - few).mean()) > 0
    assert float((many < few - 0.05).double().mean()) < 0.02


@every
def test_results_do_not_depend_on_batches(
    kind: type[Embedding], net: models.Network, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = digits.test[:20].double()
    wide = net.double()
    try:
        defence = kind(wide, steps=10, attack_steps=4)
        whole, values = defence.embedded(x), defence.surrogate()(x)
        parts = torch.cat([defence.embedded(part) for part in x.split(3)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)
        monkeypatch.setitem(base.AT_ONCE, x.device.type, 7)
        torch.testing.assert_close(defence.embedded(x), whole, rtol=0, atol=1e-9)
        torch.testing.assert_close(defence.surrogate()(x), values)
    finally:
        net.float()


def test_half_precision_and_inference_mode() -> None:
    x = torch.rand(6, 5, generator=draw())
    defence = MCN(linear, xi=0.125)
    for dtype in (torch.bfloat16, torch.float16):
        half = x.to(dtype)
        z = defence.embedded(half)
        assert z.dtype == dtype
        assert bool(((z.double() - half.double()).abs() <= 0.125).all())
        assert bool(((z >= 0) & (z <= 1)).all())
    with torch.inference_mode():
        inside = defence(torch.rand(6, 5, generator=draw()))
    torch.testing.assert_close(inside, defence(x))


# input


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MCN, {"xi": -0.1}, "xi = -0.1 is out of range"),
        (MCN, {"steps": 0}, "steps = 0 is out of range"),
        (MCN, {"attack_steps": 0}, "attack_steps = 0 is out of range"),
        (MCN, {"norm": "l0"}, "norm = l0 is not allowed: linf, l2 or l1 is"),
        (MCN, {"bounds": (1.0, 0.0)}, r"bounds = \(1.0, 0.0\) is not allowed"),
        (HCNN, {"penalty": -1.0}, "penalty = -1.0 is out of range"),
        (NCN, {"level": 0.0}, "level = 0.0 is out of range"),
        (NCN, {"level": 1.1}, "level = 1.1 is out of range"),
        (MCNRenyi, {"order": 0.0}, "order = 0.0 is out of range"),
        (MCNRenyi, {"order": 1}, "order = 1 is not allowed: that is Shannon's entropy"),
    ],
)
def test_options_out_of_range_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(linear, **options)


def test_what_the_net_cannot_be(net: models.Network, digits: Digits) -> None:
    x = digits.test[:4]
    with pytest.raises(ValueError, match=r"level = 0.1 is not allowed for 10 classes: a number in \(1/10, 1\] is"):
        NCN(net, level=0.1)(x)
    with pytest.raises(ValueError, match=r"logits of shape \(4, 1\) for 4 images: allowed is \(n, K\) with K >= 2"):
        MCN(lambda z: z.flatten(1).sum(1, keepdim=True))(x)
    with pytest.raises(ValueError, match="net returned outputs that sum to 1, as probabilities do"):
        MCN(lambda z: net(z).softmax(1))(x)
    with pytest.raises(ValueError, match=r"images have pixels in \[-1, .*\]: allowed is \[0.0, 1.0\]"):
        MCN(net)(x - 1)
    with pytest.raises(ValueError, match="model has no gradient by its images"):
        MCN(lambda z: net(z.round()).detach())(x)
