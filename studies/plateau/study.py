"""The study plateau: theory and simulations of a student of two units on its plateau."""

from __future__ import annotations

import numpy as np
import xarray as xr

from odeflow import Adversary
from odeflow.parameters import label
from odeflow.provenance import provenance
from studies.common.tables import describe
from studies.plateau.claims import claims, table
from studies.plateau.figures import figure
from studies.plateau.measure import on_the_plateau, rule_of, simulated, theory_of_escape
from studies.plateau.plan import BEGIN, ESCAPED, ETA, NETWORK, PLANS, SEED, TEACHER
from studies.registry import Outcome


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    plan = PLANS[quick]
    paths = [on_the_plateau(eta, plan.epsilon) for eta in plan.etas]
    data = xr.concat(paths, xr.DataArray(list(plan.etas), dims="eta", name="eta"))
    data["length"] = "epsilon", theory_of_escape(plan.epsilon)
    lengths = data.length.sel(epsilon=list(plan.simulated), method="nearest").values
    data = data.merge(simulated(plan, lengths))
    data.attrs = provenance(
        f"studies.{name}", TEACHER, rule_of(ETA), Adversary(), seed=str(SEED), network=NETWORK.name, hidden=NETWORK.hidden,
        etas=plan.etas, N=plan.N, runs=plan.runs, escaped=ESCAPED,
        start={name: np.asarray(value).tolist() for name, value in BEGIN.items()},
    ) | {"N": f"{plan.N}"}  # fmt: skip
    data = label(data)
    names = {
        "eta": "learning rate of the weights",
        "specialisation_rate": "growth rate of the units' difference at the symmetric fixed point, per unit of eta alpha",
        "approach_rate": "rate at which the symmetric fixed point is approached, per unit of eta alpha",
        "plateau_R": "overlap of a unit with a teacher's at the symmetric fixed point",
        "plateau_Q": "squared length of a unit's weights at the symmetric fixed point",
        "plateau_Q12": "overlap of the two units' weights at the symmetric fixed point",
        "length": "alpha at which the difference of the units is that of the escape, by theory",
        "escape": "alpha at which the difference of the units is that of the escape, in a run",
        "simulated_Q12": "overlap of the two units' weights in a run, half way to the escape",
        "difference": "difference of the units in a run",
        "theory_difference": "difference of the units by theory",
        "alpha": "examples per dimension",
        "simulated_epsilon": "training epsilon of the runs",
        "run": "run",
    }
    describe(data, names)
    return Outcome(data, figure(data), table(data, plan), tuple(claims(data, plan)))
