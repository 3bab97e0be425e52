"""``deepcheck attack``."""

from __future__ import annotations

import ast
import logging
from dataclasses import dataclass
from typing import Any

from deepcheck.checks import checked_choice
from deepcheck.commands.common import OnImages, at_most, load_images, training_threat

__all__ = ["Attack"]


@dataclass(frozen=True)
class Attack(OnImages):
    """Attack a net, and say how many of the test images it still gets right; --list names the attacks."""

    attack: str = "pgd"
    """Name of the attack, see --list."""
    list: bool = False
    """Print all attacks with their norms and options, and do no more."""
    norm: str = "linf"
    """Norm of the perturbation: linf, l2, l1 or l0."""
    epsilon: tuple[float, ...] = ()
    """Sizes of the perturbation, >= 0; default: the one that the net was trained to withstand."""
    objective: str | None = None
    """What is maximised, say cross_entropy, margin, dlr or wrong_confidence; default: the attack's."""
    steps: int | None = None
    """Gradient steps, >= 1; default: the attack's, 40 for pgd."""
    step_size: float | None = None
    """Length of a step, > 0; default for pgd: 2.5 epsilon / steps."""
    restarts: int | None = None
    """Starts of the attack, >= 1: the worst case for each image counts. Default: 1."""
    momentum: float | None = None
    """Momentum of the step's direction, in [0, 1); default: the attack's, 0 for pgd."""
    backtracking: float | None = None
    """A factor > 1: steps that lose are not taken, and shrink by it."""
    option: tuple[str, ...] = ()
    """Other options of the attack, each as NAME=VALUE, say queries=500."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.attacks import registry
        from deepcheck.evaluation import Planned, evaluate, robust_error, standard_error, test_error
        from deepcheck.evaluation.suites import BOX_NORMS, cannot_cross

        if self.list:
            print(registry.listed())
            return 0
        norm = BOX_NORMS[checked_choice("norm", self.norm, BOX_NORMS)]
        attack = registry.within_budget(registry.make(self.attack, norm, **self._options()))
        network, dataset, device, about = self.network()
        epsilons = self.epsilon
        if not epsilons:
            usual, epsilon = training_threat(about, dataset)
            if self.norm != usual:
                raise ValueError(f"epsilon is missing: there is no default for norm = {self.norm}")
            epsilons = (epsilon,)
        planned = {f"{self.attack}_{self.norm}": Planned(attack, epsilons)}
        if cannot_cross(planned):
            logging.getLogger(__name__).warning(
                "the steps of %s are too short together to cross the ball: robustness will seem larger than it is",
                attack,
            )
        images = load_images(dataset, self.data_dir)
        examples = at_most(self.examples, len(images.test_images), images.name)
        records = evaluate(
            network,
            images,
            planned,
            examples=examples,
            validation=0,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            precision=self.precision,
            channels_last=self.channels_last,
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

    def _options(self) -> dict[str, Any]:
        """Return the options of the attack that are given."""
        names = ("objective", "steps", "step_size", "restarts", "momentum", "backtracking")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        for text in self.option:
            name, equals, value = text.partition("=")
            if not equals or name in given:
                raise ValueError(f"option = {text!r} is not allowed: NAME=VALUE is, each name once")
            try:
                given[name] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                given[name] = value
        return given
