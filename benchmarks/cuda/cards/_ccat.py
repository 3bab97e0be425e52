"""The study of confidence-calibrated training in parts of minutes: nets are trained in one call, and attacked in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import xarray as xr

from benchmarks.cuda.card import Work
from benchmarks.cuda.cards._common import (
    WAYS,
    Net,
    Way,
    attack_rows,
    attacked,
    effort_that_fits,
    pass_seconds,
    passes,
    trained,
)
from deepcheck.data import Images
from deepcheck.evaluation import Planned, standard_error, suite
from deepcheck.evaluation.distal import distal_attack
from odeflow.provenance import load, save
from studies.ccat.measure import SEED, Setting, records_of_noise, with_checks
from studies.ccat.plan import TRAININGS
from studies.ccat.study import measured, outcome_of
from studies.common.nets import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Plan", "nets_of", "over_seeds", "parts_of", "run_study"]


@dataclass(frozen=True)
class Plan:
    """How long a net is trained; see `trained`."""

    seconds: float
    most: int
    shorter: tuple[int, ...] = ()
    enough: int = 1
    ways: tuple[Way, ...] = WAYS


def nets_of(work: Work, setting: Setting, plans: Mapping[str, Plan], images: Images, seed: int) -> dict[str, Net]:
    """Return the nets of a seed that have been trained, all of them or those for which there was time."""
    count = setting.train_images
    images = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
    nets = {}
    for training, plan in plans.items():
        recipe = setting.recipes[training].changed(seed=seed)
        net = trained(work, f"{training}_{seed}", recipe, images, **vars(plan))
        if net is not None:
            nets[training] = net
    return nets


def run_study(
    work: Work, name: str, setting: Setting, nets: Mapping[str, Net], images: Images, seed: int, seconds: float | None
) -> bool:
    """Attack the nets of a seed in all ways of the study, as far as there is time, and save what it says of them.

    Parameters
    ----------
    work, name, setting, nets, images, seed
        The card's, the study's name, its setting, and the nets of all TRAININGS, those first that matter most.
    seconds
        Time for the attacks on one net, into which the effort is fitted. None: that of the setting.

    Returns
    -------
    bool
        Whether all nets have been attacked.
    """
    for training, net in nets.items():
        key, weights = f"{training}_{seed}", fingerprint(net.network)
        part = parts_of(work).get(key)
        if part is not None and part.weights.item() == weights:
            continue
        setting = with_effort(work, setting, net, images, seconds)
        part = measure(work, key, net, setting, images)
        if part is None:
            work.save(state=f"seed {seed}: {training} is being attacked")
            return False
        add_part(work, key, part.assign(weights=weights))
    parts = parts_of(work)
    ours = [parts[f"{training}_{seed}"].drop_vars("weights") for training in TRAININGS]
    outcome = outcome_of(ours, name, setting, images, device=work.device, quick=work.quick)
    shares = {training: shares_of(part) for training, part in zip(TRAININGS, ours, strict=True)}
    said = {"table": outcome.table, "claims": [asdict(claim) for claim in outcome.claims], "shares": shares}
    headline = {
        f"{training}, {name}": shares[training][name][0]
        for training in ("at", "ccat")
        for name in ("Err", f"RErr(tau) linf {setting.threats.linf[0]:g}")
    }
    work.save(headline=headline, published=setting.published, attack_seed=SEED)
    work.save(seeds={**work.found.get("seeds", {}), str(seed): said})
    work.save(over_seeds=over_seeds([one["shares"] for one in work.found["seeds"].values()]))
    assert isinstance(outcome.figure, Mapping)
    for key in ("errors", "distal"):
        work.picture(outcome.figure[key], f"_{key}")
    return True


def with_effort(work: Work, setting: Setting, net: Net, images: Images, seconds: float | None) -> Setting:
    """Return the setting with the steps, restarts and queries of all nets: what fits, or what an earlier call has taken."""
    if "effort" not in work.found:
        effort = setting.steps, setting.restarts, setting.queries
        if seconds is not None:
            rate = pass_seconds(work, net.network, images, setting.examples, setting.batch_size)
            effort = effort_that_fits(work, lambda *some: suite_of(setting, some), rate, seconds)
        work.save(effort=effort)
    steps, restarts, queries = work.found["effort"]
    return replace(setting, steps=steps, restarts=restarts, queries=queries)


def suite_of(setting: Setting, effort: Sequence[int]) -> dict[str, Planned]:
    """Return the attacks of the study, with an effort of its own."""
    steps, restarts, queries = effort
    return suite(setting.threats, steps=steps, restarts=restarts, queries=queries)


def measure(work: Work, key: str, net: Net, setting: Setting, images: Images) -> xr.Dataset | None:
    """Return what is shown of a net, or None where there was no time for all attacks: a later call has those that are left.

    Attacks search in the precision in which the net was trained.
    """
    precision = net.recipe.precision
    planned = suite_of(setting, (setting.steps, setting.restarts, setting.queries))
    rate = pass_seconds(work, net.network, images, setting.examples, setting.batch_size)
    records, missing = attacked(
        work, net.network, images, planned, work.folder / f"{key}.nc", examples=setting.examples,
        validation=setting.validation, batch_size=setting.batch_size, rate=rate, seed=SEED, precision=precision,
    )  # fmt: skip
    noise = Planned(distal_attack(steps=setting.steps, restarts=2), (setting.threats.linf[0],))
    # on two kinds of noise; and the checks, of some hundred steps and a random search
    if records is None or missing or rate * (2 * passes(noise) + 500 + setting.queries / 3) > work.left():
        return None
    records = with_checks(records, net.network, images, setting, planned, work.device)
    distal = records_of_noise(net.network, images, setting, {"device": work.device})
    work.save(attacks={**work.found.get("attacks", {}), key: attack_rows(records)})
    return measured(records, distal, setting, net.history)


def shares_of(part: xr.Dataset) -> dict[str, list[float]]:
    """Return the shares that the table has of a net, each with its standard error."""
    examples, images = part.examples.item(), part.sizes["image"]
    found: dict[str, tuple[Any, Any]] = {"Err": (part.test_error, examples)}
    for index in range(part.sizes["threat"]):
        one = part.isel(threat=index)
        threat = f"{one.norm.item()} {one.epsilon.item():g}"
        found[f"RErr {threat}"] = (one.robust_error, examples)
        found[f"RErr(tau) {threat}"] = (one.thresholded_robust_error, one.threat_accepted)
    for kind in part.noise.values:
        found[f"FPR {kind} noise"] = (part.noise_fpr.sel(noise=kind), images)
        found[f"FPR distal, {kind}"] = (part.distal_fpr.sel(noise=kind), images)
    return {name: [float(share), float(standard_error(float(share), int(n)))] for name, (share, n) in found.items()}


def over_seeds(shares: Sequence[Mapping[str, Mapping[str, Sequence[float]]]]) -> dict[str, dict[str, list[float]]]:
    """Return the mean of each share over the seeds, and its standard deviation where there are several."""
    found: dict[str, dict[str, list[float]]] = {}
    for training, rows in shares[0].items():
        values = {row: [one[training][row][0] for one in shares] for row in rows}
        found[training] = {
            row: [fmean(some), *([stdev(some)] if len(some) > 1 else [])] for row, some in values.items()
        }
    return found


# --- what is shown of each net, in one file that travels ---


def parts_of(work: Work) -> dict[str, xr.Dataset]:
    """Return what is shown of the nets that have been attacked, by TRAINING_SEED."""
    file = _file(work)
    if not file.exists():
        return {}
    data = load(file).drop_encoding()
    return {str(key): data.isel(net=index, drop=True) for index, key in enumerate(data.net.values)}


def add_part(work: Work, key: str, part: xr.Dataset) -> None:
    """Put what is shown of a net beside that of the others."""
    parts = parts_of(work) | {key: part}
    data = xr.concat(parts.values(), xr.DataArray(list(parts), dims="net", name="net"), data_vars="all")
    for variable in data.data_vars.values():
        if variable.dtype.kind == "f":
            variable.encoding = {"zlib": True}
    save(data, _file(work))


def _file(work: Work) -> Path:
    return work.out / f"{work.card.name}.nc"
