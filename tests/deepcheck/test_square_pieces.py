"""The pieces of the Square Attack: its squares, the pattern of L2, and what one query changes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck.attacks.black_box.square import Square, _bump, _pattern, _sides
from tests.deepcheck.devices import on_every_device, on_the_cpu
from tests.deepcheck.test_square import generator

pytestmark = on_every_device


def test_area_of_the_squares() -> None:
    shares = [Square(p_init=0.8, queries=10_000)._share(query) for query in (0, 9, 10, 49, 50, 200, 1000, 7999, 8000)]
    np.testing.assert_allclose(shares, 0.8 / 2 ** np.array([0, 0, 1, 1, 2, 3, 4, 7, 8]))
    assert Square(queries=100)._share(10) == Square(queries=10_000)._share(1000)
    assert _sides(0.8, 28, 28) == (25, 25)
    assert _sides(1e-9, 28, 28) == (1, 1)
    assert _sides(0.5, 1, 64) == (1, 32)
    assert _sides(0.5, 64, 1) == (32, 1)
    assert _sides(1.0, 5, 9) == (5, 9)


@on_the_cpu
def test_pattern_of_l2() -> None:
    # eq. 2 for h = 5: n = 2, terms 1/9, 1/4, 1
    rings = torch.tensor([1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1], dtype=torch.float64)
    bump = _bump(5, 5)
    torch.testing.assert_close(torch.stack([bump[0, 0], bump[1, 1], bump[2, 2]]), rings)
    assert torch.equal(bump, bump.T)
    assert torch.equal(bump, bump.flip(0))
    for a, b in ((5, 5), (6, 3), (1, 4), (1, 1), (2, 7)):
        pattern = _pattern(a, b)
        assert pattern.shape == (a, b)
        assert float(torch.linalg.vector_norm(pattern)) == pytest.approx(1)
        assert (pattern[: a // 2] > 0).all()
    assert (_pattern(6, 3)[3:] == -_pattern(6, 3)[:3]).all()


def test_one_query_changes_one_square() -> None:
    images = torch.full((200, 3, 12, 10), 0.5)
    labels = torch.zeros(200, dtype=torch.int64)
    points: list[Tensor] = []

    def model(x: Tensor) -> Tensor:  # every query is better than the one before
        points.append(x.clone())
        return torch.stack([torch.zeros(len(x)), torch.full((len(x),), float(len(points)) - 1e6)], 1)

    Square(queries=60)(model, images, labels, epsilon=0.1, generator=generator())
    points = points[1:]
    stripes = points[0] - 0.5
    torch.testing.assert_close(stripes.abs(), torch.full_like(stripes, 0.1))
    assert (stripes == stripes[:, :, :1]).all()
    corners = set()
    for query in range(1, 60):
        a, b = _sides(Square(queries=60)._share(query), 12, 10)
        changed = points[query] != points[query - 1]
        assert changed.flatten(1).any(1).all()  # no query is lost
        for example in changed.any(1):
            down, across = example.any(1).nonzero().squeeze(1), example.any(0).nonzero().squeeze(1)
            assert down[-1] - down[0] < a
            assert across[-1] - across[0] < b
            if (a, b) == (1, 1):
                corners.add((int(down[0]), int(across[0])))
    assert len(corners) == 120  # squares of one pixel come everywhere
