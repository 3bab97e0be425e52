"""Command line ``odeflow``. Its flags are generated from the dataclasses of the model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from odeflow.cli.figures import Plot, Presented
from odeflow.cli.flags import CHOICES, Learner, chosen, with_choices
from odeflow.cli.parsing import parsed
from odeflow.cli.program import run
from odeflow.cli.sweep import Sweep, output_times
from odeflow.model import checked_count
from odeflow.parameters import entries_of
from odeflow.provenance import SaveError, check_target, package_version, save

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import xarray as xr

__all__ = ["main"]


@dataclass(frozen=True)
class _Model(Presented, Learner):
    alpha_max: float = 100.0
    """End of learning time, in examples per dimension, > 0."""
    points: int = 201
    """Number of output times from 0 to alpha_max, >= 2."""
    test_epsilon: float | None = None
    """Perturbation at which the adversarial error is evaluated, >= 0; default: epsilon."""
    out: Path | None = None
    """Save the result to this file (.nc or .zarr)."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the result that is in the file. (Figures are drawn anew without it.)"""

    def check_targets(self) -> None:
        """Raise before any work if a result could not be saved."""
        if self.out is not None:
            check_target(self.out, overwrite=self.overwrite)
        self.check_presentation()

    def alpha(self) -> npt.NDArray[np.float64]:
        """Return the output times."""
        return output_times(self.alpha_max, checked_count("points", self.points, 2))

    def finish(self, result: xr.Dataset) -> None:
        """Save and plot what was asked for, then print the end of the result and where the files are."""
        files = [] if self.out is None else [save(result, self.out)]
        print(_table(result), *files, *self.present(result), sep="\n")


@dataclass(frozen=True)
class Integrate(_Model):
    """Theory: integrate the order parameters over learning time, with the classification and adversarial errors."""

    rtol: float | None = None
    """Relative tolerance of the order parameters; default: the network's, 1e-8 for the perceptron."""
    atol: float | None = None
    """Absolute tolerance of the order parameters; default: the network's, 1e-10 for the perceptron."""
    fluctuations: tyro.conf.FlagCreatePairsOff[bool] = False
    """Add what runs at a finite N do beside the trajectory, exact to order 1/N: of the perceptron."""
    N: int | None = None
    """Dimension of the input, >= 3, at which means and standard deviations over runs are added, with --fluctuations."""
    sensitivities: tuple[str, ...] = ()
    """Parameters by which derivatives are added, such as rho epsilon R0: of the perceptron."""

    def run(self) -> None:
        """Run the command."""
        from odeflow.integrate import integrate

        self.check_targets()
        result = integrate(
            *self.parts(),
            alpha=self.alpha(),
            network=self.learner(),
            **self.initial(),
            rtol=self.rtol,
            atol=self.atol,
            test_epsilon=self.test_epsilon,
            fluctuations=self.fluctuations,
            N=self.N,
            sensitivities=self.sensitivities,
        )
        self.finish(result)


@dataclass(frozen=True)
class Simulate(_Model):
    """Monte Carlo: simulate one-pass SGD on attacked examples at finite N."""

    points: int = 21
    """Number of output times from 0 to alpha_max, >= 2."""
    N: int = 1000
    """Dimension of the input, >= 3 (direct: >= 2); of K units and n centres or teachers >= n + K + 1 (n + K)."""
    runs: int = 100
    """Independent repetitions, >= 1."""
    method: Literal["reduced", "direct"] = "reduced"
    """reduced: the same law of the order parameters at a cost that does not depend on N; direct: vectors in R^N."""
    seed: int | None = None
    """Seed, >= 0; default: fresh, and recorded in the result."""

    def run(self) -> None:
        """Run the command."""
        from odeflow.simulate import simulate

        self.check_targets()
        if self.seed is not None:
            checked_count("seed", self.seed, 0)
        result = simulate(
            *self.parts(),
            N=self.N,
            alpha=self.alpha(),
            runs=self.runs,
            method=self.method,
            rng=self.seed,
            network=self.learner(),
            **self.initial(self.N, self.runs),
            test_epsilon=self.test_epsilon,
            progress=True,
        )
        self.finish(result)


