"""Which values can be looked at, and as what numpy sees them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tansaku import host


def test_tensors_in_the_hosts_memory_are_readable_unless_told_otherwise() -> None:
    assert host.readable(torch.zeros(2))
    assert host.readable(nn.Parameter(torch.zeros(2)))
    assert not host.readable(torch.zeros(2, device="meta"))
    with host.all_apart():
        assert not host.readable(torch.zeros(2))
    assert host.readable(torch.zeros(2))


def test_what_vmap_holds_has_no_memory_to_read() -> None:
    seen: list[bool] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(host.readable(x))
        return x

    torch.vmap(look)(torch.zeros(3, 2))
    assert seen == [False]


def test_an_array_is_the_tensors_own_memory() -> None:
    x = torch.zeros(3, requires_grad=True)
    host.array(x)[1] = 5
    assert x.tolist() == [0, 5, 0]
    half = torch.zeros(2, dtype=torch.bfloat16)
    host.array(half)[:] = host.array(torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
    assert half.tolist() == [1.5, -2.0]
    assert host.array(half).dtype == np.int16
    assert host.readable(half)
    assert not host.numeric(half)
    assert host.numeric(x)
