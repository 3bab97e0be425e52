"""TRADES, logit pairing, interpolated and vertex mixup against their formulas, on linear models and small nets."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.draws import Draws, keys, mixed
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.starts import Nearby, UniformBall
from deepcheck.training import METHODS, Method, recipe
from deepcheck.training.methods.alp import LogitPairing
from deepcheck.training.methods.base import RampedMethod
from deepcheck.training.methods.interpolated_at import InterpolatedAT, mixing, mixup_loss
from deepcheck.training.methods.standard import Standard
from deepcheck.training.methods.trades import Trades, divergence
from deepcheck.training.methods.vertex_mixup import VertexMixup, smoothed
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.test_methods import EPSILON, Recording, attacking, generator, pictures

pytestmark = on_every_device

ATTACK: dict[str, Any] = {"epsilon": EPSILON, "attack_steps": 3, "step_size": 0.05}


def surrogates() -> list[RampedMethod]:
    return [
        Trades(**ATTACK),
        Trades(**ATTACK, ascent="ball"),
        Trades(**ATTACK, ascent="cross_entropy"),
        LogitPairing(**ATTACK),
        InterpolatedAT(**ATTACK),
        VertexMixup(**ATTACK),
    ]


def named(method: Method) -> str:
    return method.name + getattr(method, "ascent", "")


def loss_of(method: Method, model: Recording, images: Tensor, labels: Tensor, progress: float = 0.5) -> Tensor:
    return method.loss(model.train(), images, labels, progress=progress, generator=generator(1), state=None).double()


def key_of(n: int) -> Tensor:
    """The keys that the method draws from that generator."""
    return keys(generator(1), torch.arange(n))


def log_p(model: Recording, x: Tensor) -> Tensor:
    return (x.flatten(1) @ model.W.T + model.b).log_softmax(1)


def nll(log_p: Tensor, labels: Tensor) -> Tensor:
    return -log_p[torch.arange(len(labels)), labels].mean()


every = pytest.mark.parametrize("method", surrogates(), ids=named)


# --- what they have in common ---


@every
def test_one_call_in_train_mode_whose_statistics_alone_count(method: RampedMethod) -> None:
    images, labels = pictures(10)
    model = Recording(batch_norm=True)
    loss_of(method, model, images, labels)
    (joint,) = model.trained
    assert len(joint) == (10 if isinstance(method, VertexMixup) else 20)
    assert model.norm.num_batches_tracked == 1
    torch.testing.assert_close(model.norm.running_mean, 0.1 * joint.mean((0, 2, 3)))
    looks = int(isinstance(method, Trades) and method.ascent != "cross_entropy")  # at p(x), once
    assert [len(x) for x in model.evaluated] == [10] * (method.attack_steps + looks)


@every
def test_gradients_by_finite_differences(method: RampedMethod) -> None:
    """Of the loss with the attacked images held: it goes through everything that the net says."""
    images, labels = pictures(6)
    model = Recording()
    attacking(method := replace(method), Held(images, labels))
    loss = loss_of(method, model, images, labels)
    (g,) = torch.autograd.grad(loss, model.b)
    h = 1e-3  # the loss is in single precision: its rounding over h, and h^2, are below the tolerance
    for k in range(4):
        values = []
        for sign in (1, -1):
            moved = Recording()
            moved.b.data[k] += sign * h
            values.append(loss_of(method, moved, images, labels).item())
        assert g[k].item() == pytest.approx((values[0] - values[1]) / (2 * h), abs=2e-3)


class Held:
    """An attack that gives fixed images."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        del labels
        self.objective = PGD(steps=1, step_size=1.0).objective
        self.images = (images + 0.3 * torch.randn(images.shape, generator=generator(3), dtype=images.dtype)).clamp(0, 1)

    def perturb_with(self, *_: Any, **__: Any) -> Tensor:
        return self.images


