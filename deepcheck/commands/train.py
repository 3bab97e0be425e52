"""``deepcheck train``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from deepcheck.commands.common import load_images
from deepcheck.training.recipe import DEFAULTS, METHODS, Recipe, recipe
from odeflow.model import checked_count

if TYPE_CHECKING:
    from deepcheck.data import Images

    DatasetName: TypeAlias = str
    MethodName: TypeAlias = str
else:
    DatasetName, MethodName = Literal[tuple(DEFAULTS)], Literal[tuple(METHODS)]

__all__ = ["DatasetName", "MethodName", "Train"]


@dataclass(frozen=True)
class Train:
    """Train a net on a data set by a method: `train mnist at`. `deepcheck methods` lists the methods.

    Every method has flags of its own: train mnist at --help shows those of at. The defaults are the recipe for the data
    set and the method. To use several GPUs, start it by torchrun.
    """

    recipe: Recipe = field(default_factory=lambda: recipe("mnist", "standard"))
    dataset: DatasetName = "mnist"
    """The data set."""
    method: MethodName = "standard"
    """The training method; `deepcheck methods` says what each is."""
    out: Path | None = None
    """Folder for the checkpoints; default: runs/DATASET_METHOD."""
    resume: bool = False
    """Go on after the last whole epoch in the folder."""
    examples: int | None = None
    """Use only so many training images, the first ones; default: all."""
    data_dir: Path | None = None
    """Folder of the data set; default: $DEEPCHECK_DATA, then the cache, then a download."""
    device: str = "auto"
    """auto (CUDA where there is a GPU, else the CPU), cpu, cuda or cuda:N."""
    channels_last: bool = False
    """Keep images and weights in the memory format that convolutions on GPUs prefer."""
    compile: bool = False
    """Use torch.compile."""
    graphs: bool = False
    """Record steps as CUDA graphs: small nets and batches do not wait for the processor then."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck.training.loop import train

        out = self.out
        if out is not None and out.exists() and not out.is_dir():
            raise ValueError(f"out = {str(out)!r} is a file: allowed is a folder")
        images = load_images(self.dataset, self.data_dir)
        if self.examples is not None:
            images = first(images, self.examples)
        if out is None:
            Path("runs").mkdir(exist_ok=True)
            out = Path("runs") / f"{self.dataset}_{self.method}"
        trained = train(
            self.recipe,
            images,
            out=out,
            device=self.device,
            resume=self.resume,
            channels_last=self.channels_last,
            compiled=self.compile,
            graphs=self.graphs,
            progress=True,
        )
        last, (_, epsilon) = trained.history[-1], self.recipe.threat
        seconds = sum(row["seconds"] for row in trained.history)
        print(
            f"{len(trained.history)} epochs in {seconds:.0f} s; on {self.recipe.validation} training images kept apart: "
            f"accuracy {last['clean_accuracy']:.4f}, under PGD-10 at epsilon = {epsilon:.4g} "
            f"{last['robust_accuracy']:.4f}",
            trained.checkpoint,
            sep="\n",
        )
        return 0


def first(images: Images, examples: int) -> Images:
    """Return a data set with the first training images alone."""
    count = checked_count("examples", examples, 1)
    return replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
