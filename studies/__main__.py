"""Command line of the studies: ``python -m studies list | run NAME ... | all | report``."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from deepcheck.data import DataError
from odeflow import IntegrationError, SaveError
from odeflow.cli.parsing import parsed, unknown
from odeflow.cli.program import missing, run
from odeflow.provenance import package_version
from studies.common.subject import OWN, Subject
from studies.registry import STUDIES, Unavailable, run_study, unsuited
from studies.report import write_gallery, write_report

COMMANDS = ("list", "run", "all", "report")
EXAMPLES = {
    "": ("list", "run scenario2 --quick", "report"),
    "list": ("list",),
    "run": (
        "run scenario1 scenario2",
        "run ccat_mnist --quick --out results",
        "run deep_on_mnist --dataset cifar10 --classes airplane ship --seeds 5",
    ),
    "all": ("all --quick",),
    "report": ("report", "report --out results --gallery docs/gallery"),
}
"""What the help of each command ends with."""


@dataclass(frozen=True)
class _Out:
    out: Path = Path("results")
    """Folder to write to."""

    def made(self) -> Path:
        """Return the folder; the default is made where it is not there."""
        if self.out == Path("results"):
            self.out.mkdir(exist_ok=True)
        return _folder("out", self.out)


@dataclass(frozen=True)
class _Quick(_Out):
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fewer points and runs, for a first look."""


@dataclass(frozen=True)
class List:
    """Name the studies."""

    def run(self) -> int:
        """Run the command."""
        width = max(map(len, STUDIES))
        for study in STUDIES.values():
            print(f"{study.name:{width}}  {study.title}")
        return 0


@dataclass(frozen=True)
class Run(_Quick):
    """Run some studies: each leaves NAME.nc and its figures, and checks its claims (status 1 if one fails)."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...", help_behavior_hint="(required)")
    ] = ()
    """The studies, as `list` names them."""
    dataset: Literal["mnist", "cifar10", "digits"] = "mnist"
    """Images that deep_on_mnist, collapse and confidence are about; this and the next three are for them alone."""
    classes: Annotated[tuple[str, str], tyro.conf.arg(metavar="CLASS CLASS")] = ("3", "7")
    """Two classes of them; where priors are unequal, the majority first."""
    seeds: int | None = None
    """Nets of each kind, 2 or more; None: as the study has it."""
    net: Literal["conv_small", "madry_mnist", "resnet_ccat", "preact_resnet18"] | None = None
    """The deep net, as wide as published; None: those of the study."""

    def run(self) -> int:
        """Run the command."""
        subject = Subject(self.dataset, self.classes, self.seeds, self.net)
        if not self.names:
            raise ValueError(f"NAME is missing from studies run: allowed is one or more of {', '.join(STUDIES)}")
        for name in self.names:
            if name not in STUDIES:
                raise ValueError(unknown("NAME", name, STUDIES, "is no study"))
            if subject != OWN and not STUDIES[name].subjects:
                raise ValueError(unsuited(name))
        if self.dataset == "cifar10" and self.classes == ("3", "7"):
            raise ValueError("classes is missing: dataset = cifar10 has no 3 and 7; allowed is, say, airplane ship")
        return _run_all(self.names, self.made(), quick=self.quick, every=False, subject=subject)


@dataclass(frozen=True)
class All(_Quick):
    """Run all studies. Those that cannot be run on this machine are left out, which is said."""

    def run(self) -> int:
        """Run the command."""
        return _run_all(tuple(STUDIES), self.made(), quick=self.quick, every=True)


@dataclass(frozen=True)
class Report(_Out):
    """Show what has been found on one page, report.html."""

    gallery: Path | None = None
    """Also write gallery.md, with its figures, to this folder."""

    def run(self) -> int:
        """Run the command."""
        gallery = None if self.gallery is None else _folder("gallery", self.gallery)
        report = write_report(self.made())
        page = None if gallery is None else write_gallery(report.results, gallery)
        for result in report.results:
            for text in (result.problem, *result.notes):
                if text:
                    print(f"{result.study.name}: {text}", file=sys.stderr)
        if lacking := [result.study.name for result in report.results if result.missing]:
            print(f"not there yet: python -m studies run {' '.join(lacking)}", file=sys.stderr)
        print(report.path, *([] if page is None else [page]), sep="\n")
        return 0


def _folder(name: str, path: Path) -> Path:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{name} = {str(path)!r} {what}: allowed is a folder that exists")
    return path


def _run_all(names: tuple[str, ...], out: Path, *, quick: bool, every: bool, subject: Subject = OWN) -> int:
    """Run studies one after the other and return the exit status. Of `every` study, some may be left out."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    status = 0
    for name in names:
        start = time.perf_counter()
        try:
            outcome, files = run_study(STUDIES[name], out=out, quick=quick, subject=subject)
        except (Unavailable, ModuleNotFoundError) as error:
            print(f"{name}: {missing(error) if isinstance(error, ImportError) else error}", file=sys.stderr)
            status = status if every else 2
            continue
        except KeyboardInterrupt:
            kept = "what is finished of it is kept: run it again" if STUDIES[name].long else "nothing of it was written"
            raise KeyboardInterrupt(f"{name}: interrupted, {kept}") from None
        print(f"\n{name}: {STUDIES[name].title}\n\n{outcome.table}\n")
        for claim in outcome.claims:
            print(f"{'pass' if claim.holds else 'FAIL'}  {claim.statement}: {claim.measured}")
            print(f"      rival: {claim.rival}: {claim.rival_measured or f'not computed, {claim.not_computed}'}")
            status = status if claim.holds else 1
        print(f"\n{', '.join(map(str, files))}  ({time.perf_counter() - start:.1f} s)")
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 a claim or a save failed, 2 bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    failures = (SaveError, IntegrationError, DataError)
    return run(
        "studies",
        lambda: _work(given),
        failures=failures,
        interrupted=lambda interrupt: str(interrupt) or "interrupted",
    )


def types_of() -> Any:
    """Return the commands."""
    return (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[All, tyro.conf.subcommand("all")]
        | Annotated[Report, tyro.conf.subcommand("report")]
    )


def _work(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"studies {package_version()}")
        return 0
    status: int = parsed(
        types_of(),
        arguments,
        prog="python -m studies",
        commands=COMMANDS,
        description="Each study leaves NAME.nc and its figures NAME*.pdf, .png and .svg, and checks its claims. 'report' "
        "shows all of them on one page, report.html.",
        examples=EXAMPLES,
    ).run()
    return status


if __name__ == "__main__":
    sys.exit(main())
