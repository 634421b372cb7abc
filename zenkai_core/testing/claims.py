"""The claims of `check_machine`, each with its check, in the order in which they are put to a machine."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zenkai_core import passes
from zenkai_core.criteria import per_row
from zenkai_core.hooks import Call
from zenkai_core.learning import LearningMachine
from zenkai_core.machine import Machine
from zenkai_core.noise import NoiseKey
from zenkai_core.state import NeedsLabels, State
from zenkai_core.testing.autograd_claims import AUTOGRAD_CLAIMS
from zenkai_core.testing.subject import (
    SEED,
    ClaimError,
    Make,
    a_pass,
    claim,
    copy_of,
    differing,
    equal,
    fresh,
    gradients_of,
    parameters,
    tensors,
)
from zenkai_core.values import IO, as_io


def _moves_only_in_step(make: Make) -> None:
    machine, x, t = fresh(make)
    before = parameters(machine)
    state = State()
    machine.remember(x, state)
    claim(not differing(before, parameters(machine)), f"forward_nn moved {differing(before, parameters(machine))}")
    passed = tensors(machine)
    told = machine.tell(t, state)
    claim(not differing(before, parameters(machine)), f"accumulate moved {differing(before, parameters(machine))}")
    moved = [name for name in differing(passed, tensors(machine)) if not name.endswith(".key")]
    claim(not moved, f"accumulate moved the buffers {moved}")
    machine.step(*told)
    grown = [name for name, p in machine.named_parameters() if p.grad is not None]
    claim(not grown, f"a gradient survives the step in {grown}")


def _backward_moves_nothing(make: Make) -> None:
    machine, x, _ = fresh(make)
    before = parameters(machine)
    _backward(machine, x)
    moved = differing(before, parameters(machine))
    claim(not moved, f"backward() moved {moved}; only step may")


def _backward(machine: LearningMachine, x: IO) -> None:
    """An ordinary backward pass; a machine that needs labels may refuse it by `State.labels`."""
    with contextlib.suppress(NeedsLabels):
        sum(v.square().mean() for v in as_io(machine(*x))).backward()  # type: ignore[union-attr]


def _step_x_moves_nothing(make: Make) -> None:
    machine, x, t = fresh(make)
    state, x_of, t_of = a_pass(machine, x, t)
    before = tensors(machine)
    target = machine.step_x(x_of, t_of, state)
    moved = [name for name in differing(before, tensors(machine)) if not name.endswith(".key")]
    claim(not moved, f"step_x moved {moved}; only a noise count may change")
    claim(not any(v.requires_grad for v in target), "step_x gave a target with a graph; detach it")
    claim(all(bool(v.isfinite().all()) for v in target), "step_x gave a target that is not finite")


def _accumulates(make: Make) -> None:
    gradients = []
    for both in (False, True):
        machine, x, t = fresh(make)
        with passes.replaying(machine, None, x.f.device):  # the noise of the second pass is that of the first
            if both:
                a_pass(machine, x, t)
        later = x.map(lambda v: v.flip(0)), t.map(lambda v: v.flip(0))
        a_pass(machine, *later)
        gradients.append(gradients_of(machine))
    other, _, _ = fresh(make)
    a_pass(other, x, t)
    first = gradients_of(other)
    lost = [name for name, g in gradients[1].items() if first[name].any() and equal(g, gradients[0][name])]
    claim(not lost, f"the second pass took the place of the first in the gradients of {lost}; accumulate adds")


def _no_leak(make: Make) -> None:
    machine, x, t = fresh(make)
    state, x_of, t_of = a_pass(machine, x, t)
    asked = gradients_of(machine)
    alone = machine.step_x(x_of, t_of, state)
    machine, x, t = fresh(make)
    state = State()
    machine.remember(x, state)
    with passes.replaying(machine, None, x.f.device):  # another pass in between, less what it may move
        machine.remember(x.map(lambda v: v.flip(0)), State())
    told = machine.tell(t, state)
    claim(equal(asked, gradients_of(machine)), "another pass in between changed what this pass accumulates")
    again = machine.step_x(told.x, told.t, state)
    claim(equal(list(alone), list(again)), "another pass in between changed this pass's target")


def _caller_keeps(make: Make) -> None:
    machine, x, t = fresh(make)
    copies = [(v, v.clone(), v._version, v.requires_grad) for v in (*x, *t)]
    machine.learn(x, t)
    state, x_of, t_of = a_pass(machine, x, t)
    machine.step_x(x_of, t_of, state)
    machine.test(x, t)
    _backward(machine, x)
    for v, value, version, asked in copies:
        claim(equal(v, value) and v._version == version, "a tensor of the caller was written to")
        kept = v.requires_grad == asked and (asked or v.grad is None)  # one that asked before may have its gradient
        claim(kept, "a tensor of the caller was made to ask for a gradient")


def _iterations(make: Make) -> None:
    if "n" not in inspect.signature(make).parameters:
        return
    results = []
    for n in (1, 2):
        machine, x, t = fresh(make, n=n)
        state, x_of, t_of = a_pass(machine, x, t)
        target = machine.step_x(x_of, t_of, state)
        machine.step(x_of, t_of, state)
        results.append((list(target), parameters(machine)))
    claim(not equal(results[0], results[1]), "n = 1 and n = 2 gave the same target and the same parameters")


def _learns(make: Make) -> None:
    machine, x, t = fresh(make)
    costs = torch.stack([machine.learn(x, t) for _ in range(20)])
    claim(bool(costs.isfinite().all()), f"a cost was not finite: {costs.tolist()}")
    fall = costs[0] - costs[-5:].mean()
    claim(bool(fall > 1e-6 * costs[0].abs()), f"the mean cost went from {costs[0]:.6g} to {costs[-5:].mean():.6g}")


def _same_seed(make: Make) -> None:
    runs = []
    for _ in range(2):
        machine, x, t = fresh(make)
        for _ in range(3):
            machine.learn(x, t)
        runs.append(tensors(machine))
    claim(not differing(*runs), f"two runs from one seed differ in {differing(*runs)}")


def _resumes(make: Make) -> None:
    machine, x, t = fresh(make)
    for _ in range(3):
        machine.learn(x, t)
    saved, copied = copy.deepcopy(machine.state_dict()), copy_of(machine)
    torch.manual_seed(SEED + 1)
    other = make()[0].train()
    other.load_state_dict(saved)
    ends = []
    for each in (machine, other, copied):
        torch.manual_seed(SEED + 2)
        costs = [each.learn(x, t) for _ in range(3)]
        ends.append((costs, each.state_dict()))
    remedy = "give what step remembers, an optimiser's moments say, to get_extra_state and set_extra_state"
    claim(equal(ends[0], ends[1]), f"the run that a state_dict resumed differs from the unbroken one: {remedy}")
    claim(equal(ends[0], ends[2]), "a deepcopy's run differs from its original's")


def _temporaries(make: Make) -> None:
    machine, x, _ = fresh(make)
    machine.eval()
    unused, first = copy_of(machine), x.map(lambda v: v[:1])
    noise = _Noise(unused, x)

    def short_lived(i: int) -> IO:
        return first.map(lambda v: v + i * 1e-3 if v.is_floating_point() else v)

    with torch.no_grad():
        alone = {i: noise.passed(copy_of(unused), short_lived(i), State()) for i in (*range(0, 1000, 50), 999)}
        for i in range(1000):
            made = short_lived(i)
            state = State()
            y = noise.passed(machine, made, state)
            if i in alone and not equal(y, alone[i]):
                claim(
                    equal(*(noise.passed(unused, made, State()) for _ in range(2))),
                    "two passes of one input differ under one seed: draw noise from torch's global generator or from a "
                    "NoiseKey, so that a run can be repeated",
                )
                raise ClaimError(f"input {i} of 1,000 got another input's output")
            claim(equal(list(state.inputs.detach()), list(made)), f"input {i} of 1,000 was taken for another")
            del made, state, y  # so that the next input may lie where this one lay


class _Noise:
    """What a machine draws in one pass, to be drawn again in others: from torch's generators, and from its keys."""

    def __init__(self, machine: LearningMachine, x: IO) -> None:
        self._device = x.f.device if x else torch.device("cpu")
        self._random = passes.RandomState.now(self._device)
        self._keys = [key.key.clone() for key in _keys(machine)]

    def passed(self, machine: LearningMachine, x: IO, state: State) -> list[Tensor]:
        """The outputs of a pass."""
        for own, begun in zip(_keys(machine), self._keys, strict=True):
            own.key.copy_(begun)
        with passes.drawing_from(self._random, self._device):
            return list(machine.remember(x, state).detach())


