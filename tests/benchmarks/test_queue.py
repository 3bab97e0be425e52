"""What the pages and the help say of the cards, and what the card `tests` reads."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cuda import __main__ as command
from benchmarks.cuda import results
from benchmarks.cuda.cards import NAMES, _others, card
from benchmarks.cuda.cards import tests as tests_card

ROOT = Path(__file__).parents[2]


def test_the_help_names_each_card_with_its_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    for name in NAMES:
        one = card(name)
        assert one.what.rstrip(".") in text
        assert f"{one.least:g} to {one.most:g} minutes" in text


def test_the_queue_names_each_card_in_order() -> None:
    """What benchmarks/cuda.md says of a card is what the card says of itself, and where its result stands."""
    page = (ROOT / "benchmarks" / "cuda.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## Card `(\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert tuple(sections) == NAMES
    for name, text in sections.items():
        one = card(name)
        words = " ".join(text.split())
        assert f"{one.what.rstrip('.')}." in words
        assert f"Minutes: {one.least:g} to {one.most:g}." in words
        assert "To be reached: " in words
        recorded = results.read(results.RECORDED, name)
        state = "open" if recorded is None else "whole" if recorded.complete else "in part"
        assert f"Result: {state}{'' if recorded is None else f', docs/cuda/{name}.json'}." in words


def test_the_report_of_the_tests_is_read(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="t.a" name="good[cuda]" time="1.5"/>'
        '<testcase classname="t.a" name="bad"><failure message="m">E   assert 1 == 2</failure></testcase>'
        '<testcase classname="t.b" name="broken" time="2.25"><error>at setup</error></testcase>'
        '<testcase classname="t.b" name="not"><skipped message="no GPU"/></testcase></testsuite></testsuites>'
    )
    found = tests_card.of_report(tmp_path / "tests.xml")
    assert {name: found[name] for name in ("passed", "failed", "skipped")} == {"passed": 1, "failed": 2, "skipped": 1}
    assert found["failures"] == {"t.a::bad": "E   assert 1 == 2", "t.b::broken": "at setup"}
    assert found["reasons_to_skip"] == {"no GPU": 1}
    assert found["test_seconds"] == 3.75
    assert list(found["slowest"].items())[:2] == [("t.b::broken", 2.25), ("t.a::good[cuda]", 1.5)]


def _steps(case: Any) -> Callable[[], object]:
    return lambda: case.steps


def test_a_library_that_cannot_be_imported_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(_: object) -> None:
        raise ModuleNotFoundError("No module named 'git'")

    libraries = {
        "whole": ("json", _steps),
        "broken": ("re", lacks),
        "absent": ("no_such", lacks),
    }
    monkeypatch.setattr(_others, "_LIBRARIES", libraries)
    x, y = torch.zeros(2, 3), torch.zeros(2)
    found, broken = _others.others(torch.nn.Identity(), x, y, epsilon=0.1, step_size=0.1, steps=7)
    assert {name: run() for name, run in found.items()} == {"whole": 7}
    assert broken == ["broken cannot be imported: No module named 'git'"]
