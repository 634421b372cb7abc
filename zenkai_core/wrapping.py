"""Rules around rules: what they share. A wrapper asks of the module what its inner rule asks, and binds it."""

from __future__ import annotations

from typing import Any

from zenkai_core.capabilities import check, check_kind, qualified
from zenkai_core.machine import Machine, Rule


class Wrapping(Rule):
    """A rule that holds another one, as its submodule `rule`.

    Args:
        rule: the inner rule, of the same kind as the wrapper.

    Raises:
        TypeError: it is of another kind.
    """

    kind: type[Rule] = Rule

    def __init__(self, rule: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_kind(type(self).__name__, "rule", rule, self.kind)
        self.rule = rule
        self.requires = self.requires | rule.requires
        self.uses_graph = rule.uses_graph

    def extra_repr(self) -> str:
        """What `print` shows."""
        return repr(self.rule)

    @property
    def bound(self) -> bool:
        """Whether the inner rule serves a machine."""
        return "rule" in self._modules and self.rule.bound

    @bound.setter
    def bound(self, value: bool) -> None:
        if "rule" in self._modules:
            self.rule.bound = value

    @property
    def learning(self) -> bool:
        """Whether the inner rule learns: one switch for both."""
        return "rule" not in self._modules or self.rule.learning

    @learning.setter
    def learning(self, value: bool) -> None:
        self.rule.learning = value

    @property
    def by_gradient(self) -> bool:  # type: ignore[override]
        """Whether the inner rule learns by `.grad` alone."""
        return self.rule.by_gradient

    @property
    def delivers(self) -> bool:  # type: ignore[override]
        """Whether the inner rule runs the parameters' hooks."""
        return self.rule.delivers

    def identity(self) -> str:
        """The wrapper's and the inner rule's."""
        return f"{super().identity()} of {self.rule.identity()}"

    def bind(self, machine: Machine) -> None:
        """Checks what the wrapper itself asks of the module, and binds the inner rule."""
        check(qualified(self), self.requires - self.rule.requires, machine.module)
        self.rule.bind(machine)

    def forget(self) -> None:
        """The inner rule forgets."""
        self.rule.forget()
