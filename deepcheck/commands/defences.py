"""``deepcheck defences``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Defences"]


@dataclass(frozen=True)
class Defences:
    """Print all defences at test time, a line each: random or not, with a gradient or without, and what it is.

    `deepcheck attack RUN --defence NAME` attacks a net behind one.
    """

    def run(self) -> int:
        """Run the command."""
        from deepcheck.defences import registry

        print(registry.listed())
        return 0
