"""Objectives against their formulas, one example at a time; gradients, invariances, and when they are reached."""

import math
import re

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from deepcheck.attacks.objectives import (
    DLR,
    OBJECTIVES,
    AnyConfidence,
    CrossEntropy,
    Divergence,
    Margin,
    Objective,
    Targeted,
    TargetedCrossEntropy,
    TargetedDLR,
    TargetedMargin,
    TargetedOdds,
    WrongConfidence,
    WrongOdds,
    objective,
)
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device

Row = npt.NDArray[np.float64]


def examples(n: int = 40, K: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, and targets that are other classes."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, K, generator=draw, dtype=torch.float64)
    labels = torch.randint(K, (n,), generator=draw)
    targets = (labels + torch.randint(1, K, (n,), generator=draw)) % K
    return logits, labels, targets


def reference(n: int = 40, K: int = 5) -> Tensor:
    """Log-probabilities to compare with."""
    draw = torch.Generator().manual_seed(1)
    return (2 * torch.randn(n, K, generator=draw, dtype=torch.float64)).log_softmax(1)


def compared(one: Objective, targets: Tensor, logits: Tensor) -> Tensor:
    """What an objective needs beside labels: classes to reach, or log-probabilities."""
    return reference(*logits.shape) if one.compares else targets


def softmax(z: Row) -> Row:
    p: Row = np.exp(z) / np.exp(z).sum()
    return p


def largest_other(z: Row, k: int) -> float:
    return max(float(value) for index, value in enumerate(z) if index != k)


def formula(name: str, z: Row, y: int, t: int, log_q: Row) -> float:
    p, s = softmax(z), np.sort(z)[::-1]
    values = {
        "cross_entropy": -math.log(p[y]),
        "margin": largest_other(z, y) - z[y],
        "wrong_confidence": math.log(largest_other(p, y)),
        "any_confidence": math.log(p.max()),
        "divergence": sum(math.exp(a) * (a - math.log(b)) for a, b in zip(log_q, p, strict=True)),
        "dlr": -(z[y] - largest_other(z, y)) / (s[0] - s[2]),
        "targeted_cross_entropy": math.log(p[t]),
        "targeted_margin": z[t] - largest_other(z, t),
        "targeted_dlr": -(z[y] - z[t]) / (s[0] - (s[2] + s[3]) / 2),
        "wrong_odds": math.log(largest_other(p, y) / (1 - largest_other(p, y))),
        "targeted_odds": math.log(p[t] / (1 - p[t])),
    }
    return float(values[name])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_its_formula(name: str) -> None:
    logits, labels, targets = examples()
    values = OBJECTIVES[name](logits, labels, compared(OBJECTIVES[name], targets, logits))
    rows = zip(logits.numpy(), labels, targets, reference().numpy(), strict=True)
    expected = [formula(name, z, int(y), int(t), log_q) for z, y, t, log_q in rows]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-11, atol=1e-13)


def gradient(one: Objective, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    z = logits.clone().requires_grad_()
    (g,) = torch.autograd.grad(one(z, labels, compared(one, targets, logits)).sum(), z)
    return g


def test_gradients_in_closed_form() -> None:
    """With unit vectors e: e_k - e_y for a margin, and p - e_y or e_k - p for logarithms of probabilities."""
    logits, y, t = examples()
    p = logits.softmax(1)

    def e(classes: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(classes, 5).double()

    k = (logits - 1e9 * e(y)).argmax(1)
    k_t = (logits - 1e9 * e(t)).argmax(1)
    expected: list[tuple[Objective, Tensor]] = [
        (CrossEntropy(), p - e(y)),
        (Margin(), e(k) - e(y)),
        (WrongConfidence(), e(k) - p),
        (AnyConfidence(), e(logits.argmax(1)) - p),
        (Divergence(), p - reference().exp()),
        (TargetedCrossEntropy(), e(t) - p),
        (TargetedMargin(), e(t) - e(k_t)),
        (WrongOdds(), (e(k) - p) / (1 - p.gather(1, k[:, None]))),
        (TargetedOdds(), (e(t) - p) / (1 - p.gather(1, t[:, None]))),
    ]
    for one, g in expected:
        torch.testing.assert_close(gradient(one, logits, y, t), g, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_by_finite_differences(name: str) -> None:
    logits, labels, targets = examples()
    one, h = OBJECTIVES[name], 1e-6
    g = gradient(one, logits, labels, targets)
    targets = compared(one, targets, logits)
    for k in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[k] = h
        slope = (one(logits + step, labels, targets) - one(logits - step, labels, targets)) / (2 * h)
        torch.testing.assert_close(g[:, k], slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["dlr", "targeted_dlr"])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1e-3), (7.0, 1.0), (-300.0, 50.0)])
