"""The published suite passes on our machines, and each of its claims catches a machine that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.testing import CLAIMS, ClaimError, check_machine

NOT_LEARNING = {"learning lowers the mean cost"}


def batch(o: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(12, 4), torch.randn(12, o)


def normed(n: int = 1) -> tuple[Machine, Tensor, Tensor]:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.2), nn.Tanh())
    return Machine(module, zk.theta.Gradient(torch.optim.Adam, lr=0.01, n=n), zk.targets.Gradient(n)), *batch()


def chain(order: zk.chain.Order = "accumulate step_x step", n: int = 1) -> tuple[Chain, Tensor, Tensor]:
    hidden = Machine(nn.Linear(4, 5), zk.theta.Gradient(torch.optim.SGD, lr=0.05, n=n), zk.targets.Gradient(n))
    rule = zk.theta.Gradient(torch.optim.SGD, lr=0.05)
    head = Machine(nn.Linear(5, 3), rule, zk.targets.Gradient(), zk.cross_entropy)
    net = Chain(hidden, head, order=order, lmode="accumulate")
    if order == "accumulate step step_x":
        net.lmode = "step_x"
    return net, torch.randn(12, 4), torch.randint(3, (12,))


def delta() -> tuple[Machine, Tensor, Tensor]:
    module = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid())
    return Machine(module, zk.theta.Delta(torch.optim.SGD, lr=0.5), zk.targets.Null()), *batch()


def trees() -> tuple[Machine, Tensor, Tensor]:
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=3), rows=24)
    return Machine(zk.modules.Trees(4, 3), rule, zk.targets.Null()), *batch()


def searched() -> tuple[Machine, Tensor, Tensor]:
    search = tansaku.HillClimb(k=8, std=0.1)
    return Machine(nn.Linear(4, 3), zk.theta.Search(search), zk.targets.SearchX(search)), *batch()


def searched_outputs() -> tuple[Machine, Tensor, Tensor]:
    rule = zk.theta.Delta(torch.optim.SGD, lr=0.1)
    own = zk.targets.SearchY(tansaku.HillClimb(k=8, std=0.1), score="local")
    return Machine(nn.Linear(4, 3), rule, zk.targets.Null(), y=own), *batch()


def nothing() -> tuple[Machine, Tensor, Tensor]:
    return Machine(nn.ReLU(), zk.theta.Null(), zk.targets.Null()), *batch(4)


@pytest.mark.parametrize("make", [normed, chain, delta, trees, searched, searched_outputs])
def test_our_machines_conform(make: Callable) -> None:
    check_machine(make)


def test_a_chain_of_the_second_order_conforms() -> None:
    check_machine(lambda n=1: chain("accumulate step step_x", n))


def test_a_machine_that_does_not_learn_conforms_otherwise() -> None:
    check_machine(nothing, skip=NOT_LEARNING)
    with pytest.raises(ClaimError, match="learning lowers the mean cost: the mean cost went from"):
        check_machine(nothing)
    with pytest.raises(ValueError, match="names of claims to skip, got 'learns'"):
        check_machine(nothing, skip={"learns"})


def test_the_suite_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    check_machine(nothing, skip=NOT_LEARNING)
    assert torch.equal(before, torch.get_rng_state())


# --------------------------------------------------------------------------- machines that break one claim each


class Sound(Machine):
    """A linear machine under the gradient rule, to be broken."""

    def __init__(self, n: int = 1) -> None:
        rule = zk.theta.Gradient(torch.optim.SGD, lr=0.1, n=n)
        super().__init__(nn.Linear(4, 3), rule, zk.targets.Gradient(n))


class MovesInAccumulate(Sound):
    def accumulate(self, x: IO, t: IO, state: State) -> None:
        super().accumulate(x, t, state)
        self.module.weight.data += 1


class MovesInForward(Sound):
    def forward_nn(self, x: IO, state: State) -> IO:
        self.module.weight.data += 1
        return super().forward_nn(x, state)


class StepsInBackward(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.lmode = "accumulate step_x step"


class MovesInStepX(Sound):
    def step_x(self, x: IO, t: IO, state: State) -> IO:
        self.module.bias.data += 1
        return super().step_x(x, t, state)


class RemembersTheLastPass(Sound):
    def forward_nn(self, x: IO, state: State) -> IO:
        y = super().forward_nn(x, state)
        self.last = state
        return y

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return IO(self.last.inputs.f.detach() * 2)


class LearnsFromTheLastPass(Sound):
    def forward_nn(self, x: IO, state: State) -> IO:
        self.last = state
        return super().forward_nn(x, state)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.module.bias.grad = (self.last.outputs.f - t.f).detach().sum(0)


class BeginsAnew(Sound):
    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.module.weight.grad = None
        super().accumulate(x, t, state)


class AsksForNothingFinite(Sound):
    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return IO(super().step_x(x, t, state).f / 0)


class WritesIntoTheTarget(Sound):
    def assess_y(self, y: IO, t: IO) -> Tensor:
        cost = super().assess_y(y, t)
        t.f.mul_(0.5)
        return cost


class Climbs(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.theta.optimizer.param_groups[0]["lr"] = -0.1


class DrawsFromNowhere(Sound):
    drawn = 0

    def step(self, x: IO, t: IO, state: State) -> None:
        super().step(x, t, state)
        DrawsFromNowhere.drawn += 1
        self.module.weight.data += DrawsFromNowhere.drawn * 1e-4


class ForgetsItsMoments(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.velocity = 0.0

    def step(self, x: IO, t: IO, state: State) -> None:
        super().step(x, t, state)
        self.velocity += 1e-4
        self.module.weight.data += self.velocity


class KeyedByShape(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[object, IO] = {}

    def forward_nn(self, x: IO, state: State) -> IO:
        y = super().forward_nn(x, state)
        return y if self.training else self.memory.setdefault((x.f.shape, state.remember), y)


class KeyedById(Sound):
    """An id is free again for the next input."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[int, IO] = {}

    def forward_nn(self, x: IO, state: State) -> IO:
        return self.memory.setdefault(id(x.f), super().forward_nn(x, state))


