"""``deepcheck methods`` prints what is registered."""

import re

import pytest

from deepcheck.cli import main
from deepcheck.training import METHODS


def test_every_method_is_listed_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(METHODS)
    for line in lines[1:]:  # but for standard training
        assert re.search(r"\b(19|20)\d\d\b", line), line
