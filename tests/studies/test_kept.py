"""Parts that are kept between runs: of which code and settings they are, and what a change of the code does to them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import xarray as xr

import studies
from deepcheck.training import train
from odeflow import load
from studies.common import kept
from studies.common import sources as code
from studies.common.errors import Unavailable
from studies.common.sources import ASIDE, digest, sources

ROOT = Path(studies.__file__).parents[1]
MEASURES = [f"studies.{path.parent.name}.measure" for path in sorted(ROOT.glob("studies/*/measure.py"))]

TOY = '''"""A study that keeps one part."""

import xarray as xr

from odeflow.plot import new_figure
from odeflow.provenance import provenance
from studies.common.kept import kept, study_folder
from studies.registry import Claim, Outcome
from studies.toy.measure import measure

STUDIES = [{"name": "toy", "title": "a toy", "long": True}]


def run(name, *, quick=False, folder=None):
    """Run the study."""
    found = kept(study_folder(folder), "part", 1, measure, 7)
    data = xr.Dataset({"x": found.x})
    data.attrs = provenance("toy", seed="none")
    return Outcome(data, new_figure()[0], "table", (Claim("it is", "it is", True),))
'''
MEASURE = '''"""What the toy measures."""

import xarray as xr

from deepcheck.checks import VALUE


def measure(times):
    """Return the helper's value, times something."""
    print("measured")
    return xr.Dataset({"x": VALUE * times})
