"""The three command lines alike: where output goes nowhere, what a missing package is called, and what mistakes are told."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deepcheck.cli
import odeflow.cli
import studies.__main__
from odeflow.cli import commands, program
from odeflow.cli.parsing import parsed
from odeflow.cli.values import number_of, whole_number_of

ROOT = Path(__file__).parent.parent
MODULES = {"odeflow": "odeflow", "deepcheck": "deepcheck.cli", "studies": "studies"}
MAINS: dict[str, Callable[[list[str]], int]] = {
    "odeflow": odeflow.cli.main,
    "deepcheck": deepcheck.cli.main,
    "studies": studies.__main__.main,
}


def status_of(name: str, arguments: str) -> int:
    try:
        return MAINS[name](arguments.split())
    except SystemExit as end:
        return int(end.code or 0)


def run_in_shell(name: str, rest: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m {MODULES[name]} {rest}"
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)


# Output that cannot be written.


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("name", MODULES)
def test_output_that_cannot_be_written_is_one_line(name: str) -> None:
    left = run_in_shell(name, "--help | true; exit ${PIPESTATUS[0]}")
    assert (left.returncode, left.stderr) == (0, "")
    closed = run_in_shell(name, "--help >&-")
    assert (closed.returncode, closed.stderr.count("\n")) == (1, 1)
    assert closed.stderr.startswith(f"{name}: standard output is closed: allowed is a file, ")
    assert run_in_shell(name, "--version >&- 2>&-").returncode == 1
    if Path("/dev/full").exists():
        full = run_in_shell(name, "--help > /dev/full")
        assert full.returncode == 1
        assert full.stderr == f"{name}: the output could not be written: No space left on device\n"
        assert run_in_shell(name, "--nonsense 2> /dev/full").returncode == 2


def failing(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("p = 2:\nno"), 2, "toy: p = 2: no"),
        (FileNotFoundError(2, "No such file", "x.nc"), 2, "toy: [Errno 2] No such file: 'x.nc'"),
        (OSError(5, "Input/output error", "x.nc"), 1, "toy: [Errno 5] Input/output error: 'x.nc'"),
        (OSError(28, "No space left on device"), 1, "toy: the output could not be written: No space left on device"),
        (MemoryError(), 1, "toy: the memory is used up"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 1, "toy: the memory is used up: Default"),
        (
            ModuleNotFoundError("No module", name="torch"),
            2,
            "torch is missing, which this needs: pip install 'odeflow[deep]'",
        ),
        (ModuleNotFoundError("No module", name="torch.nn"), 2, "torch is missing, which this needs"),
        (ModuleNotFoundError("No module", name="sklearn.covariance"), 2, "pip install 'odeflow[data]'"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 2, "toy: No module named 'x'"),
        (KeyboardInterrupt(), 1, "toy: interrupted"),
        (ZeroDivisionError("of the kind that fails"), 1, "toy: of the kind that fails"),
        (EOFError("of the kind that is refused"), 2, "toy: of the kind that is refused"),
    ],
)
def test_each_kind_of_failure_has_its_status_and_line(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run("toy", failing(error), failures=(ZeroDivisionError,), refusals=(EOFError,)) == status
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_a_fault_of_the_program_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a fault"):
        program.run("toy", failing(RuntimeError("a fault")))


def test_every_extra_that_is_named_exists() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package, extra in program.EXTRAS.items():
        distribution = {"sklearn": "scikit-learn"}.get(package, package)
        assert any(text.startswith(distribution) for text in project["optional-dependencies"][extra])


# Without torch.

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""
RUN = """
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + RUN, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "deepcheck.cli train --dataset digits",
        "deepcheck.cli attack runs",
        "deepcheck.cli attack --list",
        "deepcheck.cli evaluate runs",
        "deepcheck.cli distal runs",
        "deepcheck.cli generator --dataset digits",
        "studies run collapse --quick --out {}",
    ],
)
def test_without_torch_the_extra_is_named(arguments: str, tmp_path: Path) -> None:
    done = without_torch(*arguments.format(tmp_path).split())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is missing, which this needs: pip install 'odeflow[deep]'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", ["deepcheck.cli train --help", "deepcheck.cli methods", "studies list", "odeflow integrate --help"]
)
def test_what_needs_no_torch_does_without(arguments: str) -> None:
    done = without_torch(*arguments.split())
    assert (done.returncode, done.stderr) == (0, "")


