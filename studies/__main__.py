"""Command line of the studies: ``python -m studies list | run NAME ... | all | report``."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
import time
from pathlib import Path
from typing import NoReturn

from deepcheck.data import DataError
from odeflow import IntegrationError, SaveError
from studies.registry import STUDIES, Unavailable, run_study
from studies.report import write_gallery, write_report


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 a claim or a save failed, 2 bad input."""
    parser = _Parser(
        prog="python -m studies",
        description="Each study leaves NAME.nc and its figures NAME*.pdf, .png and .svg, and checks its claims. "
        "'report' shows all of them on one page, report.html.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | run | all | report")
    commands.add_parser("list", help="name the studies")
    run = commands.add_parser("run", help="run some studies", allow_abbrev=False)
    run.add_argument("names", nargs="+", metavar="NAME", help=f"one of {', '.join(STUDIES)}")
    every = commands.add_parser("all", help="run all studies", allow_abbrev=False)
    report = commands.add_parser("report", help="show what has been found on one page", allow_abbrev=False)
    report.add_argument("--gallery", type=Path, metavar="DIR", help="also write gallery.md, with its figures, to DIR")
    for command in (run, every):
        command.add_argument("--quick", action="store_true", help="fewer points and runs, for a first look")
    for command in (run, every, report):
        command.add_argument("--out", type=Path, default=Path("results"), help="folder to write to (default: results)")
    options = parser.parse_args(arguments)

    if options.command == "list":
        width = max(map(len, STUDIES))
        for study in STUDIES.values():
            print(f"{study.name:{width}}  {study.title}")
        return 0
    if options.command == "report":
        return _report(options.out, options.gallery)

    names = options.names if options.command == "run" else list(STUDIES)
    for name in names:
        if name not in STUDIES:
            near = difflib.get_close_matches(name, STUDIES, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            print(f"NAME = {name!r} is no study{hint}: allowed are {', '.join(STUDIES)}", file=sys.stderr)
            return 2
    if options.out == Path("results"):
        options.out.mkdir(exist_ok=True)

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    status = 0
    for name in names:
        start = time.perf_counter()
        try:
            outcome, files = run_study(STUDIES[name], out=options.out, quick=options.quick)
        except (FileNotFoundError, PermissionError) as error:
            print(f"--out: {error}", file=sys.stderr)
            return 2
        except Unavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = status if options.command == "all" else 2
            continue
        except (SaveError, IntegrationError, DataError, ImportError) as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            kept = "what is finished of it is kept: run it again" if STUDIES[name].long else "nothing of it was written"
            print(f"{name}: interrupted, {kept}", file=sys.stderr)
            return 1
        print(f"\n{name}: {STUDIES[name].title}\n\n{outcome.table}\n")
        for claim in outcome.claims:
            print(f"{'pass' if claim.holds else 'FAIL'}  {claim.statement}: {claim.measured}")
            print(f"      rival: {claim.rival}: {claim.rival_measured or f'not computed, {claim.not_computed}'}")
            status = status if claim.holds else 1
        print(f"\n{', '.join(map(str, files))}  ({time.perf_counter() - start:.1f} s)")
    return status


def _report(out: Path, gallery: Path | None) -> int:
    """Write the report of a folder of results, and a gallery on request, and return the exit status."""
    if out == Path("results"):
        out.mkdir(exist_ok=True)
    try:
        report = write_report(out)
    except (FileNotFoundError, PermissionError) as error:
        print(f"--out: {error}", file=sys.stderr)
        return 2
    except SaveError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        page = write_gallery(report.results, gallery) if gallery else None
    except (FileNotFoundError, PermissionError) as error:
        print(f"--gallery: {error}", file=sys.stderr)
        return 2
    except SaveError as error:
        print(error, file=sys.stderr)
        return 1
    missing = [result.study.name for result in report.results if result.missing]
    for result in report.results:
        for text in (result.problem, *result.notes):
            if text:
                print(f"{result.study.name}: {text}", file=sys.stderr)
    if missing:
        print(f"not there yet: python -m studies run {' '.join(missing)}", file=sys.stderr)
    print(report.path)
    if page:
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
