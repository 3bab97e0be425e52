"""Several networks that are one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.models.network import Network

__all__ = ["Ensemble"]


class Ensemble(Network):
    """Networks whose mean probability is the prediction: logits = log((1/K) sum_k softmax(logits_k)).

    Parameters
    ----------
    members
        K networks, one at least, for the same images and classes.

    Raises
    ------
    ValueError
        If there is none, or two are not for the same images and classes.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        nn.Module.__init__(self)
        kinds = {(*member.in_shape, member.num_classes) for member in members}
        if len(kinds) != 1:
            raise ValueError(
                f"members for {len(kinds)} kinds of images and classes: allowed are networks, one at least, for one kind"
            )
        self.in_shape = members[0].in_shape
        self.noise = self.scale = None  # of its own: each member has its
        self._members = nn.ModuleList(members)

    @property
    def members(self) -> list[Network]:
        """The networks."""
        return list(self._members)  # type: ignore[arg-type]

    @property
    def spec(self) -> dict[str, Any]:
        """What `deepcheck.models.from_spec` needs: that of every member."""
        return {"members": [member.spec for member in self.members]}

    @property
    def name(self) -> str:
        """Names of the members, with + between them."""
        return "+".join(member.name for member in self.members)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.members[0].num_classes

    def features(self, x: Tensor) -> Tensor:
        """Return the features of all members side by side, shape (n, sum of their d)."""
        return torch.cat([member.features(x) for member in self.members], dim=1)

    def member_logits(self, x: Tensor) -> Tensor:
        """Return the logits of every member, shape (K, n, num_classes)."""
        return torch.stack([member(x) for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n, num_classes): log of the mean probability."""
        return self.member_logits(x).log_softmax(2).logsumexp(0) - math.log(len(self.members))

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.members))})"
