"""The cards' runner: what is run, in which order and time, what stays of it; and every card whole in its quick form."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cuda import __main__ as command
from benchmarks.cuda import card as card_file
from benchmarks.cuda import keep, origin, results, runner
from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards import NAMES, card
from deepcheck.data import DataError

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(card_file, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(runner, "KEPT", tmp_path / "kept")
    return tmp_path / "kept"


def toy(name: str, run: Callable[[Work], None] | None = None, **options: Any) -> Card:
    def finds(work: Work) -> None:
        work.save(number=len(name), complete=True)

    return Card(name, f"toy {name}", run or finds, **{"least": 1.0, "most": 2.0, **options})


def ran(tmp_path: Path, *cards: Card, minutes: float = 10.0, **options: Any) -> dict[str, runner.Outcome]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    recorded = tmp_path / "recorded"
    found = runner.run_cards(cards, out, seconds=60 * minutes, device=CPU, recorded=recorded, **options)
    return {one.card.name: one for one in found}


def written(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def record(tmp_path: Path, name: str, **changes: Any) -> None:
    """Put a result into the folder of those that are committed."""
    (tmp_path / "recorded").mkdir(exist_ok=True)
    ran(tmp_path, toy(name), again=True)
    content = written(tmp_path / "out", name) | changes
    (tmp_path / "out" / f"{name}.json").unlink()
    (tmp_path / "recorded" / f"{name}.json").write_text(json.dumps(content))


# What a result says.


def test_a_result_says_what_made_it(tmp_path: Path) -> None:
    def run(work: Work) -> None:
        work.note("a remark")
        work.save(number=torch.tensor(1.5), nothing=float("nan"), complete=True)

    assert ran(tmp_path, toy("one", run, seeds=(3, 4)))["one"].state == "done"
    text = (tmp_path / "out" / "one.json").read_text()
    said = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert said["found"] == {"number": 1.5, "nothing": None}
    assert (said["card"], said["complete"], said["quick"], said["notes"]) == ("one", True, False, ["a remark"])
    assert said["seeds"] == [3, 4]
    assert said["torch_version"] == torch.__version__
    names = {
        "device",
        "driver",
        "cuda_version",
        "cudnn_version",
        "python_version",
        "git_commit",
        "git_dirty",
        "created",
    }
    assert names < said.keys()
    assert said["device"].startswith("cpu: ")
    assert said["tf32"].keys() == {"matmul", "convolution"}
    assert 0 <= said["seconds"] < 60


def test_the_commit_of_a_tree_without_git_is_that_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"git_commit": "unknown", "git_dirty": "unknown"}
    monkeypatch.setattr(origin, "provenance", lambda _: nowhere)
    monkeypatch.setattr(origin, "MANIFEST", tmp_path / "manifest.json")
    origin.commit.cache_clear()
    assert origin.commit() == nowhere
    for digest, dirty in ((origin.digest(), "false"), ("of other code", "true")):
        code = {"git_commit": "c" * 40, "git_dirty": "false", "digest": digest}
        (tmp_path / "manifest.json").write_text(json.dumps({"code": code}))
        origin.commit.cache_clear()
        assert origin.commit() == {"git_commit": "c" * 40, "git_dirty": dirty}
    origin.commit.cache_clear()


# What is run.


def test_cards_are_run_in_order_as_long_as_they_fit(tmp_path: Path) -> None:
    given: list[tuple[str, float]] = []

    def run(work: Work) -> None:
        given.append((work.card.name, work.left()))
        work.save(complete=True)

    found = ran(tmp_path, toy("a", run), toy("b", run, least=11.0, most=12.0), toy("c", run, most=30.0))
    assert [name for name, _ in given] == ["a", "c"]
    assert given[0][1] == pytest.approx(120, abs=5)  # what it makes use of
    assert given[1][1] == pytest.approx(600, abs=10)  # what is left
    assert found["b"].state == "no time"
    assert "needs 11 min, 10.0 are left" in found["b"].detail
    assert not (tmp_path / "out" / "b.json").exists()


def test_what_is_recorded_is_not_run_again(tmp_path: Path) -> None:
    record(tmp_path, "one", found={"robust_accuracy": 0.5})
    found = ran(tmp_path, toy("one", lambda _: pytest.fail("it is run")))["one"]
    assert (found.state, found.seconds) == ("recorded", 0.0)
    assert found.detail.endswith("recorded/one.json")
    assert "robust accuracy 0.5" in runner.summary([found])
    assert ran(tmp_path, toy("one"), again=True)["one"].state == "done"


def test_a_result_of_another_commit_is_kept_and_marked(tmp_path: Path) -> None:
    parent = subprocess.run(["git", "rev-parse", "HEAD~3"], cwd=ROOT, capture_output=True, text=True, check=False)
    for commit, mark in (
        (parent.stdout.strip(), r"of commit \w{7}, [1-9]\d* behind$"),
        ("0" * 40, "of commit 0000000$"),
    ):
        if commit:
            record(tmp_path, "one", git_commit=commit)
            found = ran(tmp_path, toy("one"))["one"]
            assert found.state == "recorded"
            assert re.search(mark, found.detail)


@pytest.mark.parametrize("changes", [{"quick": True}, {"complete": False}])
def test_a_quick_result_and_half_a_one_do_not_count(tmp_path: Path, changes: dict[str, bool]) -> None:
    record(tmp_path, "one", **changes)
    assert ran(tmp_path, toy("one"))["one"].state == "done"


def test_half_a_result_is_handed_to_the_card_with_its_files(tmp_path: Path) -> None:
    record(tmp_path, "one", complete=False, found={"first": 1}, git_commit="a" * 40, created="2026-01-01")
    (tmp_path / "recorded" / "one_net").mkdir()
    (tmp_path / "recorded" / "one_net" / "weights").write_text("w")

    def run(work: Work) -> None:
        assert work.found == {"first": 1}
        assert (work.out / "one_net" / "weights").read_text() == "w"
        work.save(second=2, complete=True)

    assert ran(tmp_path, toy("one", run))["one"].state == "done"
    said = written(tmp_path / "out", "one")
    assert said["found"] == {"first": 1, "second": 2}
    assert [one["git_commit"] for one in said["before"]] == ["a" * 40]
    assert "of commit aaaaaaa" in said["notes"][0]


def test_the_newest_of_several_halves_counts(tmp_path: Path) -> None:
    record(tmp_path, "one", complete=False, found={"of": "recorded"}, created="2026-02-01")
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    content = written(tmp_path / "recorded", "one") | {"found": {"of": "earlier"}, "created": "2026-03-01"}
    (earlier / "one.json").write_text(json.dumps(content))
    seen: list[Any] = []
    ran(tmp_path, toy("one", lambda work: seen.append(work.found["of"])), earlier=earlier)
    assert seen == ["earlier"]


def test_again_begins_from_the_beginning(tmp_path: Path, kept: Path) -> None:
    record(tmp_path, "one")
    (kept / "one").mkdir(parents=True)
    (kept / "one" / "checkpoint").touch()
    ran(tmp_path, toy("one", lambda work: work.save(there=list(work.folder.iterdir()))), again=True)
    assert written(tmp_path / "out", "one")["found"] == {"there": []}


# What goes wrong.


def test_a_card_that_fails_is_recorded_and_the_next_goes_on(tmp_path: Path) -> None:
    def run(work: Work) -> None:
        work.save(before=1, complete=True)
        raise ZeroDivisionError("of the\nkind")

    found = ran(tmp_path, toy("a", run), toy("b"))
    assert (found["a"].state, found["a"].bad, found["b"].state) == ("failed", True, "done")
    said = written(tmp_path / "out", "a")
    assert said["failure"] == "ZeroDivisionError: of the kind"
    assert "in run" in said["traceback"]
    assert "benchmarks/cuda/runner.py" in said["traceback"].replace("\\", "/")
    assert str(Path(__file__).parents[2]) not in json.dumps(said)
    assert said["found"] == {"before": 1}
    assert said["complete"] is False


def test_data_that_are_not_there_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str, **_: Any) -> None:
        raise DataError(f"{name} is not in\nany folder")

    monkeypatch.setattr(runner, "load", nowhere)
    found = ran(tmp_path, toy("a", data=("cifar10",)), toy("b"))
    assert (found["a"].state, found["a"].bad, found["b"].state) == ("no data", True, "done")
    assert found["a"].detail.startswith("cifar10 is not in any folder; or unpack a bundle, see docs/cuda.md")


def test_a_batch_that_does_not_fit_is_halved_and_said(tmp_path: Path) -> None:
    work = Work(toy("one"), CPU, 60.0, tmp_path)
    sizes = []

    def needs(size: int) -> int:
        sizes.append(size)
        if size > 100:
            raise torch.OutOfMemoryError if size > 200 else MemoryError
        return size

    assert work.halving(512, needs) == 64
    assert sizes == [512, 256, 128, 64]
    assert work.notes == [f"out of memory: batches of {size}" for size in (256, 128, 64)]
    with pytest.raises(MemoryError):
        work.halving(1, lambda _: needs(150))


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "one.json").write_text('{"card": "two"}')
    with pytest.raises(ValueError, match=r"one.json' is no result of the card one"):
        ran(tmp_path, toy("one"))


def test_least_is_not_more_than_most() -> None:
    with pytest.raises(ValueError, match="least = 3, most = 2"):
        toy("one", least=3, most=2)


# Files of a folder of results.


def test_too_many_files_are_gathered_and_spread_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_BYTES", 10_000)
    contents = {f"{name}.json": b"{}" for name in "abcde"}
    contents |= {f"{name}.png": name.encode() * 2500 for name in "abcde"} | {"a_net/one.safetensors": b"w" * 2000}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"11 files, more than 8: .*a\.png"):
        results.check_size(tmp_path)
    results.gather(tmp_path)
    results.check_size(tmp_path)
    assert {path.name for path in results.files(tmp_path)} == {
        *(f"{n}.json" for n in "abcde"),
        "rest1.zip",
        "rest2.zip",
    }
    results.spread(tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in results.files(tmp_path)} == contents
    (tmp_path / "large.png").write_bytes(bytes(20_000))
    with pytest.raises(ValueError, match=r"large\.png"):
        results.check_size(tmp_path)


# The command.


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> dict[str, Card]:
    """Toy cards in place of the real ones."""
    found: dict[str, Card] = {"a": toy("a"), "b": toy("b")}
    monkeypatch.setattr(command, "NAMES", tuple(found))
    monkeypatch.setattr(command, "card", found.__getitem__)
    return found


def called(tmp_path: Path, *arguments: str) -> int:
    return command.main(["--device", "cpu", "--out", str(tmp_path / "o" / "ut"), *arguments], tmp_path / "recorded")


def test_the_command_ends_with_a_table(
    tmp_path: Path, cards: dict[str, Card], capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(tmp_path, "--minutes", "5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(" | ")[0] == "| card"
    assert [line.split(" | ")[:2] for line in lines[2:]] == [["| a", "done"], ["| b", "done"]]
    assert called(tmp_path, "--cards", "b") == 0  # recorded in the same folder
    assert "| b | recorded |" in capsys.readouterr().out


def test_a_failure_is_the_status(tmp_path: Path, cards: dict[str, Card]) -> None:
    def fails(_: Work) -> None:
        raise RuntimeError("no")

    cards["a"] = toy("a", fails)
    assert called(tmp_path) == 1
    assert written(tmp_path / "o" / "ut", "b")["complete"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_what_was_saved(
    tmp_path: Path, cards: dict[str, Card], capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def stopped(work: Work) -> None:
        work.save(first=1)
        os.kill(os.getpid(), number)
        work.save(second=2)

    cards["a"] = toy("a", stopped)
    assert called(tmp_path) == 1
    assert written(tmp_path / "o" / "ut", "a")["found"] == {"first": 1}
    assert not (tmp_path / "o" / "ut" / "b.json").exists()
    assert "| a | stopped |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cards", "c"], "cards = 'c' is no card: allowed are a, b"),
        (["--minutes", "0"], "minutes = 0.0 is not allowed: allowed is a number > 0"),
        (["--minutes", "nan"], "minutes = nan is not allowed"),
        (["--device", "cuda:77"], "device = 'cuda:77' is not available"),
        (["--earlier", "nowhere"], "earlier = 'nowhere' is not there"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, cards: dict[str, Card], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert called(tmp_path, *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_quick_run_leaves_what_is_not_its_own(tmp_path: Path, cards: dict[str, Card]) -> None:
    assert called(tmp_path, "--quick") == 0
    quick = tmp_path / "o" / "ut" / "quick"
    for name in ("mine.txt", "a.png", "a_net", "ab.json"):
        (quick / name).write_text("")
    assert called(tmp_path, "--quick", "--cards", "a") == 0
    assert sorted(path.name for path in quick.iterdir() if path.is_file()) == [
        "a.json",
        "ab.json",
        "b.json",
        "mine.txt",
    ]


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, cards: dict[str, Card], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o").write_text("")
    assert called(tmp_path) == 2
    said = capsys.readouterr().err
    assert re.search(r"out = '.*ut' cannot be made \(.*\): allowed is a folder", said)
    assert said.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(
    tmp_path: Path, cards: dict[str, Card], capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(tmp_path, "--device", "auto") == 2
    said = capsys.readouterr().err
    assert said.startswith("benchmarks.cuda: no CUDA device is available to torch")
    assert "--device cpu --quick" in said
    assert said.count("\n") == 1


def test_a_card_that_cannot_be_imported_is_not_passed_over(
    tmp_path: Path, cards: dict[str, Card], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "card", card)
    monkeypatch.setattr("benchmarks.cuda.cards.NAMES", ("a",))
    assert called(tmp_path) == 2
    assert "benchmarks.cuda.cards.a" in capsys.readouterr().err


# The cards.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tests", "speed"])
def test_a_card_runs_whole_in_its_quick_form(name: str, tmp_path: Path) -> None:
    """The other cards are run whole in test_cards.py and test_comparison.py."""
    torch.set_num_threads(1)
    assert called(tmp_path, "--quick", "--cards", name) == 0
    out = tmp_path / "o" / "ut" / "quick"
    said = written(out, name)
    assert said["quick"] is True
    assert "failure" not in said
    assert said["found"]
    json.dumps(said["found"], allow_nan=False)


@pytest.mark.whole
def test_the_command_runs_every_card(tmp_path: Path) -> None:
    """A minute or two of one processor."""
    run = [sys.executable, "-m", "benchmarks.cuda", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert f"| {name} | done |" in done.stdout
    assert (tmp_path / "quick" / "speed.png").stat().st_size > 1000


def test_results_are_kept_but_for_quick_ones_and_halves_of_what_is_whole(tmp_path: Path) -> None:
    out, recorded = tmp_path / "out", tmp_path / "recorded"
    recorded.mkdir()
    with pytest.raises(ValueError, match="has no results"):
        keep.keep(tmp_path, recorded)
    ran(tmp_path, *map(toy, ("tests", "speed", "at_cifar10", "mnist_full")))
    (recorded / "tests.json").write_text((out / "tests.json").read_text())
    for name, change in (
        ("tests", {"complete": False}),
        ("speed", {"complete": False}),
        ("at_cifar10", {"quick": True}),
    ):
        (out / f"{name}.json").write_text(json.dumps(written(out, name) | change))
    (out / "speed.png").write_bytes(b"png")
    said = keep.keep(out, recorded)
    assert [line.split(": ")[1].split(",")[0] for line in said] == [
        "not whole",
        "in part",
        "in its quick form",
        "whole",
    ]
    assert sorted(path.name for path in recorded.iterdir()) == [
        "mnist_full.json",
        "speed.json",
        "speed.png",
        "tests.json",
    ]
    assert written(recorded, "tests")["complete"] is True
