"""Attacks by transformations: closed forms on linear nets, brute force, the rivals they must beat, and bad input."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import (
    Additive,
    Colour,
    Combined,
    Flow,
    ReColorAdv,
    Rigid,
    Rotation,
    StAdv,
    Transformed,
    pgd,
    registry,
)
from deepcheck.attacks.base import BudgetAttack
from deepcheck.attacks.measures import FlowSize
from deepcheck.attacks.spatial.rotation import _grid
from deepcheck.evaluation import evaluate, suite
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

pytestmark = on_every_device

UNBOUNDED = (-math.inf, math.inf)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


class Linear(nn.Module):
    """Logits (0, w x + b): the margin of the class 0 is w x + b."""

    def __init__(self, w: Tensor, b: float = -50.0) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), b

    def forward(self, x: Tensor) -> Tensor:
        margin = (x * self.w.to(x.dtype)).flatten(1).sum(1) + self.b
        return torch.stack([torch.zeros_like(margin), margin], 1)


def gained(attack: BudgetAttack, w: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """How much the attack adds to the margin of a linear net, shape (n,)."""
    model, labels = Linear(w), torch.zeros(len(x), dtype=torch.int64)
    found = attack(model, x, labels, epsilon=epsilon, generator=generator())
    assert (found.length <= epsilon).all()
    with torch.no_grad():
        clean: Tensor = model(x)[:, 1]
    return found.objective - clean


def test_additive_ones_are_exact_on_linear_nets() -> None:
    """And of two, one after the other, the bounds add up."""
    w, x = normals(2, 3, 4), torch.rand(5, 2, 3, 4, generator=generator(), dtype=torch.float64)
    for parts, bound in (((Additive(0.1),), 0.1), ((Additive(0.1), Additive(0.02)), 0.12)):
        attack = Transformed(transformations=parts, bounds=UNBOUNDED)
        expected = (2.0 * bound * w.abs().sum()).expand(5)
        torch.testing.assert_close(gained(attack, w, x, 2.0), expected, rtol=1e-9, atol=0)


def test_in_the_box_additive_ones_are_exact_on_linear_nets_too() -> None:
    w, x = normals(2, 3, 4), torch.rand(5, 2, 3, 4, generator=generator(), dtype=torch.float64)
    best = (x + 0.3 * w.sign()).clamp(0, 1)
    expected = ((best - x) * w).flatten(1).sum(1)
    torch.testing.assert_close(
        gained(Transformed(transformations=(Additive(0.1),)), w, x, 3.0), expected, rtol=1e-9, atol=0
    )


def test_flows_are_exact_on_ramps() -> None:
    """A picture with the slope a down and b to the right changes by (a, b) . displacement, at most epsilon |(a, b)|."""
    rows, columns = torch.arange(6.0, dtype=torch.float64)[:, None], torch.arange(9.0, dtype=torch.float64)
    x = (0.2 + 0.03 * rows + 0.04 * columns)[None, None].repeat(2, 1, 1, 1)
    w = torch.zeros(1, 6, 9, dtype=torch.float64)
    w[:, 2:4, 3:6] = normals(1, 2, 3)
    best = (1.5 * 0.05 * w.abs().sum()).expand(2)
    torch.testing.assert_close(gained(StAdv(tau=0.0, optimiser="lbfgs", steps=300), w, x, 1.5), best, rtol=1e-3, atol=0)
    # Adam's steps are as long down as to the right: along (1, 1) and not along (3, 4)
    assert (gained(StAdv(tau=0.0), w, x, 1.5) > 0.99 * 7 / 50**0.5 * best).all()


def test_curves_of_grey_are_exact_on_linear_nets() -> None:
    """With all pixels at the levels of the curve, each level gains epsilon times the sum of its pixels' weights."""
    level = torch.randint(1, 4, (3, 1, 5, 6), generator=generator())
    w = normals(1, 5, 6)
    attack = ReColorAdv(smoothness=0.0, levels=5)
    sums = torch.stack([(w * (level == k)).flatten(1).sum(1).abs() for k in range(5)], 1)
    torch.testing.assert_close(gained(attack, w, level.double() / 4, 0.06), 0.06 * sums.sum(1), rtol=1e-9, atol=0)


