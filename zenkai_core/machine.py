"""`Machine`: a module composed with a rule for its parameters and a rule for its incoming target.

The slots are `StepTheta` (parameters), `StepX` (target for the incoming layer) and, optional, `StepY` (this layer's
own target, which replaces t before `accumulate`). A rule constrains the module, never another rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core import passes
from zenkai_core.capabilities import check, check_kind, qualified
from zenkai_core.context import Context
from zenkai_core.criteria import (
    Criterion,
    at_inputs,
    averaged,
    checked,
    is_distance,
    output_gradient,
    per_row,
    sse,
)
from zenkai_core.describe import module_text, value_text
from zenkai_core.learning import LearningMachine, LMode, Loss
from zenkai_core.loss_scale import divided
from zenkai_core.state import State
from zenkai_core.values import IO, Probabilities


class Rule(nn.Module):
    """What the three kinds of rules share: requirements, and being bound to one machine.

    A rule keeps its own memory (optimiser, noise key, pending rows), never the module.

    Attributes:
        requires: names out of {"differentiable", "parameters", "linear", "estimator", "invertible"}.
        uses_graph: whether the rule differentiates the pass; where no rule does, the pass keeps no graph.
        slot: "theta", "x" or "y", what its notes begin with.
        by_gradient: whether all that the rule learns from a pass is what `accumulate` adds to `.grad`. Gradients
            can then be asked for alone (`torch.autograd.grad`) and averaged (`DistributedDataParallel`).
        delivers: whether the rule adds gradients by `zenkai_core.gradients.deliver`, which runs the parameters' hooks,
            or adds none. For others the machine looks after the hooks.
        learning: whether the machine lets the rule accumulate and step; set False to hold still what it moves, for as
            long as that is wanted. Targets are asked of it all the same.
    """

    requires: frozenset[str] = frozenset()
    uses_graph: bool = False
    slot: str = ""
    by_gradient: bool = False
    delivers: bool = False
    learning: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.bound = False

    def bind(self, machine: Machine) -> None:
        """Checks the machine's module and prepares for it; called once, by the machine, which frees it if this fails.

        Raises:
            TypeError: the module lacks what the rule requires, by name.
            RuntimeError: the rule is bound to a machine already.
        """
        check(qualified(self), self.requires, machine.module)
        if self.bound:
            raise RuntimeError(
                f"{type(self).__name__} expected to serve one machine, got a second: make one rule for each machine"
            )
        self.bound = True

    def forget(self) -> None:
        """Drops the passes accumulated since the last step; gradients are the machine's. Nothing unless overridden."""

    def __repr__(self) -> str:
        return f"{qualified(self)}({self.extra_repr()})"

    def identity(self) -> str:
        """What a saved state of the rule has to come from, in words: the rule, and the optimiser that it moves by."""
        return qualified(self)

    def note(self, state: State, **figures: Tensor | float) -> None:
        """Figures about what the rule just did with a pass, for whoever records it: `gain` of an x rule is "x_gain".

        Where nobody does (`state.notes` is None) they go nowhere, and one that costs something need not be made.
        """
        if state.notes is not None:
            state.notes.update({f"{self.slot}_{name}": value for name, value in figures.items()})


