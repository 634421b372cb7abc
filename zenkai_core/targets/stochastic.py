"""Targets among what a stochastic incoming layer might have put out: it is passed k times, and the best pass wins."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

import tansaku
from zenkai_core.machine import Machine, StepX
from zenkai_core.searching import Reducer, Score, check_count
from zenkai_core.state import State
from zenkai_core.targets.per_sample import PerSample
from zenkai_core.targets.sampled import Sampled
from zenkai_core.values import IO


class Proposals(PerSample, StepX):
    """The target for the incoming layer: of k stochastic passes of that layer, per sample the one that costs least.

    The passes are those of `Machine.propose`: dropout and noise are on, BatchNorm is the pass's affine map. The outputs
    of the pass itself are the incumbent, which a tie keeps. Unlike the steps of `SearchX`, all candidates are outputs
    that the layer below can give. It is a `tansaku` search with ``batch_shape = (n,)``.

    Args:
        k: stochastic passes.
        score: "local" (if not given), this layer's cost against its target; "network", the network's loss through the
            layers above.
        reduce: None, the best candidate, incumbent included; or a tansaku reducer of the k passes.
        rate: the share of the way to the answer that the target goes, a number or a `tansaku.Schedule`.
        calls: over which schedules run, from share 0 to 1. Needed where there is a schedule.
        chunk: candidates per forward pass of this layer; all if None.
        seed: of the noise; one draw of torch's global generator if None.

    Attributes:
        moved: `[]` share of rows that the last call moved.

    Raises:
        TypeError, ValueError: arguments of a wrong kind.

    >>> import torch
    >>> from torch import nn
    >>> from zenkai_core import Chain, Machine, targets, theta
    >>> below = Machine(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3)), theta.Gradient(lr=0.01), targets.Null())
    >>> net = Chain(below, Machine(nn.Linear(8, 2), theta.Delta(lr=0.01), Proposals(k=8)))
    >>> net.learn(torch.ones(5, 4), torch.zeros(5, 2)).shape
    torch.Size([])

    Reference: the paper, appendix A.7; the search among samples of a stochastic layer is its own.
    """

    default_score = "local"
    _remedy = "give the layer below dropout or noise, or raise k"

    def __init__(
        self,
        k: int = 16,
        *,
        score: Score | None = None,
        reduce: Reducer | None = None,
        rate: float | tansaku.Schedule = 1.0,
        calls: int | None = None,
        chunk: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(score=score, reduce=reduce, rate=rate, calls=calls, chunk=chunk, seed=seed)
        check_count(self._rule, "k", k)
        self.k = k

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"k={self.k}, {super().extra_repr()}"

    @property
    def uses_target(self) -> bool:  # type: ignore[override]
        """Whether candidates are scored against the layer's own target."""
        return self.score == "local"

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The best of the passes, or the reducer's answer; the noise count moves, nothing else.

        Raises:
            RuntimeError: there is no layer below.
            TypeError: the layer below offers no stochastic passes.
        """
        if state.incoming is None:
            raise RuntimeError(
                f"{self._rule} expected a layer below to propose candidates, got the bottom of a network: put the "
                "machine behind a stochastic one in a Chain, or take SearchX"
            )
        below, below_state = state.incoming
        if not callable(getattr(below, "propose", None)):
            raise TypeError(
                f"{self._rule} expected a Machine below, got {type(below).__name__}: give it a method "
                "propose(state, k, noise) -> IO [k, n, ...]"
            )

        def passes(individual: tansaku.Individual, k: int, noise: tansaku.Noise) -> tansaku.Population:
            proposed = cast(Machine, below).propose(below_state, k, cast(torch.Generator, noise))
            return individual.populate(k).with_genes(
                {name: proposed[int(name)].to(x.dtype) for name, x in individual.genes.items()}
            )

        def cost(x: IO) -> Tensor:
            y = machine.frozen(x, state)
            return machine.cost(y, t, state) if self.score == "local" else state.cost_above(y)

        return self._target(state.inputs, cost, Sampled(passes, self.k), state)
