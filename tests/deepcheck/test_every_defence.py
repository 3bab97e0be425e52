"""What every defence promises, asked of everything in DEFENCES: one that is added there is tested here."""

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.square import Square
from deepcheck.commands.common import followed
from deepcheck.defences import BPDA, DEFENCES, EOT, Adaptive, Behind, BitDepth, Defence, GaussianNoise
from deepcheck.evaluation import Planned, adaptive, evaluate, robust_error, standard_error
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_generator import defended
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net

pytestmark = on_every_device

every = pytest.mark.parametrize("name", DEFENCES)
EPSILON = 0.1
ATTACK = PGD("linf", "margin", steps=10, relative_step_size=0.25)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def net() -> models.Network:
    return trained_net()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every
def test_it_is_a_function_from_images_to_logits(name: str, net: models.Network, digits: Digits) -> None:
    defence, x = defended(name, net), digits.test.clone()
    logits = defence(x)
    assert logits.shape == (len(x), 10)
    assert logits.isfinite().all()
    assert torch.equal(x, digits.test)
    right = float((logits.argmax(1) == digits.labels).double().mean())
    assert right > 0.1 + 4 * standard_error(0.1, len(x))  # it leaves something of what the net knows of ten classes
    assert defence(x[:0]).shape == (0, 10)
    assert (DEFENCES[name].__doc__ or "").strip()


@every
def test_from_the_same_seed_it_says_the_same(name: str, net: models.Network, digits: Digits) -> None:
    state = torch.random.get_rng_state()
    x = digits.test[:50]
    first, second = defended(name, net, seed=5), defended(name, net, seed=5)
    calls = [first(x), first(x)]
    assert torch.equal(calls[0], second(x))
    assert torch.equal(calls[1], second(x))
    first.reseed(5)
    assert torch.equal(first(x), calls[0])
    assert torch.equal(state, torch.random.get_rng_state())


@every
def test_it_is_random_where_it_says_so_and_only_there(name: str, net: models.Network, digits: Digits) -> None:
    x = digits.test[:50]
    defence = defended(name, net, seed=5)
    calls = [defence(x) for _ in range(10)]  # of a coarse random number two may be the same
    assert all(torch.equal(calls[0], call) for call in calls) is not defence.random
    seeds = [defended(name, net, seed=seed)(x) for seed in range(10)]
    assert all(torch.equal(seeds[0], call) for call in seeds) is not defence.random
    if not defence.random:
        torch.testing.assert_close(torch.cat([defence(part) for part in x.split(7)]), defence(x), rtol=1e-4, atol=1e-5)


@every
def test_it_has_a_gradient_where_it_says_so_and_only_there(name: str, net: models.Network, digits: Digits) -> None:
    x = digits.test[:5].clone().requires_grad_()
    defence = defended(name, net)
    logits = defence(x)
    assert logits.requires_grad is defence.has_gradient
    if defence.has_gradient:
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
        assert (gradient.flatten(1).abs().amax(1) > 0).all()


@every
def test_its_surrogate_has_a_gradient_everywhere(name: str, net: models.Network, digits: Digits) -> None:
    x = digits.test[:5].clone().requires_grad_()
    logits = defended(name, net).surrogate()(x)
    assert logits.shape == (5, 10)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


@every
def test_without_a_gradient_gradient_attacks_refuse_it_in_one_line(
    name: str, net: models.Network, digits: Digits
) -> None:
    defence, x, y = defended(name, net), digits.test[:10], digits.labels[:10]
    if not defence.has_gradient:
        with pytest.raises(ValueError, match="model has no gradient by its images") as caught:
            ATTACK(defence, x, y, epsilon=EPSILON, generator=draw())
        assert "\n" not in str(caught.value)
    Adaptive(ATTACK)(defence, x, y, epsilon=EPSILON, generator=draw())
    Square(queries=5, norm="linf")(defence, x, y, epsilon=EPSILON, generator=draw())


