"""The local delta rule: error times input, with no call of autograd through the module."""

from __future__ import annotations

import torch

from zenkai_core.linear import linear_error
from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.theta.optimized import Optimized
from zenkai_core.values import IO


class Delta(Optimized):
    """Widrow and Hoff's rule for a linear layer: dW = e' x / n with e = dl/dy * slope, (y - t) * slope for `sse`.

    l is the layer's criterion, whose gradient is a closed form for all of `zenkai_core.criteria` but `margin`; that and
    a criterion of yours without a `gradient` are differentiated by autograd on their own. The slope of the activation
    behind the layer is read from its output; for a sign it is 1, which is the perceptron's rule. Where the activation
    has a gradient, the update is the gradient of the criterion: for `nn.Linear` under `cross_entropy`, multinomial
    logistic regression.

    Args:
        factory: a `torch.optim` class or a callable (parameters, **options) -> optimiser; it only steps.
        options: for the factory, for example `lr=1e-3`.

    Reference: Widrow, Hoff (1960), Adaptive switching circuits; Rosenblatt (1958), The perceptron.
    """

    requires = frozenset({"parameters", "linear"})

    @torch.no_grad()
    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Adds e' x and the sum of e over rows to `.grad`, divided by the rows where `machine.loss` is "mean".

        Raises:
            ValueError: t is not what the criterion takes.
            RuntimeError: the criterion has no gradient.
        """
        criterion = machine.local_criterion(state, t)
        linear, error = linear_error("theta.Delta", machine.module, state.outputs, t, criterion)
        x, error = state.inputs.f, error / (t.rows if machine.loss == "mean" else 1)
        error = error.flatten(0, -2)
        pairs = [(linear.weight, error.T @ x.flatten(0, -2).to(error.dtype))]
        if linear.bias is not None:
            pairs.append((linear.bias, error.sum(0)))
        self.add((p, g) for p, g in pairs if p.requires_grad)
