"""Command ``odeflow plot``, and the flags about figures and tables that other commands share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from odeflow.provenance import check_target, load, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from odeflow.plot import Width

__all__ = ["Plot", "Presented"]

TABLES = (".tex",)


@dataclass(frozen=True)
class _Looks:
    """What a figure looks like."""

    width: str | None = None
    """Width of the figure: single (3.4 inches, one column of a journal), double (7.0), or a number of inches; default:
    single for one panel, double for more."""
    title: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the parameters above the panels."""
    dpi: float | None = None
    """Dots an inch of a .png, 10 to 2400; default: 300."""
    table: Path | None = None
    """Save parameters and results as a table in LaTeX to this file (.tex)."""

    def check_looks(self) -> None:
        """Raise before any work if a figure or a table could not be made so."""
        from odeflow.parameters import checked_number

        self.inches()
        if self.dpi is not None:
            checked_number("dpi", self.dpi, least=10, most=2400)
        if self.table is not None:
            check_target(self.table, TABLES)

    def inches(self) -> Width:
        """Return the width, as `odeflow.plot.plot` takes it."""
        from odeflow.plot import WIDTHS, width_of

        if self.width is None or self.width in WIDTHS:
            return None if self.width is None else WIDTHS[self.width]
        try:
            inches = float(self.width)
        except ValueError:
            return width_of(self.width)  # type: ignore[arg-type]  # raises
        return width_of(inches)

    def draw(self, target: Path, *results: xr.Dataset) -> Path:
        """Draw results into a file."""
        from odeflow.plot import plot, save_figure

        return save_figure(plot(*results, width=self.inches(), title=self.title), target, dpi=self.dpi)

    def tabulate(self, result: xr.Dataset) -> list[Path]:
        """Write the table, if there shall be one."""
        if self.table is None:
            return []
        from odeflow.plot.tables import latex

        write_bytes(self.table, latex(result).encode())
        return [self.table]


@dataclass(frozen=True)
class Presented(_Looks):
    """What a command does with its result beside saving it."""

    plot: Path | None = None
    """Save a figure of the result to this file (.pdf, .png or .svg)."""

    def check_presentation(self) -> None:
        """Raise before any work if a figure or a table could not be saved."""
        self.check_looks()
        if self.plot is not None:
            from odeflow.plot import FORMATS

            check_target(self.plot, FORMATS)

    def present(self, result: xr.Dataset) -> list[Path]:
        """Save the figure and the table that were asked for, and return their files."""
        files = [] if self.plot is None else [self.draw(self.plot, result)]
        return files + self.tabulate(result)


@dataclass(frozen=True)
class _Drawn:
    """What is drawn; a base, for what has no default comes first."""

    file: tyro.conf.Positional[Path]
    """A result (.nc or .zarr)."""


@dataclass(frozen=True)
class Plot(_Looks, _Drawn):
    """Draw the natural picture of a saved result, or of several over each other, such as theory and simulation."""

    more: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Results that are drawn over it: a simulation over the theory, fixed points, a phase boundary on a map."""
    save: Path | None = None
    """Figure file (.pdf, .png or .svg); default: the result's name with .pdf."""

    def run(self) -> None:
        """Run the command."""
        from odeflow.plot import FORMATS

        self.check_looks()
        results = [load(file) for file in (self.file, *self.more)]
        target = check_target(self.save or self.file.with_suffix(".pdf"), FORMATS)
        with _naming(self.file, *self.more):
            print(self.draw(target, *results), *self.tabulate(results[0]), sep="\n")


@contextmanager
def _naming(*files: Path) -> Iterator[None]:
    """Put the names of files before what is wrong with them."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{', '.join(map(str, files))}: {error}") from error
