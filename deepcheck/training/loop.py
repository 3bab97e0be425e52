"""One training loop for all methods: images on the device, a checkpoint after every epoch, and resuming."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deepcheck import checkpoint, models
from deepcheck.attacks.base import Model, evaluating
from deepcheck.attacks.pgd import PGD
from deepcheck.data import Images
from deepcheck.device import choose, describe, memory_advice
from deepcheck.training import parallel
from deepcheck.training.augmentation import crop, flip
from deepcheck.training.recipe import Recipe
from deepcheck.training.schedules import SCHEDULES
from odeflow.provenance import provenance, write_bytes

__all__ = ["Trained", "train"]

_LOG = logging.getLogger(__name__)
LAST, BEST, REPORT = "last.safetensors", "best.safetensors", "training.json"


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """A trained network."""

    network: models.Network
    """In eval mode, on the device it was trained on."""
    history: list[dict[str, float]]
    """For every epoch: learning_rate, loss, and on the images kept apart clean_accuracy and robust_accuracy."""
    checkpoint: Path
    """The file with its weights."""

    def __repr__(self) -> str:
        return f"Trained({self.network.spec['name']!r}, {len(self.history)} epochs, {str(self.checkpoint)!r})"


def train(
    recipe: Recipe,
    images: Images,
    *,
    out: str | Path,
    device: str = "auto",
    resume: bool = False,
    channels_last: bool = False,
    compiled: bool = False,
    progress: bool = False,
) -> Trained:
    """Train a network on a data set.

    After every epoch the folder `out` has `last.safetensors` (weights, and what is needed to go on), `best.safetensors`
    if the recipe has `patience`, and `training.json` (recipe, provenance and history). Started by torchrun, every
    process takes its share of each batch; the first one writes.

    Parameters
    ----------
    recipe
        What to do.
    images
        The data, from `deepcheck.data.load`. The last `recipe.validation` training images are kept apart.
    out
        Folder of the results; it is made if only it, and not its parent, is missing.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    resume
        Go on after the last whole epoch in `out`; with none there, start. On a CPU the final weights are those of a
        training that was not interrupted.
    channels_last
        Keep images and weights in the memory format that convolutions on GPUs prefer.
    compiled
        Use torch.compile.
    progress
        Show progress on a terminal.

    Raises
    ------
    ValueError
        If the device does not exist, there are too few images, or `out` has a training already and `resume` is False.
    CheckpointError
        If what is to be resumed is truncated, or was trained by another recipe or on other images.
    MemoryError
        If the batch does not fit into the memory of the GPU.
    """
    group = parallel.group()
    place = choose(device) if group.size == 1 else group.device(choose(device))
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out = {str(out)!r} cannot be made: its folder {str(out.parent)!r} does not exist")
    run = _Run(recipe, images, place, group, channels_last=channels_last)
    out.mkdir(exist_ok=True)
    last = out / LAST
    if last.exists() and not resume:
        raise ValueError(
            f"out = {str(out)!r} holds a training already: allowed is another folder, or resume=True (--resume)"
        )
    if last.exists():
        run.restore(last)
        _LOG.info("going on after epoch %d of %d", run.epoch, recipe.epochs)
    model = torch.compile(run.network) if compiled else run.network
    with memory_advice(recipe.batch_size):
        while not run.finished:
            run.run_epoch(model, progress=progress)
            if group.rank == 0:
                _save(run, out)
    group.wait()
    final = out / (BEST if recipe.patience is not None else LAST)
    return Trained(checkpoint.load_model(final, device=place), run.history, final)


class _Run:
    """A training: what changes from step to step, and what is fixed."""

    def __init__(
        self, recipe: Recipe, images: Images, device: torch.device, group: parallel.Group, *, channels_last: bool
    ) -> None:
        count = len(images.train_images) - recipe.validation
        if count < recipe.batch_size:
            raise ValueError(
                f"{images.name} has {len(images.train_images)} training images, too few for validation = "
                f"{recipe.validation} and batch_size = {recipe.batch_size}"
            )
        if recipe.batch_size % group.size or recipe.batch_size < 2 * group.size:
            raise ValueError(
                f"batch_size = {recipe.batch_size} cannot be shared by {group.size} processes: "
                f"allowed is {2 * group.size} or a larger multiple of {group.size}"
            )
        self.recipe, self.device, self.group = recipe, device, group
        self.source = {"dataset": images.name, "train_images": len(images.train_images)}
        self.method = recipe.training_method()
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        # bytes on the device: a quarter of the memory of numbers
        self.images = torch.tensor(images.train_images).to(device)
        self.labels = torch.tensor(images.train_labels).to(device)
        self.count = count
        weights = torch.Generator().manual_seed(recipe.seed)
        self.order = torch.Generator().manual_seed(recipe.seed + 1_000_003)  # the same in every process
        self.noise = torch.Generator(device).manual_seed(recipe.seed + 2_000_003 + 7919 * group.rank)
        options: dict[str, Any] = dict(recipe.model_options())
        if recipe.normalised:
            options |= _moments(images, count)
        network = models.build(recipe.model, len(images.class_names), images.shape, generator=weights, **options)
        self.network = network.to(device, memory_format=self.format)  # type: ignore[call-overload]
        self.average = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.optimiser = self._new_optimiser()
        self.rate = SCHEDULES[recipe.schedule]
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.best = float("-inf")
        self.best_epoch = 0

    def _new_optimiser(self) -> torch.optim.Optimizer:
        recipe, parameters = self.recipe, self.network.parameters()
        if recipe.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        return torch.optim.SGD(
            parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )

    @property
    def finished(self) -> bool:
        """Whether all epochs are over, or the robust validation error has stopped going down."""
        patience = self.recipe.patience
        return self.epoch >= self.recipe.epochs or (patience is not None and self.epoch - self.best_epoch >= patience)

    def run_epoch(self, model: Model, *, progress: bool) -> None:
        """Go once over the training images."""
        recipe, start = self.recipe, time.perf_counter()
        steps = self.count // recipe.batch_size
        order = torch.randperm(self.count, generator=self.order)[: steps * recipe.batch_size]
        batches = order.view(steps, self.group.size, -1)[:, self.group.rank].to(self.device)
        total = torch.zeros((), device=self.device)
        title = f"epoch {self.epoch + 1}/{recipe.epochs}"
        self.network.train()
        for step, batch in enumerate(
            tqdm(batches, desc=title, unit="step", leave=False, disable=None if progress else True)
        ):
            done = (self.epoch * steps + step) / (recipe.epochs * steps)
            total += self._step(model, batch, done)
        self.epoch += 1
        clean, robust = map(self.group.agreed, self._accuracies(model))
        if robust > self.best:
            self.best, self.best_epoch = robust, self.epoch
        row = {
            "epoch": self.epoch,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "loss": float(total) / steps,
            "clean_accuracy": clean,
            "robust_accuracy": robust,
            "seconds": round(time.perf_counter() - start, 2),
        }
        self.history.append(row)
        _LOG.info(
            "%s: loss %.4f, kept apart: clean accuracy %.4f, robust %.4f (%.1f s)",
            *(title, row["loss"], clean, robust, row["seconds"]),
        )

    def _step(self, model: Model, batch: Tensor, progress: float) -> Tensor:
        """Take one step along the gradient and return the loss."""
        recipe = self.recipe
        x = self.images[batch].float().div_(255)
        if recipe.augmentation != "none":
            x = crop(x, recipe.padding, self.noise)
        if recipe.augmentation == "crop_flip":
            x = flip(x, self.noise)
        x = x.contiguous(memory_format=self.format)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = recipe.learning_rate * self.rate(progress)
        with self._precision():
            loss = self.method.loss(model, x, self.labels[batch], progress=progress, generator=self.noise)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.group.average_gradients(self.network)
        self.optimiser.step()
        if recipe.average:
            self._update_average(progress)
        return loss.detach()

    def _update_average(self, progress: float) -> None:
        """Let the averaged weights follow: faster at the beginning, when there is little to average."""
        step = progress * self.recipe.epochs * (self.count // self.recipe.batch_size)
        weight = 1 - min(self.recipe.average, (step + 2) / (step + 11))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, weight)
                else:
                    self.average[name].copy_(tensor)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _accuracies(self, model: Model) -> tuple[float, float]:
        """Return the clean accuracy on the images kept apart, and that under a weak form of the training attack."""
        recipe = self.recipe
        x = self.images[self.count :].float().div_(255).contiguous(memory_format=self.format)
        y = self.labels[self.count :]
        generator = torch.Generator(self.device).manual_seed(recipe.seed)
        attack = PGD(recipe.norm, steps=10, relative_step_size=0.25)
        with self.averaged(), evaluating(self.network), self._precision(), torch.no_grad():
            clean = torch.cat([model(part).argmax(1) for part in torch.split(x, 500)])
            with torch.enable_grad():
                attacked = attack(self.network, x, y, epsilon=recipe.epsilon, generator=generator)
        return float((clean == y).double().mean()), float((attacked.prediction[0] == y).double().mean())

    def averaged(self) -> _Swapped:
        """Return a context in which the network has the averaged weights, if there are any."""
        return _Swapped(self.network, self.average if self.recipe.average else None)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and information that a checkpoint needs for resuming."""
        result = self.average if self.recipe.average else self.network.state_dict()
        tensors = {checkpoint.MODEL + name: tensor for name, tensor in result.items()}
        if self.recipe.average:
            tensors |= {f"current.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        tensors |= {"generator.order": self.order.get_state(), "generator.noise": self.noise.get_state()}
        information = {
            "model": self.network.spec,
            "recipe": asdict(self.recipe),
            **self.source,
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        return tensors, information

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint."""
        tensors, information = checkpoint.read(path)
        given = json.loads(json.dumps({**asdict(self.recipe), **self.source}))
        # a field that an earlier version did not have has the default
        recorded = information.get("recipe", {})
        found = {
            **(asdict(Recipe()) if recorded else {}),
            **recorded,
            **{name: information.get(name) for name in self.source},
        }
        different = [
            f"{name} = {found.get(name)!r} and not {value!r}"
            for name, value in given.items()
            if found.get(name) != value
        ]
        if different:
            raise checkpoint.CheckpointError(f"{str(path)!r} cannot be resumed: it has {', '.join(different)}")
        prefix = "current." if self.recipe.average else checkpoint.MODEL

        def part(start: str) -> dict[str, Tensor]:
            return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}

        missing = {"generator.order", "generator.noise", *(prefix + name for name in self.average)} - tensors.keys()
        if missing:
            raise checkpoint.CheckpointError(
                f"{str(path)!r} cannot be resumed: it lacks {', '.join(sorted(missing))} (are they weights alone?)"
            )
        self.network.load_state_dict(part(prefix))
        for name, tensor in part(checkpoint.MODEL).items():
            self.average[name].copy_(tensor)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimiser.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.order.set_state(tensors["generator.order"])
        if self.group.rank == 0:
            self.noise.set_state(tensors["generator.noise"])
        else:
            self.noise.manual_seed(self.noise.initial_seed() + information["epoch"])
        self.epoch, self.best, self.best_epoch = (information[name] for name in ("epoch", "best", "best_epoch"))
        self.history = information["history"]


def _moments(images: Images, count: int) -> dict[str, list[float]]:
    """Return mean and standard deviation of each channel over the first images, pixels in [0, 1]."""
    values = np.arange(256) / 255
    shares = [
        np.bincount(images.train_images[:count, channel].ravel(), minlength=256) for channel in range(images.shape[0])
    ]
    mean = [float(np.average(values, weights=share)) for share in shares]
    variance = [float(np.average((values - m) ** 2, weights=share)) for m, share in zip(mean, shares, strict=True)]
    return {"mean": mean, "std": [max(v, 1e-12) ** 0.5 for v in variance]}


class _Swapped:
    """A context in which a network has other weights."""

    def __init__(self, network: models.Network, weights: dict[str, Tensor] | None) -> None:
        self.network, self.weights = network, weights
        self.own: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        if self.weights is not None:
            self.own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            self.network.load_state_dict(self.weights)

    def __exit__(self, *_: object) -> None:
        if self.weights is not None:
            self.network.load_state_dict(self.own)


def _save(run: _Run, out: Path) -> None:
    """Write the checkpoints and the report of the last epoch."""
    tensors, information = run.state()
    if run.recipe.patience is not None and run.best_epoch == run.epoch:
        model = {name: tensor for name, tensor in tensors.items() if name.startswith(checkpoint.MODEL)}
        checkpoint.write(out / BEST, model, information)
    checkpoint.write(out / LAST, tensors, information)
    report = {**information, **provenance("train", seed=str(run.recipe.seed), device=describe(run.device))}
    write_bytes(out / REPORT, json.dumps(report, indent=1).encode())
