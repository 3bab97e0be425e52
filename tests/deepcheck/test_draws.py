"""Random numbers by example: their laws, and that nothing but seed, index and counters enters them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from deepcheck.attacks.draws import Draws, keys, mixed
from tests.deepcheck.devices import on_every_device, on_the_cpu

pytestmark = on_every_device

N, D = 400, 500


def draws(seed: int = 0, n: int = N) -> Draws:
    return Draws(keys(torch.Generator().manual_seed(seed), torch.arange(n)))


def uniforms(key: Tensor) -> np.ndarray:
    return Draws(key).symmetric(torch.empty(len(key), D, dtype=torch.float64)).numpy()


def key(seed: int = 1, n: int = N) -> Tensor:
    return keys(torch.Generator().manual_seed(seed), torch.arange(n))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_laws(dtype: torch.dtype) -> None:
    """Kolmogorov-Smirnov, mean and variance of 200,000 numbers, and the same of one number per example."""
    like = torch.empty(N, D, dtype=dtype)
    one = torch.empty(N * D, 1, dtype=dtype)
    for found, law in (
        (draws(11).symmetric(like), stats.uniform(-1, 2)),
        (draws(12).normal(like), stats.norm()),
        (draws(13, N * D).uniform(one), stats.uniform()),
        (draws(14, N * D).normal(one), stats.norm()),
    ):
        x = found.double().flatten().numpy()
        assert stats.kstest(x, law.cdf).pvalue > 1e-3
        assert abs(x.mean() - law.mean()) < 4 * law.std() / math.sqrt(x.size)
        fourth = law.stats("k") + 2  # of (x - mean)^2 / variance: its variance
        assert abs(x.var() / law.var() - 1) < 4 * math.sqrt(float(fourth) / x.size)


def test_sums_of_an_example_vary_as_those_of_independent_numbers() -> None:
    """The variance of the mean of D numbers is 1/(3 D), that of their count in one of 16 bins D 15/256."""
    n = 20_000
    for count in (4, 100):
        words = draws(15, n).words(count)
        mean = (words.double() + 0.5).mean(1) / 2**31
        assert abs(float(mean.var()) * 3 * count - 1) < 4 * math.sqrt(2 / n)
        bins = torch.stack([((words >> 28) == k).sum(1).double().var() for k in range(-8, 8)])
        kurtosis = 1 / (count * 15 / 256)  # of a count, about, beside that of the normal law
        assert abs(float(bins.mean()) / (count * 15 / 256) - 1) < 4 * math.sqrt((2 + kurtosis) / n / 15)


def test_tails_of_the_normal_law() -> None:
    x = draws(5, 2000).normal(torch.empty(2000, 1000))
    for z in (3.0, 4.0):
        expected = 2e6 * 2 * stats.norm.sf(z)
        assert abs(float((x.abs() > z).sum()) - expected) < 4 * math.sqrt(expected)
    assert x.abs().max() < 5.5


def test_every_bit_is_as_often_0_as_1_and_bits_do_not_know_of_each_other() -> None:
    words = draws(6).words(D).numpy().astype(np.uint32).ravel()
    bits = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float64) * 2 - 1
    correlation = bits.T @ bits / len(bits)
    np.fill_diagonal(correlation, 0)
    sigma = 1 / math.sqrt(len(bits))
    assert np.abs(bits.mean(0)).max() < 4 * sigma
    assert np.abs(correlation).max() < 5 * sigma  # of 496 pairs
    assert stats.chisquare(np.bincount(words >> 24, minlength=256)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(words & 255, minlength=256)).pvalue > 1e-3


def test_neighbours_are_independent() -> None:
    """Entries, examples, restarts, queries, calls and seeds that follow each other: no correlation, no equal numbers."""
    k = key()
    of = Draws(k)
    like = torch.empty(N, D, dtype=torch.float64)
    first, second = (of.symmetric(like).numpy() for _ in range(2))
    pairs = {
        "entries": (first[:, 1:], first[:, :-1]),
        "examples": (first[1:], first[:-1]),
        "calls": (first, second),
        "restarts": (uniforms(mixed(k, 0)), uniforms(mixed(k, 1))),
        "order of restart and query": (uniforms(mixed(mixed(k, 0), 1)), uniforms(mixed(mixed(k, 1), 0))),
        "seeds": (first, uniforms(key(2))),
        "shifted examples": (first[1:, 1:], first[:-1, :-1]),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / math.sqrt(a.size), name
        assert abs(np.corrcoef(a.ravel() ** 2, b.ravel() ** 2)[0, 1]) < 4 / math.sqrt(a.size), name
        # of pairs of independent numbers, every cell of a grid has as many
        grid, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=16, range=[[-1, 1], [-1, 1]])
        assert stats.chisquare(grid.ravel()).pvalue > 1e-3, name
        assert (a != b).mean() > 1 - 1e-6, name


def test_examples_do_not_correlate_as_a_whole() -> None:
    """All pairs of 400 examples: the largest of 79,800 correlations is what independent ones have."""
    x = uniforms(key(3))
    correlation = np.corrcoef(x)[np.triu_indices(N, 1)] * math.sqrt(D)
    assert stats.kstest(correlation, "norm").pvalue > 1e-4
    assert np.abs(correlation).max() < stats.norm.isf(1e-3 / correlation.size)


def test_numbers_of_an_example_depend_on_its_index_alone() -> None:
    like = torch.empty(N, D)
    whole = draws(7).normal(like)
    rows = torch.tensor([3, 399, 17])
    some = Draws(keys(torch.Generator().manual_seed(7), rows))
    assert torch.equal(some.normal(like[rows]), whole[rows])


def test_integers_and_signs() -> None:
    of = draws(8, 60_000)
    for end, found in zip((2, 7, 1, 1000), of.below(2, 7, 1, 1000), strict=True):
        counts = np.bincount(found.numpy(), minlength=end)
        assert len(counts) == end
        assert stats.chisquare(counts).pvalue > 1e-3 or end == 1
    signs = of.signs(torch.empty(60_000, 1, dtype=torch.float64), 3)
    assert signs.dtype is torch.float64
    assert (signs.abs() == 1).all()
    octants = ((signs > 0) * torch.tensor([1, 2, 4])).sum(1)
    assert stats.chisquare(np.bincount(octants.numpy())).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_ends_are_never_reached(dtype: torch.dtype) -> None:
    like = torch.empty(N, D, dtype=dtype)
    of = draws(9)
    x, u, z = of.symmetric(like), of.uniform(torch.empty(N, 1, dtype=dtype)), of.normal(like)
    assert x.dtype is u.dtype is z.dtype is dtype
    assert (x.abs() < 1).all()
    assert (x != 0).all()
    assert ((u > 0) & (u < 1)).all()
    assert z.isfinite().all()


def test_values_that_must_not_change() -> None:
    """The rule, written out in integers of any length."""

    def scramble(z: int, bits: int, rounds: list[tuple[int, int]], last: int) -> int:
        for shift, factor in rounds:
            z = ((z ^ (z >> shift)) * factor) % 2**bits
        return z ^ (z >> last)

    def mix(k: int, number: int) -> int:
        z = (k + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
        return scramble(z, 64, [(30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)], 31)

    def word(k: int, position: int) -> int:
        z = (k + position * 0x9E3779B9) % 2**32
        for half in (k >> 32, 0):
            z = (scramble(z, 32, [(16, 0x7FEB352D), (15, 0x846CA68B)], 16) + half) % 2**32
        return z

    seed = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(1)))
    of = Draws(mixed(key(1, 3), 5))
    of.words(2)
    found = of.words(4)
    for example in range(3):
        k = mix(mix(mix(seed, example), 5), 1)
        assert [int(value) % 2**32 for value in found[example]] == [word(k, position) for position in range(4)]


@on_the_cpu  # where this test makes its tensors, unless it says otherwise
@pytest.mark.cuda
@pytest.mark.skipif("not torch.cuda.is_available()", reason="needs a GPU")
def test_a_gpu_draws_the_same_numbers() -> None:
    for name in ("symmetric", "uniform", "normal"):
        for dtype in (torch.float64, torch.float32):
            like = torch.empty(N, D, dtype=dtype)
            on_gpu = Draws(key().cuda())
            found, expected = getattr(on_gpu, name)(like.cuda()).cpu(), getattr(Draws(key()), name)(like)
            exact = name != "normal"
            torch.testing.assert_close(found, expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
