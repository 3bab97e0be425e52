"""``deepcheck generator``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deepcheck.commands.common import load_images
from deepcheck.commands.train import DatasetName, first
from deepcheck.generators.recipe import GeneratorRecipe

__all__ = ["Generator"]


@dataclass(frozen=True)
class Generator:
    """Train a generator of images as a Wasserstein GAN with gradient penalty: what the defence defense_gan needs.

    The defaults are the recipe for the data set. MNIST takes 25 minutes of one core.
    """

    recipe: GeneratorRecipe = field(default_factory=GeneratorRecipe)
    dataset: DatasetName = "mnist"
    """The data set."""
    out: Path | None = None
    """Folder for the checkpoint; default: runs/DATASET_generator."""
    resume: bool = False
    """Go on after the last checkpoint in the folder."""
    examples: int | None = None
    """Use only so many training images, the first ones; default: all."""
    data_dir: Path | None = None
    """Folder of the data set; default: $DEEPCHECK_DATA, then the cache, then a download."""
    device: str = "auto"
    """auto (CUDA where there is a GPU, else the CPU), cpu, cuda or cuda:N."""
    pictures: Path | None = None
    """Save images that it makes to this file (.pdf, .png or .svg)."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.generators.training import train_generator
        from odeflow.plot import FORMATS, save_figure
        from odeflow.provenance import check_target

        out = self.out
        if out is not None and out.exists() and not out.is_dir():
            raise ValueError(f"out = {str(out)!r} is a file: allowed is a folder")
        if self.pictures is not None:
            check_target(self.pictures, FORMATS)
        images = load_images(self.dataset, self.data_dir)
        if self.examples is not None:
            images = first(images, self.examples)
        if out is None:
            Path("runs").mkdir(exist_ok=True)
            out = Path("runs") / f"{self.dataset}_generator"
        trained = train_generator(self.recipe, images, out=out, device=self.device, resume=self.resume, progress=True)
        last, seconds = trained.history[-1], sum(row["seconds"] for row in trained.history)
        print(
            f"{last['step']} steps in {seconds:.0f} s; mean squared error of a pixel on training images kept apart, of the "
            f"nearest image that it makes: {last['reconstruction_error']:.5f}",
            trained.checkpoint,
            sep="\n",
        )
        if self.pictures is not None:
            import torch

            from deepcheck.plot import plot_images

            latents = trained.generator.latents(40, torch.Generator().manual_seed(self.recipe.seed))
            with torch.no_grad():
                made = trained.generator(latents.to(next(trained.generator.parameters()).device))
            print(save_figure(plot_images(made.cpu()), self.pictures))
        return 0
