from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.hooks import Call

EVENTS = ("forward", "step_y", "accumulate", "step_x", "step", "learn", "test")


def machine() -> Machine:
    return Machine(nn.Linear(2, 2), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient())


def listen(m: zk.LearningMachine) -> list[str]:
    heard: list[str] = []
    for event in EVENTS:
        for when in ("before", "after"):
            m.register_hook(event, lambda call, when=when: heard.append(f"{when} {call.event}"), when)  # type: ignore[misc]
    return heard


def around(*events: str) -> list[str]:
    return [f"{when} {event}" for event in events for when in ("before", "after")]


def test_learn_fires_before_and_after_each_of_its_calls() -> None:
    m = machine()
    heard = listen(m)
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == ["before learn", *around("forward", "step_y", "accumulate", "step"), "after learn"]


def test_test_fires_and_no_learning_does() -> None:
    m = machine()
    heard = listen(m)
    m.test(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == ["before test", *around("forward"), "after test"]


def test_machines_of_a_chain_fire_from_the_last_to_the_first_and_the_first_gives_no_target() -> None:
    chain = Chain(machine(), machine())
    first, last = (listen(m) for m in chain.machines)
    chain.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert first == around("forward", "step_y", "accumulate", "step")
    assert last == around("forward", "step_y", "accumulate", "step_x", "step")


def test_a_backward_pass_fires_too() -> None:
    m = machine()
    heard = listen(m)
    m(torch.ones(3, 2, requires_grad=True)).sum().backward()
    assert heard == around("forward", "step_y", "accumulate", "step_x")


def test_a_hook_is_told_arguments_and_result() -> None:
    m, calls, x = machine(), [], IO(torch.ones(3, 2))
    m.register_hook("step_x", calls.append)
    state = State()
    m.forward_nn(x, state)
    t_x = m.step_x(x, t=x, state=state)
    (call,) = calls
    assert isinstance(call, Call)
    assert (call.machine, call.event, call.x, call.t, call.state, call.result) == (m, "step_x", x, x, state, t_x)


def test_an_io_returned_after_step_x_replaces_the_target() -> None:
    m, x = machine(), IO(torch.ones(3, 2))
    m.register_hook("step_x", lambda call: IO(call.result.f * 0))
    m.register_hook("accumulate", lambda call: IO())  # ignored
    state = State()
    m.forward_nn(x, state)
    m.accumulate(x, x, state)
    assert m.step_x(x, x, state).f.tolist() == [[0, 0]] * 3


def test_a_call_through_super_fires_once() -> None:
    class Mine(Machine):
        def accumulate(self, x: IO, t: IO, state: State) -> None:
            super().accumulate(x, t, state)

    m = Mine(nn.Linear(2, 2), zk.theta.Null(), zk.targets.Null())
    heard = listen(m)
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard.count("before accumulate") == 1


def test_a_removed_hook_hears_nothing_and_a_copy_starts_without_hooks() -> None:
    m, heard = machine(), []
    handle = m.register_hook("learn", lambda call: heard.append(1))
    other = copy.deepcopy(m)
    handle.remove()
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == []
    other.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == []
    other.register_hook("learn", lambda call: heard.append(2))
    other.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == [2]


def test_an_error_leaves_the_hooks_working() -> None:
    m, heard = machine(), []
    m.register_hook("learn", lambda call: heard.append(1))
    with pytest.raises(RuntimeError):
        m.learn(torch.ones(3, 5), torch.ones(3, 2))
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == [1]


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(ValueError, match="a hook expected an event of forward"):
        machine().register_hook("steps", print)  # type: ignore[arg-type]


def test_a_machine_copied_while_it_runs_does_not_think_that_it_runs() -> None:
    m, copies, heard = machine(), [], []
    m.register_hook("forward", lambda call: copies.append(copy.deepcopy(call.machine)))
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    copies[0].register_hook("learn", lambda call: heard.append(1))
    copies[0].learn(torch.ones(3, 2), torch.ones(3, 2))
    assert heard == [1]