@every
@pytest.mark.parametrize(("progress", "radius"), [(0.0, 0.0), (0.1, 0.25 * EPSILON), (0.9, EPSILON)])
def test_the_radius_grows(method: RampedMethod, progress: float, radius: float) -> None:
    images, labels = pictures(10)
    seen: list[float] = []

    class Watched(Held):
        def perturb_with(self, *given: Any, **more: Any) -> Tensor:
            del more
            _, x, _, epsilon, *_ = given
            seen.append(epsilon)
            assert isinstance(x, Tensor)
            return x

    method = replace(method, ramp=0.4)
    loss_of(attacking(method, Watched(images, labels)), Recording(), images, labels, progress)
    assert seen == pytest.approx([radius])


# --- TRADES ---


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("ascent", ["published", "ball", "cross_entropy"])
def test_loss_of_trades(beta: float, ascent: Any) -> None:
    images, labels = pictures(10)
    model = Recording()
    loss = loss_of(Trades(**ATTACK, beta=beta, ascent=ascent), model, images, labels)
    (joint,) = model.trained
    assert torch.equal(joint[:10], images)
    log_q, log_p_attacked = log_p(model, images), log_p(model, joint[10:])
    expected = nll(log_q, labels)
    for q, p in zip(log_q, log_p_attacked, strict=True):
        expected = expected + beta * sum(a.exp() * (a - b) for a, b in zip(q, p, strict=True)) / 10
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_trades_without_divergence_is_standard() -> None:
    images, labels = pictures(10)
    plain = loss_of(Standard(), Recording(), images, labels)
    torch.testing.assert_close(loss_of(Trades(**ATTACK, beta=0.0), Recording(), images, labels), plain)
    no_ball = replace(Trades(**ATTACK), epsilon=0.0)
    torch.testing.assert_close(loss_of(no_ball, Recording(), images, labels), plain)


def test_divergence_of_two_classes_in_closed_form() -> None:
    """Between logits (0, a) and (0, b): s(a) (a - b) + log(1 + e^b) - log(1 + e^a); 0 for equal ones, never below."""
    a, b = torch.randn(2, 50, generator=generator(), dtype=torch.float64)
    zero = torch.zeros_like(a)
    expected = a.sigmoid() * (a - b) + F.softplus(b) - F.softplus(a)
    z, other = torch.stack([zero, a], 1), torch.stack([zero, b], 1)
    assert float(divergence(z, other)) == pytest.approx(float(expected.mean()), rel=1e-12)
    assert float(divergence(z, z)) == 0
    assert all(float(divergence(z[[k]], other[[k]])) > 0 for k in range(50))


def test_the_attack_of_trades_is_the_published_one() -> None:
    attack = Trades(attack_steps=7, step_size=0.03, norm="l2").attack
    assert attack == PGD(
        "l2", "divergence", steps=7, step_size=0.03, start=Nearby(0.001), keep="last", stop_when_reached=False
    )
    assert Trades(ascent="ball").attack == replace(Trades().attack, start=UniformBall())
    assert Trades(ascent="cross_entropy").attack == METHODS["at"]().attack  # type: ignore[attr-defined]
    few = Trades(first_steps=1, attack_steps=8).attack_at(0.0)
    assert (few.steps, few.start, few.objective) == (1, Nearby(0.001), attack.objective)


def test_the_attack_of_trades_finds_divergence() -> None:
    """More than its start and random points have, in a net that is not linear; and what is found lies at the edge."""
    net = models.build("conv_small", 10, (1, 8, 8), generator=generator(2)).eval().requires_grad_(False)
    x = torch.rand(60, 1, 8, 8, generator=generator(3))
    y = net(x).argmax(1)
    q = net(x).log_softmax(1)

    def found(z: Tensor) -> Tensor:
        return (q.exp() * (q - net(z).log_softmax(1))).sum(1)

    method = Trades(epsilon=EPSILON, attack_steps=10, step_size=0.03)
    z = method.attacked(net, x, y, key_of(60), method.attack, EPSILON, q)
    random = [x + EPSILON * (2 * torch.rand(x.shape, generator=generator(k)) - 1) for k in range(10)]
    most = torch.stack([found(one.clamp(0, 1)) for one in random]).amax(0)
    assert bool((found(z) > most).all())
    start = (x + Draws.of(generator(), x).normal(x) * 0.001).clamp(0, 1)
    assert bool((found(z) > 10 * found(start)).all())
    assert bool(((z - x).abs().flatten(1).amax(1) > 0.9 * EPSILON).all())


