"""Images to train on, and what a training sees."""

from dataclasses import replace

import pytest

from deepcheck.data import Images, load
from tests.deepcheck.training.cases import Seen


@pytest.fixture(scope="session")
def digits() -> Images:
    """The first 500 training images of digits."""
    images = load("digits")
    return replace(images, train_images=images.train_images[:500], train_labels=images.train_labels[:500])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)
