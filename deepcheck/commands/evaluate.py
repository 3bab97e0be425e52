"""``deepcheck evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcheck.commands.common import OnImages, at_most, load_images
from odeflow.model import checked_count, checked_number
from odeflow.provenance import check_target

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate(OnImages):
    """Attack a net in all ways, print the numbers that are published, and check for signs of false robustness.

    The standard suite has white-box attacks in L-infinity, L2, L1 and L0, on cross-entropy, on the margin, towards one class
    after the other, and on confidence; the Square Attack; noise. Distal adversarial examples in any case. A table says how accurate the net is under each attack, with
    standard errors, and in the worst case of all attacks in a norm. The exit status is 1 if a check against false
    robustness fails.
    """

    suite: str = "standard"
    """Which attacks: standard, gradient (those of standard that follow gradients) or linf (those in L-infinity)."""
    validation: int | None = None
    """Test images kept apart for the confidence threshold, the last ones, >= 1; default: 1000, or half of what is left."""
    steps: int = 1000
    """Gradient steps of the attacks on confidence, >= 10; the others take a fifth, but 40 if there are so many. Where steps
    are few, they are longer."""
    restarts: int = 5
    """Starts of each attack, >= 1; the targeted ones have one for each of 9 classes."""
    queries: int = 5000
    """Evaluations per image in the Square Attack, >= 50."""
    tpr: float = 0.99
    """True positive rate at which the confidence threshold is set, in (0, 1]."""
    keep_images: bool = False
    """Save the images with the records, so that a detector made later can score them: for 1,000 images of MNIST 116 MB."""
    plot: Path | None = None
    """Save a figure of the table to this file (.pdf, .png or .svg)."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck import evaluation
        from deepcheck.checks import checked_choice
        from deepcheck.evaluation.run import split, stream
        from odeflow.plot import FORMATS, save_figure

        checked_number("tpr", self.tpr, above=0, most=1)
        checked_choice("suite", self.suite, evaluation.SUITES)
        if self.plot is not None:
            check_target(self.plot, FORMATS)
        network, dataset, device, about = self.network()
        images = load_images(dataset, self.data_dir)
        threats = evaluation.THREATS[images.name]
        effort = {"steps": self.steps, "restarts": self.restarts, "queries": self.queries}
        planned = evaluation.planned_suite(self.suite, threats, **effort)
        count = len(images.test_images)
        examples = at_most(self.examples, count // 2, images.name)
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
        sizes: dict[str, Any] = {"examples": examples, "validation": validation, "keep_images": self.keep_images}
        search: dict[str, Any] = {"precision": self.precision, "channels_last": self.channels_last}
        records = evaluation.evaluate(network, images, planned, **sizes, **search, **common)
        checks = evaluation.sanity_checks(
            network,
            x[:200],
            y[:200],
            epsilon=threats.linf[0],
            generator=stream(self.seed, "sanity"),
            planned=planned,
            records=records,
        )
        noise = evaluation.distal(
            network, images.shape, epsilon=threats.linf[0], count=examples, steps=self.steps, restarts=2, **common
        )
        failed = [check for check in checks if not check.passed]
        table = evaluation.attack_table(records)
        lines = [
            f"first {examples} test images of {images.name}, tau from {self.tpr:.0%} of the last {validation}",
            evaluation.format_summary(evaluation.summary(records, noise, tpr=self.tpr)),
            evaluation.format_attack_table(table),
            f"checks against false robustness: {len(checks) - len(failed)} of {len(checks)} passed",
            *(f"FAILED  {check}" for check in failed),
        ]
        self.finish(records, "\n".join(lines))
        if self.plot is not None:
            from deepcheck.plot import plot_attacks

            print(save_figure(plot_attacks(table), self.plot))
        return 1 if failed else 0
