"""One search per sample of a mini-batch: what all target rules that search share."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import tansaku
from zenkai_core.describe import value_text
from zenkai_core.machine import Rule
from zenkai_core.noise import NoiseKey
from zenkai_core.rates import check_rate
from zenkai_core.searching import (
    Algorithm,
    Reducer,
    Score,
    at,
    check_count,
    check_reducer,
    check_schedules,
    check_score,
)
from zenkai_core.state import State
from zenkai_core.targets.sampled import Choices, Sampled
from zenkai_core.values import IO, Probabilities

_PATIENCE = 20  # calls without any row that moved, before a warning


class PerSample(Rule):
    """From values [n, ...] and a cost per row to a target [n, ...], by an algorithm that is given at the call.

    Args: see `zenkai_core.targets.SearchX`.
    """

    default_score: Score
    generations = 1
    relative = False

    def __init__(
        self,
        *,
        score: Score | None = None,
        reduce: Reducer | None = None,
        rate: float | tansaku.Schedule = 1.0,
        calls: int | None = None,
        chunk: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        score = self.default_score if score is None else score
        check_score(self._rule, score)
        check_schedules(self._rule, calls, reduce=reduce, rate=rate)
        check_reducer(self._rule, "reduce", reduce)
        if chunk is not None:
            check_count(self._rule, "chunk", chunk)
        check_rate(self._rule, "rate", rate, zero=True)
        self.score, self.reduce, self.rate, self.calls = score, reduce, rate, calls
        self.chunk = chunk
        self.noise = NoiseKey(seed)
        self.moved: Tensor | None = None
        self._calls, self._shifted = 0, torch.zeros(())  # since made or loaded, and what they moved: for a warning only

    @property
    def _rule(self) -> str:
        return f"targets.{type(self).__name__}"

    @property
    def _count(self) -> int:
        """Calls so far."""
        return int(self.noise.key[1])

    def _target(self, values: IO, cost: Callable[[IO], Tensor], algorithm: Algorithm, state: State) -> IO:
        """The reduced answer of the searches that start at ``values``.

        Args:
            values: `[n, ...]` each; those that are not floating stay as they are.
            cost: values `[k * n, ...]` -> `[k * n]` per row.
            algorithm: of this call.
            state: of the pass, where figures of the search are noted if somebody records them.
        """
        reduce, rate = (at(setting, self._count, self.calls) for setting in (self.reduce, self.rate))
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
            begun = assess(start.populate(1))
            if (budget := algorithm.evaluations_in(self.generations, begun.k)) is not None:
                algorithm = algorithm.with_budget(budget)
            course = algorithm.init(begun)
            memory: tansaku.MomentumMemory | None = None
            evaluations = 1
            for _ in range(self.generations):
                asked = assess(algorithm.ask(course, noise))
                course = algorithm.tell(course, asked)
                evaluations += asked.k
                if isinstance(reduce, tansaku.Momentum):
                    memory = reduce.after(memory, asked)
            if memory is not None:
                answer = memory.current
            else:
                answer = algorithm.best(course).individual() if reduce is None else reduce(asked)
            if rate != 1:
                answer = tansaku.Individual({n: x + rate * (answer[n] - x) for n, x in start.genes.items()}, 1)
            found = [
                v.where(answer[name] == start[name], answer[name] * scales[name]) if (name := str(i)) in scales else v
                for i, v in enumerate(values.detach())
            ]  # what did not move is the value itself, not what its unit makes of it
            self._report(start, answer)
            if state.notes is not None:
                self._note(begun, asked, assess(answer.populate(1)), evaluations, state)
        chosen = isinstance(algorithm, Sampled) and isinstance(algorithm.sampler, Choices)
        return Probabilities(*found) if chosen else IO(*found)

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
        changed = [_moved(answer[name].reshape(len(x), -1), x.reshape(len(x), -1)) for name, x in start.genes.items()]
        self.moved = torch.stack(changed).any(0).float().mean()
        self._calls, self._shifted = self._calls + 1, self._shifted.to(self.moved.device) + self.moved
        if self._calls == _PATIENCE and not bool(self._shifted > 0):
            warnings.warn(
                f"{self._rule} moved no row in its first {_PATIENCE} calls, so the layer below learns nothing: "
                f"{self._remedy}; where the layer above has targets.Null(), the target equals the output and nothing "
                "can move: score by 'network', or give that layer another rule for x",
                stacklevel=2,
            )

    def _note(
        self,
        begun: tansaku.Population,
        asked: tansaku.Population,
        chosen: tansaku.Population,
        evaluations: int,
        state: State,
    ) -> None:
        """Notes what the search has won, which costs one more evaluation of every row."""
        spread = torch.stack([x.float().std(0, correction=0).mean() for x in asked.genes.values()])
        self.note(
            state,
            gain=(begun.cost - chosen.cost).mean(),
            acceptance=torch.zeros(()) if self.moved is None else self.moved,
            diversity=spread.mean(),
            evaluations=evaluations,
        )

    def extra_repr(self) -> str:
        """What `print` shows."""
        shown = [f"score={self.score!r}"]
        shown += [] if self.reduce is None else [f"reduce={value_text(self.reduce)}"]
        shown += [] if self.rate == 1.0 else [f"rate={value_text(self.rate)}"]
        return ", ".join(shown)

    _remedy = "widen the steps (std), score by the network's smooth loss, or take a weighted mean"


def _moved(found: Tensor, begun: Tensor) -> Tensor:
    """`[n]` whether a row moved by more than another order of summation does, in which a proposal may differ."""
    rounding = 32 * torch.finfo(begun.dtype).eps * begun.abs().amax(1, keepdim=True)
    return ((found != begun) & ~((found - begun).abs() <= rounding)).any(1)