@pytest.mark.parametrize("keep", ["best", "last"])
def test_divergence_in_an_attack_is_that_from_each_image_itself(keep: Any) -> None:
    """Whatever the batches are, and in each restart: the reference goes with its example."""
    net = models.build("conv_small", 10, (1, 8, 8), generator=generator(2)).eval().double()
    x, y = torch.rand(23, 1, 8, 8, generator=generator(3), dtype=torch.float64), torch.arange(23) % 10
    attack = PGD("linf", "divergence", steps=4, relative_step_size=0.4, restarts=2, keep=keep, stop_when_reached=False)
    whole = attack(net, x, y, epsilon=EPSILON, generator=generator())
    parts = attack(net, x, y, epsilon=EPSILON, generator=generator(), batch_size=5)
    torch.testing.assert_close(parts.objective, whole.objective, rtol=1e-8, atol=1e-13)
    with torch.no_grad():
        q, p = net(x).log_softmax(1), net(whole.images).log_softmax(1)
    torch.testing.assert_close(whole.objective, (q.exp() * (q - p)).sum(1), rtol=1e-8, atol=1e-13)
    assert torch.equal(whole.objective, whole.restart_objective.amax(0))
    with pytest.raises(ValueError, match="targets"):
        attack(net, x, y, epsilon=EPSILON, generator=generator(), targets=y)


def test_in_bfloat16_the_attack_of_trades_leaves_its_start() -> None:
    """0.001 is less than a digit of a pixel there: where the net says the same of both points there is no slope."""
    net = models.build("conv_small", 10, (1, 8, 8), generator=generator(2)).eval().requires_grad_(False)
    x = torch.rand(60, 1, 8, 8, generator=generator(3))
    method = Trades(epsilon=EPSILON, attack_steps=3, step_size=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        p = net(x).float().log_softmax(1)
        z = method.attacked(net, x, net(x).argmax(1), key_of(60), method.attack, EPSILON, p)
    moved = ((z - x).abs().flatten(1).amax(1) > 0.02).double().mean()
    assert moved > 0.9


# --- logit pairing ---


@pytest.mark.parametrize("pairing", [0.0, 0.5, 2.0])
def test_loss_of_logit_pairing(pairing: float) -> None:
    images, labels = pictures(10)
    model = Recording()
    loss = loss_of(LogitPairing(**ATTACK, pairing=pairing), model, images, labels)
    (joint,) = model.trained
    assert torch.equal(joint[:10], images)
    z = joint.flatten(1) @ model.W.T + model.b
    expected = (nll(z[:10].log_softmax(1), labels) + nll(z[10:].log_softmax(1), labels)) / 2
    for clean, attacked in zip(z[:10], z[10:], strict=True):
        expected = expected + pairing * (clean - attacked) @ (clean - attacked) / 10
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_logit_pairing_has_the_attack_of_at() -> None:
    assert LogitPairing(**ATTACK).attack == METHODS["at"](**ATTACK).attack  # type: ignore[attr-defined]
    images, labels = pictures(10)
    model, other = Recording(), Recording()
    loss_of(LogitPairing(**ATTACK), model, images, labels)
    loss_of(METHODS["at"](**ATTACK), other, images, labels)
    assert torch.equal(model.trained[0][10:], other.trained[0])


# --- interpolated adversarial training ---


def test_loss_of_interpolated_training() -> None:
    """Each image of the two halves is w of itself and 1 - w of its partner, and so is its loss."""
    images, labels = pictures(10)
    model, plain = Recording(), Recording()
    loss = loss_of(InterpolatedAT(**ATTACK), model, images, labels)
    loss_of(METHODS["at"](**ATTACK), plain, images, labels)
    (joint,), (attacked,) = model.trained, plain.trained
    draws = Draws(mixed(key_of(10), 1))
    expected = torch.zeros((), dtype=torch.float64)
    for x, part in ((images, joint[:10]), (attacked, joint[10:])):
        w, partner = mixing(images, draws)
        for i, j in enumerate(partner.tolist()):
            torch.testing.assert_close(part[i], w * x[i] + (1 - w) * x[j])
            one = log_p(model, part[i][None])[0]
            expected = expected - (w * one[labels[i]] + (1 - w) * one[labels[j]]) / 20
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_mixing_is_uniform_with_partners_that_are_permutations() -> None:
    """Beta(1, 1) is the uniform law: mean 1/2 and variance 1/12, within 4 standard errors of 2,000 weights."""
    images = torch.rand(7, 1, 2, 2, generator=generator())
    source, weights, first = generator(), [], set()
    for _ in range(2000):
        w, partner = mixing(images, Draws(keys(source, torch.arange(7))))
        assert w.shape == ()
        assert partner.sort().values.tolist() == list(range(7))
        weights.append(float(w))
        first.add(int(partner[0]))
    found = torch.tensor(weights, dtype=torch.float64)
    assert float(found.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 2000))
    assert float(found.var()) == pytest.approx(
        1 / 12, abs=4 * math.sqrt(1 / 180 / 2000)
    )  # its variance is 1/180 over n
    assert first == set(range(7))


