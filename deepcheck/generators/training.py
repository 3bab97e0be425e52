"""The training of a generator as a Wasserstein GAN with gradient penalty."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from deepcheck import checkpoint
from deepcheck.attacks.draws import Draws
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import Images
from deepcheck.device import choose, describe, exact_float32, memory_advice
from deepcheck.generators.files import GENERATOR, LAST, REPORT
from deepcheck.generators.loss import critic_loss
from deepcheck.generators.networks import Critic, Generator
from deepcheck.generators.projection import nearest
from deepcheck.generators.recipe import GeneratorRecipe
from deepcheck.training.averaging import Average
from odeflow.provenance import provenance, write_bytes

__all__ = ["TrainedGenerator", "train_generator"]

_LOG = logging.getLogger(__name__)
_SHOWN = 100
"""Images kept apart that are reconstructed for a row of the history."""


@dataclass(frozen=True, eq=False, repr=False)
class TrainedGenerator:
    """A trained generator."""

    generator: Generator
    """In eval mode, on the device it was trained on: the average of its weights, where the recipe has one."""
    history: list[dict[str, float]]
    """For every `every` steps: step, distance (the critic's estimate of the Wasserstein distance, the mean over its steps),
    reconstruction_error (mean squared error of a pixel on images kept apart) and seconds."""
    checkpoint: Path
    """The file with its weights."""

    def __repr__(self) -> str:
        return f"TrainedGenerator({self.history[-1]['step']} steps, {str(self.checkpoint)!r})"


@exact_float32()
def train_generator(
    recipe: GeneratorRecipe,
    images: Images,
    *,
    out: str | Path,
    device: str = "auto",
    resume: bool = False,
    progress: bool = False,
) -> TrainedGenerator:
    """Train a generator on the training images of a data set (WGAN-GP: Gulrajani et al., NeurIPS 2017, algorithm 1).

    Every `recipe.every` steps the folder `out` has `last.safetensors` (weights, and what is needed to go on) and
    `training.json` (recipe, provenance and history). Random numbers are drawn on the CPU, and are the same on every device.

    Parameters
    ----------
    recipe
        What to do.
    images
        The data. The last `recipe.validation` training images are kept apart.
    out
        Folder of the results; it is made if only it, and not its parent, is missing.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    resume
        Go on after the last checkpoint in `out`; with none there, start. On a CPU the final weights are those of a training
        that was not interrupted.
    progress
        Show progress on a terminal.

    Raises
    ------
    ValueError
        If the device does not exist, there are too few images or their shape is not allowed, or `out` has a training
        already and `resume` is False.
    CheckpointError
        If what is to be resumed is truncated, or was trained by another recipe or on other images.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out = {str(out)!r} cannot be made: its folder {str(out.parent)!r} does not exist")
    run = _Run(recipe, images, choose(device))
    last = out / LAST
    if last.exists() and not resume:
        raise ValueError(
            f"out = {str(out)!r} holds a training already: allowed is another folder, or resume=True (--resume)"
        )
    out.mkdir(exist_ok=True)
    with memory_advice(recipe.batch_size):
        if last.exists():
            run.restore(last)
            _LOG.info("going on after step %d of %d", run.step, recipe.steps)
        with tqdm(total=recipe.steps, initial=run.step, unit="step", disable=None if progress else True) as bar:
            while run.step < recipe.steps:
                run.advance(bar)
                run.save(out)
    return TrainedGenerator(run.result.eval(), run.history, last)


class _Run:
    """A training: where it is, and the images and random numbers that it goes on with."""

    def __init__(self, recipe: GeneratorRecipe, images: Images, device: torch.device) -> None:
        count = len(images.train_images) - recipe.validation
        if count < 1:
            raise ValueError(
                f"validation = {recipe.validation} is out of range: {images.name} has {len(images.train_images)} "
                "training images, and some must be left"
            )
        self.recipe, self.device, self.count = recipe, device, count
        self.source = {"dataset": images.name, "train_images": len(images.train_images)}
        self.images = torch.tensor(images.train_images).to(device)
        weights = torch.Generator().manual_seed(recipe.seed)
        self.G = Generator(images.shape, latent=recipe.latent, width=recipe.width, generator=weights).to(device)
        self.D = Critic(images.shape, width=recipe.width, generator=weights).to(device)
        self.average = Average(self.G, recipe.average) if recipe.average else None
        self.optimisers = {"generator": self._adam(self.G), "critic": self._adam(self.D)}
        # on the CPU, so that they are the same on every device
        self.noise = torch.Generator().manual_seed(recipe.seed + 1_000_003)
        self.step = 0
        self.history: list[dict[str, float]] = []

    @property
    def result(self) -> Generator:
        """The generator with the averaged weights, or with the last ones."""
        return self.G if self.average is None else self.average.network

    def advance(self, bar: tqdm[Any]) -> None:
        """Take the steps up to the next checkpoint."""
        recipe, start = self.recipe, time.perf_counter()
        end = min(self.step + recipe.every, recipe.steps)
        total, steps = torch.zeros((), device=self.device), end - self.step
        while self.step < end:
            for optimiser in self.optimisers.values():
                optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - self.step / recipe.steps)
            for _ in range(recipe.critic_steps):
                total += self._step_critic()
            self._step_generator()
            self.step += 1
            bar.update()
        row = {
            "step": self.step,
            "distance": float(total) / (steps * recipe.critic_steps),
            "reconstruction_error": self.reconstruction_error(),
            "seconds": round(time.perf_counter() - start, 2),
        }
        self.history.append(row)
        _LOG.info(
            "step %d of %d: distance %.4f, reconstruction error %.5f (%.1f s)",
            *(self.step, recipe.steps, row["distance"], row["reconstruction_error"], row["seconds"]),
        )

    def _step_critic(self) -> Tensor:
        """Take one step of the critic, and return its estimate of the distance."""
        n = self.recipe.batch_size
        rows = torch.randint(self.count, (n,), generator=self.noise).to(self.device)
        z, t = self._latents(n), torch.rand(n, generator=self.noise).to(self.device)
        real = self.images[rows].float().div_(255)
        with torch.no_grad():
            made = self.G(z)
        loss, distance = critic_loss(self.D, real, made, t, self.recipe.penalty)
        self._descend("critic", loss)
        return distance

    def _step_generator(self) -> None:
        """Take one step of the generator: on -mean D(G(z))."""
        weights = list(self.D.parameters())
        for weight in weights:
            weight.requires_grad_(False)
        self._descend("generator", -self.D(self.G(self._latents(self.recipe.batch_size))).mean())
        for weight in weights:
            weight.requires_grad_(True)
        if self.average is not None:
            self.average.update(self.G)

    def reconstruction_error(self) -> float:
        """Return the mean squared error of a pixel of the nearest made image, over images kept apart."""
        x = self.images[self.count :][:_SHOWN].float().div_(255)
        G = self.result
        like = torch.zeros(len(x), 2, G.latent, device=self.device)
        starts = Draws.of(torch.Generator().manual_seed(self.recipe.seed), like).normal(like)
        return float(nearest(G, x, starts)[1].mean())

    def save(self, out: Path) -> None:
        """Write the checkpoint and the report."""
        information = {
            "generator": self.G.spec,
            "recipe": asdict(self.recipe),
            **self.source,
            "step": self.step,
            "history": self.history,
        }
        checkpoint.write(out / LAST, dict(self._tensors()), information)
        device = describe(self.device)
        report = {**information, **provenance("train_generator", seed=str(self.recipe.seed), device=device)}
        write_bytes(out / REPORT, json.dumps(report, indent=1).encode())

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        CheckpointError
            If it is of another recipe, or of other images, or lacks something.
        """
        tensors, information = checkpoint.read(path)
        given = {**asdict(self.recipe), **self.source}
        theirs = information.get("recipe")
        found = {
            **(theirs if isinstance(theirs, dict) else {}),
            **{name: information.get(name) for name in self.source},
        }
        different = [
            f"{name} = {found.get(name)!r} and not {given[name]!r}" for name in given if found.get(name) != given[name]
        ]
        if different:
            raise CheckpointError(f"{str(path)!r} cannot be resumed: it has {', '.join(different)}")
        try:
            self._load(tensors)
            self.step, self.history = int(information["step"]), list(information["history"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be resumed: {' '.join(str(error).split())}") from None
        if self.average is not None:
            self.average.steps = self.step

    def _latents(self, count: int) -> Tensor:
        return self.G.latents(count, self.noise).to(self.device)

    def _adam(self, network: Generator | Critic) -> torch.optim.Adam:
        recipe = self.recipe
        return torch.optim.Adam(network.parameters(), recipe.learning_rate, (recipe.beta1, recipe.beta2), foreach=True)

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    def _parts(self) -> dict[str, Generator | Critic]:
        """Return the networks by the prefix of their tensors; the result has that of any generator."""
        parts: dict[str, Generator | Critic] = {GENERATOR: self.result, "critic.": self.D}
        return parts if self.average is None else {**parts, "current.": self.G}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all that is needed to go on, by name."""
        for prefix, network in self._parts().items():
            for name, tensor in network.state_dict().items():
                yield prefix + name, tensor
        for part, optimiser in self.optimisers.items():
            for index, values in optimiser.state_dict()["state"].items():
                for name, value in values.items():
                    yield f"optimiser.{part}.{index}.{name}", torch.as_tensor(value)
        yield "noise", self.noise.get_state()

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `_tensors` has made."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}

        for prefix, network in self._parts().items():
            network.load_state_dict(part(prefix))
        for which, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in part(f"optimiser.{which}.").items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        self.noise.set_state(tensors["noise"])