class KeepsItsOutput(Sound):
    def forward_nn(self, x: IO, state: State) -> IO:
        self.last = super().forward_nn(x, state)
        return self.last


class Noisy(Sound):
    """Noise in every pass, in evaluation too."""

    def noise(self, y: Tensor) -> Tensor:
        return torch.randn(y.shape)

    def forward_nn(self, x: IO, state: State) -> IO:
        state.y = super().forward_nn(x, state)
        state.y = IO(state.y.f + 0.01 * self.noise(state.y.f))
        return state.y


class NoisyByKey(Noisy):
    def __init__(self) -> None:
        super().__init__()
        self.key = zk.NoiseKey(3)

    def noise(self, y: Tensor) -> Tensor:
        return torch.randn(y.shape, generator=self.key.next())


class NoisyByItself(Noisy):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def noise(self, y: Tensor) -> Tensor:
        return torch.randn(y.shape, generator=self.generator)


class HalfTrained(zk.LearningMachine):
    """Two outputs, of which the first alone learns."""

    trained = 1

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(*(m(x.f) for m in self.each))

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        cost = zk.sse(state.outputs[: self.trained], t[: self.trained]).mean()
        cost.backward(inputs=[*self.each[: self.trained].parameters()])

    def step(self, x: IO, t: IO, state: State) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


class Trained(HalfTrained):
    trained = 2


class AsksForOneColumn(Sound):
    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return IO(super().step_x(x, t, state).f[:, :1])


