"""Adam and L-BFGS for a batch, each example on its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deepcheck.attacks.spatial.descent import LBFGS, Adam, Descent
from tests.deepcheck.devices import on_every_device, rounding

pytestmark = on_every_device


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rosenbrock(p: Tensor) -> Tensor:
    a, b = p[:, :-1], p[:, 1:]
    return (100 * (b - a * a) ** 2 + (1 - a) ** 2).sum(1)


def run(descent: Descent, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the least loss found, and the last point."""
    p, least = start, torch.full((len(start),), torch.inf, dtype=start.dtype)
    for _ in range(steps):
        with torch.enable_grad():
            q = p.clone().requires_grad_()
            loss = rosenbrock(q)
            (gradient,) = torch.autograd.grad(loss.sum(), q)
        least = torch.minimum(least, loss.detach())
        p = descent(p, loss.detach(), gradient)
    return least, p


def test_adam_is_that_of_torch() -> None:
    start = normals(4, 6)
    parameter = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=0.02)
    for _ in range(30):
        optimiser.zero_grad()
        rosenbrock(parameter).sum().backward()
        optimiser.step()
    torch.testing.assert_close(run(Adam(0.02), start, 30)[1], parameter.detach(), rtol=1e-9, atol=1e-12)


def test_lbfgs_finds_the_minimum_of_rosenbrocks_function() -> None:
    """Which descent along the gradient alone does not in a hundred times as many steps."""
    least, _ = run(LBFGS(0.1), normals(5, 2), 120)
    assert (least < 1e-12).all()


def test_lbfgs_is_far_ahead_of_the_best_steps_along_the_gradient() -> None:
    """Of which each takes off 2 / (1 + condition) of the distance to the minimum of a quadratic function."""
    curvature = torch.logspace(0, 3, 8, dtype=torch.float64)
    start, steps = normals(3, 8), 60
    p, descent = start, LBFGS(0.1, memory=10)
    for _ in range(steps):
        loss, gradient = 0.5 * (curvature * p * p).sum(1), curvature * p
        p = descent(p, loss, gradient)
    along_gradient = (1 - 2 / (1 + 1e3)) ** steps * start.abs().amax(1)
    assert (p.abs().amax(1) < 1e-3 * along_gradient).all()


@pytest.mark.parametrize("kind", [lambda: Adam(0.05), lambda: LBFGS(0.05, memory=4)], ids=["adam", "lbfgs"])
def test_examples_do_not_matter_to_each_other(kind: Callable[[], Descent]) -> None:
    start = normals(5, 4)
    least, last = run(kind(), start, 40)
    for row in range(5):
        one, its = run(kind(), start[row : row + 1], 40)
        torch.testing.assert_close(one, least[row : row + 1], rtol=rounding() * 1e3, atol=rounding())
        torch.testing.assert_close(its, last[row : row + 1], rtol=rounding() * 1e3, atol=rounding())


@pytest.mark.parametrize("kind", [lambda: Adam(0.05), lambda: LBFGS(0.05, memory=4)], ids=["adam", "lbfgs"])
def test_dropping_examples_changes_none_of_the_others(kind: Callable[[], Descent]) -> None:
    start, rows = normals(5, 4), torch.tensor([3, 1])
    whole, some = kind(), kind()
    p = q = start
    for step in range(25):
        if step == 9:
            q = q[rows]
            some.keep(rows)
        p, q = (descent(one, *_at(one)) for descent, one in ((whole, p), (some, q)))
    torch.testing.assert_close(q, p[rows], rtol=rounding() * 1e3, atol=rounding())


def _at(p: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        p = p.clone().requires_grad_()
        loss = rosenbrock(p)
        (gradient,) = torch.autograd.grad(loss.sum(), p)
    return loss.detach(), gradient


def test_lbfgs_takes_no_step_that_loses_and_none_to_where_the_loss_is_no_number() -> None:
    descent = LBFGS(1.0)
    p = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    last = p
    for _ in range(60):
        loss = torch.where(p[:, 0] < 0.5, torch.tensor([torch.nan, torch.inf], dtype=p.dtype), p[:, 0])
        p = descent(p, loss, torch.ones_like(p))
        last = torch.where(p < 0.5, last, p)
    assert p.isfinite().all()
    assert ((last >= 0.5) & (last < 0.51)).all()
