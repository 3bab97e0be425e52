"""What the README shows runs, and its commands exist."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_examples_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    exec("\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)), {})  # noqa: S102 -- the README is ours
    printed = capsys.readouterr().out
    assert "theory      R = 0.7775, b = -2.1897, E = 0.2774, S = 0.3148" in printed
    assert "best at 0.5" in printed


def test_the_commands_it_names_are_targets_of_make() -> None:
    targets = re.findall(r"^([a-z]+):", (Path(__file__).parent.parent / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"make ([a-z]+)\b", README)
    assert "test" in named
    assert set(named) <= set(targets)
