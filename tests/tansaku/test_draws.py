"""Draws: layouts, distributions, fair coins bit by bit, replays."""

from __future__ import annotations

import pytest
import torch

from tansaku import Replay, draws

LIKE = torch.zeros((), dtype=torch.float64)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near(share: float, expected: float, n: int) -> bool:
    return abs(share - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5


def test_every_draw_is_laid_out_lead_batch_event() -> None:
    shapes = ((2, 3), (4,), (5, 6))
    for drawn in (
        draws.normal(*shapes, LIKE, noise()),
        draws.uniform(*shapes, LIKE, noise()),
        draws.integers(7, *shapes, LIKE, noise()),
        draws.coins(0.5, *shapes, LIKE, noise()),
        draws.coins(0.1, *shapes, LIKE, noise()),
        draws.normal_pairs(*shapes, LIKE, noise()),
    ):
        assert drawn.shape == (2, 3, 4, 5, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("n", [1000, 200_000])
def test_uniform_numbers_fill_zero_to_one(n: int, dtype: torch.dtype) -> None:
    u = draws.uniform((n,), (), (), torch.zeros((), dtype=dtype), noise())
    assert u.dtype == dtype
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    for share in (1 / 64, 0.3, 63 / 64):
        assert near(float((u < share).double().mean()), share, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1000, 400_000])
def test_weights_are_uniform_between_their_ends(n: int, dtype: torch.dtype) -> None:
    w = draws.weights((n,), (), (), torch.zeros((), dtype=dtype), noise(), -0.5, 1.5)
    assert w.dtype == dtype
    assert float(w.min()) >= -0.5
    assert float(w.max()) <= 1.5
    for share in (1 / 64, 0.25, 0.5, 0.75, 63 / 64):
        assert near(float((w < -0.5 + 2 * share).double().mean()), share, n)
    places = w[: n // 4 * 4].double().view(-1, 4) - 0.5  # four numbers may share a random word
    apart = (places.T @ places) / len(places) * 3  # a variance of 1/3
    assert torch.allclose(apart, torch.eye(4, dtype=torch.float64), atol=6 / len(places) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("n", [100, 10_000, 400_000])
def test_fractions_are_uniform_in_zero_to_one(n: int, dtype: torch.dtype) -> None:
    numerator, denominator = draws.fractions((n,), (), (), torch.zeros((), dtype=dtype), noise())
    assert numerator.dtype == dtype
    assert denominator == (65535.0 if n > 1000 and dtype != torch.float16 else 1.0)
    w = numerator.double() / denominator
    assert float(w.min()) >= 0.0
    assert float(w.max()) <= 1.0
    assert float(w.mean()) == pytest.approx(0.5, abs=5 / 12**0.5 / n**0.5)
    for share in (1 / 64, 0.25, 0.5, 0.75, 63 / 64):
        assert near(float((w < share).double().mean()), share, n)
    places = w[: n // 4 * 4].view(-1, 4) - 0.5  # four numbers may share a random word
    apart = (places.T @ places) / len(places) * 12
    assert torch.allclose(apart, torch.eye(4, dtype=torch.float64), atol=6 / len(places) ** 0.5)


def sfc64(seed: list[int], count: int) -> list[int]:
    """C. Doty-Humphrey's generator, number by number; it warms up for twelve."""
    most = 2**64 - 1
    a, b, c = (word & most for word in seed)
    words = []
    for counter in range(1, 13 + count):
        words.append((a + b + counter) & most)
        a, b, c = b ^ (b >> 11), (c + (c << 3)) & most, (((c << 24) | (c >> 40)) + words[-1]) & most
    return words[12:]


def test_many_random_bits_are_those_of_sfc64_seeded_by_the_generator() -> None:
    cpu, count = torch.device("cpu"), 20_000
    generator = noise(3)
    first, second = draws._words(count, cpu, generator), draws._words(count, cpu, generator)
    replayed = noise(3)
    for drawn in (first, second):
        seed = torch.empty(3, dtype=torch.int64).random_(-(2**63), None, generator=replayed)
        assert [word % 2**64 for word in drawn.tolist()] == sfc64(seed.tolist(), count)
    ones = torch.stack([(first >> bit) & 1 for bit in range(64)]).double().mean(1)
    assert bool(((ones - 0.5).abs() < 5 * 0.5 / count**0.5).all())
    assert len(torch.cat([first, second]).unique()) == 2 * count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1000, 200_000])
def test_normal_numbers_are_standard(n: int, dtype: torch.dtype) -> None:
    z = draws.normal((n,), (), (), torch.zeros((), dtype=dtype), noise()).double()
    assert abs(float(z.mean())) < 5 / n**0.5
    assert float(z.var()) == pytest.approx(1.0, abs=5 * (2 / n) ** 0.5)
    for bound, share in ((1, 0.158655), (2, 0.022750), (3, 0.001350)):
        assert near(float((z > bound).double().mean()), share, n)
        assert near(float((z < -bound).double().mean()), share, n)


@pytest.mark.parametrize("n", [3, 5000])
def test_pairs_are_antithetic(n: int) -> None:
    z = draws.normal_pairs((6,), (2,), (n,), LIKE, noise())
    assert torch.equal(z[:3], -z[3:])
    assert torch.equal(z[:3], draws.normal((3,), (2,), (n,), LIKE, noise()))
    with pytest.raises(ValueError, match="expected an even number for antithetic pairs, got 5; use 6"):
        draws.normal_pairs((5,), (), (), LIKE, noise())
    with pytest.raises(ValueError, match="expected an even number for antithetic pairs, got 5; use 6"):
        draws.sign_pairs((5,), (), (), LIKE, noise())


@pytest.mark.parametrize("n", [1, 2, 10, 32])
@pytest.mark.parametrize("blocks", [1, 3])
def test_with_a_pair_for_every_row_of_the_matrix_no_two_genes_move_together(n: int, blocks: int) -> None:
    k = 2 * blocks * {1: 1, 2: 2, 10: 16, 32: 32}[n]
    signs = draws.sign_pairs((k,), (3,), (n,), LIKE, noise())
    assert torch.equal(signs[: k // 2], -signs[k // 2 :])
    together = torch.einsum("kbi,kbj->bij", signs, signs)
    assert torch.equal(together, k * torch.eye(n).expand(3, n, n))


@pytest.mark.parametrize(("k", "n"), [(6, 8), (22, 5), (2, 1)])
def test_signs_are_fair_and_independent_between_draws_and_searches_with_any_number_of_pairs(k: int, n: int) -> None:
    generator, count = noise(), 500
    drawn = torch.stack([draws.sign_pairs((k,), (4,), (n,), LIKE, generator) for _ in range(count)])
    assert drawn.shape == (count, k, 4, n)
    assert bool((drawn.abs() == 1).all())
    bound = 5 * count**-0.5
    assert float(drawn.mean(0).abs().max()) < bound
    assert float((drawn[:, 0, :1] * drawn[:, 0, 1:]).mean(0).abs().max()) < bound
    assert float((drawn[1:, 0] * drawn[:-1, 0]).mean(0).abs().max()) < bound
    pair = drawn[:, 0, 0]
    assert float((pair.T @ pair / count - torch.eye(n)).abs().max()) < bound


@pytest.mark.parametrize("high", [1, 2, 5, 1000])
def test_integers_are_uniform(high: int) -> None:
    i = draws.integers(high, (100_000,), (), (), LIKE, noise())
    assert i.dtype == torch.int64
    assert (int(i.min()), int(i.max())) == (0, high - 1)
    assert float(i.double().mean()) == pytest.approx((high - 1) / 2, abs=5 * high / 12**0.5 / 100_000**0.5 + 1e-12)


@pytest.mark.parametrize("size", [64, 1, 63, 65, 100])
def test_fair_coins_are_fair_at_every_place_of_a_word(size: int) -> None:
    n = 4000
    generator = noise()
    tosses = torch.stack([draws.coins(0.5, (size,), (), (), LIKE, generator) for _ in range(n)]).double()
    assert bool(((tosses.mean(0) - 0.5).abs() < 5 * 0.5 / n**0.5).all())
    if size > 1:  # neighbours, and places a word apart, know nothing of each other
        centred = tosses - tosses.mean(0)
        for distance in {1, min(8, size - 1), min(32, size - 1), size - 1}:
            together = (centred[:, :-distance] * centred[:, distance:]).mean(0) * 4
            assert bool((together.abs() < 5.5 / n**0.5).all())


def test_coins_in_one_large_draw_are_fair_word_by_word() -> None:
    tosses = draws.coins(0.5, (4000,), (), (64,), LIKE, noise()).double()
    assert bool(((tosses.mean(0) - 0.5).abs() < 5 * 0.5 / 4000**0.5).all())
    assert len(torch.unique(tosses, dim=0)) == 4000


@pytest.mark.parametrize("probability", [0.0, 1e-9, 0.001, 0.3, 0.7, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("n", [5000, 300_000])
def test_unfair_coins_have_their_probability(probability: float, n: int) -> None:
    tosses = draws.coins(probability, (n,), (), (), LIKE, noise())
    assert near(float(tosses.double().mean()), probability, n) or probability in (1e-9, 1 - 1e-9)
    if probability in (0.0, 1e-9):
        assert not bool(tosses.any())
    if probability in (1.0, 1 - 1e-9):
        assert bool(tosses.all())


def test_a_replay_gives_each_search_its_own_part() -> None:
    tape = Replay(noise())
    shapes = ((2, 3), (2, 2), (5,))
    drawn = [
        draws.normal(*shapes, LIKE, tape),
        draws.uniform(*shapes, LIKE, tape),
        draws.integers(9, *shapes, LIKE, tape),
        draws.coins(0.5, *shapes, LIKE, tape),
        draws.normal_pairs((4,), (2, 2), (), LIKE, tape),
        draws.sign_pairs((4,), (2, 2), (5,), LIKE, tape),
    ]
    alone = (2, 3), (), (5,)
    for where in ((0, 0), (1, 0), (1, 1)):
        own = tape.search(*where)
        again = [
            draws.normal(*alone, LIKE, own),
            draws.uniform(*alone, LIKE, own),
            draws.integers(9, *alone, LIKE, own),
            draws.coins(0.5, *alone, LIKE, own),
            draws.normal_pairs((4,), (), (), LIKE, own),
            draws.sign_pairs((4,), (), (5,), LIKE, own),
        ]
        for i, (batched, single) in enumerate(zip(drawn, again, strict=True)):
            lead = 1 if i >= 4 else 2
            assert torch.equal(batched[(slice(None),) * lead + where], single)
        with pytest.raises(RuntimeError, match="expected at most 6 draws, as recorded, got one more"):
            draws.normal(*alone, LIKE, own)


def test_a_replay_survives_work_in_place_on_its_draws() -> None:
    tape = Replay(noise())
    drawn = draws.normal((3,), (1,), (), LIKE, tape)
    kept = drawn.clone()
    drawn.zero_()
    first = draws.normal((3,), (), (), LIKE, tape.search(0))
    assert torch.equal(first, kept[:, 0])
    first.zero_()
    assert torch.equal(draws.normal((3,), (), (), LIKE, tape.search(0)), kept[:, 0])


def test_another_layout_than_recorded_is_refused() -> None:
    tape = Replay(noise())
    draws.normal((3,), (1,), (), LIKE, tape)
    with pytest.raises(RuntimeError, match="expected a draw with 1 leading dimensions, got 2"):
        draws.normal((3, 3), (), (), LIKE, tape.search(0))


def test_only_a_generator_is_noise() -> None:
    with pytest.raises(TypeError, match=r"expected noise as a torch.Generator, got int; pass torch.Generator\('cpu'\)"):
        draws.normal((1,), (), (), LIKE, 0)  # type: ignore[arg-type]
