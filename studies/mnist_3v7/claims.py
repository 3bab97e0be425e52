"""What the study mnist_3v7 says: claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from studies.common.tables import noted
from studies.mnist_3v7.figures import final
from studies.mnist_3v7.plan import ATTACKED, NORMS, TRAININGS, Setting
from studies.registry import Claim

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["claims", "table"]


def claims(data: xr.Dataset, setting: Setting) -> Iterator[Claim]:
    """Yield what the study claims."""
    theory, simulated = final(data)
    wrong = (data.label * data.simulated_output <= 0).astype(float)
    for norm in NORMS:
        errors = wrong.sel(attack=norm)
        less = errors.sel(training="standard") - errors.sel(training=norm)
        mean, error = less.mean().item(), less.std(ddof=1).item() / less.size**0.5
        rates = [float(errors.sel(training=training).mean()) for training in ("standard", norm)]
        yield Claim(
            f"adversarial training in {norm} lowers the adversarial error at epsilon = {setting.epsilon[norm]:g}, by more "
            "than 2 standard errors over the test images",
            f"first run: from {rates[0]:.3f} to {rates[1]:.3f}, by {mean:.3f} +- {error:.3f}",
            mean > 2 * error,
            rival="the null that adversarial training changes nothing: the difference would be within its standard errors",
        )
    clean = simulated.sel(norm="l2", level=0).mean("run")
    most = float(clean.sel(training="standard") - clean.sel(training=list(NORMS)).min())
    yield Claim(
        "without an attack, standard training errs at most 0.005 more often than adversarial training",
        ", ".join(f"{training} {float(clean.sel(training=training)):.4f}" for training in TRAININGS),
        most <= 0.005,
        rival="adversarial training as a regulariser that lowers the clean error, too",
    )
    gap = abs(simulated.mean("run") - theory)
    at = gap.isel(gap.argmax(...))
    yield Claim(
        f"the theory's adversarial error is within {setting.tolerance} of the measured mean, for all trainings, norms and "
        "test epsilons",
        f"largest difference {float(at):.3f} ({at.training.item()} training, {at.norm.item()}, epsilon = "
        f"{at.test_epsilon.item():g}), mean {float(gap.mean()):.3f}",
        float(at) <= setting.tolerance,
        rival="the theory of the other norm's training, whose S differs by up to 0.6 (on the digits)",
    )
    yield Claim(
        "the theory's weights have a cosine above 0.95 with the measured ones, in every run",
        f"least {float(data.cosine.min()):.3f}",
        float(data.cosine.min()) > 0.95,
        rival="the theory of the other norm's training, whose weights have a cosine of 0.75 with these (on the digits)",
    )
    ratio = data.simulated_sparsity
    yield Claim(
        "adversarial training in linf makes the weights sparser: |w|_1 / |w|_2 is the least of all, in every run",
        ", ".join(f"{training} {float(ratio.sel(training=training).mean()):.2f}" for training in TRAININGS),
        bool((ratio.sel(training="linf") < ratio.sel(training=["standard", "l2"])).all()),
        rival="the null that the norm of the attack does not matter, or that any attack makes weights sparse",
    )
    exceptions = int(data.exceptions.sum())
    checked = data.exceptions.size * data.sizes["image"] * (data.sizes["simulated_level"] - 1)
    yield Claim(
        "the perturbation of size epsilon turns those images whose margin is at most epsilon |w|_*, and no others",
        f"{exceptions} exceptions in {checked} attacks",
        exceptions == 0,
        rival="a perturbation that is not the steepest, such as one with permuted pixels: hundreds of exceptions",
    )


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
    return "\n".join(lines)
