"""Networks: images in [0, 1] go in, logits come out. `build` makes one by its name, `from_spec` as it stands in files."""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.models.convolutional import conv_leaky, conv_small, conv_threshold, madry_mnist
from deepcheck.models.ensemble import Ensemble
from deepcheck.models.linear import linear
from deepcheck.models.network import Network
from deepcheck.models.noise import Noise, checked_noise
from deepcheck.models.normalisation import Normalisation, checked_channels
from deepcheck.models.residual import preact_resnet18, resnet_ccat, wrn28_10
from odeflow.model import checked_count, checked_number

__all__ = ["NAMES", "Ensemble", "Network", "build", "from_spec", "shapes_of"]

_BODIES: dict[str, tuple[Callable[..., tuple[nn.Module, int]], int]] = {
    "linear": (linear, 1),
    "conv_small": (conv_small, 4),
    "conv_leaky": (conv_leaky, 4),
    "conv_threshold": (conv_threshold, 4),
    "madry_mnist": (madry_mnist, 4),
    "resnet_ccat": (resnet_ccat, 4),
    "preact_resnet18": (preact_resnet18, 8),
    "wrn28_10": (wrn28_10, 4),
}
"""What makes the features, whose keyword arguments, all counts, are the options; and the least height and width of an
image, so that every halving of it leaves a pixel."""

NAMES = tuple(_BODIES)
"""Names of the networks."""


def build(
    name: str,
    num_classes: int,
    in_shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    noise: Sequence[float] | None = None,
    scale: float | None = None,
    **options: int,
) -> Network:
    """Return a network with random weights, on the CPU, in training mode.

    ===============  ===========================================================  ===============================
    name             what it is                                                   options
    ===============  ===========================================================  ===============================
    linear           a linear classifier
    conv_small       two convolutions, 100 hidden units (Wong and Kolter 2018)    width = 1: factor of channels
    conv_leaky       conv_small with leaky ReLUs                                  width = 1: factor of channels
    conv_threshold   conv_small behind a pointwise layer                          width = 1; levels = 4 channels
    madry_mnist      two convolutions, 1024 hidden units (Madry et al. 2018)      width = 1: factor of channels
    resnet_ccat      ResNet-20 with 64 channels (Stutz et al. 2020)               channels = 64; blocks = 3 a stage
    preact_resnet18  ResNet-18 with pre-activation (He et al. 2016)               channels = 64
    wrn28_10         wide ResNet (Zagoruyko and Komodakis 2016)                   depth = 28; width = 10
    ===============  ===========================================================  ===============================

    Weights and biases of layers with a bias are uniform in +-1 / sqrt(fan-in), PyTorch's default; convolutions without
    one, in the residual networks, are normal with variance 2 / fan-out (He et al., ICCV 2015); norms are 1 x + 0. The
    global random numbers are not used.

    Parameters
    ----------
    name
        Out of NAMES.
    num_classes
        Number of classes, >= 2.
    in_shape
        Channels, height, width of an image. Convolutional networks need 4 x 4 pixels, preact_resnet18 8 x 8.
    generator
        Source of the weights. None: a new one with a seed from the system.
    mean, std
        What is subtracted from each channel of the images, which are in [0, 1], and by what it is divided; one number
        per channel, std > 0. If one of them is given, the other is 0 or 1. None: no normalisation.
    noise
        Standard deviations, >= 0, of Gaussian noise before the first convolution and before each of the others, in training
        and at test: [0.2, 0.1], say; of the linear classifier the first goes to the image. A network that has it is random; see
        `deepcheck.models.noise`. Its seed is drawn after the weights. None: no noise.
    scale
        What the logits are multiplied by, > 0, as by a temperature that goes away after training. None: 1.
    **options
        See the table; whole numbers >= 1.

    Raises
    ------
    ValueError, TypeError
        If the name or an option is unknown, a number out of range, or the images are too small.

    Examples
    --------
    >>> network = build("conv_small", 10, (1, 28, 28), generator=torch.Generator().manual_seed(0))
    >>> network
    Network('conv_small', 10, (1, 28, 28), width=1: 166,406 weights)
    >>> images = torch.rand(5, 1, 28, 28)
    >>> network(images).shape, network.features(images).shape
    (torch.Size([5, 10]), torch.Size([5, 100]))
    """
    if not isinstance(name, str):
        raise TypeError(f"name = {name!r} is of the wrong type: allowed is one of {', '.join(NAMES)}")
    if name not in NAMES:
        raise ValueError(f"name = {name!r} is unknown{_guess(name, NAMES)}: allowed is one of {', '.join(NAMES)}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator = {generator!r} is of the wrong type: allowed is a torch.Generator, or None")
    network = _without_weights(name, num_classes, in_shape, mean, std, noise, scale, options)
    if generator is None:
        generator = _fresh_generator()
    for module in (network.body, network.head):
        _initialise(module.to_empty(device="cpu"), generator)
    if network.noise is not None:
        network.noise.reseed(int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device)))
    return network


