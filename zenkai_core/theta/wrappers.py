"""Rules around a rule for theta: fewer steps, gentler steps, steps of some parameters only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zenkai_core.checks import check_whole
from zenkai_core.machine import Machine, StepTheta
from zenkai_core.noise import NoiseKey
from zenkai_core.state import State
from zenkai_core.theta.optimized import Factory, Optimized
from zenkai_core.values import IO
from zenkai_core.wrapping import Wrapping

Masks = Mapping[str, Tensor]


class _Around(Wrapping, StepTheta):
    kind = StepTheta

    @property
    def learns(self) -> bool:  # type: ignore[override]
        """As the inner rule does."""
        return self.rule.learns

    @property
    def takes_missing(self) -> bool:  # type: ignore[override]
        """As the inner rule does."""
        return self.rule.takes_missing

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """As the inner rule does."""
        self.rule.accumulate(machine, t, state)

    def limited_to(self, masks: Masks) -> None:
        """Tells the inner rule."""
        self.rule.limited_to(masks)

    def moved(self, machine: Machine) -> None:
        """Tells the inner rule."""
        self.rule.moved(machine)


class Postponed(_Around):
    """The inner rule steps once in so many steps, with the gradients of all of them.

    Under `loss="mean"` it is one step on the mean of the batches' gradients: batches of equal size count as one large
    batch (BatchNorm apart, which sees each batch alone). Under `loss="sum"` the gradients add up.

    Args:
        rule: one that works by `.grad`, with one update per step.
        every: steps of the machine for each of the rule.

    Raises:
        TypeError: the rule keeps something other than gradients; `theta.Fit` has `rows` for this. Every is no whole
            number.
        ValueError: every < 1, or a rule with several local updates.

    >>> from torch import nn
    >>> from zenkai_core import Machine, targets
    >>> from zenkai_core.theta import Gradient
    >>> layer = Machine(nn.Linear(2, 1), Postponed(Gradient(torch.optim.SGD, lr=0.1), every=2), targets.Null())
    >>> x, t = torch.ones(4, 2), torch.ones(4, 1)
    >>> costs = [layer.learn(x, t).item() for _ in range(3)]
    >>> costs[0] == costs[1] > costs[2]
    True
    """

    def __init__(self, rule: StepTheta, *, every: int) -> None:
        super().__init__(rule)
        if not isinstance(rule, Optimized):
            raise TypeError(
                f"theta.Postponed expected a rule that works by gradients, got {type(rule).__name__}: theta.Fit waits "
                "for its rows by itself"
            )
        check_whole("theta.Postponed", every=every)
        if every < 1 or getattr(rule, "n", 1) != 1:
            raise ValueError(
                f"theta.Postponed expected every >= 1 and a rule of one update per step, got every={every} and "
                f"n={getattr(rule, 'n', 1)}: further updates would replay passes that are gone"
            )
        self.every = every
        self._steps = 0
        self._held: dict[str, Tensor] = {}

    def step(self, machine: Machine) -> None:
        """Keeps the gradients; every so many times, hands them to the inner rule, which steps."""
        self._steps += 1
        named = {name: p for name, p in machine.module.named_parameters() if p.grad is not None}
        for name, p in named.items():
            grad = p.grad.detach()  # type: ignore[union-attr]
            self._held[name] = self._held[name].to(grad) + grad if name in self._held else grad.clone()
            p.grad = None
        if self._steps % self.every:
            return
        share = 1 / self.every if machine.loss == "mean" else 1.0
        held, self._held = self._held, {}
        for name, p in machine.module.named_parameters():
            if name in held:
                p.grad = held[name].to(p) * share  # what was loaded may come from another dtype or device
        self.rule.step(machine)

    def get_extra_state(self) -> dict[str, Any]:
        """What a resumed run needs to step when, and by what, the unbroken one would."""
        return {"steps": self._steps, "held": dict(self._held)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self._steps = state["steps"]
        self._held = {name: v.clone() for name, v in state["held"].items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._held = {name: fn(v) for name, v in self._held.items()}
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.rule!r}, every={self.every}"


class Filtered(_Around, Optimized):  # type: ignore[override]
    """Large updates smoothed: what the inner rule wants is a goal that the parameters approach by a second optimiser.

    With w the parameters before the step and v those that the inner rule would leave, the parameters move from w by
    the gradient w - v of 0.5 * |w - v|^2. SGD with lr = 0.1 takes a tenth of each update; with momentum it is a low
    pass; Adam bounds every update by its rate. For rules that leap: least squares, searches, large rates. A
    `theta.Search` goes on from where it is, ahead of the parameters that follow it.

    Args:
        rule: the inner rule.
        factory: a `torch.optim` class or a callable (parameters, **options) -> optimiser.
        options: for the factory, for example `lr=0.1`.

    Reference: the `ParamFilter` of Zenkai (Short, 2023).

    >>> from torch import nn
    >>> from zenkai_core import Machine, targets
    >>> from zenkai_core.theta import Gradient
    >>> rule = Filtered(Gradient(torch.optim.SGD, lr=1.0), torch.optim.SGD, lr=0.5)
    >>> layer = Machine(nn.Linear(1, 1, bias=False), rule, targets.Null())
    >>> layer.module.weight.data.fill_(4.0).item(), layer.learn(torch.ones(1, 1), torch.zeros(1, 1)).item()
    (4.0, 8.0)
    >>> layer.module.weight.item()  # the inner rule alone would have gone to 0
    2.0
    """

    def __init__(self, rule: StepTheta, factory: Factory = torch.optim.SGD, **options: Any) -> None:
        super().__init__(rule, factory, **options)

    def bind(self, machine: Machine) -> None:
        """Binds the inner rule, and builds the optimiser over the module's trainable parameters."""
        Wrapping.bind(self, machine)
        self.build(machine)

    def step(self, machine: Machine) -> None:
        """The inner rule steps, and the parameters go part of the way."""
        parameters = machine.trainable()
        before = [p.detach().clone() for p in parameters]
        self.rule.step(machine)
        with torch.no_grad():
            wanted = [(p, old - p) for p, old in zip(parameters, before, strict=True)]
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
        self.add(wanted, hooks=False)  # those of the inner rule's gradients have run
        super().step(machine)
        self.rule.moved(machine)


