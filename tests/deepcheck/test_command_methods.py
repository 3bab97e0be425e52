"""``deepcheck methods`` prints what is registered."""

import pytest

from deepcheck.cli import main
from deepcheck.training import METHODS


def test_every_method_is_listed_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(METHODS)
    flags = [line.split()[0] for line in lines if line.startswith(" ")]
    assert flags == [f"--{name.replace('_', '-')}" for kind in METHODS.values() for name in kind.settings()]
