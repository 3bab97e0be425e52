"""Command line ``deepcheck``: train, attack, evaluate, distal. Its flags are generated from dataclasses."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from deepcheck.training.recipe import METHODS, RECIPES, Recipe, recipe
from odeflow.command_line import parsed
from odeflow.model import checked_count, checked_number
from odeflow.provenance import SaveError, check_target, package_version, save

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from deepcheck.data import Images
    from deepcheck.models import Network

__all__ = ["main"]

_Dataset = Literal["mnist", "cifar10", "digits"]


@dataclass(frozen=True)
class Train:
    """Train a net: standard, adversarial training (at), or confidence-calibrated adversarial training (ccat).

    The defaults are the recipe for the data set and the method. To use several GPUs, start it by torchrun.
    """

    recipe: Recipe
    dataset: _Dataset = "mnist"
    """The data set."""
    out: Path | None = None
    """Folder for the checkpoints; default: runs/DATASET_METHOD."""
    resume: bool = False
    """Go on after the last whole epoch in the folder."""
    examples: int | None = None
    """Use only so many training images, the first ones; default: all."""
    data_dir: Path | None = None
    """Folder of the data set; default: $DEEPCHECK_DATA, then the cache, then a download."""
    device: str = "auto"
    """auto (CUDA where there is a GPU, else the CPU), cpu, cuda or cuda:N."""
    channels_last: bool = False
    """Keep images and weights in the memory format that convolutions on GPUs prefer."""
    compile: bool = False
    """Use torch.compile."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.training.loop import train

        out = self.out
        if out is not None and out.exists() and not out.is_dir():
            raise ValueError(f"out = {str(out)!r} is a file: allowed is a folder")
        images = _load(self.dataset, self.data_dir)
        if self.examples is not None:
            images = _first(images, self.examples)
        if out is None:
            Path("runs").mkdir(exist_ok=True)
            out = Path("runs") / f"{self.dataset}_{self.recipe.method}"
        trained = train(
            self.recipe,
            images,
            out=out,
            device=self.device,
            resume=self.resume,
            channels_last=self.channels_last,
            compiled=self.compile,
            progress=True,
        )
        last = trained.history[-1]
        seconds = sum(row["seconds"] for row in trained.history)
        print(
            f"{len(trained.history)} epochs in {seconds:.0f} s; on {self.recipe.validation} training images kept apart: "
            f"accuracy {last['clean_accuracy']:.4f}, under PGD-10 at epsilon = {self.recipe.epsilon:.4g} "
            f"{last['robust_accuracy']:.4f}",
            trained.checkpoint,
            sep="\n",
        )
        return 0


@dataclass(frozen=True)
class _Net:
    """What the other commands have in common."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, as `deepcheck train` leaves it, or the folder where it is."""
    out: Path | None = None
    """Save the records to this file (.nc or .zarr)."""
    seed: int = 0
    """Seed of the attacks, >= 0."""
    batch_size: int = 500
    """Images that the net sees at once, >= 1. The result does not depend on it."""
    device: str = "auto"
    """auto (CUDA where there is a GPU, else the CPU), cpu, cuda or cuda:N."""

    def network(self) -> tuple[Network, str, torch.device, dict[str, Any]]:
        """Return the net, the name of its data set, the device, and what is known of the net."""
        from deepcheck import checkpoint
        from deepcheck.device import choose
        from deepcheck.training.loop import BEST, LAST

        if self.out is not None:
            check_target(self.out)
        checked_count("batch_size", self.batch_size, 1)
        device = choose(self.device)
        path = self.checkpoint
        if path.is_dir():
            path = path / BEST if (path / BEST).exists() else path / LAST
        network = checkpoint.load_model(path, device=device)
        information = checkpoint.read(path)[1]
        about = {"checkpoint": str(path), **{name: information.get(name) for name in ("model", "recipe", "epoch")}}
        return network, str(information.get("dataset", "")), device, about

    def finish(self, records: xr.Dataset, text: str) -> None:
        """Print what was found, and save it if asked for."""
        print(text, *([] if self.out is None else [save(records, self.out)]), sep="\n")


@dataclass(frozen=True)
class _OnImages(_Net):
    examples: int = 1000
    """Test images to attack, the first ones, >= 1."""
    data_dir: Path | None = None
    """Folder of the data set; default: $DEEPCHECK_DATA, then the cache, then a download."""


