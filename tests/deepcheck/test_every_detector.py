"""What every detector promises, asked of everything in DETECTORS: one that is added there is tested here."""

import copy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck import checkpoint, models
from deepcheck.attacks import PGD
from deepcheck.detectors import DETECTORS, Confidence, Detector, Mahalanobis, load_detector
from deepcheck.evaluation import roc_auc
from tests.deepcheck.devices import here, on_every_device
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net

pytestmark = on_every_device

every = pytest.mark.parametrize("name", DETECTORS)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def net() -> models.Network:
    return trained_net()


@pytest.fixture(scope="module")
def fitted(net: models.Network, digits: Digits) -> dict[str, Detector]:
    return {name: kind().fit(net, digits.x, digits.y) for name, kind in DETECTORS.items()}


@every
def test_its_name_is_that_of_the_registry(name: str) -> None:
    assert DETECTORS[name].name == name
    assert set(DETECTORS[name].rejects) <= {"noise", "attacked"}
    assert (DETECTORS[name].__doc__ or "").strip()


@every
def test_neither_the_batch_nor_the_other_images_matter(
    name: str, net: models.Network, fitted: Any, digits: Digits
) -> None:
    x = digits.test[:64]
    whole = fitted[name].score(net, x)
    assert whole.shape == (64,)
    atol = 1e-5 * float(whole.abs().max())
    torch.testing.assert_close(fitted[name].score(net, x, batch_size=7), whole, rtol=1e-4, atol=atol)
    torch.testing.assert_close(fitted[name].score(net, x[:10]), whole[:10], rtol=1e-4, atol=atol)
    torch.testing.assert_close(fitted[name].score(net, x.flip(0)).flip(0), whole, rtol=1e-4, atol=atol)
    assert float(whole.std()) > 100 * atol  # it is no constant
    assert fitted[name].score(net, x[:0]).shape == (0,)


@every
def test_the_same_images_give_the_same_scores(name: str, net: models.Network, fitted: Any, digits: Digits) -> None:
    state = torch.random.get_rng_state()
    again = DETECTORS[name]().fit(net, digits.x, digits.y)
    assert torch.equal(again.score(net, digits.test), fitted[name].score(net, digits.test))
    assert torch.equal(state, torch.random.get_rng_state())


@every
def test_the_batches_of_the_fit_do_not_matter(name: str, net: models.Network, fitted: Any, digits: Digits) -> None:
    again = DETECTORS[name]().fit(net, digits.x, digits.y, batch_size=100)
    whole = fitted[name].score(net, digits.test)
    torch.testing.assert_close(again.score(net, digits.test), whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))


@every
def test_nothing_of_the_caller_s_is_changed(name: str, net: models.Network, digits: Digits) -> None:
    x, y, test = digits.x.clone(), digits.y.clone(), digits.test.clone()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    net.body.eval()  # modes of one's own come back, each
    detector = DETECTORS[name]().fit(net, x, y)
    detector.score(net, test)
    assert net.training
    assert not net.body.training
    net.eval()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    for mine, original in ((x, digits.x), (y, digits.y), (test, digits.test)):
        assert torch.equal(mine, original)
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in net.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


@every
def test_it_works_where_the_images_are(
    name: str, device: torch.device, net: models.Network, fitted: Any, digits: Digits
) -> None:
    expected = fitted[name].score(net, digits.test[:32]).cpu()
    there = copy.deepcopy(net).to(device)
    score = fitted[name].score(there, digits.test[:32].to(device))
    assert score.device.type == device.type
    atol = 1e-3 * float(expected.abs().max())
    torch.testing.assert_close(score.cpu(), expected, rtol=1e-2, atol=atol)
    again = DETECTORS[name]().fit(there, digits.x.to(device), digits.y.to(device))
    torch.testing.assert_close(again.score(there, digits.test[:32].to(device)).cpu(), expected, rtol=1e-2, atol=atol)


