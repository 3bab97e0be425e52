"""What a study is, which ones there are, and how one is run and saved."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from odeflow.provenance import check_target, save, write_bytes

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["STUDIES", "Claim", "Outcome", "Study", "Unavailable", "run_study"]


class Unavailable(RuntimeError):
    """A study cannot be run on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Claim:
    """A statement that a study checks."""

    statement: str
    """What should hold, with its tolerance."""
    measured: str
    """What was found."""
    holds: bool
    """Whether it does."""


@dataclass(frozen=True)
class Outcome:
    """What a study found."""

    data: xr.Dataset
    """Everything that the figure shows, labelled."""
    figure: Figure | Mapping[str, Figure]
    """One figure, or several by a short name each."""
    table: str
    """The numbers to print, as lines of text."""
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Study:
    """An entry of the registry. The module is imported only when the study is run."""

    name: str
    title: str
    module: str
    """It has a function ``run(name, *, quick)`` that returns an Outcome; with `long`, also ``folder``."""
    long: bool = False
    """Whether it keeps intermediate results in a folder, and goes on from there when it is run again."""

    def run(self, *, quick: bool = False, folder: Path | None = None) -> Outcome:
        """Run the study; `quick` with fewer points and runs. A long one keeps its intermediate results in `folder`."""
        run: Callable[..., Outcome] = import_module(self.module).run
        return run(self.name, quick=quick, folder=folder) if self.long else run(self.name, quick=quick)


_ALL = (
    Study(
        "scenario1", "equal priors, standard and adversarial training: theory through Monte Carlo", "studies.scenarios"
    ),
    Study("scenario2", "priors 0.7 and 0.3, standard and adversarial training: the same", "studies.scenarios"),
    Study("finite_size", "how mean and variance of R and b at finite N approach the theory", "studies.finite_size"),
    Study("variants", "variants of the attack and of the rule: theory through Monte Carlo", "studies.variants"),
    Study(
        "phase_diagram",
        "where adversarial training ends: adversarial error, phases, boundaries",
        "studies.phase_diagram",
    ),
    Study(
        "tradeoff", "classification error against adversarial error, and the best training epsilon", "studies.tradeoff"
    ),
    Study("mnist_3v7", "adversarial training on images, 3 against 7: theory through SGD on MNIST", "studies.mnist_3v7"),
    Study(
        "theory_on_data",
        "theory on means and covariances of real images, with the noise of SGD: through SGD on the images",
        "studies.theory_on_data",
    ),
    Study(
        "ccat_mnist",
        "standard, adversarial and confidence-calibrated adversarial training on MNIST, with and without rejection",
        "studies.ccat",
        long=True,
    ),
    Study("ccat_cifar10", "the same on CIFAR-10, for a CUDA GPU", "studies.ccat", long=True),
    Study(
        "deep_on_mixture",
        "do deeper nets that learn online from the mixture follow the theory?",
        "studies.deep_on_mixture",
    ),
    Study(
        "deep_on_mnist",
        "3 against 7: is the robustness of deep nets that of their linear approximations?",
        "studies.deep_on_mnist",
        long=True,
    ),
    Study(
        "collapse",
        "unequal priors: from which training epsilon on does a classifier know one class only?",
        "studies.collapse",
        long=True,
    ),
    Study(
        "tradeoff_deep",
        "clean against adversarial error along the training epsilon, for theory, linear and deep nets",
        "studies.tradeoff_deep",
        long=True,
    ),
    Study(
        "confidence",
        "how confidence separates right from wrong near the data, for theory, linear and deep nets",
        "studies.confidence",
        long=True,
    ),
)
STUDIES = {study.name: study for study in _ALL}
"""All studies by name."""


def run_study(study: Study, *, out: Path, quick: bool = False) -> tuple[Outcome, list[Path]]:
    """Run a study and save its data (.nc) and figure (.pdf, .png, .svg) under its name in the folder `out`.

    Where there are several figures, the name of each is added: NAME_KEY.pdf, NAME_KEY.png and NAME_KEY.svg. A long
    study keeps its intermediate results in the folder NAME, or NAME_quick.

    Raises
    ------
    FileNotFoundError, PermissionError
        If the folder cannot be written to; before any work.
    SaveError
        If writing fails.
    Unavailable
        If the study needs another machine.
    """
    from odeflow.plot import save_figure

    check_target(out / f"{study.name}.nc")
    outcome = study.run(quick=quick, folder=out / (f"{study.name}_quick" if quick else study.name))
    figure = outcome.figure
    figures = {f"_{key}": one for key, one in figure.items()} if isinstance(figure, Mapping) else {"": figure}
    outcome.data.attrs |= {
        "study": study.name,
        "quick": json.dumps(quick),
        "claims": json.dumps([asdict(claim) for claim in outcome.claims]),
        "table": outcome.table,
        "figures": json.dumps(list(figures)),
    }
    files = [save(outcome.data, out / f"{study.name}.nc")]
    for key, one in figures.items():
        files += [save_figure(one, out / f"{study.name}{key}{suffix}") for suffix in (".pdf", ".png")]
        files.append(_save_svg(one, out / f"{study.name}{key}.svg"))
    return outcome, files


def _save_svg(figure: Figure, path: Path) -> Path:
    """Save a figure as SVG with its text as outlines: a browser does not have the fonts of its formulas."""
    import matplotlib as mpl

    from odeflow.plot import style

    target = check_target(path, (".svg",))
    content = io.BytesIO()
    with style(), mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": target.stem}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    write_bytes(target, content.getbuffer())
    return target