@every
def test_the_adaptive_attack_does_no_worse_than_the_plain_one(name: str, net: models.Network, digits: Digits) -> None:
    """The plain attack follows the net itself; the defence is the judge of both."""
    defence, x, y = defended(name, net, seed=1), digits.test, digits.labels
    defence.eval()

    def error(images: Tensor) -> float:
        with torch.no_grad():
            return float((defence(images).argmax(1) != y).double().mean())

    plain = error(ATTACK(net, x, y, epsilon=EPSILON, generator=draw()).images)
    found = Adaptive(ATTACK)(defence, x, y, epsilon=EPSILON, generator=draw())
    stronger = float((found.prediction != y).any(0).double().mean())
    assert stronger >= plain - 2 * standard_error(plain, len(y))
    assert stronger > error(x) + 2 * standard_error(stronger, len(y))


@every
def test_the_adaptive_result_is_that_of_any_attack(name: str, net: models.Network, digits: Digits) -> None:
    defence, x, y = defended(name, net, seed=1), digits.test[:12], digits.labels[:12]
    attack = Adaptive(PGD("linf", "wrong_confidence", steps=3, relative_step_size=0.5, restarts=3))
    found = attack(defence, x, y, epsilon=[0.05, 0.1], generator=draw())
    assert found.images.shape == (2, *x.shape)
    assert found.prediction.shape == found.confidence.shape == found.length.shape == (2, 1, 12)
    assert found.restart_objective.shape == (2, 1, 12)
    length = (found.images - x).abs().flatten(2).amax(2)
    torch.testing.assert_close(found.length.squeeze(1), length)
    assert (length <= torch.tensor([[0.05], [0.1]]) + 1e-6).all()
    one = attack(defence, x, y, epsilon=0.1, generator=draw())
    assert one.prediction.shape == one.restart_objective.shape == (1, 12)
    again = attack(defended(name, net, seed=1), x, y, epsilon=[0.05, 0.1], generator=draw())
    assert torch.equal(again.images, found.images)
    assert torch.equal(again.confidence, found.confidence)
    empty = attack(defence, x[:0], y[:0], epsilon=0.1, generator=draw())
    assert empty.prediction.shape == (1, 0)


@every
def test_it_is_evaluated_as_a_net_is(name: str, net: models.Network, digits: Digits) -> None:
    """Records of an attack do not depend on which others were run before, for random defences either."""
    planned = adaptive({"linf": Planned(ATTACK, (EPSILON,)), "search": Planned(Square("linf", queries=10), (EPSILON,))})
    data = digits.test[:40], digits.labels[:40]
    both = evaluate(defended(name, net), data, planned)
    assert both.attack.values.tolist() == ["adaptive_linf", "adaptive_search"]
    assert both.objective.values.tolist() == ["margin", "margin"]
    assert both.effort.values.tolist() == ["10 steps", "10 queries"]
    alone = evaluate(defended(name, net, seed=9), data, {"adaptive_search": planned["adaptive_search"]})
    np.testing.assert_array_equal(both.confidence.sel(attack="adaptive_search"), alone.confidence.isel(attack=0))
    np.testing.assert_array_equal(both.clean_confidence, alone.clean_confidence)
    assert robust_error(both, epsilon=EPSILON, norm="linf") > 0.2


@every
def test_its_own_attacks_are_run_beside_the_others(name: str, net: models.Network, digits: Digits) -> None:
    """In the norms that they know, at all sizes of the others; none of them is of a norm that nobody asked for."""
    defence = defended(name, net)
    known = {norm: defence.own_attacks(norm) for norm in ("linf", "l2", "flow")}
    assert not known["flow"]
    planned = {
        "linf": Planned(ATTACK, (0.05, EPSILON)),
        "l2": Planned(PGD("l2", steps=2, relative_step_size=1.0), (0.5,)),
    }
    more = adaptive(planned, defence)
    own = {
        f"adaptive_{attack}_{norm}": sizes
        for norm, sizes in (("linf", (0.05, EPSILON)), ("l2", (0.5,)))
        for attack in known[norm]
    }
    assert {key: one.epsilons for key, one in more.items() if key in own} == own
    assert set(more) - set(own) == set(adaptive(planned))
    for key in own:
        x, y = digits.test[:4], digits.labels[:4]
        attack = more[key].attack
        assert isinstance(attack, Adaptive)
        inner: Any = attack.attack
        short = replace(attack, attack=replace(inner, steps=2))
        assert short(defence, x, y, epsilon=EPSILON, generator=draw()).prediction.shape == (1, 4)


