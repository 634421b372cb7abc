from __future__ import annotations

import copy

import pytest
import torch

from zenkai_core import NoiseKey


def draw(key: NoiseKey) -> list[float]:
    return torch.rand(3, generator=key.next()).tolist()


def test_each_generator_of_a_key_draws_anew_and_equal_keys_draw_alike() -> None:
    a, b = NoiseKey(7), NoiseKey(7)
    first, second = draw(a), draw(a)
    assert first != second
    assert [draw(b), draw(b)] == [first, second]


def test_a_loaded_key_goes_on_where_the_saved_one_stood() -> None:
    a, b = NoiseKey(1), NoiseKey(2)
    draw(a)
    b.load_state_dict(a.state_dict())
    c = copy.deepcopy(a)
    after = draw(a)
    assert draw(b) == after
    assert draw(c) == after


def test_manual_seed_reproduces_the_default_seed() -> None:
    torch.manual_seed(3)
    a = NoiseKey()
    torch.manual_seed(3)
    b = NoiseKey()
    assert torch.equal(a.key, b.key)
    assert not torch.equal(NoiseKey().key, a.key)


def test_a_key_leaves_the_global_generator_alone() -> None:
    key = NoiseKey(0)
    before = torch.get_rng_state()
    draw(key)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [-1, 2**62])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="expected a seed in"):
        NoiseKey(seed)


def test_a_key_prints_its_seed_and_count() -> None:
    assert repr(NoiseKey(5)) == "NoiseKey(seed=5, count=0)"


@pytest.mark.parametrize("seed", [1.5, True, "1"])
def test_a_seed_that_is_no_integer_is_refused(seed: object) -> None:
    with pytest.raises(TypeError, match="expected an integer seed, got"):
        NoiseKey(seed)  # type: ignore[arg-type]