def test_ratios_do_not_change_with_shift_and_scale_of_the_logits(name: str, shift: float, scale: float) -> None:
    logits, labels, targets = examples()
    torch.testing.assert_close(
        OBJECTIVES[name](scale * logits + shift, labels, targets),
        OBJECTIVES[name](logits, labels, targets),
        rtol=1e-8,
        atol=1e-10,
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_changes_with_the_shift_of_the_logits(name: str) -> None:
    logits, labels, targets = examples()
    targets = compared(OBJECTIVES[name], targets, logits)
    shifted = OBJECTIVES[name](logits + 12.5, labels, targets)
    torch.testing.assert_close(shifted, OBJECTIVES[name](logits, labels, targets), rtol=1e-10, atol=1e-12)


def test_signs_tell_whether_an_example_is_misclassified_or_its_target_reached() -> None:
    logits, labels, targets = examples(400)
    prediction = logits.argmax(1)
    for one in (Margin(), DLR()):
        assert torch.equal(one(logits, labels) > 0, prediction != labels)
    assert torch.equal(TargetedMargin()(logits, labels, targets) > 0, prediction == targets)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_when_it_is_reached(name: str) -> None:
    logits, labels, targets = examples(400)
    one = OBJECTIVES[name]
    reached = one.reached(logits, labels, targets)
    if name in ("wrong_confidence", "any_confidence", "divergence"):
        assert reached is None
        return
    prediction = logits.numpy().argmax(1)
    expected = prediction == targets.numpy() if one.targeted else prediction != labels.numpy()
    if one.seeks == "confidence":  # of more than a half
        expected &= logits.softmax(1).numpy().max(1) >= 0.5
    assert reached is not None
    assert reached.tolist() == expected.tolist()
    assert 0 < expected.sum() < 400
    assert one.targeted == name.startswith("targeted")


def test_logarithms_do_not_underflow() -> None:
    """In single precision exp(-1000) is 0, but its logarithm has a value and a slope."""
    logits = torch.tensor([[1000.0, 0.0, -500.0]])
    y, t = torch.tensor([0]), torch.tensor([2])
    for one, value in ((WrongConfidence(), -1000), (TargetedCrossEntropy(), -1500), (CrossEntropy(), 0)):
        assert float(one(logits, y, t)) == value
    assert gradient(WrongConfidence(), logits, y, t).tolist() == [[-1, 1, 0]]
    assert gradient(TargetedCrossEntropy(), logits, y, t).tolist() == [[-1, 0, 1]]


def test_cross_entropy_has_its_digits_where_the_class_is_nearly_sure() -> None:
    """In single precision 1 - p_y, from p_y, has one digit left at 1e-7; and none at 1e-12, of value nor slope."""
    exact = torch.tensor([[16.0, 0.0, -1.0], [0.0, 27.5, -2.0], [3.0, -80.0, -60.0]], dtype=torch.float64)
    y = torch.tensor([0, 1, 0])
    p = exact.softmax(1)
    others = p.scatter(1, y[:, None], 0)
    one = CrossEntropy()
    torch.testing.assert_close(one(exact.float(), y).double(), others.sum(1), rtol=1e-5, atol=0)
    expected = others.scatter(1, y[:, None], -others.sum(1, keepdim=True))
    torch.testing.assert_close(gradient(one, exact.float(), y, y).double(), expected, rtol=1e-5, atol=0)


def test_cross_entropy_of_sure_mistakes_and_masked_classes() -> None:
    logits = torch.tensor([[-100.0, 500.0, 0.0], [0.0, -torch.inf, -torch.inf], [-torch.inf, 1.0, 1.0]])
    values = CrossEntropy()(logits, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(values, torch.tensor([600.0, 0.0, math.log(2)]))
    slopes = gradient(CrossEntropy(), logits[:1], torch.tensor([0]), torch.tensor([1]))
    assert slopes.tolist() == [[-1, 1, 0]]


def test_ratios_of_few_classes_can_be_the_difference_alone() -> None:
    logits, labels, targets = examples(K=3)
    dlr, targeted = DLR(few_classes="difference"), TargetedDLR(few_classes="difference")
    two, y, t = logits[:, :2], labels.clamp(max=1), 1 - labels.clamp(max=1)
    assert torch.equal(dlr(two, y), Margin()(two, y))
    assert torch.equal(targeted(two, y, t), Margin()(two, y))
    at = torch.arange(len(logits))
    assert torch.equal(targeted(logits, labels, targets), logits[at, targets] - logits[at, labels])
    assert torch.equal(dlr(logits, labels), DLR()(logits, labels))
    more, y, t = examples(K=4)
    assert torch.equal(targeted(more, y, t), TargetedDLR()(more, y, t))
    for kind in (DLR, TargetedDLR):
        with pytest.raises(ValueError, match="few_classes = 'fail' is unknown"):
            kind(few_classes="fail")  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0.05, 0.2, 0.5, 0.9, 0.999])
