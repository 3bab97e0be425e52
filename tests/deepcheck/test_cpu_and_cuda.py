"""A GPU says what the CPU says, in float32: nets, attacks, steps of training, evaluations.

The two round differently. An ascent by signs amplifies that: where a pixel's gradient is no larger than its rounding, the pixel
may go the other way. The objective hardly notices, since it does not depend on such a pixel to first order. So what agrees is

- starts: the same bits where they are uniform numbers, else up to rounding;
- what a net says of the same images, and its gradients;
- objectives and confidences after a few steps, within `TOLERANCE`, and the class but for ties within it. Not the images. But for
  examples for which rounding decides, which are looked for (`steady`): the gradient of the cross-entropy by the true class's
  logit is p - 1, which single precision has in steps of 6e-8, so that an image about which a net is sure goes one way or
  another; and in L1 and L0 a step takes the pixel of the largest gradient, whose rival may be nearly as large.

How much rounding does is seen without a GPU: the same net in double precision differs from itself in single as much as a GPU
does. TF32, which keeps 10 bits of a number, does a hundred times more, and must not pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcheck import checkpoint, models
from deepcheck.attacks.draws import Draws, keys
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import Gaussian, Nearby, OneOf, Start, UniformBall, UniformLength, Zero
from deepcheck.device import exact_float32
from deepcheck.evaluation import Planned, evaluate, suite
from deepcheck.match import layer_features, linearity, margins, measured_curve
from deepcheck.training import METHODS, Recipe
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner
from tests.deepcheck.devices import DEVICES, NAMES, on
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

if TYPE_CHECKING:
    import xarray as xr

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
"""Of objectives and confidences after some steps, relative where they are larger than 1."""
ONE_PASS = 3e-5
"""Of logits, gradients and weights after a pass."""
NETS: dict[str, dict[str, int]] = {
    "linear": {},
    "conv_small": {},
    "conv_threshold": {},
    "madry_mnist": {},
    "resnet_ccat": {"channels": 8, "blocks": 1},
    "preact_resnet18": {"channels": 8},
    "wrn28_10": {"depth": 10, "width": 1},
}


class Doubled(nn.Module):
    """A net that computes in double precision, for images in single."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()
        self.in_shape = getattr(net, "in_shape", None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.net(x.double()).float())


class Rounded(nn.Module):
    """A net whose products are in TF32: of every factor 10 bits are kept. Gradients pass as they are."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.data = self._ten_bits(layer.weight.data)
                layer.register_forward_pre_hook(lambda _, inputs: self._ten_bits(inputs[0]))

    @staticmethod
    def _ten_bits(x: Tensor) -> Tensor:
        with torch.no_grad():
            size = torch.ldexp(torch.ones_like(x), torch.frexp(x).exponent - 11)
            off = (x / size).round() * size - x
        return x + off

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.net(x))


class Unsteady(nn.Module):
    """A net that rounds otherwise: pixels within, and the gradient by the logits, are off by half a unit of the last place."""

    def __init__(self, net: nn.Module, seed: int) -> None:
        super().__init__()
        self.net, self.draw = net, generator(seed)

    def _off(self, like: Tensor) -> Tensor:
        return (2 * torch.rand(like.shape, generator=self.draw) - 1) * torch.finfo(torch.float32).eps / 2

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.as_tensor(self.net(x * (1 + self._off(x))))
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient + self._off(gradient) * (gradient != 0))
        return logits


def _itself(net: nn.Module) -> nn.Module:
    return net


@dataclass(frozen=True)
class Place:
    """Where, and how, a net computes."""

    device: str = "cpu"
    wrapped: Callable[[nn.Module], nn.Module] = _itself

    def net(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Return a copy of the net here."""
        return self.wrapped(copy.deepcopy(net)).to(device)

    def run(self, function: Callable[..., Any], net: nn.Module, *tensors: Tensor) -> Any:
        """Return what a function makes of a copy of the net and of tensors that are here, as tensors on the CPU."""
        with on(self.device) as device, exact_float32():
            return _home(function(self.net(net, device), *(one.to(device) for one in tensors)))


