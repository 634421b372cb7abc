"""Targets found by search: any tansaku algorithm, one search per sample, no gradient anywhere.

`SearchX` varies a layer's inputs and answers with the target for the layer below. `SearchY` varies the layer's own
outputs and answers with the layer's own target (the paper: "perturb the outputs of a layer and set the target to the
candidate that produces the best results"). Candidates are scored in one forward pass over k * n rows, BatchNorm being
this pass's affine map, so that neither candidates nor samples vote on each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

import tansaku
from zenkai_core.machine import Machine, StepX, StepY
from zenkai_core.noise import NoiseKey
from zenkai_core.state import State
from zenkai_core.values import IO

Searcher = tansaku.Algorithm[Any] | Callable[[int], tansaku.Algorithm[Any]]
Reducer = Callable[[tansaku.Population], tansaku.Individual]
Score = Literal["local", "network"]

_PATIENCE = 20  # calls without any row that moved, before a warning


class _PerSample:
    """What both rules share: from values [n, ...] and a cost per row to a target [n, ...].

    Args: see `SearchX`.
    """

    default_score: Score

    def __init__(
        self,
        algorithm: Searcher,
        *,
        score: Score | None = None,
        generations: int = 1,
        reduce: Reducer | None = None,
        relative: bool = False,
        chunk: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        score = self.default_score if score is None else score
        if not isinstance(algorithm, tansaku.Algorithm) and not callable(algorithm):
            raise TypeError(
                f"targets.{name} expected a tansaku algorithm or a callable that makes one from the number of calls, "
                f"got {type(algorithm).__name__}: for example tansaku.HillClimb(k=32, std=0.5)"
            )
        if score not in ("local", "network"):
            raise ValueError(f"targets.{name} expected score 'local' or 'network', got {score!r}: choose one of them")
        for what, value in (("generations", generations), ("chunk", 1 if chunk is None else chunk)):
            if value < 1:
                raise ValueError(f"targets.{name} expected {what} >= 1, got {value}: search at least once")
        self.algorithm, self.score, self.generations = algorithm, score, generations
        self.reduce, self.relative, self.chunk = reduce, relative, chunk
        self.noise = NoiseKey(seed)
        self.moved: Tensor | None = None
        self._still = torch.zeros(())

    def _target(self, values: IO, cost: Callable[[IO], Tensor]) -> IO:
        """The reduced answer of the searches that start at ``values``.

        Args:
            values: `[n, ...]` each; those that are not floating stay as they are.
            cost: values `[k * n, ...]` -> `[k * n]` per row.
        """
        algorithm = (
            self.algorithm if isinstance(self.algorithm, tansaku.Algorithm) else self.algorithm(int(self.noise.key[1]))
        )
        scales = {str(i): self._scale(v) for i, v in enumerate(values) if v.is_floating_point()}
        if not scales or not values.rows:
            return values.detach()
        start = tansaku.Individual({name: values[int(name)].detach() / scale for name, scale in scales.items()}, 1)

        def assess(population: tansaku.Population) -> tansaku.Population:
            size = self.chunk or population.k
            parts = [
                self._cost(population, slice(i, i + size), values, scales, cost) for i in range(0, population.k, size)
            ]
            return population.assessed(tansaku.Assessment(torch.cat(parts)))

        with torch.no_grad():
            noise = self.noise.next(values.f.device)
            state = algorithm.init(assess(start.populate(1)))
            for _ in range(self.generations):
                asked = assess(algorithm.ask(state, noise))
                state = algorithm.tell(state, asked)
            answer = algorithm.best(state).individual() if self.reduce is None else self.reduce(asked)
            found = [answer[str(i)] * scales[str(i)] if str(i) in scales else v for i, v in enumerate(values)]
            self._report(start, answer)
        return IO(*found)

    def _scale(self, values: Tensor) -> Tensor:
        """The unit of the search: 1, or the spread over the rows of this batch, feature by feature."""
        if not self.relative:
            return torch.ones((), dtype=values.dtype, device=values.device)
        spread = values.detach().std(0, correction=0)
        return torch.where(spread > 0, spread, torch.ones_like(spread))

    def _cost(
        self,
        population: tansaku.Population,
        part: slice,
        values: IO,
        scales: dict[str, Tensor],
        cost: Callable[[IO], Tensor],
    ) -> Tensor:
        genes = {name: x[part] * scales[name] for name, x in population.genes.items()}
        k = next(iter(genes.values())).shape[0]
        rows = [
            genes[str(i)].flatten(0, 1) if str(i) in genes else v.expand(k, *v.shape).flatten(0, 1)
            for i, v in enumerate(values)
        ]
        found = cost(IO(*rows)).view(k, values.rows)
        return found.to(torch.promote_types(found.dtype, torch.float32))  # autocast or not, one dtype throughout

    def _report(self, start: tansaku.Individual, answer: tansaku.Individual) -> None:
        """Notes the share of rows that moved; warns once if none has for a while."""
        changed = [(answer[name] != x).flatten(1).any(1) for name, x in start.genes.items()]
        self.moved = torch.stack(changed).any(0).float().mean()
        self._still = self._still.to(self.moved.device) + self.moved
        if int(self.noise.key[1]) == _PATIENCE and not bool(self._still > 0):
            warnings.warn(
                f"targets.{type(self).__name__} moved no row in its first {_PATIENCE} calls, so the layer below learns "
                "nothing: widen the steps (std), score by the network's smooth loss, or take a weighted mean; where "
                "the layer above has targets.Null(), the target equals the output and nothing can move: "
                "score by 'network', or give that layer another rule for x",
                stacklevel=2,
            )


class SearchX(_PerSample, StepX):
    """The target for the incoming layer, found by varying this layer's inputs.

    Args:
        algorithm: any tansaku algorithm for real genes, or a callable (number of calls so far) -> algorithm, to anneal
            its steps. It starts at the pass's own values, which it never loses.
        score: "local" (if not given), this layer's cost against its target; "network", the network's loss through the
            layers above.
        generations: of the algorithm, per call.
        reduce: None, the best candidate, incumbent included; or a tansaku reducer of the last generation, such as
            `tansaku.WeightedMean("standardised")`, which estimates a direction where the cost is smooth on average.
        relative: whether the algorithm's lengths are in units of each feature's standard deviation over the batch.
        chunk: candidates per forward pass; all if None.
        seed: of the noise; one draw of torch's global generator if None.

    Attributes:
        moved: `[]` share of rows that the last call moved.

    Raises:
        TypeError, ValueError: arguments of a wrong kind.

    >>> import torch, tansaku
    >>> from torch import nn
    >>> from zenkai_core import Machine, State, IO, theta, targets
    >>> rule = SearchX(tansaku.HillClimb(k=16, std=0.5), generations=20, seed=0)
    >>> layer = Machine(nn.Linear(2, 1), theta.Null(), rule)
    >>> x, t, state = IO(torch.zeros(4, 2)), IO(torch.ones(4, 1)), State()
    >>> y = layer.forward_nn(x, state)
    >>> better = layer.frozen(layer.step_x(x, t, state), state)
    >>> bool((layer.assess_y(better, t) < layer.assess_y(y.detach(), t)).all())
    True
    """

    default_score = "local"

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The best inputs found, or the reducer's answer; the noise count moves, nothing else."""

        def cost(x: IO) -> Tensor:
            y = machine.frozen(x, state)
            return machine.cost(y, t, state) if self.score == "local" else state.cost_above(y)

        return self._target(state.inputs, cost)


class SearchY(_PerSample, StepY):
    """The layer's own target, found by varying its outputs (for a linear layer: its pre-activations).

    Arguments and attributes are those of `SearchX`, but for the score, which is "network" if not given; "local" scores
    by this layer's criterion against the target it was given, so that a task's loss (labels) becomes a target shaped
    as the output.

    Raises:
        TypeError, ValueError: arguments of a wrong kind.
    """

    default_score = "network"

    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        """The best outputs found, or the reducer's answer; the noise count moves, nothing else."""
        own = state.cost_above if self.score == "network" else lambda y: machine.cost(y, t, state)
        return self._target(state.outputs, own)
