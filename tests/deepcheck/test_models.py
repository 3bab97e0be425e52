"""The networks have the weights that their articles count, and are functions of one image alone."""

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from deepcheck import models
from deepcheck.models.residual import BasicBlock, PreActivationBlock, wrn28_10

TINY: dict[str, dict[str, Any]] = {
    "linear": {},
    "conv_small": {},
    "conv_leaky": {},
    "conv_threshold": {},
    "madry_mnist": {},
    "resnet_ccat": {"channels": 4, "blocks": 1},
    "preact_resnet18": {"channels": 4},
    "wrn28_10": {"depth": 10, "width": 1},
}

each_network = pytest.mark.parametrize("name", models.NAMES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(name: str, in_shape: tuple[int, int, int] = (3, 8, 8), *, seed: int = 0, **more: Any) -> models.Network:
    return models.build(name, 10, in_shape, generator=seeded(seed), **TINY[name], **more)


def images(count: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.rand(count, *shape, generator=seeded(seed), dtype=torch.float64)


def with_statistics(network: models.Network, *shape: int) -> models.Network:
    """Return the network in float64 and eval mode, after a few batches in training mode: norms are no identities."""
    network.double().train()
    with torch.no_grad():
        for seed in range(3):
            network(images(16, *shape, seed=seed))
    return network.eval()


@contextmanager
def global_random_numbers_untouched() -> Iterator[None]:
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before)


# --- what the articles say ---


@pytest.mark.parametrize(
    ("name", "in_shape", "weights"),
    [
        ("linear", (1, 28, 28), 7850),
        ("conv_small", (1, 28, 28), 166_406),  # Wong and Kolter
        ("conv_leaky", (1, 28, 28), 166_406),
        ("conv_threshold", (1, 28, 28), 166_406 + 4 * 2 + 3 * 4 * 4 * 16),  # 4 levels, seen by the next layer
        ("madry_mnist", (1, 28, 28), 3_274_634),  # Madry et al.
        (
            "resnet_ccat",
            (3, 32, 32),
            4_327_754,
        ),  # with 4 times the channels, 16 times the 0.27 million of ResNet-20 (He et al.)
        ("preact_resnet18", (3, 32, 32), 11_172_170),  # 11,171,146, and a last norm
        ("wrn28_10", (3, 32, 32), 36_479_194),  # Zagoruyko and Komodakis: 36.5 million
    ],
)
def test_number_of_weights(name: str, in_shape: tuple[int, int, int], weights: int) -> None:
    network = models.build(name, 10, in_shape, generator=seeded(0))
    assert network.num_weights == weights
    assert f"{weights:,} weights" in repr(network)


def test_preact_resnet18_without_its_last_norm_is_the_common_variant() -> None:
    network = models.build("preact_resnet18", 10, (3, 32, 32), generator=seeded(0))
    last_norm = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    assert last_norm.num_features == 512
    assert network.num_weights - 2 * last_norm.num_features == 11_171_146


@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 8, 11.0), (22, 8, 17.2), (40, 4, 8.9), (28, 10, 36.5)])
def test_wide_resnets_of_the_article(depth: int, width: int, millions: float) -> None:
    """Table 4 of Zagoruyko and Komodakis, to its one decimal."""
    with torch.device("meta"):
        body, d = wrn28_10((3, 32, 32), depth=depth, width=width)
        head = nn.Linear(d, 10)
    weights = sum(p.numel() for module in (body, head) for p in module.parameters())
    assert weights / 1e6 == pytest.approx(millions, abs=0.05)
    assert sum(isinstance(module, nn.Conv2d) for module in body.modules()) == depth


def test_resnet_ccat_has_20_layers() -> None:
    network = models.build("resnet_ccat", 10, (3, 8, 8), channels=2)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear) or getattr(m, "kernel_size", None) == (3, 3)]
    assert len(layers) == 20


