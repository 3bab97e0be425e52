"""Nets that were not trained here: a factory named by its module, and weights in safetensors. Nothing is unpickled."""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import difflib
import importlib
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck import checkpoint
from deepcheck.attacks.base import Bounds, Model, checked_bounds
from deepcheck.attacks.calls import decided
from deepcheck.attacks.checks import warn_of_probabilities
from deepcheck.defences.base import Defence
from odeflow.parameters import a

__all__ = ["InBounds", "load_own", "tried"]

_FIRST = 3  # names of tensors that a message lists


class InBounds(nn.Module):
    """A net for pixels in [low, high] as one for pixels in [0, 1], in which all attacks and their epsilons are.

    Parameters
    ----------
    model
        A function from images with pixels in `bounds` to logits.
    bounds
        Least and largest value of a pixel, finite.

    Raises
    ------
    ValueError
        If the bounds are not two finite numbers, the lower first.

    Examples
    --------
    >>> InBounds(lambda x: x, (-1, 1))(torch.tensor([[0.0, 0.5, 1.0]]))
    tensor([[-1.,  0.,  1.]])
    """

    def __init__(self, model: Model, bounds: Bounds) -> None:
        super().__init__()
        self.model = model
        self.low, self.high = checked_bounds(bounds)
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            raise ValueError(f"bounds = {bounds!r} is not allowed: two finite numbers, the lower first, are")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n, K), for images in [0, 1]."""
        return self.model(self.low + (self.high - self.low) * x)


def load_own(
    target: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    bounds: Bounds = (0.0, 1.0),
    device: torch.device | str = "cpu",
) -> Model:
    """Return the net that a factory makes, with its weights from a file, on a device and in eval mode.

    Parameters
    ----------
    target
        "package.module:factory": what it names is called without arguments and returns a function from images to logits,
        as a rule a torch.nn.Module. A module that is named itself is taken as it is. Modules of the current folder are
        found.
    weights
        A safetensors file with the net's state dict; None: the factory has loaded them.
    bounds
        Least and largest value of the pixels that the net takes. What is returned takes pixels in [0, 1] in any case.
    device
        Where the net is to be.

    Raises
    ------
    ValueError, TypeError, ImportError
        If the factory is not found, fails, or returns no net; one line each.
    CheckpointError
        If the weights are no safetensors file, or do not fit.
    """
    made = _made(target)
    if isinstance(made, nn.Module):
        if weights is not None:
            _fill(made, weights, target)
        made.to(device).eval()
        training = [name or type(made).__name__ for name, module in made.named_modules() if module.training]
        if training:
            raise ValueError(
                f"model = {target!r} stays in train mode after eval(), in {_few(training)}: allowed is a net"
            )
    elif weights is not None:
        raise TypeError(
            f"model = {target!r} returned {a(type(made).__name__)}, which takes no weights: allowed is a torch.nn.Module"
        )
    elif not callable(made):
        raise TypeError(
            f"model = {target!r} returned {a(type(made).__name__)}, which is not callable: allowed is a torch.nn.Module, or "
            "a function from images to logits"
        )
    model: Model = made
    return model if checked_bounds(bounds) == (0.0, 1.0) else InBounds(model, bounds).eval()


def tried(model: Model, images: Tensor, num_classes: int, *, name: str) -> None:
    """Raise if a net does not return logits for two images, or other ones for the same image.

    Parameters
    ----------
    model
        A function from images to logits.
    images
        Two images or more, pixels in [0, 1], on the net's device.
    num_classes
        Classes of the data set: the net needs as many, or more.
    name
        What the message calls the net.

    Raises
    ------
    ValueError
        If the net fails on the images, if the shape of its output is another, if it is not finite, or if it says something
        else in the next call or beside another image, as in train mode; a random `Defence` may.
    """
    two = images[:2]
    first: Any
    try:
        with torch.no_grad():
            first, again, alone = (model(x.clone()) for x in (two, two, two[:1]))
    except Exception as error:  # whatever somebody else's net raises
        shape = tuple(two.shape)
        raise ValueError(f"model = {name!r} failed on images of shape {shape}: {_line(error)}") from error
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != 2 or first.shape[1] < num_classes:
        found = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(
            f"model = {name!r} returned {found} for images of shape {tuple(two.shape)}: allowed are logits of shape "
            f"(2, K) with K >= {num_classes} classes"
        )
    if not bool(decided(first).all()):
        raise ValueError(
            f"model = {name!r} returned logits that are not finite: allowed are numbers, and -inf for some classes"
        )
    warn_of_probabilities(first)
    if isinstance(model, Defence) and model.random:
        return
    scale = 1e-3 * float(first[first.isfinite()].abs().max()) + 1e-6
    if not torch.allclose(first, again, rtol=0, atol=scale) or not torch.allclose(first[:1], alone, rtol=0, atol=scale):
        raise ValueError(
            f"model = {name!r} returned other logits for the same image in another call or batch, as a net in train mode "
            "does: allowed is one on which eval() was called, or a Defence that says that it is random"
        )


def _made(target: str) -> Any:
    """Return what the factory of this name returns."""
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"model = {target!r} is not allowed: package.module:factory is, such as mylab.nets:make")
    with _current_folder_on_path():
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise ImportError(f"model = {target!r}: importing {module_name} failed: {_line(error)}") from error
            raise ImportError(
                f"model = {target!r}: there is no module {error.name!r} in the current folder or installed: allowed is "
                "package.module:factory"
            ) from None
        except Exception as error:  # whatever somebody else's module raises
            raise ImportError(f"model = {target!r}: importing {module_name} failed: {_line(error)}") from error
        for part in attribute.split("."):
            if not hasattr(found, part):
                close = difflib.get_close_matches(part, [name for name in dir(found) if name[:1] != "_"], 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ImportError(
                    f"model = {target!r}: {module_name} has no {part!r}{hint}: allowed is one of its names"
                )
            found = getattr(found, part)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise TypeError(
                f"model = {target!r} is {a(type(found).__name__)}, which is not callable: allowed is a factory"
            )
        try:
            return found()
        except Exception as error:  # whatever somebody else's factory raises
            raise ValueError(
                f"model = {target!r} failed: {_line(error)}: allowed is a factory that is called without arguments"
            ) from error


def _fill(net: nn.Module, weights: str | os.PathLike[str], target: str) -> None:
    """Give a net the tensors of a file, of exactly its names and shapes."""
    tensors, wanted = checkpoint.read_tensors(weights), net.state_dict()
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
            for name in wanted
            if name in tensors and tensors[name].shape != wanted[name].shape
        ],
    }
    found = "; ".join(f"{what}: {_few(names)}" for what, names in problems.items() if names)
    if found:
        raise checkpoint.CheckpointError(
            f"weights = {os.fspath(weights)!r} do not fit model = {target!r}: {found}; allowed are the {len(wanted)} "
            "tensors of its state dict"
        )
    checkpoint.check_finite(tensors, weights)
    net.load_state_dict(tensors)


def _few(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _FIRST} more" if len(names) > _FIRST else ""
    return ", ".join(names[:_FIRST]) + more


def _line(error: BaseException) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """Find modules of the current folder, which an installed command does not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