class DividesByZero(Sound):
    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return IO(x.f / (1 // 0))


class TakesOldPasses(Sound):
    def accumulate(self, x: IO, t: IO, state: State) -> None:
        if state.version == self.version:
            super().accumulate(x, t, state)


class LearnsInStepX(Sound):
    def step_x(self, x: IO, t: IO, state: State) -> IO:
        (self.module.weight.sum() * 0.01).backward()
        return super().step_x(x, t, state)


class RunsHooksByItself(Sound):
    def step_x(self, x: IO, t: IO, state: State) -> IO:
        torch.autograd.grad(self.module.weight.sum(), self.module.weight)
        return super().step_x(x, t, state)


class LearnsTheFactor(Sound):
    @property
    def loss_scale(self) -> None:  # type: ignore[override]
        return None

    @loss_scale.setter
    def loss_scale(self, scale: object) -> None:
        pass

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        before, weight = self.module.weight.grad, self.module.weight
        weight.grad = None
        super().accumulate(x, t, state)
        weight.grad = weight.grad.sign() if before is None else before + weight.grad.sign()


class OnceIsEnough(Sound):
    def __init__(self, n: int = 1) -> None:
        super().__init__(1)


class MeansItsCost(Sound):
    def assess_y(self, y: IO, t: IO) -> Tensor:
        return super().assess_y(y, t).mean()


class KeepsWhatFailed(Sound):
    def forget(self) -> None:
        pass


class KeepsThePassThatFailed(Sound):
    """Its gradients go; the passes that its rule would replay stay."""

    def __init__(self) -> None:
        super().__init__(2)
        self.theta.forget = lambda: None


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (MeansItsCost, "a cost is one per row: assess_y expected one cost per row"),
        (KeepsWhatFailed, "an exception in learn leaves no trace: gradients of the pass survive"),
        (KeepsThePassThatFailed, "an exception in learn leaves no trace: the next learn is not what it is"),
        (MovesInAccumulate, "parameters move only in step: accumulate moved"),
        (MovesInForward, "parameters move only in step: forward_nn moved"),
        (StepsInBackward, "backward moves no parameter"),
        (MovesInStepX, "step_x moves nothing but its noise count"),
        (RemembersTheLastPass, "state never leaks between passes"),
        (LearnsFromTheLastPass, "state never leaks between passes: another pass in between changed what"),
        (BeginsAnew, "accumulate adds to what is there: the second pass took the place of the first"),
        (AsksForNothingFinite, "step_x moves nothing but its noise count: step_x gave a target that is not finite"),
        (WritesIntoTheTarget, "no caller's tensor changes"),
        (OnceIsEnough, "n iterations differ from one"),
        (Climbs, "learning lowers the mean cost"),
        (DrawsFromNowhere, "the same seed gives the same run"),
        (ForgetsItsMoments, "a state_dict continues bit for bit"),
        (KeyedByShape, "short-lived inputs never collide"),
        (KeyedById, "short-lived inputs never collide: input .* of 1,000 got another input's output"),
        (NoisyByItself, "short-lived inputs never collide: two passes of one input differ under one seed: draw noise"),
        (KeepsItsOutput, r"a state_dict continues bit for bit: KeepsItsOutput cannot be copied \(RuntimeError\): keep"),
        (HalfTrained, r"every output's target counts: another target of output \[1\] of 2 changes neither"),
        (
            AsksForOneColumn,
            "step_x moves nothing but its noise count: .*ValueError: AsksForOneColumn.step_x expected a",
        ),
        (DividesByZero, "step_x moves nothing but its noise count: its check was broken off by ZeroDivisionError: int"),
        (TakesOldPasses, "a pass older than the last step is refused"),
        (LearnsInStepX, "the gradient of the input alone lets nothing learn: torch.autograd.grad"),
        (
            RunsHooksByItself,
            "backward runs the hooks of parameters once: backward\\(\\) ran the hooks of module.weight",
        ),
        (LearnsTheFactor, "a factor on the loss scales gradients alone: a factor on the loss, given as grad_scale"),
    ],
)
def test_a_machine_that_breaks_a_claim_is_told_which(broken: type[Sound], claim: str) -> None:
    make = (lambda n=1: (broken(n), *batch())) if broken is OnceIsEnough else (lambda: (broken(), *batch()))
    with pytest.raises(ClaimError, match=claim) as caught:
        check_machine(make if broken is not HalfTrained else lambda: (broken(), *two()))
    assert caught.value.__cause__ is not None


# ------------------------------------------------------------------------------- honest machines that look like those


def two() -> tuple[Tensor, IO]:
    return torch.randn(12, 4), IO(torch.randn(12, 3), torch.randn(12, 3))


def heads(*names: str) -> zk.Graph:
    """An output for each kind of machine, all of the same inputs."""
    search = tansaku.HillClimb(k=8, std=0.1)
    kinds: dict[str, Callable[[], Machine]] = {
        "gradient": lambda: Sound(),
        "trees": lambda: trees()[0],
        "theta search": lambda: Machine(nn.Linear(4, 3), zk.theta.Search(search), zk.targets.Null()),
        "x search": lambda: Machine(nn.Linear(4, 3), zk.theta.Null(), zk.targets.SearchX(search)),
        "nothing": lambda: Machine(nn.Linear(4, 3), zk.theta.Null(), zk.targets.Null()),
    }
    nodes = {name.replace(" ", "_"): zk.Node(kinds[name](), "x") for name in names}
    return zk.Graph(nodes, outputs=tuple(nodes))