def test_odds_are_positive_where_the_confidence_is_more_than_the_level(level: float) -> None:
    logits, y, t = examples(4000)
    p = logits.softmax(1).numpy()
    others = np.where(np.arange(5) == y.numpy()[:, None], 0, p)
    reached = {"target": p[np.arange(len(p)), t] >= level, "wrong": (others >= level).any(1)}
    assert 0 < reached["target"].sum() < reached["wrong"].sum() < len(p)
    assert np.array_equal(TargetedOdds(level)(logits, y, t).numpy() >= 0, reached["target"])
    assert np.array_equal(WrongOdds(level)(logits, y).numpy() >= 0, reached["wrong"])
    for goal in ("target", "wrong"):
        found = TargetedOdds(level, goal=goal).reached(logits, y, t)
        assert found is not None
        assert np.array_equal(found.numpy(), reached[goal])
    found = WrongOdds(level).reached(logits, y)
    assert found is not None
    assert np.array_equal(found.numpy(), reached["wrong"])


def test_odds_have_their_digits_where_the_class_is_nearly_sure_or_nearly_excluded() -> None:
    """In single precision p / (1 - p) of p has one digit left where 1 - p is 1e-7, and none where it is 1e-12."""
    exact = torch.tensor([[16.0, 0.0, -1.0], [0.0, 27.5, -2.0], [3.0, -80.0, -60.0]], dtype=torch.float64)
    t = torch.tensor([0, 1, 1])
    y = (t + 1) % 3
    p = exact.softmax(1)
    others = p.scatter(1, t[:, None], 0)
    one = TargetedOdds()
    at = p.gather(1, t[:, None]).squeeze(1)
    torch.testing.assert_close(one(exact.float(), y, t).double(), (at / others.sum(1)).log(), rtol=1e-6, atol=0)
    expected = (-others / others.sum(1, keepdim=True)).scatter(1, t[:, None], 1.0)
    torch.testing.assert_close(gradient(one, exact.float(), y, t).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [TargetedCrossEntropy, TargetedMargin, TargetedDLR, TargetedOdds])
def test_never_is_never_finished(kind: type[Targeted]) -> None:
    logits, labels, targets = examples()
    never = kind(goal="never")
    assert never.reached(logits, labels, targets) is None
    assert torch.equal(never(logits, labels, targets), kind()(logits, labels, targets))
    wrong = kind(goal="wrong").reached(logits, labels, targets)
    assert wrong is not None
    assert wrong.any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_logits_give_finite_values_and_slopes(name: str) -> None:
    logits, labels, targets = torch.zeros(3, 4), torch.tensor([0, 1, 2]), torch.tensor([3, 2, 1])
    one = OBJECTIVES[name]
    assert one(logits, labels, compared(one, targets, logits)).isfinite().all()
    assert gradient(one, logits, labels, targets).isfinite().all()


def test_two_classes_are_enough_for_all_but_the_ratios() -> None:
    """With two classes, the confidence in the wrong one is the cross-entropy's log(1 - p_y)."""
    logits, _, _ = examples(K=2)
    labels = torch.zeros(len(logits), dtype=torch.int64)
    difference = logits[:, 1] - logits[:, 0]
    torch.testing.assert_close(Margin()(logits, labels), difference)
    torch.testing.assert_close(WrongConfidence()(logits, labels), torch.nn.functional.logsigmoid(difference))
    torch.testing.assert_close(CrossEntropy()(logits, labels), -torch.nn.functional.logsigmoid(-difference))


# --- names and bad input ---


def test_objectives_by_name() -> None:
    assert len(OBJECTIVES) == 11
    for name, one in OBJECTIVES.items():
        assert objective(name) == one
        assert one.name == name
    own = DLR()
    assert objective(own) is own


def test_bad_input() -> None:
    logits, labels, targets = examples(K=3)
    allowed = "allowed is one of cross_entropy, margin, wrong_confidence, any_confidence, dlr"
    with pytest.raises(ValueError, match=re.escape("objective = 'crossentropy' is unknown (did you mean 'cross_ent")):
        objective("crossentropy")
    with pytest.raises(ValueError, match=re.escape(f"objective = 'hinge' is unknown: {allowed}")):
        objective("hinge")
    with pytest.raises(TypeError, match=re.escape(f"objective = 3 is of the wrong type: {allowed}")):
        objective(3)  # type: ignore[arg-type]
    for one in (TargetedCrossEntropy(), TargetedMargin(), TargetedDLR(), TargetedOdds()):
        with pytest.raises(ValueError, match="targets = None is not allowed"):
            one(torch.zeros(2, 4), torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="targets = None is not allowed"):
            one.reached(torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="targets = None is not allowed: a divergence needs log-probabilities"):
        Divergence()(logits, labels)
    with pytest.raises(ValueError, match="the model has 3 classes: this difference of logits ratio needs 4"):
        TargetedDLR()(logits, labels, targets)
    with pytest.raises(ValueError, match="the model has 2 classes: this difference of logits ratio needs 3"):
        DLR()(logits[:, :2], labels.clamp(max=1))
    with pytest.raises(
        ValueError, match=re.escape("goal = 'always' is unknown: allowed is one of target, wrong, never")
    ):
        TargetedMargin(goal="always")  # type: ignore[arg-type]
    for kind in (TargetedOdds, WrongOdds):
        for level in (0, 1, -0.1, 1.5, math.nan):
            with pytest.raises(
                ValueError, match=r"level = .* is out of range: allowed is a finite number and > 0 and < 1"
            ):
                kind(level)
