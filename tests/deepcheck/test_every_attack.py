"""What every attack of the registry must pass: a new attack is tested by its line there."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import registry
from deepcheck.attacks.base import Attack, Attacked
from deepcheck.attacks.calls import NotFiniteWarning, ProbabilityWarning
from deepcheck.attacks.judged import best_restart
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.prepared.base import PreparedAttack
from deepcheck.attacks.prepared.transfer import Transfer
from deepcheck.evaluation import suite
from tests.deepcheck.attack_cases import (
    CARRIED,
    CASES,
    EPSILONS,
    FIELDS,
    QUICK,
    SHAPE,
    InPlace,
    OneByOne,
    Rowwise,
    classified,
    generator,
    pictures,
    same,
)
from tests.deepcheck.devices import on_every_device, on_the_cpu, rounding

ALSO_IN_A_HURRY = ("fgsm", "linf")  # the others take minutes together

pytestmark = [
    on_every_device,
    pytest.mark.parametrize(
        ("name", "norm"),
        [
            pytest.param(*case, id="-".join(case), marks=() if case == ALSO_IN_A_HURRY else pytest.mark.slow)
            for case in CASES
        ],
    ),
]


@pytest.fixture
def attack(name: str, norm: str) -> Attack:
    made = registry.make(name, norm, **QUICK.get(name, {}))
    if not isinstance(made, PreparedAttack):
        return registry.within_budget(made)
    others = torch.rand(60, *SHAPE, generator=generator(6), dtype=torch.float64)
    none = torch.zeros(60, dtype=torch.int64)  # what is prepared needs no labels
    ready = made.prepare(Rowwise(), others, none, epsilon=EPSILONS[norm], generator=generator(9))
    return replace(ready, surrogate=OneByOne(ready.surrogate)) if isinstance(ready, Transfer) else ready


@pytest.fixture
def call(attack: Attack, norm: str) -> Callable[..., Attacked]:
    def called(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Attacked:
        arguments: dict[str, Any] = {"epsilon": EPSILONS[norm], "generator": generator(), **options}
        return attack(model, images, labels, **arguments)

    return called


Call = Callable[..., Attacked]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_in_ball_and_box_and_what_the_model_says(
    call: Call, attack: Attack, norm: str, dtype: torch.dtype, device: torch.device
) -> None:
    model = Rowwise().to(device)
    images = pictures(dtype=dtype).to(device)
    labels = classified(model, images)
    found = call(model, images, labels)
    assert found.images.dtype is dtype
    assert found.images.device.type == device.type
    assert found.images.shape == (2, 15, *SHAPE)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    value = getattr(attack, "objective")  # noqa: B009
    assert isinstance(value, Objective)
    eps = torch.finfo(dtype).eps
    for epsilon, z, objective, each, prediction, confidence, length, queries in zip(
        EPSILONS[norm], *(getattr(found, field) for field in FIELDS), strict=True
    ):
        assert queries.shape == (each.shape[0], 15)
        assert (queries[0] >= 1).all()
        # of a transformation there is its size alone
        exact = NORMS[norm].length(z.double() - images.double()) if norm in NORMS else length.amax(0)
        # in the precision of the images, and not up to rounding; in double precision the length itself is rounded
        assert (exact <= epsilon * (1 + (1e-12 if dtype is torch.float64 else 0))).all()
        with torch.no_grad():
            logits = model(z)
            logits = logits.float() if eps > 1e-6 else logits
        aims = [torch.full_like(labels, k) for k in range(4)] if value.targeted else [None]
        off = torch.stack([(objective - value(logits, labels, aim)).abs() for aim in aims]).amin(0)
        assert (
            off < 1e-5 * (1 + objective.abs())
        ).all()  # of targets that the attack chooses, it is that of one of them
        assert ((objective - each).abs().amin(0) < 1e-5).all()  # it is that of one of the restarts
        chosen = (objective - each).abs().argmin(0)[None]
        torch.testing.assert_close(confidence.gather(0, chosen)[0], logits.softmax(1).amax(1), rtol=1e-5, atol=1e-5)
        assert torch.equal(prediction.gather(0, chosen)[0], logits.argmax(1))
        assert torch.isclose(length, exact.to(length.dtype), rtol=1e-4, atol=1e-5).any(0).all()


def test_it_is_an_attack(call: Call, attack: Attack) -> None:
    model, images = Rowwise(), pictures(60)
    labels = classified(model, images)
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    survived = (call(model, images, labels).prediction == labels).all(1)
    if not isinstance(attack, CARRIED):
        assert (survived <= right).all()  # what is wrong already stays wrong
    assert survived[1].sum() < right.sum()
    assert survived[1].sum() <= survived[0].sum()


def test_batches_do_not_matter(call: Call) -> None:
    model, images = Rowwise(), pictures()
    labels = classified(model, images)
    whole = call(model, images, labels)
    for size in (15, 7, 1):
        same(whole, call(model, images, labels, batch_size=size), within=rounding())


def test_the_other_examples_do_not_matter(call: Call) -> None:
    model, images = Rowwise(), pictures()
    labels = classified(model, images)
    whole = call(model, images, labels)
    same(whole, call(model, images[:9], labels[:9]), slice(9), within=rounding())
    for rows in (torch.arange(9, 15), torch.randperm(15, generator=generator(1)), torch.tensor([11])):
        same(whole, call(model, images[rows], labels[rows], indices=rows), rows, within=rounding())


def test_the_other_epsilons_do_not_matter(attack: Attack, norm: str) -> None:
    model, images = Rowwise(), pictures()
    labels = classified(model, images)
    several = attack(model, images, labels, epsilon=EPSILONS[norm], generator=generator())
    for k, epsilon in enumerate(EPSILONS[norm]):
        one = attack(model, images, labels, epsilon=epsilon, generator=generator())
        for field in FIELDS:
            assert torch.equal(getattr(several, field)[k], getattr(one, field))


def test_random_numbers_come_from_the_generator_alone_and_take_one_of_it(call: Call) -> None:
    model, images = Rowwise(), pictures()
    labels = classified(model, images)
    state = torch.get_rng_state()
    first, draw = call(model, images, labels), generator()
    same(first, call(model, images, labels, generator=draw))
    assert torch.equal(torch.get_rng_state(), state)
    expected = generator()
    torch.randint(2**63 - 1, (), generator=expected)
    assert torch.equal(torch.rand(3, generator=draw), torch.rand(3, generator=expected))


def test_nothing_of_the_callers_changes(call: Call, norm: str) -> None:
    """Not even if the model normalises in place."""
    inner = InPlace()
    inner.net.W1.grad = torch.ones(6, 24, dtype=torch.float64)
    model = nn.Sequential(inner, nn.Dropout(0.9)).train()
    inner.eval()
    images, indices = pictures(), torch.arange(15)
    labels = classified(inner, images)
    given = [images, labels, indices]
    before, versions = [one.clone() for one in given], [one._version for one in given]
    call(model, images, labels, indices=indices)
    assert [one._version for one in given] == versions
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))
    assert [module.training for module in model.modules()] == [True, False, False, True]
    assert all(one.requires_grad for one in model.parameters())
    assert (inner.net.W1.grad == 1).all()
    assert inner.net.W2.grad is None


def test_a_model_that_normalises_in_place(call: Call) -> None:
    images = pictures()
    labels = classified(Rowwise(), images)
    same(call(Rowwise(), images, labels), call(InPlace(), images, labels), within=1e-9)


def test_no_images(call: Call, attack: Attack) -> None:
    def refuses(x: Tensor) -> Tensor:
        raise AssertionError

    found = call(refuses, torch.empty(0, *SHAPE), torch.empty(0, dtype=torch.int64))
    restarts = getattr(attack, "restarts")  # noqa: B009
    shapes = [(0, *SHAPE), (0,), *[(restarts, 0)] * 5]
    assert [tuple(getattr(found, field).shape) for field in FIELDS] == [(2, *shape) for shape in shapes]


def test_queries_are_what_the_model_was_asked(attack: Attack, norm: str) -> None:
    """Of an example that is not turned, every evaluation, from its first to its last."""
    seen: list[int] = []

    class Counting(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x) * 1e-3 + torch.eye(4, dtype=x.dtype)[3]  # the class 3, whatever is done

    images, labels = pictures(1), torch.full((1,), 3)
    found = attack(Counting(), images, labels, epsilon=1e-6 if norm != "l0" else 0.0, generator=generator())
    assert (found.prediction == 3).all()
    chooses = getattr(getattr(attack, "attack", attack), "targets", "given") != "given"
    looks = 2 if chooses else 1  # at what the model returns, and at the classes
    assert int(found.queries.sum()) == sum(seen) - looks
    again = attack(
        Counting(), pictures(7), torch.full((7,), 3), epsilon=1e-6 if norm != "l0" else 0.0, generator=generator()
    )
    assert torch.equal(again.queries[:, :1], found.queries)


def test_two_classes(call: Call) -> None:
    model, images = Rowwise(2), pictures()
    labels = classified(model, images)
    found = call(model, images, labels)
    assert all(getattr(found, field).isfinite().all() for field in FIELDS)
    assert ((found.prediction == 0) | (found.prediction == 1)).all()
    assert (found.prediction[1] != labels).any()


def test_a_shift_of_all_logits_changes_nothing(call: Call) -> None:
    images = pictures()
    labels = classified(Rowwise(), images)
    same(call(Rowwise(), images, labels), call(Rowwise(shift=1000.0), images, labels), within=1e-6)


@pytest.mark.parametrize("leaf", [True, False])
def test_images_with_a_graph(call: Call, leaf: bool) -> None:
    model, images = Rowwise(), pictures()
    labels = classified(model, images)
    expected = call(model, images, labels)
    origin = images.clone().requires_grad_()
    found = call(model, origin if leaf else origin * 1, labels)
    same(found, expected)
    assert origin.grad is None
    assert origin.requires_grad
    assert not any(getattr(found, field).requires_grad for field in FIELDS)


@pytest.fixture(params=[torch.no_grad, torch.inference_mode, torch.enable_grad])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


def test_whatever_the_caller_is_in(call: Call, mode: None) -> None:
    with torch.inference_mode(False):
        model = Rowwise()
        images = pictures()
        labels = classified(model, images)
        expected = call(model, images, labels)
    made_here = pictures()
    found = call(model, made_here, labels + 0, indices=torch.arange(15))
    assert torch.equal(made_here, images)
    same(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, "epsilon = -0.1 is not allowed"),
        ({"images": torch.full((5, *SHAPE), 2.0)}, "images have pixels in [2, 2]: allowed is [0.0, 1.0]"),
        ({"labels": torch.full((5,), 9)}, "labels have the value 9, but the model has 4 classes"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets are not allowed: the "),
        ({"batch_size": 0}, "batch_size = 0 is out of range"),
        ({"indices": torch.arange(4)}, "indices have the shape (4,): allowed is (5,) for 5 images"),
        ({"indices": torch.arange(5) - 1}, "indices have the value -1: allowed is 0 or more"),
        ({"indices": [0, 1, 2, 3, 4]}, "indices are of the wrong type list: allowed is a tensor of torch.int64"),
        ({"generator": 0}, "generator = 0 is of the wrong type: allowed is a torch.Generator"),
        (
            {"model": lambda x: (Rowwise()(x), x)},
            "model returned a tuple for images of shape (1, 3, 2, 4): allowed is one",
        ),
        ({"model": lambda x: Rowwise()(x).argmax(1)}, "model returned a torch.int64 for images of shape"),
        ({"model": lambda x: Rowwise()(x) * torch.nan}, "model returned logits that are not finite"),
    ],
)
@on_the_cpu
def test_bad_input(call: Call, change: dict[str, Any], message: str) -> None:
    arguments = {"images": torch.zeros(5, *SHAPE), "labels": torch.zeros(5, dtype=torch.int64)} | change
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call(**({"model": Rowwise()} | arguments))


def test_the_model_is_never_given_no_images(call: Call, attack: Attack) -> None:
    """Not even once every example is broken, which these are at once; and it flattens as most nets do."""

    class Flattens(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(x.size(0), -1))

    model, images = Flattens(), pictures()
    labels = (model(images).argmax(1) + 1) % 4
    for size in (15, 7, 1):
        found = call(model, images, labels, batch_size=size)
        assert isinstance(attack, CARRIED) or (found.prediction != labels).any(1).all()


class Partly(Rowwise):
    """A net without finite logits for images of a mean brightness beyond a bound."""

    def __init__(self, what: float, bound: float) -> None:
        super().__init__()
        self.what, self.bound = what, bound

    def forward(self, x: Tensor) -> Tensor:
        lost = x.flatten(1).mean(1, keepdim=True) > self.bound
        return super().forward(x).masked_fill(lost, self.what)


@pytest.mark.filterwarnings("ignore::deepcheck.attacks.calls.NotFiniteWarning")
@pytest.mark.parametrize("what", [float("nan"), float("inf"), -float("inf")])
def test_points_without_finite_logits_are_not_kept_and_not_broken(call: Call, attack: Attack, what: float) -> None:
    images = pictures(40)
    bound = float(images.flatten(1).mean(1).max()) + 1e-9
    model = Partly(what, bound)
    labels = classified(Rowwise(), images)
    found = call(model, images, labels)
    logits = Rowwise()(found.images.flatten(0, 1))
    assert found.images.isfinite().all()
    assert found.confidence.isfinite().all()
    assert (found.images.flatten(2).mean(2) <= bound).all()
    given = logits.argmax(1).view(2, -1)
    if getattr(attack, "objective").reached(logits[:1], labels[:1], labels[:1]) is None:  # noqa: B009
        # of an attack on confidence the images are the surest, which need not be wrong where others are
        kept = found.prediction.gather(1, best_restart(found).unsqueeze(1)).squeeze(1)
        assert torch.equal(kept, given)
    else:
        assert torch.equal(
            (found.prediction != labels).any(1), given != labels
        )  # what counts as broken is a class that it gives


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_points_without_finite_logits_are_said(call: Call, what: float) -> None:
    """Everything but the images themselves: no attack can find anything."""

    class Only(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            same = (x[:, None] == images.to(x.dtype)).flatten(2).all(2).any(1, keepdim=True)
            return super().forward(x).masked_fill(~same, what)

    images = pictures()
    labels = Rowwise()(images).argmax(1)
    with pytest.warns(
        NotFiniteWarning, match="logits that are not finite at [0-9]+ of the points that the attack tried"
    ):
        found = call(Only(), images, labels)
    assert torch.equal(found.images, images.expand_as(found.images))
    assert (found.prediction == labels).all()


@pytest.mark.filterwarnings("ignore::deepcheck.attacks.calls.NotFiniteWarning")
def test_an_image_without_finite_logits_is_refused_wherever_it_stands(call: Call) -> None:
    class Lost(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).masked_fill(x[:, 0, 0, :1] > 0.999, torch.nan)

    images = pictures() * 0.4
    images[11, 0, 0, 0] = 1.0
    images[11, 0, 0, 1:] = 0.0
    labels = torch.zeros(15, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"model returned logits that are not finite for 1 of the images as they are"):
        call(Lost(), images, labels, epsilon=[0.0])


def test_a_masked_class_is_allowed(call: Call) -> None:
    class Masked(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x), torch.full((len(x), 1), -torch.inf, dtype=x.dtype)], 1)

    images = pictures()
    labels = classified(Rowwise(), images)
    found = call(Masked(), images, labels)
    assert (found.prediction < 4).all()
    assert found.images.isfinite().all()
    assert (found.prediction[1] != labels).any()


def test_probabilities_are_warned_of(call: Call) -> None:
    class Softmax(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(1)

    images = pictures()
    with pytest.warns(ProbabilityWarning, match="model returned outputs that sum to 1, as probabilities do"):
        call(Softmax(), images, classified(Rowwise(), images))


def test_a_configuration_is_its_text_and_takes_options_by_name(name: str, norm: str) -> None:
    attack = registry.make(name, norm)
    assert attack == registry.make(name, registry.MEASURES[norm])
    assert hash(attack) == hash(registry.make(name, norm))
    assert repr(registry.MEASURES[norm]) in repr(attack)
    with pytest.raises(ValueError, match=f"option of {name} = 'spets' is unknown"):
        registry.make(name, norm, spets=3)
    with pytest.raises(ValueError, match=re.escape("norm = 'l9' is unknown")):
        registry.make(name, "l9")
    assert re.search(rf"^{name} .*\b{norm}\b", registry.listed(), re.MULTILINE)


def test_a_suite_takes_it_by_name(name: str, norm: str) -> None:
    if name in ("pgd", "square"):  # they are there already
        message = f"attacks = ['{name}'] is not allowed: {name}_linf is in the suite already"
        with pytest.raises(ValueError, match=re.escape(message)):
            suite("digits", attacks=[name])
        return
    planned = suite("digits", attacks=[name])
    assert {f"{name}_{one}" for one in registry.norms_of(name)} <= set(planned)
    one = planned[f"{name}_{norm}"].attack.norm
    assert getattr(one, "name") == norm  # noqa: B009
