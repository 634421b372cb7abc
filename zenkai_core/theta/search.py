"""Parameters found by search: any tansaku algorithm over the layer's weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

import tansaku
from zenkai_core.describe import value_text
from zenkai_core.machine import Machine, StepTheta
from zenkai_core.noise import NoiseKey
from zenkai_core.searching import (
    Algorithm,
    Entries,
    Reducer,
    Score,
    Searcher,
    algorithm_at,
    at,
    check_algorithm,
    check_count,
    check_reducer,
    check_schedules,
    check_score,
)
from zenkai_core.state import State
from zenkai_core.values import IO


class Search(StepTheta):
    """Each step runs an algorithm some generations further, on the passes accumulated since the last step.

    Candidates are all trainable parameters of the layer, evaluated side by side under vmap, BatchNorm being each
    pass's affine map. The search begins with the layer's own weights, and its state lives on from step to step; since
    another mini-batch is another objective, what it remembers is assessed again first. The module is the truth: where
    it no longer holds what the last step wrote (other weights were loaded, a parameter was frozen, the dtype changed),
    the search begins anew with the weights that are there. What `theta.Filtered` and `theta.Limited` make of the answer
    is not such a change; under `theta.Limited`, candidates differ in the entries that may move, and in no other. A
    backward pass that no step follows is kept too; let `Optimizer.zero_grad()` or the machine's `forget()` drop it.

    Args:
        algorithm: any tansaku algorithm for real genes; or what makes one at each step: a `tansaku.Scheduled`, to
            anneal its steps along schedules, or a callable (number of steps so far) -> algorithm. The state goes from
            one to the next, so they are of one kind.
        score: "local", the layer's cost against its target; "network", the network's loss through the layers above.
        generations: per step.
        write: what becomes the layer's weights: "estimate", the mean of a distribution where the algorithm has one
            (under a noisy cost the better choice), else the best; "best"; or a tansaku reducer of the last generation,
            such as `tansaku.WeightedMean("standardised")` or a `tansaku.Scheduled` of one: then every step is a fresh
            search around the weights that the last one wrote, which `tansaku.Momentum` follows from step to step.
        calls: over which schedules run, from share 0 to 1: steps of the training. Needed where there is a schedule.
        chunk: candidates per forward pass; all if None.
        loop: whether candidates are evaluated one after another instead of under vmap, which takes no LSTM or GRU;
            where vmap fails and the loop does not, the rule warns once and sets it.
        seed: of the noise; one draw of torch's global generator if None.

    Raises:
        TypeError, ValueError: arguments of a wrong kind.

    >>> import tansaku
    >>> from torch import nn
    >>> from zenkai_core import Machine, targets
    >>> layer = Machine(nn.Linear(2, 1), Search(tansaku.HillClimb(k=16, std=0.3), seed=0), targets.Null())
    >>> x, t = torch.eye(2), torch.ones(2, 1)
    >>> first = layer.learn(x, t)
    >>> for _ in range(30): last = layer.learn(x, t)
    >>> bool(last < first)
    True
    """

    requires = frozenset({"parameters"})
    delivers = True  # it adds no gradients

    def __init__(
        self,
        algorithm: Searcher,
        *,
        score: Score = "local",
        generations: int = 1,
        write: Literal["estimate", "best"] | Reducer = "estimate",
        calls: int | None = None,
        chunk: int | None = None,
        loop: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_score(self._rule, score)
        check_schedules(self._rule, calls, algorithm=algorithm, write=write)
        check_algorithm(self._rule, algorithm, calls, rows=False)
        if isinstance(write, str):
            if write not in ("estimate", "best"):
                raise ValueError(
                    f"theta.Search expected write 'estimate', 'best' or a reducer, got {write!r}: choose one of them"
                )
        else:
            check_reducer(self._rule, "write", write)
        for what, number in (("generations", generations), ("chunk", 1 if chunk is None else chunk)):
            check_count(self._rule, what, number)
        self.algorithm, self.score, self.generations = algorithm, score, generations
        self.write, self.calls, self.chunk, self.loop = write, calls, chunk, loop
        self.noise = NoiseKey(seed)
        self._state: Any = None
        self._memory: tansaku.MomentumMemory | None = None
        self._written: dict[str, Tensor] = {}  # what the last step wrote into the module
        self._masks: dict[str, Tensor] | None = None  # of the entries that the state searches; None: all
        self._allowed: Mapping[str, Tensor] | None = None
        self._answered = False  # whether the last step wrote anything
        self._pending: list[tuple[IO, State]] = []

    _rule = "theta.Search"

    def extra_repr(self) -> str:
        """What `print` shows."""
        generations = f", generations={self.generations}" if self.generations != 1 else ""
        write = self.write if isinstance(self.write, str) else value_text(self.write)
        return f"{value_text(self.algorithm)}, score={self.score!r}, write={write!r}{generations}"

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Keeps the pass for the next step, until the machine or `Optimizer.zero_grad` forgets it.

        Raises:
            TypeError: the criterion takes labels or probabilities, and t is a point among the outputs.
        """
        machine.local_criterion(state, t)
        self._pending.append((t.detach(), state))

    def step(self, machine: Machine) -> None:
        """The search goes on, and its answer becomes the layer's weights; nothing where nothing was accumulated."""
        pending, self._pending = self._pending, []
        parameters = _trainable(machine)
        entries = Entries(parameters, self._allowed)
        own = tansaku.Individual(genes) if (genes := entries.genes) else None
        self._answered = bool(pending) and own is not None
        if not pending or own is None:
            return

        def assess(population: tansaku.Population) -> tansaku.Population:
            genes = dict(population.genes)
            total = sum((self._cost(machine, entries, genes, t, state) for t, state in pending), torch.zeros(()))
            return population.assessed(tansaku.Assessment(total))

        count = int(self.noise.key[1])
        algorithm = algorithm_at(self._rule, self.algorithm, count, self.calls, rows=False)
        reduce = None if isinstance(self.write, str) else at(self.write, count, self.calls)
        with torch.no_grad():
            device = next(iter(parameters.values())).device
            noise = self.noise.next(device)
            if not self._holds(parameters) or not entries.same(self._masks):
                self._state = self._memory = None
            elif algorithm.best(self._state).device != device:  # the machine has moved
                self._state = tansaku.unpack(tansaku.pack(self._state), device)
                self._memory = _unpacked(_packed(self._memory), device)
            if self._state is None or reduce is not None:
                self._state = algorithm.init(assess(own.populate(1)))
            else:
                self._state = algorithm.refresh(self._state, assess)
            for _ in range(self.generations):
                asked = assess(algorithm.ask(self._state, noise))
                self._state = algorithm.tell(self._state, asked)
            answer = self._answer(algorithm, asked, reduce)
            tansaku.Individual(entries.whole(answer.genes)).to_module(machine.module)
            self._written = {name: p.detach().clone() for name, p in parameters.items()}
            self._masks = entries.masks

    def _answer(self, algorithm: Algorithm, asked: tansaku.Population, reduce: Any) -> tansaku.Individual:
        """What is written into the layer."""
        if isinstance(reduce, tansaku.Momentum):
            self._memory = reduce.after(self._memory, asked)
            return self._memory.current
        if reduce is not None:
            return reduce(asked)
        return algorithm.best(self._state).individual() if self.write == "best" else algorithm.estimate(self._state)

    def limited_to(self, masks: Mapping[str, Tensor]) -> None:
        """Notes which entries the coming step may search."""
        self._allowed = masks

    def moved(self, machine: Machine) -> None:
        """The search goes on from what a rule around it has made of its answer."""
        if self._answered:
            parameters = _trainable(machine)
            self._written = {name: p.detach().clone() for name, p in parameters.items()}
            if self._memory is not None:  # inertia is kept, and the place that it moves is the module's
                place = tansaku.Individual(Entries(parameters, self._masks).genes)
                self._memory = tansaku.MomentumMemory(place, self._memory.velocity)

    def forget(self) -> None:
        """Drops the passes kept for the next step."""
        self._pending = []

    def _cost(self, machine: Machine, entries: Entries, genes: dict[str, Tensor], t: IO, state: State) -> Tensor:
        """[k] cost of every candidate on one pass, reduced over rows as `machine.loss` says."""
        x = state.inputs.detach()

        def outputs(candidate: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return tuple(machine.frozen(x, state, entries.whole(candidate)))

        def one_by_one() -> tuple[Tensor, ...]:
            k = next(iter(genes.values())).shape[0]
            found = [outputs({name: v[i] for name, v in genes.items()}) for i in range(k)]
            return tuple(torch.stack(values) for values in zip(*found, strict=True))

        if self.loop:
            y = one_by_one()
        else:
            try:
                y = torch.func.vmap(outputs, chunk_size=self.chunk)(genes)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as refused:
                y = one_by_one()
                self.loop = True
                warnings.warn(
                    f"theta.Search takes the candidates of {type(machine.module).__name__} one after another, since "
                    f"vmap does not take them at once ({str(refused).splitlines()[0]}): say loop=True if that is meant",
                    stacklevel=2,
                )
        flat = IO(*(v.flatten(0, 1) for v in y))
        cost = machine.cost(flat, t, state) if self.score == "local" else state.cost_above(flat)
        cost = cost.to(torch.promote_types(cost.dtype, torch.float32)).view(-1, x.rows)
        return cost.mean(1) if machine.loss == "mean" else cost.sum(1)

    def get_extra_state(self) -> Any:
        """The search's state, so that it is part of the machine's `state_dict`."""
        algorithm, k = self._kind()
        return {
            "algorithm": algorithm,
            "k": k,
            "state": tansaku.pack(self._state),
            "memory": _packed(self._memory),
            "written": dict(self._written),
            "masks": self._masks,
        }

    def set_extra_state(self, state: Any) -> None:
        """Takes the search's state back.

        Raises:
            ValueError: it is that of another algorithm, or of another number of candidates.
        """
        own = self._kind()
        if (state["algorithm"], state["k"]) != own:
            raise ValueError(
                f"theta.Search expected the state of {own[0]} with k={own[1]}, got that of {state['algorithm']} with "
                f"k={state['k']}: make the rule with the algorithm that was saved"
            )
        device = self.noise.key.device
        self._state = tansaku.unpack(state["state"], device)
        self._memory = _unpacked(state["memory"], device)
        self._written = {name: v.to(device) for name, v in state["written"].items()}
        self._masks = state["masks"]

    def _kind(self) -> tuple[str, Any]:
        """The name and the number of candidates of the first step's algorithm."""
        first = algorithm_at(self._rule, self.algorithm, 0, self.calls, rows=False)
        return type(first).__name__, first.k

    def _holds(self, parameters: Mapping[str, Tensor]) -> bool:
        """Whether the module's trainable parameters are still what the last step wrote."""
        written = {name: v.to(p.device) for name, v in self._written.items() if (p := parameters.get(name)) is not None}
        return (
            self._state is not None
            and self._written.keys() == parameters.keys()
            and all(
                v.dtype == parameters[name].dtype and torch.equal(v, parameters[name]) for name, v in written.items()
            )
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": []}  # a pass in flight belongs to its graph: copies start without


def _trainable(machine: Machine) -> dict[str, Tensor]:
    return {name: p for name, p in machine.module.named_parameters() if p.requires_grad}


def _packed(memory: tansaku.MomentumMemory | None) -> Any:
    return None if memory is None else tansaku.pack([memory.current, memory.velocity])


def _unpacked(packed: Any, device: torch.device) -> tansaku.MomentumMemory | None:
    return None if packed is None else tansaku.MomentumMemory(*tansaku.unpack(packed, device))
