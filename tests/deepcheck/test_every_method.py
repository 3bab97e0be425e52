"""What every training method must do, those of `METHODS` and two more that change or remember what these do not.

A method that is added to `METHODS` is tested here without a line of its own.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck import checkpoint, models
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import Images, load
from deepcheck.models import Ensemble
from deepcheck.training import METHODS, AttackingMethod, Method, Recipe, recipe, train
from deepcheck.training.checkpointing import LAST, packed
from deepcheck.training.methods.free_at import FreeAT
from deepcheck.training.parallel import Group
from deepcheck.training.recipe import DEFAULTS, recorded, threat
from deepcheck.training.step import Learner
from tests.deepcheck.devices import here, on_every_device
from tests.deepcheck.more_methods import MORE
from tests.deepcheck.training.cases import same

FEW: dict[str, Any] = {
    "model": "linear",
    "epochs": 3,
    "learning_rate": 0.2,
    "validation": 100,
    "epsilon": 0.05,
    "attack_steps": 2,
    "step_size": 0.05,
    "label_at_vertex": 0.9,  # the entropy of softer targets is a loss that no net can leave
}


ALL = {**METHODS, **MORE}
every_method = pytest.mark.parametrize("name", list(ALL))
pytestmark = on_every_device


@pytest.fixture(autouse=True)
def _with_two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in MORE.items():
        monkeypatch.setitem(METHODS, name, kind)


@pytest.fixture(scope="module")
def digits() -> Images:
    """The first 500 training images of digits."""
    images = load("digits")
    return replace(images, train_images=images.train_images[:500], train_labels=images.train_labels[:500])


def short(name: str, **changes: Any) -> Recipe:
    """A recipe of three epochs and cheap attacks."""
    known = {*Recipe.__dataclass_fields__, *ALL[name].settings()}
    return recipe("digits", name, **({key: value for key, value in FEW.items() if key in known} | changes))


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


class Batch:
    """One batch of random images, a network, and what a method needs to learn from it."""

    def __init__(self, name: str, device: torch.device | str, n: int = 12) -> None:
        source = torch.Generator().manual_seed(5)
        self.images = torch.rand(n, 1, 8, 8, generator=source).to(device)
        self.labels = torch.randint(10, (n,), generator=source).to(device)
        self.noise = torch.Generator().manual_seed(0)
        one = short(name, model="preact_resnet18", width=2, batch_size=n, learning_rate=0.05)  # with batch norm
        network = one.method.network(
            lambda **more: models.build("preact_resnet18", 10, (1, 8, 8), generator=source, channels=2, **more)
        )
        self.learner = Learner(one, network.to(device).train(), self.noise, Group())

    def loss(self, method: Method | None = None) -> Tensor:
        learner = self.learner
        return (method or learner.method).loss(
            learner.network, self.images, self.labels, progress=0.5, generator=self.noise, state=learner.state
        )


# --- one batch ---


@every_method
@pytest.mark.parametrize("n", [12, 7, 2])
def test_the_loss_is_a_number_with_a_gradient_for_every_weight(name: str, device: torch.device, n: int) -> None:
    batch = Batch(name, device, n)
    loss = batch.loss()
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert bool(loss.isfinite())
    loss.backward()
    for parameter in batch.learner.network.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


@every_method
def test_the_callers_tensors_are_untouched(name: str, device: torch.device) -> None:
    batch = Batch(name, device)
    images, labels = batch.images.clone(), batch.labels.clone()
    random = torch.get_rng_state()
    for _ in range(2):
        batch.learner.step(batch.learner.network, batch.images, batch.labels, 0.5)
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels, labels)
    assert batch.images.grad is None
    assert not batch.images.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


@every_method
def test_modes_and_parameters_are_as_they_were_and_statistics_move_once(name: str, device: torch.device) -> None:
    batch = Batch(name, device)
    network = batch.learner.network
    network.train()
    first = next(network.parameters())
    first.requires_grad_(False)  # a frozen weight stays frozen
    asked = [parameter.requires_grad for parameter in network.parameters()]
    before = [tensor.clone() for tensor in network.parameters()]
    batch.loss()
    assert [parameter.requires_grad for parameter in network.parameters()] == asked
    assert all(module.training for module in network.modules())
    assert all(map(torch.equal, before, network.parameters()))  # only the optimiser moves weights
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {int(module.num_batches_tracked or 0) for module in norms} == {1}


@every_method
def test_the_loss_depends_on_its_arguments_alone(name: str, device: torch.device) -> None:
    first, again = (Batch(name, device).loss().item() for _ in range(2))
    assert first == (
        again if device.type == "cpu" else pytest.approx(again, rel=1e-3)
    )  # sums on a GPU have no fixed order


@every_method
def test_a_loss_goes_down_on_one_batch(name: str, device: torch.device) -> None:
    batch = Batch(name, device)
    losses = [float(batch.learner.step(batch.learner.network, batch.images, batch.labels, 0.2)) for _ in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


# --- a training ---


@every_method
def test_the_loss_goes_down_on_digits(name: str, device: torch.device, digits: Images, tmp_path: Path) -> None:
    trained = train(short(name, epochs=6), digits, out=tmp_path, device=here())
    assert trained.history[-1]["loss"] < 0.9 * trained.history[0]["loss"]
    assert trained.history[-1]["clean_accuracy"] > 0.6  # by chance 0.1, within a standard error of 0.03
    assert not trained.network.training
    assert all(parameter.requires_grad for parameter in trained.network.parameters())


@every_method
def test_a_training_is_determined_by_its_seed(name: str, digits: Images, tmp_path: Path) -> None:
    first, again, other = (
        dict(train(short(name, epochs=1, seed=seed), digits, out=tmp_path / str(i), device=here()).network.state_dict())
        for i, seed in enumerate((1, 1, 2))
    )
    assert same(first, again)
    assert not same(first, other)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Press Ctrl-C after so many steps, once."""

    def interrupt(after: int) -> None:
        plain, steps = Learner.step, 0

        def step(learner: Learner, *arguments: Any) -> Tensor:
            nonlocal steps
            steps += 1
            if steps > after:
                monkeypatch.setattr(Learner, "step", plain)
                raise KeyboardInterrupt
            return plain(learner, *arguments)

        monkeypatch.setattr(Learner, "step", step)

    return interrupt


