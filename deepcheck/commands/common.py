"""What the commands of ``deepcheck`` have in common."""

from __future__ import annotations

import ast
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from odeflow.model import checked_count
from odeflow.provenance import check_target, save

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from deepcheck.attacks.base import Model
    from deepcheck.data import Images
    from deepcheck.evaluation import Planned

__all__ = ["OnImages", "OnNet", "at_most", "followed", "load_images", "options_in", "training_threat"]


@dataclass(frozen=True)
class OnNet:
    """What the other commands have in common."""

    command: ClassVar[str] = ""
    """The command's name, where it is not the class's."""
    checkpoint: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """A checkpoint, as `deepcheck train` or `deepcheck export` leaves it, or the folder where it is."""
    model: str | None = None
    """A net of one's own instead: package.module:factory, which is called without arguments and returns a function from
    images to logits."""
    weights: Path | None = None
    """With --model: its state dict, a safetensors file; default: the factory has loaded them."""
    bounds: tuple[float, float] | None = None
    """With --model: least and largest pixel that it takes; default: 0 1. Epsilons are shares of this range."""
    dataset: Literal["mnist", "cifar10", "digits"] | None = None
    """With --model: the data set that it is for."""
    out: Path | None = None
    """Save the records to this file (.nc or .zarr)."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the records that are in the file. (Figures are drawn anew without it.)"""
    seed: int = 0
    """Seed of the attacks, >= 0."""
    batch_size: int = 500
    """Images that the net sees at once, >= 1. The result does not depend on it."""
    device: str = "auto"
    """auto (CUDA where there is a GPU, else the CPU), cpu, cuda or cuda:N."""
    data_dir: Path | None = None
    """Folder of the data set; default: $DEEPCHECK_DATA, then the cache, then a download."""

    def network(self) -> tuple[Model, str, torch.device, dict[str, Any]]:
        """Return the net, the name of its data set, the device, and what is known of the net."""
        self._check_which()
        if self.out is not None:
            check_target(self.out, overwrite=self.overwrite)
        checked_count("batch_size", self.batch_size, 1)
        checked_count("seed", self.seed, 0)
        return self._trained() if self.model is None else self._own(self.model)

    def finish(self, records: xr.Dataset, text: str) -> None:
        """Print what was found, and save it if asked for."""
        print(text, *([] if self.out is None else [save(records, self.out)]), sep="\n")

    def _check_which(self) -> None:
        """Raise unless there is either a checkpoint or a net of one's own."""
        command = self.command or type(self).__name__.lower()
        if self.model is None:
            if self.checkpoint is None:
                raise ValueError(
                    f"CHECKPOINT is missing from deepcheck {command}: allowed is what `deepcheck train` has left, or a net "
                    "of one's own with --model and --dataset"
                )
            for name in ("weights", "bounds", "dataset"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} = {getattr(self, name)} with a checkpoint is not allowed: it goes with --model"
                    )
        elif self.checkpoint is not None:
            raise ValueError(
                f"model = {self.model!r} with a checkpoint {str(self.checkpoint)!r}: allowed is one of the two"
            )
        elif self.dataset is None:
            raise ValueError(f"dataset is missing with model = {self.model!r}: allowed is mnist, cifar10 or digits")

    def _trained(self) -> tuple[Model, str, torch.device, dict[str, Any]]:
        """Return the net of a checkpoint."""
        from deepcheck import checkpoint
        from deepcheck.device import choose

        assert self.checkpoint is not None
        path = checkpoint.result_in(self.checkpoint)
        information = checkpoint.read(path)[1]
        device = choose(self.device)
        network = checkpoint.load_model(path, device=device)
        about = {"checkpoint": str(path), **{name: information.get(name) for name in ("model", "recipe", "epoch")}}
        return network, str(information.get("dataset", "")), device, about

    def _own(self, target: str) -> tuple[Model, str, torch.device, dict[str, Any]]:
        """Return a net of one's own, once it has been tried on two images."""
        import torch

        from deepcheck.device import choose
        from deepcheck.own_model import load_own, tried

        assert self.dataset is not None
        device = choose(self.device)
        bounds = (0.0, 1.0) if self.bounds is None else self.bounds
        model = load_own(target, self.weights, bounds=bounds, device=device)
        images = load_images(self.dataset, self.data_dir)
        two = torch.tensor(images.test_images[:2], device=device).float() / 255
        tried(model, two, len(images.class_names), name=target)
        weights = None if self.weights is None else str(self.weights)
        about = {"model": target, "weights": weights, "bounds": list(bounds), "recipe": None}
        return model, self.dataset, device, about