@dataclass(frozen=True)
class AttackCommand(_OnImages):
    """Attack a net with projected gradient ascent, and say how many of the test images it still gets right."""

    norm: Literal["linf", "l2", "l1", "l0"] = "linf"
    """Norm of the perturbation."""
    epsilon: tuple[float, ...] = ()
    """Sizes of the perturbation, >= 0; default: that of the training attack, in L-infinity."""
    objective: Literal["cross_entropy", "margin", "dlr", "wrong_confidence"] = "cross_entropy"
    """What is maximised."""
    steps: int = 40
    """Gradient steps, >= 1."""
    step_size: float | None = None
    """Length of a step, > 0; default: 2.5 epsilon / steps."""
    restarts: int = 1
    """Starts of the attack, >= 1: the worst case for each image counts."""
    momentum: float = 0.0
    """Momentum of the step's direction, in [0, 1)."""
    backtracking: float | None = None
    """A factor > 1: steps that lose are not taken, and shrink by it."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.attacks import PGD
        from deepcheck.evaluation import Planned, evaluate, robust_error, standard_error, test_error
        from deepcheck.evaluation.suites import BOX_NORMS

        checked_count("steps", self.steps, 1)
        if self.step_size is not None:
            checked_number("step_size", self.step_size, above=0)
        attack = PGD(
            BOX_NORMS[self.norm],
            self.objective,
            steps=self.steps,
            step_size=self.step_size,
            relative_step_size=2.5 / self.steps if self.step_size is None else None,
            momentum=self.momentum,
            backtracking=self.backtracking,
            restarts=self.restarts,
        )
        network, dataset, device, about = self.network()
        epsilons = self.epsilon
        if not epsilons:
            if self.norm != "linf":
                raise ValueError(f"epsilon is missing: there is no default for norm = {self.norm}")
            epsilons = (float((about["recipe"] or {"epsilon": 0.3})["epsilon"]),)
        images = _load(dataset, self.data_dir)
        examples = _at_most(self.examples, len(images.test_images), images.name)
        records = evaluate(
            network,
            images,
            {f"pgd_{self.norm}": Planned(attack, epsilons)},
            examples=examples,
            validation=0,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            configuration=about,
            progress=True,
        )
        lines = [f"accuracy on the first {examples} test images of {images.name}, with standard errors"]
        errors = {"no attack": test_error(records)}
        errors |= {
            f"{self.norm} {value:.4g}": robust_error(records, epsilon=value, norm=self.norm, smaller=False)
            for value in epsilons
        }
        lines += [
            f"{name:>12}: {1 - error:.4f} +- {standard_error(error, examples):.4f}" for name, error in errors.items()
        ]
        self.finish(records, "\n".join(lines))
        return 0


@dataclass(frozen=True)
class Evaluate(_OnImages):
    """Attack a net in all ways, print the numbers that are published, and check for signs of false robustness.

    White-box attacks in L-infinity, L2, L1 and L0, on cross-entropy and on confidence; the Square Attack; noise; distal
    adversarial examples. The exit status is 1 if a check against false robustness fails.
    """

    validation: int | None = None
    """Test images kept apart for the confidence threshold, the last ones, >= 1; default: 1000, or half of what is left."""
    steps: int = 1000
    """Gradient steps of the attacks on confidence, >= 10; those on cross-entropy take a fifth."""
    restarts: int = 5
    """Starts of each attack, >= 1."""
    queries: int = 5000
    """Evaluations per image in the Square Attack, >= 50."""
    tpr: float = 0.99
    """True positive rate at which the confidence threshold is set, in (0, 1]."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck import evaluation
        from deepcheck.evaluation.run import split, stream

        checked_number("tpr", self.tpr, above=0, most=1)
        network, dataset, device, about = self.network()
        images = _load(dataset, self.data_dir)
        threats = evaluation.THREATS[images.name]
        planned = evaluation.suite(threats, steps=self.steps, restarts=self.restarts, queries=self.queries)
        count = len(images.test_images)
        examples = _at_most(self.examples, count // 2, images.name)
        validation = min(1000, count - examples) if self.validation is None else self.validation
        checked_count("validation", validation, 1)
        common: dict[str, Any] = {
            "seed": self.seed,
            "device": device,
            "batch_size": self.batch_size,
            "configuration": about,
            "progress": True,
        }
        (x, y), _ = split(images, examples, validation, device)
        checks = evaluation.sanity_checks(
            network, x[:200], y[:200], epsilon=threats.linf[0], generator=stream(self.seed, "sanity", device)
        )
        records = evaluation.evaluate(network, images, planned, examples=examples, validation=validation, **common)
        noise = evaluation.distal(
            network, images.shape, epsilon=threats.linf[0], count=examples, steps=self.steps, restarts=2, **common
        )
        failed = [check for check in checks if not check.passed]
        lines = [
            f"first {examples} test images of {images.name}, tau from {self.tpr:.0%} of the last {validation}",
            evaluation.format_summary(evaluation.summary(records, noise, tpr=self.tpr)),
            f"checks against false robustness: {len(checks) - len(failed)} of {len(checks)} passed",
            *(f"FAILED  {check}" for check in failed),
        ]
        self.finish(records, "\n".join(lines))
        return 1 if failed else 0


@dataclass(frozen=True)
class Distal(_Net):
    """Make distal adversarial examples: noise that an attack makes a net confident in."""

    epsilon: float | None = None
    """Size of the perturbation in L-infinity, > 0; default: that of the training attack."""
    count: int = 1000
    """Noise images of each kind, >= 1."""
    steps: int = 200
    """Gradient steps, >= 1."""
    restarts: int = 2
    """Starts of the attack, >= 1."""
    plot: Path | None = None
    """Save pictures with their classes and confidences to this file (.pdf, .png or .svg)."""

    def run(self) -> int:
        """Run the command."""
        import numpy as np

        from deepcheck.evaluation import distal
        from odeflow.plot import FORMATS, save_figure

        if self.plot is not None:
            check_target(self.plot, FORMATS)
        network, _, device, about = self.network()
        epsilon = float((about["recipe"] or {"epsilon": 0.3})["epsilon"]) if self.epsilon is None else self.epsilon
        records = distal(
            network,
            network.in_shape,
            epsilon=epsilon,
            count=self.count,
            steps=self.steps,
            restarts=self.restarts,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            configuration=about,
            progress=True,
        )
        lines = [f"mean confidence in noise, and in distal adversarial examples at epsilon = {epsilon:.4g}"]
        best = records.confidence.isel(attack=0, epsilon=0).max("restart")
        for kind in dict.fromkeys(records.noise.values.tolist()):
            chosen = np.flatnonzero(records.noise == kind)
            before, after = (float(values[chosen].mean()) for values in (records.clean_confidence, best))
            lines.append(f"{kind:>8} noise: {before:.4f} -> {after:.4f}")
        self.finish(records, "\n".join(lines))
        if self.plot is not None:
            from deepcheck.plot import plot_distal

            print(save_figure(plot_distal(records), self.plot))
        return 0


COMMANDS = ("train", "attack", "evaluate", "distal")


def _commands(arguments: list[str]) -> Any:
    """Return the commands; the defaults of `train` are the recipe of its data set and method."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--dataset", default="mnist")
    first.add_argument("--method", default="standard")
    try:
        chosen, _ = first.parse_known_args(arguments)
        known = (chosen.dataset, chosen.method) in RECIPES
    except argparse.ArgumentError:
        known = False  # the real parser will say so
    dataset, method = (chosen.dataset, chosen.method) if known else ("mnist", METHODS[0])
    train = Train(recipe(dataset, method), dataset)  # type: ignore[arg-type]  # it is one of the keys
    return (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[AttackCommand, tyro.conf.subcommand("attack")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Distal, tyro.conf.subcommand("distal")]
    )


def _load(dataset: str, data_dir: Path | None) -> Images:
    from deepcheck.data import load

    if not dataset:
        raise ValueError("the checkpoint does not say which data set it is for: allowed is one that `train` has left")
    return load(dataset, data_dir=data_dir)


def _first(images: Images, examples: int) -> Images:
    """Return a data set with the first training images alone."""
    count = checked_count("examples", examples, 1)
    return replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])


def _at_most(examples: int, most: int, name: str) -> int:
    """Return the number of test images to attack: fewer than asked for where the data set is small, which is said."""
    checked_count("examples", examples, 1)
    if examples > most:
        logging.getLogger(__name__).warning("examples = %d: %s has %d to attack", examples, name, most)
    return min(examples, most)


def main(arguments: list[str] | None = None) -> int:
    """Run ``deepcheck`` and return its exit status: 0 done, 1 a computation, save or check failed, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"deepcheck {package_version()}")
        return 0
    description = "Deep nets under attack, to be held against the theory. deepcheck --version prints the version."
    command = parsed(_commands(arguments), arguments, prog="deepcheck", commands=COMMANDS, description=description)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from deepcheck.checkpoint import CheckpointError
    from deepcheck.data import DataError

    try:
        status: int = command.run()
        sys.stdout.flush()
    except (SaveError, DataError, MemoryError) as error:
        return _fail(error, 1)
    except (CheckpointError, ValueError, TypeError, FileNotFoundError, PermissionError, ImportError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        again = (
            "; the last whole epoch, if there was one, is saved: run the same command with --resume"
            if isinstance(command, Train)
            else ""
        )
        return _fail(f"interrupted{again}", 1)
    except BrokenPipeError:  # nobody reads what is printed, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _fail(message: object, status: int) -> int:
    print(f"deepcheck: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