'''


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the packages, and with a study of one kept part."""
    for name in ("odeflow", "deepcheck", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    toy = tmp_path / "studies" / "toy"
    toy.mkdir()
    (toy / "__init__.py").write_text(TOY)
    (toy / "measure.py").write_text(MEASURE)
    with open(tmp_path / "deepcheck" / "checks.py", "a") as helper:
        helper.write("\nVALUE = 2\n")
    return tmp_path


def _run(copy: Path) -> tuple[float, bool, str, list[dict[str, str]]]:
    """Run the study, and return its number, whether it was measured, what it says, and its parts."""
    out = copy / "results"
    out.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-m", "studies", "run", "toy", "--out", str(out)],
        cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    data = load(out / "toy.nc")
    return float(data.x), "measured" in run.stdout, run.stderr, json.loads(data.attrs["parts"])


def test_a_part_of_other_code_stays_on_disk_and_is_made_anew(copy: Path) -> None:
    helper, toy = copy / "deepcheck" / "checks.py", copy / "studies" / "toy"
    before = helper.read_text()
    number, measured, said, (first,) = _run(copy)
    assert (number, measured, said) == (14, True, "")
    assert first["name"] == "part"
    (file,) = (copy / "results" / "toy").iterdir()
    assert first["code"][:8] in file.name

    helper.write_text(before.replace("VALUE = 2", "VALUE = 3"))
    number, measured, said, (second,) = _run(copy)
    assert (number, measured) == (21, True)
    assert said.count("\n") == 1
    assert f"part: {file.name} in " in said
    assert "is of other code (or data): it stays there, and is made anew" in said
    assert second["code"] != first["code"]
    assert file.exists()
    assert len(list((copy / "results" / "toy").iterdir())) == 2

    # it is there again for who goes back; neither a comment nor the claims are what the number depends on
    helper.write_text(before.replace("\nVALUE", "\n# twice\nVALUE"))
    (toy / "__init__.py").write_text(TOY.replace('"it is", True', '"it was", True'))
    assert _run(copy) == (14, False, "", [first])


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("deepcheck/training/loop.py", {"train"}),
        ("deepcheck/attacks/norms.py", {"train", "studies.ccat.measure", "studies.collapse.measure"}),
        ("odeflow/integrate.py", {"studies.collapse.measure"}),
        ("studies/collapse/figures.py", set()),
        ("studies/collapse/claims.py", set()),
        ("studies/collapse/plan.py", set()),
        ("studies/registry.py", set()),
        ("odeflow/provenance/attributes.py", set()),
        ("odeflow/provenance/results.py", set()),
    ],
)
def test_what_a_change_makes_anew(file: str, changes: set[str]) -> None:
    """A change of the training makes the nets anew, and one of a figure, of a claim or of the plan makes nothing anew."""
    modules = {"train": train.__module__} | {
        name: name for name in ("studies.ccat.measure", "studies.collapse.measure")
    }
    assert {name for name, module in modules.items() if ROOT / file in sources(module).values()} == changes


def test_the_digest_is_of_the_code_alone(tmp_path: Path) -> None:
    digests = []
    for k, text in enumerate(
        (
            "x = 1\ndef f():\n    return x\n",
            '"""What."""\n\nx = 1  # one\n"""Of it."""\n\n\ndef f():\n    """Return x."""\n    return (x)\n',
            "x = 1\ndef f():\n    return -x\n",
        )
    ):
        (tmp_path / str(k) / "odeflow").mkdir(parents=True)
        (tmp_path / str(k) / "odeflow" / "a.py").write_text(text)
        digests.append(digest("odeflow.a", root=tmp_path / str(k)))
    assert digests[0] == digests[1] != digests[2]


_SEEN = """
import sys
from pathlib import Path
files = set()
def seen(frame, event, argument):
    files.add(frame.f_code.co_filename)
import torch
torch.set_num_threads(1)
from studies.common.nets import pair_recipe, train
from deepcheck.data import load, two_class_images
recipe = pair_recipe("digits", "l2", 0.2, epochs=1)
images = two_class_images(load("digits"), 3, 7)
sys.settrace(seen)
network = train(recipe, images, out=Path(sys.argv[1]) / "net").network
sys.settrace(None)
trained, files = files, set()
from studies.common.attacked import least_sizes
from studies.common.images import examples
from studies.deep_on_mnist.measure import measured
from studies.deep_on_mnist.plan import SETTINGS
import numpy as np
x, y = examples(load("digits"), 10)
sys.settrace(seen)
measured(network, x, y, SETTINGS["digits"], "l2", np.ones(64))
sys.settrace(None)
print(*sorted(trained), sep="\\n")
print("-")
print(*sorted(files), sep="\\n")
"""


def test_the_digest_covers_all_that_runs(tmp_path: Path) -> None:
    """Every file of this project that has a function which training and measuring call is one of the sources."""
    run = subprocess.run(
        [sys.executable, "-c", _SEEN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    aside = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in ASIDE}
    packages = {ROOT / name for name in ("odeflow", "deepcheck", "studies")}
    for part, module in zip(
        run.stdout.split("\n-\n"), (train.__module__, "studies.deep_on_mnist.measure"), strict=True
    ):
        ran = {Path(line) for line in part.split() if packages & set(Path(line).parents)} - aside
        assert len(ran) > 5
        assert ran <= set(sources(module).values())


def test_names_are_followed_to_where_they_are_defined(tmp_path: Path) -> None:
    files = {
        "odeflow/__init__.py": "from odeflow.a import f\nfrom odeflow.b import g\n",
        "odeflow/a.py": "f = 1\n",
        "odeflow/b.py": "from .c import h as g\n",
        "odeflow/c.py": 'LATER = {"d": "odeflow.d:name"}\nh = 2\n',
        "odeflow/d.py": "if TYPE_CHECKING:\n    import odeflow.a\n",
        "studies/__init__.py": "",
        "studies/one.py": "def f():\n    from odeflow import f\n",
        "studies/two.py": "from odeflow import g\n",
        "studies/three.py": "from odeflow import *\n",
        "studies/four.py": "import odeflow\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert set(sources("studies.one", root=tmp_path)) == {"studies.one", "odeflow.a"}
    assert set(sources("studies.two", root=tmp_path)) == {"studies.two", "odeflow.b", "odeflow.c", "odeflow.d"}
    for name in ("studies.three", "studies.four"):
        assert set(sources(name, root=tmp_path)) == {name, "odeflow", *(f"odeflow.{letter}" for letter in "abcd")}
    with pytest.raises(ValueError, match=r"studies\.five"):
        sources("studies.five", root=tmp_path)


def test_no_import_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module without a file has moved, and is followed to where it is; or it is an error, and not left out."""
    (tmp_path / "odeflow").mkdir()
    (tmp_path / "odeflow" / "a.py").write_text("from odeflow.gone import f\n")
    with pytest.raises(ValueError, match=r"odeflow\.gone"):
        sources("odeflow.a", root=tmp_path)
    (tmp_path / "odeflow" / "b.py").write_text("f = 1\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "import_module", Mock(return_value=SimpleNamespace(__name__="odeflow.b")))
    assert set(sources("odeflow.a", root=tmp_path)) == {"odeflow.a", "odeflow.b"}


@pytest.mark.parametrize("module", MEASURES)
def test_a_measurement_does_not_depend_on_what_is_said_of_it(module: str) -> None:
    study = module.removesuffix("measure")
    names = set(sources(module))
    assert not {f"{study}{part}" for part in ("claims", "figures", "study")} & names
    assert "studies.registry" not in names


def test_settings_are_told_apart_and_a_broken_file_is_named(tmp_path: Path) -> None:
    measure = Mock(side_effect=lambda x: xr.Dataset({"x": x}), __module__="studies.common.attacked")
    with kept.recorded() as parts:
        for settings, value in ((1, 1.0), (2, 2.0), (1, 3.0)):
            found = kept.kept(tmp_path, "part", settings, measure, value)
            assert float(found.x) == (2 if settings == 2 else 1)
            assert found.attrs == {}
    assert measure.call_count == 2
    assert parts[0] == parts[2] != parts[1]
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Unavailable, match="remove it"):
        kept.kept(tmp_path, "part", 1, measure, 1.0)


def test_a_part_inside_a_part_is_not_counted(tmp_path: Path) -> None:
    module = "studies.common.attacked"
    inner = Mock(return_value=xr.Dataset({"x": 1.0}), __module__=module)
    outer = Mock(side_effect=lambda: kept.kept(tmp_path, "inner", 1, inner), __module__=module)
    with kept.recorded() as parts:
        kept.kept(tmp_path, "outer", 1, outer)
    assert [part.name for part in parts] == ["outer"]
    kept.discard(tmp_path, "inner", 1, inner)
    assert [path.name.split("_")[0] for path in tmp_path.iterdir()] == ["outer"]


def test_there_is_no_part_without_a_folder() -> None:
    with pytest.raises(ValueError, match="folder = None is not allowed"):
        kept.study_folder(None)
