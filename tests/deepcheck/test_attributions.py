"""Maps are what their formulas say, integrated gradients are complete, and metrics are those of other libraries."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck import models
from deepcheck.attributions import (
    MAPS,
    GradientTimesInput,
    IntegratedGradients,
    Saliency,
    kendall_tau,
    pixel_sizes,
    spearman_rho,
    top_pixels_shared,
)
from deepcheck.attributions.maps import AttributionMap, explained, integrated
from deepcheck.attributions.metrics import top_pixels
from deepcheck.attributions.smooth import Smoothed
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

pytestmark = on_every_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear() -> models.Network:
    return models.build("linear", 10, (2, 4, 5), generator=generator()).double().eval()


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 2, 4, 5, generator=generator(1), dtype=torch.float64), torch.arange(n) % 10


def digits(n: int = 8) -> tuple[models.Network, Tensor, Tensor]:
    data = digits_as_tensors()
    return trained_net().double(), data.test[:n].double(), data.labels[:n]


# --- maps ---


def test_of_a_linear_net_maps_are_its_weights() -> None:
    net, (x, y) = linear(), batch()
    w = net.head.weight[y].view(x.shape)
    torch.testing.assert_close(Saliency()(net, x, y), w)
    torch.testing.assert_close(GradientTimesInput()(net, x, y), x * w)
    for rule in ("midpoint", "trapezoid"):
        for steps in (1, 3):
            exact = IntegratedGradients(steps=steps, rule=rule)
            torch.testing.assert_close(exact(net, x, y), x * w)
            torch.testing.assert_close(
                IntegratedGradients(steps=steps, rule=rule, baseline=0.5)(net, x, y),
                (x - 0.5) * w,
            )


def test_what_is_explained_is_what_was_asked_for() -> None:
    net, (x, y) = linear(), batch()
    w = net.head.weight
    p = net(x).softmax(1).detach()
    p_y = p.gather(1, y[:, None])
    by_loss = p @ w - w[y]  # gradient of -log p_y
    torch.testing.assert_close(Saliency(of="loss")(net, x, y).flatten(1), by_loss)
    torch.testing.assert_close(Saliency(of="probability")(net, x, y).flatten(1), -p_y * by_loss)
    logits = net(x)
    torch.testing.assert_close(explained(logits, y, "loss"), F.cross_entropy(logits, y, reduction="none"))


def errors_of_completeness(net: Any, x: Tensor, y: Tensor, rule: str, counts: list[int]) -> Tensor:
    """Return |sum of IG - (F(x) - F(0))|, shape (counts, n)."""
    with torch.no_grad():
        difference = explained(net(x), y) - explained(net(0 * x), y)
    sums = [IntegratedGradients(steps=m, rule=rule)(net, x, y).flatten(1).sum(1) for m in counts]  # type: ignore[arg-type]
    return (torch.stack(sums) - difference).abs()


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid"])
def test_completeness_is_of_second_order_where_the_net_is_smooth(rule: str) -> None:
    net, x, y = digits()
    counts = [32, 64, 128]
    found = errors_of_completeness(Smoothed(net, 2.0), x, y, rule, counts).mean(1)
    slope = np.polyfit(np.log(counts), found.log().cpu().numpy(), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid"])
def test_completeness_is_of_first_order_with_relus(rule: str) -> None:
    """The derivative along the path jumps: in an interval the sum is off by half its length times the variation at most."""
    net, x, y = digits()
    fine = 2000
    t = (torch.arange(fine + 1, dtype=x.dtype) / fine)[:, None, None, None]
    for image, label in zip(x, y, strict=True):
        with torch.no_grad():
            values = explained(net(t * image), label.repeat(fine + 1))
        slopes = values.diff() * fine
        variation = float(slopes.diff().abs().sum())
        for m in (5, 20):
            error = float(errors_of_completeness(net, image[None], label[None], rule, [m])[0, 0])
            assert error <= variation / (2 * m) * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("name", list(MAPS))
def test_maps_do_not_depend_on_the_batch_and_leave_all_as_it_was(name: str) -> None:
    net, x, y = digits()
    net.train()
    kind: AttributionMap = MAPS[name]()
    before = x.clone()
    whole, parts = kind(net, x, y), kind(net, x, y, batch_size=3)
    torch.testing.assert_close(whole, parts, rtol=1e-9, atol=1e-12)
    assert torch.equal(x, before)
    assert net.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert whole.shape == x.shape
    assert not whole.requires_grad
    assert kind(net, x[:0], y[:0]).shape == (0, *x.shape[1:])


def test_a_net_that_overwrites_its_images_changes_none() -> None:
    net, x, y = digits()

    def careless(z: Tensor) -> Tensor:
        return net(z.mul_(0.5))

    before = x.clone()
    expected = Saliency()(lambda z: net(0.5 * z), x, y)
    torch.testing.assert_close(Saliency()(careless, x, y), expected)
    assert torch.equal(x, before)


def test_pixels_are_sums_over_channels() -> None:
    maps = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]]]])
    assert pixel_sizes(maps).tolist() == [[4.0, 2.5]]
    assert pixel_sizes(maps.flatten(1)).tolist() == [[1.0, 2.0, 3.0, 0.5]]


def test_gradients_pass_through_integrated_gradients() -> None:
    net, x, y = digits(2)
    smooth = Smoothed(net, 3.0)
    z = (x + 0.1 * torch.rand(x.shape, generator=generator(3), dtype=x.dtype)).requires_grad_()
    torch.autograd.gradcheck(
        lambda end: integrated(smooth, x, end, y, steps=2, of="loss", create_graph=True).abs().sum(), (z,)
    )


def test_a_softplus_stands_where_a_relu_stood() -> None:
    class Net(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            u = u.flatten(1)
            ways = (torch.relu, Tensor.relu, F.relu, nn.ReLU(), nn.LeakyReLU(0.1), lambda v: F.leaky_relu(v, 0.2))
            return torch.stack([way(u).sum(1) for way in ways], 1)

    u = torch.linspace(-3, 3, 7, dtype=torch.float64).view(1, 1, 1, 7)
    soft = F.softplus(u, beta=4.0).sum()
    slopes = torch.tensor([0, 0, 0, 0, 0.1, 0.2], dtype=torch.float64)
    torch.testing.assert_close(Smoothed(Net(), 4.0)(u)[0], slopes * u.sum() + (1 - slopes) * soft)
    torch.testing.assert_close(Net()(u)[0], slopes * u.sum() + (1 - slopes) * u.clamp(min=0).sum())  # and no longer
    net, x, _ = digits()
    with torch.no_grad():
        errors = [float((Smoothed(net, beta)(x) - net(x)).abs().max()) for beta in (10.0, 100.0, 1000.0)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegratedGradients(steps=0), "steps = 0"),
        (lambda: IntegratedGradients(rule="simpson"), "rule = 'simpson'"),  # type: ignore[arg-type]
        (lambda: IntegratedGradients(baseline=math.nan), "baseline = nan"),
        (lambda: Saliency(of="logits"), "of = 'logits' is unknown .did you mean 'logit'"),  # type: ignore[arg-type]
        (lambda: Smoothed(linear(), 0.0), "beta = 0"),
        (lambda: Saliency()(linear(), batch()[0], batch()[1], batch_size=0), "batch_size = 0"),
        (lambda: Saliency()(linear(), batch()[0], batch()[1][:3]), "do not go together"),
        (lambda: Saliency()(linear(), batch()[0], batch()[1] + 9), "labels have the value 14"),
        (lambda: Saliency()(lambda x: torch.zeros(len(x), 10), *batch()), "model has no gradient by its images"),
    ],
)
def test_bad_arguments_of_maps(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- metrics ---


def pairs(ties: bool) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 7, 30))
    if ties:  # most pixels of a digit are 0
        a, b = (np.where(one < 0.5, 0, np.round(3 * one)) for one in (a, b))
    return torch.tensor(a), torch.tensor(0.5 * a + 0.5 * b)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlations_are_their_formulas_and_those_of_scipy(ties: bool) -> None:
    a, b = pairs(ties)
    signs = [(one[:, :, None] - one[:, None, :]).sign() for one in (a, b)]
    products = [(s * t).sum((1, 2)) for s, t in ((signs[0], signs[1]), (signs[0], signs[0]), (signs[1], signs[1]))]
    np.testing.assert_allclose(kendall_tau(a, b), (products[0] / (products[1] * products[2]).sqrt()).cpu(), rtol=1e-12)
    rho = [stats.spearmanr(one, two).statistic for one, two in zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)]
    np.testing.assert_allclose(spearman_rho(a, b), rho, rtol=1e-12)
    for metric in (kendall_tau, spearman_rho):
        np.testing.assert_allclose(metric(a, a), 1)
        np.testing.assert_allclose(metric(a, -a), -1)
        assert np.isnan(metric(a, 0 * a)).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 7, 30])
def test_shared_pixels_are_counted(ties: bool, k: int) -> None:
    a, b = pairs(ties)

    def first(row: Any) -> set[int]:
        return set(sorted(range(30), key=lambda i: (-row[i], i))[:k])

    expected = [len(first(one) & first(two)) / k for one, two in zip(a.tolist(), b.tolist(), strict=True)]
    assert top_pixels_shared(a, b, k).tolist() == pytest.approx(expected)
    assert top_pixels(a, k).sum(1).tolist() == [k] * 7


def test_bad_arguments_of_metrics() -> None:
    a, b = pairs(False)
    for k in (0, 31):
        with pytest.raises(ValueError, match=f"k = {k}"):
            top_pixels_shared(a, b, k)
    with pytest.raises(ValueError, match=r"maps have the shapes \(7, 30\) and \(7, 29\)"):
        kendall_tau(a, b[:, :29])
