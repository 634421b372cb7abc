"""Gradient descent on x: the target for the incoming layer is where the local loss falls."""

from __future__ import annotations

from torch import Tensor

from zenkai_core.machine import Machine, StepX
from zenkai_core.state import State
from zenkai_core.values import IO, Target


class Gradient(StepX):
    """t_x = x - scale * dL/dx per row (equation 2 of the paper), n times over.

    One iteration uses the pass's graph, in the same backward that serves `theta.Gradient`. Each further iteration
    replays the pass from the moved x, with fresh statistics of the moved rows and the pass's dropout masks.

    Args:
        n: iterations.
        scale: the step s of each. With scale 1 and n = 1 a chain is backpropagation, exactly.

    Raises:
        ValueError: n < 1, or a scale that is not positive.

    An integer input has no gradient: its target is itself.
    """

    requires = frozenset({"differentiable"})
    uses_graph = True

    def __init__(self, n: int = 1, *, scale: float = 1.0) -> None:
        super().__init__()
        if n < 1 or not scale > 0:
            raise ValueError(
                f"targets.Gradient expected n >= 1 and scale > 0, got n={n} and scale={scale}: use "
                "targets.Null for no target"
            )
        self.n = n
        self.scale = scale

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The moved inputs, detached; a `Target`, from which the layer below reads the whole gradient exactly."""
        errors = [self._scaled(g) for g in machine.gradients(t, state)[0]]
        x = Target.away_from(state.inputs, errors)
        for _ in range(self.n - 1):
            leaves = x.leaves(requires_grad=True)
            further = machine.pull(leaves, machine.replay(leaves, state), t, state, theta=False)[0]
            pairs = zip(errors, further, strict=True)
            errors = [e if e is None or g is None else e.add(g, alpha=self.scale) for e, g in pairs]
            x = Target.away_from(state.inputs, errors)
        return x

    def _scaled(self, g: Tensor | None) -> Tensor | None:
        return g if g is None or self.scale == 1 else g * self.scale

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"n={self.n}, scale={self.scale}"
