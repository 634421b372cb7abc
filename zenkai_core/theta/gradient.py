"""Gradient descent on the local loss, by any torch optimiser, with n local updates for each global one."""

from __future__ import annotations

from typing import Any

import torch

from zenkai_core.checks import check_whole
from zenkai_core.machine import Machine
from zenkai_core.noise import NoiseKey
from zenkai_core.parameters import minibatches
from zenkai_core.passes import redrawn
from zenkai_core.state import State
from zenkai_core.theta.optimized import Factory, Optimized
from zenkai_core.values import IO


class Gradient(Optimized):
    """The gradient of the layer's cost, through the pass's own graph.

    With the target t = y - dL/dy and 0.5 * the sum of squared errors this is backpropagation, exactly: `.grad` is what
    `loss.mean().backward()` gives (`loss.sum()` for a machine with `loss="sum"`).

    Args:
        factory: a `torch.optim` class or a callable (parameters, **options) -> optimiser.
        n: local updates per `step`; the later ones replay the accumulated passes on the moved parameters, with their
            batch statistics and dropout masks. A backward pass that no step follows is kept too, until
            `Optimizer.zero_grad()` or the machine's `forget()`.
        batch_size: rows of a local minibatch: then each of the n updates is a sweep over the accumulated rows in random
            order, a step of the optimiser for each minibatch, which BatchNorm normalises by itself and for which
            dropout draws masks of its own.
        seed: of that order; one draw of torch's global generator if None.
        options: for the factory, for example `lr=1e-3`.

    Raises:
        TypeError: n or batch_size is no whole number.
        ValueError: n < 1, or batch_size < 1.

    >>> Gradient(torch.optim.SGD, lr=0.1, n=5).n
    5
    """

    requires = frozenset({"parameters", "differentiable"})
    uses_graph = True

    def __init__(
        self,
        factory: Factory = torch.optim.Adam,
        *,
        n: int = 1,
        batch_size: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(factory, **options)
        check_whole("theta.Gradient", n=n, batch_size=batch_size)
        if n < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(
                f"theta.Gradient expected n >= 1 local updates and a batch_size >= 1, got n={n} and "
                f"batch_size={batch_size}: use theta.Null for none"
            )
        self.n, self.batch_size = n, batch_size
        self.noise = None if batch_size is None else NoiseKey(seed)
        self._pending: list[tuple[IO, IO, State]] = []

    @property
    def by_gradient(self) -> bool:  # type: ignore[override]
        """Whether one update by `.grad` is all; further ones replay passes that are kept."""
        return self.n == 1 and self.batch_size is None

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Adds the gradient of the pass to `.grad`; with minibatches, keeps the rows for `step`."""
        if self.batch_size is None:
            self.add(machine.gradients(t, state)[1])
        if self.n > 1 or self.batch_size is not None:
            self._pending.append((state.inputs.detach(), t, state))

    def step(self, machine: Machine) -> None:
        """The optimiser steps n times, or n times for each minibatch."""
        if self.batch_size is not None and self.noise is not None:
            self._sweep(machine, self.batch_size, self.noise.next())
            return
        super().step(machine)
        pending, self._pending = self._pending, []
        for _ in range(self.n - 1):
            for x, t, state in pending:
                self.add(machine.pull(x, machine.replay(x, state), t, state)[1])
            super().step(machine)

    def _sweep(self, machine: Machine, size: int, generator: torch.Generator) -> None:
        pending, self._pending = self._pending, []
        masks = torch.Generator().manual_seed(generator.initial_seed() ^ 1)
        for _ in range(self.n):
            for x, t, state in pending:
                for rows, wanted in minibatches(x, t, size, generator=generator):
                    drawn = redrawn(state, masks)
                    self.add(machine.pull(rows, machine.replay(rows, drawn), wanted, drawn)[1])
                    super().step(machine)

    def forget(self) -> None:
        """Drops the passes that further updates would replay."""
        self._pending = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": []}  # a pass in flight belongs to its graph: copies start without

    def extra_repr(self) -> str:
        """What `print` shows."""
        own = [f"n={self.n}"] if self.n != 1 else []
        own += [f"batch_size={self.batch_size}"] if self.batch_size is not None else []
        return ", ".join([super().extra_repr(), *own])
