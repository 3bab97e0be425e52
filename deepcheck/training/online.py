r"""Online learning from the seed model's mixture: each example is used once, as in the theory, by nets of any depth.

For a linear net this is the seed model itself, at finite N. For deeper nets everything that the seed model says about
w is said about what a deeper net has in its place:

- the attack goes along the gradient of the margin by the example, made of length epsilon (FGSM in L2), or is PGD;
- all weights learn at the rate eta_w / N, and all biases at eta_b / N, as in the theory of committee machines (Saad
  and Solla, 1995); with eta_w / (number of inputs) in the later layers, their noise would drown the signal;
- |w| = 1 becomes: the length of the margin's gradient is 1, in the mean over the examples.

The label +1 has positive margins, and B is the first axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from deepcheck.checks import checked_choice
from deepcheck.device import exact_float32
from deepcheck.training.stacked import StackedNets
from odeflow.integrate import checked_alpha
from odeflow.model import Adversary, GaussianMixture, LearningRule, check_known, check_parts, checked_count

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["train_online"]

BLOCK = 64
"""Examples of each net that are drawn at once."""
FOLLOW = 0.02
"""Share by which the scale of a deep net follows the length of the gradient at each example."""


@exact_float32()
def train_online(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    N: int,
    alpha: npt.ArrayLike,
    runs: int,
    generator: torch.Generator,
    hidden: Sequence[int] = (),
    attack: Literal["fgsm", "pgd"] = "fgsm",
    steps: int = 5,
    initial: StackedNets | None = None,
) -> Iterator[tuple[float, StackedNets]]:
    """Train nets side by side, each on its own examples, and hand them out at the output times.

    Exact for the seed model at finite N where there is no hidden layer; in the deeper nets the constraint on the length
    of the gradient holds in the mean over time, approximately.

    Parameters
    ----------
    mixture, rule, adversary
        The model. Of the rule, the loss is the squared one and the activation erf; the adversary attacks every example
        with one epsilon.
    N
        Dimension of the input, >= 2.
    alpha
        Increasing output times >= 0, in examples per dimension: after round(alpha N) examples of each net.
    runs
        Number of nets, >= 1.
    generator
        Source of all random numbers; its device is where the nets are.
    hidden
        Numbers of hidden units from the first to the last layer, each >= 1. None at all: a linear classifier, which starts
        with R = 0, |w| = 1 and b = 0. The first layers of all nets are orthogonal to B at the start.
    attack
        fgsm: one step of length epsilon along the gradient. pgd: `steps` steps of 2.5 epsilon / steps in the ball, from
        the example.
    steps
        Of pgd, >= 1.
    initial
        Nets to go on from, with the N, `runs` and `hidden` given here; they are copied, and alpha counts from there.
        Default: new ones.

    Yields
    ------
    alpha, nets
        The nets go on learning when the next ones are asked for: measure, or copy, before that.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; at the first step.

    Examples
    --------
    >>> seed = torch.Generator().manual_seed(1)
    >>> for alpha, nets in train_online(
    ...     GaussianMixture(), LearningRule(), Adversary(1.0), N=100, alpha=[0, 20], runs=10, generator=seed
    ... ):
    ...     print(f"R = {nets.weights[0][:, 0, 0].mean():.1f} at alpha = {alpha:g}")
    R = 0.0 at alpha = 0
    R = 0.5 at alpha = 20
    """
    check_parts(mixture=mixture, rule=rule, adversary=adversary)
    check_known("these nets", rule, adversary)
    if (rule.loss, rule.activation, rule.update) != ("squared", "erf", "all"):
        raise ValueError(
            f"rule = {rule!r}: allowed are the squared loss, the activation erf, and updates at all examples"
        )
    if adversary.fraction != 1 or adversary.law is not None:
        raise ValueError(f"adversary = {adversary!r}: allowed is one epsilon, for all examples")
    N, runs = checked_count("N", N, 2), checked_count("runs", runs, 1)
    widths = (N, *(checked_count("hidden", units, 1) for units in hidden))
    checked_choice("attack", attack, ("fgsm", "pgd"))
    steps = checked_count("steps", steps, 1) if attack == "pgd" else 1
    times = checked_alpha(alpha)

    nets = _start(mixture, widths, runs, generator) if initial is None else _copied(initial, runs, widths)
    done = 0
    for time in times:
        for _ in range(done, end := round(time * N), BLOCK):
            count = min(BLOCK, end - done)
            xi, tau = draw(mixture, (count, runs, 1), N, generator)
            for i in range(count):
                _learn(nets, rule, xi[i], tau[i], adversary.epsilon, steps)
            done += count
        yield float(time), nets


def draw(mixture: GaussianMixture, shape: tuple[int, ...], N: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return examples of the mixture, shape (*shape, N), and their labels +1 and -1, shape (*shape, 1)."""
    device = generator.device
    positive = torch.rand(*shape, 1, generator=generator, device=device) < mixture.p
    tau = torch.where(positive, 1.0, -1.0)
    deviation = torch.where(positive, math.sqrt(mixture.v1), math.sqrt(mixture.v2))
    xi = torch.randn(*shape, N, generator=generator, device=device).mul_(deviation)
    xi[..., :1] += tau * (mixture.rho / 2)
    return xi, tau


