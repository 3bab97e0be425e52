"""``deepcheck corrupt``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepcheck.commands.common import OnNet, at_most, load_images
from odeflow.provenance import check_target

if TYPE_CHECKING:
    import torch
    import xarray as xr
    from matplotlib.figure import Figure

    from deepcheck.data import Images

__all__ = ["Corrupt"]


@dataclass(frozen=True)
class Corrupt(OnNet):
    """Corrupt test images as nature and cameras do, and say how often a net is wrong, by corruption and severity.

    --list names the corruptions. By default they are the fifteen of MNIST-C for grey images, those of CIFAR-10-C for coloured
    ones.
    """

    corruptions: tuple[str, ...] = ()
    """Names, see --list; mnist_c and cifar10_c stand for the fifteen of each, all for all."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Out of 1 to 5."""
    examples: int = 1000
    """Test images to corrupt, the first ones, >= 1."""
    seed: int = 0
    """Seed of the corruptions, >= 0."""
    baseline: Path | None = None
    """Errors of another net on the same images, as --out has left them: the mCE is relative to them."""
    plot: Path | None = None
    """Save a figure of the errors to this file (.pdf, .png or .svg)."""
    pictures: Path | None = None
    """Draw the first image in every corruption and severity into this file (.pdf, .png or .svg)."""
    list: bool = False
    """Print all corruptions, a line each, and do no more."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck import corruptions
        from deepcheck.corruptions.base import checked_severities
        from deepcheck.evaluation import corruption_errors, format_corruption_table
        from deepcheck.evaluation.corrupted import checked_baseline
        from odeflow.plot import FORMATS, save_figure
        from odeflow.provenance import load

        if self.list:
            print(corruptions.listed())
            return 0
        checked_severities(self.severities)
        names = self.corruptions or None
        corruptions.chosen(names, 3)
        for figure in (self.plot, self.pictures):
            if figure is not None:
                check_target(figure, FORMATS)
        baseline = None if self.baseline is None else load(self.baseline)
        network, dataset, device, about = self.network()
        images = load_images(dataset, self.data_dir)
        found = corruptions.chosen(names, images.shape[0])
        if baseline is not None:
            checked_baseline(baseline, found, self.severities)
        examples = at_most(self.examples, len(images.test_images), images.name)
        errors = corruption_errors(
            network,
            images,
            names,
            self.severities,
            examples=examples,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            configuration=about,
        )
        lines = [f"first {examples} test images of {images.name}", format_corruption_table(errors, baseline)]
        self.finish(errors, "\n".join(lines))
        if self.plot is not None:
            from deepcheck.plot_corruptions import plot_corruptions

            print(save_figure(plot_corruptions(errors), self.plot))
        if self.pictures is not None:
            print(save_figure(self._pictures(errors, images, device), self.pictures))
        return 0

    def _pictures(self, errors: xr.Dataset, images: Images, device: torch.device) -> Figure:
        """Draw the first image, as the net has seen it."""
        from deepcheck.evaluation import split
        from deepcheck.plot_corruptions import plot_corrupted

        (x, _), _ = split(images, 1, 0, device)
        names = [str(name) for name in errors["corruption"].values]
        return plot_corrupted(x, names, self.severities, seed=self.seed)
