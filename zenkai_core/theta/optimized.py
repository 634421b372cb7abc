"""What rules share that move parameters by a torch optimiser: building it, saving it, stepping it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.describe import optimizer_text
from zenkai_core.gradients import add_gradients, deliver
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
        self._known: list[nn.Parameter] = []  # whatever may join a group, in an order that does not depend on freezing

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
        params = self.moves(machine)
        self._known = list(dict.fromkeys([*machine.module.parameters(), *params]))
        if params:
            self._optimizer = without_closure(self.factory(params, **self.options))

    def step(self, machine: Machine) -> None:
        """Steps the optimiser and clears the gradients."""
        self.optimizer.step()
        torch.clear_autocast_cache()  # a further update within one autocast block needs casts of the new parameters
        for group in self.optimizer.param_groups:  # no gradient survives a step
            for p in group["params"]:
                p.grad = None

    def add(self, pairs: Iterable[tuple[Tensor, Tensor | None]], *, hooks: bool = True) -> None:
        """Adds gradients; a parameter unfrozen since joins the optimiser, with the options of its last group.

        Args:
            pairs: (parameter, its gradient or None).
            hooks: whether the parameters' hooks run.
        """
        pairs = list(pairs)
        groups, held = self.optimizer.param_groups, set(self._held())
        if joining := [p for p, _ in pairs if p not in held]:
            self.optimizer.add_param_group({**groups[-1], "params": joining})
        (deliver if hooks else add_gradients)(pairs)

    def extra_repr(self) -> str:
        """The optimiser and its learning rate."""
        return optimizer_text(self._optimizer, self.factory, self.options)

    def identity(self) -> str:
        """The rule and the class of its optimiser."""
        own = super().identity()
        return own if self._optimizer is None else f"{own} with {type(self._optimizer).__name__}"

    def get_extra_state(self) -> Any:
        """The optimiser's state, and who is in which group, so that both are part of the machine's `state_dict`."""
        return None if self._optimizer is None else {**self._optimizer.state_dict(), "members": self._members()}

    def set_extra_state(self, state: Any) -> None:
        """Takes the optimiser's state back, and its groups, whoever is frozen now.

        Raises:
            ValueError: it has a parameter that the module lacks.
        """
        if state is None:
            return
        members, groups = state["members"], self.optimizer.param_groups
        if members != self._members():
            places = [i for group in members for i in group]
            if places and max(places) >= len(self._known):
                raise ValueError(
                    f"{type(self).__name__} expected an optimiser's state for {len(self._known)} parameters, got one "
                    f"that moves number {max(places)}: make the machine as it was when it was saved"
                )
            groups[len(members) :] = [{**groups[-1]} for _ in members[len(groups) :]]
            for group, own in zip(groups, members, strict=True):
                group["params"] = [self._known[i] for i in own]
        self.optimizer.load_state_dict(copy.deepcopy(state))  # torch would share the moments with the giver

    def _held(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _members(self) -> list[list[int]]:
        """The parameters of each group, as positions among all that are known."""
        self._known = list(dict.fromkeys([*self._known, *self._held()]))
        places = {p: i for i, p in enumerate(self._known)}
        return [[places[p] for p in group["params"]] for group in self.optimizer.param_groups]

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
    by_gradient = delivers = True


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
