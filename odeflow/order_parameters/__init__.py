"""Networks whose learning closes in a few order parameters, one a folder, and the contract that they share.

`NETWORKS` is the registry: who adds a network gives it a folder and a line there.
"""

from odeflow.model import LearningRule
from odeflow.order_parameters.base import Network, OrderParameter
from odeflow.order_parameters.committee import Committee, random_start
from odeflow.order_parameters.perceptron import Perceptron
from odeflow.parameters import LABELS

__all__ = ["NETWORKS", "Committee", "Network", "OrderParameter", "Perceptron", "random_start"]

NETWORKS: dict[str, type[Network]] = {"perceptron": Perceptron, "committee": Committee}
"""Name on the command line to class."""


def _label_variables() -> None:
    """Let the variables of every network be known by name; where two share one, a result's own attributes decide."""
    for kind in NETWORKS.values():
        for variable in kind().starts(LearningRule()):
            LABELS.setdefault(variable.name, (variable.label, variable.symbol))
            LABELS.setdefault(variable.start_name, (f"initial {variable.label}", f"{variable.symbol}(0)"))


_label_variables()
