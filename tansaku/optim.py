"""Searches as torch optimisers, for those who have a model and a training loop already.

`step(closure)` runs generations of a search over the parameters: it writes each candidate into them, calls the closure
for its loss, and at the end moves the parameters to the search's answer. One class per algorithm: ``optim.PSO``,
``optim.GA`` ...

Where the model can be run by `torch.func.functional_call` under vmap, `tansaku.ModuleObjective` with `tansaku.Search`
is many times faster than this plain loop over candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import count
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tansaku import checkpoint, checks
from tansaku import settings as descriptions
from tansaku.algorithms import ALGORITHMS, Algorithm, Needs
from tansaku.assessment import Assessment
from tansaku.assessors.randomness import seed_from, seeded
from tansaku.modules import ModuleState
from tansaku.population import Individual, Population
from tansaku.restore import damaged
from tansaku.states import pack, unpack


class SearchOptimizer(torch.optim.Optimizer):
    """A search over parameters behind the interface of `torch.optim`.

    Candidates leave the modules' state unchanged: after every call of the closure, the buffers of all modules that it
    called are put back (see `tansaku.modules`). So a step does not update the running statistics of BatchNorm: run
    the network in training mode once after the steps, before you use it in evaluation mode.

    Random numbers that the closure draws from torch's global generator (dropout, a random batch) come from ``seed``,
    and the global generator is restored. All candidates of a generation get the same numbers, and the next generation
    gets others.

    Every parameter group has ``lr`` and ``momentum``, which the schedulers of torch set. They do not change the search,
    whose step length is the algorithm's ``std``. They say how far a step moves the parameters towards the search's
    answer, as in SGD along ``answer - parameter``: ``velocity = momentum * velocity + answer - parameter``, then
    ``parameter += lr * velocity``. With ``lr = 1`` and ``momentum = 0`` the parameters become the answer. A lower
    ``lr`` averages the answers of several steps, which helps under a noisy loss.

    An algorithm that plans its course, such as L-SHADE, plans over its ``max_evaluations``, 10,000 if not given: an
    optimiser does not know how many steps will follow.

    Args:
        params: parameters, or torch's groups of them; those that do not require a gradient are left alone.
        algorithm: an `Algorithm` for one search and real genes.
        lr: share of the way to the answer, at least 0.
        momentum: share of the last velocity that is kept, in [0, 1).
        generations: per step.
        write: the answer that a step moves the parameters to: ``"estimate"``, the mean of a distribution where the
            algorithm has one, else the best; or ``"best"``.
        refresh: whether every step assesses what the search remembers again, for a closure whose data changes from
            step to step.
        seed: of the random numbers.

    Raises:
        TypeError: no algorithm.
        ValueError: no parameter to search over, or wrong settings.

    Example:
        >>> import tansaku
        >>> net, x = torch.nn.Linear(3, 1), torch.ones(8, 3)
        >>> optimizer = tansaku.optim.PSO(net.parameters(), k=10, seed=1)
        >>> closure = lambda: net(x).square().mean()
        >>> first = optimizer.step(closure)
        >>> for _ in range(20): last = optimizer.step(closure)
        >>> bool(last < first)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        algorithm: Algorithm[Any],
        *,
        lr: float = 1.0,
        momentum: float = 0.0,
        generations: int = 1,
        write: Literal["estimate", "best"] = "estimate",
        refresh: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(algorithm, Algorithm):
            raise TypeError(
                f"expected a tansaku Algorithm, got {type(algorithm).__name__}; pass e.g. tansaku.PSO(k=40)"
            )
        if write not in ("estimate", "best"):
            raise ValueError(f"expected write 'estimate' or 'best', got {write!r}; choose one of them")
        super().__init__(params, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            _check_group(group)
        self.algorithm = algorithm
        self.generations = checks.count("generations", generations)
        self.write, self.refresh = write, refresh
        searched = self._searched()
        if not searched:
            raise ValueError("expected parameters that require a gradient, got none; name those to search over")
        self._generator = torch.Generator(searched[0].device).manual_seed(checks.seed(seed))
        # the search after the last complete step, and its random numbers while another step runs: one assignment, so
        # that a signal handler reads both of one step
        self._complete: tuple[Any, Tensor | None] = (None, None)
        self._warned = False

    @property
    def _search(self) -> Any:
        return self._complete[0]

    def _searched(self) -> list[nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """Runs the search some generations further.

        Args:
            closure: returns the loss [] of the model as it stands, or a dictionary with ``"value"``, the loss, and
                ``"violation"``, a number or [v] that is above 0 where a constraint is violated; called without
                gradients, once per candidate.

        Returns:
            [] the loss of the best candidate that the search knows: the lowest feasible loss, or that of the least
            violated candidate if none is feasible.

        Raises:
            ValueError: no closure, or one that returns no single number.

        If the closure raises, the parameters are as they were before the step.
        """
        if closure is None:
            raise ValueError("expected a closure that returns the loss, got none; call step(lambda: loss(model(x), y))")
        parameters = self._searched()
        own = Individual({str(i): p.detach().clone() for i, p in enumerate(parameters)})

        def assess(population: Population) -> Population:
            losses, violations = [], []
            seed = seed_from(self._generator, population.k)
            for i in range(population.k):
                _write(population.individual(i), parameters)
                with seeded(seed, parameters[0].device):
                    loss, violation = _answer(closure(), parameters[0])
                losses.append(loss)
                violations.append(violation)
                modules.restore()
            return population.assessed(Assessment(torch.stack(losses), violation=_stacked(violations)))

        noise = self._generator.get_state()
        self._complete = before = (self._search, noise)
        try:
            with torch.no_grad(), ModuleState() as modules:
                state = self._search
                if state is None:
                    state = self.algorithm.init(assess(own.populate(1)))
                elif self.refresh:
                    state = self.algorithm.refresh(state, assess)
                for _ in range(self.generations):
                    state = self.algorithm.tell(state, assess(self.algorithm.ask(state, self._generator)))
                best = self.algorithm.best(state)
                answer = best.individual() if self.write == "best" else self.algorithm.estimate(state)
                self._complete = (state, None)
        finally:
            if self._complete is before:  # the step failed: the next one draws the same numbers
                self._generator.set_state(noise)
                self._complete = (self._search, None)
            _write(own, parameters)
        self._move(answer)
        return best.cost[0] if best.assessment is None else best.assessment.objective_cost[0]

    def _described(self) -> dict[str, Any]:
        """The settings that change the run, as `tansaku.settings` describes them."""
        own = {"algorithm": self.algorithm, "generations": self.generations, "write": self.write}
        return {name: descriptions.describe(value) for name, value in (own | {"refresh": self.refresh}).items()}

    def _move(self, answer: Individual) -> None:
        """Moves the parameters towards the answer of the search, by each group's ``lr`` and ``momentum``."""
        number = count()
        with torch.no_grad():
            for group in self.param_groups:
                lr, momentum = group["lr"], group["momentum"]
                for parameter in group["params"]:
                    if not parameter.requires_grad:
                        continue
                    target = answer[str(next(number))]
                    if lr == 1 and momentum == 0:
                        parameter.copy_(target)
                        continue
                    velocity = target - parameter
                    if momentum:
                        last = self.state[parameter].get("momentum_buffer")
                        velocity = velocity if last is None else momentum * last + velocity
                        self.state[parameter]["momentum_buffer"] = velocity
                    parameter.add_(lr * velocity)

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the search, its random numbers and its settings, after the last complete step.

        Warns:
            UserWarning: once, where a setting is a lambda, which cannot be compared on load.
        """
        described = self._described()
        if not self._warned:
            self._warned = descriptions.warn_of_unnamed(described)
        search, noise = self._complete
        noise = self._generator.get_state() if noise is None else noise
        return {**super().state_dict(), "search": pack(search), "generator": noise, "settings": described}

    def load_state_dict(self, state_dict: dict[str, Any], *, replan: bool = False) -> None:
        """Goes on from what `state_dict` gave, in an optimiser with the same algorithm and settings.

        Args:
            state_dict: what `state_dict` gave.
            replan: accepts another ``max_evaluations`` of an algorithm that plans its course over it.

        Raises:
            ValueError: other settings, or a damaged state; the optimiser is then as before.
        """
        missing = sorted({"search", "generator"} - set(state_dict))
        if missing:
            raise ValueError(f"expected what state_dict() gave, got a dictionary without {missing}; pass it whole")
        try:
            if "settings" in state_dict:
                descriptions.check_same(state_dict["settings"], self._described(), self.algorithm.needs.plans, replan)
            search = unpack(state_dict["search"], self._generator.device)
            self._check_search(search)
            noise = state_dict["generator"].cpu()
            torch.Generator(self._generator.device).set_state(noise)  # raises before anything is changed
            rest = {key: value for key, value in state_dict.items() if key not in ("search", "generator", "settings")}
            super().load_state_dict(rest)
        except ValueError:
            raise
        except Exception as error:
            raise damaged(error, checkpoint.VERSION) from error
        self._generator.set_state(noise)
        self._complete = (search, None)

    def _check_search(self, search: Any) -> None:
        """The state of the search belongs to this algorithm and to these parameters.

        Raises:
            ValueError: it does not.
        """
        if search is None:
            return
        best = self.algorithm.best(search).individual()
        got = {name: (tuple(x.shape), x.dtype) for name, x in best.genes.items()}
        expected = {str(i): (tuple(p.shape), p.dtype) for i, p in enumerate(self._searched())}
        if got != expected:
            raise ValueError(
                "expected the state of a search over parameters of shapes "
                f"{[shape for shape, _ in expected.values()]}, got {[shape for shape, _ in got.values()]} or another "
                "dtype; load it into the optimiser of the same parameters"
            )


class _Named(SearchOptimizer):
    """The optimiser of one algorithm; settings of the algorithm are keyword arguments.

    Where the algorithm itself has a setting ``lr`` (`PGPE`, `OpenAIES`), the argument ``lr`` is that setting, and the
    groups begin with an ``lr`` of 1.
    """

    kind: ClassVar[type[Algorithm[Any]]]

    def __init__(
        self,
        params: Iterable[Any],
        *,
        generations: int = 1,
        write: Literal["estimate", "best"] = "estimate",
        refresh: bool = False,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        kind: Any = self.kind
        known = {field.name for field in fields(kind)}
        own = {name: settings.pop(name) for name in ("lr", "momentum") if name in settings and name not in known}
        super().__init__(
            params, self.kind(**settings), generations=generations, write=write, refresh=refresh, seed=seed, **own
        )


def _check_group(group: dict[str, Any]) -> None:
    for name in ("lr", "momentum"):
        value = group[name]
        number = checks.number(name, value.item() if isinstance(value, Tensor) and value.numel() == 1 else value, 0.0)
        if name == "momentum" and number >= 1:
            raise ValueError(f"expected momentum < 1, got {number}; choose a value in [0, 1)")


def _write(candidate: Individual, parameters: list[nn.Parameter]) -> None:
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(candidate[str(i)])


def _answer(answer: Any, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """The loss [] of a closure, and the violation [v] if it returned a dictionary with one."""
    if not isinstance(answer, Mapping):
        return _loss(answer, like), None
    unknown = sorted(set(answer) - {"value", "violation"})
    if unknown or "value" not in answer:
        raise ValueError(
            f"expected a dictionary with 'value' and maybe 'violation', got {sorted(answer)}; rename its keys"
        )
    violation = answer.get("violation")
    if violation is not None:
        violation = torch.as_tensor(violation, device=like.device).detach().to(like.dtype).reshape(-1)
    return _loss(answer["value"], like), violation


def _stacked(violations: list[Tensor | None]) -> Tensor | None:
    """[k, v] the violations of all candidates; None where the closure returns none."""
    present = [x for x in violations if x is not None]
    if not present:
        return None
    if len(present) < len(violations) or len({x.shape for x in present}) > 1:
        raise ValueError(
            "expected the closure to return as many violations for every candidate, got different numbers; "
            "return the same constraints each time"
        )
    return torch.stack(present)


def _loss(value: Any, like: Tensor) -> Tensor:
    loss = torch.as_tensor(value, device=like.device).detach()
    if loss.numel() != 1:
        raise ValueError(
            f"expected the closure to return one number, got shape {checks.shape_text(loss.shape)}; reduce the loss"
        )
    return loss.reshape(()).to(like.dtype)


def _suits(needs: Needs) -> bool:
    """Whether a loss over real parameters is all that an algorithm needs."""
    return "real" in needs.dtypes and needs.objectives == "one" and not needs.descriptor


_OPTIMIZERS: dict[str, type[SearchOptimizer]] = {}


def __getattr__(name: str) -> type[SearchOptimizer]:
    """The optimiser under the name of an algorithm's class, for every algorithm over real genes and one loss."""
    if name not in _OPTIMIZERS:
        kinds = {kind.__name__: kind for kind in ALGORITHMS.values() if _suits(kind.needs)}
        if name not in kinds:
            raise AttributeError(f"expected SearchOptimizer or one of {sorted(kinds)}, got {name!r}; see ALGORITHMS")
        doc = f"`tansaku.{name}` as a torch optimiser, its settings as keyword arguments; see `SearchOptimizer`."
        _OPTIMIZERS[name] = type(name, (_Named,), {"kind": kinds[name], "__doc__": doc, "__module__": __name__})
    return _OPTIMIZERS[name]
