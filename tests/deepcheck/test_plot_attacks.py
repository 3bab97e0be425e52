"""Pictures of attacks: what is drawn is what was given, and it fits on a page."""

from typing import Any

import numpy as np
import pytest
import torch

from deepcheck.plot_attacks import FACTORS, Pictures, pictures_of, plot_attacked
from odeflow.plot import WIDTHS
from tests.odeflow.figure_checks import outside, overlapping, small

NAMES = ["airplane", "automobile", "truck"]


def pictures(seed: int, n: int = 3, channels: int = 1, **changes: Any) -> Pictures:
    rng = np.random.default_rng(seed)
    images = rng.random((n, channels, 4, 6))
    values = {"images": images, "prediction": rng.integers(0, 3, n), "confidence": rng.random(n)}
    return Pictures(**(values | changes))


def drawn(figure: Any) -> list[Any]:
    """The panels, row by row: of the clean row one for each image, of the others two."""
    return [ax for ax in figure.axes if ax.images]


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_drawn_is_what_was_given(channels: int) -> None:
    clean, one, two = (pictures(seed, channels=channels) for seed in range(3))
    small_step = Pictures(
        np.clip(clean.images + 0.01 * (two.images - 0.5), 0, 1), two.prediction, two.confidence
    )  # differences of 0.005 at most
    figure = plot_attacked(clean, {"strong": one, "weak": small_step}, class_names=NAMES)
    axes = drawn(figure)
    assert len(axes) == 3 + 2 * 2 * 3
    shown = [np.asarray(ax.images[0].get_array()) for ax in axes]
    for row, (some, factor) in enumerate(((one, 1), (small_step, 100))):
        for column in range(3):
            at = 3 + 6 * row + 2 * column
            image, delta = some.images[column], factor * (some.images[column] - clean.images[column])
            expected = (image[0], delta[0]) if channels == 1 else (np.moveaxis(image, 0, -1), np.moveaxis(delta, 0, -1))
            np.testing.assert_array_equal(shown[at], expected[0])
            np.testing.assert_allclose(
                shown[at + 1], expected[1] if channels == 1 else 0.5 + expected[1] / 2, rtol=0, atol=1e-12
            )
            if channels == 1:
                assert axes[at].images[0].get_clim() == (0, 1)
                assert axes[at + 1].images[0].get_clim() == (-1, 1)
            title = axes[at].title if axes[at].get_title() else axes[at]._left_title
            predicted = some.prediction[column]
            assert title.get_text() == f"{NAMES[predicted]} ({some.confidence[column]:.0%})"
            assert (title.get_color() == "black") is bool(predicted != clean.prediction[column])
    assert [text.get_text() for text in figure.texts] == [
        "clean",
        "strong\ndifference $\\times$ 1",
        "weak\ndifference $\\times$ 100",
    ]


def test_the_factor_is_the_largest_that_keeps_differences_in_range() -> None:
    clean = pictures(0, images=np.full((3, 1, 10, 10), 0.5))
    for largest, factor in ((0.4, 2), (0.11, 5), (0.1, 10), (0.051, 10), (0.05, 20), (0.002, 100), (0.0, 1)):
        some = pictures(1, images=clean.images + largest)
        text = plot_attacked(clean, {"x": some}).texts[1].get_text()
        assert text == f"x\ndifference $\\times$ {factor}", largest
    outlier = clean.images + 0.05
    outlier[0, 0, 0, :2] = 1.0  # 2 of 300: less than a hundredth
    assert plot_attacked(clean, {"x": pictures(1, images=outlier)}).texts[1].get_text().endswith("$\\times$ 20")
    outlier[1, 0, 0, :2] = 1.0  # 4 of 300
    assert plot_attacked(clean, {"x": pictures(1, images=outlier)}).texts[1].get_text().endswith("$\\times$ 2")
    assert plot_attacked(clean, {"x": some}, factor=7).texts[1].get_text().endswith("$\\times$ 7")
    assert list(FACTORS) == sorted(FACTORS)


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("rows", [1, 9])
def test_it_fits_on_a_page(width: str, rows: int) -> None:
    n = 2 if width == "single" else 4
    names = ["carlini_wagner", "local_search", "rotation"]
    attacked = {f"{names[row % 3]}{row}": pictures(row, n, 3, prediction=np.ones(n, int)) for row in range(rows)}
    figure = plot_attacked(pictures(99, n, 3), attacked, class_names=NAMES, width=width)  # type: ignore[arg-type]
    assert figure.get_size_inches()[0] == WIDTHS[width]
    assert small(figure) == {}
    assert outside(figure) == []
    assert overlapping(figure) == []
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in drawn(figure)]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert box.width / box.height == pytest.approx(6 / 4)  # as the image
        assert not any(box.padded(-0.5).overlaps(other.padded(-0.5)) for other in boxes[:i])


def test_what_a_model_says_of_images() -> None:
    linear = torch.nn.Linear(24, 3)
    linear.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Flatten(), linear)
    x = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    found = pictures_of(model, x, batch_size=2)
    assert model.training
    with torch.no_grad():
        expected = model[1:](x).softmax(1).max(1)
    np.testing.assert_array_equal(found.images, x.double())
    np.testing.assert_array_equal(found.prediction, expected.indices)
    np.testing.assert_allclose(found.confidence, expected.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_attacked(pictures(0), {}), "attacked = {}"),
        (lambda: plot_attacked(pictures(0), {"a": pictures(0, 4)}), r"attacked\['a'\] has images of the shape \(4, "),
        (lambda: plot_attacked(pictures(0), {"a": pictures(0)}, factor=0), "factor = 0"),
        (lambda: plot_attacked(pictures(0, prediction=[3, 0, 0]), {"a": pictures(0)}, class_names=NAMES), "of which 3"),
        (lambda: plot_attacked(pictures(0, 40), {"a": pictures(0, 40)}, width="single"), "images are 40"),
        (lambda: pictures(0, images=np.zeros((3, 2, 4, 6))), r"shape \(3, 2, 4, 6\)"),
        (lambda: pictures(0, images=np.full((3, 1, 4, 6), 1.5)), r"in 1.5..1.5"),
        (lambda: pictures(0, prediction=[1, 2]), r"prediction has the shape \(2,\)"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