def test_interpolation_has_weights_and_permutations_of_its_own_for_both_halves() -> None:
    draws = Draws(mixed(key_of(10), 1))
    (w, partner), (other_w, other_partner) = (mixing(torch.rand(10, 2), draws) for _ in range(2))
    assert w != other_w
    assert not torch.equal(partner, other_partner)


def test_with_weight_1_interpolation_is_the_mean_of_both_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepcheck.training.methods import interpolated_at

    monkeypatch.setattr(
        interpolated_at, "mixing", lambda x, _: (torch.ones((), dtype=x.dtype), torch.arange(10).flip(0))
    )
    images, labels = pictures(10)
    both = loss_of(InterpolatedAT(**ATTACK), Recording(), images, labels)
    clean = loss_of(Standard(), Recording(), images, labels)
    attacked = loss_of(METHODS["at"](**ATTACK), Recording(), images, labels)
    torch.testing.assert_close(both, (clean + attacked) / 2)


def test_mixup_loss_is_the_cross_entropy_of_the_mixed_label() -> None:
    z = torch.randn(8, 4, generator=generator(), dtype=torch.float64)
    y = torch.randint(4, (8,), generator=generator(1))
    partner, w = torch.randperm(8, generator=generator(2)), torch.tensor(0.3, dtype=torch.float64)
    target = w * F.one_hot(y, 4) + (1 - w) * F.one_hot(y[partner], 4)
    torch.testing.assert_close(mixup_loss(z, y, w, partner), F.cross_entropy(z, target))


# --- vertex mixup ---


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_loss_of_vertex_mixup(gamma: float) -> None:
    images, labels = pictures(10)
    model, plain = Recording(), Recording()
    loss = loss_of(VertexMixup(**ATTACK, gamma=gamma), model, images, labels)
    loss_of(METHODS["at"](**ATTACK), plain, images, labels)
    (joint,), (attacked,) = model.trained, plain.trained
    w = Draws(mixed(key_of(10), 1)).uniform(images)
    assert len(set(w.tolist())) == 10
    expected = torch.zeros((), dtype=torch.float64)
    for i, (x, x_attacked) in enumerate(zip(images, attacked, strict=True)):
        vertex = x + gamma * (x_attacked - x)
        torch.testing.assert_close(joint[i], w[i] * x + (1 - w[i]) * vertex)
        one = log_p(model, joint[i][None])[0]
        for k in range(4):
            at_image, at_vertex = (1.0, 0.1) if k == int(labels[i]) else (0.0, 0.9 / 3)
            expected = expected - (w[i] * at_image + (1 - w[i]) * at_vertex) * one[k] / 10
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    # the vertex is out of the box where the attacked image is at its edge
    assert bool(((joint < 0) | (joint > 1)).any()) == (gamma > 1)


