"""What is declared agrees with what is tested: lower bounds, the versions of constraints.txt, what the sdist holds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[Any]] = PROJECT["dependency-groups"]
FOR_USERS = [
    Requirement(text)
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    if not text.startswith("odeflow")
]
# of the libraries in the group external any version is compared with
FOR_US = [
    Requirement(text) for name, group in GROUPS.items() if name != "external" for text in group if isinstance(text, str)
]
PINS = dict(
    line.partition("==")[::2] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line
)
PINNED = {canonicalize_name(name): Version(version) for name, version in PINS.items()}


def name_of(requirement: Requirement) -> NormalizedName:
    return canonicalize_name(requirement.name)


def lowest(requirement: Requirement) -> Version:
    """Return the lower bound, the only specifier there is."""
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    return Version(specifier.version)


@pytest.mark.parametrize("requirement", FOR_USERS, ids=str)
def test_every_requirement_of_a_user_has_a_lower_bound_alone(requirement: Requirement) -> None:
    assert lowest(requirement) > Version("0")


@pytest.mark.parametrize("requirement", {str(one): one for one in [*FOR_USERS, *FOR_US]}.values(), ids=str)
def test_constraints_hold_a_version_that_is_allowed(requirement: Requirement) -> None:
    assert name_of(requirement) in PINNED, f"{requirement}: constraints.txt has no version of it"
    assert PINNED[name_of(requirement)] in requirement.specifier


def test_bounds_that_stand_twice_are_the_same() -> None:
    bounds: dict[NormalizedName, set[Version]] = {}
    for requirement in [*FOR_USERS, *(one for one in FOR_US if one.specifier)]:
        bounds.setdefault(name_of(requirement), set()).add(lowest(requirement))
    assert {name: versions for name, versions in bounds.items() if len(versions) > 1} == {}


def test_make_lowest_takes_every_lower_bound() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "lowest")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) == {f"{one.name}=={next(iter(one.specifier)).version}" for one in FOR_USERS}


def test_the_sdist_holds_what_the_tests_read() -> None:
    build = PROJECT["tool"]["hatch"]["build"]["targets"]
    packed = {name.strip("/") for name in build["sdist"]["include"]}
    packed |= {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}  # always
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    upwards = r"""(?:ROOT|parents\[\d\]|parent\.parent)\)? / "([^"/]+)"""
    named = {name for text in sources for name in re.findall(upwards, text)}
    read = {name for name in named if (ROOT / name).exists()}
    assert {"docs", "Makefile", "README.md", "constraints.txt"} <= read
    assert read <= packed
    assert set(build["wheel"]["packages"]) <= packed