IMPORTS = """
from importlib import import_module
for name in ("attacks", "checkpoint", "defences", "detectors", "device", "evaluation", "match", "models", "own_model"):
    try:
        import_module(f"deepcheck.{name}")
    except ModuleNotFoundError as error:
        print(error)
try:
    from deepcheck.training import train
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_torch_an_import_names_the_extra() -> None:
    command = [sys.executable, "-c", BLOCK + IMPORTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["torch is missing, which this needs: pip install 'odeflow[deep]'"] * 10


# Mistakes.


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "odeflow",
            "integrat",
            "COMMAND = 'integrat' is unknown (did you mean integrate?): allowed is one of integrate",
        ),
        ("odeflow", "fixd_points", "(did you mean fixed-points?)"),
        ("odeflow", "--p 0.7", "COMMAND is missing before --p: allowed is one of integrate, simulate"),
        ("odeflow", "integrate --rhoo 3", "--rhoo is no option of odeflow integrate (did you mean --rho?)"),
        ("odeflow", "integrate --eta 3", "(did you mean --eta-w or --eta-b?)"),
        ("odeflow", "integrate -p 0.7", "-p is no option of odeflow integrate (did you mean --p?)"),
        ("odeflow", "simulate --n 30", "--n is no option of odeflow simulate (did you mean --N?)"),
        (
            "odeflow",
            "fixed-points --N 30",
            "--N is no option of odeflow fixed-points (it belongs to integrate, simulate, sweep)",
        ),
        ("odeflow", "integrate rho=3", "'rho=3' is not expected: allowed are options, each as --NAME VALUE"),
        ("odeflow", "integrate --second-order yes", "'yes' is not expected after --second-order, which takes no value"),
        ("odeflow", "integrate --p", "--p has no value: allowed is one after it"),
        ("odeflow", "integrate --p 0,7", "p = '0,7' is not a number: allowed is one such as 3, 0.5 or 1e-3"),
        ("odeflow", "simulate --runs 2.5", "runs = '2.5' is not a whole number: allowed is one such as 1000 or 1e3"),
        ("odeflow", "simulate --runs inf", "runs = 'inf' is not a whole number"),
        (
            "odeflow",
            "integrate --loss hinnge",
            "loss = 'hinnge' is unknown (did you mean hinge?): allowed is one of squared",
        ),
        (
            "odeflow",
            "sweep --compute simulated",
            "(did you mean simulate?): allowed is one of integrate, simulate, equi",
        ),
        ("odeflow", "integrate --network comittee", "network = 'comittee' is unknown (did you mean committee?)"),
        ("deepcheck", "trian", "COMMAND = 'trian' is unknown (did you mean train?): allowed is one of train, export"),
        ("deepcheck", "train --epoch 3", "--epoch is no option of deepcheck train (did you mean --epochs?)"),
        ("deepcheck", "train --epochs two", "epochs = 'two' is not a whole number: allowed is one such as 1000 or 1e3"),
        (
            "deepcheck",
            "train --model resnet",
            "model = 'resnet' is unknown (did you mean resnet_ccat?): allowed is one of",
        ),
        ("deepcheck", "train --resume yes", "'yes' is not expected after --resume, which takes no value"),
        ("deepcheck", "attack --epsilon 0.1 net", "epsilon = 'net' is not a number: allowed are numbers, and what is"),
        ("deepcheck", "attack net --bounds 0 x", "bounds = 'x' is not a number"),
        ("deepcheck", "attack net --steps -1.5", "steps = '-1.5' is not a whole number"),
        ("deepcheck", "distal net --queries 3", "--queries is no option of deepcheck distal (it belongs to evaluate)"),
        (
            "studies",
            "runn scenario1",
            "COMMAND = 'runn' is unknown (did you mean run?): allowed is one of list, run, all, re",
        ),
        (
            "studies",
            "run scenario",
            "NAME = 'scenario' is no study (did you mean scenario1 or scenario2?): allowed is one of",
        ),
        ("studies", "run", "NAME is missing from studies run: allowed is one or more of scenario1"),
        ("studies", "run scenario1 --qick", "--qick is no option of python -m studies run (did you mean --quick?)"),
        ("studies", "report --out nowhere", "out = 'nowhere' does not exist: allowed is a folder that exists"),
        ("studies", "list --out x", "--out is no option of python -m studies list (it belongs to run, all, report)"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    name: str, arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert status_of(name, arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("text", "number"), [("1000", 1000), ("1e3", 1000), ("-2", -2), ("2.0", 2), ("1e21", 10**21)])
def test_whole_numbers_are_read_as_python_takes_them(text: str, number: int) -> None:
    assert whole_number_of(text) == number


@pytest.mark.parametrize("text", ["1.5", "one", "", "nan", "inf", "1e400"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number: allowed is one such as 1000 or 1e3"):
        whole_number_of(text)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' is not a number: allowed is one such as 3"):
        number_of("x")


# The examples of the help.

TYPES: dict[str, Any] = {
    "odeflow": commands.EXAMPLES,
    "deepcheck": deepcheck.cli.EXAMPLES,
    "studies": studies.__main__.EXAMPLES,
}


def types_of(name: str, arguments: list[str]) -> Any:
    if name == "odeflow":
        return commands.types_of(arguments)
    return deepcheck.cli.types_of(arguments) if name == "deepcheck" else studies.__main__.types_of()


@pytest.mark.parametrize("name", MODULES)
def test_every_example_of_the_help_can_be_read(name: str) -> None:
    examples = TYPES[name]
    names = {"odeflow": commands.COMMANDS, "deepcheck": deepcheck.cli.COMMANDS, "studies": studies.__main__.COMMANDS}[
        name
    ]
    assert set(examples) == {"", *names}
    for command, lines in examples.items():
        assert lines
        for line in lines:
            words = line.partition("  (")[0].split()
            if words[0].startswith("--tyro") or "--help" in words:
                continue
            assert command in ("", words[0])
            words = deepcheck.cli.named(words) if name == "deepcheck" else words
            parsed(types_of(name, words), words, prog=name, commands=names, description="", examples=examples)


@pytest.mark.parametrize("arguments", ["--help", "sweep --help"])
def test_help_ends_with_examples(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("odeflow", arguments) == 0
    assert "\nexamples:\n  odeflow " in capsys.readouterr().out
