"""Cards one after the other, as the time allows: what is recorded is left out, and what fails does not stop the others."""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.cuda import origin, results
from benchmarks.cuda.card import KEPT, Card, Work
from benchmarks.timing import table
from deepcheck.data import DataError, load

__all__ = ["Outcome", "headline", "run_cards", "summary"]


@dataclass(frozen=True)
class Outcome:
    """What became of a card."""

    card: Card
    state: str
    """One of "done", "partly done", "recorded", "no time", "no data", "failed" and "stopped"."""
    detail: str = ""
    """Why, or which result it is."""
    seconds: float = 0.0
    found: dict[str, Any] | None = None

    @property
    def bad(self) -> bool:
        """Whether something must be put right before the card can be run."""
        return self.state in ("failed", "no data", "stopped")


def run_cards(
    cards: Sequence[Card],
    out: Path,
    *,
    seconds: float,
    device: torch.device,
    quick: bool = False,
    again: bool = False,
    recorded: Path = results.RECORDED,
    earlier: Path | None = None,
) -> list[Outcome]:
    """Run cards in order, and return what became of each.

    Parameters
    ----------
    cards
        Those that come first are run first.
    out
        Folder of results, which is there. Quick ones are in its folder ``quick``.
    seconds
        Time for all of them, from now on. A card that needs more than is left is not begun. The quick form takes what
        it takes.
    device
        Where they run.
    quick
        The smallest form that runs all of each card.
    again
        Run what is recorded too.
    recorded
        Folder of results that are committed.
    earlier
        Folder of results of an earlier call, such as one that ended in the middle of a card.

    Raises
    ------
    ValueError
        If a file in one of the folders is not the result that its name says.
    """
    end = time.perf_counter() + seconds
    if quick:
        out = out / "quick"
        out.mkdir(exist_ok=True)
        for card in cards:  # nothing is resumed
            results.forget(out, card.name)
            results.forget(out / "work", card.name)
    else:
        results.spread(out)
    folders = [] if quick else [folder for folder in (out, earlier, recorded) if folder is not None]
    found = {card.name: [one for folder in folders if (one := results.read(folder, card.name))] for card in cards}
    outcomes = []
    for card in cards:
        whole = next((one for one in found[card.name] if one.complete), None)
        left = end - time.perf_counter()
        if whole is not None and not again:
            outcome = Outcome(card, "recorded", said_of(whole), found=whole.content["found"])
        elif not quick and left < 60 * card.least:
            outcome = Outcome(card, "no time", f"needs {card.least:g} min, {max(left, 0) / 60:.1f} are left")
        elif not quick and (lacking := _lacking(card)):
            outcome = Outcome(card, "no data", lacking)
        else:
            parts = [one for one in found[card.name] if not one.content["quick"] and not one.complete]
            newest = max(parts, key=lambda one: str(one.content["created"]), default=None)
            if again and newest is None and not quick:
                shutil.rmtree(KEPT / card.name, ignore_errors=True)  # from the beginning
            work = _work(card, device, 60 * card.most if quick else min(left, 60 * card.most), out, quick, newest)
            outcome = _run(work)
        print(f"{card.name}: {outcome.state}{outcome.detail and ': '}{outcome.detail}", file=sys.stderr, flush=True)
        outcomes.append(outcome)
        if outcome.state == "stopped":
            break
    return outcomes


def said_of(result: results.Result) -> str:
    """Return which result it is that is there."""
    behind = origin.behind(str(result.content.get("git_commit")))
    return ", ".join(filter(None, [result.path.as_posix(), behind]))


def _lacking(card: Card) -> str:
    """Return what to do for the data that a card needs, in one line; empty where they are there."""
    for name in card.data:
        try:
            load(name, download=False)
        except (DataError, ImportError) as error:
            return f"{' '.join(str(error).split())}; or unpack a bundle, see docs/cuda.md, and set DEEPCHECK_DATA=data"
    return ""


def _work(
    card: Card, device: torch.device, seconds: float, out: Path, quick: bool, newest: results.Result | None
) -> Work:
    """Return what a card is given, with what an earlier run of it has left: what it found, and its files."""
    if newest is None:
        return Work(card, device, seconds, out, quick=quick)
    folder = newest.path.parent
    if folder != out:
        for path in folder.glob(f"{card.name}*"):
            if path.is_dir():
                shutil.copytree(path, out / path.name, dirs_exist_ok=True)
            else:
                shutil.copy2(path, out)
    work = Work(card, device, seconds, out, earlier=newest.content["found"], before=newest.before)
    if behind := origin.behind(str(newest.content.get("git_commit"))):
        work.note(f"goes on with a result {behind}")
    return work


def _run(work: Work) -> Outcome:
    """Run a card, and record its failure where it fails."""
    card, start = work.card, time.perf_counter()
    try:
        card.run(work)
    except KeyboardInterrupt:
        return Outcome(card, "stopped", "what was found is kept", time.perf_counter() - start, work.found)
    except Exception as error:  # noqa: BLE001 -- the next card goes on
        work.complete = False
        results.write(work, error, traceback.format_exc())
        state = "no data" if isinstance(error, DataError) else "failed"
        return Outcome(card, state, results.one_line(error), time.perf_counter() - start, work.found)
    finally:
        _close_figures()
        if work.device.type == "cuda":
            torch.cuda.empty_cache()
    state = "done" if work.complete else "partly done"
    return Outcome(card, state, "; ".join(work.notes), time.perf_counter() - start, work.found)


def _close_figures() -> None:
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def headline(found: dict[str, Any] | None) -> str:
    """Return the numbers for the table: those that the card calls its headline, else the first that it has found."""
    chosen = (found or {}).get("headline", found or {})
    numbers = {name: value for name, value in chosen.items() if isinstance(value, int | float | str)}
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in list(numbers.items())[:5]
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return a table of what became of each card."""
    rows = [
        [
            one.card.name,
            one.state,
            f"{one.seconds / 60:.1f}" if one.seconds else "",
            headline(one.found),
            one.detail if len(one.detail) <= 120 else one.detail[:117] + "...",
        ]
        for one in outcomes
    ]
    return table(["card", "state", "minutes", "numbers", "remarks"], rows)
