"""The documentation's examples run, and print what the pages say they print."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"

# A `text` block that follows a `python` block is what that block prints, to the letter.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "name", ["tutorial", "two_layers", "solver", "results", "sweeps", "phases", "data", "deep", "match"]
)
def test_a_page_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = DOCS / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "__main__"}
    blocks = list(BLOCK.finditer(text))
    assert blocks
    for block in blocks:
        line = text.count("\n", 0, block.start(1)) + 1
        code = compile("\n" * (line - 1) + block[1], str(page), "exec")  # tracebacks name the page's lines
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code, names)  # noqa: S102 -- the pages are ours
        assert printed.getvalue() == (block[2] or ""), f"{page}:{line}"
