"""A linear net is the theory's classifier, to rounding; other nets are described by what is linear in them."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

from deepcheck import data, models
from deepcheck.attacks.norms import L0
from deepcheck.match import layer_features, linearity, margins, match, measured_curve, predicted_curve
from odeflow import GaussianMixture, adversarial_error, load, save
from odeflow.anisotropic import Mixture, empirical_adversarial_error
from odeflow.anisotropic import adversarial_error as anisotropic_error

EPSILON = (0.0, 0.1, 0.25, 0.5, 1.0)
NO_BOX = (-math.inf, math.inf)

each_norm = pytest.mark.parametrize("norm", ["l2", "linf"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


W, BIAS = torch.tensor([2.0, -1.0, 0.5, 0.25], dtype=torch.float64), 0.3
X = normal(200, 4)
Y = torch.where(X @ W + normal(200, seed=2) > 0.0, 1, -1)


def one_output(x: Tensor) -> Tensor:
    return x @ W - BIAS


def column(x: Tensor) -> Tensor:
    return one_output(x)[:, None]


def two_outputs(x: Tensor) -> Tensor:
    return torch.stack([-0.25 * one_output(x) + 7, 0.75 * one_output(x) + 7], 1)


def quadratic(x: Tensor) -> Tensor:
    """z = w.x - b + |x|^2 / 2, with the gradient w + x."""
    return one_output(x) + x.pow(2).sum(1) / 2


def same(a: xr.Dataset, b: xr.Dataset, **tolerance: float) -> None:
    xr.testing.assert_allclose(a.drop_attrs(), b.drop_attrs(), **tolerance)


# --- a linear net is the theory's classifier ---


@each_norm
@pytest.mark.parametrize("model", [one_output, column, two_outputs])
def test_the_locally_linear_prediction_of_a_linear_net_is_its_adversarial_error(model: Any, norm: str) -> None:
    curve = match(model, X, Y, epsilon=EPSILON, norm=norm).locally_linear
    exact = empirical_adversarial_error(W.numpy(), BIAS, X.numpy(), Y.numpy(), EPSILON, norm)
    np.testing.assert_array_equal(curve.values, exact)
    assert exact[0] < exact[-1]


@each_norm
def test_pgd_measures_the_prediction_on_a_linear_net(norm: str) -> None:
    measured = measured_curve(
        two_outputs, X, Y, epsilon=EPSILON, generator=seeded(), norm=norm, steps=5, restarts=2, bounds=NO_BOX
    )
    predicted = predicted_curve(margins(two_outputs, X, Y, norm=norm), EPSILON)
    np.testing.assert_array_equal(measured.adversarial_error, predicted.locally_linear)
    turned = np.isfinite(measured.least_epsilon)
    assert (margins(two_outputs, X, Y, norm=norm).distance[turned] <= measured.least_epsilon[turned]).all()


@each_norm
def test_a_linear_net_has_one_gradient_its_overlap_is_a_cosine_and_it_is_linear(norm: str) -> None:
    B = np.array([1.0, 0.0, 0.0, 0.0])
    result = match(column, X, Y, epsilon=0.1, norm=norm, directions={"B": B, "w": 5 * W, "minus w": -W})
    cosine = float(W[0] / W.norm())
    np.testing.assert_allclose(result.R_eff.sel(direction=["B", "w", "minus w"]), [cosine, 1, -1], rtol=1e-14)
    np.testing.assert_allclose(result.R_mean_gradient, result.R_eff, rtol=1e-14)
    np.testing.assert_allclose(result.R_eff_sd, 0, atol=1e-14)
    np.testing.assert_allclose(result.coherence, 1, rtol=1e-14)
    np.testing.assert_allclose(result.mean_gradient, W, rtol=1e-14)
    found = linearity(column, X, Y, epsilon=[0.1, 1.0], generator=seeded(), norm=norm, steps=3, bounds=NO_BOX)
    np.testing.assert_allclose(found.nonlinearity, 0, atol=1e-14)


def test_the_effective_bias_of_a_linear_net_is_that_of_centred_data() -> None:
    m = [X[tau == Y].mean(0) for tau in (1, -1)]
    b = (BIAS - W @ (m[0] + m[1]) / 2) / W.norm()
    np.testing.assert_allclose(match(one_output, X, Y, epsilon=0.0, norm="l2").b_eff, b, rtol=1e-12)


@pytest.mark.parametrize("R", [1.0, 0.6])
def test_gaussian_margins_predict_the_seed_models_adversarial_error(R: float) -> None:
    n, b, mixture = 20_000, -0.4, GaussianMixture(p=0.7, rho=2.0, v1=1.0, v2=0.5)
    rng = np.random.default_rng(0)
    tau = np.where(rng.random(n) < mixture.p, 1, -1)
    v = np.where(tau == 1, mixture.v1, mixture.v2)
    x = rng.standard_normal((n, 3)) * np.sqrt(v)[:, None]
    x[:, 0] += tau * mixture.rho / 2
    w = torch.tensor([R, math.sqrt(1 - R**2), 0.0], dtype=torch.float64)
    found = match(
        lambda x: 3 * (x @ w - b), torch.tensor(x), tau, epsilon=EPSILON, norm="l2", directions={"B": [1, 0, 0]}
    )
    theory = adversarial_error(R, b, mixture, np.array(EPSILON))
    five_standard_errors = 5 * 0.5 / math.sqrt(n)
    np.testing.assert_allclose(found.gaussian, theory, atol=five_standard_errors)
    np.testing.assert_allclose(found.locally_linear, theory, atol=five_standard_errors)
    np.testing.assert_allclose(found.R_eff.sel(direction="B"), R, rtol=1e-12)
    np.testing.assert_allclose(found.b_eff, b, atol=5 / math.sqrt(0.3 * n))


def test_the_gaussian_curve_is_the_theorys_at_the_effective_quantities() -> None:
    found = match(quadratic, X, Y, epsilon=EPSILON, norm="l2")
    (m1, m2), (v1, v2) = found.margin_mean.values, found.margin_variance.values
    mixture = GaussianMixture(p=float(found.p[0]), rho=m1 - m2, v1=v1, v2=v2)
    theory = adversarial_error(1.0, float(found.b_eff), mixture, np.array(EPSILON))
    np.testing.assert_allclose(found.gaussian, theory, rtol=1e-12)


# --- a net that is not linear ---


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1), ("l1", math.inf)])
def test_a_quadratic_net_has_its_gradient_and_distance(norm: str, order: float) -> None:
    found = margins(quadratic, X, Y, norm=norm)
    length = torch.linalg.vector_norm(W + X, ord=order, dim=1)
    np.testing.assert_allclose(found.z, quadratic(X), rtol=1e-14)
    np.testing.assert_allclose(found.gradient_norm, length, rtol=1e-14)
    np.testing.assert_allclose(found.distance, Y * quadratic(X) / length, rtol=1e-13)


@pytest.mark.parametrize(("norm", "order", "square"), [("l2", 2, 1.0), ("linf", 1, 4.0)])
def test_the_deviation_of_a_quadratic_net_is_its_second_order_term(norm: str, order: int, square: float) -> None:
    sizes = [0.1, 0.4]
    found = linearity(quadratic, X, Y, epsilon=sizes, generator=seeded(), norm=norm, steps=4, bounds=NO_BOX)
    length = torch.linalg.vector_norm(W + X, ord=order, dim=1)
    for size, deviation in zip(sizes, found.deviation, strict=True):
        # |delta|^2 / 2 over epsilon |g|_*, where |delta|^2 = epsilon^2, or N epsilon^2 in L-infinity
        np.testing.assert_allclose(deviation.sel(perturbation="steepest"), square * size / (2 * length), rtol=1e-9)
    assert (found.nonlinearity.sel(perturbation="random") < found.nonlinearity.sel(perturbation="steepest")).all()
    np.testing.assert_allclose(found.nonlinearity, found.deviation.mean("example"), rtol=1e-12)


def test_perturbations_keep_to_the_bounds() -> None:
    x, seen = X.sigmoid(), []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return quadratic(x)

    linearity(watched, x, Y, epsilon=0.5, generator=seeded(), steps=2)
    measured_curve(watched, x, Y, epsilon=0.5, generator=seeded(), steps=2, restarts=2)
    points = torch.cat(seen)
    assert float(points.min()) == 0
    assert float(points.max()) == 1


def test_a_smaller_ball_counts_for_a_larger_one() -> None:
    # z = x^2 - 1/4: near 0 the gradient leads nowhere, but one that is turned at 0.1 is turned at 0.8
    x, y = torch.tensor([[0.45], [-0.45]]), [-1, -1]
    found = measured_curve(
        lambda x: x[:, 0] ** 2 - 0.25, x, y, epsilon=[0.8, 0.1], generator=seeded(), norm="l2", steps=3, bounds=NO_BOX
    )
    np.testing.assert_array_equal(found.adversarial_error, [1, 1])
    np.testing.assert_allclose(found.least_epsilon, 0.1)


# --- symmetries ---


@pytest.mark.parametrize("model", [one_output, quadratic])
def test_swapping_the_classes_changes_the_signs_and_no_curve(model: Any) -> None:
    directions = {"B": W + 1}
    one = match(model, X, Y, epsilon=EPSILON, directions=directions)
    other = match(lambda x: -model(x), X, -Y, epsilon=EPSILON, directions=directions)
    for name in ("distance", "gradient_norm", "coherence"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)
    for name in ("locally_linear", "gaussian"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)
    np.testing.assert_allclose(one.b_eff, -other.b_eff, rtol=1e-12)
    np.testing.assert_allclose(one.margin_mean, -other.margin_mean[::-1], rtol=1e-12)
    np.testing.assert_allclose(one.margin_variance, other.margin_variance[::-1], rtol=1e-12)
    np.testing.assert_allclose(one.R_eff.sel(direction="B"), -other.R_eff.sel(direction="B"), rtol=1e-12)
    np.testing.assert_allclose(one.R_eff.sel(direction="means"), other.R_eff.sel(direction="means"), rtol=1e-12)


def test_nothing_depends_on_the_batch_size() -> None:
    for a, b in zip(everything(batch_size=200), everything(batch_size=7), strict=True):
        same(a, b, rtol=1e-12)


def everything(model: Any = quadratic, **options: Any) -> list[xr.Dataset]:
    return [
        margins(model, X, Y, **options),
        match(model, X, Y, epsilon=EPSILON, **options),
        measured_curve(model, X, Y, epsilon=EPSILON, generator=seeded(), steps=3, restarts=2, bounds=NO_BOX, **options),
        linearity(model, X, Y, epsilon=[0.1, 1.0], generator=seeded(), steps=3, bounds=NO_BOX, **options),
    ]


def test_a_net_is_used_in_eval_mode_and_left_as_it_was() -> None:
    noisy = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2, dtype=torch.float64))
    noisy[1].eval()
    for a, b in zip(everything(model=noisy), everything(model=noisy[1]), strict=True):
        same(a, b)
    assert [module.training for module in noisy] == [True, False]


def test_labels_and_classes_are_the_same() -> None:
    same(margins(quadratic, X, Y), margins(quadratic, X, (Y > 0).long()))
    same(margins(quadratic, X, Y), margins(quadratic, X, Y.double().numpy()))


def test_every_variable_is_labelled_and_a_result_is_saved_with_what_made_it(tmp_path: Path) -> None:
    for result, function in zip(everything(), ("margins", "match", "measured_curve", "linearity"), strict=True):
        for name, variable in result.variables.items():
            assert variable.attrs["long_name"], name
            assert variable.attrs["units"] == "1"
        assert f"deepcheck.match.{function}" in result.attrs["configuration"]
        assert ("seed" in result.attrs) == (function in ("measured_curve", "linearity"))
        xr.testing.assert_equal(load(save(result, tmp_path / f"{function}.nc")), result)


# --- gradients of zero, and input that is not allowed ---


def test_a_gradient_of_zero_is_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    def dead(x: Tensor) -> Tensor:  # right in one class, wrong in the other, and flat, where x_0 < 0
        return x[:, 0].clamp(min=0) + 1

    flat = (X[:, 0] <= 0).numpy()
    caplog.set_level(logging.WARNING)
    found = match(dead, X, Y, epsilon=EPSILON, norm="l2", directions={"B": [1, 0, 0, 0]})
    assert f"{flat.sum()} of 200 examples have a gradient of zero" in caplog.text
    assert int(found.zero_gradients) == flat.sum()
    np.testing.assert_array_equal(np.isnan(found.distance), flat)
    np.testing.assert_array_equal(np.isnan(found.overlap.sel(direction="B")), flat)
    np.testing.assert_allclose(found.R_eff.sel(direction="B"), 1)
    wrong = Y.numpy() < 0
    turned = np.where(flat | wrong, wrong, X[:, 0].numpy() + 1 <= 1.0)
    np.testing.assert_allclose(found.locally_linear.sel(epsilon=1.0), turned.mean())
    compared = linearity(dead, X, Y, epsilon=0.1, generator=seeded(), norm="l2", steps=2, bounds=NO_BOX)
    assert int(compared.zero_gradients) == flat.sum()
    assert np.isfinite(compared.nonlinearity).all()


def test_a_constant_net_errs_in_one_class_at_every_epsilon() -> None:
    found = match(lambda x: torch.ones(len(x)), X, Y, epsilon=EPSILON)
    np.testing.assert_allclose(found.locally_linear, float((Y < 0).double().mean()))
    assert np.isnan(found.gaussian).all()
    assert np.isnan(found.R_eff).all()


def test_a_net_that_is_not_binary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model returned \(200, 3\) for 200 examples: allowed are \(n, 2\)"):
        margins(lambda x: x[:, :3], X, Y)
    with pytest.raises(ValueError, match="not finite"):
        margins(lambda x: x[:, 0] / 0, X, Y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.arange(200), ValueError, r"y has the values 0, 1, 2, 3, 4, \.\.\.: allowed are the labels \+1 and -1"),
        (np.arange(200) % 3 - 1, ValueError, "y has the values -1, 0, 1"),
        (["a"] * 200, TypeError, "y = .* is of the wrong type"),
        (Y[:5], ValueError, "do not go together"),
    ],
)
def test_labels_other_than_the_two_classes_are_refused(y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        margins(one_output, X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": L0()}, "has no dual norm: allowed is one of linf, l2, l1"),
        ({"epsilon": -1.0}, "epsilon = -1.0 is not allowed"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"directions": {"B": [1.0, 0.0]}}, r"directions\['B'\] has the shape \(2,\): allowed is \(4,\)"),
        ({"directions": {"B": [0.0] * 4}}, r"directions\['B'\] is zero"),
        ({"directions": {"means": [1.0] * 4}}, "'means', which is taken"),
        ({"directions": {"B": [math.nan] * 4}}, "is not finite"),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match(one_output, X, Y, **{"epsilon": 0.1, **options})


def test_match_needs_both_classes_and_a_curve_needs_margins() -> None:
    with pytest.raises(ValueError, match="y has no label -1"):
        match(one_output, X, torch.ones(200), epsilon=0.1)
    with pytest.raises(TypeError, match="allowed is a result of margins"):
        predicted_curve(xr.Dataset(), 0.1)
    with pytest.raises(ValueError, match="epsilon = 0 is not allowed"):
        linearity(one_output, X, Y, epsilon=[0.0, 0.1], generator=seeded(), bounds=NO_BOX)
    with pytest.raises(ValueError, match="pixels in"):
        measured_curve(one_output, X, Y, epsilon=0.1, generator=seeded())
    with pytest.raises(ValueError, match="x has 0 examples"):
        margins(one_output, X[:0], Y[:0])


# --- real nets ---


def digits() -> tuple[Tensor, Tensor, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return images and labels of 3 (+1) and 7 (-1), for training and for testing."""
    pair = data.two_classes(data.load("digits"), 3, 7, centre=False)
    train, test = (torch.tensor(X, dtype=torch.float32).view(-1, *pair.shape) for X in (pair.X_train, pair.X_test))
    return train, test, pair.y_train, pair.y_test


