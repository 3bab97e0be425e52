"""What the study deep_on_mnist finds in its nets: how good the predictions are, what it claims, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from studies.common.tables import describe, noted
from studies.deep_on_mnist.measure import MEASURED, NEAR, Setting
from studies.registry import Claim

__all__ = ["claims", "judged", "table"]

Array = npt.NDArray[np.float64]

SATURATED = 0.98
"""Where more of the images are turned, S = 1 is easy to predict."""
NAMED = 0.3


def judged(data: xr.Dataset) -> xr.Dataset:
    """Give every variable its name, and add how far the predictions are from the measured curve, up to the training epsilon and beyond.

    After standard training the least epsilon of AT in that norm has the place of the training epsilon.
    """
    radius = data.epsilon.values.copy()
    for norm in np.unique(data.norm):
        of_norm = data.norm.values == norm
        radius[of_norm & (radius == 0)] = radius[of_norm & (radius > 0)].min()
    data = data.assign_coords(radius=("case", radius))
    inside = data.test_epsilon <= data.radius + 1e-9
    at = xr.DataArray(
        np.argmin(abs(data.test_epsilon - data.radius).transpose("case", "test").values, axis=1), dims="case"
    )
    every = data.isel(size=xr.DataArray(MEASURED, dims="test"))
    gap = every.locally_linear - data.measured
    gaussian = every.gaussian - data.measured
    checked = data.checked_locally_linear - data.checked_measured
    before = inside & (abs(data.test_epsilon - data.radius) > 1e-9)  # what is checked on more images is left to that
    miss = np.fmax(abs(gap).where((checked.isnull() & inside) | before).max("test"), abs(checked))
    found = data.assign(
        gap=gap,
        checked_gap=checked,
        miss=miss,
        gaussian_miss=abs(gaussian).where(inside).max("test"),
        miss_beyond=abs(gap).where(~inside).max("test"),
        theory_miss=abs(every.theory - data.measured.mean("run")).max("test"),
        inside_disagreement=data.disagreement.isel(test=at),
        inside_nonlinearity=data.nonlinearity.isel(test=at),
        inside_near=data.near.isel(test=at),
        inside_measured=data.measured.isel(test=at),
        half=_at_half(data.measured, data.test_epsilon),
        named_at_half=_at_half(data.measured, every.locally_linear),
    )
    return _described(found)


def _at_half(measured: xr.DataArray, values: xr.DataArray) -> xr.DataArray:
    """Return the values at the size of the attack at which half of the images are turned; NaN if that is not reached."""

    def one(S: Array, given: Array) -> float:
        return float(np.interp(0.5, S, given)) if S[-1] >= 0.5 > S[0] else np.nan  # NaN compares as False

    half: xr.DataArray = xr.apply_ufunc(one, measured, values, input_core_dims=[["test"], ["test"]], vectorize=True)
    return half


def _described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    names = {
        "measured": "adversarial error measured with PGD, in the box or not",
        "boxed": "adversarial error measured with PGD in the box [0, 1]",
        "locally_linear": "adversarial error predicted from the linear approximations at the images",
        "gaussian": "adversarial error predicted from Gaussian margins",
        "theory": "adversarial error after learning, theory with the noise of SGD",
        "disagreement": "share of the images that are turned by PGD or by the locally linear prediction, but not by both",
        "near": f"share of the images whose predicted distance differs by less than {NEAR:.0%} from the attack's size",
        "nonlinearity": "mean deviation from the linear approximation where PGD goes, over its largest change",
        "coherence": "length of the mean of the gradients' directions",
        "R_eff": "effective overlap of the gradients with a direction, mean over the images",
        "R_mean_gradient": "overlap of the mean gradient with a direction",
        "b_eff": "effective bias",
        "zero_gradients": "number of images with a gradient of zero",
        "gap": "locally linear prediction less measured adversarial error",
        "checked_measured": "adversarial error of AT nets at their epsilon, measured with PGD on more images",
        "checked_locally_linear": "the same, predicted from the linear approximations",
        "checked_gap": "prediction less measured error, on more images",
        "miss": "largest absolute gap up to the radius, at the training epsilon that on more images",
        "gaussian_miss": "the same for Gaussian margins",
        "miss_beyond": "largest absolute gap beyond the radius",
        "theory_miss": "largest difference of theory and mean measured adversarial error",
        "inside_disagreement": "disagreement at the radius",
        "inside_nonlinearity": "deviation from the linear approximation at the radius",
        "inside_near": "share of the images near the boundary at the radius",
        "inside_measured": "measured adversarial error at the radius",
        "half": "size of the attack at which half of the images are turned, measured",
        "named_at_half": "locally linear prediction of the adversarial error at that size",
        "case": "net, norm, and size of the perturbation in training",
        "net": "kind of net",
        "norm": "norm of the perturbation, in training and testing",
        "epsilon": "size of the perturbation in training, 0 for standard training",
        "radius": "training epsilon; for standard training the least one of adversarial training",
        "size_epsilon": "size of the perturbation in testing",
        "test_epsilon": "size of the perturbation in testing, where it is measured",
        "direction": "between the class means, or weights of a linear classifier after the same training, in theory",
        "run": "seed of the training",
    }
    describe(data, names)
    return data


def claims(data: xr.Dataset, setting: Setting) -> Iterator[Claim]:
    """Yield what the study claims of its nets."""
    deep, linear, at = data.net != "linear", data.net == "linear", data.epsilon > 0
    largest = data.miss.where(deep & at).max("run")
    worst = str(data.case.values[np.nanargmax(largest)])
    yield Claim(
        f"AT nets: the locally linear prediction is within {setting.within:g} of the PGD curve up to the training epsilon",
        f"largest difference {float(largest.max()):.3f} ({worst})",
        bool(largest.max() <= setting.within),
        rival="nets after standard training, of which it misses up to 0.24 at the same attack on MNIST (a claim below)",
    )
    found = float(data.disagreement.where(linear).max())
    yield Claim(
        "linear classifiers: PGD turns the images that the locally linear prediction names, but for 0.5 % of them",
        f"at most {found:.2%} are others",
        found <= 0.005,
        rival="PGD that is too weak or in another norm, or margins over the wrong dual norm",
    )
    pairs = zip(data.norm.values, data.epsilon.values, strict=True)
    least = linear & [bool(epsilon == setting.trainings[norm][0]) for norm, epsilon in pairs]
    found = float(data.theory_miss.where(least).max())
    yield Claim(
        "linear classifiers, at the epsilons of the study theory_on_data, the least of AT: the theory on data is within "
        f"{setting.theory_within:g} of their curve",
        f"largest difference {found:.3f}",
        found <= setting.theory_within,
        rival="the theory for eta -> 0, whose S the study theory_on_data finds off by up to 0.2 in L-infinity",
    )
    rows = [row for row in _same_size(data, "convolutional") if row["standard"]["measured"] < SATURATED]
    for key, text in (
        ("gap", "errs no more after AT with it than after standard training"),
        ("near", "has no more images near the boundary after AT with it than after standard training"),
    ):
        values = [(row["at"][key], row["standard"][key]) for row in rows]
        yield Claim(
            f"convolutional nets: at an epsilon where S < {SATURATED:g} after standard training, the prediction {text}",
            ", ".join(f"{after:.3f} for {before:.3f}" for after, before in values),
            all(after <= before for after, before in values),
            rival="the null that adversarial training makes a net no more linear: each pair would as often be the other way round",
        )
    named = data.named_at_half.mean("run").where(deep & at)
    yield Claim(
        f"AT nets: beyond, where PGD turns half of the images, the locally linear prediction is that less than {NAMED:g} are",
        f"{float(named.min()):.2f} to {float(named.max()):.2f}",
        bool(named.max() < NAMED),
        rival="a prediction that holds at any size: it would say half",
    )


def _same_size(data: xr.Dataset, net: str) -> list[dict[str, Any]]:
    """Return standard and AT nets beside each other, under the attack of the training: means over runs.

    To first order the prediction errs by the density of the predicted distances, in units of epsilon, times the share
    of epsilon by which the net's deviation from linear moves the boundary: the estimate.
    """
    rows = []
    for one in data.case.values[(data.net == net) & (data.epsilon > 0)]:
        trained = data.sel(case=one)
        standard = data.isel(
            case=np.flatnonzero((data.net == net) & (data.norm == trained.norm) & (data.epsilon == 0))[0]
        )
        row: dict[str, Any] = {"net": net, "norm": trained.norm.item(), "epsilon": trained.epsilon.item()}
        for name, which in (("standard", standard), ("at", trained)):
            k = int(np.argmin(abs(which.test_epsilon.values - trained.epsilon.item())))
            found = {key: float(which[key].isel(test=k).mean()) for key in ("measured", "near", "nonlinearity")}
            found["locally_linear"] = float(which.locally_linear.isel(size=MEASURED[k]).mean())
            found["gap"] = float(abs(which.gap.isel(test=k)).mean())
            found["estimate"] = found["near"] / (2 * NEAR) * found["nonlinearity"]
            row[name] = found
        rows.append(row)
    return rows


def table(data: xr.Dataset, setting: Setting) -> str:
    """Return the numbers of every training, and standard and adversarial training under the same attack."""
    lines = noted(data)
    lines += [
        f"{data.attrs['title']}; means over "
        + ", ".join(f"{runs} {net}" for net, runs in setting.runs.items())
        + " nets for each training",
        "",
        f"{'':25}{'E':>7}{'S(eps)':>8}{'largest error of prediction':^30}{'half turned':^17}{'gradients':^24}",
        f"{'net, training eps':25}{'':15}{'local.lin.':>11}{'Gauss':>7}{'beyond':>8}{'s.d.':>6}{'at':>8}{'predict.':>9}"
        + f"{'coher.':>8}{'R':>6}{'of mean':>8}",
    ]
    for case in data.case.values:
        one = data.sel(case=case)
        mean = one.mean("run")
        net, training = str(case).split(", ")
        training = training if one.epsilon else f"standard ({one.norm.item()})"
        lines.append(
            f"{net[:6] if net == 'linear' else net[:4] + '.':8}{training:17}{mean.measured[0].item():7.3f}"
            f"{mean.inside_measured.item():8.3f}{one.miss.max().item():11.3f}{one.gaussian_miss.max().item():7.3f}"
            f"{one.miss_beyond.max().item():8.3f}{one.gap.std('run', ddof=1).max().item():6.3f}"
            f"{mean.half.item():8.3f}{mean.named_at_half.item():9.3f}{mean.coherence.item():8.3f}"
            f"{mean.R_eff[1].item():6.2f}{mean.R_mean_gradient[1].item():8.2f}"
        )
    lines += [
        "S(eps), errors: up to the training epsilon, after standard training up to the least one of AT; largest over runs",
        "local.lin. of AT nets: at their epsilon on more images: "
        + ", ".join(f"{setting.checked[net]} for {setting.examples[net]} ({net})" for net in setting.nets),
        "R: cosine of the gradients with the weights of the linear classifier after the same training, in theory",
        "",
        "the same attack after standard training / after AT with it",
        f"{'':25}{'S, PGD':>15}{'S, loc.linear':>15}{'error':>15}{'estimate':>15}{'near':>15}{'nonlinearity':>15}",
    ]
    for net in setting.nets:
        for row in _same_size(data, net):
            names = ("measured", "locally_linear", "gap", "estimate", "near", "nonlinearity")
            pairs = (f"{row['standard'][name]:.3f}/{row['at'][name]:.3f}" for name in names)
            lines.append(
                f"{net[:4] + '.':8}{row['norm']} {row['epsilon']:<12g}" + "".join(f"{pair:>15}" for pair in pairs)
            )
    found = data.theory_miss.where(data.net == "linear").dropna("case")
    lines += [
        f"near: share of the images whose predicted distance is within {NEAR:.0%} of eps; nonlinearity: deviation from linear",
        "estimate of the error: density of the predicted distances, near / (2 x 25 %), times nonlinearity",
        "",
        "largest difference of S, theory on data and linear classifiers, after training in the norm with epsilon",
        ", ".join(
            f"{float(value):.3f} ({str(case).removeprefix('linear, ')})"
            for case, value in zip(found.case.values, found.values, strict=True)
        ),
    ]
    return "\n".join(lines)
