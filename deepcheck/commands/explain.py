"""``deepcheck explain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepcheck.commands.common import OnNet, at_most, load_images, training_threat
from odeflow.model import checked_count, checked_number
from odeflow.provenance import check_target

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Explain"]

_PICTURES = 6


@dataclass(frozen=True)
class Explain(OnNet):
    """Attack the maps that explain a net's predictions, and say how alike they stay: top pixels and rank correlations."""

    map: Literal["integrated_gradients", "saliency", "gradient_times_input"] = "integrated_gradients"
    """The map, of the logit of the true class."""
    epsilon: float | None = None
    """Size of the perturbation in L-infinity, >= 0; default: that of the training attack, or the usual one of the data set."""
    k: int = 100
    """Largest pixels of a map that are compared, >= 1."""
    examples: int = 200
    """Test images to attack, the first ones, >= 1; those that the net gets wrong are left out."""
    steps: int = 50
    """Gradient steps of the attack, >= 1."""
    restarts: int = 1
    """Starts of the attack, >= 1: the fewest shared pixels of each image count."""
    path: int = 20
    """Of integrated gradients, intervals of the path, >= 1."""
    softplus: float = 10.0
    """Steepness of the softplus that the search puts in the place of ReLUs, > 0."""
    pictures: Path | None = None
    """Draw the first images and maps, before and after, into this file (.pdf, .png or .svg)."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.attributions import AttributionAttack, IntegratedGradients, attribution_robustness
        from deepcheck.attributions.maps import MAPS
        from odeflow.plot import FORMATS, save_figure

        if self.pictures is not None:
            check_target(self.pictures, FORMATS)
        if self.epsilon is not None:
            checked_number("epsilon", self.epsilon, least=0)
        checked_count("examples", self.examples, 1)
        steps = checked_count("path", self.path, 1)
        chosen = IntegratedGradients(steps=steps) if self.map == "integrated_gradients" else MAPS[self.map]()
        attack = AttributionAttack(chosen, k=self.k, steps=self.steps, restarts=self.restarts, softplus=self.softplus)
        network, dataset, device, about = self.network()
        epsilon = self._usual(about, dataset) if self.epsilon is None else self.epsilon
        images = load_images(dataset, self.data_dir)
        channels, height, width = images.shape
        del channels
        checked_count("k", self.k, 1, most=height * width)
        records = attribution_robustness(
            network,
            images,
            epsilon=epsilon,
            attack=attack,
            examples=at_most(self.examples, len(images.test_images), images.name),
            shown=_PICTURES if self.pictures is not None else 0,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            configuration=about,
            progress=True,
        )
        self.finish(records, self._report(records, images.name))
        if self.pictures is not None:
            from deepcheck.plot_attributions import plot_attributions

            print(save_figure(plot_attributions(records, class_names=images.class_names), self.pictures))
        return 0

    def _usual(self, about: dict[str, object], dataset: str) -> float:
        """Return the size that the net was trained to withstand, or where that is none, the usual one of the data set."""
        from deepcheck.evaluation.suites import THREATS

        norm, epsilon = training_threat(about, dataset)
        return epsilon if norm == "linf" and epsilon else float(THREATS[dataset].linf[0])

    def _report(self, records: xr.Dataset, name: str) -> str:
        """Return means with standard errors."""
        from deepcheck.attributions import attribution_summary

        found = attribution_summary(records)
        n, right = records.sizes["example"], int((records["clean_prediction"] == records["label"]).sum())
        size = float(records["epsilon"])
        lines = [
            f"{self.map} of {right} right of the first {n} test images of {name}, epsilon = {size:.4g}",
            f"{'':8}{'top ' + str(self.k) + ' shared':>18}{'Kendall':>18}{'Spearman':>18}{'prediction kept':>18}",
        ]
        for change in found["change"].values:
            one = found.sel(change=change)
            values = [
                f"{float(one[name]):.4f} +- {float(one[f'{name}_standard_error']):.4f}"
                for name in ("top_pixels_shared", "kendall", "spearman")
            ]
            lines.append(f"{change:>8}" + "".join(f"{text:>18}" for text in values) + f"{float(one['kept']):>18.4f}")
        return "\n".join(lines)
