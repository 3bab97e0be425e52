"""``deepcheck separation``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepcheck.commands.common import OnImages, at_most, load_images, training_threat

if TYPE_CHECKING:
    import xarray as xr

    from deepcheck.attacks.base import Attack

__all__ = ["Separation"]


@dataclass(frozen=True)
class Separation(OnImages):
    """Measure how a net's confidence separates right from wrong near the data, and what it gains by rejection.

    Projected gradient ascent on the confidence in each wrong class, and on the cross-entropy. For each size and level a line: the
    share of the images for which a confidence of the level in a wrong class was found, with its exact bounds (Wu et al., ICML 2018),
    and the bound on it by the cross-entropy; of the images that are classified correctly, the share with a wrong answer (AWPR),
    without and with rejection below the level; and the recall, the share of them that are answered.
    """

    delta: tuple[float, ...] = ()
    """Sizes of the perturbation, >= 0; default: that of the training attack, or the data set's usual one."""
    level: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
    """Confidences, above 1 over the number of classes, and at most 1."""
    norm: str | None = None
    """Of the perturbation: linf, l2, l1 or l0; default: that of the training attack."""
    examples: int = 300
    """Test images to attack, the first ones, >= 1."""
    starts: int = 10
    """Random starts towards each wrong class, >= 1."""
    steps: int = 100
    """Gradient steps from each start, >= 1."""
    carlini_wagner: float | None = None
    """Look also for the nearest images of this confidence in each wrong class, in (0, 1), by the attack of Carlini and Wagner."""
    confidence: float = 0.9
    """Of each of the bounds, in (0, 1)."""

    def run(self) -> int:
        """Run the command."""
        import torch

        from deepcheck.attacks.norms import norm as checked_norm
        from deepcheck.evaluation.confidences import confident_attacks, cross_entropy_attack, wrong_confidences
        from deepcheck.evaluation.run import split
        from deepcheck.evaluation.separation import checked_levels
        from odeflow.model import checked_number

        checked_number("confidence", self.confidence, above=0, below=1)
        if self.norm is not None:
            checked_norm(self.norm)
        if self.carlini_wagner is not None:
            checked_number("carlini_wagner", self.carlini_wagner, above=0, below=1)
        asked: dict[str, Any] = {"starts": self.starts, "steps": self.steps}
        confident_attacks("linf", level=self.carlini_wagner, **asked)  # bad input is refused before any work
        network, dataset, device, about = self.network()
        images = load_images(dataset, self.data_dir)
        checked_levels(self.level, least=1 / len(images.class_names))
        usual, size = training_threat(about, dataset)
        norm = self.norm or usual
        if not self.delta and norm != usual:
            raise ValueError(f"delta is missing with norm = {norm!r}: there is no default for it, the net's is {usual}")
        examples = at_most(self.examples, len(images.test_images), images.name)
        (x, y), _ = split(images, examples, 0, device)
        found = wrong_confidences(
            network,
            x,
            y,
            delta=self.delta or (size,),
            attacks=self._known(confident_attacks(norm, level=self.carlini_wagner, **asked)),
            loss_attack=self._known({"loss": cross_entropy_attack(norm, **asked)})["loss"],
            generator=torch.Generator().manual_seed(self.seed),
            batch_size=self.batch_size,
            configuration=about,
            progress=True,
        )
        title = (
            f"first {examples} test images of {images.name}, {norm}, {self.steps} steps x {self.starts} for each class"
        )
        self.finish(found, "\n".join([title, *table(found, self.level, self.confidence)]))
        return 0

    def _known(self, attacks: dict[str, Attack]) -> dict[str, Attack]:
        """Return attacks in the precision of the search; on a defence as it must be judged by, or as they do not know of it."""
        from deepcheck.attacks.judged import in_precision
        from deepcheck.defences.base import Adaptive, Oblivious

        found = {
            name: in_precision(one, self.precision, channels_last=self.channels_last) for name, one in attacks.items()
        }
        if self.defence is None:
            return found
        return {name: Oblivious(one) if self.oblivious else Adaptive(one) for name, one in found.items()}


def table(found: xr.Dataset, levels: tuple[float, ...], confidence: float) -> list[str]:
    """Return the lines of the table."""
    from deepcheck.evaluation.rejection import rejection
    from deepcheck.evaluation.separation import loss_bounds, separation

    level = list(levels)
    shares, answers = separation(found, level=level, confidence=confidence), rejection(found, level=level)
    bounds = loss_bounds(found, level=level).separation_bound.sel(loss="cross_entropy", worst_of="all points")
    lines = [
        f"{'delta':>8} {'level':>6} {'share':>7} {f'bounds at {confidence:.0%}':>16} {'by loss':>8} {'AWPR':>7} {'rejecting':>9} {'recall':>7}"
    ]
    for i, delta in enumerate(found.delta.values):
        for k, one in enumerate(level):
            at = {"level": k, "delta": i}
            share, lower, upper = (float(shares[name][at]) for name in ("share", "lower", "upper"))
            awpr, without = float(answers.awpr[k, i]), float(answers.awpr_without_rejection[i])
            lines.append(
                f"{delta:8.4g} {one:6.4g} {share:7.4f} {f'{lower:.4f} {upper:.4f}':>16} {float(bounds[at]):8.4f} {without:7.4f} "
                f"{awpr:9.4f} {float(answers.recall[k]):7.4f}"
            )
    return lines
