"""What rules share that move parameters by a torch optimiser: building it, saving it, stepping it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.machine import Machine, Rule, StepTheta

Factory = Callable[..., torch.optim.Optimizer]


class Optimizing(Rule):
    """A rule that fills `.grad` and lets a torch optimiser move in `step`.

    Args:
        factory: a `torch.optim` class, or any callable (parameters, **options) -> optimiser.
        options: what the factory is given, for example `lr=1e-3`.

    Attributes:
        optimizer: the torch optimiser, once bound; hand it to a scheduler of `torch.optim.lr_scheduler`.
    """

    def __init__(self, factory: Factory = torch.optim.Adam, **options: Any) -> None:
        super().__init__()
        if not callable(factory):
            raise TypeError(
                f"{type(self).__name__} expected an optimiser class such as torch.optim.Adam, got "
                f"{type(factory).__name__}: the machine builds the optimiser for its own parameters"
            )
        self.factory = factory
        self.options = options
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The torch optimiser.

        Raises:
            RuntimeError: the rule is not bound to a machine yet.
        """
        if self._optimizer is None:
            raise RuntimeError(
                f"{type(self).__name__}.optimizer expected a bound rule, got a free one: give the rule "
                "to a Machine first"
            )
        return self._optimizer

    def moves(self, machine: Machine) -> list[nn.Parameter]:
        """What the optimiser is built for: the module's trainable parameters unless overridden."""
        return machine.trainable()

    def bind(self, machine: Machine) -> None:
        """Builds the optimiser, where there is anything to move.

        Raises:
            TypeError: its `step` needs a closure, as LBFGS's does.
        """
        super().bind(machine)
        self.build(machine)

    def build(self, machine: Machine) -> None:
        """Makes the optimiser, where there is anything to move.

        Raises:
            TypeError: its `step` needs a closure.
        """
        if params := self.moves(machine):
            self._optimizer = without_closure(self.factory(params, **self.options))

    def step(self, machine: Machine) -> None:
        """Steps the optimiser and clears the gradients."""
        self.optimizer.step()
        torch.clear_autocast_cache()  # a further update within one autocast block needs casts of the new parameters
        for group in self.optimizer.param_groups:  # no gradient survives a step
            for p in group["params"]:
                p.grad = None

    def add(self, pairs: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Adds gradients; a parameter unfrozen since joins the optimiser, with the options of its last group."""
        pairs = list(pairs)
        groups = self.optimizer.param_groups
        held = {p for group in groups for p in group["params"]}
        if joining := [p for p, _ in pairs if p not in held]:
            self.optimizer.add_param_group({**groups[-1], "params": joining})
        add_gradients(pairs)

    def get_extra_state(self) -> Any:
        """The optimiser's state, so that it is part of the machine's `state_dict`."""
        return None if self._optimizer is None else self._optimizer.state_dict()

    def set_extra_state(self, state: Any) -> None:
        """Takes the optimiser's state back."""
        if state is not None:
            self.optimizer.load_state_dict(copy.deepcopy(state))  # torch would share the moments with the giver

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if self._optimizer is not None:  # moments follow their parameters to another device or dtype; counters stay
            for held in self._optimizer.state.values():
                for name, value in held.items():
                    if isinstance(value, Tensor) and value.ndim > 0:
                        held[name] = fn(value)
        return super()._apply(fn, recurse)


class Optimized(Optimizing, StepTheta):
    """A rule for the parameters that fills `.grad` in `accumulate` and lets a torch optimiser move in `step`."""

    requires = frozenset({"parameters"})


def without_closure(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser, if one gradient is all that its `step` needs.

    Raises:
        TypeError: its `step` needs a closure.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"expected an optimiser whose step() needs no closure, got {type(optimizer).__name__}, which evaluates the "
            "loss many times: a target is accumulated once; take SGD, Adam or another first-order one"
        )
    return optimizer


def add_gradients(pairs: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Adds to the `.grad` of each parameter, in its dtype; a gradient that shares storage with another is copied."""
    seen: set[int] = set()
    for p, g in pairs:
        if g is None:
            continue
        if g.dtype != p.dtype:  # under autocast a rule may have worked in a shorter one
            g = g.to(p.dtype)
        if p.grad is not None:
            p.grad = p.grad + g
            continue
        if g.layout is not torch.strided:  # a sparse gradient has no storage to compare
            p.grad = g.clone()
            continue
        where = g.untyped_storage().data_ptr()
        p.grad = g.clone() if where in seen else g
        seen.add(where)
