"""``deepcheck attack``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.checks import checked_choice
from deepcheck.commands.common import OnImages, at_most, followed, load_images, options_in, training_threat
from odeflow.provenance import check_target

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["Attack", "PGDAttack"]

_PICTURES = 5
_LOOKED_AT = 50
"""Images on which a net is looked at before it is attacked."""


@dataclass(frozen=True)
class Attack(OnImages):
    """Attack a net, and say how many of the test images it still gets right.

    --list names the attacks. Every attack has flags of its own: --attack NAME --help shows those of NAME.
    """

    command: ClassVar[str] = "attack"

    attack: str = "pgd"
    """Name of the attack, see --list."""
    list: bool = False
    """Print all attacks, a line each, and do no more."""
    norm: str = "linf"
    """Norm of the perturbation: linf, l2, l1 or l0; of attacks that are not additive what they move: flow, colour, rigid, combined."""
    epsilon: tuple[float, ...] = ()
    """Sizes of the perturbation, >= 0; default: the one that the net was trained to withstand."""
    option: tuple[str, ...] = ()
    """Options of the attack, each as NAME=VALUE, say queries=500: the same as its flags."""
    pictures: Path | None = None
    """Draw the first images, clean, attacked, and the difference enlarged, into this file (.pdf, .png or .svg)."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.attacks import registry
        from deepcheck.evaluation import Planned, evaluate, looked_at, split
        from deepcheck.evaluation.suites import BOX_NORMS, cannot_cross
        from odeflow.plot import FORMATS, save_figure

        if self.list:
            print(registry.listed())
            return 0
        checked_choice("attack", self.attack, registry.ATTACKS)
        norm = BOX_NORMS.get(checked_choice("norm", self.norm, registry.norms_of(self.attack)), self.norm)
        made = registry.make(self.attack, norm, **self._options())
        objective = getattr(made, "objective", None)
        if getattr(objective, "targeted", False) and getattr(made, "targets", "given") == "given":
            raise ValueError(
                f"objective = {objective.name} needs classes to reach: allowed are attacks that choose them, such as "  # type: ignore[union-attr]
                "targeted_pgd, or with an attack that has it --targets likeliest"
            )
        if self.pictures is not None:
            check_target(self.pictures, FORMATS)
        network, dataset, device, about = self.network()
        epsilons = self._epsilons(about, dataset)
        images = load_images(dataset, self.data_dir)
        attack = registry.within_budget(made)  # one that has to be prepared is so by `evaluate`, on training images
        planned = self.against({f"{self.attack}_{self.norm}": Planned(attack, epsilons)})
        if cannot_cross(planned):
            logging.getLogger(__name__).warning(
                "the steps of %s are too short together to cross the ball: robustness will seem larger than it is",
                attack,
            )
        examples = at_most(self.examples, len(images.test_images), images.name)
        (x, y), _ = split(images, min(examples, _LOOKED_AT), 0, device)
        answered = {"few-classes"} | ({"random-net"} if self.defence and not self.oblivious else set())
        looked = network if self.oblivious else followed(network)
        for one in looked_at(looked, x, y, batch_size=self.batch_size):
            if (
                one.name not in answered
            ):  # EOT is the answer to a random one; the other is said of the standard evaluation
                logging.getLogger(__name__).warning("warning  %s", one)
        records = evaluate(
            network,
            images,
            planned,
            examples=examples,
            validation=0,
            keep_images=self.pictures is not None,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            precision=self.precision,
            channels_last=self.channels_last,
            configuration=about,
            progress=True,
        )
        self.finish(records, self._report(records, images.name, epsilons))
        if self.pictures is not None:
            print(save_figure(self._figure(records, images.class_names), self.pictures))
        return 0

    def _epsilons(self, about: dict[str, Any], dataset: str) -> tuple[float, ...]:
        """Return the sizes that are given, or the one that the net was trained to withstand."""
        from deepcheck.attacks.measures import SIZES
        from deepcheck.evaluation.suites import THREATS

        if self.epsilon:
            return self.epsilon
        if self.norm in SIZES and dataset in THREATS:
            return (float(getattr(THREATS[dataset], self.norm)),)
        usual, epsilon = training_threat(about, dataset)
        if self.norm != usual:
            raise ValueError(
                f"epsilon is missing: there is no default for norm = {self.norm}: allowed are numbers >= 0, as in --epsilon 1"
            )
        return (epsilon,)

    def _report(self, records: xr.Dataset, name: str, epsilons: tuple[float, ...]) -> str:
        """Return accuracies with standard errors, and what it took to turn an image."""
        import numpy as np

        from deepcheck.evaluation import robust_error, standard_error, test_error

        examples = records.sizes["example"]
        lines = [f"accuracy on the first {examples} test images of {name}, with standard errors"]
        errors = {"no attack": test_error(records)}
        errors |= {
            f"{self.norm} {value:.4g}": robust_error(records, epsilon=value, norm=self.norm, smaller=False)
            for value in epsilons
        }
        lines += [
            f"{name:>12}: {1 - error:.4f} +- {standard_error(error, examples):.4f}" for name, error in errors.items()
        ]
        right = records["clean_prediction"].values == records["label"].values
        turned = (records["success"].values[0] == 1) & right
        length = np.where(turned, records["length"].values[0], np.inf).min((0, 1))
        if np.isfinite(length).any():
            lines.append(f"{'turned':>12}: {np.isfinite(length).sum()} of {right.sum()}, length {_range(length)}")
        return "\n".join(lines)

    def _figure(self, records: xr.Dataset, class_names: Sequence[str]) -> Figure:
        """Draw the first images that are right, and what the attack made of them at each epsilon."""
        import numpy as np

        from deepcheck.plot_attacks import Pictures, plot_attacked

        right = records["clean_prediction"].values == records["label"].values
        first = np.flatnonzero(right)[:_PICTURES] if right.any() else np.arange(min(_PICTURES, len(right)))
        few = records.isel(example=first)
        clean = (few[name].values for name in ("clean_image", "clean_prediction", "clean_confidence"))
        attacked = {}
        for kept in range(few.sizes["kept"]):
            one = few.isel(kept=kept)
            at = one.sel(epsilon=one.kept_epsilon).isel(attack=0)
            restart = one["attacked_restart"].astype(int)
            said = (at[name].isel(restart=restart).values for name in ("prediction", "confidence"))
            attacked[f"{self.attack} {one.kept_epsilon.item():.3g}"] = Pictures(one["attacked_image"].values, *said)
        largest = max(int(few[name].max()) for name in ("clean_prediction", "prediction"))
        names = [*class_names, *(str(k) for k in range(len(class_names), largest + 1))]
        return plot_attacked(Pictures(*clean), attacked, class_names=names)

    def _options(self) -> dict[str, Any]:
        """Return the options of the attack that are given."""
        common = {field.name for field in dataclasses.fields(Attack)}
        own = {field.name: field.default for field in dataclasses.fields(self) if field.name not in common}
        given = {name: getattr(self, name) for name, default in own.items() if getattr(self, name) != default}
        return options_in("option", self.option, given)


@dataclass(frozen=True)
class PGDAttack(Attack):
    """Attack a net, and say how many of the test images it still gets right.

    --list names the attacks. Every attack has flags of its own: --attack NAME --help shows those of NAME; these are those of
    pgd.
    """

    objective: str | None = None
    """What is maximised, say cross_entropy, margin, dlr or wrong_confidence; default: cross_entropy."""
    steps: int | None = None
    """Gradient steps, >= 1; default: 40."""
    step_size: float | None = None
    """Length of a step, > 0; default: 2.5 epsilon / steps."""
    restarts: int | None = None
    """Starts of the attack, >= 1: the worst case for each image counts. Default: 1."""
    momentum: float | None = None
    """Momentum of the step's direction, in [0, 1); default: 0."""
    backtracking: float | None = None
    """A factor > 1: steps that lose are not taken, and shrink by it."""


def _range(values: Any) -> str:
    """Return median and range of the finite values, as text."""
    import numpy as np

    finite = values[np.isfinite(values)]
    return f"{np.median(finite):.4g} (median; {finite.min():.4g} to {finite.max():.4g})"
