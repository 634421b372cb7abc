"""`LearningMachine`: a network, or a layer of one, that knows how to learn from a target.

The paper's interface (section 3): `forward_nn` remembers a pass, `accumulate` and `step` update the parameters,
`step_x` gives the target for the incoming layer. A user's machine overrides these; `forward` joins it to autograd.
"""

from __future__ import annotations

import math
import numbers
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zenkai_core import passes
from zenkai_core.bridge import bridge
from zenkai_core.compiled import exporting
from zenkai_core.context import Context, split_arguments
from zenkai_core.criteria import (
    Criterion,
    is_distance,
    output_gradient,
    per_row,
    sse,
    takes_labels,
    unsuitable_target,
)
from zenkai_core.distributed import in_data_parallel
from zenkai_core.finite import check_finite_pass
from zenkai_core.gradients import captured, capturing, deliver, has_hooks
from zenkai_core.hooks import Hooked
from zenkai_core.loss_scale import LossScale, divided
from zenkai_core.requested import Requested
from zenkai_core.state import Origin, State
from zenkai_core.values import IO, Target, as_io, asks_nothing, errors_of, exact_error, no_io

LMode = Literal["accumulate", "accumulate step_x step", "accumulate step step_x", "step_x"]
Loss = Literal["mean", "sum"]


class Told(NamedTuple):
    """The last pass that a machine accumulated: what `step` is called with."""

    x: IO
    t: IO
    state: State


