"""Rotations, translations and colours in other libraries: the same images, and success at least theirs."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck.attacks import Rigid, Rotation
from tests.external.conftest import Case

REASON = "compares with Foolbox and the Adversarial Robustness Toolbox: make external"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def ours(case: Case, **options: Any) -> Tensor:
    """Images that are still right after all of a grid of 5 angles and 5 x 5 shifts."""
    attack = Rotation(angles=5, shifts=5, **options)
    found = attack(case.net, case.images, case.labels, epsilon=1.0, generator=torch.Generator().manual_seed(0))
    return found.images


def test_the_images_are_those_of_foolbox() -> None:
    """Which counts a shift in units of (side - 1) / side pixels, and angles the other way round."""
    transformations = pytest.importorskip("foolbox.attacks.spatial_attack_transformations", reason=REASON)
    eagerpy = pytest.importorskip("eagerpy", reason=REASON)
    x = torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    unit = 8 / 9
    for angle, down, right in itertools.product((-30.0, 10.0), (-2.0, 0.5), (-1.0, 3.0)):
        theirs = transformations.rotate_and_shift(eagerpy.astensor(x), (right, down), angle).raw
        theta = torch.tensor([[angle / 30, -down * unit / 3, -right * unit / 3]]).expand(3, 3)
        turned = Rigid(30.0, 3.0).apply(x, theta)
        assert float((turned - theirs).abs().max()) < 1e-4


def test_the_grid_breaks_what_foolboxs_breaks(case: Case) -> None:
    foolbox = pytest.importorskip("foolbox", reason=REASON)
    pytest.importorskip("eagerpy", reason=REASON)
    model = foolbox.PyTorchModel(case.net, bounds=(0.0, 1.0), device="cpu")
    attack = foolbox.attacks.SpatialAttack(max_translation=0.5, max_rotation=10, num_translations=5, num_rotations=5)
    _, theirs, _ = attack(model, case.images, case.labels)
    mine = ours(case, shift=0.5 * 7 / 8, angle=10.0)
    right, their_right = case.right(mine), case.right(theirs)
    assert 0.05 < float(their_right.double().mean()) < 0.95
    assert (right != their_right).sum() <= 1  # where rounding decides


def test_the_worst_for_each_image_breaks_more_than_arts_one_for_all(case: Case) -> None:
    evasion = pytest.importorskip("art.attacks.evasion", reason=REASON)
    estimators = pytest.importorskip("art.estimators.classification", reason=REASON)
    classifier = estimators.PyTorchClassifier(
        case.net, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    x, y = case.images[:60], case.labels[:60]
    attack = evasion.SpatialTransformation(
        classifier, max_translation=13, num_translations=3, max_rotation=30, num_rotations=5, verbose=False
    )  # 13 % of 8 pixels: shifts of one pixel
    theirs = torch.as_tensor(np.asarray(attack.generate(x.numpy()), dtype=np.float32))
    found = Rotation(angles=5, shifts=3, shift=1.0)(
        case.net, x, y, epsilon=1.0, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        their_errors = (case.net(theirs).argmax(1) != y).sum()
    assert (found.prediction != y).all(0).sum() > their_errors


def test_colours_are_those_of_scikit_image() -> None:
    colour = pytest.importorskip("skimage.color", reason="compares with scikit-image")
    from deepcheck.attacks.spatial.colour import to_luv

    rgb = np.random.default_rng(0).random((40, 3))
    np.testing.assert_allclose(to_luv(torch.tensor(rgb)).numpy(), colour.rgb2luv(rgb), rtol=0, atol=0.02)