HERE = Place()
ELSEWHERE = [
    pytest.param(Place("cpu", Doubled), id="double"),
    *(pytest.param(Place(name), id=name, marks=pytest.mark.cuda) for name in NAMES if name != "cpu"),
]
elsewhere = pytest.mark.parametrize("there", ELSEWHERE)


def _home(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.detach().cpu()
    if isinstance(found, dict):
        return {name: _home(one) for name, one in found.items()}
    return [_home(one) for one in found] if isinstance(found, list | tuple) else found


def agree(here: Any, there: Any, within: float = TOLERANCE) -> None:
    """Numbers, or tensors by name, are the same within the tolerance."""
    if isinstance(here, dict):
        assert here.keys() == there.keys()
        for name in here:
            agree(here[name], there[name], within)
        return
    torch.testing.assert_close(there.double(), here.double(), rtol=within, atol=within)


def steady(run: Callable[..., dict[str, Tensor]], net: nn.Module, here: dict[str, Tensor], *tensors: Tensor) -> Tensor:
    """Return for which examples rounding decides nothing: the last axis of what is found. They are most of them."""
    off = torch.zeros(len(tensors[0]))
    for seed in range(8):
        other = Place("cpu", partial(Unsteady, seed=seed)).run(run, net, *tensors)
        for name, one in here.items():
            apart = (other[name] - one).abs() / (1 + one.abs())
            off = torch.maximum(off, apart.reshape(-1, len(off)).amax(0))
    found = off < TOLERANCE
    assert found.sum() >= 0.75 * len(found)
    return found


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str) -> models.Network:
    options: dict[str, Any] = NETS[name]
    return models.build(name, 10, (1, 8, 8), generator=generator(), mean=[0.3], std=[0.3], **options)


def digits(n: int = 24) -> tuple[Tensor, Tensor]:
    data = digits_as_tensors()
    return data.test[:n], data.labels[:n]


# --- nets ---


