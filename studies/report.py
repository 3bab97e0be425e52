"""The report: one page of HTML with all studies that have results in a folder, and the model to play with.

The page needs nothing but itself: figures, styles and scripts are inside. Only links to the files beside it point out.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib import resources, util
from pathlib import Path
from string import Template
from textwrap import dedent
from typing import Any

from odeflow import load
from odeflow.provenance import check_target, package_version, write_bytes
from studies.registry import STUDIES, Claim, Study

__all__ = ["Report", "StudyResult", "explanation", "read_result", "write_report"]

_IMAGES = {".svg": "image/svg+xml", ".png": "image/png"}
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
    attributes: dict[str, Any] = field(default_factory=dict)
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


@dataclass(frozen=True)
class Report:
    """A report that has been written."""

    path: Path
    results: tuple[StudyResult, ...]
    """One for each study of the registry, in its order."""


def write_report(out: Path) -> Report:
    """Write ``report.html`` into a folder of results, from what is there.

    Parameters
    ----------
    out
        The folder that ``python -m studies run`` wrote to.

    Returns
    -------
    Report

    Raises
    ------
    FileNotFoundError, PermissionError
        If the folder does not exist or cannot be written to.
    SaveError
        If writing fails.
    """
    target = check_target(out / "report.html", (".html",))
    results = tuple(read_result(study, out) for study in STUDIES.values())
    write_bytes(target, _page(results).encode())
    return Report(target, results)


# --- what is there ---


def read_result(study: Study, folder: Path) -> StudyResult:
    """Return what there is of a study in a folder; a file that cannot be used is a `problem`, not an exception."""
    source = folder / f"{study.name}.nc"
    try:
        attributes = load(source).attrs if source.exists() else {}
        if source.exists() and attributes.get("study") != study.name:
            raise ValueError(f"it is no result of the study {study.name}")
        claims = tuple(Claim(**claim) for claim in json.loads(attributes.get("claims", "[]")))
        keys = json.loads(attributes["figures"]) if "figures" in attributes else None
        problem = ""
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        attributes, claims, keys, problem = {}, (), None, f"{source.name} cannot be used: {error}"
    stems = _stems(study, folder) if keys is None else [f"{study.name}{key}" for key in keys]
    files = [path for stem in [study.name, *stems] for path in _files(folder, stem)]
    figures = tuple((stem.removeprefix(study.name).strip("_"), path) for stem in stems for path in _shown(folder, stem))
    lost = [stem for stem in stems if not _shown(folder, stem)]
    notes = tuple(_notes(attributes, lost)) if attributes else ()
    return StudyResult(study, figures, tuple(dict.fromkeys(files)), attributes, claims, problem, notes)


def _stems(study: Study, folder: Path) -> list[str]:
    """Return the names of the figures that lie in the folder, where the data file does not list them."""
    found = {path.stem for suffix in (*_IMAGES, ".pdf") for path in folder.glob(f"{study.name}*{suffix}")}
    longer = tuple(name for name in STUDIES if name.startswith(study.name) and name != study.name)
    own = (stem for stem in found if stem == study.name or stem.startswith(f"{study.name}_"))
    return sorted(stem for stem in own if not any(stem == one or stem.startswith(f"{one}_") for one in longer))


def _files(folder: Path, stem: str) -> list[Path]:
    return [path for suffix in (".nc", ".pdf", ".svg", ".png") if (path := folder / f"{stem}{suffix}").is_file()]


def _shown(folder: Path, stem: str) -> list[Path]:
    """Return the file of a figure that the page shows, or nothing."""
    files = [path for suffix in _IMAGES if (path := folder / f"{stem}{suffix}").is_file()]
    return [path for path in files if path.stat().st_size <= _LARGEST][:1] or files[-1:]


def _notes(attributes: dict[str, Any], lost: list[str]) -> Iterator[str]:
    made_by, here = attributes.get("odeflow_version", "unknown"), package_version()
    if made_by != here:
        yield f"Made by another version of odeflow, {made_by}; this page was made by {here}. Run the study again."
    if attributes.get("quick") == "true":
        yield "A quick run, with fewer points and runs: a first look. Without --quick it is the result."
    if attributes.get("note"):
        yield str(attributes["note"])
    if lost:
        yield f"No figure that can be shown here for {', '.join(lost)}: run the study again."


# --- the page ---


def _page(results: tuple[StudyResult, ...]) -> str:
    here = resources.files("studies")
    return Template((here / "report.html").read_text(encoding="utf-8")).substitute(
        summary=_summary(results),
        todo=_todo(results),
        overview="\n".join(_overview_row(result) for result in results),
        studies="\n".join(_section(result) for result in results),
        explorer=(here / "explorer.js").read_text(encoding="utf-8"),
        version=escape(package_version()),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _summary(results: tuple[StudyResult, ...]) -> str:
    there = [result for result in results if result.attributes]
    claims = [claim.holds for result in there for claim in result.claims]
    held = "" if not claims else f"; {sum(claims)} of {len(claims)} claims hold"
    return f"{len(there)} of {len(results)} studies have results{held}."


def _todo(results: tuple[StudyResult, ...]) -> str:
    """Return the command that makes what is missing, or cannot be used."""
    names = [result.study.name for result in results if not result.attributes]
    if not names:
        return ""
    return f'<p class="note">To be run: <code>python -m studies run {escape(" ".join(names))}</code></p>'


def _overview_row(result: StudyResult) -> str:
    study = result.study
    if result.problem:
        state, made = '<span class="mark fail">cannot be read</span>', ""
    elif result.missing:
        state, made = '<span class="soft">not run</span>', ""
    else:
        state, made = _score(result.claims), escape(str(result.attributes.get("created", ""))[:10])
        made += " (quick)" if result.attributes.get("quick") == "true" else ""
    name = f'<a href="#{study.name}">{study.name}</a>'
    return f"<tr><td>{name}</td><td>{_sentence(study.title)}</td><td>{state}</td><td>{made}</td></tr>"


def _score(claims: tuple[Claim, ...]) -> str:
    failed = sum(not claim.holds for claim in claims)
    if not claims:
        return '<span class="soft">none</span>'
    if failed:
        return f'<span class="mark fail">{failed} of {len(claims)} FAIL</span>'
    return f'<span class="mark pass">{len(claims)} of {len(claims)} pass</span>'


def _section(result: StudyResult) -> str:
    study, attributes = result.study, result.attributes
    parts = [f'<h2>{_sentence(study.title)}</h2><p class="soft small">Study <code>{study.name}</code></p>']
    if result.problem:
        parts.append(f'<p class="note broken">{escape(result.problem)}</p>')
    if result.missing:
        parts.append(f'<p class="note">There is no {study.name}.nc: the study has not been run.</p>')
    parts += [f'<p class="note">{escape(note)}</p>' for note in result.notes]
    parts += map(_paragraph, explanation(study))
    if result.figures:
        parts.append(f'<div class="figures">{"".join(_figure(study, *figure) for figure in result.figures)}</div>')
    if attributes:
        parts.append(f"<h3>Claims</h3>{_claims(result.claims)}")
        table = attributes.get("table")
        absent = '<p class="soft">Not in this file: run the study again.</p>'
        parts.append("<h3>Numbers</h3>" + (f"<pre>{escape(str(table))}</pre>" if table else absent))
    parts.append(f"<h3>Run it</h3><pre>{escape(result.command)}</pre>")
    if attributes:
        parts.append(_made_by(attributes))
    if result.files:
        links = ", ".join(f'<a href="{escape(path.name)}">{escape(path.name)}</a>' for path in result.files)
        parts.append(f'<p class="small">Files: {links}</p>')
    body = "\n".join(parts)
    return f'<section class="study" id="{study.name}">\n{body}\n</section>\n'


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:])


def explanation(study: Study) -> list[str]:
    """Return the paragraphs of what the study's module says of itself after its first line, without importing it.

    Those that are code are indented.
    """
    spec = util.find_spec(study.module)
    if spec is None or spec.origin is None:
        return []
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return [part.removesuffix(":") if part.endswith("::") else part for part in text.split("\n\n")[1:]]


def _paragraph(text: str) -> str:
    return f"<pre>{escape(dedent(text))}</pre>" if text.startswith(" ") else f"<p>{escape(' '.join(text.split()))}</p>"


def _figure(study: Study, key: str, path: Path) -> str:
    kind = _IMAGES[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode()
    name = f"Figure of {study.name}" + (f": {key.replace('_', ' ')}" if key else "")
    caption = f"<figcaption>{escape(key.replace('_', ' '))}</figcaption>" if key else ""
    image = f'<img alt="{escape(name)}" loading="lazy" src="data:{kind};base64,{data}">'
    return f'<figure><button type="button" title="enlarge">{image}</button>{caption}</figure>'


def _claims(claims: tuple[Claim, ...]) -> str:
    if not claims:
        return '<p class="soft">None in this file.</p>'
    items = []
    for claim in claims:
        mark = '<span class="mark pass">pass</span>' if claim.holds else '<span class="mark fail">FAIL</span>'
        text = f'{_sentence(claim.statement)}: <span class="soft">{escape(claim.measured)}</span>'
        items.append(f"<li>{mark}<span>{text}</span></li>")
    return f'<ul class="claims">{"".join(items)}</ul>'


def _made_by(attributes: dict[str, Any]) -> str:
    """Return the configuration, and then what it was made with."""
    shown = {name: value for name, value in attributes.items() if name not in ("table", "claims", "figures", "study")}
    try:
        configuration = json.loads(shown.pop("configuration", "{}"))
    except (ValueError, TypeError):
        configuration = {"configuration": "cannot be read"}
    rows = [*_leaves(configuration), *((name.replace("_", " "), str(value)) for name, value in shown.items())]
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<details><summary>Configuration</summary><table class="configuration">{body}</table></details>'


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Give the entries of nested dicts as dotted names with their values as text."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, value if isinstance(value, str) else json.dumps(value)
