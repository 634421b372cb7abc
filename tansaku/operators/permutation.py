"""Operators for permutations: integer genes whose last event dimension holds 0 .. n - 1, each once.

L. Davis, Applying Adaptive Algorithms to Epistatic Domains, IJCAI 1985 (order crossover); P. Larrañaga et al., Genetic
Algorithms for the Travelling Salesman Problem: A Review of Representations and Operators, 1999 (exchange and simple
inversion mutation). Other event dimensions hold permutations side by side; genes with event_shape () are permutations
of one. That rows are permutations is looked at once, where a search begins, and not in every generation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import select
from tansaku.operators.crossover import Crossover
from tansaku.operators.mutation import Mutation, shapes
from tansaku.operators.sampling import populated
from tansaku.population import Individual, Population


def check_permutations(who: str, name: str, x: Tensor) -> None:
    """Every row along the last dimension of ``x`` is a permutation of 0 .. n - 1.

    Raises:
        TypeError: genes of another dtype, or rows that are no permutations.
    """
    checks.whole(who, name, x, "use GA, which has operators for every dtype")
    rows = x if x.ndim else x[None]
    if not bool((rows.long().sort(-1).values == torch.arange(rows.shape[-1], device=x.device)).all()):
        raise TypeError(
            f"expected permutation genes for {who}, got {name!r} of {x.dtype} with rows that do not hold each of "
            f"0 .. {rows.shape[-1] - 1} once; start from torch.randperm({rows.shape[-1]})"
        )


def order_crossover(a: Tensor, b: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Order crossover of rows: ``a`` in places first .. last - 1, then the others in the order of ``b``, around.

    Args:
        a: [..., n] permutations.
        b: the same.
        first: [...] the first place of the piece.
        last: [...] the place after the piece: 0 <= first < last <= n.

    Example:
        >>> a, b = torch.arange(6), torch.tensor([5, 3, 1, 0, 2, 4])
        >>> order_crossover(a, b, torch.tensor(2), torch.tensor(4))
        tensor([1, 0, 2, 3, 4, 5])
    """
    n = a.shape[-1]
    place = torch.arange(n, device=a.device)
    around = (place + last[..., None]) % n  # both parents are read from the second cut on
    kept = (place >= first[..., None]) & (place < last[..., None])
    taken = torch.zeros_like(kept).scatter(-1, a.long(), kept)  # by value: whether the piece of a holds it
    theirs = b.gather(-1, around)
    missing = theirs.gather(-1, taken.gather(-1, theirs.long()).to(torch.uint8).argsort(dim=-1, stable=True))
    child = torch.where(kept.gather(-1, around), a.gather(-1, around), missing)
    return torch.empty_like(child).scatter(-1, around, child)


@dataclass(frozen=True)
class OrderCrossover(Crossover):
    """OX: a piece of the first parent stays in its place; the rest follows in the order of the second parent.

    The two cuts are different and every pair of the n + 1 places is equally likely.

    Raises:
        TypeError: genes that are not integers (at the call).

    Reference: L. Davis, 1985.
    """

    permutes: ClassVar[bool] = True

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Crossover.cross`."""
        checks.whole("order crossover", name, a, "use UniformCrossover, or SBX for real genes")
        lead, batch_shape, event_shape = shapes(a, batch_ndim)
        if not event_shape:
            return a
        first, last = _two_of(event_shape[-1] + 1, lead, batch_shape, event_shape[:-1], a, noise)
        return order_crossover(a, b, first, last)


@dataclass(frozen=True)
class _Rearranges(Mutation, ABC):
    """Two different places of every row are drawn; a subclass says which row they make of 0 .. n - 1."""

    probability: float = 1.0
    permutes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.probability("probability", self.probability)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        checks.whole(f"{type(self).__name__} mutation", name, x, "use Gaussian for real genes or BitFlip for booleans")
        lead, batch_shape, event_shape = shapes(x, batch_ndim)
        if not event_shape or event_shape[-1] < 2:
            return x
        first, last = _two_of(event_shape[-1], lead, batch_shape, event_shape[:-1], x, noise)
        place = torch.arange(event_shape[-1], device=x.device)
        moved = x.gather(-1, self._order(place, first[..., None], last[..., None]))
        if self.probability == 1.0:
            return moved
        return select(draws.coins(self.probability, lead, batch_shape, event_shape[:-1], x, noise), moved, x)

    @abstractmethod
    def _order(self, place: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Which entry comes to each place, from the two places that were drawn."""


@dataclass(frozen=True)
class Swap(_Rearranges):
    """Exchange mutation: two entries of a permutation, each pair of them equally likely, change places.

    Args:
        probability: that a permutation is changed, in [0, 1].

    Raises:
        TypeError: genes that are not integers (at the call).
        ValueError: a probability outside [0, 1].
    """

    def _order(self, place: Tensor, first: Tensor, last: Tensor) -> Tensor:
        return torch.where(place == first, last, torch.where(place == last, first, place))


@dataclass(frozen=True)
class Inversion(_Rearranges):
    """Simple inversion mutation (2-opt on a tour): a piece of two entries or more is turned round, all equally likely.

    Args:
        probability: that a permutation is changed, in [0, 1].

    Raises:
        TypeError: genes that are not integers (at the call).
        ValueError: a probability outside [0, 1].
    """

    def _order(self, place: Tensor, first: Tensor, last: Tensor) -> Tensor:
        return torch.where((place >= first) & (place <= last), first + last - place, place)


@dataclass(frozen=True)
class PermutationSampler:
    """Permutations, all equally likely. Of the individual only the shapes and dtypes matter.

    Raises:
        TypeError: genes that are not integers (at the call).
    """

    permutes: ClassVar[bool] = True

    def __call__(self, individual: Individual, k: int, noise: Noise) -> Population:
        """[k, *batch_shape, *event_shape] candidates."""
        population = populated(individual, k)
        genes = {}
        for name, x in population.genes.items():
            checks.whole("permutation sampling", name, x, "use UniformSampler")
            lead, batch_shape, event_shape = shapes(x, population.batch_ndim)
            drawn = draws.permutations(lead, batch_shape, event_shape or (1,), x, noise)
            genes[name] = drawn.to(x.dtype).view(x.shape)
        return population.with_genes(genes)


def _two_of(
    n: int,
    lead: tuple[int, ...],
    batch_shape: tuple[int, ...],
    event_shape: tuple[int, ...],
    like: Tensor,
    noise: Noise,
) -> tuple[Tensor, Tensor]:
    """Two different numbers of 0 .. n - 1, the smaller first; every pair is equally likely."""
    one = draws.integers(n, lead, batch_shape, event_shape, like, noise)
    other = draws.integers(n - 1, lead, batch_shape, event_shape, like, noise)
    other = other + (other >= one)
    return torch.minimum(one, other), torch.maximum(one, other)
