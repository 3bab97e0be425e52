"""``deepcheck evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deepcheck.commands.common import OnImages, at_most, load_images
from odeflow.model import checked_count, checked_number

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate(OnImages):
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
        images = load_images(dataset, self.data_dir)
        threats = evaluation.THREATS[images.name]
        planned = evaluation.suite(threats, steps=self.steps, restarts=self.restarts, queries=self.queries)
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
