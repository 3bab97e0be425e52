"""Laws of a random perturbation, for `odeflow.Adversary`."""

from odeflow.laws.kinds import Continuous, Discrete, Law, Uniform, from_record, quadratures, record

__all__ = ["Continuous", "Discrete", "Law", "Uniform", "from_record", "quadratures", "record"]
