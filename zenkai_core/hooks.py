"""Hooks before and after every call of a learning machine, also of a user's own that overrides the methods.

A class that overrides `accumulate`, say, is given the same method with one question in front: does anybody listen? A
call made through `super()` belongs to the call around it and fires nothing of its own. Where the method answers with an
IO (`forward_nn`, `step_y`, `step_x`), one that returns a bare tensor is understood too; what it is given is an IO
always, and a target for x is shaped as x: both are seen to here, whoever calls and whoever wrote the method.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from zenkai_core.state import State
from zenkai_core.values import IO, Probabilities, Target, as_io, no_io

Event = Literal["forward", "step_y", "accumulate", "step_x", "step", "learn", "test"]
When = Literal["before", "after"]

_METHODS = {
    "forward_nn": "forward",
    "step_y": "step_y",
    "accumulate": "accumulate",
    "step_x": "step_x",
    "step": "step",
    "learn": "learn",
    "test": "test",
}
_ARGUMENTS = {"forward": ("x", "state"), "learn": ("x", "t"), "test": ("x", "t")}
_REPLACEABLE = ("forward", "step_y", "step_x")


@dataclass(frozen=True)
class Call:
    """What a hook is told: the machine, the event, the arguments, and after the call its result."""

    machine: Any
    event: str
    x: IO
    t: IO | None
    state: State | None
    result: Any = None


Hook = Callable[[Call], Any]


class Hooked:
    """A class whose learning methods can be listened to."""

    _listeners: OrderedDict[int, tuple[str, str, Hook]]
    _running: set[str]
    _told: Any  # what was accumulated since the last step; `step` uses it up

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method, event in _METHODS.items():
            owner = next((base for base in cls.__mro__ if method in base.__dict__), None)
            if owner is cls or (owner is not None and not issubclass(owner, Hooked)):  # its own, or a mixin's
                setattr(cls, method, _watched(owner.__dict__[method], event))

    def register_hook(self, event: Event, hook: Hook, when: When = "after") -> RemovableHandle:
        """Calls hook(Call) before or after every `event` of this machine.

        Args:
            event: "forward" (one remembered pass), "step_y", "accumulate", "step_x", "step", "learn" or "test".
            hook: what it returns is ignored, except after "forward", "step_y" and "step_x": an IO replaces the result
                (a target for x that is shaped as x).
            when: "before" or "after".

        Returns:
            A handle whose `remove()` ends it. A copied or pickled machine starts without hooks.

        Raises:
            TypeError: the hook is no callable.
            ValueError: the event or the moment is unknown.
        """
        if not callable(hook):
            raise TypeError(
                f"a hook expected a callable that is told a Call, got {type(hook).__name__}: for example "
                "lambda call: print(call.event)"
            )
        if event not in _METHODS.values() or when not in ("before", "after"):
            raise ValueError(
                f"a hook expected an event of {', '.join(_METHODS.values())} and 'before' or 'after', got "
                f"{event!r} and {when!r}: choose one of each"
            )
        handle = RemovableHandle(self._listeners)
        self._listeners[handle.id] = (event, when, hook)
        return handle


def _watched(method: Callable[..., Any], event: str) -> Callable[..., Any]:
    names = _ARGUMENTS.get(event, ("x", "t", "state"))
    ios = () if event in ("learn", "test") else names[:-1]  # those two take tensors too
    gives_io, gives_x = event in _REPLACEABLE, event == "step_x"

    @functools.wraps(method)
    def call(self: Hooked, *args: Any, **kwargs: Any) -> Any:
        if ios and (len(args) <= len(ios) or not isinstance(args[0], IO) or not isinstance(args[-2], IO)):
            _expect_ios(self, method, ios, {**dict(zip(names, args, strict=False)), **kwargs})
        told: dict[str, Any] | None = None  # where somebody listens
        if self._listeners and event not in self._running:
            told = {"t": None, "state": None, **dict(zip(names, args, strict=False)), **kwargs}
            _tell(self, event, "before", told, None)
            self._running.add(event)
        try:
            result = method(self, *args, **kwargs)
        finally:
            if told is not None:
                self._running.discard(event)
        if event == "step":
            self.__dict__["_told"] = None  # nn.Module's own setter is slow
        if gives_io and not isinstance(result, IO):
            result = _answer(self, method, result)
        if told is not None:
            result = _tell(self, event, "after", told, result)
        if gives_x:
            _expect_place(self, args[0] if args else kwargs["x"], result)
            result = result if isinstance(result, Probabilities) else Target.at(result)
        return result

    return call


def _expect_ios(machine: Hooked, method: Callable[..., Any], ios: tuple[str, ...], told: dict[str, Any]) -> None:
    """Refuses bare tensors where the method takes IOs."""
    for name in ios:
        if name in told and not isinstance(told[name], IO):
            raise no_io(f"{type(machine).__name__}.{method.__name__}", name, told[name])


def _expect_place(machine: Hooked, x: IO, target: IO) -> None:
    """Refuses a target for x that is not shaped as x: broadcasting would make wrong errors of it without a word."""
    if [v.shape for v in x] != [v.shape for v in target]:
        raise ValueError(
            f"{type(machine).__name__}.step_x expected a target shaped as its inputs, {x}, got {target}: answer with "
            "one tensor for each input, and with x itself where there is nothing to ask"
        )


def _answer(machine: Hooked, method: Callable[..., Any], result: Any) -> IO:
    """The IO that the method meant; a tensor is one output, not a tuple of its rows."""
    if not isinstance(result, (Tensor, tuple, list)):
        raise TypeError(
            f"{type(machine).__name__}.{method.__name__} expected to return an IO or a tensor, got "
            f"{type(result).__name__}: return IO(y)"
        )
    return as_io(result)


def _tell(machine: Hooked, event: str, moment: str, told: dict[str, Any], result: Any) -> Any:
    for of, when, hook in list(machine._listeners.values()):
        if of == event and when == moment:
            answer = hook(Call(machine, event, told["x"], told["t"], told["state"], result))
            if moment == "after" and event in _REPLACEABLE and isinstance(answer, IO):
                result = answer
    return result
