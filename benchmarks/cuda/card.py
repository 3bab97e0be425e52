"""What a card is, and what it is given: a device, a share of the time, and a place for what it finds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from benchmarks.cuda import results
from deepcheck.data import Images, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KEPT", "Card", "Work"]

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

KEPT = Path(__file__).parents[2] / ".cuda-work"
"""Where cards keep what is only needed to go on: it need not come back from the machine, and stays between calls."""


@dataclass(frozen=True)
class Card:
    """A run that needs a GPU, and what it costs."""

    name: str
    what: str
    """One line: what it shows."""
    run: Callable[[Work], None]
    """Does it, and saves what it finds in `Work`, part by part."""
    least: float
    """Minutes below which it is not begun, > 0."""
    most: float
    """Minutes that it makes use of, >= `least`."""
    data: tuple[str, ...] = ()
    """Data sets that it needs, of `deepcheck.data.load`."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of its random numbers."""

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most:
            raise ValueError(f"least = {self.least!r}, most = {self.most!r}: allowed are minutes, 0 < least <= most")


class Work:
    """What a card is given.

    Parameters
    ----------
    card
        The card.
    device
        Where it runs.
    seconds
        Time that it may take from now on, > 0.
    out
        Folder of results.
    quick
        The smallest form that runs all of the card: a few images, a step or two. Its numbers mean nothing.
    earlier
        What an earlier run of the card has found, where that was not all.
    before
        What made it: commit, device and time of each of the earlier runs.
    """

    def __init__(
        self,
        card: Card,
        device: torch.device,
        seconds: float,
        out: Path,
        *,
        quick: bool = False,
        earlier: dict[str, Any] | None = None,
        before: tuple[dict[str, Any], ...] = (),
    ) -> None:
        self.card, self.device, self.out, self.quick = card, device, out, quick
        self.found: dict[str, Any] = dict(earlier or {})
        """What has been found so far; JSON holds it."""
        self.notes: list[str] = []
        """What a reader must know: batches that were halved, parts that were left out."""
        self.before = before
        self.complete = False
        """Whether it has found all."""
        self._start = time.perf_counter()
        self._seconds = seconds

    @property
    def folder(self) -> Path:
        """A folder of the card's own for what need not come back, such as checkpoints; what is there may be resumed.

        It is `KEPT` / NAME, outside the folder of results; in the quick form it is inside, so that nothing is resumed.
        """
        folder = (self.out / "work" if self.quick else KEPT) / self.card.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def elapsed(self) -> float:
        """Return the seconds since the card was begun."""
        return time.perf_counter() - self._start

    def left(self) -> float:
        """Return the seconds that the card may still take."""
        return self._seconds - self.elapsed()

    def fits(self, cost: float, *, least: int, most: int, share: float = 1.0) -> int:
        """Return how many units, of `cost` seconds each, fit into a share of the time left: from `least` to `most`."""
        units = int(share * max(self.left(), 0.0) / max(cost, 1e-9))
        return max(least, min(most, units))

    def save(self, *, complete: bool = False, **found: Any) -> None:
        """Add to what has been found, and write it at once: a run that is stopped leaves what it had.

        ``headline={"robust accuracy": 0.51}`` are the numbers for the table at the end of a run.
        """
        self.found |= found
        self.complete = complete
        results.write(self)

    def note(self, text: str) -> None:
        """Say what a reader must know beside the numbers."""
        _LOG.info("%s: %s", self.card.name, text)
        self.notes.append(text)

    def picture(self, figure: Figure, suffix: str = "") -> None:
        """Keep a figure as a small PNG."""
        figure.savefig(self.out / f"{self.card.name}{suffix}.png", dpi=110)

    def halving(self, batch_size: int, work: Callable[[int], T]) -> T:
        """Return what is made with a batch size, or with half of it where the memory does not suffice, and so on."""
        while True:
            try:
                return work(batch_size)
            except (torch.OutOfMemoryError, MemoryError):
                if batch_size < 2:
                    raise
            # after the except: the exception holds on to what did not fit
            batch_size //= 2
            torch.cuda.empty_cache()
            self.note(f"out of memory: batches of {batch_size}")

    def images(self, name: str) -> Images:
        """Return a data set that is on this machine; in the quick form the digits stand in for it."""
        return load("digits" if self.quick else name, download=False)
