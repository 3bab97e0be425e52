"""``deepcheck attack``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepcheck.commands.common import OnImages, at_most, load_images
from odeflow.model import checked_count, checked_number

__all__ = ["Attack"]


@dataclass(frozen=True)
class Attack(OnImages):
    """Attack a net with projected gradient ascent, and say how many of the test images it still gets right."""

    norm: Literal["linf", "l2", "l1", "l0"] = "linf"
    """Norm of the perturbation."""
    epsilon: tuple[float, ...] = ()
    """Sizes of the perturbation, >= 0; default: the one that the net was trained to withstand."""
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
        from deepcheck.training.recipe import threat

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
            norm, epsilon = threat(about["recipe"])
            if self.norm != norm:
                raise ValueError(f"epsilon is missing: there is no default for norm = {self.norm}")
            epsilons = (epsilon,)
        images = load_images(dataset, self.data_dir)
        examples = at_most(self.examples, len(images.test_images), images.name)
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
