"""Difference target propagation: the inverse tells only how far, and in which direction, the target lies.

Reference: Lee, Zhang, Fischer, Bengio (2015), Difference target propagation.
"""

from __future__ import annotations

from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.targets.reverse import Reverse
from zenkai_core.values import IO, Target


class Difference(Reverse):
    """t_x = x + g(t) - g(y), with an inverse g as for `Reverse` (Lee et al. 2015, equation 15).

    What g does wrong, it does alike at t and at y: the error cancels to first order, and a layer that has reached its
    target (t = y) asks for no change below. With an exact inverse g(y) = x, and both rules agree, but for what the
    layer does not keep: a clamped sigmoid, the constant of a softmax. After the layer's own step, y is what the present
    parameters make of the pass.

    Arguments and errors are those of `Reverse`.

    >>> import torch
    >>> from torch import nn
    >>> from zenkai_core import theta
    >>> rule = Difference(nn.Linear(3, 2), torch.optim.Adam, lr=1e-3, std=0.3)
    >>> layer, state = Machine(nn.Linear(2, 3), theta.Gradient(), rule), State()
    >>> y = layer.forward_nn(IO(torch.randn(4, 2)), state)
    >>> torch.equal(layer.step_x(state.inputs, y.detach(), state).f, state.inputs.f)
    True
    """

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The corrected inverse of t, detached; a `Target`, from which the layer below reads the error exactly."""
        x, y = state.inputs.detach(), state.outputs.detach()
        if state.version != machine.version:
            y = machine.replay(x, state).detach()
        there, here = self._reversed(machine, t, state), self._reversed(machine, y, state)
        triples = zip(x, here, there, strict=True)
        return Target.away_from(state.inputs, [a - b if v.is_floating_point() else None for v, a, b in triples])