@each_network
@pytest.mark.parametrize("in_shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 14)])
def test_shapes(name: str, in_shape: tuple[int, int, int]) -> None:
    network = tiny(name, in_shape).eval()
    x = images(2, *in_shape).float()
    with torch.no_grad():
        assert network(x).shape == (2, 10)
        assert network.features(x).shape == (2, network.head.in_features)
    assert network.in_shape == in_shape
    assert network.num_classes == 10
    assert network.name == name


@each_network
def test_smallest_images(name: str) -> None:
    least = {"linear": 1, "preact_resnet18": 8}.get(name, 4)
    assert tiny(name, (1, least, least)).eval()(torch.zeros(1, 1, least, least)).shape == (1, 10)
    if least > 1:
        with pytest.raises(ValueError, match=rf"in_shape = .* too small for {name}: .*{least} x {least} pixels and"):
            tiny(name, (1, least, least - 1))


# --- functions of one image ---


@each_network
def test_logits_do_not_depend_on_the_batch(name: str) -> None:
    network = with_statistics(tiny(name), 3, 8, 8)
    x = images(7, 3, 8, 8)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-10)
    assert together.std(0).min() > 0  # they do depend on the image


@each_network
def test_head_of_features_is_forward(name: str) -> None:
    network = with_statistics(tiny(name, mean=[0.5, 0.25, 0.5], std=[0.5, 0.25, 2.0]), 3, 8, 8)
    x = images(3, 3, 8, 8)
    torch.testing.assert_close(network.head(network.features(x)), network(x), rtol=0, atol=0)


@each_network
def test_normalisation_inside_is_normalisation_outside(name: str) -> None:
    mean, std = [0.5, 0.25, 0.125], [0.5, 0.25, 2.0]  # exact in float32
    inside = with_statistics(tiny(name, mean=mean, std=std), 3, 8, 8)
    outside = tiny(name).double().eval()
    outside.load_state_dict({key: value for key, value in inside.state_dict().items() if "normalisation" not in key})
    x = images(4, 3, 8, 8)
    z = (x - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    torch.testing.assert_close(inside(x), outside(z), rtol=1e-12, atol=1e-12)


def test_normalisation_is_not_trained_and_one_half_of_it_is_enough() -> None:
    plain, shifted, scaled = tiny("linear"), tiny("linear", mean=[0.5, 0.25, 0.125]), tiny("linear", std=[0.5] * 3)
    assert plain.num_weights == shifted.num_weights == scaled.num_weights
    assert not any("normalisation" in name for name, _ in shifted.named_parameters())
    assert "normalisation.mean" in shifted.state_dict()
    x = images(2, 3, 8, 8).float()
    mean = torch.tensor([0.5, 0.25, 0.125]).reshape(3, 1, 1)
    torch.testing.assert_close(shifted.features(x), (x - mean).flatten(1))
    torch.testing.assert_close(scaled.features(x), 2 * x.flatten(1))
    assert "[0.5, 0.25, 0.125]" in repr(shifted.normalisation)


def test_linear_is_linear() -> None:
    network = tiny("linear").double()
    x = images(5, 3, 8, 8)
    torch.testing.assert_close(network.features(x), x.flatten(1), rtol=0, atol=0)
    torch.testing.assert_close(network(x), x.flatten(1) @ network.head.weight.T + network.head.bias)


def test_conv_small_by_hand() -> None:
    """Convolutions as sums over patches: an independent implementation."""

    def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1))
        height, width = x.shape[2] // 2 - 1, x.shape[3] // 2 - 1
        z = bias.reshape(-1, 1, 1).expand(len(x), -1, height, width)
        for row in range(4):
            for column in range(4):
                pixels = x[:, :, row : row + 2 * height : 2, column : column + 2 * width : 2]
                z = z + torch.einsum("nchw,kc->nkhw", pixels, weight[:, :, row, column])
        return z.clamp(min=0)

    network = tiny("conv_small", (2, 10, 8)).double()
    w1, b1, w2, b2, w3, b3, w4, b4 = network.parameters()
    x = images(3, 2, 10, 8)
    z = convolution(convolution(x, w1, b1), w2, b2)
    assert z.shape == (3, 32, 2, 2)
    expected = (z.flatten(1) @ w3.T + b3).clamp(min=0) @ w4.T + b4
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


