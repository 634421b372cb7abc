"""`NoiseKey`: where a rule's random numbers come from, as a buffer of its module.

A rule asks its key for a generator at each step. The key is two integers, so it moves, copies, saves and resumes with
the module that holds it, and a resumed run draws what the unbroken one would have drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MASK = (1 << 64) - 1


def _mix(seed: int, count: int) -> int:
    """SplitMix64 of Steele, Lea and Flood (2014): neighbouring counts give unrelated seeds."""
    z = (seed + (count + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


class NoiseKey(nn.Module):
    """A stream of generators, each made from (seed, count).

    Args:
        seed: any integer in [0, 2**62); by default one draw of torch's global generator, so that `torch.manual_seed`
            reproduces a run.

    Raises:
        TypeError: the seed is no integer.
        ValueError: the seed is out of range.

    >>> a, b = NoiseKey(0), NoiseKey(0)
    >>> torch.equal(torch.rand(2, generator=a.next()), torch.rand(2, generator=b.next()))
    True
    """

    key: Tensor

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        elif not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"NoiseKey expected an integer seed, got {seed!r}: use int(seed), or None")
        elif not 0 <= seed < 2**62:
            raise ValueError(f"NoiseKey expected a seed in [0, 2**62), got {seed}: use a smaller integer or None")
        self.register_buffer("key", torch.tensor([seed, 0], dtype=torch.int64))

    def next(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator on the device; the count goes up by one."""
        seed, count = self.key.tolist()
        self.key[1] += 1
        generator = torch.Generator(device)
        generator.manual_seed(_mix(seed, count))
        return generator

    def extra_repr(self) -> str:
        """What `print` shows."""
        return "seed={}, count={}".format(*self.key.tolist())
