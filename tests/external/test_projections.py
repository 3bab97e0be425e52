"""Projections as convex problems, solved by CVXPY."""

import math

import pytest
import torch

from deepcheck.attacks.norms import NORMS

cvxpy = pytest.importorskip("cvxpy", reason="compares with cvxpy: make external")

pytestmark = pytest.mark.filterwarnings("ignore")  # cvxpy and its solvers are not ours to repair

ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("name", ORDER)
def test_a_projection_is_the_solution_of_the_least_squares_problem(name: str, epsilon: float) -> None:
    vectors = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors[1, 3:6] = 0.75  # ties
    vectors[2, :4] = 0
    for vector, projected in zip(vectors, NORMS[name].project(vectors, epsilon), strict=True):
        x = cvxpy.Variable(12)
        ball = cvxpy.norm(x, "inf" if name == "linf" else ORDER[name]) <= epsilon
        problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - vector.numpy())), [ball])
        problem.solve()
        assert problem.status == cvxpy.OPTIMAL
        torch.testing.assert_close(projected, torch.tensor(x.value), rtol=0, atol=1e-4)
        # of two points that solve it nearly, the nearer is ours
        assert float((projected - vector).square().sum()) <= problem.value + 1e-7


@pytest.mark.parametrize(
    ("name", "epsilon"), [("linf", 0.3), ("l2", 0.2), ("l2", 0.8), ("l2", 1.5), ("l1", 0.3), ("l1", 1.5), ("l1", 3.0)]
)
def test_confinement_is_the_nearest_point_of_ball_and_box_together(name: str, epsilon: float) -> None:
    draw = torch.Generator().manual_seed(1)
    images = (1.6 * torch.rand(6, 12, generator=draw, dtype=torch.float64) - 0.3).clamp(0, 1)
    points = images + torch.randn(6, 12, generator=draw, dtype=torch.float64)
    confined = NORMS[name].confinement(images, epsilon, (0.0, 1.0))(points.clone())
    for image, point, ours in zip(images, points, confined, strict=True):
        x = cvxpy.Variable(12)
        ball = cvxpy.norm(x - image.numpy(), "inf" if name == "linf" else ORDER[name]) <= epsilon
        problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - point.numpy())), [ball, x >= 0, x <= 1])
        problem.solve(solver=cvxpy.CLARABEL)
        assert problem.status == cvxpy.OPTIMAL
        torch.testing.assert_close(ours, torch.tensor(x.value), rtol=0, atol=1e-4)
        assert float((ours - point).square().sum()) <= problem.value + 1e-6
