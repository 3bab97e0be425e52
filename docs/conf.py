"""Sphinx configuration."""

import re
from importlib import metadata
from typing import Any

project = "odeflow"
author = "The odeflow developers"
copyright = author  # Sphinx's name
try:
    release = metadata.version("odeflow")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    release = "unknown"
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # copies MathJax into the pages, so that formulas need no network
]
exclude_patterns = ["_build"]
default_role = "py:obj"  # docstrings write names in single backticks

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_param = False  # keeps parameters that are documented together together
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
# two packages have a Network; a name in a signature links to one of them
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"odeflow {release}"
html_static_path: list[str] = []


def escape_bars(*arguments: Any) -> None:
    """Keep the norms of docstrings, such as |w|, from being read as substitutions."""
    lines: list[str] = arguments[-1]
    for i, line in enumerate(lines):
        parts = re.split(r"(:math:`[^`]*`|``[^`]*``)", line)
        parts[::2] = (part.replace("|", r"\|") for part in parts[::2])
        lines[i] = "".join(parts)


def add_registered(app: Any, page: str, source: list[str]) -> None:
    """Give the API page a section for the module of everything that is registered."""
    del app
    if page != "api":
        return
    from deepcheck.attacks.registry import ATTACKS
    from deepcheck.defences.registry import DEFENCES
    from deepcheck.detectors.registry import DETECTORS
    from deepcheck.training.methods import METHODS

    registries: dict[str, dict[str, Any]] = {
        "Attacks": ATTACKS,
        "Training methods": METHODS,
        "Detectors": DETECTORS,
        "Defences": DEFENCES,
    }
    for title, registry in registries.items():
        source[0] += f"\n## {title}\n"
        for module in dict.fromkeys(entry.__module__ for entry in registry.values()):
            names = ", ".join(f"`{name}`" for name, entry in registry.items() if entry.__module__ == module)
            source[0] += f"\n### {module}\n\nRegistered: {names}.\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def setup(app: Any) -> None:
    """Connect the hooks."""
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", add_registered)