class Limited(_Around):
    """Only some entries of the parameters move; the others are put back after each step of the inner rule.

    A `theta.Search` searches these entries alone; where they are drawn anew, each step begins a new search.

    Args:
        rule: the inner rule.
        masks: name of a parameter -> booleans that broadcast to it, True where it may move; a parameter without a mask
            stays. Or a callable (generator) -> masks, asked at each step, for features drawn anew each time.
        seed: of the generator; one draw of torch's global generator if None.

    Raises:
        ValueError: a mask without a parameter, or one that does not broadcast to it (at the machine's construction, or
            at the step for a callable).

    >>> from torch import nn
    >>> from zenkai_core import Machine, targets
    >>> from zenkai_core.theta import Gradient
    >>> first_unit = {"weight": torch.tensor([[True], [False]]), "bias": torch.tensor([True, False])}
    >>> layer = Machine(nn.Linear(3, 2), Limited(Gradient(torch.optim.SGD, lr=0.1), first_unit), targets.Null())
    >>> before = layer.module.weight.detach().clone()
    >>> _ = layer.learn(torch.ones(4, 3), torch.ones(4, 2))
    >>> (layer.module.weight != before).all(1).tolist()
    [True, False]
    """

    def __init__(
        self,
        rule: StepTheta,
        masks: Masks | Callable[[torch.Generator], Masks],
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(rule)
        if not isinstance(masks, Mapping) and not callable(masks):
            raise TypeError(
                f"theta.Limited expected masks by name or a callable that draws them, got {type(masks).__name__}: for "
                'example {"weight": mask}'
            )
        self.masks = masks
        self._outer: Masks | None = None  # of a rule around this one
        self.noise = NoiseKey(0 if isinstance(masks, Mapping) else seed)  # fixed masks draw nothing

    def bind(self, machine: Machine) -> None:
        """Checks the masks, and binds the inner rule."""
        if isinstance(self.masks, Mapping):
            _check(self.masks, machine)
        super().bind(machine)

    def step(self, machine: Machine) -> None:
        """The inner rule steps; entries outside the masks are as before."""
        masks: Masks
        if isinstance(self.masks, Mapping):
            masks = self.masks
        else:
            masks = self.masks(self.noise.next())
            _check(masks, machine)
        if (outer := self._outer) is not None:
            masks = {name: mask & outer[name] for name, mask in masks.items() if name in outer}
        self.rule.limited_to(masks)
        before = {name: p.detach().clone() for name, p in machine.module.named_parameters()}
        self.rule.step(machine)
        with torch.no_grad():
            for name, p in machine.module.named_parameters():
                mask = masks.get(name)
                p.copy_(before[name] if mask is None else torch.where(mask.to(p.device), p, before[name]))
        self.rule.moved(machine)

    def limited_to(self, masks: Masks) -> None:
        """Notes what a rule around this one allows: an entry moves where both do."""
        self._outer = masks


def _check(masks: Masks, machine: Machine) -> None:
    parameters = dict(machine.module.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise ValueError(
                f"theta.Limited expected masks for {', '.join(parameters) or 'no parameter'}, got one for {name!r}: "
                "name the module's parameters"
            )
        shape = parameters[name].shape
        try:
            fits = torch.broadcast_shapes(mask.shape, shape) == shape and mask.dtype == torch.bool
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"theta.Limited expected booleans that broadcast to {list(shape)} for {name!r}, got {mask.dtype} "
                f"{list(mask.shape)}: True where an entry may move"
            )