def _keys(machine: LearningMachine) -> list[NoiseKey]:
    return [m for m in machine.modules() if isinstance(m, NoiseKey)]


def _every_target_counts(make: Make) -> None:
    machine, x, t = fresh(make)
    if len(t) < 2 or len(t) != len(machine.remember(x, State())):
        return
    plain, silent = _learned(make, t), []
    others = [_other(v) for v in t]
    told = [i for i, other in enumerate(others) if not equal(t[i], other)]
    for i in told:
        silent += [i] * equal(plain, _learned(make, IO(*t[:i], others[i], *t[i + 1 :])))
    claim(
        len(silent) in (0, len(told)),  # a machine that learns from none of them may mean not to
        f"another target of output {silent} of {len(t)} changes neither what is learned nor what step_x asks",
    )


def _other(t: Tensor) -> Tensor:
    """Another target of the same kind, so that a criterion takes it: the first row's for all, or else one more."""
    same = t[:1].expand_as(t).clone()
    return t + 1 if equal(same, t) and t.is_floating_point() else same


def _learned(make: Make, t: IO) -> Any:
    machine, x, _ = fresh(make)
    for _ in range(3):
        machine.learn(x, t)
    state, x_of, t_of = a_pass(machine, x, t)
    return list(machine.step_x(x_of, t_of, state)), machine.state_dict()


