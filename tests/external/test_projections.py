"""Projections as convex problems, solved by CVXPY."""

import math

import pytest
import torch

from deepcheck.attacks.norms import NORMS, LInf

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


def test_confinement_to_cube_and_box_is_the_nearest_point_of_both() -> None:
    draw = torch.Generator().manual_seed(1)
    image = torch.rand(1, 12, generator=draw, dtype=torch.float64)
    point = image + torch.randn(1, 12, generator=draw, dtype=torch.float64)
    x = cvxpy.Variable(12)
    constraints = [cvxpy.norm(x - image[0].numpy(), "inf") <= 0.3, x >= 0, x <= 1]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - point[0].numpy())), constraints)
    problem.solve()
    confined = LInf().confinement(image, 0.3, (0.0, 1.0))(point.clone())
    torch.testing.assert_close(confined[0], torch.tensor(x.value), rtol=0, atol=1e-4)
