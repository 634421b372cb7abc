"""Feedback that learns: B moves as W does, and comes to equal it, though neither ever sees the other.

Kolen, Pollack (1994), Backpropagation without weight transport; Akrout, Wilson, Humphreys, Lillicrap, Tweed (2019),
Deep learning without weight transport, equations 16 and 17: W and B both move by the product of the layer's input and
its error, and both decay, so that B - W shrinks by the same share at each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import passes
from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.targets.feedback import FeedbackAlignment, linear_maps
from zenkai_core.theta.optimized import Factory, Optimizing
from zenkai_core.values import IO


class KolenPollack(FeedbackAlignment, Optimizing):
    """Feedback alignment whose random B is moved by the gradient of W, in an optimiser of its own.

    Give it the optimiser, the rate and the weight decay that `theta.Gradient` has: then B - W is multiplied by
    1 - lr * weight_decay at each step (SGD and AdamW). Without decay it stays as it is.

    Args:
        factory: a `torch.optim` class or a callable (parameters, **options) -> optimiser.
        scale: a factor of the B that it begins with.
        seed: of that B; one draw of torch's global generator if None.
        options: for the factory, for example `lr=1e-3, weight_decay=0.1`.

    B of layer i is the parameter `feedback_i`.

    >>> from zenkai_core import theta
    >>> options = {"lr": 0.1, "weight_decay": 1.0}
    >>> layer = Machine(
    ...     nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, **options), KolenPollack(torch.optim.SGD, **options)
    ... )
    >>> before = (layer.x.feedback_0 - layer.module.weight).norm()
    >>> y = layer(torch.ones(4, 3, requires_grad=True))
    >>> y.square().mean().backward()
    >>> layer.step_told()
    >>> round(((layer.x.feedback_0 - layer.module.weight).norm() / before).item(), 5)
    0.9
    """

    def __init__(
        self, factory: Factory = torch.optim.AdamW, *, scale: float = 1.0, seed: int | None = None, **options: Any
    ) -> None:
        if not callable(factory):
            raise TypeError(
                f"targets.KolenPollack expected an optimiser class such as torch.optim.AdamW, got "
                f"{type(factory).__name__}: give it what theta.Gradient has"
            )
        if isinstance(scale, tansaku.Schedule):
            raise TypeError(
                f"targets.KolenPollack expected scale as a number, got {scale!r}: B is learned, and scale is a factor "
                "of its first values; schedule the learning rate of `optimizer` instead"
            )
        super().__init__("random", scale=scale, seed=seed)
        self.factory, self.options = factory, options

    by_gradient = delivers = True

    def moves(self, machine: Machine) -> list[nn.Parameter]:
        """B of every linear map."""
        return list(self.parameters())

    def bind(self, machine: Machine) -> None:
        """Draws B, and builds the optimiser over it."""
        super().bind(machine)
        self.build(machine)

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Adds the gradient of each W to that of its B, where a target for x will be asked of the pass."""
        if state.wants_x and self.moves(machine):  # a module without linear maps has no feedback to learn
            of_weights = {p: g for p, g in machine.gradients(t, state)[1] if g is not None}
            pairs = zip(self.moves(machine), linear_maps(machine.module), strict=True)
            grads = ((B, of_weights.get(m.weight)) for B, m in pairs)
            self.add((B, None if g is None else g.clone()) for B, g in grads)  # W's own may be clipped in place

    def step(self, machine: Machine) -> None:
        """Moves B by the optimiser."""
        if self.moves(machine):
            Optimizing.step(self, machine)

    def pull(
        self, machine: Machine, x: IO, y: IO, errors: Iterable[Tensor | None], params: list[nn.Parameter], n: int
    ) -> passes.Gradients:
        """As for all feedback, and always with the gradients of W."""
        return super().pull(machine, x, y, errors, params or machine.trainable(), n)

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(values))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{Optimizing.extra_repr(self)}, scale={self.scale}"
