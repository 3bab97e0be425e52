"""Data that a teacher labels: regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.model.bounds import MOST
from odeflow.model.clusters import gram_factor, matrix_of, vector_of
from odeflow.parameters import checked, checked_count, choice, described, number, thing

__all__ = ["UNITS", "TeacherStudent"]

Array = npt.NDArray[np.float64]

UNITS = ("erf", "erf-x", "relu")
"""Hidden units: erf(x / sqrt(2)), erf(x), max(x, 0)."""


@described
@dataclass(frozen=True)
class TeacherStudent:
    r"""Standard Gaussian inputs, and a two-layer teacher that gives each its label: regression.

    The label of xi ~ N(0, I_N) is tau = sum_n c*_n g(w*_n.xi), of the input before the attack. The teacher's weights have
    the products w*_n.w*_m = s^2 T_nm.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed: among them a Gram matrix that is not positive semidefinite.

    Examples
    --------
    >>> TeacherStudent(2).weights
    (1.0, 1.0)
    """

    units: int = thing(2, "number of the teacher's units", "At least 1.")
    activation: Literal["erf", "erf-x", "relu"] = choice("erf", "the teacher's units g", UNITS)
    weights: Any = thing(None, "the teacher's output weights", "None: 1.")
    gram: Any = thing(
        None, "products T_nm of the teacher's weights, shape (units, units)", "None: orthogonal of length 1."
    )
    scale: float = number(1.0, "factor of the teacher's weights", "s", above=0, most=MOST)

    def __post_init__(self) -> None:
        checked(self)
        units = checked_count("units", self.units, 1)
        object.__setattr__(self, "units", units)
        weights = [1.0] * units if self.weights is None else self.weights
        object.__setattr__(self, "weights", vector_of("weights", weights, units, "unit"))
        gram = matrix_of("gram", np.eye(units) if self.gram is None else self.gram)
        if len(gram) != units or len(gram[0]) != units:
            raise ValueError(f"gram has shape {len(gram), len(gram[0])}: allowed is {units, units}")
        if gram_factor("gram", np.array(gram)).shape[1] < units:
            raise ValueError(
                "gram is singular: allowed are weights of the teacher of which none follows from the others"
            )
        object.__setattr__(self, "gram", gram)

    def products(self, *, scaled: bool = True) -> Array:
        """Return w*_n.w*_m, shape (units, units); of the teacher, or without the scale."""
        return np.array(self.gram) * (self.scale**2 if scaled else 1.0)
