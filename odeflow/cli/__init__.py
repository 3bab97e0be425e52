"""Command line ``odeflow``."""

from odeflow.cli.commands import main

__all__ = ["main"]
