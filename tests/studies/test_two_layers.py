"""Two-layer nets in R^N by automatic differentiation: starts, attacks, one step against the formula, many by the theory."""

import numpy as np
import pytest
import torch

from studies.common.two_layers import Clusters, Nets, fgsm, pgd, sgd

CENTRES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
DATA = Clusters(CENTRES, np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.1]), np.array([1.0, -1.0, 1.0]))
C, THETA = np.array([1.0, -0.7, 0.4]), np.array([0.1, -0.2, 0.3])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nets(N: int = 12, count: int = 5, *, relu: bool = True) -> Nets:
    along = np.array([[0.5, 0.1], [-0.2, 0.4], [0.3, 0.3]])
    Q = along @ along.T + np.array([[0.4, 0.1, 0.0], [0.1, 0.3, -0.1], [0.0, -0.1, 0.5]])
    return Nets.with_overlaps(along, Q, C, THETA, 0.2, nets=count, N=N, relu=relu)


def test_nets_have_the_overlaps_that_are_asked_for() -> None:
    some = nets()
    M, Q = some.overlaps(CENTRES)
    along = np.array([[0.5, 0.1], [-0.2, 0.4], [0.3, 0.3]])
    np.testing.assert_allclose(M, np.broadcast_to(along @ CENTRES.T, (5, 3, 3)), atol=1e-14)
    rest = np.array([[0.4, 0.1, 0.0], [0.1, 0.3, -0.1], [0.0, -0.1, 0.5]])
    np.testing.assert_allclose(Q, np.broadcast_to(along @ along.T + rest, (5, 3, 3)), atol=1e-14)


def test_examples_have_the_law_of_their_clusters() -> None:
    xi, tau = DATA.draw(40_000, 4, seeded())
    assert (tau > 0).double().mean().item() == pytest.approx(0.7, abs=0.01)
    mean = DATA.weights @ CENTRES
    np.testing.assert_allclose(xi.mean(0).numpy(), [*mean, 0, 0], atol=0.015)
    assert xi[:, 3].var().item() == pytest.approx(DATA.weights @ DATA.variances, rel=0.03)


@pytest.mark.parametrize("relu", [True, False])
def test_attacks_are_as_long_as_allowed_and_raise_the_loss(relu: bool) -> None:
    some = nets(count=200, relu=relu)
    xi, tau = DATA.draw(200, 12, seeded())
    before = (some.output(xi) - tau) ** 2
    one, many = fgsm(0.3)(some, xi, tau), pgd(0.3, 5, 0.4)(some, xi, tau)
    length = (one - xi).norm(dim=1)
    assert ((length - 0.3).abs() < 1e-12).double().mean() > 0.7  # of ReLU nets with no active unit: 0
    assert ((length < 1e-12) | ((length - 0.3).abs() < 1e-12)).all()
    assert ((many - xi).norm(dim=1) <= 0.3 + 1e-12).all()
    raised = [((some.output(moved) - tau) ** 2).mean() for moved in (one, many)]
    assert raised[0] > before.mean() + 0.1
    assert raised[1] > before.mean() + 0.1


def test_the_attack_lies_in_the_span_of_the_weights() -> None:
    some = nets(count=50)
    xi, tau = DATA.draw(50, 12, seeded())
    delta = (pgd(0.3, 4, 0.5)(some, xi, tau) - xi).numpy()
    w = some.w.numpy()
    for k in range(50):
        inside = w[k].T @ np.linalg.lstsq(w[k].T, delta[k], rcond=None)[0]
        np.testing.assert_allclose(inside, delta[k], atol=1e-13)


@pytest.mark.parametrize("relu", [True, False])
def test_a_step_is_that_of_the_rule(relu: bool) -> None:
    """With the old values: w + (eta/N) s xi~, c - (eta_c/N) e g, theta - (eta_theta/N) s, b - (eta_b/N) e."""
    from scipy.special import erf

    some, N = nets(relu=relu), 12
    w, c, theta, b = (getattr(some, name).numpy().copy() for name in ("w", "c", "theta", "b"))
    xi, tau = (part.numpy() for part in DATA.draw(5, N, seeded(3)))
    x = np.einsum("rkn,rn->rk", w, xi) - theta
    slope = (x > 0) if relu else np.sqrt(2 / np.pi) * np.exp(-(x**2) / 2)
    g = np.maximum(x, 0) if relu else erf(x / np.sqrt(2))
    gradient = np.einsum("rk,rkn->rn", c * slope, w)
    e = b + (c * g).sum(1) - tau
    norm = np.linalg.norm(gradient, axis=1, keepdims=True)
    moved = xi + 0.3 * np.sign(e)[:, None] * np.divide(gradient, norm, out=np.zeros_like(gradient), where=norm > 0)
    x = np.einsum("rkn,rn->rk", w, moved) - theta
    slope = (x > 0) if relu else np.sqrt(2 / np.pi) * np.exp(-(x**2) / 2)
    g = np.maximum(x, 0) if relu else erf(x / np.sqrt(2))
    e = b + (c * g).sum(1) - tau
    s = -e[:, None] * c * slope
    rates = {"eta": 0.5, "eta_b": 0.4, "eta_c": 0.3, "eta_theta": 0.2}
    (after,) = sgd(some, DATA, fgsm(0.3), **rates, examples=[1], generator=seeded(3))
    np.testing.assert_allclose(after.w.numpy(), w + 0.5 / N * s[:, :, None] * moved[:, None], atol=1e-14)
    np.testing.assert_allclose(after.c.numpy(), c - 0.3 / N * e[:, None] * g, atol=1e-14)
    np.testing.assert_allclose(after.theta.numpy(), theta - 0.2 / N * s, atol=1e-14)
    np.testing.assert_allclose(after.b.numpy(), b - 0.4 / N * e, atol=1e-14)


def test_an_attack_of_ones_own_knows_no_other_unit() -> None:
    """Where only the own attack links two nets that differ in one unit, the outputs differ by that unit alone."""
    some, other = nets(count=1), nets(count=1)
    other.w[:, 2] *= 3.0
    other.c[:, 2] = some.c[:, 2] = 1e-12  # it does not enter the output
    for one in (some, other):
        list(sgd(one, DATA, fgsm(0.0), eta=0.5, examples=[20], generator=seeded(1), alone=0.3))
    np.testing.assert_allclose(other.w[:, :2].numpy(), some.w[:, :2].numpy(), atol=1e-9)
    shared, changed = nets(count=1), nets(count=1)
    shared.c[:, 2] = changed.c[:, 2] = 0.4
    changed.w[:, 2] *= 3.0
    for one in (shared, changed):
        list(sgd(one, DATA, fgsm(0.3), eta=0.5, examples=[20], generator=seeded(1)))
    assert np.abs(changed.w[:, :2].numpy() - shared.w[:, :2].numpy()).max() > 1e-4