@pytest.fixture(scope="module")
def trained() -> models.Network:
    x, _, y, _ = digits()
    network = models.build("conv_small", 2, (1, 8, 8), generator=seeded())
    classes = torch.tensor(y > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(network(x), classes).backward()
        optimiser.step()
    return network


@each_norm
def test_prediction_and_measurement_of_a_trained_net(trained: models.Network, norm: str) -> None:
    _, x, _, y = digits()
    sizes = [0.0, 0.02, 0.1, 0.2] if norm == "linf" else [0.0, 0.1, 0.5, 1.0]
    found = match(trained, x, y, epsilon=sizes, norm=norm)
    measured = measured_curve(
        trained, x, y, epsilon=sizes, generator=seeded(), norm=norm, steps=20, bounds=NO_BOX
    ).adversarial_error
    assert trained.training
    clean = np.mean(np.where(found.z > 0, 1, -1) != y)
    assert found.locally_linear[0] == measured[0] == clean < 0.1
    for curve in (found.locally_linear, found.gaussian, measured):
        assert (curve.diff("epsilon") >= 0).all()
    # not a theorem: this net gives way faster than its gradients say
    assert (found.locally_linear <= measured).all()
    np.testing.assert_allclose(found.locally_linear[:3], measured[:3], atol=0.05)
    assert 0.1 < float(found.R_eff.sel(direction="means")) <= float(found.R_mean_gradient.sel(direction="means")) < 1
    near, far = linearity(
        trained, x, y, epsilon=sizes[1::2], generator=seeded(), norm=norm, steps=5, bounds=NO_BOX
    ).nonlinearity.sel(perturbation="steepest")
    assert 0 < near < far < 1


def test_the_head_is_a_linear_classifier_of_its_features(trained: models.Network) -> None:
    x, x_test, y, y_test = digits()
    features = layer_features(trained, x_test, batch_size=40)
    weight, bias = (part.detach().double().numpy() for part in (trained.head.weight, trained.head.bias))
    w, b = weight[1] - weight[0], bias[0] - bias[1]
    z = margins(trained, x_test, y_test).z
    np.testing.assert_allclose(features @ w - b, z, atol=1e-5)
    np.testing.assert_allclose(features, layer_features(trained, x_test, "body"), atol=1e-6)
    mixture = Mixture.from_samples(layer_features(trained, x), y)
    theory = anisotropic_error(w, b, mixture, [0.0, 0.5], "l2")
    assert mixture.N == 100
    assert 0 <= theory[0] < theory[1] < 1


def test_layers_that_cannot_be_had_are_refused(trained: models.Network) -> None:
    _, x, *_ = digits()
    with pytest.raises(ValueError, match=r"layer = 'hea' is unknown: .*did you mean 'head'"):
        layer_features(trained, x, "hea")
    with pytest.raises(ValueError, match="layer = None needs a model with a method features"):
        layer_features(nn.Linear(4, 2).double(), X)
    with pytest.raises(TypeError, match=r"model = .* is of the wrong type"):
        layer_features(one_output, X)  # type: ignore[arg-type]
    shared = nn.ReLU()
    with pytest.raises(ValueError, match="layer = '0' is used 2 times per call"):
        layer_features(nn.Sequential(shared, nn.Identity(), shared), X, "0")
    assert layer_features(nn.Sequential(nn.Identity(), nn.ReLU()), X, "0", batch_size=30).tolist() == X.tolist()