def test_rotations_are_those_of_brute_force() -> None:
    """The worst of the grid where the search goes on, the smallest that turns the class where it stops."""
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:60], digits.labels[:60]
    attack = Rotation(angles=5, shifts=3, angle=15.0, shift=0.5)
    call: dict[str, Any] = {"epsilon": 0.9, "generator": generator()}
    on, first = replace(attack, stop_when_reached=False)(model, x, y, **call), attack(model, x, y, **call)
    rigid, margins, sizes = Rigid(15.0, 0.5), [], []
    for a in torch.linspace(-0.9, 0.9, 5):
        for b in torch.linspace(-0.9, 0.9, 3):
            for c in torch.linspace(-0.9, 0.9, 3):
                theta = torch.stack([a, b, c])
                with torch.no_grad():
                    logits = model(rigid.apply(x, theta.expand(60, 3)).clamp(0, 1))
                margins.append(logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0])
                sizes.append(float(theta.abs().max()))
    margin, size = torch.stack(margins), torch.tensor(sizes)
    torch.testing.assert_close(on.objective, margin.amax(0), rtol=1e-4, atol=1e-4)
    turned = margin.amax(0) > 0
    assert torch.equal(first.prediction[0] != y, turned)
    assert 0 < turned.sum() < 60
    smallest = torch.where(margin > 0, size[:, None], torch.inf).amin(0)
    torch.testing.assert_close(first.length[0][turned], smallest[turned], rtol=1e-4, atol=1e-4)


def test_the_grid_of_rotations_has_the_image_first_and_each_transformation_once() -> None:
    for angles, shifts in ((31, 5), (4, 2), (1, 1), (1, 3)):
        grid = _grid(angles, shifts)
        assert grid[0] == (0.0, 0.0, 0.0)
        assert len(set(grid)) == len(grid) == angles * shifts**2 + (angles % 2 == 0 or shifts % 2 == 0)
        assert max(max(map(abs, one)) for one in grid) == (0.0 if angles == shifts == 1 else 1.0)
    assert "775 queries" in Rotation().effort


def test_rotations_at_random_are_within_and_more_find_more() -> None:
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:100], digits.labels[:100]
    right = []
    for draws in (1, 10, 60):
        attack = Rotation(search="random", draws=draws, shift=1.0)
        found = attack(model, x, y, epsilon=1.0, generator=generator())
        assert (found.length <= 1).all()
        right.append(int((found.prediction == y).all(0).sum()))
    assert right[0] > right[1] > right[2]


def test_stadv_breaks_nearly_all_digits() -> None:
    """The paper: over 99 % on MNIST."""
    digits, model = digits_as_tensors(), trained_net()
    found = StAdv()(model, digits.test, digits.labels, epsilon=1.0, generator=generator())
    assert (found.prediction != digits.labels).any(0).double().mean() > 0.99
    assert float(found.length.mean()) < 0.8


def roughnesses(monkeypatch: pytest.MonkeyPatch, attack: StAdv) -> tuple[Tensor, Tensor]:
    """Which digits are broken, and the roughness of the flows that are returned."""
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:100], digits.labels[:100]
    flows: dict[bytes, float] = {}
    apply = Flow.apply

    def recorded(self: Flow, images: Tensor, theta: Tensor) -> Tensor:
        z = apply(self, images, theta)
        for one, flow in zip(z.detach().clamp(0, 1), Flow().penalty(theta.detach()), strict=True):
            flows[one.cpu().numpy().tobytes()] = float(flow)
        return z

    with monkeypatch.context() as patch:
        patch.setattr(Flow, "apply", recorded)
        found = attack(model, x, y, epsilon=1.0, generator=generator())
    return (found.prediction != y).any(0), torch.tensor([flows[z.cpu().numpy().tobytes()] for z in found.images])