def passed(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Logits, and the gradients of the loss by the images and by all weights, in train mode; and the statistics of the norms."""
    net.train()
    z = x.clone().requires_grad_()
    logits = net(z)
    nn.functional.cross_entropy(logits, y).backward()
    assert z.grad is not None
    found = {"logits": logits, "images": z.grad}
    for name, one in net.named_parameters():
        assert one.grad is not None
        found[name.removeprefix("net.")] = one.grad
    return found | {name.removeprefix("net."): one for name, one in net.named_buffers()}


@elsewhere
@pytest.mark.parametrize("name", NETS)
def test_logits_and_gradients(name: str, there: Place) -> None:
    x, y = digits()
    here = HERE.run(passed, built(name), x, y)
    agree(here, there.run(passed, built(name), x, y), ONE_PASS)
    assert float(here["images"].abs().max()) > 10 * TOLERANCE or float(here["logits"].abs().max()) > 0.1


@pytest.mark.parametrize("name", NETS)
def test_tf32_is_seen_in_every_net(name: str) -> None:
    x, y = digits()
    here = HERE.run(passed, built(name), x, y)
    with pytest.raises(AssertionError):
        agree(here, Place("cpu", Rounded).run(passed, built(name), x, y), ONE_PASS)


# --- attacks ---

STARTS: list[Start] = [UniformBall(), Gaussian(), Nearby(), UniformLength(), OneOf((UniformLength(), Zero()))]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", STARTS, ids=lambda one: type(one).__name__)
def test_starts(start: Start, norm: str, name: str) -> None:
    like = torch.empty(40, 1, 8, 8)

    def drawn(net: nn.Module, like: Tensor) -> Tensor:
        del net
        index = torch.arange(100, 140, device=like.device)
        return start(NORMS[norm], like, 3.0, Draws(keys(generator(3), index)))

    here, there = HERE.run(drawn, nn.Identity(), like), Place(name).run(drawn, nn.Identity(), like)
    exact = norm == "linf" and isinstance(start, UniformBall)
    torch.testing.assert_close(there, here, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)
    assert here.flatten(1).std(1).gt(0).any()


def objectives(attack: PGD, epsilon: float) -> Callable[..., dict[str, Tensor]]:
    def run(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        found = attack(net.eval(), x, y, epsilon=epsilon, generator=generator(1))
        return {"objective": found.objective, "each": found.restart_objective, "confidence": found.confidence}

    return run


EPSILON = {"linf": 0.1, "l2": 0.8, "l1": 3.0, "l0": 4.0}
SHORT: dict[str, dict[str, Any]] = {
    "plain": {},
    "last": {"keep": "last"},
    "momentum": {"momentum": 0.9, "objective": "wrong_confidence"},
    "backtracking": {"momentum": 0.9, "backtracking": 1.5, "objective": "wrong_confidence"},
    "gradient": {"momentum": 1.0, "momentum_of": "gradient"},
    "least_likely": {"objective": "targeted_cross_entropy", "targets": "least_likely"},
    "dlr": {"objective": "dlr", "restarts": 2},
}


@elsewhere
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", SHORT)
def test_objectives_after_a_few_steps(kind: str, norm: str, there: Place) -> None:
    options = {"objective": "cross_entropy"} | SHORT[kind]
    attack = PGD(norm, steps=5, relative_step_size=0.3, stop_when_reached=False, **options)
    run, (x, y) = objectives(attack, EPSILON[norm]), digits()
    if norm == "l0":  # of equal pixels a step takes any: none are
        x = x.lerp(torch.rand(x.shape, generator=generator(4)), 0.1)
    here, found = HERE.run(run, trained_net(), x, y), there.run(run, trained_net(), x, y)
    compared = steady(run, trained_net(), here, x, y)
    mine, its = ({name: one[..., compared] for name, one in some.items()} for some in (here, found))
    agree(mine, its)


@elsewhere
@pytest.mark.parametrize("name", NETS)
def test_objectives_of_every_net(name: str, there: Place) -> None:
    run, (x, y) = objectives(PGD("linf", steps=5, relative_step_size=0.3, stop_when_reached=False), 0.1), digits()
    agree(HERE.run(run, built(name), x, y), there.run(run, built(name), x, y))


# --- evaluation ---


def short_suite() -> dict[str, Planned]:
    """All attacks of the suite, with few steps, at one epsilon each."""
    planned = suite("digits", steps=10, restarts=1, queries=50)
    return {name: Planned(one.attack, one.epsilons[:1]) for name, one in planned.items()}


def recorded(there: Place) -> xr.Dataset:
    x, y = digits(40)

    def run(net: nn.Module) -> xr.Dataset:
        device = next(net.parameters()).device
        return evaluate(net, (x, y), short_suite(), validation=16, device=device)

    return there.run(run, trained_net())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def records() -> xr.Dataset:
    return recorded(HERE)


def same_records(here: xr.Dataset, there: xr.Dataset) -> None:
    for name in ("clean_prediction", "validation_prediction", "label"):
        np.testing.assert_array_equal(here[name], there[name])
    for name in ("clean_confidence", "validation_confidence", "confidence"):
        np.testing.assert_allclose(here[name], there[name], rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(here.prediction, there.prediction)


@elsewhere
def test_records_of_the_suite(there: Place, records: xr.Dataset) -> None:
    same_records(records, recorded(there))
    assert len(records.attack) >= 10
    turned = (records.prediction.values != records.label.values) & (records.prediction.values >= 0)
    assert 0.1 < turned.sum() / (records.prediction.values >= 0).sum() < 0.95


def test_tf32_is_seen_in_records(records: xr.Dataset) -> None:
    with pytest.raises(AssertionError):
        same_records(records, recorded(Place("cpu", Rounded)))


# --- training ---


def learnt(method: str) -> Callable[..., dict[str, Tensor]]:
    """Return what makes the losses and the weights of two steps."""
    changes: dict[str, Any] = {
        "model": "conv_small",
        "batch_size": 24,
        "learning_rate": 0.05,
        "average": 0.9,
        "padding": 1,
    }
    attack = {"epsilon": 0.1, "attack_steps": 3, "step_size": 0.05}
    changes |= {key: value for key, value in attack.items() if key in METHODS[method].settings()}
    if (
        method == "vertex_mixup"
    ):  # with 2, one image of the second step has gradients whose signs turn with the last digit
        changes["gamma"] = 1.0
    if method == "distillation":  # the net is not one whose logits are in units of the temperature
        changes["temperature"] = 1.0
    options = Recipe(method=METHODS[method]()).changed(augmentation="crop_flip", **changes)

    def run(net: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        learner = Learner(options, net.train(), generator(2), Group())
        losses = [learner.step(net, learner.augmented(x), y, step / 10) for step in range(2)]
        weights = {name.removeprefix("net."): one for name, one in net.state_dict().items()}
        mean = {f"mean of {name.removeprefix('net.')}": one for name, one in learner.result.state_dict().items()}
        return {"losses": torch.stack(losses), **weights, **mean}

    return run


@elsewhere
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["conv_small", "preact_resnet18"])
def test_steps_of_training(name: str, method: str, there: Place) -> None:
    x, y = digits()
    here = HERE.run(learnt(method), built(name), x, y)
    agree(here, there.run(learnt(method), built(name), x, y), 2 * TOLERANCE)
    before = built(name).state_dict()
    assert float((here["head.weight"] - before["head.weight"]).abs().max()) > 5 * TOLERANCE


# --- the bridge to the theory ---


@elsewhere
def test_margins_curves_and_features(there: Place) -> None:
    x, y = digits(40)
    net = models.build("conv_small", 2, (1, 8, 8), generator=generator())

    def run(net: nn.Module, x: Tensor, y: Tensor) -> list[Any]:
        curve = measured_curve(net, x, y % 2, epsilon=[0.05, 0.1], generator=generator(), steps=3)
        bent = linearity(net, x, y % 2, epsilon=[0.05, 0.1], generator=generator(), steps=3)
        inner = getattr(net, "net", net)
        features = layer_features(inner, x.to(next(net.parameters()).dtype))
        return [margins(net, x, y % 2), curve, bent.drop_vars("zero_gradients"), features]

    here, elsewhere = HERE.run(run, net, x, y), there.run(run, net, x, y)
    for mine, its in zip(here[:-1], elsewhere[:-1], strict=True):
        for name in mine.data_vars:
            np.testing.assert_allclose(its[name], mine[name], rtol=1e-3, atol=TOLERANCE, err_msg=name)
    np.testing.assert_allclose(elsewhere[-1], here[-1], rtol=TOLERANCE, atol=TOLERANCE)


# --- checkpoints ---


@pytest.mark.parametrize("name", DEVICES)
def test_a_net_is_saved_on_one_device_and_loaded_on_another(name: str, tmp_path: Any) -> None:
    net = built("preact_resnet18").eval()
    with on(name) as device:
        there = copy.deepcopy(net).to(device)
        tensors = {checkpoint.MODEL + key: one for key, one in there.state_dict().items()}
        path = checkpoint.write(tmp_path / "net.safetensors", tensors, {"model": there.spec})
        back = checkpoint.load_model(path, device=device)
        assert {one.device for one in back.state_dict().values()} == {device}
        assert all(torch.equal(one.cpu(), net.state_dict()[key]) for key, one in back.state_dict().items())
    home = checkpoint.load_model(path)
    assert all(torch.equal(one, net.state_dict()[key]) for key, one in home.state_dict().items())
