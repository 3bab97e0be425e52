"""What a study is, which ones there are, and how one is run and saved."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from odeflow.provenance import check_target, save, write_bytes
from studies.common.errors import Unavailable
from studies.common.kept import recorded
from studies.common.subject import OWN, Subject

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["STUDIES", "Claim", "Outcome", "Study", "Unavailable", "contest", "find_studies", "run_study"]

T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """A statement that a study checks."""

    statement: str
    """What should hold, with its tolerance."""
    measured: str
    """What was found."""
    holds: bool
    """Whether it does."""
    rival: str = ""
    """The rival or the null that fails it; empty in results of earlier versions."""
    rival_measured: str = ""
    """What the same test finds of the rival; empty where it is not computed."""
    not_computed: str = ""
    """Why the rival is named only, where it is."""


def contest(
    statement: str,
    test: Callable[[T], tuple[str, bool]],
    found: T,
    *,
    rival: str,
    against: T | None = None,
    why: str = "",
) -> Claim:
    """Return a claim that holds if what was found passes its test, and a rival fails the same test.

    Parameters
    ----------
    statement
        What should hold, with its tolerance.
    test
        Returns what is measured, as text, and whether it is as the statement says.
    found
        What is tested.
    rival
        What the rival is.
    against
        The rival's own, on which the same test is made; None if it cannot be computed in the study.
    why
        Why it cannot.

    Raises
    ------
    ValueError
        If there is neither a computed rival nor a reason.
    """
    measured, holds = test(found)
    if against is None:
        if not why:
            raise ValueError(f"why = '' is not allowed without a computed rival: {statement}")
        return Claim(statement, measured, bool(holds), rival, not_computed=why)
    theirs, passes = test(against)
    if passes:
        measured += "; but the rival passes, too"
    return Claim(statement, measured, bool(holds) and not passes, rival, rival_measured=theirs)


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
    """A study. Its module is imported only when it is run."""

    name: str
    title: str
    module: str
    """It has a function ``run(name, *, quick)`` that returns an Outcome; with `long`, also ``folder``."""
    long: bool = False
    """Whether it keeps parts in a folder, and goes on from there when it is run again (see `studies.common.kept`)."""
    place: float = inf
    """Its place in lists and on the page, a rising number; those without one come last, by name."""
    subjects: bool = False
    """Whether it can be about other images and nets; its `run` then has the keyword ``subject``."""

    def run(self, *, quick: bool = False, folder: Path | None = None, subject: Subject = OWN) -> Outcome:
        """Run the study; `quick` with fewer points and runs. A long one keeps its intermediate results in `folder`.

        Raises
        ------
        ValueError
            If it cannot be about this subject.
        """
        options: dict[str, Any] = {"folder": folder} if self.long else {}
        if self.subjects:
            options["subject"] = subject
        elif subject != OWN:
            raise ValueError(f"{unsuited(self.name)}: allowed is without them")
        run: Callable[..., Outcome] = import_module(self.module).run
        return run(self.name, quick=quick, **options)


def find_studies(folder: Path = Path(__file__).parent) -> dict[str, Study]:
    """Return the studies of a folder by name, in the order of their places.

    A study is a module of the package, or a folder of modules, whose file (or ``__init__.py``) has a list ``STUDIES``:
    for each study that it runs a dict of the fields `name`, `title` and, where they differ from the default, `place`,
    `long` and `subjects`. The list is read, and nothing is imported: it has to be written out.

    Raises
    ------
    ValueError
        If a list cannot be read, or two studies have one name; it names the file.
    """
    found: dict[str, Study] = {}
    for file in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
        module = file.stem if file.parent == folder else file.parent.name
        text = file.read_text(encoding="utf-8")
        if module in ("__init__", "registry") or "\nSTUDIES = " not in text:
            continue
        for one in _listed(file, text):
            study = Study(**one, module=f"studies.{module}")
            if study.name in found:
                raise ValueError(f"{file}: there is a study {study.name!r} already, in {found[study.name].module}")
            found[study.name] = study
    return dict(sorted(found.items(), key=lambda item: (item[1].place, item[0])))


def _listed(file: Path, text: str) -> list[dict[str, Any]]:
    """Return the list STUDIES of a file."""
    fields = {"name", "title", "place", "long", "subjects"}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "STUDIES":
            with suppress(ValueError):
                listed = ast.literal_eval(statement.value)
                if isinstance(listed, list) and all(
                    isinstance(one, dict) and {"name", "title"} <= set(one) <= fields for one in listed
                ):
                    return list(listed)
    raise ValueError(
        f"{file}: STUDIES is not written out as a list of dicts with name, title, and perhaps place, long, subjects"
    )


STUDIES = find_studies()
"""All studies by name."""


def unsuited(name: str) -> str:
    """Return what a study says that is asked for another subject."""
    able = ", ".join(study.name for study in STUDIES.values() if study.subjects)
    return f"{name} takes no dataset, classes, seeds or net, which are for {able}"


def run_study(study: Study, *, out: Path, quick: bool = False, subject: Subject = OWN) -> tuple[Outcome, list[Path]]:
    """Run a study and save its data (.nc) and figure (.pdf, .png, .svg) under its name in the folder `out`.

    To the name of one of another subject that is added, say NAME_cifar10_airplane_ship.

    Where there are several figures, the name of each is added: NAME_KEY.pdf, NAME_KEY.png and NAME_KEY.svg. A long
    study keeps parts in the folder NAME, or NAME_quick; which ones the result is made of, and of which code and commit
    each of them is, stands in its attribute `parts`.

    Raises
    ------
    FileNotFoundError, PermissionError
        If the folder cannot be written to; before any work.
    ValueError
        If the study cannot be about this subject, or its data set does not have the classes.
    SaveError
        If writing fails.
    Unavailable
        If the study needs another machine.
    """
    from odeflow.plot import save_figure

    name = study.name + subject.suffix
    check_target(out / f"{name}.nc")
    folder = study.name + subject.folder + ("_quick" if quick else "")
    with recorded() as parts:
        outcome = study.run(quick=quick, folder=out / folder, subject=subject)
    figure = outcome.figure
    figures = {f"_{key}": one for key, one in figure.items()} if isinstance(figure, Mapping) else {"": figure}
    outcome.data.attrs |= {
        "study": study.name,
        "quick": json.dumps(quick),
        "claims": json.dumps([asdict(claim) for claim in outcome.claims]),
        "table": outcome.table,
        "figures": json.dumps(list(figures)),
        "parts": json.dumps([asdict(part) for part in sorted(parts, key=lambda part: part.name)]),
    }
    if study.subjects:
        outcome.data.attrs["subject"] = json.dumps(asdict(subject))
    files = [save(outcome.data, out / f"{name}.nc")]
    for key, one in figures.items():
        files += [save_figure(one, out / f"{name}{key}{suffix}") for suffix in (".pdf", ".png")]
        files.append(_save_svg(one, out / f"{name}{key}.svg"))
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
