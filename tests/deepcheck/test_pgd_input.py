"""Bad configurations and bad input of projected gradient ascent: one clear error each."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deepcheck.attacks.norms import L0, L1
from deepcheck.attacks.objectives import Margin
from deepcheck.attacks.pgd import PGD, pgd
from deepcheck.attacks.starts import OneOf
from deepcheck.models import build
from tests.deepcheck.pgd_cases import Smooth, generator, pictures


def test_norms_may_be_given_by_name() -> None:
    assert PGD("l1", "margin", steps=1, step_size=1) == PGD(L1(), Margin(), steps=1, step_size=1)
    assert PGD("l0", steps=1, step_size=1) != PGD(L0(coordinates=3), steps=1, step_size=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "lin"}, "norm = 'lin' is unknown (did you mean 'linf'?): allowed is one of linf, l2, l1, l0"),
        (
            {"objective": "margins"},
            "objective = 'margins' is unknown (did you mean 'margin'?): allowed is one of cross",
        ),
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"steps": 2.5}, "steps = 2.5 is out of range: allowed is a whole number >= 1"),
        ({"restarts": 0}, "restarts = 0 is out of range: allowed is a whole number >= 1"),
        ({"relative_step_size": None}, "step_size = None and relative_step_size = None: allowed is one of the two"),
        ({"step_size": 0.1}, "step_size = 0.1 and relative_step_size = 0.5: allowed is one of the two"),
        ({"relative_step_size": 0.0}, "relative_step_size = 0.0 is out of range: allowed is a finite number and > 0"),
        (
            {"relative_step_size": math.nan},
            "relative_step_size = nan is out of range: allowed is a finite number and > 0",
        ),
        (
            {"relative_step_size": None, "step_size": -1.0},
            "step_size = -1.0 is out of range: allowed is a finite number and > 0",
        ),
        (
            {"relative_step_size": None, "step_size": math.inf},
            "step_size = inf is out of range: allowed is a finite number and > 0",
        ),
        ({"momentum": 1.0}, "momentum = 1.0 is out of range: allowed is a finite number and >= 0 and < 1"),
        ({"momentum": -0.1}, "momentum = -0.1 is out of range: allowed is a finite number and >= 0 and < 1"),
        (
            {"momentum": -0.1, "momentum_of": "gradient"},
            "momentum = -0.1 is out of range: allowed is a finite number and >= 0",
        ),
        ({"momentum_of": "velocity"}, "momentum_of = 'velocity' is not allowed: direction or gradient is"),
        ({"backtracking": 1.0}, "backtracking = 1.0 is out of range: allowed is a finite number and > 1"),
        ({"start": "zero"}, "start = 'zero' is not allowed: a Start, say Zero() or UniformBall() is"),
        ({"keep": "first"}, "keep = 'first' is not allowed: best or last is"),
        ({"targets": "random"}, "targets = 'random' is not allowed: given, least_likely or likeliest is"),
        ({"bounds": (1.0, 0.0)}, "bounds = (1.0, 0.0) is not allowed: two numbers, the lower first, are"),
        ({"bounds": (0.0, math.nan)}, "bounds = (0.0, nan) is not allowed: two numbers, the lower first, are"),
        ({"bounds": (0.0, 0.5, 1.0)}, "bounds = (0.0, 0.5, 1.0) is not allowed: two numbers, the lower first, are"),
        ({"bounds": 1.0}, "bounds = 1.0 is not allowed: two numbers, the lower first, are"),
        ({"keep": "last", "restarts": 2}, "stop_when_reached = True is not allowed: False where the last iterate of"),
    ],
)
def test_bad_configurations(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"norm": "linf", "steps": 3, "relative_step_size": 0.5}
    with pytest.raises(ValueError, match=re.escape(message)):
        PGD(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": 2}, "norm = 2 is of the wrong type: allowed is one of linf, l2, l1, l0"),
        ({"objective": None}, "objective = None is of the wrong type: allowed is one of cross_entropy, margin"),
        ({"steps": "10"}, "steps = '10' is not a number"),
        ({"relative_step_size": "0.5"}, "relative_step_size = '0.5' is not a number"),
        ({"momentum": "0.9"}, "momentum = '0.9' is not a number"),
        ({"backtracking": "2"}, "backtracking = '2' is not a number"),
        ({"stop_when_reached": "no"}, "stop_when_reached = 'no' is not a bool: allowed is True or False"),
    ],
)
def test_configurations_of_the_wrong_type(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"norm": "linf", "steps": 3, "relative_step_size": 0.5}
    with pytest.raises(TypeError, match=re.escape(message)):
        PGD(**(arguments | change))  # type: ignore[arg-type]


def test_whole_numbers_may_be_floats() -> None:
    images, labels = pictures(5)
    results = [
        PGD("l1", steps=steps, relative_step_size=0.5, restarts=restarts)(  # type: ignore[arg-type]
            Smooth(24),
            images,
            labels,
            epsilon=1.0,
            generator=generator(),
            batch_size=batch_size,  # type: ignore[arg-type]
        ).images
        for steps, restarts, batch_size in ((3, 2, 4), (3.0, 2.0, 4.0))  # as they come out of a division
    ]
    assert torch.equal(*results)


def arguments_of_a_call() -> dict[str, object]:
    net = build("conv_small", 4, (1, 8, 8), generator=generator(3))
    images, labels = torch.rand(5, 1, 8, 8, generator=generator(4)), torch.tensor([0, 1, 2, 3, 0])
    return {"model": net, "images": images, "labels": labels, "epsilon": 0.1, "generator": generator()}


NAN = torch.rand(5, 1, 8, 8)
NAN[3, 0, 2, 1] = math.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": torch.full((5, 1, 8, 8), 255.0)},
            "images have pixels in [255, 255]: allowed is [0.0, 1.0]; divide bytes by 255",
        ),
        ({"images": torch.full((5, 1, 8, 8), -0.25)}, "images have pixels in [-0.25, -0.25]: allowed is [0.0, 1.0]"),
        ({"images": NAN}, "images[3] has NaN pixels: allowed are numbers in [0.0, 1.0]"),
        ({"images": torch.rand(5, 3, 8, 8)}, "x has the shape (1, 3, 8, 8): allowed is (n, 1, 8, 8)"),
        (
            {"images": torch.rand(5)},
            "images of shape (5,) and labels of shape (5,) do not go together: allowed are (n,",
        ),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, "images of shape (5, 1, 8, 8) and labels of shape (4,) do not"),
        (
            {"labels": torch.tensor([0, 1, 2, 3, 4])},
            "labels have the value 4, but the model has 4 classes: allowed is 0",
        ),
        ({"labels": torch.tensor([0, 1, 2, 3, -1])}, "labels have the value -1: allowed is a class, 0 or more"),
        ({"epsilon": -0.1}, "epsilon = -0.1 is not allowed: a finite number >= 0 is"),
        ({"epsilon": [0.1, math.nan]}, "epsilon = nan is not allowed: a finite number >= 0 is"),
        ({"epsilon": math.inf}, "epsilon = inf is not allowed: a finite number >= 0 is"),
        ({"epsilon": []}, "epsilon = [] is not allowed: at least one number is"),
        ({"batch_size": 0}, "batch_size = 0 is out of range: allowed is a whole number >= 1"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets are not allowed: the objective has none"),
        (
            {"model": lambda x: x.flatten(1)[:, 0]},
            "model returned logits of shape (1,) for 1 images: allowed is (n, K)",
        ),
        ({"model": lambda x: x.flatten(1)[:, :1]}, "model returned logits of shape (1, 1) for 1 images: allowed is"),
        ({"model": lambda x: x.flatten(1)[:, :4] / 0}, "model returned logits that are not finite"),
        ({"model": lambda x: x.detach().flatten(1)[:, :4]}, "model has no gradient by its images: allowed is one that"),
        (
            {"model": lambda x: torch.zeros(len(x), 4, requires_grad=True)},
            "model has no gradient by its images: allowed is one that",
        ),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    attack = pgd(steps=2, relative_step_size=0.5)
    with pytest.raises(ValueError, match=re.escape(message)):
        attack(**(arguments_of_a_call() | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [[0.5]]}, "images are of the wrong type list: allowed is a tensor of a floating type"),
        (
            {"images": torch.zeros(5, 1, 8, 8, dtype=torch.uint8)},
            "images are of the wrong type torch.uint8: allowed is a tensor of a floating type",
        ),
        ({"labels": torch.zeros(5)}, "labels are of the wrong type torch.float32: allowed is a tensor of torch.int64"),
        ({"labels": [0] * 5}, "labels are of the wrong type list: allowed is a tensor of torch.int64"),
        ({"epsilon": "12"}, "epsilon = '12' is of the wrong type: allowed is a number or a list of them"),
        ({"epsilon": None}, "epsilon = None is of the wrong type: allowed is a number or a list of them"),
        ({"batch_size": "all"}, "batch_size = 'all' is not a number"),
    ],
)
def test_input_of_the_wrong_type(change: dict[str, object], message: str) -> None:
    attack = pgd(steps=2, relative_step_size=0.5)
    with pytest.raises(TypeError, match=re.escape(message)):
        attack(**(arguments_of_a_call() | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "targets = None is not allowed: a torch.int64 tensor of shape (5,) is, or (m, 5) for"),
        (
            torch.zeros(5),
            "targets = torch.float32 of shape (5,) is not allowed: a torch.int64 tensor of shape (5,) is, or (m, 5) for",
        ),
        (
            torch.zeros(4, dtype=torch.int64),
            "targets = torch.int64 of shape (4,) is not allowed: a torch.int64 tensor of shape (5,) is, or (m, 5) for",
        ),
        (torch.full((5,), 4), "targets have the value 4, but the model has 4 classes: allowed is 0..3"),
        (torch.full((5,), -1), "targets have the value -1: allowed is a class, 0 or more"),
    ],
)
def test_bad_targets(targets: Tensor | None, message: str) -> None:
    attack = PGD("linf", "targeted_margin", steps=2, relative_step_size=0.5)
    with pytest.raises(ValueError, match=re.escape(message)):
        attack(**arguments_of_a_call(), targets=targets)  # type: ignore[arg-type]


def test_the_least_likely_class_needs_a_targeted_objective_and_no_targets() -> None:
    attack = PGD("linf", steps=2, relative_step_size=0.5, targets="least_likely")
    with pytest.raises(ValueError, match="the objective has no target"):
        attack(**arguments_of_a_call())  # type: ignore[arg-type]
    attack = replace(attack, objective="targeted_margin")
    with pytest.raises(ValueError, match="the attack takes the least likely class"):
        attack(**arguments_of_a_call(), targets=torch.zeros(5, dtype=torch.int64))  # type: ignore[arg-type]


def test_no_start_at_all() -> None:
    with pytest.raises(ValueError, match=re.escape("starts = () is not allowed: at least one start is")):
        OneOf(())
