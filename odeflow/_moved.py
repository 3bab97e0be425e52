"""Modules that had another path: scripts that import them by it go on working."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["MOVED", "find_moved"]

MOVED = {
    "averages": "order_parameters.perceptron.averages",
    "chunks": "sweeps.computations",
    "command_line": "cli.parsing",
    "compilation": "numerics.compilation",
    "continuation": "fixed_points.continuation",
    "dop853": "numerics.dop853",
    "dynamics": "order_parameters.perceptron.seed",
    "elementary": "numerics.elementary",
    "equilibria": "fixed_points.equilibria",
    "equilibria_kernel": "fixed_points.kernel",
    "executors": "sweeps.executors",
    "forces": "order_parameters.perceptron.forces",
    "grid": "sweeps.grid",
    "labels": "parameters",
    "monte_carlo": "order_parameters.perceptron.monte_carlo",
    "phases": "fixed_points.phases",
    "random_streams": "numerics.random_streams",
    "relaxation": "fixed_points.relaxation",
    "runge_kutta": "numerics.runge_kutta",
    "store": "sweeps.store",
    "sweep_checks": "sweeps.checks",
    "threads": "numerics.threads",
    "variant_averages": "order_parameters.perceptron.variant_averages",
    "variant_dynamics": "order_parameters.perceptron.variants",
}
"""Old name to new one, both within odeflow."""


class _Finder(MetaPathFinder, Loader):
    """Finds a module by its old name. It is the same module object, so that nothing exists twice."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "odeflow" and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module("odeflow." + MOVED[spec.name.partition(".")[2]])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own specification back, which the import has replaced."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state


def find_moved() -> None:
    """Let the old names be found, after every other way to find a module."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
