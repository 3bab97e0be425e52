"""The Square Attack in L1: its closed form, and its pattern."""

import pytest
import torch

from deepcheck.attacks.black_box.square import Square, _bump, _pattern
from tests.deepcheck.devices import on_every_device, on_the_cpu
from tests.deepcheck.test_square import generator, linear

pytestmark = on_every_device


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_l1_comes_close_to_the_closed_form_from_below(channels: int) -> None:
    """One pixel takes everything. Squares of 3 x 3 have 22 % of their length in the middle pixel, and more once projected."""
    draw = generator(3)
    w = torch.randn(channels * 64, generator=draw, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(30, channels, 8, 8, generator=draw, dtype=torch.float64)
    model, labels, epsilon = linear(w, -100.0), torch.zeros(30, dtype=torch.int64), 0.3
    clean, gain = x.flatten(1) @ w - 100, epsilon * w.abs().max()
    shares = []
    for queries in (1, 10, 100, 1000):
        result = Square("l1", queries=queries)(model, x, labels, epsilon=epsilon, generator=generator())
        share = (result.objective - clean) / gain
        assert (share <= 1 + 1e-10).all()
        torch.testing.assert_close(result.length, torch.full_like(result.length, epsilon))  # nothing is lost
        shares.append(float(share.mean()))
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


@on_the_cpu
def test_pattern_of_l1() -> None:
    # in L1 the lengths add up, and the bump is narrower: powers 4 in the place of 2
    for a, b in ((5, 5), (6, 3), (1, 1)):
        assert float(_pattern(a, b, 1).abs().sum()) == pytest.approx(1)
    rings = torch.tensor([1 / 81, 1 / 81 + 1 / 16, 1 / 81 + 1 / 16 + 1], dtype=torch.float64)
    torch.testing.assert_close(_bump(5, 5, 4)[range(3), range(3)], rings)
