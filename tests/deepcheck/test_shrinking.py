"""By how much a perturbation is shrunk: sorted and searched, against each other and against what it must reach."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deepcheck.attacks.shrinking import (
    _searched_factor,
    _searched_threshold,
    _sorted_factor,
    _sorted_threshold,
    factor,
    threshold,
)

Search = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def cases(n: int = 300, D: int = 40) -> tuple[Tensor, Tensor]:
    """Sizes and rooms: with ties, without any room, and with more than any size."""
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(n, D, generator=draw, dtype=torch.float64).abs()
    r = torch.rand(n, D, generator=draw, dtype=torch.float64)
    a[::5] = a[::5].mul(4).round() / 4
    r[::3] = r[::3].mul(3).round() / 3
    r[1::7] = torch.inf
    a[2::11, 5:] = 0
    a[3::13] *= torch.logspace(0, -9, D, dtype=torch.float64)
    return a, r


def length(a: Tensor, r: Tensor, shrunk: str, by: Tensor) -> Tensor:
    if shrunk == "factor":
        return torch.minimum(by[:, None] * a, r).square().sum(1)
    return torch.minimum((a - by[:, None]).clamp(min=0), r).sum(1)


BOTH: dict[str, tuple[Search, Search, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "factor": (_searched_factor, _sorted_factor, factor),
    "threshold": (_searched_threshold, _sorted_threshold, threshold),
}


@pytest.mark.parametrize("share", [1e-6, 0.01, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("name", BOTH)
def test_search_and_sort_end_at_the_bound(name: str, share: float) -> None:
    a, r = cases()
    searched, by_sorting, _ = BOTH[name]
    nothing = torch.full((300,), 1.0 if name == "factor" else 0.0, dtype=torch.float64)
    bound = share * length(a, r, name, nothing)
    outside = torch.ones(300, dtype=torch.bool)
    for function in (searched, by_sorting):
        torch.testing.assert_close(length(a, r, name, function(a, r, bound, outside)), bound, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", BOTH)
def test_what_is_inside_is_not_shrunk(name: str) -> None:
    a, r = cases()
    nothing = torch.full((300,), 1.0 if name == "factor" else 0.0, dtype=torch.float64)
    bound = length(a, r, name, nothing) * torch.where(torch.arange(300) % 2 == 0, 1.001, 0.7)
    by = BOTH[name][2](a, r, bound)
    assert torch.equal(by[::2], nothing[::2])
    assert (by[1::2] != nothing[1::2]).all()


@pytest.mark.parametrize("name", BOTH)
def test_the_other_rows_do_not_matter(name: str) -> None:
    """Some take more turns of the search than others."""
    a, r = cases()
    bound = length(a, r, name, torch.full((300,), 0.3, dtype=torch.float64)) * 0.8
    whole = BOTH[name][2](a, r, bound)
    for row in range(0, 300, 7):
        part = slice(row, row + 1)
        assert torch.equal(BOTH[name][2](a[part], r[part], bound[part]), whole[part])


@pytest.mark.parametrize("name", BOTH)
def test_a_ball_without_radius_and_no_perturbation(name: str) -> None:
    a, r = cases()
    zero = torch.zeros(300, dtype=torch.float64)
    assert (length(a, r, name, BOTH[name][2](a, r, zero)) < 1e-12).all()
    by = BOTH[name][2](torch.zeros_like(a), r, zero)
    assert torch.equal(by, torch.full_like(by, 1.0 if name == "factor" else 0.0))
