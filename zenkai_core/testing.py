"""`check_machine`: the published conformance suite of learning machines, for ours and for a user's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from zenkai_core import passes
from zenkai_core.criteria import per_row
from zenkai_core.hooks import Call
from zenkai_core.learning import LearningMachine
from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.values import IO, as_io

__all__ = ["CLAIMS", "ClaimError", "check_machine"]

Made = tuple[LearningMachine, IO | Tensor, IO | Tensor]
Make = Callable[..., Made]
_SEED = 20_231_101


class ClaimError(AssertionError):
    """A machine breaks a claim of the suite; the message names it."""


def check_machine(make: Make, *, skip: Collection[str] = ()) -> None:
    """Runs every claim of the suite (the keys of `CLAIMS`) on fresh machines.

    Args:
        make: `make()` -> (machine, x, t): a new machine with a batch and the targets that its `learn` takes. Given a
            parameter n, `make(n=2)` makes it with two iterations in a rule: then the claim on iterations runs too.
        skip: names of claims that the machine does not make, for example {"learning lowers the mean cost"} for one that
            does not learn.

    Raises:
        ClaimError: naming the first claim that fails.
        ValueError: skip names an unknown claim.
    """
    for name in [name for name in skip if name not in CLAIMS]:
        raise ValueError(f"check_machine expected names of claims to skip, got {name!r}: choose from {list(CLAIMS)}")
    for name, claim in CLAIMS.items():
        if name in skip:
            continue
        with torch.random.fork_rng():
            try:
                claim(make)
            except ClaimError as broken:
                raise ClaimError(f"{name}: {broken}") from broken


def _fresh(make: Make, **kwargs: Any) -> tuple[LearningMachine, IO, IO]:
    torch.manual_seed(_SEED)
    machine, x, t = make(**kwargs)
    machine.train()
    return machine, as_io(x), as_io(t)


def _claim(holds: bool, message: str) -> None:
    if not holds:
        raise ClaimError(message)


def _tensors(machine: LearningMachine) -> dict[str, Tensor]:
    return {name: v.detach().clone() for name, v in machine.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}


def _parameters(machine: LearningMachine) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in machine.named_parameters()}


def _moved(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    return [k for k in a.keys() | b.keys() if k not in a or k not in b or not _equal(a[k], b[k])]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _pass(machine: LearningMachine, x: IO, t: IO) -> tuple[State, IO, IO]:
    state = State()
    machine.remember(x, state)
    told = machine.tell(t, state)
    return state, told.x, told.t


def _moves_only_in_step(make: Make) -> None:
    machine, x, t = _fresh(make)
    before = _parameters(machine)
    state = State()
    machine.remember(x, state)
    _claim(not _moved(before, _parameters(machine)), f"forward_nn moved {_moved(before, _parameters(machine))}")
    passed = _tensors(machine)
    told = machine.tell(t, state)
    _claim(not _moved(before, _parameters(machine)), f"accumulate moved {_moved(before, _parameters(machine))}")
    moved = [name for name in _moved(passed, _tensors(machine)) if not name.endswith(".key")]
    _claim(not moved, f"accumulate moved the buffers {moved}")
    machine.step(*told)
    grown = [name for name, p in machine.named_parameters() if p.grad is not None]
    _claim(not grown, f"a gradient survives the step in {grown}")


def _backward_moves_nothing(make: Make) -> None:
    machine, x, _ = _fresh(make)
    before = _parameters(machine)
    y = as_io(machine(*x))
    sum(v.square().mean() for v in y).backward()  # type: ignore[union-attr]
    moved = _moved(before, _parameters(machine))
    _claim(not moved, f"backward() moved {moved}; only step may")


def _step_x_moves_nothing(make: Make) -> None:
    machine, x, t = _fresh(make)
    state, x_of, t_of = _pass(machine, x, t)
    before = _tensors(machine)
    target = machine.step_x(x_of, t_of, state)
    moved = [name for name in _moved(before, _tensors(machine)) if not name.endswith(".key")]
    _claim(not moved, f"step_x moved {moved}; only a noise count may change")
    _claim([v.shape for v in target] == [v.shape for v in x], f"step_x gave {target} for inputs {x}")
    _claim(not any(v.requires_grad for v in target), "step_x gave a target with a graph; detach it")
    _claim(all(bool(v.isfinite().all()) for v in target), "step_x gave a target that is not finite")


def _accumulates(make: Make) -> None:
    gradients = []
    for both in (False, True):
        machine, x, t = _fresh(make)
        with passes.replaying(machine, None, x.f.device):  # the noise of the second pass is that of the first
            if both:
                _pass(machine, x, t)
        later = x.map(lambda v: v.flip(0)), t.map(lambda v: v.flip(0))
        _pass(machine, *later)
        gradients.append(_gradients(machine))
    other, _, _ = _fresh(make)
    _pass(other, x, t)
    first = _gradients(other)
    lost = [name for name, g in gradients[1].items() if first[name].any() and _equal(g, gradients[0][name])]
    _claim(not lost, f"the second pass took the place of the first in the gradients of {lost}; accumulate adds")


def _gradients(machine: LearningMachine) -> dict[str, Tensor]:
    zero = torch.zeros(())
    return {name: zero if p.grad is None else p.grad.clone() for name, p in machine.named_parameters()}


def _no_leak(make: Make) -> None:
    machine, x, t = _fresh(make)
    state, x_of, t_of = _pass(machine, x, t)
    asked = _gradients(machine)
    alone = machine.step_x(x_of, t_of, state)
    machine, x, t = _fresh(make)
    state = State()
    machine.remember(x, state)
    with passes.replaying(machine, None, x.f.device):  # another pass in between, less what it may move
        machine.remember(x.map(lambda v: v.flip(0)), State())
    told = machine.tell(t, state)
    _claim(_equal(asked, _gradients(machine)), "another pass in between changed what this pass accumulates")
    again = machine.step_x(told.x, told.t, state)
    _claim(_equal(list(alone), list(again)), "another pass in between changed this pass's target")


def _caller_keeps(make: Make) -> None:
    machine, x, t = _fresh(make)
    copies = [(v, v.clone(), v._version, v.requires_grad) for v in (*x, *t)]
    machine.learn(x, t)
    state, x_of, t_of = _pass(machine, x, t)
    machine.step_x(x_of, t_of, state)
    machine.test(x, t)
    sum(v.square().mean() for v in as_io(machine(*x))).backward()  # type: ignore[union-attr]
    for v, value, version, asked in copies:
        _claim(_equal(v, value) and v._version == version, "a tensor of the caller was written to")
        kept = v.requires_grad == asked and (asked or v.grad is None)  # one that asked before may have its gradient
        _claim(kept, "a tensor of the caller was made to ask for a gradient")


def _iterations(make: Make) -> None:
    if "n" not in inspect.signature(make).parameters:
        return
    results = []
    for n in (1, 2):
        machine, x, t = _fresh(make, n=n)
        state, x_of, t_of = _pass(machine, x, t)
        target = machine.step_x(x_of, t_of, state)
        machine.step(x_of, t_of, state)
        results.append((list(target), _parameters(machine)))
    _claim(not _equal(results[0], results[1]), "n = 1 and n = 2 gave the same target and the same parameters")


def _learns(make: Make) -> None:
    machine, x, t = _fresh(make)
    costs = torch.stack([machine.learn(x, t) for _ in range(20)])
    _claim(bool(costs.isfinite().all()), f"a cost was not finite: {costs.tolist()}")
    fall = costs[0] - costs[-5:].mean()
    _claim(bool(fall > 1e-6 * costs[0].abs()), f"the mean cost went from {costs[0]:.6g} to {costs[-5:].mean():.6g}")


def _same_seed(make: Make) -> None:
    runs = []
    for _ in range(2):
        machine, x, t = _fresh(make)
        for _ in range(3):
            machine.learn(x, t)
        runs.append(_tensors(machine))
    _claim(not _moved(*runs), f"two runs from one seed differ in {_moved(*runs)}")


def _resumes(make: Make) -> None:
    machine, x, t = _fresh(make)
    for _ in range(3):
        machine.learn(x, t)
    saved, copied = copy.deepcopy(machine.state_dict()), copy.deepcopy(machine)
    torch.manual_seed(_SEED + 1)
    other = make()[0].train()
    other.load_state_dict(saved)
    ends = []
    for each in (machine, other, copied):
        torch.manual_seed(_SEED + 2)
        costs = [each.learn(x, t) for _ in range(3)]
        ends.append((costs, each.state_dict()))
    remedy = "give what step remembers, an optimiser's moments say, to get_extra_state and set_extra_state"
    _claim(_equal(ends[0], ends[1]), f"the run that a state_dict resumed differs from the unbroken one: {remedy}")
    _claim(_equal(ends[0], ends[2]), "a deepcopy's run differs from its original's")


def _temporaries(make: Make) -> None:
    machine, x, _ = _fresh(make)
    machine.eval()
    unused = copy.deepcopy(machine)
    first = x.map(lambda v: v[:1])
    with torch.no_grad():
        for i in range(1000):
            made = first.map(lambda v, i=i: v + i * 1e-3 if v.is_floating_point() else v)  # type: ignore[misc]
            state = State()
            y = machine.remember(made, state)
            if i % 50 == 0 or i == 999:
                plain = as_io(copy.deepcopy(unused)(*made))
                _claim(_equal([v.detach() for v in y], list(plain)), f"input {i} of 1,000 got another input's output")
            _claim(_equal(list(state.inputs.detach()), list(made)), f"input {i} of 1,000 was taken for another")


def _one_cost_per_row(make: Make) -> None:
    machine, x, t = _fresh(make)
    y = machine.remember(x, State()).detach()
    try:
        per_row(machine.assess_y(y, t), y, "assess_y")
    except ValueError as error:
        raise ClaimError(str(error)) from error


class _Interrupted(BaseException):
    """What the suite raises in the middle of a `learn`."""


def _no_trace(make: Make) -> None:
    machine, x, t = _fresh(make)
    machine.learn(x, t)
    before = _kept_by_rules(machine)

    def interrupt(call: Call) -> None:
        raise _Interrupted

    handle = machine.register_hook("step", interrupt, "before")
    try:
        machine.learn(x.map(lambda v: v.flip(0)), t)
    except _Interrupted:
        handle.remove()
    grown = [name for name, p in machine.named_parameters() if p.grad is not None]
    _claim(not grown, f"gradients of the pass survive in {grown}")
    _claim(_equal(before, _kept_by_rules(machine)), "a rule's state_dict keeps something of the pass")
    ends = []
    for each in (copy.deepcopy(machine), machine):  # a copy takes no pass in flight along
        torch.manual_seed(_SEED)
        ends.append((each.learn(x, t), _tensors(each)))
    _claim(_equal(*ends), "the next learn is not what it is without the pass")


def _kept_by_rules(machine: LearningMachine) -> dict[str, Any]:
    return {k: copy.deepcopy(v) for k, v in machine.state_dict().items() if k.endswith("_extra_state")}


def _stale(make: Make) -> None:
    machine, x, t = _fresh(make)
    if not isinstance(machine, Machine):
        return
    state = State()
    machine.remember(x, state)
    machine.learn(x, t)
    try:
        machine.accumulate(state.inputs, t, state)
    except RuntimeError:
        return
    raise ClaimError("accumulate took a pass that is older than the last step")


CLAIMS: dict[str, Callable[[Make], None]] = {
    "a cost is one per row": _one_cost_per_row,
    "parameters move only in step": _moves_only_in_step,
    "backward moves no parameter": _backward_moves_nothing,
    "step_x moves nothing but its noise count": _step_x_moves_nothing,
    "state never leaks between passes": _no_leak,
    "accumulate adds to what is there": _accumulates,
    "no caller's tensor changes": _caller_keeps,
    "n iterations differ from one": _iterations,
    "learning lowers the mean cost": _learns,
    "the same seed gives the same run": _same_seed,
    "a state_dict continues bit for bit": _resumes,
    "short-lived inputs never collide": _temporaries,
    "an exception in learn leaves no trace": _no_trace,
    "a pass older than the last step is refused": _stale,
}
"""Claim -> its check."""
