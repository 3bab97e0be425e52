"""JSMA: the best pair of all pairs, the least number of entries on linear nets, and targets."""

import re

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import JSMA
from deepcheck.attacks.minimal import jsma
from deepcheck.attacks.minimal.jsma import best_pairs
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net
from tests.deepcheck.linear_nets import near, reach

pytestmark = on_every_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_pairs(a: Tensor, b: Tensor) -> Tensor:
    """The largest (a_p + a_q)(b_p + b_q) over all pairs with positive sums."""
    A, B = a[:, :, None] + a[:, None], b[:, :, None] + b[:, None]
    score = torch.where((A > 0) & (B > 0), A * B, -torch.inf)
    score.diagonal(0, 1, 2).fill_(-torch.inf)
    return score.flatten(1).amax(1)


def slopes(kind: str, n: int, D: int, seed: int) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, n, D, generator=generator(seed), dtype=torch.float64)
    if kind == "against":
        b = -a + 0.3 * b
    elif kind == "on_a_circle":  # every pixel is a maximum
        a, b = (a * 1.5).sigmoid(), (1 - (a * 1.5).sigmoid() ** 2).sqrt()
    elif kind == "ties":
        a, b = a.round(), b.round()
    elif kind == "few":
        few = torch.rand(n, D, generator=generator(seed + 1)) < 0.06
        a, b = (torch.where(few, one, -torch.inf) for one in (a, b))
    elif kind == "negative":
        b = -b.abs()
    return a, b


@pytest.mark.parametrize("kind", ["any", "against", "on_a_circle", "ties", "few", "negative"])
def test_the_pair_is_the_best_of_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, D in enumerate((2, 3, 17, 40)):
        a, b = slopes(kind, 50, D, seed)
        pair, value = best_pairs(a, b)
        expected = all_pairs(a, b)
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)
        some = value.isfinite()
        p, q = pair[some].T
        assert (p != q).all()
        rows = torch.arange(50, device=a.device)[some]
        torch.testing.assert_close((a[rows, p] + a[rows, q]) * (b[rows, p] + b[rows, q]), expected[some])
        with monkeypatch.context() as patch:  # in parts of one row, it is the same pair
            patch.setattr(jsma, "_ENTRIES", 1)
            again, _ = best_pairs(a, b)
        assert torch.equal(again[some], pair[some])
        if D > 3 and kind == "any":
            alone = torch.cat([best_pairs(a[k : k + 1], b[k : k + 1])[0] for k in range(50)])
            assert torch.equal(alone[some], pair[some])


def test_memory_does_not_grow_with_the_square_of_the_pixels() -> None:
    """All pixels of a colour image of 40 x 40 are maxima: their pairs would fill 180 MB at once."""
    angle = torch.linspace(0.01, 1.5, 4800, dtype=torch.float64)[None]
    pair, value = best_pairs(angle.sin(), angle.cos())
    assert abs(float(value) - 2.0) < 1e-6  # at 45 degrees, where sin = cos
    assert (pair - 2496).abs().max() < 80


@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_single_pixels_are_the_fewest_on_a_linear_net(theta: float) -> None:
    """Of pixels that only get brighter, or only darker, from 0.5 by 0.5, those with the largest weights are needed."""
    net, images, labels = near(20, edges=False, width=0.0)
    net.b -= 2.3 if theta > 0 else -2.3
    with torch.no_grad():
        labels = net(images).argmax(1)
    m, w, _ = reach(net, images, labels)
    ways = (net.w.detach()[None] * torch.where(labels == 0, 1.0, -1.0)[:, None].double()) * theta
    gains = (ways.clamp(min=0) / 2).sort(dim=1, descending=True).values.cumsum(1)
    fewest = (gains <= m[:, None]).sum(1) + 1.0
    assert (w.shape[1] > fewest).all()
    assert fewest.min() > 1
    for pixels in (1, 2):
        attack = JSMA(restarts=1, theta=theta, pixels=pixels, gamma=1.0)
        found = attack(net, images, labels, generator=generator())
        assert torch.equal(found.length[0], fewest + (fewest % 2 if pixels == 2 else 0))
        assert (found.prediction[0] != labels).all()
        change = (found.images - images).flatten(1)
        assert ((change == 0) | (change == theta / 2)).all()


def test_no_more_than_a_share_of_the_entries_changes_and_targets_are_reached() -> None:
    net, digits = trained_net(), digits_as_tensors()
    images, labels = digits.test[:30], digits.labels[:30]
    shares = []
    for gamma in (0.05, 0.3):
        found = JSMA("l0", "targeted_margin", targets="given", restarts=1, gamma=gamma)(
            net, images, labels, targets=(labels + 3) % 10, generator=generator()
        )
        reached = found.length[0].isfinite()
        assert torch.equal(found.prediction[0] == (labels + 3) % 10, reached)
        changed = (found.images != images).flatten(1).sum(1)
        assert (changed <= max(2, int(gamma * 64 / 2) * 2)).all()
        assert torch.equal(changed[reached], found.length[0, reached].long())
        shares.append(float(reached.double().mean()))
    assert shares[0] < shares[1]
    assert shares[1] > 0.5


def test_towards_the_likeliest_classes_the_fewest_entries_count() -> None:
    net, digits = trained_net(), digits_as_tensors()
    images, labels = digits.test[:30], digits.labels[:30]
    found = JSMA(restarts=3, gamma=0.3)(net, images, labels, generator=generator())
    assert found.length.shape == (3, 30)
    least = found.length.amin(0)
    turned = found.prediction.ne(labels).any(0)
    assert turned.double().mean() > 0.8
    assert torch.equal(((found.images != images).flatten(1).sum(1))[turned], least[turned].long())
    assert (found.length.amin(0) < found.length[0]).any()  # the likeliest is not always the nearest
    once = JSMA(restarts=1, gamma=0.3)(net, images, labels, generator=generator())
    assert torch.equal(once.length[0], found.length[0])


def test_slopes_of_probabilities_say_where_to_go_where_the_model_is_sure_too() -> None:
    net, digits = trained_net(), digits_as_tensors()
    images, labels = digits.test[:10], digits.labels[:10]

    def found(sure: float, outputs: str) -> Tensor:
        attack = JSMA(restarts=1, gamma=0.3, outputs=outputs)  # type: ignore[arg-type]
        return attack(lambda x: sure * net(x), images, labels, generator=generator()).length[0].isfinite()

    assert found(1.0, "probabilities").double().mean() > 0.5
    assert torch.equal(found(1e4, "logits"), found(1.0, "logits"))
    assert found(1e4, "probabilities").double().mean() > 0.5  # where the probabilities themselves are 0 in float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l2"}, "is not allowed for JSMA: l0 is"),
        ({"objective": "margin", "targets": "given"}, "is not allowed for JSMA: a targeted one is"),
        ({"theta": 0.0}, "theta = 0 is not allowed"),
        ({"gamma": 0.0}, "gamma = 0.0 is out of range"),
        ({"gamma": 1.5}, "gamma = 1.5 is out of range"),
        ({"pixels": 0}, "pixels = 0 is out of range"),
        ({"pixels": 3}, "pixels = 3 is not allowed: 1 or 2 is"),
        ({"outputs": "scores"}, "outputs = 'scores' is unknown"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        JSMA(**options)  # type: ignore[arg-type]