@every
def test_it_is_finite_on_noise_and_on_constant_images(name: str, net: models.Network, fitted: Any) -> None:
    draw = torch.Generator().manual_seed(2)
    noise = torch.rand(50, 1, 8, 8, generator=draw)
    levels = torch.linspace(0, 1, 11)[:, None, None, None].expand(11, 1, 8, 8)
    corners = (noise > 0.5).float()
    for images in (noise, levels, corners):
        score = fitted[name].score(net, images)
        assert score.isfinite().all()
        assert score.dtype == torch.float32


@every
@pytest.mark.parametrize("what", ["noise", "attacked"])
def test_clean_images_score_higher_where_it_claims_so(
    name: str, what: str, net: models.Network, fitted: Any, digits: Digits
) -> None:
    if what not in DETECTORS[name].rejects:
        pytest.skip(f"{name} makes no claim about {what} images")
    x, y = digits.test, digits.labels
    draw = torch.Generator().manual_seed(3)
    if what == "noise":
        negatives = torch.rand(len(x), *x.shape[1:], generator=draw)
    else:
        attack = PGD("linf", steps=20, relative_step_size=0.2)
        negatives = attack(net, x, y, epsilon=0.1, generator=draw).images
    with torch.no_grad():
        right, wrong = net(x).argmax(1) == y, net(negatives).argmax(1) != y
    plus = fitted[name].score(net, x[right]).numpy()
    minus = fitted[name].score(net, negatives if what == "noise" else negatives[wrong]).numpy()
    assert len(minus) > 50
    # of the Mann-Whitney statistic where both have one law: the null that would fail the claim
    error = np.sqrt((len(plus) + len(minus) + 1) / (12 * len(plus) * len(minus)))
    assert roc_auc(plus, minus) > 0.5 + 4 * error


@every
def test_a_file_keeps_it_without_pickle(
    name: str, net: models.Network, fitted: Any, digits: Digits, tmp_path: Path
) -> None:
    path = fitted[name].save(tmp_path / "detector.safetensors")
    assert not zipfile.is_zipfile(path)  # as torch.save would leave
    assert b"pickle" not in path.read_bytes()
    again = load_detector(path)
    assert again == fitted[name]
    assert torch.equal(again.score(net, digits.test), fitted[name].score(net, digits.test))


@every
def test_its_score_has_the_gradient_that_an_attack_on_it_needs(
    name: str, net: models.Network, fitted: Any, digits: Digits
) -> None:
    if here().startswith("pretended"):
        pytest.skip("a net does not change its precision there")
    x = (0.3 + 0.4 * digits.test[:4]).double().requires_grad_()  # away from the bounds, and less certain
    net.double()
    try:
        (gradient,) = torch.autograd.grad(fitted[name].score(net, x).sum(), x)
        step = 1e-4 * gradient / gradient.norm()
        with torch.no_grad():
            up, down = (fitted[name].score(net, x + sign * step).double().sum() for sign in (1, -1))
        # kinks of the net, and the single precision of the score, are small next to a tenth
        assert float(up - down) == pytest.approx(2e-4 * float(gradient.norm()), rel=0.1)
        assert not fitted[name].score(net, x.detach()).requires_grad
    finally:
        net.float()


@every
def test_what_cannot_be_is_refused(name: str, net: models.Network, fitted: Any, digits: Digits, tmp_path: Path) -> None:
    detector = DETECTORS[name]()
    with pytest.raises(ValueError, match="was not fitted: allowed is what its method fit returns"):
        detector.score(net, digits.test)
    with pytest.raises(ValueError, match="was not fitted"):
        detector.save(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="images are none"):
        detector.fit(net, digits.x[:0], digits.y[:0])
    with pytest.raises(ValueError, match="do not go together"):
        detector.fit(net, digits.x, digits.y[:5])
    with pytest.raises(ValueError, match="divide bytes by 255"):
        fitted[name].score(net, digits.test * 255)
    with pytest.raises(ValueError, match="batch_size = 0"):
        fitted[name].score(net, digits.test, batch_size=0)
    with pytest.raises(ValueError, match=r"logits of shape \(1,\)"):
        detector.fit(lambda x: x.flatten(1).sum(1), digits.x, digits.y)


