"""Difference target propagation: the inverse tells only how far, and in which direction, the target lies.

References: Lee, Zhang, Fischer, Bengio (2015), Difference target propagation; Meulemans, Carzaniga, Suykens,
Sacramento, Grewe (2020), A theoretical framework for target propagation.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.targets.reverse import Reverse, Rows
from zenkai_core.theta.optimized import Factory
from zenkai_core.values import IO, Target

Reconstruct = Literal["input", "change"]


class Difference(Reverse):
    """t_x = x + g(t) - g(y), with an inverse g as for `Reverse` (Lee et al. 2015, equation 15).

    What g does wrong, it does alike at t and at y: the error cancels to first order, and a layer that has reached its
    target (t = y) asks for no change below. With an exact inverse g(y) = x, and both rules agree, but for what the
    layer does not keep: a clamped sigmoid, the constant of a softmax. After the layer's own step, y is what the present
    parameters make of the pass.

    Args:
        inverse, factory, n, std, seed, options: as for `Reverse`.
        reconstruct: what a learned g is trained for. "input": x + e, from f(x + e), as for `Reverse`. "change": the
            same, but by the corrected inverse, x + g(f(x + e)) - g(f(x)), so that only changes count: the difference
            reconstruction loss of Meulemans et al. (2020), for one layer. It needs noise.

    Raises:
        TypeError, ValueError: as for `Reverse`; another word for reconstruct; "change" with std = 0.

    >>> rule = Difference(nn.Linear(3, 2), torch.optim.Adam, lr=1e-3, std=0.3)
    >>> from zenkai_core import theta
    >>> layer, state = Machine(nn.Linear(2, 3), theta.Gradient(), rule), State()
    >>> y = layer.forward_nn(IO(torch.randn(4, 2)), state)
    >>> torch.equal(layer.step_x(state.inputs, y.detach(), state).f, state.inputs.f)
    True
    """

    def __init__(
        self,
        inverse: nn.Module | None = None,
        factory: Factory = torch.optim.Adam,
        *,
        n: int = 1,
        std: float = 0.1,
        reconstruct: Reconstruct = "input",
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(inverse, factory, n=n, std=std, seed=seed, **options)
        if reconstruct not in ("input", "change") or (reconstruct == "change" and std == 0):
            raise ValueError(
                f"targets.Difference expected to reconstruct 'input', or 'change' with std > 0, got {reconstruct!r} "
                f"with std={std}: choose one of them"
            )
        self.reconstruct = reconstruct

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The corrected inverse of t, detached; a `Target`, from which the layer below reads the error exactly."""
        self._expect_place(machine, t, state)
        x, y = state.inputs.detach(), machine.present(state)
        there, here = self._reversed(machine, t, state), self._reversed(machine, y, state)
        if state.notes is not None:
            self._note(state, here)
        triples = zip(x, here, there, strict=True)
        return Target.away_from(state.inputs, [a - b if v.is_floating_point() else None for v, a, b in triples])

    def _reconstruction(self, rows: Rows) -> IO:
        if self.reconstruct == "input":
            return super()._reconstruction(rows)
        k = rows.x.rows
        both = self._through(_cat(rows.y, rows.y_0), _cat(rows.x, rows.x_0))  # one pass, so one normalisation
        return IO(*(a + g[:k] - g[k:] for a, g in zip(rows.x_0, both, strict=True)))


def _cat(a: IO, b: IO) -> IO:
    return IO(*(torch.cat(pair) for pair in zip(a, b, strict=True)))