def test_a_conv_leaky_without_active_units_still_has_a_gradient() -> None:
    """conv_small with the same weights has none there: its logits are the last biases."""
    x = images(20, 1, 8, 8).float()
    gradients, logits = {}, {}
    for name in ("conv_small", "conv_leaky"):
        network = models.build(name, 10, (1, 8, 8), generator=seeded(0)).eval()
        with torch.no_grad():
            *_, last = (one for one in network.body.children() if isinstance(one, nn.Linear))
            last.bias.fill_(-100)
        z = x.clone().requires_grad_()
        logits[name] = network(z)
        (gradients[name],) = torch.autograd.grad(logits[name][:, 0].sum(), z)
    assert torch.equal(logits["conv_small"], network.head.bias.expand(20, 10))
    assert not gradients["conv_small"].any()
    assert gradients["conv_leaky"].flatten(1).any(1).all()


@pytest.mark.parametrize("block", [BasicBlock, PreActivationBlock])
def test_a_block_without_residual_is_its_shortcut(block: type[BasicBlock | PreActivationBlock]) -> None:
    same, halving = block(4, 4, 1).eval(), block(4, 8, 2).eval()
    for module in (same, halving):
        for parameter in module.residual.parameters():
            nn.init.zeros_(parameter)
    x = images(2, 4, 6, 6).float() - 0.5
    expected = x.clamp(min=0) if block is BasicBlock else x
    torch.testing.assert_close(same(x), expected, rtol=0, atol=0)
    (weight,) = (m.weight for m in halving.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))
    source = x if block is BasicBlock else x.clamp(min=0) / math.sqrt(1 + 1e-5)  # the norm's eps
    z = torch.einsum("nchw,kc->nkhw", source[:, :, ::2, ::2], weight[:, :, 0, 0])
    expected = z.clamp(min=0) / math.sqrt(1 + 1e-5) if block is BasicBlock else z
    torch.testing.assert_close(halving(x), expected)


