"""Which source files a result depends on, and a digest of what they say.

A part that a study keeps between runs is only as good as the code that made it. Its code is the module of the function
that made it, and what that module imports of this project, directly and through others, wherever the import stands, but for those
that are there for types alone. A name that a package passes on from one of its modules counts as that module alone: `from odeflow import Adversary` is
`odeflow.model`, and not the whole of odeflow. A text that is the name of a module, as lazy tables have them, counts as
an import.

The digest is of the code without comments, docstrings and layout. What only puts names on numbers, draws or keeps
them is left out (`ASIDE`), and so are Python and the libraries: their versions are in every result.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

__all__ = ["ASIDE", "digest", "sources"]

ROOT = Path(__file__).parents[2]
"""The folder that holds the three packages."""
PACKAGES = ("odeflow", "deepcheck", "studies")
ASIDE = frozenset(
    {
        "odeflow._moved",
        "odeflow.parameters",
        "odeflow.plot",
        "odeflow.provenance",
        "odeflow.provenance.attributes",
        "odeflow.provenance.files",
        "odeflow.provenance.results",
        "deepcheck.plot",
        "studies.common.kept",
        "studies.common.sources",
    }
)
"""Modules that do not change a number."""


def digest(*modules: str, root: Path = ROOT, apart: tuple[str, ...] = ()) -> str:
    """Return a digest of modules and of what they import of this project: 64 hexadecimal digits.

    It is computed once in a process: files that are edited later are not those that run.

    Parameters
    ----------
    *modules
        Full names, such as ``studies.collapse.measure``.
    root
        The folder that holds the packages.
    apart
        Modules that are left out, with what they alone import: a list of many things by name, of which one is used whose
        module is given.
    """
    return _digest(modules, root, apart)


@cache
def _digest(modules: tuple[str, ...], root: Path, apart: tuple[str, ...]) -> str:
    result = hashlib.sha256()
    for name in sorted(sources(*modules, root=root, apart=apart)):
        result.update(f"{name}\n{_code(name, root)}\n".encode())
    return result.hexdigest()


def sources(*modules: str, root: Path = ROOT, apart: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return the files of modules and of what they import of this project, by the names of the modules.

    Raises
    ------
    ValueError
        If there is no such module.
    """
    for module in (*modules, *apart):
        if _file(module, root) is None:
            raise ValueError(f"module = {module!r}: there is no such module in {str(root)!r}")
    found: dict[str, Path] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        file = _file(name, root)
        if file is not None and name not in found and name not in ASIDE and name not in apart:
            found[name] = file
            todo += _imports(name, root)
    return found


@cache
def _imports(module: str, root: Path) -> list[str]:
    """Return the modules of this project that a module imports, or names in a text."""
    found: list[str] = []
    for node in _running(_tree(module, root)):
        if isinstance(node, ast.Import):
            found += [_there(alias.name, root) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _there(_base(node, module, root), root)
            for alias in node.names:
                found += _defining(base, alias.name, root)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]  # of "package.module:name", too
            found += [name] if "." in name else []
    return [name for name in dict.fromkeys(found) if _file(name, root) is not None]


def _there(module: str, root: Path) -> str:
    """Return the name of a module that is imported; if that is one of this project without a file, its new name."""
    if module.partition(".")[0] not in PACKAGES or _file(module, root) is not None:
        return module
    if root != ROOT:
        raise ValueError(f"module = {module!r} is imported, and is not in {str(root)!r}")
    return import_module(module).__name__  # a path of earlier versions, which the package still knows


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Give a node and all below it, but for what is there for types alone."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _running(child)


def _base(node: ast.ImportFrom, module: str, root: Path) -> str:
    """Return the full name of the module that `from ... import` names."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    up = node.level - _is_package(module, root)
    return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


def _defining(base: str, name: str, root: Path, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Give the module that `from base import name` is about: a module of that name, or the one that base has it from."""
    if _file(f"{base}.{name}", root) is not None:
        yield f"{base}.{name}"
        return
    if _is_package(base, root) and base not in seen:
        for node in ast.walk(_tree(base, root)):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        yield from _defining(_there(_base(node, base, root), root), alias.name, root, seen | {base})
                        return
    yield base


@cache
def _file(module: str, root: Path) -> Path | None:
    """Return the file of a module, or None if it is none of this project."""
    parts = module.split(".")
    if parts[0] not in PACKAGES or not all(part.isidentifier() for part in parts):
        return None
    path = root.joinpath(*parts)
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def _is_package(module: str, root: Path) -> bool:
    file = _file(module, root)
    return file is not None and file.name == "__init__.py"


@cache
def _tree(module: str, root: Path) -> ast.Module:
    file = _file(module, root)
    assert file is not None
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _code(module: str, root: Path) -> str:
    """Return the code of a module without comments, docstrings and layout."""
    file = _file(module, root)
    assert file is not None
    tree = ast.parse(file.read_text(encoding="utf-8"))  # its own, as it is changed
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # texts that stand alone: docstrings, of variables too
            node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