@dataclass(frozen=True)
class OnImages(OnNet):
    """What the commands that need test images have in common."""

    examples: int = 1000
    """Test images to attack, the first ones, >= 1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the search for adversarial examples; the net says in float32 what it makes of them."""
    channels_last: bool = False
    """Give the net images with the channels last in memory in the search: faster on a GPU."""
    defence: str | None = None
    """A defence at test time around the net, see deepcheck defences. The attacks are then those that know of it."""
    defence_option: tuple[str, ...] = ()
    """Options of the defence, each as NAME=VALUE, say passes=10."""
    oblivious: bool = False
    """With --defence: attacks that do not know of it, as many articles claimed by: they follow the net behind it."""

    def network(self) -> tuple[Model, str, torch.device, dict[str, Any]]:
        """Return the net, in its defence if there is one, the name of its data set, the device, and what is known of the net."""
        if self.defence is None:
            for name in ("defence_option", "oblivious"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} = {getattr(self, name)} without --defence is not allowed: it goes with one"
                    )
            return super().network()
        from deepcheck.defences import registry

        options = options_in("defence_option", self.defence_option)
        registry.make(self.defence, lambda x: x, seed=self.seed, **options)  # bad input is refused before any work
        net, dataset, device, about = super().network()
        used = registry.options_of(self.defence) | options
        about = about | {"defence": {"name": self.defence, **used, "oblivious": self.oblivious}}
        return registry.make(self.defence, net, seed=self.seed, **options), dataset, device, about

    def against(self, planned: dict[str, Planned], defence: Model | None = None) -> dict[str, Planned]:
        """Return the attacks as the defence must be judged by, or as they do not know of it; without a defence as they are.

        With the defence itself, its own attacks too.
        """
        from deepcheck.defences import Defence
        from deepcheck.evaluation import adaptive, oblivious

        if self.defence is None:
            return planned
        if self.oblivious:
            return oblivious(planned)
        return adaptive(planned, defence if isinstance(defence, Defence) else None)


def followed(model: Model) -> Model:
    """Return what attacks follow: the surrogate of a defence, in the mode of the net behind it, else the net itself."""
    from torch import nn

    from deepcheck.defences import Defence

    if not isinstance(model, Defence):
        return model
    surrogate = model.surrogate()
    if isinstance(surrogate, nn.Module) and isinstance(model.net, nn.Module):
        own = {*surrogate.modules()} - {*model.net.modules()}  # made in train mode, they have none of their own
        for module in own:
            module.training = model.net.training
    return surrogate


def options_in(name: str, texts: tuple[str, ...], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return options that are given as NAME=VALUE, beside others.

    Raises
    ------
    ValueError
        If one is something else, or there already.
    """
    options = dict(given or {})
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in options:
            raise ValueError(f"{name} = {text!r} is not allowed: NAME=VALUE is, each name once")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def load_images(dataset: str, data_dir: Path | None) -> Images:
    """Return the images that a net was trained for."""
    from deepcheck.data import load

    if not dataset:
        raise ValueError("the checkpoint does not say which data set it is for: allowed is one that `train` has left")
    return load(dataset, data_dir=data_dir)


def training_threat(about: Mapping[str, Any], dataset: str) -> tuple[str, float]:
    """Return norm and size of the perturbations that a net was trained to withstand, out of its recipe.

    Without a recipe, as a net of one's own: L-infinity, and the first size there for the data set.
    """
    from deepcheck.evaluation.suites import THREATS
    from deepcheck.training.recipe import threat

    if about.get("recipe"):
        return threat(about["recipe"])
    if dataset not in THREATS:
        raise ValueError(f"epsilon is missing: there is no default for the data set {dataset!r}")
    return "linf", THREATS[dataset].linf[0]


def at_most(examples: int, most: int, name: str) -> int:
    """Return the number of test images to attack: fewer than asked for where the data set is small, which is said."""
    checked_count("examples", examples, 1)
    if examples > most:
        logging.getLogger(__name__).warning("examples = %d: %s has %d to attack", examples, name, most)
    return min(examples, most)
