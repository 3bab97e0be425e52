"""What the study deep_on_mnist finds in its nets: how good the predictions are, what it claims, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from studies.common.tables import describe, noted
from studies.deep_on_mnist.measure import MEASURED, NEAR, Setting
from studies.registry import Claim, contest

__all__ = ["claims", "judged", "main_net", "table"]

Array = npt.NDArray[np.float64]

SATURATED = 0.98
"""Where more of the images are turned, S = 1 is easy to predict."""
NAMED = 0.3
FEWEST = 5
"""Images of which there must be something before a share of it can be judged."""


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

    def within(trained: xr.DataArray) -> tuple[str, bool]:
        largest = data.miss.where(deep & trained).max("run")
        worst = str(data.case.values[np.nanargmax(largest)])
        return f"largest difference {float(largest.max()):.3f} ({worst})", bool(largest.max() <= setting.within)

    yield contest(
        f"AT nets: the locally linear prediction is within {setting.within:g} of the PGD curve up to the training epsilon",
        within,
        at,
        rival="nets after standard training, up to the least training epsilon",
        against=~at,
    )
    yield from _rise_claim(data, setting)
    found = data.disagreement.where(linear)

    def agree(share: xr.DataArray) -> tuple[str, bool]:
        return f"at most {float(share.max()):.2%} are others", float(share.max()) <= 0.005

    yield contest(
        "linear classifiers: PGD turns the images that the locally linear prediction names, but for 0.5 % of them",
        agree,
        found,
        rival="the prediction for the next smaller size of the attack",
        against=data.measured.where(linear).diff("test"),
    )
    pairs = zip(data.norm.values, data.epsilon.values, strict=True)
    least = linear & [bool(epsilon == setting.trainings[norm][0]) for norm, epsilon in pairs]

    def theory(miss: xr.DataArray) -> tuple[str, bool]:
        return f"largest difference {float(miss.max()):.3f}", float(miss.max()) <= setting.theory_within

    yield contest(
        "linear classifiers, at the epsilons of the study theory_on_data, the least of AT: the theory on data is within "
        f"{setting.theory_within:g} of their curve",
        theory,
        data.theory_miss.where(least),
        rival="the theory of standard training",
        against=_of_standard_theory(data).where(least),
    )
    for key, text in (
        ("gap", "errs by less than half of what it errs by after standard training"),
        ("near", "has less than half as many images near the boundary"),
    ):
        rows = _comparable(data, setting, key)
        if not rows:
            continue  # nothing to compare: the table says so
        before = [row["standard"][key] for row in rows]

        def less(after: list[float], before: list[float] = before) -> tuple[str, bool]:
            text = ", ".join(f"{a:.3f} for {b:.3f}" for a, b in zip(after, before, strict=True))
            return text, all(a < b / 2 for a, b in zip(after, before, strict=True))

        yield contest(
            f"{main_net(data)} nets: after AT with an epsilon where S < {SATURATED:g} after standard training, the prediction {text}",
            less,
            [row["at"][key] for row in rows],
            rival="the null that adversarial training makes a net no more linear",
            against=before,
        )

    def fails(named: xr.DataArray) -> tuple[str, bool]:
        named = named.mean("run").where(deep & at)
        return f"{float(named.min()):.2f} to {float(named.max()):.2f}", bool(named.max() < NAMED)

    yield contest(
        f"AT nets: beyond, where PGD turns half of the images, the locally linear prediction is that less than {NAMED:g} are",
        fails,
        data.named_at_half,
        rival="a prediction that holds at any size, and says half",
        against=0 * data.named_at_half + 0.5,
    )


def main_net(data: xr.Dataset) -> str:
    """Return the deep net that standard and adversarial training are compared on: the first one."""
    return next(str(net) for net in data.net.values if net != "linear")


def _rise_claim(data: xr.Dataset, setting: Setting) -> Iterator[Claim]:
    """Compare the prediction with what there is to predict: the rise of S above E at the training epsilon."""
    cases, rises, found = _rises(data, setting)
    if not cases:
        return  # the table says so

    def most(shares: list[float]) -> tuple[str, bool]:
        rows = zip(shares, rises, cases, strict=True)
        text = ", ".join(f"{share / rise:.0%} of {rise:.3f} ({case})" for share, rise, case in rows)
        return text, all(share > rise / 3 for share, rise in zip(shares, rises, strict=True))

    yield contest(
        "AT nets, at their epsilon: it names more than a third of the rise of S above E",
        most,
        found,
        rival="an attack that does nothing: S = E",
        against=[0.0] * len(found),
    )


def _rises(data: xr.Dataset, setting: Setting) -> tuple[list[str], list[float], list[float]]:
    """Return the trainings with enough images turned at their epsilon, the rises of S above E, measured and predicted."""
    cases = [str(case) for case in data.case.values[(data.net != "linear") & (data.epsilon > 0)]]
    rows = []
    for case in cases:
        one = data.sel(case=case)
        E = float(one.measured.isel(test=0).mean())
        S, predicted = (float(one[f"checked_{name}"].mean()) for name in ("measured", "locally_linear"))
        if (S - E) * setting.checked[str(one.net.values)] >= FEWEST:
            rows.append((case, S - E, predicted - E))
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _comparable(data: xr.Dataset, setting: Setting, key: str) -> list[dict[str, Any]]:
    """Return the attacks under which there is something to compare after standard training, of the first deep nets."""
    net = main_net(data)
    least = FEWEST / setting.examples[net]
    return [
        row
        for row in _same_size(data, net)
        if row["standard"]["measured"] < SATURATED and row["standard"][key] >= least
    ]


def _of_standard_theory(data: xr.Dataset) -> xr.DataArray:
    """Return what the theory of standard training and the linear classifiers of each case differ by."""
    theory = data.theory.isel(size=xr.DataArray(MEASURED, dims="test"))
    misses = []
    for k in range(data.sizes["case"]):
        of_norm = (data.net == "linear") & (data.norm == data.norm[k]) & (data.epsilon == 0)
        standard = theory.isel(case=int(np.flatnonzero(of_norm)[0]))
        misses.append(float(abs(standard - data.measured.isel(case=k).mean("run")).max()))
    found: xr.DataArray = data.theory_miss.copy(data=misses)
    return found


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
    lines += [
        f"too few images, fewer than {FEWEST}, to claim anything of {what}"
        for what, rows in (
            ("the rise of S", _rises(data, setting)[0]),
            *((f"the {key} before and after AT", _comparable(data, setting, key)) for key in ("gap", "near")),
        )
        if not rows
    ]
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
