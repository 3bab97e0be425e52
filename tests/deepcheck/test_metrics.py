"""Every metric is its formula: against loops that anyone can read, hand-computed cases and limits."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from deepcheck.evaluation.detection import false_positive_rate, negative_confidences
from deepcheck.evaluation.records import AttackRecord, assemble
from deepcheck.evaluation.robustness import Definition, robust_error, robustness_curve, worst_case
from deepcheck.evaluation.thresholds import confidence_threshold, standard_error, test_error, threshold_of
from tests.deepcheck.evaluation_cases import (
    definitions,
    quick,
    random_attack,
    random_records,
    scores,
    some_records,
    taus,
    versions,
)


def counted(records: xr.Dataset, norm: str, epsilon: float, tau: float, definition: str) -> float:
    """Return the robust error by its formula, example by example."""
    errors = total = 0
    for n in range(records.sizes["example"]):
        y, c = int(records.label[n]), float(records.clean_confidence[n])
        wrong = int(records.clean_prediction[n]) != y
        bad = [version for version in versions(records, n, norm, epsilon) if version[1] != y]
        if wrong:
            bad.append((c, int(records.clean_prediction[n])))
        worst = max((confidence for confidence, _ in bad), default=c)
        if definition == "per_example":
            errors += max(wrong and c >= tau, bool(bad) and worst >= tau)
            total += max(c >= tau, worst >= tau)
        else:
            adversarial = not wrong and bool(bad) and worst >= tau
            errors += (wrong and c >= tau) + adversarial
            total += (c >= tau) + (adversarial and c < tau)
    return errors / total if total else math.nan


# --- the threshold ---


@pytest.mark.parametrize(
    ("n", "tpr", "k"),
    [
        (1000, 0.99, 10),
        (100, 0.99, 1),
        (99, 0.99, 0),
        (1000, 0.995, 5),
        (10, 0.9, 1),
        (100, 0.9, 10),
        (10, 0.1 + 0.2, 7),
        (7, 1, 0),
    ],
)
def test_the_threshold_is_the_right_one_in_order(n: int, tpr: float, k: int) -> None:
    confidence = np.random.default_rng(n).permutation(n) / n
    tau = confidence_threshold(confidence, np.full(n, True), tpr=tpr)
    assert tau == k / n
    assert np.count_nonzero(confidence >= tau) == n - k


@pytest.mark.parametrize("n", [7, 10, 100, 1000])
def test_its_index_is_that_of_whole_numbers(n: int) -> None:
    confidence = np.arange(n) / n
    found = [confidence_threshold(confidence, np.full(n, True), tpr=t / 1000) for t in range(1, 1001)]
    assert found == [confidence[n * (1000 - t) // 1000] for t in range(1, 1001)]


@quick
@given(scores, st.integers(1, 100))
def test_it_accepts_the_share_and_no_larger_confidence_does(confidence: list[float], percent: int) -> None:
    tau = confidence_threshold(confidence, np.full(len(confidence), True), tpr=percent / 100)
    n = len(confidence)
    assert 100 * sum(c >= tau for c in confidence) >= percent * n
    assert 100 * sum(c > tau for c in confidence) < percent * n  # the next larger confidence accepts too few


def test_only_correct_validation_examples_count() -> None:
    records = random_records(0, 3)
    correct = (records.validation_prediction == records.validation_label).values
    assert 0 < correct.sum() < 20
    assert threshold_of(records, tpr=1) == records.validation_confidence.values[correct].min()
    accepted = records.validation_confidence.values[correct] >= threshold_of(records, tpr=0.6)
    assert accepted.mean() >= 0.6


def test_a_threshold_accepts_the_confidence_it_was() -> None:
    third = np.array([1 / 3])  # not a single-precision number
    attack = AttackRecord("linf", (0.1,), np.array([[[1]]]), third[None, None], np.array([[[0.1]]]))
    clean = {"label": [0], "clean_prediction": [0], "clean_confidence": third}
    apart = {"validation_label": [0], "validation_prediction": [0], "validation_confidence": third}
    records = assemble({"a": attack}, **clean, **apart)  # type: ignore[arg-type]
    for tau in (threshold_of(records), 1 / 3):
        assert test_error(records, tau=tau) == 0
        assert robust_error(records, epsilon=0.1, tau=tau) == 1


def test_bad_thresholds() -> None:
    with pytest.raises(ValueError, match=r"tpr = 0 is out of range: allowed is \(0, 1\]"):
        confidence_threshold([0.5], [True], tpr=0)
    with pytest.raises(ValueError, match="none is classified correctly"):
        confidence_threshold([0.5], [False])
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        confidence_threshold([0.5], [True, True])
    with pytest.raises(TypeError, match="int64: allowed are bools"):
        confidence_threshold([0.5], [1])
    with pytest.raises(ValueError, match="nan"):
        confidence_threshold([np.nan], [True])
    with pytest.raises(ValueError, match="of 0 validation examples none"):
        threshold_of(random_records(0, 3).isel(validation=[]))
    with pytest.raises(ValueError, match="tau = nan"):
        test_error(random_records(0, 3), tau=math.nan)
    with pytest.raises(TypeError, match=r"tau = '0\.5'"):
        test_error(random_records(0, 3), tau="0.5")  # type: ignore[arg-type]


# --- errors ---


@quick
@given(some_records(), taus)
def test_test_error_is_its_formula(records: xr.Dataset, tau: float) -> None:
    rows = zip(records.label.values, records.clean_prediction.values, records.clean_confidence.values, strict=True)
    accepted = [y != f for y, f, c in rows if c >= tau]
    expected = sum(accepted) / len(accepted) if accepted else math.nan
    np.testing.assert_equal(test_error(records, tau=tau), expected)


@quick
@given(some_records(), st.sampled_from([("linf", 0.2), ("linf", 0.4), ("l2", 1.0)]), taus, definitions)
def test_robust_error_is_its_formula(
    records: xr.Dataset, ball: tuple[str, float], tau: float, definition: Definition
) -> None:
    norm, epsilon = ball
    found = robust_error(records, norm=norm, epsilon=epsilon, tau=tau, definition=definition)
    np.testing.assert_equal(found, counted(records, norm, epsilon, tau, definition))


def by_hand() -> xr.Dataset:
    """Return six examples of class 0 and what one attack with two restarts made of them."""
    attack = AttackRecord(
        "linf",
        (0.3,),
        #  fails, but confident | succeeds | succeeds, rejected | wrong | wrong, rejected, then accepted | not attacked
        prediction=np.array([[[0, 1, 1, 1, 2, -1], [0, 0, 1, 0, 0, -1]]]),
        confidence=np.array([[[1.0, 0.9, 0.4, 0.3, 0.9, np.nan], [0.2, 1.0, 0.5, 1.0, 1.0, np.nan]]]),
        length=np.array([[[0.3, 0.3, 0.3, 0.3, 0.3, np.nan], [0.1, 0.1, 0.1, 0.1, 0.1, np.nan]]]),
    )
    return assemble(
        {"pgd": attack},
        label=[0, 0, 0, 0, 0, 0],
        clean_prediction=[0, 0, 0, 1, 1, 0],
        clean_confidence=[0.4, 0.9, 0.9, 0.8, 0.4, 0.7],
    )


def test_a_case_by_hand() -> None:
    records = by_hand()
    worst = worst_case(records, epsilon=0.3)
    assert worst.wrong.values.tolist() == [False, True, True, True, True, False]
    np.testing.assert_allclose(worst.confidence, [0.4, 0.9, 0.5, 0.8, 0.9, 0.7], rtol=1e-6)
    assert worst.prediction.values.tolist() == [0, 1, 1, 1, 2, 0]
    assert worst.attack.values.tolist() == ["clean", "pgd", "pgd", "clean", "pgd", "clean"]
    assert worst.restart.values.tolist() == [-1, 0, 1, -1, 0, -1]
    np.testing.assert_allclose(worst.epsilon, [0, 0.3, 0.3, 0, 0.3, 0])
    np.testing.assert_allclose(worst.length, [0, 0.3, 0.1, 0, 0.3, 0], rtol=1e-6)
    assert test_error(records) == 2 / 6
    assert test_error(records, tau=0.6) == 1 / 4  # 0.9, 0.9, 0.8 (wrong), 0.7
    assert robust_error(records, epsilon=0.3) == 4 / 6
    # accepted: the second, third, fourth and sixth without an attack, the second and fifth with; wrong: 2nd, 4th, 5th
    assert robust_error(records, epsilon=0.3, tau=0.6) == 3 / 5
    assert robust_error(records, epsilon=0.3, tau=0.6, definition="preprint") == 2 / 4
    assert false_positive_rate(records, 0.6, epsilon=0.3) == 1 / 2  # second and third were correct


@quick
@given(some_records(), definitions)
def test_at_no_threshold_it_is_the_plain_robust_error(records: xr.Dataset, definition: Definition) -> None:
    chosen = records.isel(attack=records.norm.values == "linf")
    attacked = (chosen.prediction >= 0) & (chosen.prediction != chosen.label)
    wrong = attacked.any(["attack", "epsilon", "restart"]) | (records.clean_prediction != records.label)
    assert robust_error(records, norm="linf", epsilon=0.4, definition=definition) == float(wrong.mean())


@quick
@given(some_records(), definitions)
def test_above_one_nothing_is_accepted(records: xr.Dataset, definition: Definition) -> None:
    assert math.isnan(test_error(records, tau=1.125))
    assert math.isnan(robust_error(records, norm="linf", epsilon=0.4, tau=1.125, definition=definition))
    assert np.isnan(robustness_curve(records, norm="linf", tau=1.125, definition=definition)).all()


@quick
@given(some_records(), taus, definitions)
def test_more_attacks_restarts_or_room_never_lower_it(records: xr.Dataset, tau: float, definition: Definition) -> None:
    def error(found: xr.Dataset, **choice: object) -> float:
        value = robust_error(found, **{"epsilon": 0.3, "tau": tau, "definition": definition, **choice})  # type: ignore[arg-type]
        return -1.0 if math.isnan(value) else value  # where nothing was accepted, anything is more

    whole = error(records, norm="linf")
    assert error(records, attacks="strong") <= whole
    assert error(records, attacks=["late"]) <= whole
    assert error(records, norm="linf", smaller=False) <= whole
    assert error(records.isel(restart=[0]), norm="linf") <= whole
    assert whole <= error(records, norm="linf", epsilon=0.4)
    assert whole <= error(records, epsilon={"linf": 0.3, "l2": 1.0})


@quick
@given(some_records(), taus, definitions, st.randoms(use_true_random=False))
def test_no_order_matters(records: xr.Dataset, tau: float, definition: Definition, random: object) -> None:
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    mixed = records.isel({dim: rng.permutation(records.sizes[dim]) for dim in ("attack", "restart", "example")})
    both = [
        (
            robust_error(one, norm="linf", epsilon=0.4, tau=tau, definition=definition),
            sorted(negative_confidences(one, norm="linf", epsilon=0.4)),
            robustness_curve(one, norm="linf", tau=tau, definition=definition).values.tolist(),
        )
        for one in (records, mixed)
    ]
    np.testing.assert_equal(both[0], both[1])


@quick
@given(some_records(), taus)
def test_the_definitions_differ_by_what_is_wrong_and_rejected_without_an_attack(
    records: xr.Dataset, tau: float
) -> None:
    clean = records.isel(example=(records.clean_prediction == records.label).values)
    if clean.sizes["example"]:
        first = robust_error(clean, norm="linf", epsilon=0.4, tau=tau)
        np.testing.assert_equal(robust_error(clean, norm="linf", epsilon=0.4, tau=tau, definition="preprint"), first)


def test_the_worst_case_is_where_it_says() -> None:
    records = random_records(3, 40)
    worst = worst_case(records, epsilon={"linf": 0.4, "l2": 1.0})
    assert {"clean", "strong", "late", "round"} == set(worst.attack.values.tolist())
    for n in range(40):
        found = worst.isel(example=n)
        if found.attack == "clean":
            assert (found.epsilon, found.restart, found.length) == (0, -1, 0)
            source = records.isel(example=n)[["clean_prediction", "clean_confidence"]]
            assert (found.prediction, found.confidence) == (source.clean_prediction, source.clean_confidence)
        else:
            place = {"attack": str(found.attack.item()), "epsilon": found.epsilon, "restart": found.restart}
            source = records.isel(example=n).sel(place)
            for name in ("prediction", "confidence", "length"):
                assert found[name] == source[name]
            assert found.wrong
    for variable in worst.variables.values():
        assert set(variable.attrs) == {"long_name", "units"}


def test_a_coordinate_of_the_examples_is_kept() -> None:
    records = random_records(0, 3).assign_coords(example=[7, 11, 13])
    assert worst_case(records, norm="l2", epsilon=1).example.values.tolist() == [7, 11, 13]


def test_bad_choices() -> None:
    records = random_records(0, 3)
    with pytest.raises(ValueError, match="in the norms l2, linf: allowed is one norm"):
        robust_error(records, epsilon=0.3)
    with pytest.raises(ValueError, match=r"attacks = 'stron' is unknown \(did you mean 'strong'\?\)"):
        robust_error(records, attacks="stron", epsilon=0.3)
    with pytest.raises(ValueError, match="norm = 'l1' is unknown"):
        robust_error(records, norm="l1", epsilon=0.3)
    with pytest.raises(ValueError, match=r"attacks = \['round'\] with norm = 'linf' are none"):
        robust_error(records, attacks="round", norm="linf", epsilon=0.3)
    for bad in (0.25, 1.0, -0.1, math.nan):
        with pytest.raises(
            ValueError, match=r"was not run in the norm linf: allowed is 0, or one of 0.1, 0.2, 0.3, 0.4"
        ):
            robust_error(records, norm="linf", epsilon=bad)
    with pytest.raises(TypeError, match=r"epsilon = '0\.3'"):
        robust_error(records, norm="linf", epsilon="0.3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed is a dict of norms, without norm"):
        robust_error(records, norm="linf", epsilon={"linf": 0.3})
    with pytest.raises(ValueError, match="definition = 'per-example' is unknown"):
        robust_error(records, norm="linf", epsilon=0.3, definition="per-example")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="records are of the wrong type"):
        robust_error({}, epsilon=0.3)  # type: ignore[arg-type]


def test_epsilons_agree_up_to_rounding() -> None:
    records = random_records(0, 6)
    assert robust_error(records, norm="linf", epsilon=0.1 * 3) == robust_error(records, norm="linf", epsilon=0.3)


def test_the_standard_error_is_that_of_the_binomial_law() -> None:
    shares = np.random.default_rng(0).binomial(400, 0.3, 20_000) / 400
    assert standard_error(0.3, 400) == pytest.approx(shares.std(), rel=4 / math.sqrt(2 * 20_000))
    assert standard_error(0, 5) == standard_error(1, 5) == 0
    assert math.isnan(standard_error(math.nan, 0))
    with pytest.raises(ValueError, match=r"share = 1\.5"):
        standard_error(1.5, 3)
    with pytest.raises(ValueError, match="count = -1"):
        standard_error(0.5, -1)


def test_a_second_look_at_an_attack_in_parts() -> None:
    """An attack's restarts may as well be two attacks."""
    rng = np.random.default_rng(5)
    whole = random_attack(rng, 30, (0.1, 0.3), 4)
    halves = {
        name: AttackRecord(
            "linf", whole.epsilons, whole.prediction[:, part], whole.confidence[:, part], whole.length[:, part]
        )
        for name, part in (("a", slice(2)), ("b", slice(2, None)))
    }
    one, two = random_records(6, 30, {"a": whole}), random_records(6, 30, halves)
    for tau in (0, 0.5, 0.9):
        assert robust_error(one, epsilon=0.3, tau=tau) == robust_error(two, epsilon=0.3, tau=tau)
