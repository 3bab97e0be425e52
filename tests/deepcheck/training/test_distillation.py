"""Defensive distillation hides its gradient from the cross-entropy, and nothing else; and what a teacher may be."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deepcheck import checkpoint, models
from deepcheck.attacks import PGD, CarliniWagner
from deepcheck.attacks.objectives import CrossEntropy
from deepcheck.data import load
from deepcheck.evaluation.sanity import sanity_checks
from deepcheck.training import recipe, train
from tests.deepcheck.devices import here, on_every_device

pytestmark = on_every_device

EPSILON = 0.15


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def trained(method: str, where: str) -> models.Network:
    """Return a small net of some hundred digits; that of distillation is the student of a teacher."""
    epochs = 12 if method == "standard" else 24
    one = recipe("digits", method, model="conv_small", epochs=epochs, augmentation="none", validation=50)
    with tempfile.TemporaryDirectory() as folder:
        return train(one, load("digits"), out=folder, device=where).network.eval()


def right(net: models.Network, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images that a net has right."""
    images = load("digits")
    x, y = torch.tensor(images.test_images).float() / 255, torch.tensor(images.test_labels)
    with torch.no_grad():
        kept = net(x).argmax(1) == y
    assert float(kept.double().mean()) > 0.9
    return x[kept][:count], y[kept][:count]


def zero_gradients(net: models.Network, x: Tensor, y: Tensor) -> float:
    """Return the share of images at which the cross-entropy has a gradient of exactly 0."""
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(CrossEntropy()(net(z), y).sum(), z)
    return float((gradient.flatten(1) == 0).all(1).double().mean())


def left(net: models.Network, objective: str) -> float:
    """Return the share of images that PGD on an objective does not turn."""
    x, y = right(net, 60)
    found = PGD("linf", objective, steps=40, relative_step_size=1 / 16)(
        net, x, y, epsilon=EPSILON, generator=generator()
    )
    return float((found.prediction == y).all(0).double().mean())


def test_cross_entropy_has_no_gradient_on_most_images_and_the_margin_breaks_them() -> None:
    """As Carlini and Wagner found (S&P 2017); the rival is a net without temperature, on which both objectives do the same."""
    student, standard = trained("distillation", here()), trained("standard", here())
    assert zero_gradients(standard, *right(standard, 60)) == 0
    assert zero_gradients(student, *right(student, 60)) > 0.5
    assert left(student, "cross_entropy") > 0.5 > left(standard, "cross_entropy")
    assert abs(left(student, "margin") - left(standard, "margin")) < 0.2


def test_carlini_wagner_breaks_every_image_as_near_as_without_distillation() -> None:
    distances = []
    for method in ("standard", "distillation"):
        net = trained(method, here())
        x, y = right(net, 60)
        found = CarliniWagner("l2", steps=60, searches=4, step_size=0.05)(net, x, y, generator=generator())
        assert bool((found.prediction != y).all())
        distances.append(float(found.length.median()))
    assert distances[1] < 1.25 * distances[0]


def test_the_check_of_gradients_notices() -> None:
    net = trained("distillation", here())
    x, y = right(net, 60)
    checks = sanity_checks(net, x, y, epsilon=EPSILON, generator=generator(), steps=20, queries=100)
    assert [check.name for check in checks if not check.passed] == ["gradients are not zero"]


def written(net: models.Network, folder: Path) -> Path:
    """Return the checkpoint of a net in a folder."""
    tensors = {checkpoint.MODEL + name: tensor for name, tensor in net.state_dict().items()}
    return checkpoint.write(folder / "teacher.safetensors", tensors, {"model": net.spec})


def taught(teacher: str, folder: Path, **changes: object) -> models.Network:
    """Return a student of a given teacher, after one epoch."""
    short = {"model": "linear", "epochs": 1, "validation": 50, "teacher": teacher}
    return train(recipe("digits", "distillation", **short | changes), load("digits"), out=folder, device=here()).network


def test_a_teacher_that_is_given_is_the_one_that_is_learned_from(tmp_path: Path) -> None:
    """One whose classes are all alike teaches just that: probabilities of 1/10, whatever the labels are."""
    even = models.build("linear", 10, (1, 8, 8), generator=generator())
    for parameter in even.parameters():
        parameter.data.zero_()
    path = written(even, tmp_path)
    x = torch.tensor(load("digits").test_images[:50]).float() / 255
    student = taught(str(path), tmp_path / "student", temperature=1.0, epochs=5)
    own = taught("", tmp_path / "own", temperature=1.0, epochs=10)
    assert float(student(x).detach().softmax(1).max()) < 0.2
    assert float(own(x).detach().softmax(1).max()) > 0.8


@pytest.mark.parametrize(
    ("name", "classes", "side"),
    [("conv_small", 10, 8), ("linear", 4, 8), ("linear", 10, 28)],
    ids=["net", "classes", "images"],
)
def test_a_teacher_of_another_kind_is_refused(name: str, classes: int, side: int, tmp_path: Path) -> None:
    path = written(models.build(name, classes, (1, side, side), generator=generator()), tmp_path)
    message = rf"teacher = '.*teacher.safetensors' is Network\('{name}', {classes}, \(1, {side}, {side}\).*: allowed is a net as"
    with pytest.raises(ValueError, match=message):
        taught(str(path), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_a_teacher_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match="no_teacher"):
        taught(str(tmp_path / "no_teacher.safetensors"), tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature = {temperature!r} is out of range: allowed is"):
        recipe("digits", "distillation", temperature=temperature)
