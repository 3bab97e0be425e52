"""``deepcheck evaluate``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcheck.commands.common import OnImages, at_most, followed, load_images
from odeflow.model import checked_count, checked_number
from odeflow.provenance import check_target

if TYPE_CHECKING:
    import torch

    from deepcheck.attacks.base import Model
    from deepcheck.data import Images

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate(OnImages):
    """Attack a net in all ways, print the numbers that are published, and check for signs of false robustness.

    The wide suite has white-box attacks in L-infinity, L2, L1 and L0, on cross-entropy, on the margin, towards one class
    after the other, and on confidence; the Square Attack; noise. Distal adversarial examples in any case. A table says how
    accurate the net is under each attack, with standard errors, and in the worst case of all attacks in a norm. The exit status
    is 1 if a check against false robustness fails.

    --suite standard is the evaluation by which nets are compared: APGD on cross-entropy and targeted, targeted FAB and the Square
    Attack, one after the other on what is left. It prints one line a norm, and before it what it has to be warned of.
    """

    suite: str = "wide"
    """Which attacks: standard, wide, gradient (those of wide that follow gradients) or linf (those of wide in L-infinity)."""
    norms: tuple[str, ...] = ("linf",)
    """Of the standard suite: out of linf, l2 and l1."""
    epsilon: float | None = None
    """Of the standard suite in one norm: size of the perturbation, >= 0; default: by data set."""
    state: Path | None = None
    """Of the standard suite: a folder that is written to after each attack; the same command goes on from there."""
    entry: Path | None = None
    """Of the standard suite in one norm: write the result to this file (.json), with the keys of RobustBench's entries."""
    validation: int | None = None
    """Test images kept apart for the confidence threshold, the last ones, >= 1; default: 1000, or half of what is left."""
    steps: int | None = None
    """Gradient steps of the attacks on confidence, >= 10; the others take a fifth, but 40 if there are so many. Where steps
    are few, they are longer. Default: 1000; of the standard suite 100, and with others it is not the standard."""
    restarts: int | None = None
    """Starts of each attack, >= 1; the targeted ones have one for each of 9 classes. Default: 5; the standard suite has its
    own."""
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
        self._check_standard()
        network, dataset, device, about = self.network()
        images = load_images(dataset, self.data_dir)
        if self.suite == "standard":
            return self._standard(network, images, device, about)
        threats = evaluation.THREATS[images.name]
        steps = 1000 if self.steps is None else self.steps
        effort = {"steps": steps, "restarts": 5 if self.restarts is None else self.restarts, "queries": self.queries}
        planned = self.against(evaluation.planned_suite(self.suite, threats, **effort), network)
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
        attacked = network if self.oblivious else followed(network)
        checks = evaluation.sanity_checks(
            attacked,
            x[:200],
            y[:200],
            epsilon=threats.linf[0],
            generator=stream(self.seed, "sanity"),
            planned=planned,
            records=records,
        )
        noise = evaluation.distal(
            followed(network), images.shape, epsilon=threats.linf[0], count=examples, steps=steps, restarts=2, **common
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

    def _check_standard(self) -> None:
        """Raise if a flag goes with another suite, or more than one norm where one is meant."""
        standard = self.suite == "standard"
        fields = {"norms": ("linf",), "epsilon": None, "state": None, "entry": None}
        for name, default in (
            fields if not standard else {"restarts": None, "plot": None, "tpr": 0.99, "validation": None}
        ).items():
            if getattr(self, name) != default:
                suites = "the standard suite" if not standard else "the other suites"
                raise ValueError(
                    f"{name} = {getattr(self, name)!s} with suite = {self.suite!r} is not allowed: it goes with {suites}"
                )
        if not self.norms or len(set(self.norms)) < len(self.norms):
            raise ValueError(
                f"norms = {list(self.norms)} is not allowed: one or more of linf, l2 and l1, each once, are"
            )
        for name in ("epsilon", "entry"):
            if getattr(self, name) is not None and len(self.norms) != 1:
                raise ValueError(f"{name} with norms = {' '.join(self.norms)} is not allowed: one norm is")
        if self.entry is not None:
            check_target(self.entry, (".json",), overwrite=self.overwrite)

    def _standard(self, network: Model, images: Images, device: torch.device, about: dict[str, Any]) -> int:
        """Run the standard evaluation, and print its line."""
        from deepcheck import evaluation
        from deepcheck.evaluation import standard
        from deepcheck.evaluation.run import split
        from odeflow.provenance.files import write_bytes

        options: dict[str, Any] = {"norms": self.norms, "queries": self.queries}
        options |= {} if self.steps is None else {"steps": self.steps}
        options |= {} if self.state is None else {"state": str(self.state)}
        planned = evaluation.planned_suite("standard", images.name, **options)
        if self.epsilon is not None:
            planned = {name: evaluation.Planned(one.attack, (self.epsilon,)) for name, one in planned.items()}
        planned = self.against(planned)
        examples = at_most(self.examples, len(images.test_images), images.name)
        (x, y), _ = split(images, min(examples, 200), 0, device)
        looked = network if self.oblivious else followed(network)
        warned = evaluation.looked_at(looked, x, y, batch_size=self.batch_size)
        if self.defence and not self.oblivious:  # EOT is the answer to a random one
            warned = [one for one in warned if one.name != "random-net"]
        for one in warned:
            logging.getLogger(__name__).warning("warning  %s", one)
        records = evaluation.evaluate(
            network,
            images,
            planned,
            examples=examples,
            validation=0,
            keep_images=self.keep_images,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            precision=self.precision,
            channels_last=self.channels_last,
            configuration=about,
            progress=True,
        )
        named = Path(str(about.get("checkpoint") or about.get("model")))
        name = named.parent.name if named.suffix == ".safetensors" else str(named)
        sizes = {key: one.epsilons[0] for key, one in planned.items()}
        self.finish(records, "\n".join(standard.line(records, key, size, name) for key, size in sizes.items()))
        if self.entry is not None:
            ((key, size),) = sizes.items()
            text = standard.entry(
                records, key, size, name=name, dataset=images.name, about=about, warned=[one.name for one in warned]
            )
            write_bytes(self.entry, text.encode())
            print(self.entry)
        return 0
