"""The report: one page of HTML with all studies that have results in a folder, and the model to play with.

The page needs nothing but itself: figures, styles and scripts are inside. Only links to the files beside it point out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from textwrap import dedent
from typing import Any

from odeflow.provenance import check_target, package_version, write_bytes
from studies.registry import STUDIES, Claim, Study
from studies.report.results import IMAGES, StudyResult, explanation, kept_parts, read_result, rival_of

__all__ = ["Report", "write_report"]


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
    write_bytes(target, _page(results).encode(errors="replace"))
    return Report(target, results)


# --- the page ---


def _page(results: tuple[StudyResult, ...]) -> str:
    here = resources.files("studies.report")
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
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


def _paragraph(text: str) -> str:
    return f"<pre>{escape(dedent(text))}</pre>" if text.startswith(" ") else f"<p>{escape(' '.join(text.split()))}</p>"


def _figure(study: Study, key: str, path: Path) -> str:
    kind = IMAGES[path.suffix]
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
        rival = f'<br><span class="soft small">{escape(rival_of(claim))}</span>' if claim.rival else ""
        items.append(f"<li>{mark}<span>{text}{rival}</span></li>")
    return f'<ul class="claims">{"".join(items)}</ul>'


def _made_by(attributes: dict[str, str]) -> str:
    """Return the configuration, and then what it was made with."""
    aside = ("table", "claims", "figures", "study", "parts", "configuration")
    shown = {name: value for name, value in attributes.items() if name not in aside}
    try:
        configuration = list(_leaves(json.loads(attributes.get("configuration", "{}"))))
    except (ValueError, RecursionError):
        configuration = [("configuration", "cannot be read")]
    rows = [*configuration, *((name.replace("_", " "), value) for name, value in shown.items())]
    rows += [("kept parts", text) for text in kept_parts(attributes)]
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<details><summary>Configuration</summary><table class="configuration">{body}</table></details>'


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Give the entries of nested dicts as dotted names with their values as text."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, value if isinstance(value, str) else json.dumps(value)