@pytest.mark.parametrize("name", ["resnet_ccat", "preact_resnet18", "wrn28_10"])
def test_residual_features_are_averages_over_all_pixels(name: str) -> None:
    """Mirror the kernels, and mirrored images give the same features, at a size that strides treat symmetrically."""
    network = with_statistics(tiny(name, (3, 17, 17)), 3, 17, 17)
    mirrored = copy.deepcopy(network)
    with torch.no_grad():
        for module in mirrored.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.flip(3))
    x = images(2, 3, 17, 17)
    torch.testing.assert_close(mirrored.features(x.flip(3)), network.features(x), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(mirrored.features(x), network.features(x))


@each_network
def test_gradients_reach_every_weight(name: str) -> None:
    network = tiny(name, mean=[0.5] * 3)
    x = images(4, 3, 8, 8).float().requires_grad_()
    F.cross_entropy(network(x), torch.tensor([0, 1, 2, 3])).backward()
    assert x.grad is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


# --- spec ---


@each_network
def test_spec_rebuilds_the_network(name: str) -> None:
    network = with_statistics(tiny(name, mean=[0.5, 0.25, 0.5], std=[0.5, 0.25, 2.0]), 3, 8, 8)
    spec = json.loads(json.dumps(network.spec))
    assert spec == network.spec
    again = models.build(**spec).double().eval()
    assert again.spec == spec
    again.load_state_dict(network.state_dict())
    x = images(2, 3, 8, 8)
    torch.testing.assert_close(again(x), network(x), rtol=0, atol=0)


def test_spec_has_the_defaults_and_cannot_be_changed() -> None:
    network = models.build("wrn28_10", 2, torch.Size((1, 8, 8)), depth=10, width=2, std=torch.tensor([2.0]).tolist())
    expected = {
        "name": "wrn28_10",
        "num_classes": 2,
        "in_shape": [1, 8, 8],
        "depth": 10,
        "width": 2,
        "mean": [0.0],
        "std": [2.0],
    }
    assert network.spec == expected
    network.spec["in_shape"][0] = 3
    assert network.spec == expected
    assert models.build("conv_small", 3, (1, 8, 8)).spec["width"] == 1
    assert repr(network).startswith("Network('wrn28_10', 2, (1, 8, 8), depth=10, width=2, mean=[0.0], std=[2.0]: ")


def test_spec_does_not_alias_the_arguments() -> None:
    mean = [0.5]
    network = models.build("linear", 2, (1, 8, 8), mean=mean)
    mean[0] = 0.0
    assert network.spec["mean"] == [0.5]


# --- first weights ---


@each_network
def test_same_seed_same_weights(name: str) -> None:
    with global_random_numbers_untouched():
        first, again, other = tiny(name, seed=3), tiny(name, seed=3), tiny(name, seed=4)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert not torch.equal(first.head.weight, other.head.weight)
    (*_, last) = (m for m in first.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert last is first.head


def test_without_a_generator_the_weights_are_new() -> None:
    with global_random_numbers_untouched():
        torch_seed = torch.initial_seed()
        first, second = (models.build("linear", 2, (1, 8, 8)) for _ in range(2))
        assert torch.initial_seed() == torch_seed
    assert not torch.equal(first.head.weight, second.head.weight)


def test_the_generator_moves_on() -> None:
    generator = seeded(0)
    first, second = (models.build("linear", 2, (1, 8, 8), generator=generator) for _ in range(2))
    assert not torch.equal(first.head.weight, second.head.weight)


@each_network
def test_law_of_the_first_weights(name: str) -> None:
    """Kolmogorov-Smirnov, all weights of one kind together, each in units of its scale."""
    uniform, normal = [], []
    for layer in tiny(name, seed=5).modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            fan_out = layer.weight[:, 0].numel()
            normal.append(layer.weight.detach().flatten() / math.sqrt(2 / fan_out))
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            uniform += [p.detach().flatten() / bound for p in layer.parameters()]
        elif isinstance(layer, nn.BatchNorm2d):
            expected = [torch.ones_like(layer.weight), torch.zeros_like(layer.bias)] * 2
            assert layer.running_mean is not None
            assert layer.running_var is not None
            found = [layer.weight, layer.bias, layer.running_var, layer.running_mean]
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert stats.kstest(torch.cat(uniform).numpy()[:100_000], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    if name in ("resnet_ccat", "preact_resnet18", "wrn28_10"):
        assert stats.kstest(torch.cat(normal).numpy()[:100_000], stats.norm.cdf).pvalue > 1e-3
    else:
        assert not normal


def test_builds_on_the_cpu_in_training_mode_whatever_the_default_device() -> None:
    with torch.device("meta"):
        network = tiny("conv_small", mean=[0.5] * 3)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
    assert network.training
    assert torch.equal(network.head.weight, tiny("conv_small").head.weight)


# --- errors ---


@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (2, 1, 8, 8), (2, 3, 8, 9), (2, 3, 4, 8), (2, 192), (1, 2, 3, 8, 8)], ids=str
)
@each_network
def test_images_of_another_shape(name: str, shape: tuple[int, ...]) -> None:
    network = tiny(name)
    for function in (network, network.features):
        with pytest.raises(ValueError, match=r"x has the shape \(.*\): allowed is \(n, 3, 8, 8\)") as caught:
            function(torch.zeros(shape))
        assert str(shape) in str(caught.value)


def test_images_as_bytes() -> None:
    with pytest.raises(TypeError, match=r"torch.uint8.*divide bytes by 255"):
        tiny("linear")(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_the_check_compiles() -> None:
    network = with_statistics(tiny("resnet_ccat"), 3, 8, 8)
    x = images(3, 3, 8, 8)
    whole = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), network(x), rtol=0, atol=0)
    compiled = torch.compile(network, backend="eager")
    with pytest.raises(ValueError, match=r"x has the shape \(3, 3, 8, 7\)"):
        compiled(x[..., :7])


