"""The imports run one way, and no room is too full; what is written here is drawn in docs/architecture.md.

The sources are read, not run: an import inside a function, or for types alone, is an arrow as well.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top down: a package, or a room of odeflow, imports what is on its own line or on a line below.
PACKAGES = ("studies", "deepcheck", "odeflow")
LAYERS = (
    "__main__ cli",
    "plot sweep sweeps",
    "integrate simulate errors optimal fixed_points anisotropic control erm latex",
    "order_parameters",
    "numerics",
    "model parameters laws schedule provenance _moved",
)
PUBLIC = "__init__"  # of odeflow: imports the faces, and nothing in odeflow imports it
LAYER = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms.split()}

MOST_ROOMS = 19
MOST_LINES = 450
TABLES: set[str] = set()  # of coefficients: as long as they are


@dataclass(frozen=True)
class Arrow:
    """Module `source` imports module `target`, at `line`."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"


def sources(root: Path) -> dict[str, Path]:
    """Return the file of each module of the three packages."""
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def arrows(root: Path) -> list[Arrow]:
    """Return every import of every module; ``from package import module`` is an import of the module."""
    modules = sources(root)
    return [arrow for module, path in modules.items() for arrow in arrows_of(module, path, modules)]


def arrows_of(module: str, path: Path, modules: dict[str, Path]) -> Iterator[Arrow]:
    """Yield the imports of one file."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Arrow(module, name.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
                origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            for name in node.names:
                inner = f"{origin}.{name.name}"
                yield Arrow(module, inner if inner in modules else origin, node.lineno)


def package(module: str) -> str:
    return module.partition(".")[0]


def room(module: str) -> str:
    """Return the room of a module of odeflow: the file or folder it is in."""
    return module.split(".")[1] if "." in module else PUBLIC


def circle(root: Path, package_name: str) -> str | None:
    """Return one circle of imports in a package, or None."""
    graph: dict[str, set[str]] = {}
    for arrow in arrows(root):
        if package(arrow.source) == package(arrow.target) == package_name:
            graph.setdefault(arrow.source, set()).add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None


def packages_that_run_back(root: Path) -> list[str]:
    """Return the imports from a package to one above it."""
    depth = {name: i for i, name in enumerate(PACKAGES)}
    return [
        str(arrow)
        for arrow in arrows(root)
        if package(arrow.target) in depth and depth[package(arrow.target)] < depth[package(arrow.source)]
    ]


def rooms_that_run_back(root: Path) -> list[str]:
    """Return the imports inside odeflow from a layer to one above it."""
    wrong = []
    for arrow in arrows(root):
        if package(arrow.source) == package(arrow.target) == "odeflow" and room(arrow.source) != PUBLIC:
            source, target = room(arrow.source), room(arrow.target)
            if source in LAYER and (target == PUBLIC or (target in LAYER and LAYER[target] < LAYER[source])):
                wrong.append(str(arrow))
    return wrong


def test_packages_import_one_way() -> None:
    """studies -> deepcheck -> odeflow, never back."""
    assert packages_that_run_back(ROOT) == []


def test_every_room_of_odeflow_has_a_layer() -> None:
    rooms = {room(module) for module in sources(ROOT) if package(module) == "odeflow"} - {PUBLIC}
    unknown = sorted(rooms - LAYER.keys())
    assert not unknown, f"no layer for {unknown} of odeflow: put each on its line of LAYERS in {__file__}"


def test_rooms_of_odeflow_import_one_way() -> None:
    assert rooms_that_run_back(ROOT) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_no_package_has_a_circle(name: str) -> None:
    assert circle(ROOT, name) is None


def test_the_core_names_no_torch_and_draws_in_one_place() -> None:
    imported = [arrow for arrow in arrows(ROOT) if package(arrow.source) == "odeflow"]
    assert [str(arrow) for arrow in imported if package(arrow.target) == "torch"] == []
    drawing = {room(arrow.source) for arrow in imported if package(arrow.target) == "matplotlib"}
    assert drawing == {"plot"}


def test_importing_all_of_the_core_loads_no_torch_and_no_matplotlib() -> None:
    modules = sorted(name for name in sources(ROOT) if package(name) == "odeflow" and not name.endswith("__main__"))
    heavy = ["torch", "matplotlib", "deepcheck", "studies"]
    code = f"import {', '.join(modules)}, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_top_folder_of_odeflow_has_few_rooms() -> None:
    rooms = {room(module) for module in sources(ROOT) if package(module) == "odeflow"}
    rooms = {name for name in rooms if not name.startswith("_")}
    assert len(rooms) <= MOST_ROOMS, sorted(rooms)


def test_no_file_is_too_long() -> None:
    files = [*sources(ROOT).values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_bytes().splitlines()) for path in files}
    too_long = {name for name, count in lines.items() if count > MOST_LINES} - TABLES
    assert too_long == set(), f"more than {MOST_LINES} lines: make two rooms of it"


# The reader of imports itself, on a small tree with one fault each.

SOUND = {
    "odeflow/__init__.py": "from odeflow.integrate import solve",
    "odeflow/model.py": "",
    "odeflow/integrate.py": "from odeflow import model\nfrom odeflow.numerics import steps",
    "odeflow/numerics/__init__.py": "",
    "odeflow/numerics/steps.py": "from ..model import X",
    "deepcheck/__init__.py": "import odeflow",
    "studies/__init__.py": "from deepcheck import a",
}


def planted(root: Path, files: dict[str, str]) -> Path:
    for name, text in {**SOUND, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    root = planted(tmp_path, {})
    assert packages_that_run_back(root) == rooms_that_run_back(root) == []
    assert [circle(root, name) for name in PACKAGES] == [None] * 3


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("odeflow/model.py", "def f():\n    import deepcheck.data", "odeflow.model, line 2, imports deepcheck.data"),
        ("odeflow/laws.py", "from studies import STUDIES", "odeflow.laws, line 1, imports studies"),
        ("deepcheck/checks.py", "import studies", "deepcheck.checks, line 1, imports studies"),
    ],
)
def test_an_arrow_to_a_package_above_is_found(tmp_path: Path, name: str, text: str, found: str) -> None:
    assert packages_that_run_back(planted(tmp_path, {name: text})) == [found]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("from odeflow import integrate", "odeflow.integrate"),
        ("from odeflow.integrate import solve", "odeflow.integrate"),
        ("from ..integrate import solve", "odeflow.integrate"),
        ("from .. import integrate", "odeflow.integrate"),
        ("import odeflow.integrate", "odeflow.integrate"),
        ("def f():\n    from odeflow.plot import plot", "odeflow.plot"),
        ("if TYPE_CHECKING:\n    from odeflow.sweeps.grid import Grid", "odeflow.sweeps.grid"),
        ("from odeflow import solve", "odeflow"),
    ],
)
def test_an_arrow_to_a_layer_above_is_found(tmp_path: Path, text: str, target: str) -> None:
    files = {f"odeflow/{name}.py": "" for name in ("plot", "sweeps/__init__", "sweeps/grid")}
    wrong = rooms_that_run_back(planted(tmp_path, {**files, "odeflow/numerics/steps.py": text}))
    assert len(wrong) == 1
    assert wrong[0].startswith("odeflow.numerics.steps, line ")
    assert wrong[0].endswith(f" imports {target}")


def test_a_circle_is_found(tmp_path: Path) -> None:
    ring = ["a", "b", "c", "a"]
    files = {f"deepcheck/{one}.py": f"def f():\n    from deepcheck.{other} import g" for one, other in pairwise(ring)}
    found = circle(planted(tmp_path, files), "deepcheck")
    assert found is not None
    assert {"deepcheck.a", "deepcheck.b", "deepcheck.c"} == set(found.split(" <- "))
