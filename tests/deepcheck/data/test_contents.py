"""The data sets are what the literature says they are, and so are pairs of their classes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcheck.data import DataError, Images, load, sources, two_classes
from tests.deepcheck.data.tiny import idx, mnist_with, write_cifar10

# --- the real data ---

REAL = os.environ.get("DEEPCHECK_DATA", "")


def real(name: str) -> Images:
    if not REAL:
        pytest.skip("DEEPCHECK_DATA is not set: the real data are missing")
    if sources._look(Path(REAL), name)[1]:
        pytest.skip(f"DEEPCHECK_DATA has no {name}")
    return load(name, data_dir=REAL)


@pytest.fixture(scope="module")
def mnist() -> Images:
    return real("mnist")


@pytest.fixture(scope="module")
def cifar10() -> Images:
    return real("cifar10")


def test_mnist_is_the_published_data_set(mnist: Images) -> None:
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert mnist.test_images.shape == (10_000, 1, 28, 28)
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(mnist.train_labels), train)
    np.testing.assert_array_equal(np.bincount(mnist.test_labels), test)
    np.testing.assert_array_equal(mnist.train_labels[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    histogram = np.bincount(mnist.train_images.ravel(), minlength=256) / mnist.train_images.size
    grey = np.arange(256) / 255
    mean = histogram @ grey
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt(histogram @ (grey - mean) ** 2) == pytest.approx(0.3081, abs=5e-5)


def test_cifar10_is_the_published_data_set(cifar10: Images) -> None:
    assert cifar10.train_images.shape == (50_000, 3, 32, 32)
    assert cifar10.test_images.shape == (10_000, 3, 32, 32)
    np.testing.assert_array_equal(np.bincount(cifar10.train_labels), [5000] * 10)
    np.testing.assert_array_equal(np.bincount(cifar10.test_labels), [1000] * 10)
    channels = cifar10.train_images.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(channels, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_cifar10_has_the_channels_and_classes_where_they_belong(cifar10: Images) -> None:
    means = {
        name: cifar10.train_images[cifar10.train_labels == label].mean(axis=(0, 2, 3))
        for label, name in enumerate(cifar10.class_names)
    }
    for name in ("airplane", "ship"):  # sky and sea
        assert means[name].argmax() == 2
    for name in ("deer", "frog", "horse"):  # earth and leaves
        assert means[name].argmin() == 2


def test_three_against_seven(mnist: Images) -> None:
    pair = two_classes(mnist, 3, 7)
    assert pair.name == "mnist 3 vs 7"
    assert pair.X_train.shape == (6131 + 6265, 784)
    assert pair.X_test.shape == (1010 + 1028, 784)
    assert pair.y_train.sum() == 6131 - 6265
    np.testing.assert_allclose(pair.X_train.mean(axis=0), 0, atol=1e-12)


def test_airplane_against_cat(cifar10: Images) -> None:
    pair = two_classes(cifar10, "airplane", "cat", centre=False)
    assert (pair.positive, pair.negative, pair.N) == (0, 3, 3072)
    assert pair.X_train.shape == (10_000, 3072)
    first = np.flatnonzero(np.isin(cifar10.train_labels, [0, 3]))[0]
    np.testing.assert_array_equal(pair.X_train[0].reshape(3, 32, 32) * 255, cifar10.train_images[first])


# --- the digits ---


def test_digits_are_always_there() -> None:
    digits = load("digits")
    assert digits.shape == (1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    assert digits.source == "scikit-learn"
    assert {array.dtype.name for array in (digits.train_images, digits.test_images)} == {"uint8"}


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    original, digits = load_digits(), load("digits")
    test = list(range(4, 1797, 5))
    train = sorted(set(range(1797)) - set(test))
    np.testing.assert_array_equal(digits.test_labels, original.target[test])
    np.testing.assert_array_equal(digits.train_labels, original.target[train])
    for images, chosen in ((digits.train_images, train), (digits.test_images, test)):
        assert len(np.unique(images)) == 17
        np.testing.assert_allclose(images[:, 0] / 255, original.images[chosen] / 16, atol=0.5 / 255 + 1e-12)


# --- two classes ---


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits")


def test_two_classes_are_in_the_order_of_the_data_set(digits: Images) -> None:
    pair = two_classes(digits, 3, 7, centre=False)
    expected = [
        (image.ravel() / 255, {3: 1, 7: -1}[label])
        for image, label in zip(digits.test_images, digits.test_labels.tolist(), strict=True)
        if label in (3, 7)
    ]
    np.testing.assert_array_equal(pair.X_test, [image for image, _ in expected])
    np.testing.assert_array_equal(pair.y_test, [label for _, label in expected])
    np.testing.assert_array_equal(pair.mean, np.zeros(64))
    assert pair.X_train.min() == 0
    assert pair.X_train.max() == 1
    assert (pair.name, pair.positive, pair.negative, pair.shape, pair.N) == ("digits 3 vs 7", 3, 7, (1, 8, 8), 64)
    assert {array.dtype.name for array in (pair.X_train, pair.y_train, pair.X_test, pair.y_test)} == {"float64"}


def test_centring_takes_the_training_mean_from_both(digits: Images) -> None:
    plain, centred = two_classes(digits, 3, 7, centre=False), two_classes(digits, 3, 7)
    np.testing.assert_allclose(centred.X_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(centred.mean, plain.X_train.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(centred.X_train + centred.mean, plain.X_train, atol=1e-12)
    np.testing.assert_allclose(centred.X_test + centred.mean, plain.X_test, atol=1e-12)
    assert abs(centred.X_test.mean(axis=0)).max() > 1e-3  # its own mean is another


def test_swapping_the_classes_swaps_the_labels(digits: Images) -> None:
    three: Any = np.int64(3)
    one, other = two_classes(digits, 3, 7), two_classes(digits, "7", three)
    np.testing.assert_array_equal(one.X_train, other.X_train)
    np.testing.assert_array_equal(one.y_train, -other.y_train)
    assert other.name == "digits 7 vs 3"


def test_a_pair_is_read_only_and_the_images_are_untouched(digits: Images) -> None:
    before = digits.train_images.copy()
    pair = two_classes(digits, 3, 7)
    with pytest.raises(ValueError, match="read-only"):
        pair.X_train[0] = 0
    np.testing.assert_array_equal(digits.train_images, before)


@pytest.mark.parametrize(
    ("positive", "negative", "error", "says"),
    [
        (3, 3, ValueError, "positive = 3 and negative = 3 are the same class"),
        (3, "3", ValueError, "positive = 3 and negative = '3' are the same class"),
        (
            10,
            3,
            ValueError,
            r"positive = 10 is no class of digits: allowed is an index in 0\.\.9 or a name out of 0, 1",
        ),
        (3, -1, ValueError, "negative = -1 is no class of digits"),
        (3, "seven", ValueError, "negative = 'seven' is no class of digits: allowed"),
        (3.0, 7, TypeError, r"positive = 3\.0 is of the wrong type"),
        (3, True, TypeError, "negative = True is of the wrong type"),
        (None, 7, TypeError, "positive = None is of the wrong type"),
    ],
)
def test_classes_that_do_not_exist(
    digits: Images, positive: Any, negative: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        two_classes(digits, positive, negative)


def test_a_class_name_that_is_almost_right(tmp_path: Path) -> None:
    images = load("cifar10", data_dir=write_cifar10(tmp_path))
    with pytest.raises(
        ValueError, match=r"positive = 'aeroplane' is no class of cifar10 \(did you mean 'airplane'\?\)"
    ):
        two_classes(images, "aeroplane", "cat")


def test_a_class_without_images(tmp_path: Path) -> None:
    images = load("mnist", data_dir=mnist_with(tmp_path, 1, idx(np.arange(20) % 9)))
    with pytest.raises(DataError, match="class '9' has no training image"):
        two_classes(images, 3, 9)


def test_arguments_of_the_wrong_type(digits: Images) -> None:
    wrong: Any = "digits"
    with pytest.raises(TypeError, match="images = 'digits' is of the wrong type"):
        two_classes(wrong, 3, 7)
    with pytest.raises(TypeError, match="centre = 'digits' is not a bool"):
        two_classes(digits, 3, 7, centre=wrong)