@pytest.mark.parametrize("name", ["mcn", "hcnn", "ncn", "mcn_shannon", "mcn_renyi"])
def test_embeddings_bring_the_attack_for_high_confidence(name: str, net: models.Network) -> None:
    assert list(defended(name, net).own_attacks("linf")) == ["pulled_back"]
    assert defended(name, net).own_attacks("l2") == {}


@every
def test_it_works_where_the_images_are(name: str, device: torch.device, net: models.Network, digits: Digits) -> None:
    defence = defended(name, copy.deepcopy(net)).to(device)
    x = digits.test[:8].to(device)
    assert defence(x).device.type == device.type
    assert defence.surrogate()(x).device.type == device.type


@every
def test_eval_mode_reaches_the_net_behind_it(name: str, digits: Digits) -> None:
    """A net left in train mode is attacked in eval mode, through the defence and through its surrogate."""
    inner = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(64, 10))
    defence = defended(name, inner, seed=2)
    inner.train()
    defence.train()
    planned = adaptive({"linf": Planned(ATTACK, (EPSILON,))})
    data = digits.test[:20], digits.labels[:20]
    left_on = evaluate(defence, data, planned)
    assert inner[1].training
    defence.eval()
    off = evaluate(defence, data, planned)
    np.testing.assert_array_equal(left_on.confidence, off.confidence)
    np.testing.assert_array_equal(left_on.clean_confidence, off.clean_confidence)


@every
def test_what_cannot_be_is_refused(name: str, net: models.Network) -> None:
    with pytest.raises(ValueError, match="seed = -1 is out of range"):
        defended(name, net, seed=-1)


# the wrappers