@dataclass(frozen=True)
class FixedPoints(Presented, Learner):
    """Fixed points of the theory, with their stability and relaxation times: of the seed's model, all of them."""

    test_epsilon: float | None = None
    """Perturbation at which the adversarial error is evaluated, >= 0; default: epsilon."""
    out: Path | None = None
    """Save the result to this file (.nc or .zarr)."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the result that is in the file. (Figures are drawn anew without it.)"""

    def run(self) -> None:
        """Run the command."""
        from odeflow.fixed_points import fixed_points

        if self.out is not None:
            check_target(self.out, overwrite=self.overwrite)
        self.check_presentation()
        result = fixed_points(*self.parts(), network=self.learner(), test_epsilon=self.test_epsilon)
        files = [] if self.out is None else [save(result, self.out)]
        print(_fixed_point_table(result), *files, *self.present(result), sep="\n")


EXAMPLES = {
    "": (
        "integrate --p 0.7 --epsilon 1 --rho 3 --out run.nc --plot run.pdf",
        "plot run.nc --save run.png",
        "--tyro-print-completion bash > ~/.local/share/bash-completion/completions/odeflow  (or zsh, tcsh)",
    ),
    "integrate": (
        "integrate --p 0.7 --epsilon 1 --rho 3 --out run.nc --plot run.pdf",
        "integrate --loss logistic --activation linear --no-normalised --alpha-max 1000 --points 1001",
        "integrate --network committee --hidden 2 --M0 0.2 0.05 --Q0 0.5 0.1 0.1 0.3 --eta-c 0.2 --epsilon 0.4",
        "integrate --network committee --hidden 4 --activation relu --data xor --spread 0.1 --start-size 0.5 --c0 1 1 -1 -1",
    ),
    "simulate": (
        "simulate --p 0.7 --epsilon 1 --N 500 --runs 50 --seed 1 --plot points.pdf",
        "simulate --N 1e6 --runs 20 --alpha-max 10 --out large.zarr",
        "simulate --method direct --N 100 --fraction 0.5 --epsilon 1",
        "simulate --network committee --hidden 2 --data teacher --teacher-units 2 --start-size 0.1 --runs 20 --attack worst",
    ),
    "sweep": (
        "sweep --p 0.7 --over rho=0.5:4:50 --over epsilon=0:2:41 --out sweep.nc",
        "sweep --over eta_w=log:0.001:1:31 --over second_order=True,False --out rates.nc",
        "sweep --compute simulate --over N=10,30,100 --runs 50 --seed 1 --out sizes.nc --workers 2",
        "sweep --network committee --hidden 2 --M0 0.2 0.1 --over epsilon=0:1:21 --over rho=1,2,3 --out two_layers.nc",
        "sweep --compute equilibria --p 0.7 --over epsilon=0:2:81 --out phases.zarr --resume",
    ),
    "fixed-points": ("fixed-points --p 0.7 --epsilon 1", "fixed-points --loss hinge --epsilon 0.5 --out points.nc"),
    "plot": ("plot run.nc", "plot sweep.zarr --save sweep.png"),
}
"""What the help of each command ends with."""

COMMANDS = ("integrate", "simulate", "sweep", "fixed-points", "plot")


def types_of(arguments: list[str]) -> Any:
    """Return the commands, with the flags of the network and the data that the arguments choose."""
    kinds = chosen(arguments)
    return (
        Annotated[with_choices(Integrate, *kinds), tyro.conf.subcommand("integrate")]
        | Annotated[with_choices(Simulate, *kinds), tyro.conf.subcommand("simulate")]
        | Annotated[with_choices(Sweep, *kinds), tyro.conf.subcommand("sweep")]
        | Annotated[with_choices(FixedPoints, *kinds, starts=False), tyro.conf.subcommand("fixed-points")]
        | Annotated[Plot, tyro.conf.subcommand("plot")]
    )


def _elsewhere(arguments: list[str]) -> dict[str, Any]:
    """Return the commands with another network, or other data, than the arguments choose, by how that is chosen."""
    now = dict(zip(CHOICES, chosen(arguments), strict=True))
    return {
        f"{flag} {word}": types_of([part for pair in (now | {flag: word}).items() for part in pair])
        for flag, words in CHOICES.items()
        for word in words
        if word != now[flag]
    }


_MEASURES = {
    "error": "E", "fgsm_error": "S_FGSM({})", "adversarial_error": "S({})", "loss": "loss", "adversarial_loss": "loss({})",
}  # fmt: skip
"""What is printed last, and how: with the perturbation that it is at."""
_NOT_SHOWN = ("status", "stable", "eigenvalues", "covariance", "mean_correction")
_AROUND = ("_mean", "_sd", "_derivative")  # of a variable: on lines of their own


