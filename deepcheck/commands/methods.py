"""``deepcheck methods``."""

from __future__ import annotations

from dataclasses import dataclass, fields

from deepcheck.training.methods import METHODS

__all__ = ["Methods"]


@dataclass(frozen=True)
class Methods:
    """Print all training methods with their settings; `deepcheck train --method NAME --help` explains them."""

    def run(self) -> int:
        """Run the command."""
        for name, kind in METHODS.items():
            print(f"{name:<10} {(kind.__doc__ or '').splitlines()[0]}")
            for item in fields(kind):
                if item.init:
                    print(f"{'':<10}   --{item.name.replace('_', '-')} {item.default}")
        return 0
