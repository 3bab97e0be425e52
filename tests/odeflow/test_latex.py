"""Tables in LaTeX: the numbers of the results, rounded by rule, in a source that compiles."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    branches,
    critical_epsilon,
    fixed_points,
    integrate,
    latex,
    optimal_classifier,
    phase_boundary,
    relaxation_time,
    robustness_curve,
    simulate,
    sweep,
)
from odeflow.parameters import LABELS
from odeflow.plot.tables import escaped, number, with_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIXTURE, RULE, FREE = GaussianMixture(p=0.7), LearningRule(), LearningRule(normalised=False)
TIMES = np.linspace(0, 20, 41)

KINDS: dict[str, Callable[[], Any]] = {
    "trajectory": lambda: integrate(MIXTURE, RULE, Adversary(1.0), alpha=TIMES),
    "simulation": lambda: simulate(MIXTURE, FREE, Adversary(1.0), alpha=TIMES[::10], N=50, runs=6, rng=1),
    "one run": lambda: simulate(MIXTURE, RULE, Adversary(1.0), alpha=[20.0], N=50, runs=1, rng=1),
    "committee": lambda: integrate(MIXTURE, FREE, Adversary(1.0), alpha=TIMES, network=Committee()),
    "sweep": lambda: sweep(
        MIXTURE, RULE, Adversary(), over={"rho": np.linspace(1, 3, 9), "epsilon": [0.0, 0.5]}, alpha=[10.0, 20.0]
    ),
    "fixed points": lambda: fixed_points(GaussianMixture(p=0.6), RULE, Adversary(1.6)),
    "equilibria": lambda: sweep(
        GaussianMixture(p=0.6), RULE, Adversary(), over={"epsilon": np.linspace(0, 2, 5)}, compute="equilibria"
    ),
    "branches": lambda: branches(GaussianMixture(p=0.6), RULE, Adversary(), values=np.linspace(0, 2, 5)),
    "boundary": lambda: phase_boundary(GaussianMixture(p=0.6), RULE, parameter="rho", values=[1.0, 2.0]),
    "bifurcations": lambda: critical_epsilon(GaussianMixture(p=0.6), RULE),
    "curve": lambda: robustness_curve(0.9, 0.1, MIXTURE),
    "classifier": lambda: optimal_classifier(MIXTURE, 0.5),
    "times": lambda: relaxation_time(MIXTURE, RULE, Adversary(1.0)),
}


@cache
def result(kind: str) -> Any:
    return KINDS[kind]()


def tabulars(text: str) -> list[list[list[str]]]:
    """Return the cells of each tabular: a list of rows, the head first."""
    found = re.findall(r"\\begin\{tabular\}\{.*?\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    return [
        [line.removesuffix(r"\\").split(" & ") for line in part.splitlines() if line.endswith(r"\\")] for part in found
    ]


def value(cell: str) -> float:
    """Return the number in a cell."""
    mantissa, _, power = cell.strip("$ ").partition(r"\times10^{")
    return float(re.sub(r"\(.*\)", "", mantissa)) * 10.0 ** int(power.rstrip("}") or 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_balanced_and_its_formulas_can_be_read(kind: str) -> None:
    from matplotlib.mathtext import MathTextParser

    text = latex(result(kind), caption="50 % of A_B & C", label="tab:x")
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    bare = re.sub(r"\\.", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    parser: Any = MathTextParser("path")
    for rows in tabulars(text):
        assert {len(row) for row in rows} == {len(rows[0])}
        assert len(rows) > 1
        for cell in (cell for row in rows for cell in row):
            for formula in re.findall(r"\$[^$]*\$", cell):
                parser.parse(formula)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_all_of_them_compile(tmp_path: Path) -> None:
    hostile = r"#1 \foo {x} ~ ^ _ & % $ < > | \\ ε"
    hostile = hostile.removesuffix(" ε")
    body = "\n\\clearpage\n".join(latex(result(kind), rows=6, caption=hostile) for kind in KINDS)
    source = "\\documentclass{article}\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "a.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-800:]


def test_a_trajectory_has_its_numbers_and_its_parameters() -> None:
    run = result("trajectory")
    parameters, rows = tabulars(latex(run, rows=5))
    assert [cell.strip() for cell in rows[0]] == [r"$\alpha$", "$R$", "$b$", "$E$", "$S$"]
    assert [value(row[0]) for row in rows[1:]] == [0, 5, 10, 15, 20]
    chosen = run.sel(alpha=[0, 5, 10, 15, 20])
    for column, name in enumerate(("R", "b", "error", "adversarial_error"), start=1):
        np.testing.assert_allclose([value(row[column]) for row in rows[1:]], chosen[name], atol=0.0006)
    found = {row[0].strip(): row[2].strip() for row in parameters[1:]}
    assert found["$p$"] == "$0.7$"
    assert found[r"$\varepsilon$"] == "$1$"
    assert parameters[1][1].strip() == LABELS["p"][0]
    assert [row[2].strip() for row in parameters if row[1].strip() == LABELS["loss"][0]] == ["squared"]


def test_a_simulation_has_means_with_standard_errors() -> None:
    sample = result("simulation")
    _, rows = tabulars(latex(sample))
    head = [cell.strip() for cell in rows[0]]
    assert head == [r"$\alpha$", "$R$", "$b$", "$Q$", r"$R/\sqrt{Q}$", r"$b/\sqrt{Q}$", "$E$", "$S$"]
    last = dict(zip(head, [cell.strip() for cell in rows[-1]], strict=True))
    mean, error = (float(f(sample.R.isel(alpha=-1))) for f in (np.mean, lambda x: np.std(x, ddof=1) / math.sqrt(6)))
    assert last["$R$"] == with_error(mean, error)
    assert "(" not in latex(result("one run")).split(r"\medskip")[1].split("hline", 3)[3]


def test_points_are_thinned_out_evenly_and_it_is_said() -> None:
    text = latex(result("sweep"), rows=6)
    assert "% at alpha = 20, the last of 2" in text
    assert "% 6 of 18 points" in text
    rows = [[value(cell) for cell in row[:2]] for row in tabulars(text)[1][1:]]
    assert rows == [[rho, epsilon] for rho in (1, 2, 3) for epsilon in (0, 0.5)]
    assert len(tabulars(latex(result("sweep")))[1]) == 1 + 18
    assert len(tabulars(latex(result("sweep"), rows=1))[1]) == 1 + 1
    with pytest.raises(ValueError, match="rows = 0"):
        latex(result("sweep"), rows=0)


@pytest.mark.parametrize("kind", ["fixed points", "equilibria", "branches"])
def test_fixed_points_have_their_stability_and_time(kind: str) -> None:
    found = result(kind)
    _, rows = tabulars(latex(found, rows=1000))
    head = [cell.strip() for cell in rows[0]]
    words = [row[head.index("stability")].strip() for row in rows[1:]]
    there = found.R.notnull()
    assert len(words) == int(there.sum())
    assert words.count("stable") == int((found.stable & there).sum())
    rate = found.growth_rate if kind == "branches" else found.eigenvalues.real.max("eigenvalue")
    times = (-1 / rate).where(found.stable & there)
    shown = [value(row[head.index("relaxation time")]) for row in rows[1:] if row[head.index("relaxation time")].strip() != "--"]  # fmt: skip
    np.testing.assert_allclose(sorted(shown), np.sort(times.values[np.isfinite(times.values)]), rtol=1e-3)


def test_what_is_no_result() -> None:
    with pytest.raises(TypeError, match="allowed are Datasets and DataArrays"):
        latex([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to show"):
        latex(xr.Dataset({"name": ("x", ["a", "b"])}))


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.1234, 0.0041, "$0.123(4)$"),
        (0.12345, 0.0012, "$0.1235(12)$"),
        (-0.0004, 0.0011, "$-0.0004(11)$"),
        (0.5, 0.0096, "$0.500(10)$"),
        (0.5, 0.096, "$0.50(10)$"),
        (12.34, 1.42, "$12.3(1.4)$"),
        (12.34, 3.0, "$12(3)$"),
        (1234.0, 56.0, "$1230(60)$"),
        (1234.0, 130.0, "$1230(130)$"),
        (1.5e-7, 3e-9, r"$1.50(3)\times10^{-7}$"),
        (2.5e9, 1.2e8, r"$2.50(12)\times10^{9}$"),
        (0.0, 0.002, r"$0.000(2)$"),
        (0.25, 0.0, "$0.2500$"),
        (float("nan"), 0.1, "--"),
        (0.25, float("nan"), "$0.2500$"),
    ],
)
def test_uncertainty_by_rule(mean: float, error: float, text: str) -> None:
    assert with_error(mean, error) == text


@given(st.floats(-1e5, 1e5), st.floats(1e-9, 1e4))
@example(9.9999, 0.0999)
@example(0.99999, 0.95)
def test_an_uncertainty_can_be_read_back(mean: float, error: float) -> None:
    """The mean is kept to half of its last digit, and the error to the one or two digits that it has."""
    mantissa, _, power = with_error(mean, error).strip("$").partition(r"\times10^{")
    found = re.fullmatch(r"(-?[\d.]+)\(([\d.]+)\)", mantissa)
    assert found is not None
    scale = 10.0 ** int(power.rstrip("}") or 0)
    exponent = Decimal(found[1]).as_tuple().exponent
    assert isinstance(exponent, int)
    read = float(found[2]) * (1 if "." in found[2] else 10.0**exponent) * scale
    assert abs(read - error) <= 0.251 * read  # 0.249 is 0.2
    assert abs(float(found[1]) * scale - mean) <= 0.51 * read
    assert len(found[2].replace(".", "").strip("0")) <= 2


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        (0.16348802, "$0.1635$"),
        (-2.18974, "$-2.190$"),
        (0.99996, "$1.000$"),
        (1.107e19, r"$1.107\times10^{19}$"),
        (0.00012345, r"$1.234\times10^{-4}$"),
        (0.0, "$0$"),
        (float("inf"), r"$\infty$"),
        (float("-inf"), r"$-\infty$"),
        (float("nan"), "--"),
        (123456.0, "$123456$"),
    ],
)
def test_numbers_have_four_digits(given_value: float, text: str) -> None:
    assert number(given_value) == text


def test_text_means_nothing_to_latex() -> None:
    assert escaped("50% of a_b & {c}\n#1") == r"50\% of a\_b \& \{c\} \#1"
    assert escaped("\\x~^") == r"\textbackslash{}x\textasciitilde{}\textasciicircum{}"


def test_importing_odeflow_loads_no_picture() -> None:
    import sys

    code = (
        "import sys, odeflow; a = 'odeflow.plot' in sys.modules; odeflow.latex; print(a, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