def test_vertex_mixup_without_distance_or_smoothing_is_standard() -> None:
    images, labels = pictures(10)
    plain = loss_of(Standard(), Recording(), images, labels)
    method = VertexMixup(**ATTACK, gamma=0.0, label_at_vertex=1.0)
    torch.testing.assert_close(loss_of(method, Recording(), images, labels), plain)
    no_ball = replace(method, gamma=2.0, epsilon=0.0)
    torch.testing.assert_close(loss_of(no_ball, Recording(), images, labels), plain)


def test_smoothed_targets() -> None:
    targets = smoothed(torch.tensor([2, 0]), torch.tensor([0.7, 0.25], dtype=torch.float64), 4)
    expected = torch.tensor([[0.1, 0.1, 0.7, 0.1], [0.25] * 4], dtype=torch.float64)
    torch.testing.assert_close(targets, expected)
    some = smoothed(torch.arange(50) % 10, torch.rand(50, generator=generator(), dtype=torch.float64), 10)
    torch.testing.assert_close(some.sum(1), torch.ones(50, dtype=torch.float64))


# --- fields ---


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("trades", {"beta": -1.0}, "beta = -1.0 is out of range: allowed is a finite number and >= 0"),
        ("trades", {"ascent": "bal"}, "ascent = 'bal' is unknown (did you mean 'ball'?)"),
        ("trades", {"ramp": 1.1}, "ramp = 1.1 is out of range"),
        ("trades", {"norm": "l1"}, "norm = 'l1' is unknown"),
        ("alp", {"pairing": -0.1}, "pairing = -0.1 is out of range: allowed is a finite number and >= 0"),
        ("alp", {"epsilon_schedule": (0.1,)}, "epsilon_schedule = (0.1,) is not allowed: two values"),
        ("interpolated_at", {"step_size": 0.0}, "step_size = 0.0 is out of range"),
        ("vertex_mixup", {"gamma": -1.0}, "gamma = -1.0 is out of range: allowed is a finite number and >= 0"),
        ("vertex_mixup", {"label_at_image": 1.5}, "label_at_image = 1.5 is out of range"),
        ("vertex_mixup", {"label_at_vertex": -0.1}, "label_at_vertex = -0.1 is out of range"),
    ],
    ids=str,
)
def test_bad_fields(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        METHODS[name](**changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe("digits", name, **changes)


def test_published_recipes() -> None:
    one = recipe("cifar10", "trades").method
    assert isinstance(one, Trades)
    assert (one.epsilon, one.attack_steps, one.step_size, one.beta, one.ascent) == (0.031, 10, 0.007, 6.0, "published")
    assert LogitPairing().pairing == 0.5
    assert (VertexMixup().gamma, VertexMixup().label_at_image, VertexMixup().label_at_vertex) == (2.0, 1.0, 0.1)


@pytest.mark.parametrize("deviation", [0.0, -0.1, math.nan])
def test_a_start_nearby_has_a_deviation(deviation: float) -> None:
    with pytest.raises(ValueError, match=f"deviation = {deviation} is out of range"):
        Nearby(deviation)


def test_a_start_nearby_does_not_grow_with_the_ball() -> None:
    like = torch.zeros(50, 400, dtype=torch.float64)
    near, far = (Nearby(0.02)(as_norm("linf"), like, epsilon, generator()) for epsilon in (0.1, 0.3))
    assert torch.equal(near, far)
    assert float(near.std()) == pytest.approx(0.02, rel=4 / math.sqrt(2 * near.numel()))  # its standard error, 4 times
    assert float(near.mean()) == pytest.approx(0, abs=4 * 0.02 / math.sqrt(near.numel()))
