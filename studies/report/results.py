"""What there is of each study in a folder of results."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

from odeflow import load
from odeflow.provenance import package_version
from studies.registry import STUDIES, Claim, Study

__all__ = ["IMAGES", "StudyResult", "explanation", "kept_parts", "read_result", "rival_of"]

IMAGES = {".svg": "image/svg+xml", ".png": "image/png"}
"""Suffixes of figures that a page can show, the preferred one first, and their media types."""
_LARGEST = 4_000_000  # bytes of a figure; above, the next format is taken if there is one


@dataclass(frozen=True)
class StudyResult:
    """What there is of a study in a folder."""

    study: Study
    figures: tuple[tuple[str, Path], ...]
    """Name (empty if there is one figure) and file of those that can be shown."""
    files: tuple[Path, ...]
    """Data and figures, in every format."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Those of the data file; empty if it cannot be used."""
    claims: tuple[Claim, ...] = ()
    problem: str = ""
    """Why the data file cannot be used; empty if it can, or if there is none."""
    notes: tuple[str, ...] = ()
    """What a reader should know about the result before believing it."""

    @property
    def missing(self) -> bool:
        """Whether the study has not been run."""
        return not self.attributes and not self.problem

    @property
    def command(self) -> str:
        """The command that makes the result."""
        quick = " --quick" if self.attributes.get("quick") == "true" else ""
        return f"python -m studies run {self.study.name}{quick}"


def read_result(study: Study, folder: Path) -> StudyResult:
    """Return what there is of a study in a folder; a file that cannot be used is a `problem`, not an exception.

    A file of results may come from anywhere: its attributes are checked here, become plain text, and name no file outside
    the folder.
    """
    source = folder / f"{study.name}.nc"
    attributes, claims, keys, problem = dict[str, str](), tuple[Claim, ...](), None, ""
    try:
        if source.exists():
            attributes = _attributes(source)
            if attributes.get("study") != study.name:
                raise ValueError(f"it is no result of the study {study.name}")
            claims = tuple(_claim(one) for one in _list_in(attributes, "claims") or [])
            keys = _list_in(attributes, "figures")
            for key in keys or []:
                if not isinstance(key, str) or not _KEY.fullmatch(key):
                    raise ValueError(f"figures has {key!r}: allowed are names such as '_errors'")
    except (ValueError, RecursionError, OSError) as error:
        text = _text(str(error)) or type(error).__name__
        attributes, claims, keys, problem = {}, (), None, f"{source.name} cannot be used: {text}"
    stems = _stems(study, folder) if keys is None else [f"{study.name}{key}" for key in keys]
    files = [path for stem in [study.name, *stems] for path in _files(folder, stem)]
    figures = tuple((stem.removeprefix(study.name).strip("_"), path) for stem in stems for path in _shown(folder, stem))
    lost = [stem for stem in stems if not _shown(folder, stem)]
    notes = tuple(_notes(attributes, lost)) if attributes else ()
    return StudyResult(study, figures, tuple(dict.fromkeys(files)), attributes, claims, problem, notes)


_KEY = re.compile(r"|_[\w.-]{1,100}", re.ASCII)
"""What a file's name may add to that of the study: no separator of folders."""


def _attributes(source: Path) -> dict[str, str]:
    """Return the attributes of a data file as text."""
    if not source.is_file():  # a folder, or a pipe, which would be waited for
        raise ValueError("it is no regular file")
    return {_text(str(name)): _text(str(value)) for name, value in load(source).attrs.items()}


def _text(text: str) -> str:
    """Return text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _list_in(attributes: dict[str, str], name: str) -> list[Any] | None:
    """Return the list that an attribute holds as JSON; None if it is not there."""
    if name not in attributes:
        return None
    found = json.loads(attributes[name])
    if isinstance(found, list):
        return found
    raise ValueError(f"{name} is no list")


def _claim(fields: Any) -> Claim:
    try:
        claim = Claim(**fields)
    except TypeError as error:
        raise ValueError(f"claims has no claim: {error}") from None
    texts = claim.statement, claim.measured, claim.rival, claim.rival_measured, claim.not_computed
    if all(isinstance(text, str) for text in texts) and isinstance(claim.holds, bool):
        statement, measured, *others = map(_text, texts)
        return Claim(statement, measured, claim.holds, *others)
    raise ValueError("claims has a field of another type")


def _stems(study: Study, folder: Path) -> list[str]:
    """Return the names of the figures that lie in the folder, where the data file does not list them."""
    found = {path.stem for suffix in (*IMAGES, ".pdf") for path in folder.glob(f"{study.name}*{suffix}")}
    longer = tuple(name for name in STUDIES if name.startswith(study.name) and name != study.name)
    longer += tuple(path.stem for path in folder.glob(f"{study.name}_*.nc"))  # of other images
    own = (stem for stem in found if stem == study.name or stem.startswith(f"{study.name}_"))
    return sorted(stem for stem in own if not any(stem == one or stem.startswith(f"{one}_") for one in longer))


def _files(folder: Path, stem: str) -> list[Path]:
    return [path for suffix in (".nc", ".pdf", ".svg", ".png") if _is_inside(path := folder / f"{stem}{suffix}")]


def _is_inside(path: Path) -> bool:
    """Return whether it is a file of its folder, and no link that leads out of it."""
    return path.is_file() and path.resolve().parent == path.parent.resolve()


def _shown(folder: Path, stem: str) -> list[Path]:
    """Return the file of a figure that the page shows, or nothing."""
    files = [path for suffix in IMAGES if _is_inside(path := folder / f"{stem}{suffix}")]
    return [path for path in files if path.stat().st_size <= _LARGEST][:1] or files[-1:]


def _notes(attributes: dict[str, str], lost: list[str]) -> Iterator[str]:
    made_by, here = attributes.get("odeflow_version", "unknown"), package_version()
    if made_by != here:
        yield f"Made by another version of odeflow, {made_by}; this page was made by {here}. Run the study again."
    if attributes.get("quick") == "true":
        yield "A quick run, with fewer points and runs: a first look. Without --quick it is the result."
    if attributes.get("note"):
        yield attributes["note"]
    if lost:
        yield f"No figure that can be shown here for {', '.join(lost)}: run the study again."


def kept_parts(attributes: dict[str, str]) -> list[str]:
    """Return of which commit and code the kept parts of a result are, a text for each pair of these."""
    try:
        parts = json.loads(attributes.get("parts", "[]"))
        made = Counter((_text(str(part["git_commit"])), _text(str(part["code"]))) for part in parts)
    except (ValueError, TypeError, KeyError, RecursionError):
        return ["cannot be read"]
    return [f"{count} of commit {commit[:12]}, code {code[:8]}" for (commit, code), count in made.items()]


def rival_of(claim: Claim) -> str:
    """Return what would fail a claim, and what the same test finds of it."""
    if claim.rival_measured:
        return f"What fails it: {claim.rival}: {claim.rival_measured}."
    return f"What would fail it: {claim.rival}" + (
        f" (not computed: {claim.not_computed})." if claim.not_computed else "."
    )


def explanation(study: Study) -> list[str]:
    """Return the paragraphs of what the study's module says of itself after its first line, without importing it.

    Those that are code are indented.
    """
    spec = util.find_spec(study.module)
    if spec is None or spec.origin is None:
        return []
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return [part.removesuffix(":") if part.endswith("::") else part for part in text.split("\n\n")[1:]]
