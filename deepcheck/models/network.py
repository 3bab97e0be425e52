"""What a network is."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from deepcheck.models.noise import Noise

__all__ = ["Network"]


class Network(nn.Module):
    """A network as `build` returns it: logits = scale head(features(x)), features = body(normalisation(x)).

    Parameters
    ----------
    spec
        What it was built from: the arguments of `build`, but for the generator.
    normalisation
        From images, shape (n, channels, height, width), in [0, 1], to what the body takes.
    body
        From these to features, shape (n, d).
    head
        From features to logits, shape (n, num_classes).
    noise
        What adds noise before the layers; None: nothing does.
    """

    noise: Noise | None
    """What adds noise before the layers, so that the network is random; or None."""

    def __init__(
        self,
        spec: dict[str, Any],
        normalisation: nn.Module,
        body: nn.Module,
        head: nn.Linear,
        noise: Noise | None = None,
    ) -> None:
        super().__init__()
        self._spec = copy.deepcopy(spec)
        channels, height, width = spec["in_shape"]
        self.in_shape: tuple[int, int, int] = (channels, height, width)
        """Channels, height, width of an image."""
        self.normalisation = normalisation
        self.body = body
        self.head = head
        self.scale: float | None = spec.get("scale")
        """What the logits of the head are multiplied by; None: nothing."""
        self.noise = noise
        if noise is not None:
            noise.put_into(body, head)

    @property
    def spec(self) -> dict[str, Any]:
        """All arguments of `build` but the generator, defaults included, as JSON can hold them: `build(**spec)`."""
        return copy.deepcopy(self._spec)

    @property
    def name(self) -> str:
        """Name of the network, out of NAMES."""
        return str(self._spec["name"])

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.head.out_features

    @property
    def num_weights(self) -> int:
        """Number of trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def features(self, x: Tensor) -> Tensor:
        """Return the activations of the layer before the logits.

        Parameters
        ----------
        x
            Images, shape (n, channels, height, width), in [0, 1].

        Returns
        -------
        Tensor
            Shape (n, d). Of a linear network: the normalised pixels.

        Raises
        ------
        ValueError, TypeError
            If `x` has another shape, or holds whole numbers.
        """
        if x.ndim != 4 or x.shape[1:] != self.in_shape:
            allowed = f"(n, {', '.join(map(str, self.in_shape))})"
            raise ValueError(f"x has the shape {tuple(x.shape)}: allowed is {allowed}, a batch of n images")
        if not x.is_floating_point():
            raise TypeError(
                f"x has the type {x.dtype}: allowed are floating-point numbers in [0, 1]; divide bytes by 255"
            )
        activations: Tensor = self.body(self.normalisation(x))
        return activations

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n, num_classes), for images `x`; see `features`."""
        logits: Tensor = self.head(self.features(x))
        return logits if self.scale is None else self.scale * logits

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor:
            """Return logits; nn.Module declares Any."""

    def __repr__(self) -> str:
        essential = {"name", "num_classes", "in_shape"}
        options = [
            f"{option}={value!r}"
            for option, value in self._spec.items()
            if option not in essential and value is not None
        ]
        arguments = ", ".join([repr(self.name), str(self.num_classes), str(self.in_shape), *options])
        return f"Network({arguments}: {self.num_weights:,} weights)"
