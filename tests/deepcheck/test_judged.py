"""Attacks that search in lower precision, and are judged by the net as it is; attacks on compiled nets."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks import PGD, Square
from deepcheck.attacks.base import Attacked
from deepcheck.attacks.judged import InPrecision, Quick, in_precision
from deepcheck.attacks.starts import Zero
from deepcheck.defences import BitDepth
from deepcheck.evaluation import Planned, evaluate, robust_error
from deepcheck.evaluation.suites import adaptive
from tests.deepcheck.pgd_cases import generator


class Near(nn.Module):
    """Two classes that differ by 0.003 on a white image: the first is larger. In bfloat16 the second is, by 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 2, bias=False)
        first, second = torch.full((64,), 1.0038), torch.full((64,), 1.0040)
        second[:4] = 1.0
        self.linear.weight.data.copy_(torch.stack([first, second]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


WHITE, FIRST = torch.ones(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
ATTACK = PGD("linf", "margin", steps=10, relative_step_size=0.25, start=Zero(), restarts=2)


def test_a_net_that_errs_in_bfloat16_alone_is_not_broken() -> None:
    model, quick = Near(), Quick(Near(), "bfloat16")
    with torch.no_grad():
        assert (model(WHITE).argmax(1) == 0).all()
        assert (quick(WHITE).argmax(1) == 1).all()
    misled = ATTACK(quick, WHITE, FIRST, epsilon=0.0, generator=generator())
    assert (misled.prediction == 1).all()
    found = InPrecision(ATTACK)(model, WHITE, FIRST, epsilon=0.0, generator=generator())
    assert found.prediction.shape == (1, 3)
    assert (found.prediction == 0).all()
    records = evaluate(model, (WHITE, FIRST), {"pgd": Planned(ATTACK, (0.0,))}, precision="bfloat16")
    assert robust_error(records, epsilon=0.0, norm="linf") == 0


def test_an_example_that_only_rounding_broke_is_attacked_on_the_net_itself() -> None:
    x = WHITE.clone()
    x[1] = 0.0  # at 0 the classes are equal, and the first is said: any step up breaks it in either precision
    found = InPrecision(ATTACK)(Near(), x, FIRST, epsilon=[0.0, 0.1, 0.3], generator=generator())
    exact = ATTACK(Near(), x, FIRST, epsilon=[0.0, 0.1, 0.3], generator=generator())
    assert torch.equal(found.prediction[:, 0], exact.prediction[:, -1])
    assert found.prediction[:, 0, 0].tolist() == [0, 0, 1]
    torch.testing.assert_close(found.confidence[2, 0, 0], exact.confidence[2, -1, 0])
    assert found.length[2, 0, 0] == pytest.approx(0.3, rel=0.5)
    with torch.no_grad():
        assert torch.equal(Near()(found.images[2]).argmax(1), found.prediction[2, 0])


def test_what_the_model_is_given_in_the_search() -> None:
    seen: list[tuple[bool, bool, bool]] = []

    def model(x: Tensor) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        seen.append((torch.is_autocast_enabled("cpu"), last, x.requires_grad))
        return x.flatten(1)[:, :4]

    x, y = torch.rand(3, 2, 4, 4), torch.tensor([0, 1, 2])
    attack = in_precision(ATTACK, "bfloat16", channels_last=True)
    attack(model, x, y, epsilon=0.01, generator=generator())
    assert {one[:2] for one in seen} == {(True, True), (False, False)}
    assert all(autocast for autocast, _, gradient in seen if gradient)
    assert seen[-1] == (False, False, False)  # the judge
    assert in_precision(ATTACK) is ATTACK
    seen.clear()
    Quick(model, "float32")(x)
    assert seen == [(False, False, False)]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))


@pytest.fixture(scope="module")
def examples() -> tuple[Tensor, Tensor]:
    x = torch.rand(12, 2, 4, 4, generator=generator(1))
    with torch.no_grad():
        return x, small().eval()(x).argmax(1)


@pytest.fixture(scope="module")
def records(examples: tuple[Tensor, Tensor]) -> xr.Dataset:
    planned = {
        "pgd": Planned(ATTACK, (0.01, 0.05)),
        "square": Planned(Square("l2", "wrong_confidence", queries=20), (0.3,)),
    }
    return evaluate(small(), examples, planned, precision="bfloat16", channels_last=True, keep_images=True)


def test_what_is_recorded_is_what_the_net_says_in_float32(records: xr.Dataset) -> None:
    model = small().eval()
    for attack, epsilon in (("pgd", 0.01), ("pgd", 0.05), ("square", 0.3)):
        kept = (records.kept_attack == attack) & (abs(records.kept_epsilon - epsilon) < 1e-9)
        images = torch.tensor(records.attacked_image.values[kept.values][0])
        with torch.no_grad():
            confidence, prediction = model(images).softmax(1).max(1)
        one = records.sel(attack=attack, epsilon=epsilon).isel(restart=0)
        assert one.prediction.values.tolist() == prediction.tolist()
        torch.testing.assert_close(torch.tensor(one.confidence.values), confidence, rtol=1e-5, atol=0)
    assert (records.clean_prediction == records.label).all()


def test_the_precision_is_recorded(records: xr.Dataset, examples: tuple[Tensor, Tensor]) -> None:
    def search(data: xr.Dataset) -> object:
        return json.loads(data.attrs["configuration"])["options"]["search"]

    assert search(records) == {"precision": "bfloat16", "channels_last": True}
    plain = evaluate(small(), examples, {"pgd": Planned(ATTACK, (0.01,))})
    assert search(plain) == {"precision": "float32", "channels_last": False}


def test_a_defence_is_searched_in_lower_precision_and_judged_itself(examples: tuple[Tensor, Tensor]) -> None:
    planned = adaptive({"pgd": Planned(ATTACK, (0.05,))})
    data = evaluate(BitDepth(small(), bits=3), examples, planned, precision="bfloat16")
    assert data.sizes["restart"] == 1
    assert (data.prediction >= 0).all()


def test_precisions_that_are_not_allowed(examples: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match=re.escape("precision = 'float16' is unknown")):
        evaluate(small(), examples, {"pgd": Planned(ATTACK, (0.05,))}, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision"):
        InPrecision(ATTACK, "half")  # type: ignore[arg-type]


def test_an_attack_that_says_itself_when_it_has_success_is_refused(examples: tuple[Tensor, Tensor]) -> None:
    class Judging(PGD):
        def __call__(self, *args: object, **options: object) -> Attacked:
            found = super().__call__(*args, **options)  # type: ignore[arg-type]
            object.__setattr__(found, "success", found.prediction == 0)
            return found

    attack = Judging("linf", steps=2, relative_step_size=0.5)
    with pytest.raises(TypeError, match="has a success of its own"):
        InPrecision(attack)(small(), *examples, epsilon=0.1, generator=generator())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch.compile looks at
def test_a_compiled_net_is_frozen_while_it_is_attacked_and_left_as_it_was(examples: tuple[Tensor, Tensor]) -> None:
    gradients: list[int] = []

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        gradients.append(sum(isinstance(one, nn.Parameter) and one.requires_grad for one in inputs))
        return graph.forward

    model: Any = torch.compile(small(), backend=backend, dynamic=True)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    planned = {"pgd": Planned(replace(ATTACK, steps=2, stop_when_reached=False), (0.05,))}
    data, plain = (evaluate(one, examples, planned) for one in (model, small()))
    assert (data.prediction == plain.prediction).all()
    assert gradients
    assert not any(gradients)  # in no graph that was compiled
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    model(examples[0])
    assert any(gradients)  # a training of the same net would have them
