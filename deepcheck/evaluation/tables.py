"""How accurate a net is under each attack, and in the worst case of all attacks in a norm, with standard errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepcheck.evaluation.robustness import robust_error
from deepcheck.evaluation.schema import checked, labelled, origin, text_array, texts
from deepcheck.evaluation.thresholds import standard_error, test_error

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ALL", "attack_table", "format_attack_table"]

ALL = "all"
"""Name of the rows that are the worst case of all attacks in a norm, at this epsilon and smaller ones."""


def attack_table(records: xr.Dataset) -> xr.Dataset:
    r"""Return the robust accuracy under every attack at every epsilon, and in the worst case (exact, given the records).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.

    Returns
    -------
    Dataset
        Dim row, with the coordinates attack, norm, epsilon and effort: by norm, in each by rising epsilon, first the worst
        case of all attacks (attack "all": every example is wrong if any attack turned it, at this epsilon or a smaller
        one), then the attacks alone, at this epsilon, in the order of the records. robust_accuracy, with the worst restart
        of each example, and standard_error, the binomial one :math:`\sqrt{p (1 - p) / n}`; examples, n. Without a dim:
        accuracy and accuracy_standard_error, without an attack.

    Raises
    ------
    ValueError, TypeError
        If `records` are none.
    """
    import xarray as xr

    records = checked(records)
    n = records.sizes["example"]
    names, norms, efforts = (texts(records, name) for name in ("attack", "norm", "effort"))
    run = np.any(records["prediction"].values >= 0, axis=(2, 3))
    rows: list[tuple[str, str, float, str, float]] = []
    for norm in dict.fromkeys(norms):
        for index, epsilon in enumerate(records["epsilon"].values.tolist()):
            here = [a for a in range(len(names)) if norms[a] == norm and run[a, index]]
            if not here:
                continue
            options: dict[str, Any] = {"norm": norm, "epsilon": epsilon}
            rows.append((ALL, norm, epsilon, "", 1 - robust_error(records, **options)))
            for a in here:
                error = robust_error(records, attacks=names[a], smaller=False, **options)
                rows.append((names[a], norm, epsilon, efforts[a], 1 - error))
    accuracy = 1 - test_error(records)
    attack, norm_of, size, effort, robust = zip(*rows, strict=True)
    result = xr.Dataset(
        {
            "robust_accuracy": ("row", np.array(robust)),
            "standard_error": ("row", [standard_error(value, n) for value in robust]),
            "examples": n,
            "accuracy": accuracy,
            "accuracy_standard_error": standard_error(accuracy, n),
        },
        coords={
            "attack": ("row", text_array(attack)),
            "norm": ("row", text_array(norm_of)),
            "epsilon": ("row", np.array(size)),
            "effort": ("row", text_array(effort)),
        },
        attrs=origin(records, "attack_table"),
    )
    long_names = {
        "robust_accuracy": "share of the examples that are right under the attack, in its worst restart",
        "standard_error": "standard error of the robust accuracy",
        "examples": "number of test examples",
        "accuracy": "share of the examples that are right without an attack",
        "accuracy_standard_error": "standard error of the accuracy",
    }
    for name, text in long_names.items():
        result[name].attrs.update(long_name=text, units="1")
    return labelled(result)


def format_attack_table(table: xr.Dataset) -> str:
    """Return a table of `attack_table` as lines of text, accuracies in % with one standard error."""
    wide = max(len("worst case"), *(len(name) for name in texts(table, "attack")))
    plain = _percent(table.accuracy, table.accuracy_standard_error)
    lines = [
        f"accuracy without an attack {plain} %, of {table.examples.item()} examples; under attack, in %:",
        f"{'norm':>6}{'epsilon':>9}  {'attack':<{wide}}{'robust accuracy':>17}  effort",
    ]
    for row in range(table.sizes["row"]):
        one = table.isel(row=row)
        name = "worst case" if one.attack.item() == ALL else one.attack.item()
        line = f"{one.norm.item():>6}{one.epsilon.item():9.4g}  {name:<{wide}}"
        lines.append(f"{line}{_percent(one.robust_accuracy, one.standard_error):>17}  {one.effort.item()}".rstrip())
    return "\n".join(lines)


def _percent(share: xr.DataArray, error: xr.DataArray) -> str:
    return f"{100 * share.item():.2f} +- {100 * error.item():.2f}"
