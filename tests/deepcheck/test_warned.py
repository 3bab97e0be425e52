"""Looks before an evaluation: each warning on a net that it is for, and none on a plain one."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.evaluation import looked_at
from tests.deepcheck.attack_cases import Rowwise, classified, pictures

PAGE = Path(__file__).parents[2] / "docs" / "warnings.md"
NET = Rowwise()


def as_logits(x: Tensor) -> Tensor:
    return torch.as_tensor(NET(x))


def drawn(x: Tensor) -> Tensor:
    return as_logits(x + 0.05 * torch.randn(x.shape, dtype=x.dtype))


def rounded(x: Tensor) -> Tensor:
    return as_logits((x * 3).round() / 3)


def optimised(x: Tensor) -> Tensor:
    """The net at a point that lowers its largest logit, as a purification at test time would."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(NET(z).amax(1).sum(), z)
    return as_logits(x - 0.01 * gradient)


def backward(x: Tensor) -> Tensor:
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        NET(z).sum().backward()
    return as_logits(x)


def partly(x: Tensor) -> Tensor:
    return as_logits(x).masked_fill(x.flatten(1).mean(1, keepdim=True) > 0.5, torch.nan)


MODELS: dict[str, Model] = {
    "random-net": drawn,
    "no-gradient": rounded,
    "softmax": lambda x: NET(x).softmax(1),
    "test-time-optimisation": optimised,
    "few-classes": Rowwise(3),
    "not-finite": partly,
}


@pytest.mark.parametrize("name", MODELS)
def test_each_is_said_of_what_it_is_for(name: str) -> None:
    images = pictures(30)
    found = looked_at(MODELS[name], images, classified(NET, images).clamp(max=2), batch_size=7)
    assert [one.name for one in found] == [name]
    assert f"(docs/warnings.md#{name})" in str(found[0])


def test_nothing_is_said_of_a_plain_net() -> None:
    images = pictures(30)
    assert looked_at(NET, images, classified(NET, images)) == []
    assert [one.name for one in looked_at(backward, images, classified(NET, images))] == ["test-time-optimisation"]
    assert sys.getprofile() is None
    assert all(parameter.requires_grad for parameter in NET.parameters())


def test_each_has_its_place_on_the_page() -> None:
    text = PAGE.read_text()
    for name in MODELS:
        assert re.search(rf"^\({name}\)=$", text, re.MULTILINE), name


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="images are none: allowed is one or more"):
        looked_at(NET, pictures(0), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="images have pixels in"):
        looked_at(NET, pictures(3) + 1, torch.zeros(3, dtype=torch.int64))