class StepTheta(Rule):
    """A rule for the parameters.

    Attributes:
        takes_missing: whether NaN in the inputs marks a missing value that the rule takes, as some estimators do.
        learns: whether the rule moves anything by the layer's target.

    >>> from zenkai_core import Machine, StepTheta, targets
    >>> class ErrorTimesInput(StepTheta):
    ...     def accumulate(self, machine, t, state):
    ...         w, dw = machine.module.weight, (state.outputs.f - t.f).detach().T @ state.inputs.f / t.rows
    ...         w.grad = dw if w.grad is None else w.grad + dw
    ...     def step(self, machine):
    ...         machine.module.weight.data -= 0.1 * machine.module.weight.grad
    ...         machine.module.weight.grad = None
    >>> layer = Machine(nn.Linear(2, 1), ErrorTimesInput(), targets.Null())
    >>> bool(layer.learn(torch.ones(4, 2), torch.ones(4, 1)) > layer.test(torch.ones(4, 2), torch.ones(4, 1)))
    True
    """

    slot = "theta"
    takes_missing: bool = False
    learns: bool = True

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Adds the pass to what `step` will use."""
        raise NotImplementedError(f"{type(self).__name__} expected an accumulate, got none: override it")

    def step(self, machine: Machine) -> None:
        """Moves the parameters by what was accumulated, and clears it."""
        raise NotImplementedError(f"{type(self).__name__} expected a step, got none: override it")

    def limited_to(self, masks: Mapping[str, Tensor]) -> None:
        """Told by a rule around this one before each step: the only entries of the parameters that will stay moved."""

    def moved(self, machine: Machine) -> None:
        """Told by a rule around this one after a step whose answer it has changed: it is not foreign hands."""


class StepX(Rule):
    """A rule for the target of the incoming layer.

    Attributes:
        gives_target: whether the answers are targets that a layer below can learn from.
        uses_target: whether they depend on the layer's own target; a search scored by the network's loss does without.
        points: whether the answers are points among the outputs of the layer below, as y - error is. Then that layer
            needs a criterion such as `sse`. Set it False where a rule answers with class probabilities or choices, for
            a layer below with `cross_entropy`; a search over `targets.Choices` says so by itself.

    >>> from zenkai_core import Machine, StepX, theta
    >>> class Feedback(StepX):
    ...     def step_x(self, machine, t, state):
    ...         return IO((state.inputs.f - (state.outputs.f - t.f) @ machine.module.weight.sign()).detach())
    >>> layer, state = Machine(nn.Linear(2, 1), theta.Null(), Feedback()), State()
    >>> y = layer.remember(IO(torch.ones(4, 2)), state)
    >>> layer.step_x(state.inputs, y.map(torch.zeros_like), state)
    IO(float32[4, 2])
    """

    slot = "x"
    points: bool = True
    gives_target: bool = True
    uses_target: bool = True

    @property
    def by_gradient(self) -> bool:  # type: ignore[override]
        """Whether all that the rule itself learns is in `.grad`; so it is for one that learns nothing."""
        return type(self).accumulate is StepX.accumulate

    @property
    def delivers(self) -> bool:  # type: ignore[override]
        """Whether the machine need not look after hooks; so it is for a rule that learns nothing."""
        return type(self).accumulate is StepX.accumulate

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The target for the incoming layer, shaped as state.x; moves nothing but the rule's noise count."""
        raise NotImplementedError(f"{type(self).__name__} expected a step_x, got none: override it")

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """For learned inverses and feedback: adds the pass to what `step` will use. Nothing unless overridden."""

    def step(self, machine: Machine) -> None:
        """Moves what the rule itself learns. Nothing unless overridden."""

    def passing(self, machine: Machine, state: State) -> AbstractContextManager[None]:
        """Around each pass that may be differentiated, for feedback, which changes how errors come back through it."""
        return nullcontext()

    def pull(
        self, machine: Machine, x: IO, y: IO, errors: Iterable[Tensor | None], params: list[nn.Parameter], n: int
    ) -> passes.Gradients:
        """What the errors at y are at x and at params: `passes.pull`, unless the rule has another way back to x."""
        return passes.pull(machine.module, x, y, errors, params, n)


class StepY(Rule):
    """A rule for the layer's own target: asked before `accumulate`, its answer replaces t.

    Attributes:
        points: whether the answers are places among the layer's outputs, whatever the target is that the layer was
            given. Then it goes there by its criterion if that is a distance (`sse`, `huber`, `absolute_error`), else by
            squared error. False, unless overridden: the criterion takes the answers.

    >>> from zenkai_core import Machine, StepY, targets, theta
    >>> class Halfway(StepY):
    ...     def step_y(self, machine, t, state):
    ...         return IO((state.outputs.f.detach() + t.f) / 2)
    >>> layer = Machine(nn.Linear(2, 1), theta.Gradient(), targets.Null(), y=Halfway())
    >>> layer.learn(torch.ones(4, 2), torch.ones(4, 1)).shape
    torch.Size([])
    """

    slot = "y"
    points: bool = False

    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        """The target that the layer will learn from, shaped as state.y; moves nothing but the rule's noise count."""
        raise NotImplementedError(f"{type(self).__name__} expected a step_y, got none: override it")


