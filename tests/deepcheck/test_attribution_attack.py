"""The attack on explanations moves maps, and no prediction; and what is said of it is what it did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck import models
from deepcheck.attacks.starts import Zero
from deepcheck.attributions import (
    METRICS,
    AttributionAttack,
    IntegratedGradients,
    Saliency,
    attribution_robustness,
    attribution_summary,
    kendall_tau,
    pixel_sizes,
    spearman_rho,
    top_pixels_shared,
)
from deepcheck.plot_attributions import plot_attributions
from odeflow import load, save
from tests.deepcheck.devices import here, on_every_device, rounding
from tests.deepcheck.digits_net import digits_as_tensors, trained_net
from tests.odeflow.figure_checks import outside, overlapping, small

pytestmark = on_every_device

IG = IntegratedGradients(steps=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(n: int = 30) -> tuple[models.Network, Tensor, Tensor]:
    data = digits_as_tensors()
    return trained_net(), data.test[:n], data.labels[:n]


@pytest.mark.parametrize("kind", [IG, Saliency()])
def test_it_moves_more_than_noise_and_no_prediction(kind: Any) -> None:
    net, x, y = digits()
    found = AttributionAttack(kind, k=12, steps=10)(net, x, y, epsilon=0.1, generator=generator())
    with torch.no_grad():
        assert torch.equal(net(found.images).argmax(1), net(x).argmax(1))
    assert float((found.images - x).abs().max()) <= 0.1
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    original = pixel_sizes(kind(net, x, y))
    shared = top_pixels_shared(original, pixel_sizes(kind(net, found.images, y)), 12)
    torch.testing.assert_close(shared, found.shared)
    noise = (x + 0.1 * torch.sign(torch.randn(x.shape, generator=generator(1)))).clamp(0, 1)
    gain = top_pixels_shared(original, pixel_sizes(kind(net, noise, y)), 12) - shared
    assert float(gain.mean()) > 4 * float(gain.std()) / np.sqrt(len(x))
    assert torch.equal(found.moved, shared < 1)
    torch.testing.assert_close(found.length, (found.images - x).abs().flatten(1).amax(1))


def test_second_derivatives_matter() -> None:
    """A net of ReLUs says of logits only how the factor x of integrated gradients moves."""
    net, x, y = digits()
    smooth, plain = (
        AttributionAttack(IG, k=12, steps=10, softplus=beta)(net, x, y, epsilon=0.1, generator=generator()).shared
        for beta in (10.0, None)
    )
    gain = plain - smooth
    assert float(gain.mean()) > 3 * float(gain.std()) / np.sqrt(len(x))


def test_the_worst_restart_counts_for_each_example() -> None:
    net, x, y = digits(12)
    one, three = (
        AttributionAttack(IG, k=12, steps=4, restarts=count)(net, x, y, epsilon=0.1, generator=generator())
        for count in (1, 3)
    )
    torch.testing.assert_close(three.restarts[0], one.shared)
    torch.testing.assert_close(three.shared, three.restarts.amin(0))
    assert bool((three.shared < one.shared).any())
    assert repr(three) == "AttributionsAttacked(12 images, 3 restarts)"


def test_an_example_does_not_depend_on_the_others() -> None:
    net, x, y = digits(7)
    attack = AttributionAttack(IG, k=12, steps=3, restarts=2)
    net, x = net.double(), x.double()
    whole = attack(net, x, y, epsilon=[0.1, 0.05], generator=generator())
    index = torch.tensor([5, 2, 6])
    some = attack(net, x[index], y[index], epsilon=0.05, generator=generator(), indices=index, batch_size=5)
    assert whole.images.shape == (2, *x.shape)
    assert whole.restarts.shape == (2, 2, 7)
    torch.testing.assert_close(some.images, whole.images[1, index], rtol=0, atol=1e-9 + rounding())
    torch.testing.assert_close(some.restarts, whole.restarts[1][:, index])
    other = attack(net, x, y, epsilon=0.05, generator=generator(1))
    assert not torch.equal(other.images, whole.images[1])
    assert attack(net, x[:0], y[:0], epsilon=0.1, generator=generator()).images.shape == (0, 1, 8, 8)


def test_without_room_the_image_stays() -> None:
    net, x, y = digits(4)
    found = AttributionAttack(IG, k=12, steps=2)(net, x, y, epsilon=0.0, generator=generator())
    assert torch.equal(found.images, x)
    assert found.shared.tolist() == [1.0] * 4
    assert not bool(found.moved.any())


def test_where_every_point_is_another_class_nothing_is_found() -> None:
    net, x, y = digits(4)

    def brittle(z: Tensor) -> Tensor:
        moved = (z.unsqueeze(1) - x).flatten(2).abs().amax(2).amin(1) > 0  # by whatever there is
        return torch.where(moved[:, None], -net(z), net(z))

    found = AttributionAttack(Saliency(), k=12, steps=3)(brittle, x, y, epsilon=0.1, generator=generator())
    assert torch.equal(found.images, x)
    assert not bool(found.moved.any())


def test_it_goes_back_to_the_class_of_the_image() -> None:
    net = models.build("linear", 2, (1, 2, 2), generator=generator()).double().eval()
    z = torch.rand(3, 1, 2, 2, generator=generator(1), dtype=torch.float64)
    y, top = torch.zeros(3, dtype=torch.int64), torch.ones(3, 4, dtype=torch.bool)
    back = AttributionAttack(Saliency(), k=2)._gradient(net, z, y, top, y, torch.tensor([True, False, False]))
    up = (net.head.weight[0] - net.head.weight[1]).detach().view(1, 2, 2)
    torch.testing.assert_close(back[1:], up.expand(2, 1, 2, 2))
    assert bool((back[0] == 0).all())  # of a linear net the saliency does not move


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k = 0"),
        ({"k": 65}, "k = 65"),
        ({"steps": 0}, "steps = 0"),
        ({"restarts": 0}, "restarts = 0"),
        ({"search_steps": 0}, "search_steps = 0"),
        ({"step_size": 0.0}, "step_size = 0"),
        ({"softplus": -1.0}, "softplus = -1"),
        ({"norm": "l3"}, "norm = 'l3'"),
        ({"bounds": (1.0, 0.0)}, "bounds = "),
    ],
)
def test_bad_settings(options: Any, message: str) -> None:
    net, x, y = digits(2)
    with pytest.raises(ValueError, match=message):
        AttributionAttack(**options)(net, x, y, epsilon=0.1, generator=generator())


def test_bad_types() -> None:
    with pytest.raises(TypeError, match="map = 'saliency' is of the wrong type"):
        AttributionAttack("saliency")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="start = 0 is of the wrong type"):
        AttributionAttack(start=0)  # type: ignore[arg-type]
    net, x, y = digits(2)
    with pytest.raises(ValueError, match=r"epsilon = -0\.1"):
        AttributionAttack(IG, k=5)(net, x, y, epsilon=-0.1, generator=generator())
    with pytest.raises(TypeError, match="attack = 3 is of the wrong type"):
        attribution_robustness(net, (x, y), epsilon=0.1, attack=3, examples=2, device=here())  # type: ignore[arg-type]


# --- the whole evaluation ---


def test_records_and_their_means(tmp_path: Path) -> None:
    net, x, y = digits(20)
    y = y.clone()
    y[3] = (y[3] + 1) % 10  # an image that is wrong
    attack = AttributionAttack(IG, k=12, steps=4, start=Zero())
    records = attribution_robustness(
        net, (x, y), epsilon=0.1, attack=attack, examples=20, shown=2, device=here(), configuration={"model": "conv"}
    )
    right = (records.clean_prediction == records.label).values
    assert not right[3]
    for name in METRICS:
        assert (np.isnan(records[name].values) == ~right).all()
    assert (records.prediction.sel(change="attack").values[right] == records.label.values[right]).all()
    assert (records.prediction.values[:, ~right] == -1).all()
    assert records.top_pixels_shared.sel(change="attack").mean() < records.top_pixels_shared.sel(change="noise").mean()
    assert records.length.sel(change="noise").max() <= 0.1
    first, second = (pixel_sizes(torch.tensor(records[name].values)) for name in ("map", "attacked_map"))
    at = records.sel(change="attack", example=records.shown)
    np.testing.assert_allclose(at.top_pixels_shared, top_pixels_shared(first, second, 12).cpu(), rtol=1e-6)
    np.testing.assert_allclose(at.kendall, kendall_tau(first, second))
    np.testing.assert_allclose(at.spearman, spearman_rho(first, second))
    found = attribution_summary(records)
    for row in range(2):
        kept = right & (records.prediction.values[row] == records.label.values)
        values = records.kendall.values[row, kept]
        assert float(found.kendall[row]) == pytest.approx(values.mean())
        assert float(found.kendall_standard_error[row]) == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))
        assert float(found.kept[row]) == kept.sum() / right.sum()
    assert float(found.accuracy) == right.mean()
    path = save(records, tmp_path / "a.nc")
    assert load(path).equals(records)
    figure = plot_attributions(records)
    assert small(figure) == {}
    assert outside(figure) == []
    assert overlapping(figure) == []
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    np.testing.assert_array_equal(shown[0], records.image.values[0, 0])
    np.testing.assert_array_equal(shown[3], records.attacked_image.values[1, 0])
    np.testing.assert_array_equal(shown[9], records.attacked_map.values[1, 0])
    assert figure.axes[8].get_xlabel() == f"{float(at.top_pixels_shared[0]):.0%}"


def test_what_is_no_record_is_refused() -> None:
    net, x, y = digits(3)
    records = attribution_robustness(
        net, (x, y), epsilon=0.1, attack=AttributionAttack(Saliency(), k=5, steps=1), examples=3, device=here()
    )
    with pytest.raises(ValueError, match="records lack image"):
        plot_attributions(records)
    with pytest.raises(ValueError, match="records lack kendall"):
        attribution_summary(records.drop_vars("kendall"))
