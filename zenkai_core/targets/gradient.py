"""Gradient descent on x: the target for the incoming layer is where the local loss falls."""

from __future__ import annotations

import torch

from zenkai_core.checks import check_whole
from zenkai_core.machine import Machine, StepX
from zenkai_core.noise import NoiseKey
from zenkai_core.passes import redrawn
from zenkai_core.rates import Rate, check_rate, clock_for, rate_at, tick
from zenkai_core.state import State
from zenkai_core.values import IO, Target


class Gradient(StepX):
    """t_x = x - scale * dL/dx per row (equation 2 of the paper), n times over.

    One iteration uses the pass's graph, in the same backward that serves `theta.Gradient`. Each further iteration
    replays the pass from the moved x, with fresh statistics of the moved rows and the pass's dropout masks.

    Args:
        n: iterations.
        scale: the step s of each, a number or a `tansaku.Schedule`. With scale 1 and n = 1 a chain is
            backpropagation, exactly.
        batch_size: rows of a local minibatch: then every iteration moves the rows minibatch by minibatch, in an order
            drawn anew; BatchNorm normalises each by itself, and dropout draws masks of its own for each.
        calls: over which a schedule runs, from share 0 to 1: batches times epochs. Needed where there is a schedule.
        seed: of that order; one draw of torch's global generator if None.

    Raises:
        TypeError: n or batch_size is no whole number; scale is neither a number nor a schedule.
        ValueError: n < 1, batch_size < 1, a scale that is not positive and finite, or a schedule without calls.

    An integer input has no gradient: its target is itself.
    """

    requires = frozenset({"differentiable"})
    uses_graph = True

    def __init__(
        self,
        n: int = 1,
        *,
        scale: Rate = 1.0,
        batch_size: int | None = None,
        calls: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_whole("targets.Gradient", n=n, batch_size=batch_size)
        if n < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(
                f"targets.Gradient expected n >= 1 and batch_size >= 1, got n={n} and batch_size={batch_size}: use "
                "targets.Null for no target"
            )
        self.n = n
        self.scale = check_rate("targets.Gradient", "scale", scale)
        self.clock = clock_for("targets.Gradient", calls, scale=scale)
        self.batch_size = batch_size
        self.noise = None if batch_size is None else NoiseKey(seed)

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The moved inputs, detached; a `Target`, from which the layer below reads the whole gradient exactly."""
        scale = rate_at(self.scale, self.clock)
        tick(self.clock)
        if self.batch_size is not None and self.noise is not None:
            return self._sweep(machine, t, state, scale, self.batch_size, self.noise.next())
        errors = [g if g is None or scale == 1 else g * scale for g in machine.gradients(t, state)[0]]
        x = Target.away_from(state.inputs, errors)
        for _ in range(self.n - 1):
            leaves = x.leaves(requires_grad=True)
            further = machine.pull(leaves, machine.replay(leaves, state), t, state, theta=False)[0]
            pairs = zip(errors, further, strict=True)
            errors = [e if e is None or g is None else e.add(g, alpha=scale) for e, g in pairs]
            x = Target.away_from(state.inputs, errors)
        return x

    def _sweep(self, machine: Machine, t: IO, state: State, scale: float, size: int, generator: torch.Generator) -> IO:
        x, masks = state.inputs.clone(), torch.Generator().manual_seed(generator.initial_seed() ^ 1)
        for _ in range(self.n):
            for rows in torch.randperm(x.rows, generator=generator).split(int(size)):
                part = x.take(rows).leaves(requires_grad=True)
                drawn = redrawn(state, masks)
                found = machine.pull(part, machine.replay(part, drawn), t.take(rows), drawn, theta=False)[0]
                for value, g in zip(x, found, strict=True):
                    if g is not None:
                        value[rows] -= scale * g
        return x

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"n={self.n}, scale={self.scale}" + (
            "" if self.batch_size is None else f", batch_size={self.batch_size}"
        )
