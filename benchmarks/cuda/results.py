"""What a card has found, in a file: with the device, the versions, the commit and the time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from odeflow.provenance import provenance, write_bytes

if TYPE_CHECKING:
    from benchmarks.cuda.card import Work

__all__ = ["write"]


def write(work: Work, *, complete: bool) -> None:
    """Write what a card has found so far to NAME.json; a killed run leaves either the old file or the new one."""
    report: dict[str, Any] = {
        "card": work.card.name,
        "complete": complete,
        "quick": work.quick,
        **provenance(f"benchmarks.cuda {work.card.name}"),
        "seconds": round(work.elapsed(), 1),
        "notes": work.notes,
        "found": work.found,
    }
    write_bytes(work.out / f"{work.card.name}.json", json.dumps(report, indent=1).encode())
