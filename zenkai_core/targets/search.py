"""Targets found by search: any tansaku algorithm, one search per sample, no gradient anywhere.

`SearchX` varies a layer's inputs and answers with the target for the layer below. `SearchY` varies the layer's own
outputs and answers with the layer's own target (the paper: "perturb the outputs of a layer and set the target to the
candidate that produces the best results"). Candidates are scored in one forward pass over k * n rows, BatchNorm being
this pass's affine map, so that neither candidates nor samples vote on each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

import tansaku
from zenkai_core.describe import value_text
from zenkai_core.machine import Machine, StepX, StepY
from zenkai_core.searching import Reducer, Score, Searcher, algorithm_at, check_algorithm, check_count, check_schedules
from zenkai_core.state import State
from zenkai_core.targets.per_sample import PerSample
from zenkai_core.values import IO


class _Search(PerSample):
    """What `SearchX` and `SearchY` share: the user's algorithm, found anew for each call."""

    def __init__(
        self,
        algorithm: Searcher,
        *,
        score: Score | None = None,
        generations: int = 1,
        reduce: Reducer | None = None,
        rate: float | tansaku.Schedule = 1.0,
        calls: int | None = None,
        relative: bool = False,
        chunk: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(score=score, reduce=reduce, rate=rate, calls=calls, chunk=chunk, seed=seed)
        check_schedules(self._rule, calls, algorithm=algorithm)
        check_algorithm(self._rule, algorithm, calls, rows=True)
        check_count(self._rule, "generations", generations)
        self.algorithm, self.generations, self.relative = algorithm, generations, relative

    def extra_repr(self) -> str:
        """What `print` shows."""
        generations = f", generations={self.generations}" if self.generations != 1 else ""
        return f"{value_text(self.algorithm)}, {super().extra_repr()}{generations}"

    def _searched(self, values: IO, cost: Callable[[IO], Tensor], state: State) -> IO:
        algorithm = algorithm_at(self._rule, self.algorithm, self._count, self.calls, rows=True)
        return self._target(values, cost, algorithm, state)


class SearchX(_Search, StepX):
    """The target for the incoming layer, found by varying this layer's inputs.

    Args:
        algorithm: any tansaku algorithm for real genes that runs one search per row; or what makes one at each call: a
            `tansaku.Scheduled`, to anneal its steps along schedules, or a callable (number of calls so far) ->
            algorithm. A sampler comes in as `Sampled(sampler, k)`. The search starts at the pass's own values, which it
            never loses.
        score: "local" (if not given), this layer's cost against its target; "network", the network's loss through the
            layers above.
        generations: of the algorithm, per call.
        reduce: None, the best candidate, incumbent included; or a tansaku reducer of the last generation, such as
            `tansaku.WeightedMean("standardised")`, which estimates a direction where the cost is smooth on average;
            `tansaku.Momentum` follows another reducer through the generations of the call. Or a `tansaku.Scheduled`.
        rate: the share of the way to the answer that the target goes, a number or a `tansaku.Schedule`.
        calls: over which schedules run, from share 0 to 1: batches times epochs. Needed where there is a schedule.
        relative: whether the algorithm's lengths are in units of each feature's standard deviation over the batch.
        chunk: candidates per forward pass; all if None.
        seed: of the noise; one draw of torch's global generator if None.

    Attributes:
        moved: `[]` share of rows that the last call moved.

    Raises:
        TypeError, ValueError: arguments of a wrong kind, or an algorithm that cannot serve: for other genes, for
            several objectives, for a single search.

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

    Steps that shrink over 1,000 calls, and targets that go all the way at first and a tenth of it at last:

    >>> steps = tansaku.Scheduled(tansaku.HillClimb, k=16, std=tansaku.CosineSchedule(0.5, 0.05))
    >>> rule = SearchX(steps, rate=tansaku.LinearSchedule(1.0, 0.1), calls=1000)
    """

    default_score = "local"

    @property
    def uses_target(self) -> bool:  # type: ignore[override]
        """Whether candidates are scored against the layer's own target."""
        return self.score == "local"

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The best inputs found, or the reducer's answer; the noise count moves, nothing else."""

        def cost(x: IO) -> Tensor:
            y = machine.frozen(x, state)
            return machine.cost(y, t, state) if self.score == "local" else state.cost_above(y)

        return self._searched(state.inputs, cost, state)


class SearchY(_Search, StepY):
    """The layer's own target, found by varying its outputs.

    Arguments and attributes are those of `SearchX`, but for the score, which is "network" if not given; "local" scores
    by this layer's criterion against the target it was given, so that a task's loss (labels) becomes a target shaped
    as the output, to which the layer goes by squared error (see `StepY.points`; set it False where the candidates are
    choices and the criterion is `cross_entropy`).

    To search over pre-activations, make the linear part a machine of its own, whose outputs they are; the activation
    is the next machine, without parameters. The delta rule then learns from errors in the pre-activations, and a unit
    without a gradient stands in nobody's way.

    Raises:
        TypeError, ValueError: as `SearchX`.

    >>> import tansaku
    >>> from torch import nn
    >>> from zenkai_core import Chain, Machine, cross_entropy, modules, targets, theta
    >>> def found(k=16):
    ...     return SearchY(tansaku.HillClimb(k=k, std=0.5), seed=0)
    >>> net = Chain(
    ...     Machine(nn.Linear(4, 8), theta.Delta(lr=0.01), targets.Null(), y=found()),  # its pre-activations
    ...     Machine(modules.Sign(), theta.Null(), targets.Null()),
    ...     Machine(nn.Linear(8, 3), theta.Delta(lr=0.01), targets.Null(), cross_entropy, y=found()),
    ... )
    """

    default_score = "network"
    points = True

    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        """The best outputs found, or the reducer's answer; the noise count moves, nothing else."""
        given = partial(
            machine._cost_against, t, state.criterion
        )  # by which the layer's own target is found, not reached
        return self._searched(state.outputs, state.cost_above if self.score == "network" else given, state)
