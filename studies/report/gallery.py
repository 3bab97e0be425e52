"""The gallery of the documentation: one page of Markdown, from the same results as the report."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from odeflow.provenance import check_target, write_bytes
from studies.report.results import StudyResult, explanation, rival_of

__all__ = ["write_gallery"]

_HEAD = """# Gallery

Every study with its question, what it found, and the command that runs it again. This page and its figures are written
by `python -m studies report --gallery docs` from the files of results. The claims are checked whenever a study is run:
one that does not hold here is a finding, and is discussed where the study is described.
"""
_COLOURS = 255  # of a figure: a third of the size, and no difference that one can see


def write_gallery(results: Sequence[StudyResult], docs: Path) -> Path:
    """Write ``gallery.md`` into a folder, and the figures into its folder ``gallery``; return the page.

    Parameters
    ----------
    results
        From `read_result`. Studies that have not been run are left out.
    docs
        A folder that exists.

    Raises
    ------
    FileNotFoundError, PermissionError
        If the folder does not exist or cannot be written to.
    SaveError
        If writing fails.
    """
    page = check_target(docs / "gallery.md", (".md",))
    shown = [result for result in results if result.attributes]
    (docs / "gallery").mkdir(exist_ok=True)
    sections = [_section(result, docs / "gallery") for result in shown]
    write_bytes(page, "\n".join([_HEAD, *sections]).encode(errors="replace"))
    return page


def _section(result: StudyResult, folder: Path) -> str:
    study = result.study
    parts = [f"({study.name})=", f"## {_prose(study.title[:1].upper() + study.title[1:])}", ""]
    for text in explanation(study):
        code = text.startswith(" ")
        parts += [_block(dedent(text)) if code else _prose(" ".join(text.split())), ""]
    parts += [f"*{_prose(note)}*\n" for note in result.notes]
    for key, path in result.figures:
        source = path.with_suffix(".png")
        small = _small(source) if source.is_file() and not source.is_symlink() else b""
        if small:
            write_bytes(folder / source.name, small)
            title = f"{study.name}: {key.replace('_', ' ')}" if key else study.name
            parts += [f"![Figure of {title}](gallery/{source.name})", ""]
    marks = {True: "pass", False: "**fail**"}
    for one in result.claims:
        rival = f". *{_prose(rival_of(one))}*" if one.rival else ""
        parts.append(f"- {marks[one.holds]}: {_prose(one.statement)}: {_prose(one.measured)}{rival}")
    parts += ["", _block(result.attributes.get("table", "")), "", f"```sh\n{result.command}\n```", ""]
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Return text in which Markdown sees nothing of its own but `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = (re.sub(r"([\\*_<>$|\[\]])", r"\\\1", part) for part in parts[::2])
    return "".join(parts)


def _block(text: str) -> str:
    """Return text as a block that it cannot end itself."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _small(source: Path) -> bytes:
    """Return a figure with a palette of colours; nothing if it is no image that can be read."""
    from PIL import Image

    content = io.BytesIO()
    try:
        with Image.open(source) as image:
            image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""
    return content.getvalue()
