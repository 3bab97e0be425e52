"""``deepcheck methods``."""

from __future__ import annotations

from dataclasses import dataclass

from deepcheck.training.methods import METHODS

__all__ = ["Methods"]


@dataclass(frozen=True)
class Methods:
    """Print all training methods, a line each with its source; `deepcheck train mnist NAME --help` has the settings."""

    def run(self) -> int:
        """Run the command."""
        longest = max(map(len, METHODS))
        for name, kind in METHODS.items():
            print(f"{name:<{longest}}  {(kind.__doc__ or '').splitlines()[0]}")
        return 0