def test_what_is_no_detector_s_file_is_refused(net: models.Network, tmp_path: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match="does not exist"):
        load_detector(tmp_path / "none.safetensors")
    other = checkpoint.write(tmp_path / "net.safetensors", {}, {"model": net.spec})
    with pytest.raises(checkpoint.CheckpointError, match="holds no detector"):
        load_detector(other)
    unknown = checkpoint.write(tmp_path / "a.safetensors", {}, {"detector": {"name": "mahalanobi", "options": {}}})
    with pytest.raises(ValueError, match=r"'mahalanobi' is unknown \(did you mean 'mahalanobis'\?\)"):
        load_detector(unknown)
    wrongs: list[Any] = [3, [], {"name": "mahalanobis"}, {"name": "mahalanobis", "options": 3}]
    for about in wrongs:
        wrong = checkpoint.write(tmp_path / "b.safetensors", {}, {"detector": about})
        with pytest.raises(checkpoint.CheckpointError, match="describes no detector"):
            load_detector(wrong)
    wrong = checkpoint.write(
        tmp_path / "b.safetensors", {}, {"detector": {"name": "mahalanobis", "options": {"flavour": 1}}}
    )
    with pytest.raises(checkpoint.CheckpointError, match="holds no whole detector"):
        load_detector(wrong)


# one by one


def test_the_confidence_is_the_largest_probability(net: models.Network, fitted: Any, digits: Digits) -> None:
    with torch.no_grad():
        p = net(digits.test).softmax(1)
    assert isinstance(fitted["confidence"], Confidence)
    torch.testing.assert_close(fitted["confidence"].score(net, digits.test), p.max(1).values)


def test_the_mahalanobis_distance_is_its_formula() -> None:
    """Against numpy's inverse, on logits that are the pixels themselves, with a covariance that is far from round."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 3)) * 0.03
    y = np.repeat([0, 1], 40)
    x = np.clip(0.5 + rng.standard_normal((80, 3)) @ A + 0.1 * y[:, None], 0, 1)
    query = rng.random((5, 3))
    detector = Mahalanobis(of="logits", shrinkage=0.1)
    fitted = detector.fit(lambda z: z, torch.tensor(x), torch.tensor(y))
    mu = np.stack([x[y == k].mean(0) for k in (0, 1)])
    centred = x - mu[y]
    Sigma = centred.T @ centred / 80
    Sigma = 0.9 * Sigma + 0.1 * np.trace(Sigma) / 3 * np.eye(3)
    d = query[:, None] - mu
    expected = -np.einsum("nki,ij,nkj->nk", d, np.linalg.inv(Sigma), d).min(1)
    np.testing.assert_allclose(fitted.score(lambda z: z, torch.tensor(query)), expected, rtol=1e-6)
    np.testing.assert_allclose(fitted.score(lambda z: z, torch.tensor(mu)), 0, atol=1e-6)


def test_the_mahalanobis_distance_does_not_depend_on_the_axes(net: models.Network, digits: Digits) -> None:
    """It is the same after any invertible linear map of the logits, where nothing is shrunk."""
    A = torch.randn(10, 10, generator=torch.Generator().manual_seed(0)).double()

    def plain(x: Tensor) -> Tensor:
        return net(x).double()

    detector = Mahalanobis(of="logits", shrinkage=1e-12)
    first = detector.fit(plain, digits.x, digits.y).score(plain, digits.test)
    second = detector.fit(lambda x: plain(x) @ A, digits.x, digits.y).score(lambda x: plain(x) @ A, digits.test)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"of": "pixels"}, ValueError, "of = 'pixels' is unknown: allowed is one of features, logits"),
        ({"shrinkage": 0.0}, ValueError, "shrinkage = 0.0 is out of range"),
        ({"shrinkage": 1.0}, ValueError, "shrinkage = 1.0 is out of range"),
    ],
)
def test_options_of_mahalanobis(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Mahalanobis(**options)


def test_mahalanobis_needs_features_that_differ(digits: Digits) -> None:
    with pytest.raises(TypeError, match=r"net has no method features: allowed is one that has, or Mahalanobis\(of="):
        Mahalanobis().fit(lambda x: x.flatten(1), digits.x, digits.y)
    with pytest.raises(ValueError, match="the same features in every class"):
        Mahalanobis(of="logits").fit(lambda x: 0 * x.flatten(1), digits.x, digits.y)