class Machine(LearningMachine):
    """A module, one rule for theta, one rule for x, and a criterion.

    Args:
        module: any `nn.Module` from tensors to a tensor or a tuple of them.
        theta: the rule for its parameters.
        x: the rule for the target of the incoming layer.
        criterion: (y, t) -> `[n]` cost per row; for the last machine of a network the task's loss.
        y: an optional rule for this layer's own target.
        loss, scale, lmode: as for `LearningMachine`.

    Raises:
        TypeError: the module is none, or lacks what a rule requires; the criterion is one of torch's losses.

    >>> from zenkai_core import Machine, targets, theta
    >>> layer = Machine(nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> x, t = torch.ones(4, 3), torch.zeros(4, 2)
    >>> bool(layer.learn(x, t) > layer.learn(x, t))
    True
    """

    def __init__(
        self,
        module: nn.Module,
        theta: StepTheta,
        x: StepX,
        criterion: Criterion = sse,
        *,
        y: StepY | None = None,
        loss: Loss = "mean",
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        super().__init__(loss=loss, scale=scale, lmode=lmode)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"Machine expected an nn.Module, got {getattr(module, '__name__', type(module).__name__)}: "
                "modules.BlackBox makes a module of a function of tensors; a class is to be called"
            )
        if isinstance(module, nn.RNNBase):
            raise TypeError(
                f"Machine expected a module whose outputs are tensors with the rows first, got "
                f"{type(module).__name__}, which also returns its hidden state: wrap it in a module that is made with "
                "batch_first=True and returns the output alone, self.rnn(x)[0]"
            )
        for name, given, kind in (("theta", theta, StepTheta), ("x", x, StepX), ("y", y, StepY)):
            if name != "y" or given is not None:
                check_kind("Machine", name, given, kind)
        self.module = module
        self.theta = theta
        self.x = x
        self.y = y
        self.criterion = checked(criterion)
        self.version = 0  # counts steps: a pass older than the last one is refused
        free = [rule for rule in self._rules() if not rule.bound]
        try:
            for rule in self._rules():
                rule.bind(self)
        except BaseException:
            for rule in free:  # a machine that was refused uses up none of its rules
                rule.bound = False
            raise

    def remember(self, x: IO, state: State) -> IO:
        """As `forward_nn`, which notes everything itself."""
        state.y = self.forward_nn(x, state)
        return state.y

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass, with a graph only if a rule differentiates it."""
        if (seen := at_inputs(self.criterion, x.detach())) is not None:
            state.criterion = self._reduced(seen)
        if not state.remember:
            return passes.outputs(self.module, x, context=state.context)
        state.training, state.version = self.training, self.version
        graph_x = self.x.uses_graph and state.wants_x
        state.x = x = x.leaves(graph_x)
        with torch.set_grad_enabled(graph_x or self.theta.uses_graph), self.x.passing(self, state):
            state.y = passes.remembered(self.module, x, state)
        return state.y

    def assess_y(self, y: IO, t: IO) -> Tensor:
        """The criterion's cost per row, `[n]`.

        Raises:
            ValueError: the criterion gives anything but one cost per row.
        """
        return per_row(self._criterion(y, t), y)

    def local_criterion(self, state: State, t: IO) -> Criterion:
        """The cost by which the layer learns from t in this pass: its own, or squared error towards a point.

        See `StepY.points`.

        Args:
            state: of the pass.
            t: the layer's target, after its y rule.

        Raises:
            TypeError: the criterion takes labels or probabilities, and t is a point among the outputs.
        """
        own = state.criterion or self._criterion
        if self.y is not None and self.y.points and is_distance(own) is not True:
            return sse
        self._expect_suitable(f"a Machine over {type(self.module).__name__}", own, t, state.outputs)
        return own

    def cost(self, y: IO, t: IO, state: State) -> Tensor:
        """The local loss of this pass per row, `[k * n]`, for outputs `[k * n, ...]` (k copies of the rows)."""
        return self._cost_against(t, self.local_criterion(state, t), y)

    def step_y(self, x: IO, t: IO, state: State) -> IO:
        """The y rule's target; t where there is none."""
        return t if self.y is None else self.y.step_y(self, t, state)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """By the rules for theta and x; a pass without rows tells them nothing, so that no step comes of it.

        Raises:
            RuntimeError: the pass is older than the last step.
        """
        state.expect_newest(self.version)
        if not state.outputs.rows:
            return
        if state.goal is None and not state.checked:
            self._expect_finite(t, state)
        learns = state.requested is None or state.requested.learns(self.parameters())
        for rule in (self.theta, self.x):
            if rule.learning and (learns or rule.by_gradient):
                rule.accumulate(self, t, state)

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """By the rule for x, whose answer is detached.

        Raises:
            RuntimeError: the pass was made with `wants_x=False`.
        """
        state.expect_x()
        answer = self.x.step_x(self, t, state)
        return answer if self.x.points else Probabilities(*answer)

    def step(self, x: IO, t: IO, state: State) -> None:
        """Moves what the rules move, and makes earlier passes old."""
        for rule in (self.theta, self.x):
            if rule.learning:
                rule.step(self)
        torch.clear_autocast_cache()  # within one autocast block, the next pass would take the casts of the old weights
        self.version += 1

    def _expect_context(self, context: Context | None) -> None:
        """Takes any: the module is called with it."""

    @property
    def takes_missing(self) -> bool:
        """Whether the rule for theta takes NaN in the inputs as missing values."""
        return self.theta.takes_missing

    def gives_target(self, has_target: bool) -> bool:
        """Whether the rule for x gives a target, if the layer itself has one or does without."""
        return self.x.gives_target and (has_target or self.y is not None or not self.x.uses_target)

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """The machine itself, if it learns and neither receives a target nor finds one by a y rule."""
        return [self] if self.theta.learns and self.y is None and not has_target else []

    def step_told(self, state: State | None = None) -> None:
        """As for every machine; gradients that were set by other hands move a rule that works by them, too."""
        if self._told is None and any(p.grad is not None for p in self.parameters()):
            for rule in (self.theta, self.x):
                if rule.learning and rule.by_gradient:
                    rule.step(self)
            self.version += 1
        super().step_told(state)

    def _delivers(self) -> bool:
        return self.theta.delivers and self.x.delivers

    def local_only(self) -> list[str]:
        """Names of the rules that learn from rows which they keep."""
        return [qualified(rule) for rule in (self.theta, self.x) if rule.learning and not rule.by_gradient]

    def forget(self) -> None:
        """As for every machine; its rules forget too."""
        super().forget()
        for rule in self._rules():
            rule.forget()

    def gradients(self, t: IO, state: State) -> passes.Gradients:
        """Gradients of this pass's local loss, by one backward through the pass's own graph, shared by all rules.

        Returns:
            Per input, of the *sum* of costs over rows (None where the pass has none); per trainable parameter, with it,
            of the cost as `self.loss` reduces it (None where unused).

        A pass whose graph is used up, or older than the last step, is replayed first; a cut graph is a RuntimeError.
        """
        held = state.data.get("gradients")
        if held is not None and held[0] is t and held[1] == self.version:
            return held[2]
        x, y = state.inputs, state.outputs
        if held is not None or state.version != self.version:
            x = x.leaves(self.x.uses_graph and state.wants_x)
            y = self.replay(x, state)
        found = self.pull(x, y, t, state)
        state.data["gradients"] = (t, self.version, found)
        return found

    def pull(self, x: IO, y: IO, t: IO, state: State, *, theta: bool | None = None) -> passes.Gradients:
        """As `gradients`, through the graph from x to y, which is used up; `theta=False` leaves the parameters out."""
        params = self.trainable() if (self.theta.uses_graph if theta is None else theta) else []
        if not any(v.requires_grad for v in (*x, *params)):
            return (None,) * len(x), []
        errors = output_gradient(self.local_criterion(state, t), y.detach(), t)
        n, factor = max(y.rows, 1) if self.loss == "mean" else 1, state.factor
        if factor is None or all(v.dtype.itemsize > 2 for v in y):
            return self.x.pull(self, x, y, errors, params, n)
        scaled = [e if e is None else e * factor for e in errors]  # as half precision needs it, where the user scales
        of_x, of_params = self.x.pull(self, x, y, scaled, params, n)
        by_parameter = zip((p for p, _ in of_params), divided((g for _, g in of_params), factor), strict=True)
        return tuple(divided(of_x, factor)), list(by_parameter)

    def trainable(self) -> list[nn.Parameter]:
        """The module's parameters that ask for a gradient; what rules move."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def replay(self, x: IO, state: State) -> IO:
        """The pass's rows once more, on the present parameters: y `[n, ...]`, differentiable.

        BatchNorm takes the statistics of the rows x, dropout the pass's masks; no buffer and no generator moves.
        With the pass's own x and parameters it is the pass.
        """
        with self.x.passing(self, state):
            return passes.replay(self.module, x, state)

    def present(self, state: State) -> IO:
        """What the present parameters make of the pass's rows, detached: its outputs, or a replay after a step."""
        y = state.outputs if state.version == self.version else self.replay(state.inputs.detach(), state)
        return y.detach()

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """Any rows through the layer as it is in this pass: BatchNorm is the pass's affine map, dropout is off.

        Args:
            state: of the pass.
            x: `[m, ...]` for any m; rows do not see each other. Works under `torch.func.vmap`, over x or params.
            params: candidates for the module's parameters by name; those left out are the module's own.
        """
        return passes.frozen(self.module, x, state, params)

    def inverse(self, y: IO, state: State) -> IO:
        """The inputs that `frozen` maps to y, `[m, ...]` for any m, where the module is "invertible"; detached.

        BatchNorm is the affine map of the pass, however its batch was normalised.
        """
        return passes.inverse(self.module, y, state)

    def propose(self, state: State, k: int, noise: torch.Generator) -> IO:
        """Stochastic passes of the rows, k of them: y `[k, n, ...]`, with dropout on and BatchNorm as in `frozen`.

        Two proposals from equal generators are equal; torch's global generator stays where it was.
        """
        x = state.inputs.detach()
        seed = int(torch.randint(2**62, (), generator=noise, device=noise.device))
        return passes.propose(self.module, x, state, k, seed).map(lambda v: v.unflatten(0, (k, x.rows)))

    def get_extra_state(self) -> dict[str, str | None]:
        """Slot -> the rule that the entries of the `state_dict` belong to; None for one that remembers nothing."""
        rules = {"theta": self.theta, "x": self.x, "y": self.y}
        return {
            slot: rule.identity() if rule is not None and rule.state_dict() else None for slot, rule in rules.items()
        }

    def set_extra_state(self, state: dict[str, str | None]) -> None:
        """Nothing: the rules were checked before."""

    def expect_rules(self, saved: Any, strict: bool) -> None:
        """Refuses the state of another rule, or of one with another optimiser.

        Raises:
            ValueError: it is one.
        """
        for slot, own in self.get_extra_state().items():
            given = saved.get(slot, own)
            if given != own and (strict or (given is not None and own is not None)):
                raise ValueError(
                    f"Machine expected the state of {own or 'a rule without one'} for {slot}, got that of "
                    f"{given or 'a rule without one'}: make the machine with the rules that were saved, or load the "
                    "weights alone by zenkai_core.load_weights(model, state_dict)"
                )

    @property
    def _criterion(self) -> Criterion:
        return self._reduced(self.criterion)

    def _reduced(self, criterion: Criterion) -> Criterion:
        """The criterion as `loss` reduces it: for "mean", the mean over rows is the criterion's own mean."""
        return averaged(criterion) if self.loss == "mean" else criterion

    def _cost(self, t: IO, criterion: Criterion | None, y: IO) -> Tensor:
        self._expect_suitable(f"a Machine over {type(self.module).__name__}", criterion or self.criterion, t, y)
        return super()._cost(t, criterion, y)

    def __repr__(self) -> str:
        given = [module_text(self.module), *map(repr, self._rules())]
        if self.criterion is not sse:
            given.append(f"criterion={value_text(self.criterion)}")
        return f"Machine({', '.join(given)})"

    def _rules(self) -> list[Rule]:
        return [rule for rule in (self.theta, self.x, self.y) if rule is not None]
