"""The branch-free functions against mpmath-quality references, over the ranges they state."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit
from scipy import special

from odeflow.numerics import elementary

Array = npt.NDArray[np.float64]
EPS = np.finfo(float).eps


@njit(error_model="numpy")
def _exp(x: Array, out: Array) -> None:
    for i in range(x.size):
        out[i] = elementary.exp(x[i])


@njit(error_model="numpy")
def _log(x: Array, out: Array) -> None:
    for i in range(x.size):
        out[i] = elementary.log(x[i])


@njit(error_model="numpy")
def _erfcx(x: Array, out: Array) -> None:
    for i in range(x.size):
        out[i] = elementary.erfcx(x[i])


@njit(error_model="numpy")
def _cos_sin(x: Array, cos: Array, sin: Array) -> None:
    for i in range(x.size):
        cos[i], sin[i] = elementary.cos_sin_turns(x[i])


def test_exp_is_right_to_two_units_in_the_last_place() -> None:
    x = np.concatenate([np.linspace(-700, 700, 200_001), np.linspace(-1, 1, 10_001)])
    out = np.empty_like(x)
    _exp(x, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=2 * EPS)


def test_exp_far_below_is_tiny_and_keeps_nan() -> None:
    out = np.empty(3)
    _exp(np.array([-1e4, -math.inf, math.nan]), out)
    assert np.all(out[:2] < 1e-307)
    assert np.isnan(out[2])


def test_log_is_right_to_four_units_in_the_last_place() -> None:
    near_one = 1 + np.array([-1e-3, -1e-9, 0, 1e-9, 1e-3])
    x = np.concatenate([np.exp(np.linspace(-700, 700, 100_001)), np.linspace(0.4, 2.5, 10_001), near_one])
    out = np.empty_like(x)
    _log(x, out)
    np.testing.assert_allclose(out, np.log(x), rtol=4 * EPS, atol=1e-300)


def test_erfcx_is_right_to_rounding_of_its_largest_value() -> None:
    x = np.concatenate([np.linspace(0, 10, 10_001), np.geomspace(10, 1e6, 1001)])
    out = np.empty_like(x)
    _erfcx(x, out)
    np.testing.assert_allclose(out, special.erfcx(x), rtol=0, atol=8 * EPS)


def test_cos_and_sin_of_whole_turns() -> None:
    u = np.arange(-8, 9) / 4
    cos, sin = np.empty_like(u), np.empty_like(u)
    _cos_sin(u, cos, sin)
    np.testing.assert_array_equal(cos, np.array([1, 0, -1, 0] * 4 + [1]))
    np.testing.assert_array_equal(sin, np.array([0, 1, 0, -1] * 4 + [0]))


@pytest.mark.parametrize("low", [-2.0, 0.0, 1000.0])
def test_cos_and_sin_agree_with_the_library(low: float) -> None:
    u = low + np.linspace(0, 1, 10_001)
    cos, sin = np.empty_like(u), np.empty_like(u)
    _cos_sin(u, cos, sin)
    turn = 2 * np.pi * (u % 1)  # exact remainder, so that the reference does not lose digits
    np.testing.assert_allclose(cos, np.cos(turn), rtol=0, atol=6 * EPS)
    np.testing.assert_allclose(sin, np.sin(turn), rtol=0, atol=6 * EPS)
