"""Parameters and gradients as vectors and back; minibatches of rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parameters_to_vector

from zenkai_core import parameters as ps


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False))


def bias_only(name: str, p: nn.Parameter) -> bool:
    return name.endswith("bias")


def test_a_vector_goes_round_exactly_and_is_laid_out_as_torchs() -> None:
    a, b = net(), net()
    with torch.no_grad():
        for p in a.parameters():
            p.normal_()
    vector = ps.to_vector(a)
    assert torch.equal(vector, parameters_to_vector(a.parameters()))
    ps.set_vector(b, vector)
    assert torch.equal(ps.to_vector(b), vector)
    vector.zero_()
    assert ps.to_vector(a).any()  # a copy


def test_only_what_where_picks_is_read_and_written() -> None:
    module = net()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    ps.set_vector(module, torch.arange(4.0), bias_only)
    assert ps.to_vector(module, bias_only).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters() if not n.endswith("bias"))
    module[0].requires_grad_(False)
    assert list(ps.named(module, ps.trainable)) == ["1.weight", "1.bias", "2.weight"]


def test_adding_scales() -> None:
    module = net()
    start = ps.to_vector(module)
    ps.add_vector(module, torch.ones_like(start), scale=-0.5)
    torch.testing.assert_close(ps.to_vector(module), start - 0.5)


def test_gradients_are_set_added_and_read() -> None:
    module = net()
    size = ps.to_vector(module).numel()
    assert not ps.gradient_to_vector(module).any()
    given_ = torch.arange(float(size))
    ps.set_gradient(module, given_)
    ps.add_gradient(module, given_)
    assert torch.equal(ps.gradient_to_vector(module), 2 * given_)
    given_.zero_()
    assert ps.gradient_to_vector(module).any()  # storage of its own


def test_a_step_of_rate_one_lands_on_the_target() -> None:
    module = net()
    target = torch.randn(ps.to_vector(module).numel())
    ps.set_gradient_towards(module, target)
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    torch.testing.assert_close(ps.to_vector(module), target)


@pytest.mark.parametrize("write", [ps.set_vector, ps.add_vector, ps.set_gradient, ps.add_gradient])
def test_a_vector_of_another_size_is_refused(write: object) -> None:
    with pytest.raises(ValueError, match=r"expected a vector \[14\], one number for each entry of the parameters, got"):
        write(net(), torch.zeros(13))  # type: ignore[operator]


def test_nothing_to_make_a_vector_of_is_said() -> None:
    with pytest.raises(ValueError, match="expected parameters to make a vector of, got none from ReLU"):
        ps.to_vector(nn.ReLU())


@given(n=st.integers(1, 12), size=st.integers(1, 15), shuffle=st.booleans(), drop=st.booleans())
def test_minibatches_hold_every_row_once_with_its_target(n: int, size: int, shuffle: bool, drop: bool) -> None:
    x = torch.arange(n)
    parts = list(ps.minibatches(x, -x, size, shuffle=shuffle, drop_last=drop))
    rows = [i for a, _ in parts for i in a.f.tolist()]
    assert all((a.f == -b.f).all() for a, b in parts)
    assert all(a.rows == size for a, _ in parts[:-1])
    if drop:
        assert all(a.rows == size for a, _ in parts)
        assert len(rows) == n - n % size
    else:
        assert sorted(rows) == list(range(n))
    if not shuffle:
        assert rows == sorted(rows)


def test_wrong_minibatches_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="size >= 1 and as many targets as inputs, got size=2, 3 inputs and 4 targets"):
        ps.minibatches(torch.zeros(3), torch.zeros(4), 2)
    with pytest.raises(ValueError, match="got size=0"):
        ps.minibatches(torch.zeros(3), torch.zeros(3), 0)


def test_a_target_of_another_size_is_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"expected a vector \[8\], one number for each entry .*, got \[1\]"):
        ps.set_gradient_towards(nn.Linear(3, 2), torch.zeros(1))


def test_weights_in_channels_last_have_a_vector() -> None:
    net = nn.Conv2d(3, 4, 2)
    vector = ps.to_vector(net)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.equal(ps.to_vector(net), vector)
    ps.set_vector(net, -vector)
    ps.set_gradient(net, vector)
    assert torch.equal(ps.to_vector(net), -vector)
    assert torch.equal(ps.gradient_to_vector(net), vector)
