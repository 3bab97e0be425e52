"""What the units of the card `comparison` say together: means and standard errors over seeds, the studies' claims, a figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from studies.collapse import study as collapse
from studies.collapse.claims import claims as collapse_claims
from studies.collapse.plan import Plan
from studies.confidence import study as confidence
from studies.confidence.claims import claims as confidence_claims
from studies.confidence.measure import Setting as ConfidenceSetting
from studies.deep_on_mnist import study as deep
from studies.deep_on_mnist.claims import claims as deep_claims
from studies.deep_on_mnist.measure import MEASURED
from studies.deep_on_mnist.measure import Setting as DeepSetting
from studies.registry import Claim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Parts", "figure", "headline", "mean_and_error", "summarised", "table"]

Units = Sequence[tuple[str, int, Sequence[xr.Dataset]]]
"""What was measured: of which net, its seed, and the Datasets."""
Parts = dict[str, dict[str, list[tuple[str, int, list[xr.Dataset]]]]]
"""The units of each study of each pair."""
Summary = dict[str, Any]


def mean_and_error(values: npt.ArrayLike) -> list[float | None]:
    """Return mean and standard error over seeds; None where there are too few that are finite."""
    found = np.asarray(values, np.float64).ravel()
    found = found[np.isfinite(found)]
    mean = float(found.mean()) if found.size else None
    return [mean, float(found.std(ddof=1) / np.sqrt(found.size)) if found.size > 1 else None]


def summarised(
    data_set: str,
    units: Mapping[str, Units],
    deep_setting: DeepSetting,
    confidence_setting: ConfidenceSetting,
    plan: Plan,
    *,
    quick: bool,
) -> Summary:
    """Return what the units of a pair say, by study; a study of which there is too little is not there."""
    found = {
        "deep_on_mnist": _deep(units.get("deep_on_mnist", ()), deep_setting),
        "confidence": _confidence(units.get("confidence", ()), confidence_setting, data_set),
        "collapse": _collapse(units.get("collapse", ()), plan, quick=quick),
    }
    return {study: one for study, one in found.items() if one is not None}


def _evaluated(found: Iterable[Claim]) -> list[dict[str, Any]]:
    return [asdict(claim) for claim in found]


# deep_on_mnist


def _deep(units: Units, setting: DeepSetting) -> Summary | None:
    """Return the measures of each training, if there are linear classifiers and AT nets to set them beside."""
    parts = [one for _, _, datasets in units for one in datasets]
    attacked = {one.norm.item() for one in parts if one.epsilon > 0 and one.net != "linear"}
    parts = [one for one in parts if one.norm.item() in attacked]  # standard nets go by the AT epsilon of their norm
    if not any(one.net == "linear" for one in parts):
        return None
    data = deep.assembled(parts, setting)
    cases = {str(case): dict(_of_case(data.sel(case=case))) for case in data.case.values}
    (net,) = setting.nets
    wanted = {
        *(f"{net}, {norm} {epsilon:g}" for norm, epsilon in deep.trainings(setting, net)),
        *(f"linear, {norm} {epsilon:g}" for norm, epsilon in deep.linear_trainings(setting)),
    }
    whole = wanted <= cases.keys() and all(one["seeds"] >= 2 for case, one in cases.items() if case.startswith(net))
    return {"title": data.attrs["title"], "cases": cases} | (
        {"claims": _evaluated(deep_claims(data, setting))} if whole else {}
    )


def _of_case(one: xr.Dataset) -> Iterator[tuple[str, Any]]:
    """Give the measures of a training: E, S at the training epsilon and what predicts it, alignment, curvature, curves."""
    tests = one.test_epsilon.values
    k = int(np.argmin(abs(tests - one.radius.item())))
    predicted = one.isel(size=MEASURED)
    yield "net", one.net.item()
    yield "norm", one.norm.item()
    yield "training_epsilon", one.epsilon.item()
    yield "radius", one.radius.item()
    yield "seeds", int(one.measured.notnull().any("test").sum())
    rows = {
        "error": one.measured.isel(test=0),
        "measured": one.measured.isel(test=k),
        "locally_linear": predicted.locally_linear.isel(size=k),
        "gaussian": predicted.gaussian.isel(size=k),
        "miss": one.miss,
        "miss_beyond": one.miss_beyond,
        "disagreement": one.inside_disagreement,
        "nonlinearity": one.inside_nonlinearity,
        "coherence": one.coherence,
        "R_eff": one.R_eff.sel(direction="linear"),
        "R_mean_gradient": one.R_mean_gradient.sel(direction="linear"),
        "b_eff": one.b_eff,
        "half": one.half,
        "named_at_half": one.named_at_half,
    }
    for name, values in rows.items():
        yield name, mean_and_error(values)
    yield "test_epsilon", tests.tolist()
    yield "curve", [mean_and_error(one.measured.isel(test=j)) for j in range(len(tests))]
    theory = one.net.item() == "linear"
    lines = one.theory.isel(size=MEASURED) if theory else predicted.locally_linear
    yield "predicted_curve", [mean_and_error(lines.isel(size=j)) for j in range(len(tests))]


# confidence


def _confidence(units: Units, setting: ConfidenceSetting, data_set: str) -> Summary | None:
    """Return share, prediction and AUC of each net, over the seeds of which all nets are there."""
    found = {(net, seed): datasets[0] for net, seed, datasets in units}
    seeds = [seed for seed in sorted({seed for _, seed in found}) if all((net, seed) in found for net in setting.nets)]
    if not seeds:
        return None
    data = confidence.of_nets({(net, seed): found[net, seed] for net in setting.nets for seed in seeds}, setting)
    at = data.sel(net_delta=setting.epsilon)
    nets = {}
    for net in setting.nets:
        one = at.sel(net=net)
        level, same = one.sel(measured_level=0.9, level=0.9, method="nearest"), one.sel(level=one.measured_level)
        rows = {
            "error": data.net_share.sel(net=net, net_delta=0.0).isel(measured_level=0),
            "share_at_0.5": one.net_share.isel(measured_level=0),
            "share_at_0.9": level.net_share,
            "linear_share_at_0.9": level.linear_share,
            "gaussian_share_at_0.9": level.gaussian_share,
            "largest_miss": abs(same.linear_share - one.net_share).max("measured_level"),
            "auc": one.net_auc,
            "symmetric_auc": one.symmetric_auc,
            "accepted_at_5_percent": one.net_accepted.sel(bound=0.05),
        }
        nets[net] = {"seeds": len(seeds)} | {name: mean_and_error(values) for name, values in rows.items()}
    data.attrs["data_set"] = data_set  # the claims of digits have other tolerances
    judged = {"claims": _evaluated(confidence_claims(data))} if len(seeds) > 1 else {}
    return {"epsilon": setting.epsilon, "nets": nets} | judged


# collapse


def _collapse(units: Units, plan: Plan, *, quick: bool) -> Summary | None:
    """Return the critical epsilons in units of half the distance of the means, of kinds and seeds that are whole."""
    whole: list[xr.Dataset] = []
    for nets in plan.convolutional:
        names = {f"{nets.kind}, size {size:g}" for size in nets.sizes}
        for seed in sorted({seed for _, seed, _ in units}):
            some = [data for what, number, (data, *_) in units if what in names and number == seed]
            whole += some if len(some) == len(names) else []
    if not whole:
        return None
    linear = [data for what, _, (data, *_) in units if what.startswith("linear")]
    pairs = plan.pairs if len(linear) == len(plan.pairs) else ()
    data = collapse.assembled([*whole, *(linear if pairs else [])], replace(plan, pairs=pairs))
    kinds = {}
    for kind in data.conv.values:
        one = data.sel(conv=kind)
        one = one.isel(conv_point=np.flatnonzero(one.conv_epsilon.notnull()))
        there = one.conv_recall.notnull().all("conv_point")
        values = one.conv_critical.values[there.values]
        kinds[str(kind)] = {
            "seeds": int(there.sum()),
            "unit": one.conv_unit.item(),
            "collapsed": int(np.isfinite(values).sum()),
            "critical": mean_and_error(values),
            "sizes": one.conv_epsilon.values.tolist(),
            "recall": [mean_and_error(one.conv_recall.isel(conv_point=j)) for j in range(one.sizes["conv_point"])],
        }
    found: Summary = {"kinds": kinds}
    for k in range(data.sizes.get("pair", 0)):
        one = data.isel(pair=k)
        found.setdefault("linear", {})[one.image_norm.item()] = {
            "critical": mean_and_error(one.image_critical),
            "critical_in_theory": dict(
                zip(map(str, one.image_theory.values), one.image_theory_critical.values.tolist(), strict=True)
            ),
        }
    if pairs and len(kinds) == len(plan.convolutional) and all(of["seeds"] > 1 for of in kinds.values()):
        found["claims"] = _evaluated(collapse_claims(data, quick=quick))
    return found


# All together.


def headline(summary: Mapping[str, Summary]) -> dict[str, Any]:
    """Return the strongest AT of the first norm of each pair: S, measured and predicted, for one line."""
    found = {}
    for name, of_pair in summary.items():
        cases = of_pair.get("deep_on_mnist", {"cases": {}})["cases"].values()
        if trained := [case for case in cases if case["net"] != "linear" and case["training_epsilon"] > 0]:
            one = max(trained, key=lambda case: (case["norm"] == trained[0]["norm"], case["training_epsilon"]))
            found[f"{name}: S"] = f"{_short(one['measured'])} (predicted {_short(one['locally_linear'])})"
    return found


def _short(pair: Sequence[float | None]) -> str:
    mean, error = pair
    return "-" if mean is None else f"{mean:.3f}" if error is None else f"{mean:.3f} +- {error:.3f}"


def table(summary: Mapping[str, Summary]) -> list[str]:
    """Return the numbers as lines of text: mean +- standard error over seeds."""
    lines = []
    for name, of_pair in summary.items():
        lines += [f"{name}: mean +- standard error over seeds"]
        if of_deep := of_pair.get("deep_on_mnist"):
            lines.append(
                f"  {'net, training':26}{'seeds':>6}{'E':>17}{'S(eps), PGD':>17}{'locally linear':>17}{'Gauss':>17}"
                f"{'nonlinearity':>17}{'R_eff':>17}{'coherence':>17}"
            )
            names = ("error", "measured", "locally_linear", "gaussian", "nonlinearity", "R_eff", "coherence")
            lines += [
                f"  {case:26}{one['seeds']:6}" + "".join(f"{_short(one[key]):>17}" for key in names)
                for case, one in of_deep["cases"].items()
            ]
        if margins := of_pair.get("confidence"):
            lines.append(
                f"  {'confidence, net':26}{'seeds':>6}{'E':>17}{'share at 0.5':>17}{'at 0.9':>17}{'loc. linear':>17}"
                f"{'Gauss':>17}{'AUC':>17}{'of the error':>17}"
            )
            names = ("error", "share_at_0.5", "share_at_0.9", "linear_share_at_0.9", "gaussian_share_at_0.9", "auc",
                     "symmetric_auc")  # fmt: skip
            lines += [
                f"  {net:26}{one['seeds']:6}" + "".join(f"{_short(one[key]):>17}" for key in names)
                for net, one in margins["nets"].items()
            ]
        if collapsed := of_pair.get("collapse"):
            for norm, one in collapsed.get("linear", {}).items():
                theory = ", ".join(f"{text} {value:.3f}" for text, value in one["critical_in_theory"].items())
                lines.append(f"  critical epsilon, linear, {norm}: {_short(one['critical'])}; theory {theory}")
            lines += [
                f"  critical epsilon, {kind}: {_short(one['critical'])} ({one['collapsed']} of {one['seeds']} seeds collapse)"
                for kind, one in collapsed["kinds"].items()
            ]
        for study, one in of_pair.items():
            lines += [
                f"  {'holds' if claim['holds'] else 'FAILS'}  {study}: {claim['statement']}: {claim['measured']}"
                for claim in one.get("claims", ())
            ]
    return lines


def figure(summary: Mapping[str, Summary]) -> Figure | None:
    """Draw S as measured over S as predicted, at every size of the attack, of every training; a panel for each pair."""
    from odeflow.plot import label_panels, legend_above, looks, new_figure, style

    shown = {name: one["deep_on_mnist"] for name, one in summary.items() if "deep_on_mnist" in one}
    if not shown:
        return None
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    result, axes = new_figure(rows, columns, width="double", height=2.4 * rows + 0.6)
    trainings = list(dict.fromkeys(_training(one) for of in shown.values() for one in of["cases"].values()))
    seen = dict(zip(trainings, looks(len(trainings)), strict=True))
    handles: dict[str, Any] = {}
    with style():
        for ax, (_, of_pair) in zip(axes.flat, shown.items(), strict=False):
            ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
            for one in of_pair["cases"].values():
                x, y, error = (
                    np.array([np.nan if value is None else value for value in row], float)
                    for row in (
                        [mean for mean, _ in one["predicted_curve"]],
                        [mean for mean, _ in one["curve"]],
                        [spread or 0.0 for _, spread in one["curve"]],
                    )
                )
                look = seen[_training(one)]
                beyond = np.array(one["test_epsilon"]) > one["radius"] + 1e-9
                for part, fill in ((~beyond, look.color), (beyond, "white")):
                    drawn = ax.errorbar(
                        x[part], y[part], error[part], color=look.color, marker=look.marker, linestyle="",
                        markerfacecolor=fill, markersize=4, elinewidth=0.8,
                    )  # fmt: skip
                    handles.setdefault(_training(one), drawn)
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="$S$, predicted", ylabel="$S$, measured")
            ax.set_title(of_pair["title"], fontsize=8)
        for ax in list(axes.flat)[len(shown) :]:
            ax.set_axis_off()
        label_panels(list(axes.flat)[: len(shown)])
        legend_above(
            result,
            list(handles.values()),
            list(handles),
            title="linear: theory on data; deep: locally linear prediction. Filled: up to the training epsilon. Mean and s.e.",
        )
    return result  # type: ignore[no-any-return]


def _training(one: Mapping[str, Any]) -> str:
    """Return what a training is called in the legend, whatever its epsilon."""
    kind = "AT" if one["training_epsilon"] else "standard"
    return f"{'linear' if one['net'] == 'linear' else one['net']}, {kind}, {one['norm']}"
