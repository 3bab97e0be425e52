"""One training loop for all methods: images on the device, a checkpoint after every epoch, and resuming."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deepcheck import checkpoint, models
from deepcheck.attacks.base import evaluating
from deepcheck.data import Images
from deepcheck.device import choose, describe, exact_float32, memory_advice
from deepcheck.training import parallel
from deepcheck.training.checkpointing import BEST, LAST, REPORT, check_same, drawn_on_gpu, packed, progress_of, unpack
from deepcheck.training.recipe import Recipe
from deepcheck.training.step import Learner
from deepcheck.training.validation import accuracies
from odeflow.model import checked_number
from odeflow.provenance import provenance, write_bytes

__all__ = ["BEST", "LAST", "REPORT", "Trained", "train"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """A trained network."""

    network: models.Network
    """In eval mode, on the device it was trained on."""
    history: list[dict[str, float]]
    """For every epoch: learning_rate, loss, on the images kept apart clean_accuracy and robust_accuracy, and what the method
    adds (`Method.after_epoch`)."""
    checkpoint: Path
    """The file with its weights."""
    finished: bool = True
    """Whether the training has come to its end, or only its time."""

    def __repr__(self) -> str:
        return f"Trained({self.network.name!r}, {len(self.history)} epochs, {str(self.checkpoint)!r})"


@exact_float32()
def train(
    recipe: Recipe,
    images: Images,
    *,
    out: str | Path,
    device: str = "auto",
    resume: bool = False,
    channels_last: bool = False,
    compiled: bool = False,
    graphs: bool = False,
    seconds: float | None = None,
    progress: bool = False,
) -> Trained:
    """Train a network on a data set.

    After every epoch the folder `out` has `last.safetensors` (weights, and what is needed to go on), `best.safetensors`
    if the recipe keeps the best (`Recipe.keeps_best`), and `training.json` (recipe, provenance and history). Started by torchrun, every
    process takes its share of each batch; the first one writes. Random numbers are drawn on the CPU, and are the same on
    every device.

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
        training that was not interrupted. Where `out` has weights alone (`checkpoint.write_shards`), go on from these, with
        a new optimiser, and with the weights as what the method remembers and as the average: the log and training.json
        say so.
    channels_last
        Keep images and weights in the memory format that convolutions on GPUs prefer.
    compiled
        Use torch.compile.
    graphs
        Record a whole step up to the gradients as a CUDA graph and play it back, where the method allows it: small nets and
        batches do not wait for the processor then. The weights are the same. On a CPU nothing is faster.
    seconds
        Time that it may take, > 0: after the first epoch none is begun that would not end in it if it took as long as
        the last one. Such a training is not `finished`, and `resume` goes on with it. None: as long as it takes.
    progress
        Show progress on a terminal.

    Raises
    ------
    ValueError
        If the device does not exist, `seconds` is out of range, there are too few images, or `out` has a training
        already and `resume` is False.
    CheckpointError
        If what is to be resumed is truncated, or was trained by another recipe or on other images.
    MemoryError
        If the batch does not fit into the memory of the GPU.
    """
    if seconds is not None:
        checked_number("seconds", seconds, above=0)
    end = time.perf_counter() + (math.inf if seconds is None else seconds)
    place = parallel.place(choose(device))
    group = parallel.group(place)
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out = {str(out)!r} cannot be made: its folder {str(out.parent)!r} does not exist")
    run = _Run(recipe, images, place, group, channels_last=channels_last, compiled=compiled, graphs=graphs)
    out.mkdir(exist_ok=True)
    last = out / LAST
    former = [last] if last.exists() else checkpoint.shards_in(out)
    group.wait()  # all have looked, before the first one writes
    if former and not resume:
        raise ValueError(
            f"out = {str(out)!r} holds a training already: allowed is another folder, or resume=True (--resume)"
        )
    with memory_advice(recipe.batch_size):
        if former:
            run.restore(former[0])
            _LOG.info("going on after epoch %d of %d", run.epoch, recipe.epochs)
            if former[0] != last:
                _LOG.info("optimiser restarted after epoch %d", run.epoch)
                if group.rank == 0:
                    run.save(out)
        while not run.finished:
            start = time.perf_counter()
            run.run_epoch(progress=progress)
            if group.rank == 0:
                run.save(out)
            now = time.perf_counter()
            if group.agreed(float(now + (now - start) > end)):
                break
    group.wait()
    final = out / (BEST if recipe.keeps_best else LAST)
    return Trained(checkpoint.load_model(final, device=place), run.history, final, run.finished)


class _Run:
    """A training: where it is, and the images and random numbers that it goes on with."""

    def __init__(
        self,
        recipe: Recipe,
        images: Images,
        device: torch.device,
        group: parallel.Group,
        *,
        channels_last: bool = False,
        compiled: bool = False,
        graphs: bool = False,
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
        self.how = {"channels_last": channels_last, "compiled": compiled, "graphs": graphs}
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        # bytes on the device: a quarter of the memory of numbers
        self.images = torch.tensor(images.train_images).to(device)
        self.labels = torch.tensor(images.train_labels).to(device)
        self.count = count
        self.steps = count // recipe.batch_size
        self.order = torch.Generator().manual_seed(recipe.seed + 1_000_003)  # the same in every process
        # on the CPU, so that they are the same on every device; what is drawn is small
        self.noise = torch.Generator().manual_seed(recipe.seed + 2_000_003 + 7919 * group.rank)
        self.generators = {"order": self.order, "noise": self.noise}
        self._learn(self._network(images))
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.best = float("-inf")
        self.best_epoch = 0
        self.restarted: list[int] = []
        """The epochs after which the optimiser began anew, from weights alone."""

    def _network(self, images: Images) -> models.Network:
        """Return the network before the first step."""
        recipe = self.recipe
        weights = torch.Generator().manual_seed(recipe.seed)
        options: dict[str, Any] = dict(recipe.model_options())
        if recipe.normalised:
            options |= _moments(images, self.count)

        def build(**more: Any) -> models.Network:
            given = {**options, **more}
            return models.build(recipe.model, len(images.class_names), images.shape, generator=weights, **given)

        network = recipe.method.network(build)
        return network.to(self.device, memory_format=self.format)  # type: ignore[call-overload, no-any-return]

    def _learn(self, network: models.Network) -> None:
        """Begin with the weights that a network has."""
        self.learner = Learner(self.recipe, network, self.noise, self.group, graphs=self.how["graphs"])
        # every size of a batch that comes has its own code: they are few, and do not change
        self.model = torch.compile(network, dynamic=False) if self.how["compiled"] else network

    @property
    def finished(self) -> bool:
        """Whether all epochs are over, the robust validation error has stopped going down, or the method ends it."""
        patience = self.recipe.patience
        if self.epoch >= self.recipe.epochs or (patience is not None and self.epoch - self.best_epoch >= patience):
            return True
        return bool(self.history) and self.recipe.method.ends(self.history)

    def run_epoch(self, *, progress: bool) -> None:
        """Go once over the training images."""
        recipe, start = self.recipe, time.perf_counter()
        order = torch.randperm(self.count, generator=self.order)[: self.steps * recipe.batch_size]
        batches = order.view(self.steps, self.group.size, -1)[:, self.group.rank].to(self.device)
        replays = recipe.method.replays()
        total = torch.zeros((), device=self.device)
        title = f"epoch {self.epoch + 1}/{recipe.epochs}"
        self.learner.network.train()
        for step, batch in enumerate(
            tqdm(batches, desc=title, unit="step", leave=False, disable=None if progress else True)
        ):
            x, y = self.learner.augmented(self._pixels(batch)), self.labels[batch]
            x = x.contiguous(memory_format=self.format)
            for replay in range(replays):
                done = (self.epoch * self.steps + step + replay / replays) / (recipe.epochs * self.steps)
                total += self.learner.step(self.model, x, y, done)
        self.epoch += 1
        clean, robust = map(self.group.agreed, self._accuracies())
        if robust > self.best:
            self.best, self.best_epoch = robust, self.epoch
        row = {
            "epoch": self.epoch,
            "learning_rate": self.learner.optimiser.param_groups[0]["lr"],
            "loss": float(total) / (self.steps * replays),
            "clean_accuracy": clean,
            "robust_accuracy": robust,
            **self._seen_by_method(),
            "seconds": round(time.perf_counter() - start, 2),
        }
        self.history.append(row)
        _LOG.info(
            "%s: loss %.4f, kept apart: clean accuracy %.4f, robust %.4f (%.1f s)",
            *(title, row["loss"], clean, robust, row["seconds"]),
        )

    def _pixels(self, chosen: Tensor | slice) -> Tensor:
        """Return training images in [0, 1]."""
        return self.images[chosen].float().div_(255)

    def _apart(self) -> tuple[Tensor, Tensor]:
        """Return the images kept apart, and their labels."""
        apart = slice(self.count, None)
        return self._pixels(apart).contiguous(memory_format=self.format), self.labels[apart]

    def _accuracies(self) -> tuple[float, float]:
        """Return the accuracies of the network that would be the result, on the images kept apart."""
        return accuracies(
            self.learner.result,
            *self._apart(),
            self.recipe.threat,
            generator=torch.Generator().manual_seed(self.recipe.seed),
            precision=self.learner.precision(),
        )

    def _seen_by_method(self) -> dict[str, float]:
        """Return what the method says of the network that would be the result, for the history."""
        network, (images, labels) = self.learner.result, self._apart()
        with evaluating(network), self.learner.precision():
            seen = self.recipe.method.after_epoch(
                network=network,
                images=images,
                labels=labels,
                progress=self.epoch / self.recipe.epochs,
                generator=torch.Generator().manual_seed(self.recipe.seed),
            )
        return {name: self.group.agreed(value) for name, value in seen.items()}

    def save(self, out: Path) -> None:
        """Write the checkpoints and the report of the last epoch."""
        tensors = packed(self.learner, self.generators)
        information = {
            "model": self.learner.network.spec,
            "recipe": asdict(self.recipe),
            **self.source,
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "optimiser_restarted_after": self.restarted,
        }
        if self.recipe.keeps_best and self.best_epoch == self.epoch:
            model = {name: tensor for name, tensor in tensors.items() if name.startswith(checkpoint.MODEL)}
            checkpoint.write(out / BEST, model, information)
        checkpoint.write(out / LAST, tensors, information)
        report = {
            **information,
            "how": self.how,
            **provenance("train", seed=str(self.recipe.seed), device=describe(self.device)),
        }
        write_bytes(out / REPORT, json.dumps(report, indent=1).encode())

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, or from weights alone."""
        tensors, information = checkpoint.read(path)
        check_same(information, self.recipe, self.source, path)
        self.epoch, self.best, self.best_epoch, self.history, self.restarted = progress_of(information, path)
        if "shard" in information:
            return self._restart(path)
        generators = self.generators
        if drawn_on_gpu(tensors) and self.group.rank == 0:
            _LOG.warning("%s has random numbers of a GPU, which are drawn on the CPU now: there are new ones", path)
        if drawn_on_gpu(tensors) or self.group.rank:  # the checkpoint has the random numbers of the first process
            generators = {"order": self.order}
        self._find_stage()
        unpack(tensors, self.learner, generators, path)
        if "noise" not in generators:
            self._reseed()
        self._count_average()
        return None

    def _restart(self, path: Path) -> None:
        """Continue with the weights and the epoch of a checkpoint, and nothing else."""
        network = self.learner.network
        checkpoint.load_into(network, path)
        for _ in range(self.epoch):  # the next order is the one that would have come
            torch.randperm(self.count, generator=self.order)
        self._reseed()
        self._learn(network)
        self._find_stage()
        self._count_average()
        self.restarted = [*self.restarted, self.epoch]
        # in their new precision they are the best so far: the former best are elsewhere
        self.best, self.best_epoch = self.group.agreed(self._accuracies()[1]), self.epoch

    def _reseed(self) -> None:
        self.noise.manual_seed(self.noise.initial_seed() + self.epoch)

    def _find_stage(self) -> None:
        """Set the stage of the method to that of the last step that is done; the next step may be the first of another."""
        done, whole = self.epoch * self.steps * self.recipe.method.replays(), self._all_steps()
        self.learner.stage = max(done - 1, 0) * self.recipe.method.stages() // whole

    def _count_average(self) -> None:
        if self.learner.average is not None:
            before = math.ceil(self.learner.stage * self._all_steps() / self.recipe.method.stages())
            self.learner.average.steps = self.epoch * self.steps * self.recipe.method.replays() - before

    def _all_steps(self) -> int:
        """Return the number of steps of the whole training."""
        return self.recipe.epochs * self.steps * self.recipe.method.replays()


def _moments(images: Images, count: int) -> dict[str, list[float]]:
    """Return mean and standard deviation of each channel over the first images, pixels in [0, 1]."""
    values = np.arange(256) / 255
    shares = [
        np.bincount(images.train_images[:count, channel].ravel(), minlength=256) for channel in range(images.shape[0])
    ]
    mean = [float(np.average(values, weights=share)) for share in shares]
    variance = [float(np.average((values - m) ** 2, weights=share)) for m, share in zip(mean, shares, strict=True)]
    return {"mean": mean, "std": [max(v, 1e-12) ** 0.5 for v in variance]}
