"""Two-layer networks: bad input is one clear line, and random starts have the law of weights drawn in R^N."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from odeflow import (
    Adversary,
    Committee,
    GaussianClusters,
    GaussianMixture,
    IntegrationError,
    LearningRule,
    TeacherStudent,
    integrate,
    simulate,
    sweep,
    xor,
)
from odeflow.cli import main
from odeflow.model import Data
from odeflow.order_parameters import Perceptron, random_start

MIXTURE, RULE, ADVERSARY = GaussianMixture(0.7), LearningRule(), Adversary(0.3)
TWO: Any = {"network": Committee(2), "alpha": [1.0]}


def run(mixture: Data = MIXTURE, adversary: Adversary = ADVERSARY, **given: Any) -> Any:
    return integrate(mixture, RULE, adversary, **{**TWO, **given})


@pytest.mark.parametrize("hidden", [0, -1, 1.5, math.nan])
def test_a_network_has_a_whole_number_of_units(hidden: Any) -> None:
    with pytest.raises(ValueError, match="hidden"):
        Committee(hidden)


def test_products_of_centres_are_positive_semidefinite() -> None:
    with pytest.raises(ValueError, match=r"gram has the eigenvalue -1: allowed is a positive semidefinite matrix"):
        GaussianClusters(gram=[[1, 2], [2, 1]], labels=[1, -1])
    with pytest.raises(ValueError, match="gram is not symmetric"):
        GaussianClusters(gram=[[1, 0.2], [0.1, 1]], labels=[1, -1])
    with pytest.raises(ValueError, match="gram has the eigenvalue"):
        TeacherStudent(2, gram=[[1, 2], [2, 1]])
    with pytest.raises(ValueError, match="gram is singular"):
        TeacherStudent(2, gram=[[1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("mixture", "start", "message"),
    [
        (MIXTURE, {"Q": [[1, 2], [2, 1]]}, r"Q0 = .* has the eigenvalue -1: allowed is a positive semidefinite"),
        (MIXTURE, {"Q": [[1, 0.2], [0.1, 1]]}, r"Q0 = .* is not symmetric: allowed is Q0\[k, l\] = Q0\[l, k\]"),
        (MIXTURE, {"M": [0.9, 0.9]}, r"M0 = \[\[0.9\], \[0.9\]\] is out of range: .*Q0 - M0 T\^-1 M0\^T positive semi.*-0.62"),
        (xor(), {"M": [[0.9, -0.9, 0.9, -0.9], [0, 0, 0, 0]]}, r"M0 .*Q0 - M0 T\^-1 M0\^T positive semidefinite"),
        (xor(), {"M": 0.1}, "M0 = .* is no overlap with these centres: where a combination of centres is 0"),
        (TeacherStudent(2), {"R": [[0.9, 0.9], [0, 0]]}, r"R0 = .*Q0 - R0 T\^-1 R0\^T positive semidefinite"),
        (MIXTURE, {"M": [0.1, 0.2, 0.3]}, r"M0 has shape \(3,\): allowed is a number"),
        (MIXTURE, {"M": [[0.1, 0.2], [0.1, 0.2]]}, r"M0 has shape \(2, 2\): allowed is a number or an array of shape \(2,\)"),
        (MIXTURE, {"M": [0.1, math.inf]}, "M0 = inf is out of range"),
        (TeacherStudent(2), {"M": 0.1}, "start has no variable 'M': allowed for the committee are R, Q, c, theta, b"),
    ],
)  # fmt: skip
def test_impossible_overlaps_are_refused_before_any_work(mixture: Data, start: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        run(mixture, start=start)
    with pytest.raises((ValueError, TypeError), match=message):
        simulate(mixture, RULE, ADVERSARY, **TWO, start=start, N=50, runs=3)


def test_what_is_too_large_for_the_seeds_mixture_is_so_for_its_clusters() -> None:
    for rho in (2.0, 3.0, 0.5):
        seed, half = GaussianMixture(0.7, rho=rho), rho / 2
        for size, possible in ((0.999 * half, True), (1.001 * half, False)):  # |M| <= |mu| |w|, |w| = 1
            cases: list[tuple[Data, str, Any]] = [
                (seed, "M", [size, 0.0]),
                (seed.clusters(), "M", [[size, -size], [0.0, 0.0]]),
                (TeacherStudent(1, scale=half), "R", [[size], [0.0]]),
            ]
            for mixture, name, start in cases:
                arguments: Any = {"network": Committee(2), "alpha": [0.0], "N": 9, "runs": 1, "start": {name: start}}
                if possible:
                    simulate(mixture, RULE, ADVERSARY, **arguments)
                else:
                    with pytest.raises(ValueError, match=rf"{name}0 = .* is out of range"):
                        simulate(mixture, RULE, ADVERSARY, **arguments)


@pytest.mark.parametrize(
    ("mixture", "method", "least"),
    [(MIXTURE, "reduced", 4), (MIXTURE, "direct", 3), (xor(), "reduced", 5), (TeacherStudent(3), "direct", 5)],
)
def test_the_least_dimension_is_said(mixture: Data, method: Any, least: int) -> None:
    arguments: Any = {**TWO, "runs": 1, "method": method}
    with pytest.raises(ValueError, match=f"N = {least - 1} .*{method} method: allowed is a whole number >= {least}"):
        simulate(mixture, RULE, ADVERSARY, N=least - 1, **arguments)
    with pytest.raises(ValueError, match=f"N = 2 .*allowed is a whole number >= {least}"):
        sweep(mixture, RULE, ADVERSARY, over={"epsilon": [0.1]}, compute="simulate", N=2, **arguments)


def test_a_start_is_one_state_or_one_of_each_run() -> None:
    starts = random_start(Committee(2), MIXTURE, size=0.5, N=50, rng=1, runs=3)
    with pytest.raises(ValueError, match=r"M0 has shape \(3, 2\): allowed is a number or an array of shape \(2,\)$"):
        run(start=starts)
    with pytest.raises(ValueError, match=r"or an array of shape \(2,\) or an array of shape \(4, 2\)$"):
        simulate(MIXTURE, RULE, ADVERSARY, **TWO, start=starts, N=50, runs=4)
    with pytest.raises(ValueError, match=r"R0 has shape \(2,\): allowed is a number or an array of shape \(3,\)$"):
        simulate(MIXTURE, RULE, ADVERSARY, alpha=[1.0], N=50, runs=3, R0=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"R0 has shape \(2,\): allowed is a number$"):
        integrate(MIXTURE, RULE, ADVERSARY, alpha=[1.0], R0=[0.1, 0.2])


def test_data_and_attacks_that_a_network_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="attack = 'margin': allowed with a teacher is one of fgsm, pgd, worst"):
        run(TeacherStudent(2), Adversary(0.1, attack="margin"))
    with pytest.raises(TypeError, match=r"for this one there is network=Committee\(\.\.\.\)"):
        run(xor(), network=Perceptron())
    with pytest.raises(
        ValueError,
        match="attack = 'worst': allowed for the perceptron is 'fgsm', which for it is the worst attack, or 'blind'",
    ):
        run(network=Perceptron(), adversary=Adversary(0.1, attack="worst"))
    with pytest.raises(ValueError, match="over has no parameter 'M'"):
        sweep(MIXTURE, RULE, ADVERSARY, over={"M": [0.1]}, **TWO)
    with pytest.raises(ValueError, match="over has no parameter 'hidden'"):
        sweep(MIXTURE, RULE, ADVERSARY, over={"hidden": [1, 2]}, **TWO)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0.0, "N": 50}, "size = 0.0 is out of range: allowed is a finite number and > 0"),
        ({"size": 1.0, "N": 2}, "N = 2 is out of range for K = 2 and data of rank 1: allowed is a whole number >= 3"),
        ({"size": 1.0, "N": 50, "runs": 0}, "runs = 0 is out of range"),
    ],
)
def test_bad_random_starts(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_start(Committee(2), MIXTURE, **arguments)
    with pytest.raises(TypeError, match=r"network = Perceptron\(\) has no random start"):
        random_start(Perceptron(), MIXTURE, size=1.0, N=50)


@pytest.mark.parametrize("kind", ["seed", "clusters", "teacher"])
def test_random_starts_have_the_law_of_drawn_weights(kind: str) -> None:
    K, N, size, count = 2, 7, 0.8, 3000
    gram = np.array([[1.0, 0.3, 0.2], [0.3, 0.8, -0.4], [0.2, -0.4, 0.9]])
    data: dict[str, tuple[Data, Any, str]] = {
        "seed": (GaussianMixture(rho=3.0), np.array([[2.25]]), "M"),
        "clusters": (GaussianClusters(gram=gram, labels=[1, 1, -1], scale=0.7), 0.49 * gram, "M"),
        "teacher": (TeacherStudent(3, gram=gram, scale=2.0), 4 * gram, "R"),
    }
    mixture, T, name = data[kind]
    found = random_start(Committee(K), mixture, size=size, N=N, rng=1, runs=count)
    rng = np.random.default_rng(2)
    w = size / math.sqrt(N) * rng.standard_normal((count, K, N))
    mu = np.zeros((len(T), N))
    mu[:, : len(T)] = np.linalg.cholesky(T)
    M, Q = w @ mu.T, w @ np.swapaxes(w, 1, 2)
    drawn = found[name].reshape(count, K, -1)
    assert found["Q"].shape == (count, K, K)
    pairs = [(drawn[:, k, a], M[:, k, a]) for k in range(K) for a in range(len(T))]
    pairs += [(found["Q"][:, k, j], Q[:, k, j]) for k in range(K) for j in range(K)]
    # what ties Q to M: the length of a unit within and beside the centres, and products of two units'
    pairs += [(found["Q"][:, 0, 0] - drawn[:, 0, 0] ** 2 / T[0, 0], Q[:, 0, 0] - M[:, 0, 0] ** 2 / T[0, 0])]
    pairs += [(found["Q"][:, 0, 1] * drawn[:, 0, 0] * drawn[:, 1, 0], Q[:, 0, 1] * M[:, 0, 0] * M[:, 1, 0])]
    pairs += [(np.linalg.det(found["Q"]), np.linalg.det(Q))]
    assert min(ks_2samp(*pair).pvalue for pair in pairs) > 1e-4


def test_more_random_starts_begin_with_fewer() -> None:
    few, more, one = (
        random_start(Committee(3, "relu"), xor(), size=0.5, N=50, rng=4, runs=runs) for runs in (2, 5, None)
    )
    for name in few:
        np.testing.assert_array_equal(few[name], more[name][:2])
        np.testing.assert_array_equal(one[name], more[name][0])


def test_each_run_starts_from_its_own_weights() -> None:
    starts = random_start(Committee(2), xor(), size=0.5, N=50, rng=1, runs=3)
    arguments: Any = {**TWO, "alpha": [0.0, 0.5], "N": 50, "runs": 3, "rng": 5}
    found = simulate(xor(), RULE, ADVERSARY, **arguments, start=starts)
    assert found.M0.dims == ("run", "unit", "cluster")
    np.testing.assert_allclose(found.M.isel(alpha=0), starts["M"], atol=1e-12)
    np.testing.assert_allclose(found.Q.isel(alpha=0), starts["Q"], atol=1e-12)
    second = {name: value[1] for name, value in starts.items()}
    alone = simulate(xor(), RULE, ADVERSARY, **arguments, start=second)
    np.testing.assert_array_equal(alone.M.isel(run=1), found.M.isel(run=1))
    assert not np.array_equal(alone.M.isel(run=0), found.M.isel(run=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hidden 0", "hidden = 0 is out of range: allowed is a whole number >= 1"),
        ("--hidden 2 --M0 0.2 0.1 0.3", "M0 has 3 numbers: allowed is one, or 2: 2 (unit), row by row"),
        (
            "--hidden 2 --data xor --Q0 1 2",
            "Q0 has 2 numbers: allowed is one, or 4: 2 (unit) x 2 (other_unit), row by row",
        ),
        ("--hidden 2 --M0 0.2 x", "M0 = 'x' is not a number"),
        ("--hidden 2 --data xor --M0 0.2", "M0 = [[0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]] is no overlap"),
        ("--hidden 2 --start-size 1 --Q0 2", "start_size = 1.0 and Q0 are both given: allowed is one of them"),
        ("--hidden 2 --start-seed 1", "start_seed = 1 has no meaning without start_size: leave it out"),
        ("--hidden 2 --start-size 1 --start-seed -1", "start_seed = -1 is out of range"),
        ("--data clusters", "labels are missing: allowed is +1 or -1 of each cluster"),
        ("--data clusters --labels 1 -1 --means 1 2 3", "means are 3 numbers for 2 labels: allowed are equally many"),
        ("--data clusters --labels 1 -1 --gram 1 2 2 1", "gram has the eigenvalue -1"),
        ("--data teacher --teacher-gram 1 2", "teacher_gram are 2 numbers: allowed are those of a square matrix"),
        ("--data teacher --attack margin", "attack = 'margin': allowed with a teacher"),
        (
            "--data xorr",
            "data = 'xorr' is unknown (did you mean xor?): allowed is one of mixture, xor, clusters, teacher",
        ),
        ("--data xor --rho 2", "--rho is no option of odeflow simulate"),
        ("--loss hinge", "--loss is no option of odeflow simulate"),
    ],
)
def test_bad_command_lines_are_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["simulate", "--network", "committee", "--runs", "1", *arguments.split()])
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr().err
    assert status == 2
    assert message in said
    assert said.count("\n") == 1


def test_a_start_is_a_mapping_with_shapes_in_words() -> None:
    with pytest.raises(TypeError, match=r"start = \[0.1, 0.2\]: allowed is a mapping .* such as \{'M': 0.1\}"):
        run(start=[0.1, 0.2])
    with pytest.raises(
        ValueError, match=r"M0 has shape \(3,\): allowed is a number, or an array of shape \(2,\), of unit"
    ):
        run(start={"M": [0.1, 0.2, 0.3]})


def test_units_without_weights_are_simulated_only() -> None:
    start: Any = {"M": [0.0, 0.0], "Q": [[0.5, 0.0], [0.0, 0.0]]}
    with pytest.raises(
        ValueError, match=r"Q0 has the diagonal \[0.5, 0.0\]: allowed in the theory are squared lengths > 0"
    ):
        run(start=start)
    found = simulate(MIXTURE, RULE, ADVERSARY, network=Committee(2), start=start, N=50, alpha=[1.0], runs=2, rng=1)
    assert np.isfinite(found.Q.values).all()


def test_names_of_errors_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="errors has 'eror': allowed are error, fgsm_error, adversarial_error, loss"):
        Committee(2, errors="eror")  # type: ignore[arg-type]


def test_a_failure_names_the_network_the_start_and_what_may_be_the_matter() -> None:
    message = r"raise max_steps.*; of two layers .*an output weight crosses 0.*Committee\(hidden=1.*from M0 = \[0.1\]"
    with pytest.raises(IntegrationError, match=message):
        integrate(
            GaussianMixture(),
            LearningRule(0.5),
            ADVERSARY,
            alpha=[2.0],
            network=Committee(eta_c=0.3),
            start={"c": 0.0, "M": 0.1},
        )
    held = simulate(
        GaussianMixture(), LearningRule(0.5), ADVERSARY, alpha=[2.0], network=Committee(eta_c=0.3), start={"c": 0.0, "M": 0.1},
        N=1000, runs=4, rng=1,
    )  # fmt: skip
    assert float(abs(held.c).max()) < 0.01  # the simulation stays there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--network comittee --hidden 2", "network = 'comittee' is unknown (did you mean committee?)"),
        ("--hidden 2", "--hidden is no option of odeflow integrate (it belongs to --network committee)"),
        (
            "--network committee --data xor --p 0.3",
            "--p is no option of odeflow integrate (it belongs to --data mixture)",
        ),
        ("--teacher-units 2", "--teacher-units is no option of odeflow integrate (it belongs to --data teacher)"),
    ],
)
def test_options_of_other_networks_and_data(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["integrate", *arguments.split()])
    assert message in capsys.readouterr().err