def _without_weights(
    name: str,
    num_classes: int,
    in_shape: Sequence[int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    noise: Sequence[float] | None,
    scale: float | None,
    options: dict[str, int],
) -> Network:
    """Return a network whose body and head are on the meta device: they have shapes and take no memory."""
    make_body, least = _BODIES[name]
    num_classes = checked_count("num_classes", num_classes, 2)
    shape = _checked_shape(in_shape, least, name)
    options = _checked_options(options, make_body, name)
    normalisation: nn.Module = nn.Identity()
    if mean is not None or std is not None:
        mean = checked_channels("mean", [0.0] * shape[0] if mean is None else mean, shape[0])
        std = checked_channels("std", [1.0] * shape[0] if std is None else std, shape[0], positive=True)
        normalisation = Normalisation(mean, std)
    with torch.device("meta"):  # no weights yet: PyTorch would draw them from the global random numbers
        body, d = make_body(shape, **options)
        head = nn.Linear(d, num_classes)
    spec: dict[str, Any] = {
        "name": name,
        "num_classes": num_classes,
        "in_shape": list(shape),
        **options,
        "mean": mean,
        "std": std,
    }
    if scale is not None:
        spec["scale"] = checked_number("scale", scale, above=0)
    if noise is None:
        return Network(spec, normalisation, body, head)
    first, inner = spec["noise"] = checked_noise(noise)
    return Network(spec, normalisation, body, head, Noise(first, inner))


def from_spec(spec: Mapping[str, Any]) -> Network:
    """Return a network with random weights for the `spec` of another one, which may be an ensemble.

    Raises
    ------
    ValueError, TypeError
        As `build`.
    """
    if "members" in spec:
        return Ensemble([from_spec(member) for member in spec["members"]])
    return build(**spec)


def shapes_of(spec: Mapping[str, Any], *, tensors: int) -> dict[str, torch.Size]:
    """Return the shapes of the tensors of the network that a `spec` describes, without making it.

    Parameters
    ----------
    spec
        It may come from a file of anyone.
    tensors
        How many tensors there may be: a network of more blocks or members is not followed.

    Raises
    ------
    ValueError
        If it is not the spec of a network, or of one of more tensors; one line says why.
    """
    try:
        if not isinstance(spec, Mapping):
            raise TypeError(f"{type(spec).__name__} is no description of a network")
        if "members" in spec:
            members = list(spec["members"])
            if len(members) > tensors:
                raise ValueError(f"{len(members)} members have more than {tensors} tensors")
            found = [shapes_of(member, tensors=tensors) for member in members]
            return {f"_members.{k}.{name}": shape for k, one in enumerate(found) for name, shape in one.items()}
        arguments = dict(spec)
        name, num_classes, in_shape = (arguments.pop(key) for key in ("name", "num_classes", "in_shape"))
        mean, std, noise, scale = (arguments.pop(key, None) for key in ("mean", "std", "noise", "scale"))
        if name not in NAMES:
            raise ValueError(f"name = {name!r} is unknown")
        for key in ("blocks", "depth"):
            if checked_count(key, arguments.get(key, 1), 1) > tensors:
                raise ValueError(f"{key} = {arguments[key]} for {tensors} tensors")
        network = _without_weights(name, num_classes, in_shape, mean, std, noise, scale, arguments)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None
    except (TypeError, RuntimeError, OverflowError, RecursionError) as error:
        raise ValueError(next(iter(str(error).splitlines()), type(error).__name__)) from None
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@torch.no_grad()
def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Give every layer its first weights; see `build`."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d) and layer.bias is None:
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            std = math.sqrt(2 / fan_out)
            layer.weight.copy_(_like(layer.weight, generator).normal_(0.0, std, generator=generator))
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                parameter.copy_(_like(parameter, generator).uniform_(-bound, bound, generator=generator))


def _like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return a tensor for random numbers: in the shape of `parameter`, on the device of the generator."""
    return torch.empty(parameter.shape, dtype=parameter.dtype, device=generator.device)


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator("cpu")
    generator.seed()
    return generator


def _checked_shape(in_shape: object, least: int, name: str) -> tuple[int, int, int]:
    if isinstance(in_shape, str) or not isinstance(in_shape, Iterable):
        raise TypeError(f"in_shape = {in_shape!r} is of the wrong type: allowed is (channels, height, width)")
    sizes = [checked_count(f"in_shape[{index}]", size, 1) for index, size in enumerate(in_shape)]
    if len(sizes) != 3:
        raise ValueError(f"in_shape = {in_shape!r} has {len(sizes)} numbers: allowed is (channels, height, width)")
    channels, height, width = sizes
    if min(height, width) < least:
        raise ValueError(
            f"in_shape = {in_shape!r} is too small for {name}: allowed are images of {least} x {least} pixels and more"
        )
    return channels, height, width


def _checked_options(given: dict[str, int], make_body: Callable[..., Any], name: str) -> dict[str, int]:
    """Return all options of a network: the given ones, else their defaults."""
    parameters = inspect.signature(make_body).parameters.values()
    options = {
        parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    allowed = (*options, "mean", "std", "noise", "scale", "generator")
    for option, value in given.items():
        if option not in options:
            raise TypeError(
                f"option {option} = {value!r} is unknown for {name}{_guess(option, allowed)}: "
                f"allowed are {', '.join(allowed)}"
            )
        options[option] = checked_count(option, value, 1)
    return options


def _guess(given: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(given.lower(), allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
