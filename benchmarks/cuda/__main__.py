"""Command line of the cards: ``python -m benchmarks.cuda --minutes 9 --out DIR``."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType

STARTED = time.perf_counter()

# isort: split

import torch

from benchmarks.cuda import results
from benchmarks.cuda.card import Card
from benchmarks.cuda.cards import NAMES, card
from benchmarks.cuda.runner import Outcome, run_cards, summary
from deepcheck.device import choose
from odeflow.cli.program import run
from odeflow.provenance import package_version

__all__ = ["main"]


def main(arguments: list[str] | None = None, recorded: Path = results.RECORDED) -> int:
    """Run the command and return its exit status: 0 done, 1 a card failed or was stopped, 2 bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return run("benchmarks.cuda", lambda: _work(given, recorded))
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _work(given: list[str], recorded: Path) -> int:
    cards = [card(name) for name in NAMES]  # one that cannot be imported is not passed over
    options = _parser(cards).parse_args(given)
    names = options.cards or list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"cards = {unknown[0]!r} is no card: allowed are {', '.join(NAMES)}")
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise ValueError(f"minutes = {options.minutes!r} is not allowed: allowed is a number > 0")
    device = _device(options.device)
    for name, folder in (("out", options.out), ("earlier", options.earlier)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise ValueError(f"{name} = {str(folder)!r} is a file: allowed is a folder")
    if options.earlier is not None and not options.earlier.is_dir():
        raise ValueError(f"earlier = {str(options.earlier)!r} is not there: allowed is a folder of results")
    try:
        (options.out / "quick" if options.quick else options.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out = {str(options.out)!r} cannot be made ({error.strerror}): allowed is a folder that can be written to"
        ) from None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    outcomes: list[Outcome] = run_cards(
        [one for one in cards if one.name in names],
        options.out,
        seconds=60 * options.minutes - (time.perf_counter() - STARTED if arguments_are_ours(given) else 0),
        device=device,
        quick=options.quick,
        again=options.again,
        recorded=recorded,
        earlier=options.earlier,
    )
    results.gather(options.out)
    print(summary(outcomes), flush=True)
    results.check_size(options.out)
    return 1 if any(one.bad for one in outcomes) else 0


def arguments_are_ours(given: list[str]) -> bool:
    """Return whether the process was started for this command: then what it took to begin counts."""
    return given == sys.argv[1:]


def _device(name: str) -> torch.device:
    if name == "auto" and not torch.cuda.is_available():
        raise ValueError(
            f"no CUDA device is available to torch {torch.__version__}: the cards need one; --device cpu --quick runs "
            "each of them in its smallest form"
        )
    return choose(name)


def _parser(cards: list[Card]) -> argparse.ArgumentParser:
    width = max(len(one.name) for one in cards)
    listed = "\n".join(
        f"  {one.name:{width}}  {one.what.rstrip('.')}.\n  {'':{width}}  {one.least:g} to {one.most:g} minutes"
        f"{'; needs ' + ', '.join(one.data) if one.data else ''}; {_state(one)}."
        for one in cards
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda",
        description="Run what needs a GPU: cards of minutes, in order of priority, as many as fit into the time. Each "
        "leaves NAME.json, and figures, in a folder; what is recorded in docs/cuda is not run again.",
        epilog=f"cards, in order of priority:\n{listed}\n\nexamples:\n  python -m benchmarks.cuda --minutes 9 --out "
        "results/cuda\n  python -m benchmarks.cuda --cards speed --again --out results/cuda\n"
        "  python -m benchmarks.cuda --device cpu --quick --out /tmp/cards\n\nHow to run them on a machine that has "
        "nothing but torch: docs/cuda.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all, imports included (default: 9)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/cuda"), help="folder of results (default: results/cuda)"
    )
    parser.add_argument("--cards", nargs="+", metavar="NAME", help="these alone, in the order of their priority")
    parser.add_argument("--device", default="auto", help="auto (default: CUDA, or an error), cuda, cuda:N or cpu")
    parser.add_argument(
        "--quick", action="store_true", help="each card in its smallest form, into OUT/quick: the numbers mean nothing"
    )
    parser.add_argument("--again", action="store_true", help="run what is recorded too")
    parser.add_argument(
        "--earlier", type=Path, metavar="DIR", help="results of an earlier call, to go on with those not complete"
    )
    parser.add_argument("--version", action="version", version=f"benchmarks.cuda {package_version()}")
    return parser


def _state(one: Card) -> str:
    found = results.read(results.RECORDED, one.name)
    if found is None:
        return "open"
    return "recorded" if found.complete else "recorded in part"


if __name__ == "__main__":
    sys.exit(main())
