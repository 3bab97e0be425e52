"""What the study mnist_3v7 says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.common.bounds import none_below
from studies.common.tables import noted
from studies.mnist_3v7.figures import final
from studies.mnist_3v7.plan import ATTACKED, NORMS, TRAININGS, Setting
from studies.registry import Claim, contest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "table"]


def claims(data: xr.Dataset, setting: Setting) -> Iterator[Claim]:
    """Yield what the study claims."""
    for norm in NORMS:
        yield _lowers(data, norm, setting.epsilon[norm])
    theory, simulated = final(data)
    clean = simulated.sel(norm="l2", level=0).mean("run")

    def costs(trainings: tuple[str, ...]) -> tuple[str, bool]:
        first, *others = (float(clean.sel(training=training)) for training in trainings)
        return ", ".join(f"{t} {float(clean.sel(training=t)):.4f}" for t in trainings), first - min(others) <= 0.005

    yield contest(
        "without an attack, standard training errs at most 0.005 more often than adversarial training",
        costs,
        TRAININGS,
        rival="adversarial training in linf in the place of standard training",
        against=TRAININGS[::-1],
    )
    measured = simulated.mean("run")

    def within(expected: xr.DataArray) -> tuple[str, bool]:
        gap = abs(measured - expected)
        at = gap.isel(gap.argmax(...))
        where = f"{at.training.item()} training, {at.norm.item()}, epsilon = {at.test_epsilon.item():g}"
        return (
            f"largest difference {float(at):.3f} ({where}), mean {float(gap.mean()):.3f}",
            float(at) <= setting.tolerance,
        )

    yield contest(
        f"the theory's adversarial error is within {setting.tolerance} of the measured mean, for all trainings, norms and "
        "test epsilons",
        within,
        theory,
        rival="the theory of the other norm's training",
        against=_exchanged(theory),
    )

    def aligned(w: xr.DataArray) -> tuple[str, bool]:
        W = data.simulated_w
        lengths = np.sqrt((W**2).sum("feature") * (w**2).sum("feature"))
        least = float(((W * w).sum("feature") / lengths).min())
        return f"least {least:.3f}", least > 0.95

    yield contest(
        "the theory's weights have a cosine above 0.95 with the measured ones, in every run",
        aligned,
        data.w,
        rival="the theory of the other norm's training",
        against=_exchanged(data.w),
    )

    def sparsest(training: str) -> tuple[str, bool]:
        ratio = data.simulated_sparsity
        others = [other for other in TRAININGS if other != training]
        text = ", ".join(f"{t} {float(ratio.sel(training=t).mean()):.2f}" for t in (training, *others))
        return text, bool((ratio.sel(training=training) < ratio.sel(training=others)).all())

    yield contest(
        "adversarial training in linf makes the weights sparser: |w|_1 / |w|_2 is the least of all, in every run",
        sparsest,
        "linf",
        rival="adversarial training in l2 in its place",
        against="l2",
    )
    yield _bound(data, simulated)


def _bound(data: xr.Dataset, simulated: xr.DataArray) -> Claim:
    """Compare SGD after every training, in every run, with what no classifier can avoid."""
    least = simulated.min(["training", "run"]).stack(case=("norm", "level"))
    bound, larger = (
        data[name].sel(level=simulated.level).stack(case=("norm", "level")) for name in ("bound", "bound_at_larger")
    )
    names = [f"{norm} {data.test_epsilon.sel(norm=norm, level=level).item():.3g}" for norm, level in least.case.values]
    return none_below(least.values, bound.values, larger.values, names)


def _lowers(data: xr.Dataset, norm: str, epsilon: float) -> Claim:
    """Compare the errors on the same images of standard training's first run with those of another classifier."""
    wrong, last = (
        (data.label * data[name].sel(attack=norm) <= 0).astype(float) for name in ("simulated_output", "last_output")
    )
    standard = wrong.sel(training="standard")

    def lower(other: xr.DataArray) -> tuple[str, bool]:
        less = standard - other
        mean, error = less.mean().item(), less.std(ddof=1).item() / less.size**0.5
        text = f"from {float(standard.mean()):.3f} to {float(other.mean()):.3f}, by {mean:.3f} +- {error:.3f}"
        return text, mean > 2 * error

    return contest(
        f"adversarial training in {norm} lowers the adversarial error at epsilon = {epsilon:g}, by more than 2 standard "
        "errors over the test images, first run",
        lower,
        wrong.sel(training=norm),
        rival="another run of standard training",
        against=last.sel(training="standard"),
    )


def _exchanged(theory: xr.DataArray) -> xr.DataArray:
    """Return a theory with the trainings of the two norms exchanged."""
    return theory.sel(training=["standard", *NORMS[::-1]]).assign_coords(training=list(TRAININGS))


def table(data: xr.Dataset) -> str:
    """Return errors and sparsity, theory beside SGD."""
    columns: dict[str, dict[str, Any]] = {"E": {"norm": "l2", "level": 0}}
    columns |= {f"S({data.test_epsilon.sel(at).item():g}), {at['norm']}": at for at in ATTACKED}
    lines = noted(data)
    lines.append(f"{data.attrs['title']}, {data.sizes['image']} test images")
    lines.append(f"{'training':10}" + "".join(f"{text:>23}" for text in (*columns, "|w|_1/|w|_2")) + f"{'cosine':>9}")
    lines.append(f"{'':10}" + f"{'theory    SGD      ':>23}" * 4)
    for training in TRAININGS:
        one = data.sel(training=training)
        theory, simulated = final(one)
        pairs = [(theory.sel(at).item(), simulated.sel(at)) for at in columns.values()]
        pairs.append((one.sparsity.item(), one.simulated_sparsity))
        cells = "".join(f"{line:9.3f}{runs.mean().item():7.3f}({runs.std(ddof=1).item():.3f})" for line, runs in pairs)
        lines.append(f"{training:10}{cells}{one.cosine.mean().item():9.3f}")
    lines.append("(in brackets: standard deviation over runs; cosine: of the weights in theory and by SGD)")
    for norm in NORMS:
        cells = ", ".join(f"{t} {data.clipped_error.sel(training=t, attack=norm).item():.3f}" for t in TRAININGS)
        lines.append(f"the same S in {norm} with pixels clipped to [0, 1] after the attack: {cells}")
    for norm in NORMS:
        at = data.bound.sel(norm=norm)
        lines.append(
            f"no classifier of these test images has a smaller S in {norm} than {at.sel(level=1).item():.3f} at {data.test_epsilon.sel(norm=norm, level=1).item():g}, "
            f"and {at[-1].item():.3f} at {data.test_epsilon.sel(norm=norm)[-1].item():g}"
        )
    theory, simulated = final(data)
    means = [float(abs(simulated.mean("run") - line).mean()) for line in (theory, data.limit_adversarial_error)]
    lines.append(
        f"mean difference of S from SGD: theory {means[0]:.4f}, its limit eta -> 0 {means[1]:.4f}: no claim tells the two apart"
    )
    exceptions = int(data.exceptions.sum())
    checked = data.exceptions.size * data.sizes["image"] * (data.sizes["simulated_level"] - 1)
    lines.append(
        f"attacks that do not turn an image just if its margin is at most epsilon |w|_*: {exceptions} of {checked}"
    )
    return "\n".join(lines)