def _one_cost_per_row(make: Make) -> None:
    machine, x, t = fresh(make)
    y = machine.remember(x, State()).detach()
    try:
        per_row(machine.assess_y(y, t), y, "assess_y")
    except ValueError as error:
        raise ClaimError(str(error)) from error


class _Interrupted(BaseException):
    """What the suite raises in the middle of a `learn`."""


def _no_trace(make: Make) -> None:
    machine, x, t = fresh(make)
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
    claim(not grown, f"gradients of the pass survive in {grown}")
    claim(equal(before, _kept_by_rules(machine)), "a rule's state_dict keeps something of the pass")
    ends = []
    for each in (copy_of(machine), machine):  # a copy takes no pass in flight along
        torch.manual_seed(SEED)
        ends.append((each.learn(x, t), tensors(each)))
    claim(equal(*ends), "the next learn is not what it is without the pass")


def _kept_by_rules(machine: LearningMachine) -> dict[str, Any]:
    return {k: copy.deepcopy(v) for k, v in machine.state_dict().items() if k.endswith("_extra_state")}


def _stale(make: Make) -> None:
    machine, x, t = fresh(make)
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
    "short-lived inputs never collide": _temporaries,
    "backward moves no parameter": _backward_moves_nothing,
    "step_x moves nothing but its noise count": _step_x_moves_nothing,
    "state never leaks between passes": _no_leak,
    "accumulate adds to what is there": _accumulates,
    "no caller's tensor changes": _caller_keeps,
    "n iterations differ from one": _iterations,
    "every output's target counts": _every_target_counts,
    "learning lowers the mean cost": _learns,
    "the same seed gives the same run": _same_seed,
    "a state_dict continues bit for bit": _resumes,
    "an exception in learn leaves no trace": _no_trace,
    "a pass older than the last step is refused": _stale,
    **AUTOGRAD_CLAIMS,
}
"""Claim -> its check; what the first ones find would be met by the later ones too, less plainly."""
