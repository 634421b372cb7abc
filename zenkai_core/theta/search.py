"""Parameters found by search: any tansaku algorithm over the layer's weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

import tansaku
from zenkai_core.machine import Machine, StepTheta
from zenkai_core.noise import NoiseKey
from zenkai_core.state import State
from zenkai_core.values import IO

Score = Literal["local", "network"]


class Search(StepTheta):
    """Each step runs an algorithm some generations further, on the passes accumulated since the last step.

    Candidates are all trainable parameters of the layer, evaluated side by side under vmap, BatchNorm being each
    pass's affine map. The search begins with the layer's own weights, and its state lives on from step to step; since
    another mini-batch is another objective, what it remembers is assessed again first. The module is the truth: where
    it no longer holds what the last step wrote (other weights were loaded, a parameter was frozen, the dtype changed),
    the search begins anew with the weights that are there. A backward pass that no step follows is kept too; let
    `Optimizer.zero_grad()` or the machine's `forget()` drop it.

    Args:
        algorithm: any tansaku algorithm for real genes and one search.
        score: "local", the layer's cost against its target; "network", the network's loss through the layers above.
        generations: per step.
        write: what becomes the layer's weights: "estimate", the mean of a distribution where the algorithm has one
            (under a noisy cost the better choice), else the best; or "best".
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

    def __init__(
        self,
        algorithm: tansaku.Algorithm[Any],
        *,
        score: Score = "local",
        generations: int = 1,
        write: Literal["estimate", "best"] = "estimate",
        chunk: int | None = None,
        loop: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(algorithm, tansaku.Algorithm):
            raise TypeError(
                f"theta.Search expected a tansaku algorithm, got {type(algorithm).__name__}: for example "
                "tansaku.HillClimb(k=32, std=0.1)"
            )
        for what, value, known in (("score", score, ("local", "network")), ("write", write, ("estimate", "best"))):
            if value not in known:
                raise ValueError(f"theta.Search expected {what} among {known}, got {value!r}: choose one of them")
        for what, number in (("generations", generations), ("chunk", 1 if chunk is None else chunk)):
            if number < 1:
                raise ValueError(f"theta.Search expected {what} >= 1, got {number}: search at least once")
        self.algorithm, self.score, self.generations = algorithm, score, generations
        self.write, self.chunk, self.loop = write, chunk, loop
        self.noise = NoiseKey(seed)
        self._state: Any = None
        self._written: dict[str, Tensor] = {}  # what the last step wrote into the module
        self._pending: list[tuple[IO, State]] = []

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Keeps the pass for the next step, or for nobody once the machine or `Optimizer.zero_grad` forgets it."""
        if state.inputs.rows:
            self._pending.append((t.detach(), state))

    def step(self, machine: Machine) -> None:
        """The search goes on, and its answer becomes the layer's weights; nothing where nothing was accumulated."""
        pending, self._pending = self._pending, []
        parameters = {name: p for name, p in machine.module.named_parameters() if p.requires_grad}
        if not pending or not parameters:
            return
        own = tansaku.Individual({name: p.detach().clone() for name, p in parameters.items()})

        def assess(population: tansaku.Population) -> tansaku.Population:
            genes = dict(population.genes)
            total = sum((self._cost(machine, genes, t, state) for t, state in pending), torch.zeros(()))
            return population.assessed(tansaku.Assessment(total))

        with torch.no_grad():
            device = next(iter(parameters.values())).device
            noise = self.noise.next(device)
            if not self._holds(parameters):
                self._state = None
            elif self.algorithm.best(self._state).device != device:
                self._state = tansaku.unpack(tansaku.pack(self._state), device)  # the machine has moved
            if self._state is None:
                self._state = self.algorithm.init(assess(own.populate(1)))
            else:
                self._state = self.algorithm.refresh(self._state, assess)
            for _ in range(self.generations):
                self._state = self.algorithm.tell(self._state, assess(self.algorithm.ask(self._state, noise)))
            if self.write == "best":
                answer = self.algorithm.best(self._state).individual()
            else:
                answer = self.algorithm.estimate(self._state)
            answer.to_module(machine.module)
            self._written = {name: p.detach().clone() for name, p in parameters.items()}

    def forget(self) -> None:
        """Drops the passes kept for the next step."""
        self._pending = []

    def _cost(self, machine: Machine, genes: dict[str, Tensor], t: IO, state: State) -> Tensor:
        """[k] cost of every candidate on one pass, reduced over rows as `machine.loss` says."""
        x = state.inputs.detach()

        def outputs(candidate: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return tuple(machine.frozen(x, state, candidate))

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
        return {
            "algorithm": type(self.algorithm).__name__,
            "k": self.algorithm.k,
            "state": tansaku.pack(self._state),
            "written": dict(self._written),
        }

    def set_extra_state(self, state: Any) -> None:
        """Takes the search's state back.

        Raises:
            ValueError: it is that of another algorithm, or of another number of candidates.
        """
        own = (type(self.algorithm).__name__, self.algorithm.k)
        if (state["algorithm"], state["k"]) != own:
            raise ValueError(
                f"theta.Search expected the state of {own[0]} with k={own[1]}, got that of {state['algorithm']} with "
                f"k={state['k']}: make the rule with the algorithm that was saved"
            )
        device = self.noise.key.device
        self._state = tansaku.unpack(state["state"], device)
        self._written = {name: v.to(device) for name, v in state["written"].items()}

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