@every_method
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_resumed_training_has_the_same_bits(
    name: str, average: float, digits: Images, tmp_path: Path, interrupted: Callable[[int], None]
) -> None:
    one = short(name, average=average, augmentation="crop", padding=1)
    whole = train(one, digits, out=tmp_path / "whole", device=here())
    interrupted(one.method.replays() * (2 * (400 // one.batch_size) + 3))  # in the third epoch
    with pytest.raises(KeyboardInterrupt):
        train(one, digits, out=tmp_path / "parts", device=here())
    assert checkpoint.read(tmp_path / "parts" / LAST)[1]["epoch"] == 2
    resumed = train(one, digits, out=tmp_path / "parts", device=here(), resume=True)
    assert same(dict(resumed.network.state_dict()), dict(whole.network.state_dict()))
    assert timeless(resumed.history) == timeless(whole.history)
    (ours, _), (theirs, _) = (checkpoint.read(tmp_path / folder / LAST) for folder in ("parts", "whole"))
    assert same(ours, theirs)  # and so are momenta, random numbers, and what the method remembers


@every_method
def test_the_network_of_a_checkpoint_is_there_without_its_method(
    name: str, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(short(name, epochs=1), digits, out=tmp_path, device=here())
    expected = short(name).threat
    monkeypatch.delitem(METHODS, name)
    network = checkpoint.load_model(trained.checkpoint)
    assert same(dict(network.state_dict()), dict(trained.network.state_dict()))
    assert threat(checkpoint.read(trained.checkpoint)[1]["recipe"]) == expected


@every_method
def test_bfloat16(name: str, device: torch.device, digits: Images, tmp_path: Path) -> None:
    epochs = FEW["epochs"] * short(name).method.stages()  # a student begins anew
    trained = train(short(name, precision="bfloat16", epochs=epochs), digits, out=tmp_path, device=here())
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in trained.network.parameters())


# --- fields and files ---


@every_method
def test_recipes_go_through_json(name: str) -> None:
    for dataset in DEFAULTS:
        one = recipe(dataset, name, seed=3)
        values = json.loads(json.dumps(asdict(one)))
        assert values["method"]["name"] == name
        assert Recipe.from_json(values) == one
        assert threat(values) == one.threat
        assert recorded(values) == values


@every_method
def test_fields_can_be_flags(name: str) -> None:
    kind = ALL[name]
    own = kind()  # all have defaults
    assert own.name == name
    assert set(kind.settings()).isdisjoint({*Recipe.__dataclass_fields__, "dataset", "out", "resume", "device"})
    for one in fields(kind):
        value = getattr(own, one.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert getattr(recipe("digits", name, **{one.name: value}).method, one.name) == value
            with pytest.raises(ValueError, match=f"{one.name} = nan is"):
                recipe("digits", name, **{one.name: math.nan})


def test_every_method_knows_where_it_is_to_withstand() -> None:
    for name in ALL:
        norm, epsilon = recipe("digits", name).threat
        assert (norm, epsilon) == ("linf", 0.2)
        assert recipe("digits", name, test_norm="l2", test_epsilon=0.7).threat == ("l2", 0.7)
    assert Recipe().threat == ("linf", 0.0)
    assert threat(None) == ("linf", 0.3)


# --- what the two show, and free adversarial training ---


def test_what_a_method_remembers_is_in_the_checkpoint(digits: Images, tmp_path: Path) -> None:
    kept = {}
    for name in ALL:
        train(short(name, epochs=1), digits, out=tmp_path / name, device=here())
        tensors, _ = checkpoint.read(tmp_path / name / LAST)
        kept[name] = {
            key.removeprefix("method."): tensor for key, tensor in tensors.items() if key.startswith("method.")
        }
    assert kept["teacher"].keys() == checkpoint.load_model(tmp_path / "teacher" / LAST).state_dict().keys()
    delta = kept["free_at"]["delta"]
    assert delta.shape == (32, 1, 8, 8)
    assert float(delta.abs().max()) == pytest.approx(FEW["epsilon"])
    assert {name for name in MORE if kept[name]} == {"teacher"}
    for name in ALL:  # of every method all that it remembers, and nothing else
        state = Batch(name, here()).learner.state
        assert bool(kept[name]) is (state is not None and bool(state.state_dict())), name


def test_a_teacher_is_the_average_of_the_weights() -> None:
    batch = Batch("teacher", here())
    learner, expected = batch.learner, None
    assert learner.state is not None
    expected = [parameter.detach().double() for parameter in learner.network.parameters()]
    for _ in range(4):
        learner.step(learner.network, batch.images, batch.labels, 0.2)
        expected = [
            0.9 * mean + 0.1 * now.detach().double()
            for mean, now in zip(expected, learner.network.parameters(), strict=True)
        ]
    for mean, value in zip(learner.state.parameters(), expected, strict=True):
        torch.testing.assert_close(mean.double(), value, rtol=1e-5, atol=1e-7)
    assert not learner.state.training


def test_an_ensemble_is_trained_by_one_optimiser_and_predicts_the_mean(digits: Images, tmp_path: Path) -> None:
    trained = train(short("diverse", average=0.9), digits, out=tmp_path, device=here())
    network = checkpoint.load_model(tmp_path / LAST)
    assert isinstance(network, Ensemble)
    first, second = network.members
    assert not torch.equal(first.head.weight, second.head.weight)
    x = torch.tensor(digits.test_images[:20]).float() / 255
    with torch.no_grad():
        mean = (first(x).softmax(1) + second(x).softmax(1)) / 2
        torch.testing.assert_close(network(x).softmax(1), mean)
        torch.testing.assert_close(network(x).exp(), mean)
        assert network.features(x).shape == (20, 2 * 64)
    assert network.spec == trained.network.spec == {"members": [first.spec, second.spec]}
    assert network.num_weights == first.num_weights + second.num_weights
    assert trained.history[-1]["clean_accuracy"] > 0.8


def test_the_members_of_an_ensemble_are_of_one_kind() -> None:
    members = [models.build("linear", classes, (1, 8, 8)) for classes in (10, 2)]
    with pytest.raises(
        ValueError, match="members for 2 kinds of images and classes: allowed are networks, one at least"
    ):
        Ensemble(members)
    with pytest.raises(ValueError, match="members for 0 kinds"):
        Ensemble([])


def test_free_training_takes_several_steps_on_a_batch(digits: Images, tmp_path: Path) -> None:
    batch = Batch("free_at", here())
    learner = batch.learner
    assert learner.state is not None
    learner.step(learner.network, batch.images, batch.labels, 0.0)
    delta = learner.state.get_buffer("delta")
    assert delta.detach().abs().unique().tolist() == pytest.approx([FEW["epsilon"]])  # no gradient is 0
    seen: list[float] = []
    plain = FreeAT.loss

    def watched(self: FreeAT, *arguments: Any, **options: Any) -> Tensor:
        seen.append(options["progress"])
        return plain(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FreeAT, "loss", watched)
        train(short("free_at", epochs=2, repeats=4), digits, out=tmp_path, device=here())
    steps = 2 * (400 // 32) * 4
    torch.testing.assert_close(torch.tensor(seen), torch.arange(steps) / steps)


def test_a_checkpoint_without_what_the_method_remembers_is_refused(digits: Images, tmp_path: Path) -> None:
    train(short("free_at", epochs=1), digits, out=tmp_path, device=here())
    tensors, information = checkpoint.read(tmp_path / LAST)
    delta = tensors.pop("method.delta")
    for broken, message in ((None, "it lacks method.delta"), (delta[:5], "size mismatch for delta")):
        more = {} if broken is None else {"method.delta": broken}
        checkpoint.write(tmp_path / LAST, tensors | more, information)
        with pytest.raises(CheckpointError, match=f"cannot be resumed: .*{message}") as caught:
            train(short("free_at", epochs=1), digits, out=tmp_path, device=here(), resume=True)
        assert "\n" not in str(caught.value)


def test_packing_names_every_tensor_once() -> None:
    batch = Batch("teacher", here())
    batch.learner.step(batch.learner.network, batch.images, batch.labels, 0.2)
    names = {name.split(".", 1)[0] for name in packed(batch.learner, {"noise": batch.noise})}
    assert names == {"model", "method", "optimiser", "generator"}


def test_attacking_methods_share_their_fields() -> None:
    for kind in METHODS.values():
        if issubclass(kind, AttackingMethod):
            assert set(kind.settings()) >= {"norm", "epsilon", "attack_steps", "step_size"}


def test_a_schedule_is_kept_with_the_recipe() -> None:
    """And one that is the ramp gives what the ramp gives."""
    one = recipe("digits", "at", epsilon_schedule=[0.0, 0.2], ramp=0.4)
    assert Recipe.from_json(json.loads(json.dumps(asdict(one)))) == one
    assert one.threat == ("linf", 0.2)
    ramp = METHODS["at"](epsilon=0.2, ramp=1.0)  # type: ignore[call-arg]
    for progress in (0.0, 0.3, 0.9):
        assert one.method.epsilon_at(progress) == pytest.approx(ramp.epsilon_at(progress))  # type: ignore[attr-defined]