def test_flows_are_smooth_for_the_penalty_and_smoother_where_the_search_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken, rough = roughnesses(monkeypatch, StAdv(tau=0.0))
    broken_smooth, smooth = roughnesses(monkeypatch, StAdv())
    broken_smoother, smoother = roughnesses(monkeypatch, StAdv(stop_when_reached=False))
    both = broken & broken_smooth & broken_smoother
    assert both.sum() > 90
    assert smooth[both].mean() < 0.8 * rough[both].mean()
    assert (smoother[both] <= smooth[both]).all()
    assert smoother[both].mean() < 0.9 * smooth[both].mean()


def test_weights_that_fall_break_what_constant_ones_do_not() -> None:
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test, digits.labels
    broken = [
        (StAdv(tau=0.3, relaxation=factor)(model, x, y, epsilon=1.0, generator=generator()).prediction != y).sum()
        for factor in (1.0, 0.1)
    ]
    assert broken[0] < broken[1]


def test_kappa_is_the_margin_that_is_reached() -> None:
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:50], digits.labels[:50]
    small, large = (StAdv(kappa=k)(model, x, y, epsilon=1.5, generator=generator()).objective for k in (0.0, 2.0))
    assert ((large >= 2) | (large >= small)).all()
    assert (large >= 2).sum() > 40
    assert (small < 2).sum() > 25


def test_together_they_break_more_than_each_alone() -> None:
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:200], digits.labels[:200]
    bounds = {"colour": 0.1, "flow": 0.25, "additive": 0.04}
    left = []
    for names in (("colour",), ("flow",), ("additive",), tuple(bounds)):
        options: dict[str, Any] = {name: bounds[name] * (name in names) for name in bounds}
        attack = Combined(**options)
        left.append(int((attack(model, x, y, epsilon=1.0, generator=generator()).prediction == y).all(0).sum()))
    assert left[3] < min(left[:3])


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("name", ["stadv", "recolor", "combined"])
def test_a_budget_of_nothing_gives_the_images(name: str, optimiser: str) -> None:
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:9], digits.labels[:9]
    attack = registry.make(name, registry.norms_of(name)[0], optimiser=optimiser, steps=3)
    assert isinstance(attack, BudgetAttack)
    found = attack(model, x, y, epsilon=[0.0, 0.1], generator=generator())
    assert torch.equal(found.images[0], x)
    assert (found.images[1] != x).any()
    assert (found.length[0] == 0).all()


def test_rows_are_not_columns() -> None:
    """Pictures that differ along one axis alone, of 5 pixels, the other of 8, are moved along that one."""
    rows = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    for x in (rows.expand(2, 1, 5, 8), rows.T.expand(2, 1, 8, 5)):
        w = normals(*x.shape[1:])
        along = 2 if x.shape[2] == 5 else 3
        attack = Transformed(transformations=(Flow(1.0, 0.0),), steps=20)
        found = attack(Linear(w), x, torch.zeros(2, dtype=torch.int64), epsilon=0.5, generator=generator())
        assert (found.images != x).any()
        assert (found.images - x).abs().amax() <= 0.5 / 4 + 1e-12
        flat = x.mean(along, keepdim=True).expand_as(x)
        still = attack(Linear(w), flat, torch.zeros(2, dtype=torch.int64), epsilon=0.5, generator=generator()).images
        torch.testing.assert_close(still, flat, rtol=0, atol=1e-12)


def test_confidence_has_no_goal_and_grows() -> None:
    digits, model = digits_as_tensors(), trained_net()
    x, y = digits.test[:50], digits.labels[:50]
    found = StAdv(objective="wrong_confidence")(model, x, y, epsilon=[0.0, 0.3, 1.0], generator=generator())
    assert (found.objective[2].mean() > found.objective[1].mean()) & (
        found.objective[1].mean() > found.objective[0].mean()
    )


