"""Adversarial training at a random radius, and on misclassified examples alone: what theory and nets share."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.draws import keys
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import Gaussian, OneOf, Tiles, UniformBall, UniformLength
from deepcheck.data import Images
from deepcheck.training import Recipe, recipe, train
from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.non_robust_at import NonRobustAT
from deepcheck.training.methods.random_at import RandomAT, drawn_factors
from odeflow import Adversary
from odeflow.laws import Discrete, Uniform
from tests.deepcheck.linear_nets import near
from tests.deepcheck.training.cases import same, weights


def key(n: int, seed: int = 0) -> Tensor:
    return keys(torch.Generator().manual_seed(seed), torch.arange(n))


def factors_of(method: RandomAT, n: int, seed: int = 0) -> Tensor:
    return drawn_factors(key(n, seed), *method._table(torch.device("cpu")))


# --- the law ---


@pytest.mark.parametrize(
    ("name", "given", "law"),
    [
        ("uniform", (0.0, 1.0), stats.uniform(0, 1)),
        ("uniform", (0.5, 2.0), stats.uniform(0.5, 1.5)),
        ("expon", (0.0, 0.5), stats.expon(0, 0.5)),
        ("gamma", (4.0, 0.0, 0.25), stats.gamma(4, 0, 0.25)),
    ],
)
def test_the_factors_have_the_law(name: str, given: tuple[float, ...], law: Any) -> None:
    method = RandomAT(radius_law=name, law_parameters=given)
    drawn = factors_of(method, 20_000).numpy()
    assert stats.kstest(drawn, law.cdf).pvalue > 1e-3
    values, shares = method.law.nodes()  # what the theory averages with
    for power in (1, 2):
        error = np.std(drawn**power) / np.sqrt(len(drawn))
        assert abs(np.mean(drawn**power) - shares @ values**power) < 5 * error


def test_discrete_factors_come_as_often_as_they_should() -> None:
    drawn = factors_of(RandomAT(radius_law="discrete", law_parameters=(0.0, 0.5, 2.0, 0.2, 0.3, 0.5)), 20_000)
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [0.0, 0.5, 2.0]
    assert stats.chisquare(counts.numpy(), [4000, 6000, 10_000]).pvalue > 1e-3


def test_a_factor_depends_on_its_key_alone() -> None:
    method, all_keys = RandomAT(), key(40)
    table = method._table(torch.device("cpu"))
    whole = drawn_factors(all_keys, *table)
    assert torch.equal(drawn_factors(all_keys[7:19], *table), whole[7:19])
    assert len(whole.unique()) == 40
    assert not torch.equal(drawn_factors(key(40, seed=1), *table), whole)


def test_the_theory_takes_the_same_law() -> None:
    assert Adversary(epsilon=0.5, law=RandomAT().law).law == Uniform(0.0, 1.0)
    assert RandomAT(radius_law="discrete", law_parameters=(1.0, 1.0)).law == Discrete()
    one = recipe("digits", "random_at", radius_law="gamma", law_parameters=[4.0, 0.0, 0.25])
    again = Recipe.from_json(json.loads(json.dumps(asdict(one))))
    assert again == one
    assert again.method.law == one.method.law  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius_law": "uniform", "law_parameters": (1.0, 0.5)}, "allowed is 0 <= low < high"),
        (
            {"radius_law": "uniform", "law_parameters": (1.0,)},
            r"law_parameters = \(1.0,\) is not allowed .* two numbers",
        ),
        ({"radius_law": "discrete", "law_parameters": (1.0, 2.0, 0.5)}, "factors, and as many probabilities"),
        ({"radius_law": "discrete", "law_parameters": ()}, "factors, and as many probabilities"),
        ({"radius_law": "discrete", "law_parameters": (1.0, 0.4)}, "probabilities = "),
        ({"radius_law": "gama", "law_parameters": (4.0,)}, "radius_law = 'gama' is unknown"),
        ({"radius_law": "norm", "law_parameters": ()}, "allowed is a support in"),
        ({"radius_law": "poisson", "law_parameters": (1.0,)}, "radius_law = 'poisson' is unknown"),
        (
            {"radius_law": "gamma", "law_parameters": ()},
            r"law_parameters = \(\) is not allowed with radius_law = gamma",
        ),
        ({"law_parameters": (float("nan"), 1.0)}, "law_parameters = nan"),
    ],
)
def test_what_is_no_law_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        RandomAT(**options)
    assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="radius_law = 3 is of the wrong type"):
        RandomAT(radius_law=3)  # type: ignore[arg-type]


# --- radii by example ---


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(
    "start", [UniformBall(), Gaussian(), UniformLength(), Tiles(), OneOf((Tiles(), UniformBall()))]
)
def test_every_example_has_an_attack_of_its_own_radius(norm: str, start: Any) -> None:
    """The images are those of attacks one by one, each with its radius and its step, and with the same random numbers."""
    net, x, y = near(6, edges=True)
    attack = PGD(norm, steps=3, step_size=0.1, start=start, keep="last", stop_when_reached=False)
    factors = torch.tensor([0.0, 0.3, 0.7, 1.0, 1.5, 2.0], dtype=torch.float64)
    whole = attack.perturb_with(net, x, y, 0.2, key(6), factors=factors)
    for i, factor in enumerate(factors.tolist()):
        one = replace(attack, step_size=0.1 * factor) if factor else attack
        alone = one.perturb_with(net, x[i : i + 1], y[i : i + 1], 0.2 * factor, key(6)[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_net_each_example_goes_to_the_edge_of_its_ball(norm: Any) -> None:
    net, x, y = near(12, edges=False, width=0.01)
    method = RandomAT(norm=norm, epsilon=0.1, attack_steps=40, step_size=0.05)
    drawn = method.drawn(x, progress=0.5, generator=torch.Generator().manual_seed(4))
    moved = method.attacked(net, x, y, *drawn)
    factors = drawn[3]
    length = (moved - x).flatten(1).norm(p=float("inf") if norm == "linf" else 2.0, dim=1)
    torch.testing.assert_close(length, 0.1 * factors, rtol=1e-4, atol=1e-9)
    f = net(x).diff(dim=1).squeeze(1) * (2 * y - 1)
    dual = net.w.norm(p=1.0 if norm == "linf" else 2.0)
    worst = F.softplus(0.1 * factors * dual - f).mean()
    torch.testing.assert_close(method.loss_of(net, x, y, *drawn), worst.float(), rtol=1e-4, atol=1e-5)


def test_dropping_examples_keeps_the_radii() -> None:
    """An attack that drops what it has turned goes on with the radii of those that are left."""
    net, x, y = near(40, edges=False)
    factors = torch.linspace(0.01, 2.0, 40, dtype=torch.float64)
    attack = PGD("linf", steps=12, step_size=0.005)
    moved = attack.perturb_with(net, x, y, 0.02, key(40), factors=factors)
    assert bool(((moved - x).flatten(1).abs().amax(1) <= 0.02 * factors).all())
    turned = net(moved).argmax(1) != y
    assert 0 < int(turned.sum()) < 40
    f = net(x).diff(dim=1).squeeze(1).abs()
    assert torch.equal(turned, f < 0.02 * factors * net.w.abs().sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_at_the_factor_one_it_is_adversarial_training(norm: str, digits: Images, tmp_path: Path) -> None:
    shared: dict[str, Any] = {
        "model": "linear", "epochs": 2, "validation": 100, "epsilon": 0.1, "attack_steps": 3, "step_size": 0.05,
        "norm": norm, "augmentation": "crop", "padding": 1, "ramp": 0.5,
    }  # fmt: skip
    at = train(recipe("digits", "at", **shared), digits, out=tmp_path / "at", device="cpu")
    one = recipe("digits", "random_at", radius_law="discrete", law_parameters=(1.0, 1.0), **shared)
    ours = train(one, digits, out=tmp_path / "random", device="cpu")
    if norm == "linf":
        assert same(weights(ours), weights(at))
    else:  # steps along other numbers than 0 and 1 are rounded in another order
        for name, weight in weights(ours).items():
            torch.testing.assert_close(weight, weights(at)[name], rtol=1e-3, atol=1e-4)
    other = train(recipe("digits", "random_at", **shared), digits, out=tmp_path / "uniform", device="cpu")
    assert not same(weights(other), weights(at))


# --- non-robust examples ---


def learnt(method: AdversarialTraining, net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    loss = method.loss(net, x, y, progress=0.5, generator=torch.Generator().manual_seed(0))
    return loss.detach(), list(torch.autograd.grad(loss, list(net.parameters())))


def test_only_what_the_attack_turns_is_learned_from() -> None:
    net, x, y = near(30, edges=False)
    options: dict[str, Any] = {"epsilon": 0.01, "attack_steps": 2, "step_size": 0.01}
    f = net(x).diff(dim=1).squeeze(1) * (2 * y - 1) - 0.01 * net.w.abs().sum()  # margins of the attacked images
    turned = f < 0
    assert 0 < int(turned.sum()) < 30
    loss, (gradient,) = learnt(NonRobustAT(**options), net, x, y)
    expected = (F.softplus(-f) * turned).sum() / 30
    torch.testing.assert_close(loss, expected.detach().float(), rtol=1e-5, atol=1e-7)
    # the theory's step: f(u) = 1 / (1 + e^u) where u < 0, else 0, times the attacked example
    away = (2 * y - 1)[:, None] * x.flatten(1) - 0.01 * net.w.sign()
    by_hand = -((torch.sigmoid(-f) * turned)[:, None] * away).mean(0)
    torch.testing.assert_close(gradient, by_hand.detach(), rtol=1e-5, atol=1e-7)


def test_where_nothing_is_turned_no_weight_moves_and_where_all_is_it_is_adversarial_training() -> None:
    net, x, y = near(10, edges=False)
    loss, gradients = learnt(NonRobustAT(epsilon=0.0), net, x, y)  # all are classified as they are labelled
    assert float(loss) == 0.0
    assert all(not bool(gradient.any()) for gradient in gradients)
    options: dict[str, Any] = {"epsilon": 0.01, "attack_steps": 2, "step_size": 0.01}
    wrong = 1 - y
    loss, gradients = learnt(NonRobustAT(**options), net, x, wrong)
    expected, theirs = learnt(AdversarialTraining(**options), net, x, wrong)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, gradients, theirs))
