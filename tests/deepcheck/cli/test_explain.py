"""``deepcheck explain``: what it prints are the means of what it saves."""

from pathlib import Path

import pytest

from deepcheck.attributions import attribution_summary
from odeflow import load
from tests.deepcheck.cli.commands import files, status_of

FEW = "--device cpu --examples 20 --steps 3 --k 12"


def test_explain(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"explain {net} {FEW} --path 4 --out a.nc --pictures a.png --seed 3") == 0
    records = load("a.nc")
    found = attribution_summary(records)
    right = int((records.clean_prediction == records.label).sum())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"integrated_gradients of {right} right of the first 20 test images of digits, epsilon = 0.2"
    assert lines[1].split() == ["top", "12", "shared", "Kendall", "Spearman", "prediction", "kept"]
    for line, change in zip(lines[2:4], ("noise", "attack"), strict=True):
        one = found.sel(change=change)
        words = line.split()
        assert words[0] == change
        assert words[1] == f"{float(one.top_pixels_shared):.4f}"
        assert words[3] == f"{float(one.top_pixels_shared_standard_error):.4f}"
        assert words[4] == f"{float(one.kendall):.4f}"
        assert words[7] == f"{float(one.spearman):.4f}"
        assert words[10] == f"{float(one.kept):.4f}"
    assert lines[4:] == ["a.nc", "a.png"]
    assert records.attrs["seed"] == "3"
    assert "k=12, steps=3" in records.attrs["configuration"]
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("kind", ["saliency", "gradient_times_input"])
def test_other_maps(net: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"explain {net} {FEW} --map {kind} --epsilon 0.05 --restarts 2") == 0
    assert capsys.readouterr().out.startswith(f"{kind} of ")
    assert files() == {"net"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--k 65", "k = 65"),
        ("--epsilon -1", "epsilon = -1"),
        ("--steps 0", "steps = 0"),
        ("--path 0", "path = 0"),
        ("--softplus 0", "softplus = 0"),
        ("--examples 0", "examples = 0"),
        ("--map ig", "ig"),
        ("--pictures a.jpg", "a.jpg"),
    ],
)
def test_misuse(net: str, flags: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"explain {net} --device cpu {flags}") == 2
    assert message in capsys.readouterr().err
    assert files() == {"net"}
