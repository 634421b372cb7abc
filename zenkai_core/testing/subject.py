"""What the claims of `check_machine` are put to: fresh machines, what they hold, and whether two are the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.learning import LearningMachine
from zenkai_core.state import State
from zenkai_core.values import IO, as_io

Made = tuple[LearningMachine, IO | Tensor, IO | Tensor]
Make = Callable[..., Made]
SEED = 20_231_101


class ClaimError(AssertionError):
    """A machine breaks a claim of the suite; the message names it."""


def expect_made(make: Make) -> None:
    """Refuses what gives no machine with a batch, before any claim is put to it."""
    given: Any = make
    if isinstance(given, nn.Module) or not callable(given):
        raise TypeError(
            f"check_machine expected a function make() -> (machine, x, t), got {type(given).__name__}: every claim "
            "needs a fresh machine, so write lambda: (MyMachine(), x, t)"
        )
    torch.manual_seed(SEED)
    made: Any = make()
    if not isinstance(made, (tuple, list)) or len(made) != 3:
        got = f"{len(made)} values" if isinstance(made, (tuple, list)) else type(made).__name__
        raise TypeError(
            f"check_machine expected make() -> (machine, x, t), got {got}: give a batch and its targets with the "
            "machine, lambda: (MyMachine(), x, t)"
        )
    machine, x, t = made
    if not isinstance(machine, LearningMachine):
        raise TypeError(
            f"check_machine expected a LearningMachine from make(), got {type(machine).__name__}: make a "
            "Machine(module, theta, x) of a plain module"
        )
    as_io(x, "x of make()")
    as_io(t, "t of make()")


def fresh(make: Make, **kwargs: Any) -> tuple[LearningMachine, IO, IO]:
    """A new machine in training mode, with its batch; always the same one."""
    torch.manual_seed(SEED)
    machine, x, t = make(**kwargs)
    machine.train()
    return machine, as_io(x), as_io(t)


def copy_of(machine: LearningMachine) -> LearningMachine:
    """A deep copy.

    Raises:
        ClaimError: there is none.
    """
    try:
        return copy.deepcopy(machine)
    except Exception as error:
        raise ClaimError(
            f"{type(machine).__name__} cannot be copied ({type(error).__name__}): keep what belongs to a pass, its "
            "outputs say, in the pass's state and not in the machine"
        ) from error


def claim(holds: bool, message: str) -> None:
    """Raises what breaks a claim, unless it holds."""
    if not holds:
        raise ClaimError(message)


def tensors(machine: LearningMachine) -> dict[str, Tensor]:
    """Name -> a copy of each tensor of the `state_dict`."""
    return {name: v.detach().clone() for name, v in machine.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}


def parameters(machine: LearningMachine) -> dict[str, Tensor]:
    """Name -> a copy of each parameter."""
    return {name: p.detach().clone() for name, p in machine.named_parameters()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The names of what differs."""
    return [k for k in a.keys() | b.keys() if k not in a or k not in b or not equal(a[k], b[k])]


def equal(a: Any, b: Any) -> bool:
    """Whether two values, nested or not, are the same to the bit; NaN is NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def a_pass(machine: LearningMachine, x: IO, t: IO) -> tuple[State, IO, IO]:
    """A pass that was told its target, with the inputs and the target that the machine goes by."""
    state = State()
    machine.remember(x, state)
    told = machine.tell(t, state)
    return state, told.x, told.t


def gradients_of(machine: LearningMachine) -> dict[str, Tensor]:
    """Name -> a copy of each parameter's gradient; a zero where there is none."""
    zero = torch.zeros(())
    return {name: zero if p.grad is None else p.grad.clone() for name, p in machine.named_parameters()}