def test_unknown_name() -> None:
    with pytest.raises(
        ValueError, match=r"'conv_smal' is unknown \(did you mean 'conv_small'\?\): .*linear, conv_small"
    ):
        models.build("conv_smal", 10, (1, 28, 28))
    with pytest.raises(ValueError, match=r"'zebra' is unknown: allowed"):
        models.build("zebra", 10, (1, 28, 28))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": 3}, TypeError, "name = 3 is of the wrong type"),
        ({"num_classes": 1}, ValueError, "num_classes = 1 .* >= 2"),
        ({"num_classes": 2.5}, ValueError, "num_classes = 2.5 .*whole number"),
        ({"num_classes": "10"}, TypeError, "num_classes = '10' is not a number"),
        ({"in_shape": (28, 28)}, ValueError, r"in_shape = \(28, 28\) has 2 numbers: allowed is \(channels, height"),
        ({"in_shape": 28}, TypeError, "in_shape = 28 is of the wrong type"),
        ({"in_shape": (0, 28, 28)}, ValueError, r"in_shape\[0\] = 0 is out of range: .* >= 1"),
        ({"in_shape": (1, 28, 3)}, ValueError, r"in_shape = \(1, 28, 3\) is too small for conv_small: .* 4 x 4"),
        (
            {"widht": 2},
            TypeError,
            r"option widht = 2 is unknown for conv_small \(did you mean 'width'\?\): .*mean, std",
        ),
        ({"depth": 10}, TypeError, "option depth = 10 is unknown for conv_small"),
        ({"in_channels": 3}, TypeError, "option in_channels = 3 is unknown"),
        ({"width": 0}, ValueError, "width = 0 .*whole number >= 1"),
        ({"width": 0.5}, ValueError, "width = 0.5 .*whole number >= 1"),
        ({"name": "wrn28_10", "depth": 27}, ValueError, r"depth = 27 is not possible: allowed is 6 k \+ 4"),
        ({"name": "wrn28_10", "depth": 4}, ValueError, r"depth = 4 is not possible: allowed is 6 k \+ 4"),
        ({"mean": [0.1, 0.2]}, ValueError, r"mean = \[0.1, 0.2\] has 2 numbers: .*1 number"),
        ({"mean": 0.1}, TypeError, "mean = 0.1 is of the wrong type: .*one per channel"),
        ({"mean": [math.nan]}, ValueError, r"mean\[0\] = nan is out of range"),
        ({"std": [0.0]}, ValueError, r"std\[0\] = 0.0 is out of range: .* > 0"),
        ({"generator": 0}, TypeError, "generator = 0 is of the wrong type: .*torch.Generator"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"name": "conv_small", "num_classes": 10, "in_shape": (1, 28, 28)} | change
    with pytest.raises(error, match=message):
        models.build(**arguments)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu() -> None:
    for name in models.NAMES:
        network = with_statistics(tiny(name, mean=[0.5] * 3), 3, 8, 8)
        x = images(5, 3, 8, 8)
        with torch.no_grad():
            expected = network(x)
            torch.testing.assert_close(network.cuda()(x.cuda()).cpu(), expected, rtol=1e-9, atol=1e-9)
    on_cuda = torch.Generator("cuda").manual_seed(0)
    assert models.build("linear", 2, (1, 8, 8), generator=on_cuda).head.weight.device.type == "cpu"
