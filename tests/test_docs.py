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
    "name",
    [
        "tutorial",
        "two_layers",
        "solver",
        "results",
        "sweeps",
        "rules",
        "phases",
        "erm",
        "data",
        "deep",
        "attacks",
        "attributions",
        "corruptions",
        "defences",
        "methods",
        "separation",
        "warnings",
        "match",
    ],
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


def test_every_attack_has_a_row_with_its_norms_and_what_it_needs() -> None:
    registry = pytest.importorskip("deepcheck.attacks.registry", reason="the attacks need torch")
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \| (.*?) \|", (DOCS / "attacks.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    found = {name: (norms, needs) for names, norms, needs in rows for name in re.findall("`(.*?)`", names)}
    assert set(registry.ATTACKS) <= set(found)
    spelt = {"linf": "L-infinity", "l2": "L2", "l1": "L1", "l0": "L0"}
    for name in registry.ATTACKS:
        norms, needs = found[name]
        known = [spelt[norm] for norm in registry.norms_of(name) if norm in spelt]
        if known:
            assert set(known) == (set(spelt.values()) if norms == "all" else set(norms.split(", "))), name
        assert re.search("gradient|scores|labels|nothing", needs), name