@pytest.mark.parametrize(
    "names", [("gradient", "trees"), ("trees", "theta search"), ("theta search", "x search"), ("nothing", "x search")]
)
def test_two_outputs_that_both_learn_count_by_any_rule(names: tuple[str, ...]) -> None:
    claim = CLAIMS["every output's target counts"]
    if "nothing" in names:
        with pytest.raises(ClaimError, match=r"output \[0\] of 2"):
            claim(lambda: (heads(*names), *two()))
        claim(lambda: (heads("nothing"), *batch()))
    else:
        claim(lambda: (heads(*names), *two()))


def test_a_users_machine_of_two_outputs_conforms_once_both_learn() -> None:
    check_machine(lambda: (Trained(), *two()))


def test_targets_that_cannot_be_told_apart_are_not_held_against_an_output() -> None:
    claim = CLAIMS["every output's target counts"]
    x, ones = torch.randn(12, 4), torch.ones(12, 3)
    claim(lambda: (Trained(), x, IO(ones, ones.long())))
    claim(lambda: (Trained(), x, IO(ones, ones)))
    with pytest.raises(ClaimError, match=r"output \[1\]"):
        claim(lambda: (HalfTrained(), x, IO(ones, ones)))


@pytest.mark.parametrize("noisy", [Noisy, NoisyByKey])
def test_noise_that_can_be_drawn_again_is_not_taken_for_a_collision(noisy: type[Noisy]) -> None:
    CLAIMS["short-lived inputs never collide"](lambda: (noisy(), *batch()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Sound, r"expected make\(\) -> \(machine, x, t\), got Sound: give a batch and its targets with the machine"),
        (lambda: (Sound(), torch.randn(12, 4)), r"expected make\(\) -> \(machine, x, t\), got 2 values: give a batch"),
        (
            lambda: (nn.Linear(4, 3), *batch()),
            r"expected a LearningMachine from make\(\), got Linear: make a Machine\(",
        ),
        (lambda: (Sound(), "x", 3), r"x of make\(\) expected a tensor \[n, ...\] or an IO, got str"),
        (lambda: (Sound(), torch.randn(12, 4), 3), r"t of make\(\) expected a tensor \[n, ...\] or an IO, got int"),
        (3, r"expected a function make\(\) -> \(machine, x, t\), got int: every claim needs a fresh machine"),
    ],
)
def test_what_makes_no_machine_with_a_batch_is_refused_before_any_claim(make: Callable, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_machine(make)


def test_a_machine_in_place_of_what_makes_it_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"expected a function make\(\) .*, got Sound: every claim needs a fresh machine"
    ):
        check_machine(Sound())  # type: ignore[arg-type]


def test_every_claim_has_a_machine_that_breaks_it() -> None:
    marks = test_a_machine_that_breaks_a_claim_is_told_which.pytestmark  # type: ignore[attr-defined]
    told = [claim for mark in marks for _, claim in mark.args[1]]
    assert [name for name in CLAIMS if not any(claim.startswith(name) for claim in told)] == []


def test_an_input_that_already_asks_for_a_gradient_conforms() -> None:
    check_machine(lambda: (Sound(), torch.randn(12, 4, requires_grad=True), torch.randn(12, 3)))


class MakesTheInputAsk(Sound):
    def remember(self, x: IO, state: State) -> IO:
        x.f.requires_grad_()
        return super().remember(x, state)


def test_an_input_that_is_made_to_ask_for_a_gradient_is_told() -> None:
    with pytest.raises(ClaimError, match="was made to ask for a gradient"):
        check_machine(lambda: (MakesTheInputAsk(), *batch()))


def test_a_run_that_does_not_resume_is_told_of_the_extra_state() -> None:
    with pytest.raises(ClaimError, match="to get_extra_state and set_extra_state"):
        check_machine(lambda: (ForgetsItsMoments(), *batch()))


def test_the_suite_says_what_is_public() -> None:
    assert zk.testing.__all__ == ["CLAIMS", "ClaimError", "check_machine"]
