"""Candidates from a sampler as an algorithm, and the sampler of discrete choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import tansaku


@tansaku.state
class SampledState:
    """The best candidate so far (k = 1, assessed), and where the search began."""

    incumbent: tansaku.Population
    start: tansaku.Individual


@dataclass(frozen=True)
class Sampled(tansaku.Algorithm[SampledState]):
    """k draws of a sampler around the start, each generation anew; the best is kept, and a tie keeps the older one.

    Args:
        sampler: (individual, k, noise) -> population, such as `tansaku.GaussianSampler` or `Choices`.
        k: candidates per generation.
        bounds: `tansaku.Bounds` or (lower, upper).

    Raises:
        TypeError: the sampler is no callable.

    >>> rule = Sampled(tansaku.GaussianSampler(0.5, antithetic=True), k=8)
    >>> result = tansaku.minimize(lambda x: x.square().sum(-1), x0=torch.ones(2), algorithm=rule, max_generations=100)
    >>> 0 < result.value < 2
    True
    """

    sampler: Callable[[tansaku.Individual, int, tansaku.Noise], tansaku.Population]
    k: int = 32
    bounds: tansaku.Bounds | None = None

    def __post_init__(self) -> None:
        if not callable(self.sampler):
            raise TypeError(
                f"targets.Sampled expected a sampler (individual, k, noise) -> population, got "
                f"{type(self.sampler).__name__}: for example tansaku.GaussianSampler(0.5)"
            )
        self.check_settings()

    def init(self, start: tansaku.Population) -> SampledState:
        """The best of the start is the incumbent and the centre of all draws."""
        self.check_start(start)
        return SampledState(start.best(), start.best().individual())

    def ask(self, state: SampledState, noise: tansaku.Noise) -> tansaku.Population:
        """K draws around the start."""
        drawn = self.sampler(state.start, self.k, noise)
        return drawn if self.bounds is None else self.bounds(drawn)

    def tell(self, state: SampledState, asked: tansaku.Population) -> SampledState:
        """The best draw replaces the incumbent if it is better."""
        child = asked.best()
        return SampledState(child.where(child.cost < state.incumbent.cost, state.incumbent), state.start)

    def best(self, state: SampledState) -> tansaku.Population:
        """The incumbent."""
        return state.incumbent


@dataclass(frozen=True)
class Choices:
    """Discrete choices as one-hots, drawn from the categorical distributions whose logits an individual holds.

    The classes are the first event dimension, as in `cross_entropy`: a gene `[*batch_shape, classes, m]` is m choices.
    With a weighted mean as the reducer the answer estimates E[one-hot | good], the posterior of the choice, and
    cross-entropy against such soft labels moves the logits towards it.

    Args:
        temperature: divides the logits: above 1 flattens the distribution, below 1 sharpens it.

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: the temperature is not positive.

    >>> logits = tansaku.Individual({"x": torch.tensor([[9.0, -9.0]])}, 1)
    >>> Choices()(logits, 2, torch.Generator().manual_seed(0))["x"].tolist()
    [[[1.0, 0.0]], [[1.0, 0.0]]]
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"targets.Choices expected a positive temperature, got {self.temperature}: 1 is usual")

    def __call__(self, individual: tansaku.Individual, k: int, noise: tansaku.Noise) -> tansaku.Population:
        """[k, *batch_shape, *event_shape] one-hots, by the Gumbel-max trick (Gumbel, 1954)."""
        population = individual.populate(k)
        genes = {}
        for name, logits in population.genes.items():
            if not logits.is_floating_point():
                raise TypeError(
                    f"targets.Choices expected real genes, the logits of each choice, got {name!r} of {logits.dtype}: "
                    "use tansaku.UniformSampler for integers"
                )
            lead, event = logits.shape[:1], tuple(logits.shape[1 + population.batch_ndim :])
            like = torch.zeros((), dtype=torch.float64, device=logits.device)
            uniform = tansaku.draws.uniform(lead, tuple(population.batch_shape), event, like, noise)
            gumbel = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
            classes = 1 + population.batch_ndim
            chosen = (logits / self.temperature + gumbel).argmax(classes, keepdim=True)
            genes[name] = torch.zeros_like(logits, memory_format=torch.contiguous_format).scatter_(classes, chosen, 1.0)
        return population.with_genes(genes)