def test_records_name_the_measure() -> None:
    digits, model = digits_as_tensors(), trained_net()
    planned = {name: one for name, one in suite("digits", attacks=["stadv", "rotation"]).items() if "_" in name}
    some = {name: planned[name] for name in ("stadv_flow", "rotation_rigid")}
    records = evaluate(model, (digits.test[:20], digits.labels[:20]), some, validation=2, device="cpu")
    assert records["norm"].values.tolist() == ["flow", "rigid"]
    assert float(records["length"].max()) <= 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StAdv("linf"), "norm = 'linf' is unknown: allowed is one of flow"),
        (lambda: Rotation(FlowSize()), "norm = FlowSize() is not allowed: one of rigid is"),
        (lambda: pgd(FlowSize()), "norm = FlowSize() is of the wrong type: allowed is one of linf"),  # type: ignore[arg-type]
        (lambda: StAdv(tau=-1.0), "tau = -1.0 is out of range"),
        (lambda: StAdv(kappa=-1.0), "kappa = -1.0 is out of range"),
        (lambda: StAdv(relaxation=0.0), "relaxation = 0.0 is out of range"),
        (lambda: StAdv(steps=0), "steps = 0 is out of range"),
        (lambda: StAdv(optimiser="sgd"), "optimiser = 'sgd' is unknown: allowed is one of adam, lbfgs"),  # type: ignore[arg-type]
        (lambda: ReColorAdv(smoothness=-1.0), "smoothness = -1.0 is out of range"),
        (lambda: Combined(colour=0, flow=0, additive=0), "colour = flow = additive = 0 is not allowed"),
        (lambda: Combined(flow=-1.0), "flow = -1.0 is out of range"),
        (lambda: Transformed(transformations=()), "transformations = () are not allowed: a tuple of them is"),
        (lambda: Transformed(transformations=(StAdv(),)), "are not allowed: a tuple of them is"),  # type: ignore[arg-type]
        (lambda: Rotation(angles=0), "angles = 0 is out of range"),
        (lambda: Rotation(search="all"), "search = 'all' is unknown: allowed is one of grid, random"),  # type: ignore[arg-type]
        (lambda: Rotation(angle=200.0), "angle = 200.0 is out of range"),
    ],
    ids=[f"case {k}" for k in range(16)],
)
def test_bad_options(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("attack", "shape", "message"),
    [
        (StAdv(), (3, 20), "images of shape (3, 20) are not allowed: (n, channels, height, width) is"),
        (Rotation(), (3, 20), "images of shape (3, 20) are not allowed: (n, channels, height, width) is"),
        (ReColorAdv(), (3, 2, 4, 4), "images with 2 channels are not allowed for colours: 1 (grey) or 3 (RGB) are"),
        (Combined(), (3, 4, 4, 4), "images with 4 channels are not allowed for colours: 1 (grey) or 3 (RGB) are"),
        (ReColorAdv(bounds=(-1, 1)), (3, 3, 4, 4), "bounds = (-1.0, 1.0) are not allowed for colours: (0, 1) are"),
    ],
    ids=["stadv", "rotation", "recolor", "combined", "bounds"],
)
def test_images_that_they_cannot_change(attack: BudgetAttack, shape: tuple[int, ...], message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=re.escape(message)):
        attack(model, torch.zeros(shape), torch.zeros(3, dtype=torch.int64), epsilon=0.1, generator=generator())


def test_a_flow_of_one_pixel_images_is_nothing() -> None:
    model = Linear(normals(1, 1, 1))
    found = StAdv()(
        model, torch.full((2, 1, 1, 1), 0.3), torch.zeros(2, dtype=torch.int64), epsilon=1.0, generator=generator()
    )
    assert torch.equal(found.images, torch.full((2, 1, 1, 1), 0.3))


def test_all_colours_alike_change_alike() -> None:
    """The images of an attack, and not the map alone."""
    x = torch.rand(4, 3, 5, 5, generator=generator(), dtype=torch.float64)
    x[:, :, 3, 2] = x[:, :, 1, 4]
    attack = Transformed(transformations=(Colour(0.1, grid=(4, 5, 6)),), steps=10)
    found = attack(Linear(normals(3, 5, 5)), x, torch.zeros(4, dtype=torch.int64), epsilon=1.0, generator=generator())
    torch.testing.assert_close(found.images[:, :, 3, 2], found.images[:, :, 1, 4], rtol=0, atol=1e-12)
    assert (found.images - x).abs().amax() > 0.01