class Coin(nn.Module):
    """A net of two classes that is one of two linear maps, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        z = x.flatten(1).sum(1) * (2.0 if self.calls % 2 else -0.5)
        return torch.stack([z, torch.zeros_like(z)], 1)


def test_eot_has_the_mean_probability_and_its_gradient() -> None:
    """Of two outcomes in turn: the mean of two logistic functions, and the mean of their derivatives."""
    x = torch.tensor([[0.3, 0.1], [0.9, 0.2]], dtype=torch.float64, requires_grad=True)
    p = EOT(Coin(), draws=4)(x).softmax(1)[:, 0]
    s = x.detach().sum(1)
    first, second = torch.sigmoid(2 * s), torch.sigmoid(-0.5 * s)
    torch.testing.assert_close(p.double(), (first + second) / 2, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(p.sum(), x)
    slope = (2 * first * (1 - first) - 0.5 * second * (1 - second)) / 2
    torch.testing.assert_close(gradient, slope[:, None].expand(2, 2), rtol=1e-5, atol=1e-6)


def test_eot_of_a_model_that_is_not_random_is_the_model(net: models.Network, digits: Digits) -> None:
    x = digits.test[:10]
    torch.testing.assert_close(EOT(net, 7)(x).softmax(1), net(x).softmax(1), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="draws = 0 is out of range"):
        EOT(net, 0)


def test_logits_far_apart_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    assert EOT(lambda _: logits, 3)(torch.zeros(1, 2)).isfinite().all()


def test_bpda_is_one_function_forward_and_the_other_backward() -> None:
    x = torch.rand(4, 3, generator=draw()).double().requires_grad_()
    for backward, slope in ((None, torch.ones_like(x)), (torch.sin, torch.cos(x.detach()))):
        wrapped = BPDA(torch.round, backward)
        torch.testing.assert_close(wrapped(x), x.detach().round())
        (gradient,) = torch.autograd.grad(wrapped(x).sum(), x)
        torch.testing.assert_close(gradient, slope)
    with pytest.raises(
        ValueError, match=r"backward returned the shape \(4, 3\) and forward \(3,\): allowed is the same"
    ):
        BPDA(lambda z: z.sum(0))(x)
    doubled = Behind(lambda z: 2 * z, lambda z: z + 1)
    assert torch.equal(doubled(x), 2 * x + 1)


def test_an_adaptive_attack_asks_for_a_defence(net: models.Network, digits: Digits) -> None:
    with pytest.raises(TypeError, match="model is of the wrong type Network: allowed is a Defence"):
        Adaptive(ATTACK)(net, digits.test[:2], digits.labels[:2], epsilon=0.1, generator=draw())


def test_a_defence_without_gradient_and_surrogate_says_so(net: models.Network) -> None:
    class Mute(Defence):
        has_gradient = False

        def _logits(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 2)

    with pytest.raises(NotImplementedError, match="Mute has no gradient, and no surrogate"):
        Mute(net).surrogate()


# one by one


@pytest.mark.parametrize("defence", [GaussianNoise, partial(BitDepth, bits=2)], ids=["gaussian_noise", "bit_depth"])
def test_where_nobody_attacks_it_costs_little(defence: Any, net: models.Network, digits: Digits) -> None:
    with torch.no_grad():
        plain, right = (
            (out.argmax(1) == digits.labels).double().mean() for out in (net(digits.test), defence(net)(digits.test))
        )
    assert float(right) > float(plain) - 0.03


def test_the_noise_is_gaussian_and_its_mean_is_of_probabilities(digits: Digits) -> None:
    """A linear net of two classes: the probability is the mean of a logistic function over a Gaussian."""
    w = torch.tensor([[3.0], [0.0]])
    x = torch.full((20_000, 1), 0.2)
    logits = GaussianNoise(lambda z: z @ w.T, sigma=0.5, passes=5, seed=3)(x)
    p = logits.softmax(1)[:, 0].double()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    values = 1 / (1 + np.exp(-3 * (0.2 + 0.5 * nodes)))
    mean = float(weights @ values / weights.sum())
    variance = float(weights @ values**2 / weights.sum()) - mean**2
    error = math.sqrt(variance / (5 * 20_000))
    assert float(p.mean()) == pytest.approx(mean, abs=4 * error)
    assert float(p.var()) == pytest.approx(variance / 5, rel=4 * math.sqrt(2 / 20_000) * 2)
    assert torch.equal(GaussianNoise(lambda z: z @ w.T, sigma=0, passes=1)(x), (x @ w.T).log_softmax(1))


def test_fewer_bits_are_fewer_levels(net: models.Network) -> None:
    x = torch.linspace(0, 1, 1001)[:, None]
    for bits, levels in ((1, 2), (3, 8)):
        squeezed = BitDepth(net, bits=bits).squeezed(x)
        assert len(squeezed.unique()) == levels
        assert float((squeezed - x).abs().max()) == pytest.approx(0.5 / (levels - 1), rel=1e-2)
        assert torch.equal(BitDepth(net, bits=bits).squeezed(squeezed), squeezed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: GaussianNoise(net, sigma=-0.1), "sigma = -0.1 is out of range"),
        (lambda net: GaussianNoise(net, passes=0), "passes = 0 is out of range"),
        (lambda net: BitDepth(net, bits=0), "bits = 0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str, net: models.Network) -> None:
    with pytest.raises(ValueError, match=message):
        make(net)


@pytest.mark.parametrize("name", DEFENCES)
def test_what_attacks_follow_is_in_the_mode_of_the_net(name: str) -> None:
    """So that the check of modes says what it is of the net, and not of what is around it."""

    def in_train_mode() -> list[nn.Module]:
        surrogate = followed(defended(name, net))
        assert isinstance(surrogate, nn.Module)
        return [one for one in surrogate.modules() if one.training]

    net = trained_net()
    assert in_train_mode() == []
    part = next(one for one in net.modules() if one is not net)
    part.train()
    assert in_train_mode() == [*part.modules()]
