"""Every draw of random numbers: eager, from the generator that is passed in, [*lead, *batch_shape, *event_shape].

A `Replay` may stand in for the generator: it records the draws of a batched run and gives each search of it back its
own part, so that "a batch of searches equals separate searches" can be tested to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray
from torch import Tensor

from tansaku import checks
from tansaku.caching import cached
from tansaku.storage import buffer


class Replay:
    """Records a run's draws, or replays those of one search of it.

    Args:
        generator: where the recorded draws come from.

    Example:
        >>> tape = Replay(torch.Generator().manual_seed(0))
        >>> both = normal((3,), (2,), (4,), like=torch.zeros(()), noise=tape)
        >>> second = normal((3,), (), (4,), like=torch.zeros(()), noise=tape.search(1))
        >>> torch.equal(both[:, 1], second)
        True
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator: torch.Generator | None = generator
        self._tape: list[tuple[int, Tensor]] = []
        self._index: tuple[int, ...] = ()
        self._position = 0

    def search(self, *index: int) -> Replay:
        """A replay of the draws of the search at ``index`` of the recorded batch, from the first draw on."""
        replay = Replay.__new__(Replay)
        replay.generator, replay._tape, replay._index, replay._position = None, self._tape, index, 0
        return replay

    def take(self, lead: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """The next draw, whose first ``lead`` dimensions stand before the batch's."""
        if self.generator is not None:
            drawn = draw(self.generator)
            self._tape.append((lead, drawn.clone()))
            return drawn
        if self._position == len(self._tape):
            raise RuntimeError(
                f"expected at most {len(self._tape)} draws, as recorded, got one more; "
                "the separate run must ask as often as the batched one"
            )
        recorded_lead, drawn = self._tape[self._position]
        self._position += 1
        if recorded_lead != lead:
            raise RuntimeError(f"expected a draw with {recorded_lead} leading dimensions, got {lead}; draws must agree")
        return drawn[(slice(None),) * lead + self._index].clone()


Noise = torch.Generator | Replay
"""Where random numbers come from: a generator on the device of the genes, or a recording of one."""
_FEW = 1 << 13  # numbers; below it a draw costs less than the calls that would save random bits
_MANY = 1 << 13  # words; from there on another generator makes up for being seeded
_COUNTS = 2.0**16 - 1


def normal(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> Tensor:
    """Standard normal numbers [*lead, *batch_shape, *event_shape], of the dtype and on the device of ``like``."""
    shape = (*lead, *batch_shape, *event_shape)
    return _draw(len(lead), like.device, noise, lambda g: _normal(_empty_of(shape, like), g))


def normal_pairs(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> Tensor:
    """As `normal`, in antithetic pairs: entry i + lead[0] / 2 is minus entry i.

    Raises:
        ValueError: ``lead[0]`` is odd.
    """
    pairs = _half(lead[0])
    shape = (*lead, *batch_shape, *event_shape)

    def draw(generator: torch.Generator) -> Tensor:
        both = _empty_of(shape, like)
        torch.neg(_normal(both[:pairs], generator), out=both[pairs:])
        return both

    return _draw(len(lead), like.device, noise, draw)


def sign_pairs(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> Tensor:
    """Numbers -1 and 1 in antithetic pairs as `normal_pairs`, such that no two genes move together on balance.

    Pair i takes the signs of row i of Sylvester's Hadamard matrix of the next power of two, a column per gene, every
    column with a random sign of its own. Where half of ``lead[0]`` is a multiple of that power, the sum over the
    candidates of the product of any two genes' numbers is exactly 0; with fewer pairs some genes share their column.
    Costs a random bit for each gene and search.

    Raises:
        ValueError: ``lead[0]`` is odd.

    References: R. Plackett and J. Burman, The design of optimum multifactorial experiments, 1946; for stochastic
    gradients S. Bhatnagar et al., Two-timescale simultaneous perturbation stochastic approximation using deterministic
    perturbation sequences, 2003.
    """
    (k,), genes = lead, math.prod(event_shape)
    pairs = _half(k)
    size = 1 << max(genes - 1, 0).bit_length()
    rows = _hadamard(min(pairs, size), genes, like.dtype, like.device)
    blocks = -(-pairs // len(rows))
    signs = coins(0.5, (blocks,), batch_shape, event_shape, like, noise).to(like.dtype).mul_(2).sub_(1)
    rows = rows.view(len(rows), *(1,) * len(batch_shape), *event_shape)
    half = (signs[:, None] * rows).flatten(0, 1)[:pairs]
    return torch.cat([half, -half])


def uniform(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> Tensor:
    """Numbers uniform in [0, 1), [*lead, *batch_shape, *event_shape], of the dtype and on the device of ``like``."""
    shape = (*lead, *batch_shape, *event_shape)
    return _draw(len(lead), like.device, noise, lambda g: _uniform(_empty_of(shape, like), g))


def weights(
    lead: tuple[int, ...],
    batch_shape: tuple[int, ...],
    event_shape: tuple[int, ...],
    like: Tensor,
    noise: Noise,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Numbers uniform in (low, high) that multiply something, such as a difference of two candidates.

    A large draw takes its numbers from a grid of 2^16 points, as fine as a random weight needs to be, at half the
    price of `uniform`: four numbers share one random word.
    """
    shape = (*lead, *batch_shape, *event_shape)
    return _draw(len(lead), like.device, noise, lambda g: _weights(low, high, shape, like, g))


def fractions(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> tuple[Tensor, float]:
    """Random weights in [0, 1], ends included: numerators [*lead, *batch_shape, *event_shape] and one denominator.

    Whoever multiplies by a weight divides the other factor by the denominator: the fewest passes over memory. A large
    draw lies on a grid as that of `weights` does; the denominator of a small one, or of half precision, is 1.
    """
    shape = (*lead, *batch_shape, *event_shape)
    if like.dtype in (torch.float32, torch.float64) and math.prod(shape) >= _FEW:
        return _draw(len(lead), like.device, noise, lambda g: _counts(shape, like, g)), _COUNTS
    return uniform(lead, batch_shape, event_shape, like, noise), 1.0


def integers(
    high: int,
    lead: tuple[int, ...],
    batch_shape: tuple[int, ...],
    event_shape: tuple[int, ...],
    like: Tensor,
    noise: Noise,
) -> Tensor:
    """Integers uniform in 0 .. high - 1, [*lead, *batch_shape, *event_shape] int64, on the device of ``like``."""
    shape = (*lead, *batch_shape, *event_shape)
    return _draw(len(lead), like.device, noise, lambda g: torch.randint(high, shape, generator=g, device=like.device))


def coins(
    probability: float,
    lead: tuple[int, ...],
    batch_shape: tuple[int, ...],
    event_shape: tuple[int, ...],
    like: Tensor,
    noise: Noise,
) -> Tensor:
    """Booleans that are True with ``probability``, [*lead, *batch_shape, *event_shape], on the device of ``like``."""
    shape = (*lead, *batch_shape, *event_shape)
    return _draw(len(lead), like.device, noise, lambda g: _coins(probability, shape, like.device, g))


def others(count: int, k: int, batch_shape: tuple[int, ...], like: Tensor, noise: Noise) -> list[Tensor]:
    """For every candidate ``count`` different others, uniformly: tensors [k, *batch_shape] of candidates' numbers.

    Args:
        count: below ``k``; none of a candidate's others is itself.
        k: candidates.
        batch_shape: independent searches.
        like: says on which device.
        noise: a generator or a `Replay`.
    """
    taken: list[Tensor] = []  # how far behind its own candidate each one stands
    ordered: list[Tensor] = []  # the same, the nearest first
    for i in range(count):
        place = integers(k - 1 - i, (k,), batch_shape, (), like, noise)  # among those that are still free
        for earlier in ordered:
            place = place + (place >= earlier)
        taken.append(place)
        for j, earlier in enumerate(ordered):
            ordered[j], place = torch.minimum(earlier, place), torch.maximum(earlier, place)
        ordered.append(place)
    own = torch.arange(1, k + 1, device=like.device).view(k, *(1,) * len(batch_shape))
    return list(torch.remainder(torch.stack(taken) + own, k).unbind())


def cauchy(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> Tensor:
    """Standard Cauchy numbers [*lead, *batch_shape, *event_shape], of the dtype and on the device of ``like``."""
    shape = (*lead, *batch_shape, *event_shape)
    return _draw(len(lead), like.device, noise, lambda g: _empty_of(shape, like).cauchy_(generator=g))


def permutations(
    lead: tuple[int, ...], batch_shape: tuple[int, ...], event_shape: tuple[int, ...], like: Tensor, noise: Noise
) -> Tensor:
    """Permutations of 0 .. n - 1 along the last dimension, of size n: [*lead, *batch_shape, *event_shape] int64."""
    keys = torch.zeros((), dtype=torch.float64, device=like.device)  # exact enough that equal keys do not happen
    return uniform(lead, batch_shape, event_shape, keys, noise).argsort(-1)


def _half(k: int) -> int:
    if k % 2:
        raise ValueError(f"expected an even number for antithetic pairs, got {k}; use {k + 1}")
    return k // 2


@cached(4)  # they may be large
def _hadamard(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The corner [rows, columns] of Sylvester's matrix: (i, j) is -1 where i and j share an odd number of bits."""
    shared = torch.arange(rows, device=device)[:, None] & torch.arange(columns, device=device)
    for shift in (32, 16, 8, 4, 2, 1):
        shared = shared ^ (shared >> shift)
    return (1 - 2 * (shared & 1)).to(dtype)


def _draw(lead: int, device: torch.device, noise: Noise, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    if isinstance(noise, Replay):
        return noise.take(lead, draw)
    checks.generator(noise, device)
    return draw(noise)


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    warm = buffer(shape, dtype, device)
    return torch.empty(shape, dtype=dtype, device=device) if warm is None else warm


def _empty_of(shape: tuple[int, ...], like: Tensor) -> Tensor:
    warm = buffer(shape, like.dtype, like.device)
    return like.new_empty(shape) if warm is None else warm


def _normal(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Fills ``numbers``; double precision on a CPU by the ziggurat method, in a third of torch's time."""
    if numbers.dtype == torch.float64 and _by_numpy(numbers):
        _sfc64(generator).standard_normal(out=numbers.numpy())
        return numbers
    return numbers.normal_(generator=generator)


def _uniform(numbers: Tensor, generator: torch.Generator) -> Tensor:
    if numbers.dtype in (torch.float32, torch.float64) and _by_numpy(numbers):
        array = numbers.numpy()
        _sfc64(generator).random(out=array, dtype=array.dtype.type)
        return numbers
    return numbers.uniform_(generator=generator)


def _by_numpy(numbers: Tensor) -> bool:
    return numbers.device.type == "cpu" and numbers.numel() >= _FEW


def _coins(probability: float, shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Tensor:
    size = math.prod(shape)
    if probability != 0.5:
        if device.type == "cpu" and size >= _FEW and 1e-3 <= probability <= 0.999:  # to 2^-32, half a word each
            words = _words(size // 2 + 1, device, generator).numpy().view(np.uint32)[:size]
            return torch.from_numpy(words < np.uint32(round(probability * 2**32))).view(shape)
        # float32 knows 2^24 values, too few for a probability such as 1e-9
        dtype = torch.float32 if 1e-3 <= probability <= 0.999 else torch.float64
        return _empty(shape, dtype, device).uniform_(generator=generator) < probability
    octets = _words(size // 64 + 1, device, generator).view(torch.uint8)  # a fair coin costs one bit
    warm = buffer((octets.numel(), 8), torch.uint8, device)
    bits = torch.bitwise_and(octets[:, None], _powers(device), out=warm).clamp_(max=1)
    return bits.view(torch.bool).flatten()[:size].view(shape)


def _weights(low: float, high: float, shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    numbers = _empty_of(shape, like)
    size = numbers.numel()
    if size < _FEW:
        return numbers.uniform_(low, high, generator=generator)
    words = _words(size // 4 + 1, like.device, generator)
    numbers.copy_(words.view(torch.int16)[:size].view(shape))
    step = (high - low) / 2**16
    return torch.add(numbers.new_tensor((low + high + step) / 2), numbers, alpha=step, out=numbers)


def _counts(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    numbers = _empty_of(shape, like)
    words = _words(numbers.numel() // 4 + 1, like.device, generator)
    return numbers.copy_(words.view(torch.uint16)[: numbers.numel()].view(shape))


def _words(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """[count] int64 of random bits: the generator's own, or many on a CPU from SFC64, in half the time."""
    if count < _MANY or device.type != "cpu":
        return _empty((count,), torch.int64, device).random_(-(2**63), None, generator=generator)
    return torch.from_numpy(_sfc64(generator).bit_generator.random_raw(count).view(np.int64))


def _sfc64(generator: torch.Generator) -> np.random.Generator:
    """Another generator, seeded by ``generator``, for many numbers at once.

    Reference: C. Doty-Humphrey, PractRand, 2014 (SFC64, as in numpy.random).
    """
    seed = torch.empty(3, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return np.random.Generator(np.random.SFC64(cast(Any, _Seed(seed))))


class _Seed(ISeedSequence):
    """Words that are random already: numpy would mix them for ten times as long as they take to draw."""

    def __init__(self, words: Tensor) -> None:
        self._words = words.numpy().view(np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        return self._words[:n_words]


@cached(4)
def _powers(device: torch.device) -> Tensor:
    return torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=device)