def _entries(result: xr.Dataset, dims: tuple[str, ...]) -> dict[str, xr.DataArray]:
    """Return every number of a result by name: those of an array variable one by one, with their indices."""
    entries: dict[str, xr.DataArray] = {}
    shown = [str(name) for name in result.data_vars if name not in (*_MEASURES, *_NOT_SHOWN)]
    names = [name for name in shown if not name.endswith(_AROUND)]
    for name in (*names, *(name for name in _MEASURES if name in result)):
        text = _MEASURES.get(name, name).format(f"{float(result.test_epsilon):g}")
        others = [dim for dim in result[name].dims if dim not in dims]
        several = any(result.sizes[dim] > 1 for dim in others)
        for index, values in entries_of(result[name], others):
            entries[text + "".join(str(i + 1) for i in index) if several else text] = values
    return entries


def _table(result: xr.Dataset) -> str:
    """Return the last row of a result as text: values, or mean and standard error over runs."""
    final = result.isel(alpha=-1)
    cells = [f"alpha = {float(final.alpha):g}"]
    runs = result.sizes.get("run", 1)
    for name, values in _entries(final, ("run",)).items():
        if runs > 1:
            error = float(values.std(ddof=1)) / runs**0.5
            cells.append(f"{name} = {float(values.mean()):.6f} +- {error:.6f}")
        else:
            cells.append(
                f"{name} = {values.item():.2g}" if name == "quadrature_error" else f"{name} = {values.item():.8f}"
            )
    return "\n".join(["  ".join(cells), *_around(final)])


def _around(final: xr.Dataset) -> list[str]:
    """Return what the theory says of runs at N, and of changes of parameters, a line each."""
    names = [str(name) for name in final.data_vars if f"{name}_derivative" in final or f"{name}_sd" in final]
    lines = []
    if "covariance" in final and "N" not in final.coords:
        diagonal = [
            (name, float(final.covariance.sel(order_parameter=name, other=name)))
            for name in final.order_parameter.values
        ]
        lines.append("N times the variance over runs: " + "  ".join(f"{name} {value:.6g}" for name, value in diagonal))
    texts = {name: _MEASURES.get(name, name).format(f"{float(final.test_epsilon):g}") for name in names}
    if "N" in final.coords and any(f"{name}_sd" in final for name in names):
        cells = [
            f"{text} = {float(final[f'{name}_mean']):.6f} (s.d. {float(final[f'{name}_sd']):.2g})"
            for name, text in texts.items()
        ]
        lines.append(f"at N = {int(final.N)}: " + "  ".join(cells))
    for i, parameter in enumerate(final["parameter"].values.tolist() if "parameter" in final else ()):
        cells = [f"{text} {float(final[f'{name}_derivative'][i]):.6g}" for name, text in texts.items()]
        lines.append(f"by {parameter}: " + "  ".join(cells))
    return lines


def _fixed_point_table(result: xr.Dataset) -> str:
    """Return the fixed points as text, one a line."""
    if result.sizes["fixed_point"] == 0:
        return "no fixed point at a finite bias: the bias runs away"
    entries = _entries(result, ("fixed_point",))
    lines = ["".join(f"{name:>14}" for name in entries) + "  stability"]
    for i in range(result.sizes["fixed_point"]):
        largest = float(result.eigenvalues[i].real.max())
        time = f", relaxation time {-1 / largest:.4g}" if largest < 0 else ""
        cells = "".join(f"{values[i].item():14.8f}" for values in entries.values())
        lines.append(f"{cells}  {'stable' if result.stable[i].item() else 'unstable'}{time}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run ``odeflow`` and return its exit status: 0 done, 1 a computation or save failed, 2 bad input."""
    from odeflow.integrate import IntegrationError
    from odeflow.sweeps.executors import SweepError

    given = sys.argv[1:] if arguments is None else arguments
    failures = (SaveError, IntegrationError, SweepError)
    return run("odeflow", lambda: _work(given), failures=failures, interrupted=_interrupted)


def _work(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"odeflow {package_version()}")
        return 0
    parsed(
        types_of(arguments),
        arguments,
        prog="odeflow",
        commands=COMMANDS,
        description="Theory of adversarial training in a solvable model. odeflow --version prints the version.",
        examples=EXAMPLES,
        choices=CHOICES,
        elsewhere=lambda: _elsewhere(arguments),
    ).run()
    return 0


def _interrupted(interrupt: KeyboardInterrupt) -> str:
    return f"{interrupt}; run the same command with --resume" if str(interrupt) else "interrupted"