class LearningMachine(Hooked, nn.Module):
    """An `nn.Module` with a rule for its parameters and a rule for the target of the layer below.

    Override `forward_nn`, and as needed `assess_y`, `step_y`, `accumulate`, `step_x`, `step`; where one returns an IO,
    a bare tensor y counts as IO(y). In an ordinary loop `loss(machine(x), t).backward()` accumulates and passes the
    target on, and `zenkai_core.Optimizer` moves.

    Args:
        loss: how the user's loss above the machine is reduced over rows; gradients per row follow from it.
        scale: s in t = y - s * (gradient per row), in autograd; a finite number. A search scored by the network's loss
            is there scored by its first-order change, s * gradient * (y' - y).
        lmode: what `backward()` does: "accumulate" (and pass the target on; never moves parameters), one of the two
            orders that also step, for networks without another optimiser, or "step_x" alone (targets only).

    Raises:
        ValueError: an unknown loss or lmode.
        TypeError: scale is no number.

    A linear layer with its own rules:

    >>> import copy
    >>> import torch
    >>> from torch import nn
    >>> from zenkai_core import IO, Chain, LearningMachine, testing
    >>> class Linear(LearningMachine):
    ...     def __init__(self, n_in, n_out):
    ...         super().__init__()
    ...         self.linear = nn.Linear(n_in, n_out)
    ...         self.opt = torch.optim.Adam(self.linear.parameters(), lr=0.01)
    ...     def forward_nn(self, x, state):  # x asks for a gradient, if a target for it will be wanted
    ...         return IO(self.linear(x.f))
    ...     def assess_y(self, y, t):  # one cost per row
    ...         return 0.5 * (y.f - t.f).square().sum(1)
    ...     def accumulate(self, x, t, state):  # adds to .grad; the graph serves step_x once more
    ...         self.assess_y(state.outputs, t).mean().backward(inputs=[*self.linear.parameters()], retain_graph=True)
    ...     def step_x(self, x, t, state):  # equation 2, per row; a target is detached
    ...         (g,) = torch.autograd.grad(self.assess_y(state.outputs, t).sum(), [x.f], retain_graph=True)
    ...         return IO(x.f.detach() - g)
    ...     def step(self, x, t, state):
    ...         self.opt.step()
    ...         self.opt.zero_grad()
    ...     def get_extra_state(self):  # the moments are part of the state_dict
    ...         return self.opt.state_dict()
    ...     def set_extra_state(self, state):
    ...         self.opt.load_state_dict(copy.deepcopy(state))
    >>> net = Chain(Linear(4, 8), Linear(8, 2))
    >>> x, t = torch.ones(6, 4), torch.full((6, 2), 9.0)
    >>> bool(net.learn(x, t) > net.learn(x, t))
    True
    >>> testing.check_machine(lambda: (Linear(4, 2), torch.randn(6, 4), torch.randn(6, 2)))
    >>> testing.check_machine(lambda: (Chain(Linear(4, 8), Linear(8, 2)), torch.randn(6, 4), torch.randn(6, 2)))
    """

    lmode: LMode

    def __init__(self, *, loss: Loss = "mean", scale: float = 1.0, lmode: LMode = "accumulate") -> None:
        super().__init__()
        self._listeners = OrderedDict()
        self._running = set()
        self._told: Told | None = None
        self.loss_scale: LossScale | None = None  # set by `Optimizer(model, grad_scale=)`
        if loss not in ("mean", "sum"):
            raise ValueError(f"loss expected 'mean' or 'sum', got {loss!r}: say how the loss reduces over rows")
        if not isinstance(scale, numbers.Real) or not math.isfinite(scale):
            raise TypeError(f"scale expected a finite number, got {scale!r}: 1.0 gives t = y - (gradient per row)")
        self.loss: Loss = loss
        self.scale: float = scale
        set_lmode(self, lmode)

    # ------------------------------------------------------------------------------------------- what users override
    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass, remembered in state: the outputs for x. Store there whatever the other methods will need."""
        raise NotImplementedError(f"{type(self).__name__} expected a forward_nn(x, state), got none: override it")

    def assess_y(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`; 0.5 * the sum of squared errors unless overridden."""
        return sse(y, t)

    def step_y(self, x: IO, t: IO, state: State) -> IO:
        """The target this layer will learn from, asked before `accumulate`; t itself unless overridden."""
        return t

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """Adds this pass to what `step` will use; moves no parameter. Nothing unless overridden."""

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """The target for the incoming layer, shaped as x; x itself unless overridden.

        Raises:
            ValueError: what an override answers, or a hook, is not shaped as x; nothing is broadcast.
        """
        return x.detach()

    def step(self, x: IO, t: IO, state: State) -> None:
        """Moves the parameters by what was accumulated. Nothing unless overridden."""

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """The outputs for any rows x as they would be in this pass; here: evaluation mode, nothing remembered.

        Raises:
            TypeError: params are given; only a composed machine knows which they are.
        """
        if params is not None:
            raise TypeError(
                f"frozen expected params=None for {type(self).__name__}, got {len(params)} tensors: only a "
                "Machine takes candidate parameters"
            )
        with passes.mode(self, False):
            return self.forward_nn(x, State(remember=False))

    # ------------------------------------------------------------------------------------------------ what users call
    def forward(self, *x: Any, **context: Any) -> Tensor | tuple[Tensor, ...]:
        """The outputs; part of torch's autograd when gradients are on, plain under `no_grad` and `torch.export`.

        `torch.compile` leaves a machine as it is: compile the module inside.

        Args:
            x: inputs, tensors with as many rows as the first. Anything else among them (None, edge lists, numbers)
                reaches the module unchanged, and gets no target.
            context: keyword arguments of the module, such as masks, which reach it unchanged.

        Raises:
            TypeError: an output is not floating, while gradients are on.
            RuntimeError: under `DistributedDataParallel`, an lmode that steps, or a rule that learns from rows.
        """
        if torch.compiler.is_dynamo_compiling() and not exporting():
            return _uncompiled(self, *x, **context)
        return self._joined(*x, **context)

    def _joined(self, *x: Any, **named: Any) -> Tensor | tuple[Tensor, ...]:
        inputs, context = split_arguments(type(self).__name__, x, named)
        self._expect_context(context)
        if torch.is_grad_enabled() and not exporting():
            if in_data_parallel():
                self._expect_averaged()
            y = bridge(
                partial(self._run, context=context),
                self._pull,
                inputs,
                [p for p in self.parameters() if p.requires_grad],
            )
        else:
            y = tuple(v.detach() for v in self.remember(inputs.detach(), State(remember=False, context=context)))
        return y[0] if len(y) == 1 else y

    def _context(self, x: IO, named: Mapping[str, Any]) -> Context | None:
        context = split_arguments(type(self).__name__, tuple(x), named)[1] if named else None
        self._expect_context(context)
        return context

    def local_only(self) -> list[str]:
        """Names of what learns from rows that it keeps, outside `.grad`; it would differ between processes.

        A class that overrides `accumulate` names itself, unless it sets `by_gradient = True`.
        """
        own = type(self).accumulate is not LearningMachine.accumulate and not getattr(self, "by_gradient", False)
        return [type(self).__name__] if own else []

    def _keeps_rows(self) -> bool:
        return any(m.local_only() for m in self.modules() if isinstance(m, LearningMachine))

    def _expect_averaged(self) -> None:
        """Refuses what `DistributedDataParallel`, which averages gradients, cannot hold equal."""
        machines = [m for m in self.modules() if isinstance(m, LearningMachine)]
        for m in machines if self.training else ():
            if local := m.local_only():
                raise RuntimeError(
                    "DistributedDataParallel expected rules that learn by gradients, which it averages, got "
                    f"{', '.join(local)}: take theta.Gradient(n=1) or theta.Delta for this layer, or train it in "
                    "one process"
                )
            if "step" in self.lmode.split():
                raise RuntimeError(
                    f"DistributedDataParallel expected lmode 'accumulate', got {self.lmode!r}, which steps before "
                    "gradients are averaged: step by zenkai_core.Optimizer"
                )

    def _expect_context(self, context: Context | None) -> None:
        """Refuses arguments beside the inputs, unless a subclass hands them on.

        Raises:
            TypeError: there are some.
        """
        if context is not None:
            given = [*context.named, *(f"argument {place}" for place, _ in context.places)]
            raise TypeError(
                f"{type(self).__name__} expected tensors with the same rows as its first input, got also {given}: only "
                "a Machine hands other arguments to its module; make one Machine of the layers that need them"
            )

    def learn(self, x: IO | Tensor, t: IO | Tensor, **context: Any) -> Tensor:
        """One update towards t, in training mode: forward, step_y, accumulate, step.

        An exception on the way (Ctrl-C too) forgets whatever was accumulated since the last step, as `forget` does, so
        that the next call is not made of half of this one. Statistics of normalisation, noise counts and the parameters
        of machines that have stepped already stay where they are.

        Args:
            x: inputs, `[n, ...]`.
            t: what `assess_y` takes, for example labels `[n]`.
            context: keyword arguments of the module, such as masks, which reach it unchanged.

        Returns:
            `[]` the mean cost before the update.

        Raises:
            TypeError: x or t is neither a tensor nor an IO.
            ValueError: a batch without rows; `assess_y` gives anything but one cost per row.
        """
        x, t = _batch("learn", x, t)
        with passes.mode(self, True):
            state = State(wants_x=False, context=self._context(x, context))
            try:
                y = self.remember(x, state)
                with torch.no_grad():
                    cost = per_row(self._cost(t, state.criterion, y.detach()), y, "assess_y")
                self._expect_finite(t, state, cost)
                told = self.tell(t, state)
                self.step(*told)
            except BaseException:
                self.forget()
                raise
        return cost.mean()

    def forget(self) -> None:
        """Drops what was accumulated since the last step, here and in every machine inside; nothing moves.

        Gradients go, the passes that rules keep, and the target told by the last `backward()`. What a rule collects
        over many steps stays. `zenkai_core.Optimizer.zero_grad` calls it.
        """
        self._told = None
        for p in self.parameters():
            p.grad = None
        for m in (m for child in self.children() for m in outermost(child)):
            m.forget()

    def test(self, x: IO | Tensor, t: IO | Tensor, **context: Any) -> Tensor:
        """`[]` the mean cost in evaluation mode, without gradient; modes are as before afterwards.

        Raises:
            TypeError, ValueError: as `learn`.
        """
        x, t = _batch("test", x, t)
        with passes.mode(self, False), torch.no_grad():
            state = State(remember=False, context=self._context(x, context))
            y = self.remember(x.detach(), state)
            cost = per_row(self._cost(t, state.criterion, y), y, "assess_y")
        return cost.mean()

    # -------------------------------------------------------------------------------------------- what containers call
    def remember(self, x: IO, state: State) -> IO:
        """`forward_nn` on leaves of x, with x, y and the mode noted in state."""
        if not isinstance(x, IO):
            raise no_io(f"{type(self).__name__}.remember", "x", x)
        state.x = x.leaves(state.wants_x and state.remember)
        state.training = self.training
        state.y = self.forward_nn(state.x, state)
        return state.y

    def tell(self, t: IO, state: State) -> Told:
        """`step_y` and `accumulate`, with the network's cost and the layer's own target noted in state."""
        told = self._aim(t, state)
        asked = state.requested
        if asks_nothing(state.outputs, told.t) or (asked and not asked.differentiates(self.parameters())):
            return told
        if self._delivers() or capturing():
            self.accumulate(*told)
        else:
            self._accumulate_with_hooks(told)
        if asked is None or asked.learns(self.parameters()):
            self.__dict__["_told"] = told  # nn.Module's own setter is slow
            state.accumulated = True
        return told

    def _delivers(self) -> bool:
        """Whether `accumulate` runs the hooks of the parameters by itself; one of your own need not."""
        return False

    def _accumulate_with_hooks(self, told: Told) -> None:
        """Accumulates, and runs the parameters' hooks, however the gradients were written."""
        parameters = list(self.parameters())
        if not any(map(has_hooks, parameters)):
            self.accumulate(*told)
            return
        with captured(parameters) as found:
            self.accumulate(*told)
        deliver(found.items())

    def _aim(self, t: IO, state: State) -> Told:
        """Notes the network's cost and the layer's own target, by which it accumulates or is asked for one below."""
        self._say_goal(t, state)
        x = state.inputs
        state.t = t = self.step_y(x, t, state)
        return Told(x, t, state)

    def _expect_suitable(self, layer: str, criterion: Criterion, t: IO, y: IO) -> None:
        """Refuses a point among the outputs as the target of a criterion for labels or probabilities.

        A criterion that does not say what it takes is watched in its first call on a point.

        Args:
            layer: what the machine is called in the error.
            criterion: of the outputs and t.
            t: the target.
            y: the outputs.

        Raises:
            TypeError: t is a point, and the criterion takes labels or probabilities.
        """
        if not isinstance(t, Target):
            return
        labels = is_distance(criterion) is False
        if is_distance(criterion) is None and y.rows and not self.__dict__.get("_points_taken", False):
            labels = takes_labels(criterion, y, t)
            self.__dict__["_points_taken"] = not labels
        if labels:
            raise unsuitable_target(layer, getattr(self, "criterion", criterion))

    def gives_target(self, has_target: bool) -> bool:
        """Whether `step_x` gives the layer below a target, if this machine has one itself (``has_target``)."""
        return type(self).step_x is not LearningMachine.step_x

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """The machines in here that learn but can receive no target, if this one receives one (``has_target``)."""
        return [self] if type(self).accumulate is not LearningMachine.accumulate and not has_target else []

    @property
    def takes_missing(self) -> bool:
        """Whether NaN in the inputs marks a missing value that this machine takes."""
        return False

    def _expect_finite(self, t: IO, state: State, cost: Tensor | None = None) -> None:
        """Refuses NaN and infinity in the inputs, the target and the cost of a network's pass, once per pass.

        Args:
            t: the target; a `Target` that a loss made stands for the gradients of that loss.
            state: of the pass.
            cost: `[n]`; computed here if it is not given and t is no such target.

        Raises:
            TypeError: a complex target.
            ValueError: NaN or infinity, and where.
        """
        if any(v.is_complex() for v in t):
            raise TypeError("a network expected real targets, got complex ones: give t.real, or torch.view_as_real(t)")
        y = state.outputs
        errors = exact_error(y.detach(), t)
        if errors is not None:
            t = IO(*(e for e in errors if e is not None))
        elif cost is None and y.rows:
            with torch.no_grad():
                cost = per_row(self._cost(t, state.criterion, y.detach()), y, "assess_y")
        check_finite_pass(state.inputs, t, cost, missing=self.takes_missing)
        state.checked = True

    def _say_goal(self, t: IO, state: State) -> Callable[[IO], Tensor]:
        """Notes the network's target, cost and error, if no machine around this one has: then it is the network."""
        if state.goal is None and not state.checked:
            self._expect_finite(t, state)
        if state.error is None:
            state.error = partial(_output_error, state.criterion or self._criterion, state.outputs.detach(), t)
        if state.goal is None:
            state.goal = t
        if state.above is None:
            state.position = 0
            state.above = partial(self._cost_against, t, state.criterion)
        return state.above

    def origins(self, state: State) -> tuple[Origin | None, ...]:
        """Who made each output of this pass: this machine, or in a container one of those inside."""
        return tuple((self, state, i) for i in range(len(state.outputs)))

    @property
    def _criterion(self) -> Criterion:
        return self.assess_y

    def _cost(self, t: IO, criterion: Criterion | None, y: IO) -> Tensor:
        return self.assess_y(y, t) if criterion is None else criterion(y, t)

    def _cost_against(self, t: IO, criterion: Criterion | None, y: IO) -> Tensor:
        """The cost of k copies of the rows, or of one."""
        return self._cost(t.tile(y.rows // t.rows if t.rows else 1), criterion, y)

    def _run(self, x: IO, context: Context | None = None) -> tuple[IO, State]:
        state = State(wants_x=any(v.requires_grad for v in x), context=context)
        return self.remember(x, state), state

    def _pull(
        self, state: State, grads: tuple[Tensor | None, ...], asked: Requested
    ) -> tuple[tuple[Tensor | None, ...], dict[Tensor, Tensor]]:
        """Target t = y - s * gradient per row; what goes down is x - t_x, reduced as the loss was.

        The gradients that the rules write are returned, for torch to store; a machine that steps at once stores them.

        All that is known of the loss is its gradient: a search that is scored by the network goes by that, to first
        order. Half the squared distance to t, which the rules of the last machine go by, would not do: t lies so near
        that nearly every candidate is further from it than y is.
        """
        y, scale = state.outputs, self.loss_scale
        n = y.rows if self.loss == "mean" else 1
        factor = None if scale is None else scale.factor(y.f)
        if scale is not None and factor is not None:
            if scale.scaler is not None and self._keeps_rows() and not _finite(grads):
                scale.overflowed()  # the scaler skips the step; rules learn nothing from this pass
                return tuple(_nan(v) for v in state.inputs), {}
            grads = tuple(divided(grads, factor))
        state.forget_targets()
        state.criterion, state.requested, state.factor = sse, asked, factor
        state.checked = scale is not None and scale.scaler is not None  # the scaler itself looks for overflows
        s = self.scale * n
        errors = [g if g is None or s == 1 else g * s for g in grads]
        t: IO = Target.away_from(y, errors)
        state.position, state.above = 0, partial(_first_order, y.detach(), errors)
        found: dict[Tensor, Tensor] = {}
        if self.lmode == "step_x" or not asked.differentiates(asked.parameters):
            x, t, _ = self._aim(t, state)
        elif self.lmode == "accumulate" or not asked.learns(asked.parameters):
            with captured(asked.parameters) as found:
                x, t, _ = self.tell(t, state)
        else:
            x, t, _ = self.tell(t, state)
        steps = self.lmode if asked.learns(asked.parameters) else "accumulate"
        if steps == "accumulate step step_x":
            self.step_told()
        t_x = self.step_x(x, t, state) if state.wants_x and not asks_nothing(y, t) else None
        if steps == "accumulate step_x step":
            self.step_told()
        of_x = (None,) * len(x) if t_x is None else tuple(None if e is None else e / n for e in errors_of(x, t_x))
        if factor is None:
            return of_x, found
        return tuple(None if e is None else e * factor for e in of_x), {p: g * factor for p, g in found.items()}

    def step_told(self, state: State | None = None) -> None:
        """Steps with what was accumulated since the last step; does nothing where nothing was.

        Args:
            state: the pass that `step` is called with, if the machine has accumulated it; else the last one.
        """
        told, self.__dict__["_told"] = self._told, None
        if told is not None:
            accumulated = state is not None and state.accumulated and state.t is not None
            self.step(*(Told(state.inputs, state.t, state) if accumulated else told))  # type: ignore[union-attr,arg-type]

    def __repr__(self) -> str:
        inside = [type(m).__name__ for m in self.children()]
        return f"{type(self).__name__}({', '.join(inside)})"

    def expect_rules(self, saved: Any, strict: bool) -> None:
        """Refuses the state of other learning rules than this machine's; nothing unless overridden.

        Args:
            saved: the machine's own extra state, out of a `state_dict`.
            strict: whether a rule without a state of its own has to be the saved one, too.
        """

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, *args: Any
    ) -> None:
        """Checks the rules of all machines inside before the first entry is loaded."""
        for name, m in self.named_modules(prefix=prefix.removesuffix(".")):
            key = f"{name}._extra_state" if name else "_extra_state"
            if isinstance(m, LearningMachine) and key in state_dict:
                m.expect_rules(state_dict[key], strict)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a file takes along: no pass in flight (it belongs to its graph), and nobody who listens."""
        own = {**self.__dict__, "_told": None, "_listeners": OrderedDict(), "_running": set()}
        return {**own, "loss_scale": None}  # it belongs to an `Optimizer`, whose copy sets it in its own machines


_uncompiled = torch._disable_dynamo(LearningMachine._joined)  # type: ignore[attr-defined]


def _batch(call: str, x: IO | Tensor, t: IO | Tensor) -> tuple[IO, IO]:
    """Inputs and detached targets of `learn` or `test`, which give a mean over rows and so take one at least."""
    x, t = as_io(x, f"x of {call}"), as_io(t, f"t of {call}").detach()
    if any(io and not io.rows for io in (x, t)):
        raise ValueError(
            f"{call} expected at least one row, got {x} and {t}: no row has a mean cost; leave empty batches out"
        )
    return x, t


def _first_order(at: IO, errors: Iterable[Tensor | None], y: IO) -> Tensor:
    """How far a loss with these errors at `at` has risen at y, per row, to first order: `[k * n]`."""
    k = y.rows // at.rows if at.rows else 1
    triples = [(v, a, e) for v, a, e in zip(y, at.tile(k), errors, strict=True) if e is not None]
    rises = [((v - a) * IO(e).tile(k).f).flatten(1).sum(1) for v, a, e in triples]
    return torch.stack(rises).sum(0)


def _finite(grads: Iterable[Tensor | None]) -> bool:
    """Whether all entries are finite; one synchronisation."""
    return bool(torch.stack([g.isfinite().all() for g in grads if g is not None]).all())


def _nan(x: Tensor) -> Tensor | None:
    return torch.full_like(x, math.nan) if x.is_floating_point() else None


def _output_error(criterion: Criterion, y: IO, t: IO) -> tuple[Tensor | None, ...]:
    """dl/dy at the network's outputs; zero for one that the loss does not use."""
    pairs = zip(y, output_gradient(criterion, y, t), strict=True)
    return tuple(torch.zeros_like(v) if e is None and v.is_floating_point() else e for v, e in pairs)


def set_lmode(model: nn.Module, lmode: LMode) -> None:
    """Says for every machine in model what `backward()` does.

    Raises:
        ValueError: an unknown mode.
    """
    known = ("accumulate", "accumulate step_x step", "accumulate step step_x", "step_x")
    if lmode not in known:
        raise ValueError(f"lmode expected one of {known}, got {lmode!r}: choose what backward() does")
    for m in model.modules():
        if isinstance(m, LearningMachine):
            m.lmode = lmode


def outermost(model: nn.Module) -> list[LearningMachine]:
    """The machines in model that stand in no other machine, each once."""
    if isinstance(model, LearningMachine):
        return [model]
    return list(dict.fromkeys(m for child in model.children() for m in outermost(child)))
