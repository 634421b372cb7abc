"""`Parallel`: machines side by side over groups of units (the paper's "M learning machines width-wise")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from zenkai_core.container import Combine, Container, Joint, check_combine, hand_down
from zenkai_core.criteria import Criterion, averaged, checked, output_gradient, per_row, sse
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.state import State
from zenkai_core.values import IO, Target, errors_of, exact_error, nothing_asked

Columns = slice | list[int]


class Parallel(Container):
    """One layer made of machines side by side, each with its own rules; sub-states "0", "1", ... are theirs.

    Outputs are concatenated along dimension 1 (features or channels), the layer's target is split likewise, and a
    machine learns from its part alone. A whole layer and its blocks may so learn by different rules.

    Args:
        machines: each puts out `[n, features, ...]`, all the same number of tensors.
        split: what each machine sees of the input. None: all of it. Sizes, one per machine: so many features along
            dimension 1, side by side. Lists of indices, one per machine: those features; groups may overlap or leave
            some out.
        criterion: (y, t) -> `[n]` cost per row of the whole layer; for the last of a network the task's loss. Under any
            but `sse` the machines' targets are y less its gradient, their cost squared error.
        combine: the target of an input that several machines see: x less the "sum" of their errors (backpropagation,
            for gradients), or the "mean" of their targets.
        scale, lmode: as for `LearningMachine`; `loss` is that of the machines.

    Raises:
        TypeError: something is not a machine.
        ValueError: no machine; a split that is not one size or one list for each; or as for `Chain`.

    Two halves of a layer under two rules, and a machine for each half of the input above them:

    >>> from torch import nn
    >>> from zenkai_core import Chain, Machine, targets, theta
    >>> def half(i, o, rule):
    ...     return Machine(nn.Linear(i, o), rule(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> net = Chain(
    ...     Parallel(half(3, 2, theta.Gradient), half(3, 2, theta.Delta)),
    ...     Parallel(half(2, 1, theta.Gradient), half(2, 1, theta.Gradient), split=(2, 2)),
    ... )
    >>> x, t = torch.ones(5, 3), torch.zeros(5, 2)
    >>> bool(net.learn(x, t) > net.learn(x, t))
    True
    """

    def __init__(
        self,
        *machines: LearningMachine,
        split: Sequence[int] | Sequence[Sequence[int]] | None = None,
        criterion: Criterion = sse,
        combine: Combine = "sum",
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        super().__init__(machines, scale=scale, lmode=lmode)
        for i, m in enumerate(machines):
            self.add_module(str(i), m)
        self._length = len(machines)
        self.criterion = checked(criterion)
        self.combine = check_combine("Parallel", combine)
        self.columns = None if split is None else _columns(split, self._length)
        self._warn_without_target()

    @property
    def machines(self) -> tuple[LearningMachine, ...]:
        """Side by side, from the first feature on, as they are registered now."""
        return tuple(cast(LearningMachine, self._modules[str(i)]) for i in range(self._length))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> LearningMachine:
        return self.machines[index]

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass through all machines.

        Raises:
            ValueError: an input that the split does not fit; outputs that cannot stand side by side.
        """
        state.training, state.x = self.training, x.detach()
        parts = []
        for i, (m, seen) in enumerate(zip(self.machines, self._split(state.x), strict=True)):
            sub = state.sub(str(i))
            sub.wants_x = state.wants_x
            sub.origins = state.origins if self.columns is None else [None] * len(seen)  # nobody makes a part alone
            parts.append(m.remember(seen, sub).detach())
        state.y = _side_by_side(parts)
        return state.y

    def assess_y(self, y: IO, t: IO) -> Tensor:
        """The criterion's cost per row, `[n]`.

        Raises:
            ValueError: the criterion gives anything but one cost per row.
        """
        return per_row(self._criterion(y, t), y)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """Every machine accumulates towards its part of the target."""
        for m, part, sub in self._targets(t, state):
            m.tell(part, sub)
        state.t = state.data["split"] = t

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """What the machines ask of the input; features that no machine sees are their own target."""
        if state.data.get("split") is not t:
            for m, part, sub in self._targets(t, state):
                sub.t = m.step_y(sub.inputs, part, sub)
            state.data["split"] = t
        asked = []
        for i, m in enumerate(self.machines):
            sub = state.sub(str(i))
            asked.append((sub.inputs, self._asked_by(m, sub)))
        if self.columns is not None:
            return _put_together(state.inputs, self.columns, asked, self.combine)
        joint = Joint(state.inputs, self.combine)
        for seen, target in asked:
            joint.ask(range(len(seen)), seen, target)
        return joint.target()

    def step(self, x: IO, t: IO, state: State) -> None:
        """Every machine steps once."""
        self._step_each((m, state.sub(str(i))) for i, m in enumerate(self.machines))

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """Any rows through all machines as they are in this pass.

        Raises:
            TypeError: params are given; ask one machine.
        """
        if params is not None:
            return super().frozen(x, state, params)
        seen = zip(self.machines, self._split(x), strict=True)
        return _side_by_side([m.frozen(part, state.sub(str(i))) for i, (m, part) in enumerate(seen)])

    def gives_target(self, has_target: bool) -> bool:
        """Whether one of the machines gives a target."""
        return any(m.gives_target(has_target) for m in self.machines)

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """Those of the machines that learn without a target."""
        return [found for m in self.machines for found in m.without_target(has_target)]

    @property
    def takes_missing(self) -> bool:
        """Whether all machines take NaN in the inputs as missing values."""
        return all(m.takes_missing for m in self.machines)

    @property
    def _criterion(self) -> Criterion:
        return averaged(self.criterion) if self.loss == "mean" else self.criterion

    def _split(self, x: IO) -> list[IO]:
        if self.columns is None:
            return [x] * self._length
        if len(x) != 1 or x.f.ndim < 2:
            raise ValueError(f"a Parallel that splits expected one input [n, features, ...], got {x}: drop split")
        size, last = x.f.shape[1], self.columns[-1]
        needed = (
            last.stop if isinstance(last, slice) else 1 + max(max(c) for c in cast("list[list[int]]", self.columns))
        )
        if size < needed or (isinstance(last, slice) and size != needed):
            raise ValueError(f"Parallel expected an input of {needed} features, got {list(x.f.shape)}: see split")
        return [IO(x.f[:, columns]) for columns in self.columns]

    def _targets(self, t: IO, state: State) -> list[tuple[LearningMachine, IO, State]]:
        """For each machine its part of the target, with everything noted that its rules may ask for."""
        above = self._say_goal(t, state)
        outputs, criterion = state.outputs.detach(), state.criterion or self._criterion
        if criterion is not sse:
            self._expect_suitable("a Parallel", criterion, t, outputs)
            t = Target.away_from(outputs, output_gradient(criterion, outputs, t))
        subs = [state.sub(str(i)) for i in range(self._length)]
        ys = [sub.outputs.detach() for sub in subs]
        parts = _parts(outputs, t, ys)
        for i, sub in enumerate(subs):
            sub.criterion = state.criterion if criterion is sse else sse
            hand_down(state, sub, _Above(i, [*ys[:i], IO(), *ys[i + 1 :]], above), None)
        return list(zip(self.machines, parts, subs, strict=True))


@dataclass(frozen=True)
class _Above:
    """Outputs of one machine `[k * n, ...]` -> the network's cost per row, those beside it being as in the pass."""

    index: int
    beside: list[IO]
    above: Callable[[IO], Tensor]

    def __call__(self, y: IO) -> Tensor:
        tiled = [held.tile(y.rows // held.rows if held.rows else 1) for held in self.beside]
        tiled[self.index] = y
        return self.above(_side_by_side(tiled))


def _columns(split: Sequence[int] | Sequence[Sequence[int]], length: int) -> list[Columns]:
    groups = list(split)
    if len(groups) != length:
        raise ValueError(
            f"Parallel expected a split for each of {length} machines, got {len(groups)}: one size or list each"
        )
    if all(isinstance(g, int) and g > 0 for g in groups):
        ends = [sum(cast("list[int]", groups)[: i + 1]) for i in range(length)]
        return [slice(end - size, end) for end, size in zip(ends, cast("list[int]", groups), strict=True)]
    lists = [g.tolist() if isinstance(g, Tensor) else g for g in groups]
    if not all(isinstance(g, (list, tuple, range)) and len(g) and len(set(g)) == len(g) for g in lists) or not all(
        isinstance(i, int) and i >= 0 for g in cast("list[list[int]]", lists) for i in g
    ):
        raise ValueError(
            f"Parallel expected split as sizes >= 1 or lists of feature indices >= 0, got {split}: see its docs"
        )
    return [list(g) for g in cast("list[list[int]]", lists)]


def _side_by_side(parts: list[IO]) -> IO:
    if len({len(part) for part in parts}) > 1 or any(v.ndim < 2 for part in parts for v in part):
        raise ValueError(
            f"Parallel expected machines that put out the same number of tensors [n, features, ...], got {parts}: let "
            "each give features"
        )
    return IO(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))


def _parts(y: IO, t: IO, ys: list[IO]) -> list[IO]:
    """The target t of y, which is made of ys side by side, split into theirs."""
    exact = exact_error(y, t)
    if exact is None:
        kind = Target if isinstance(t, Target) else IO
        return [kind(*values) for values in zip(*(_pieces(v, j, ys) for j, v in enumerate(t)), strict=True)]
    errors = zip(*(([None] * len(ys) if e is None else _pieces(e, j, ys)) for j, e in enumerate(exact)), strict=True)
    return [Target.away_from(part, e) for part, e in zip(ys, errors, strict=True)]


def _pieces(v: Tensor, j: int, ys: list[IO]) -> list[Tensor]:
    sizes = [part[j].shape[1] for part in ys]
    if v.ndim < 2 or v.shape[1] != sum(sizes):
        raise ValueError(
            f"Parallel expected a target of {sum(sizes)} features, got {list(v.shape)}: shape it as the output"
        )
    return list(v.split(sizes, 1))


def _put_together(x: IO, columns: Sequence[Columns], asked: list[tuple[IO, IO]], combine: Combine) -> IO:
    """The target of x out of those of its columns; where columns overlap, out of all that is asked of them."""
    value, exact = x.f.detach(), [exact_error(seen, t) for seen, t in asked]
    floating = value.is_floating_point()
    if not _overlap(columns) and any(e is None or (e[0] is None and not floating) for e in exact):
        target = value.clone()
        for part, (_, t) in zip(columns, asked, strict=True):
            target[:, part] = t.f
        return IO(target)
    if not floating:
        return IO(value)
    if all(e is not None and e[0] is None for e in exact):
        return nothing_asked(x)
    error, count = torch.zeros_like(value), torch.zeros(value.shape[1], device=value.device)
    for part, (seen, t) in zip(columns, asked, strict=True):
        (found,) = errors_of(seen, t)
        error[:, part] += 0 if found is None else found
        count[part] += 1
    if combine == "mean":
        error /= count.clamp_min(1).view(-1, *[1] * (value.ndim - 2)).to(error.dtype)
    return Target.away_from(x, [error])


def _overlap(columns: Sequence[Columns]) -> bool:
    lists = [c for c in columns if isinstance(c, list)]
    return len({i for c in lists for i in c}) < sum(map(len, lists))