def _start(mixture: GaussianMixture, widths: tuple[int, ...], runs: int, generator: torch.Generator) -> StackedNets:
    """Return nets whose margins have gradients of length 1, in the mean, and orthogonal to B."""
    nets = StackedNets.random(runs, widths, generator)
    nets.weights[0][..., 0] = 0
    _, inputs = nets.forward(draw(mixture, (runs, 1000), widths[0], generator)[0])
    nets.scale(1 / nets.gradient(inputs).norm(dim=2).mean(1))
    return nets


def _copied(initial: StackedNets, runs: int, widths: tuple[int, ...]) -> StackedNets:
    """Return a copy of the nets, or raise if they are not of this number and shape."""
    if not isinstance(initial, StackedNets):
        raise TypeError(f"initial = {initial!r} is of the wrong type: allowed are StackedNets")
    found, allowed = (len(initial), *(W.shape[2] for W in initial.weights)), (runs, *widths)
    if found != allowed:
        raise ValueError(f"initial has (runs, N, *hidden) = {found}: allowed is {allowed}, as in the other arguments")
    return StackedNets([W.clone() for W in initial.weights], [c.clone() for c in initial.biases])


def _learn(nets: StackedNets, rule: LearningRule, xi: Tensor, tau: Tensor, epsilon: float, steps: int) -> None:
    """Take one step of SGD: every net at its example, shape (nets, 1, N), with the label tau, (nets, 1, 1)."""
    N = xi.shape[2]
    x, inputs = nets.forward(xi)
    length = None
    if epsilon or (rule.normalised and nets.depth > 1):
        gradient = nets.gradient(inputs)
        length = gradient.norm(dim=2, keepdim=True)
    if epsilon and length is not None:
        x, inputs = nets.forward(_attacked(nets, xi, tau, gradient / length.clamp(min=1e-30), epsilon, steps))
    delta = (tau - torch.erf(x)) * (2 / math.sqrt(math.pi)) * torch.exp(-(x**2))
    nets.step(inputs, delta, rule.eta_w / N, rule.eta_b / N)
    if not rule.normalised:
        return
    if nets.depth == 1:
        nets.weights[0] /= nets.weights[0].norm(dim=2, keepdim=True)
    elif length is not None:
        nets.scale(length[:, 0, 0].clamp(0.1, 10) ** -FOLLOW)


def _attacked(nets: StackedNets, xi: Tensor, tau: Tensor, direction: Tensor, epsilon: float, steps: int) -> Tensor:
    """Return the examples after the attack; `direction` is the gradient at them, of length 1."""
    if steps == 1:
        return xi - tau * epsilon * direction
    shift = torch.zeros_like(xi)
    for step in range(steps):
        if step:
            gradient = nets.gradient(nets.forward(xi + shift)[1])
            direction = gradient / gradient.norm(dim=2, keepdim=True).clamp(min=1e-30)
        shift = shift - tau * (2.5 * epsilon / steps) * direction
        shift = shift * (epsilon / shift.norm(dim=2, keepdim=True).clamp(min=1e-30)).clamp(max=1)
    return xi + shift
