"""Parameters by ridge regression: the change of W and b that brings a linear layer to its targets (section 4.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zenkai_core.capabilities import linear_parts
from zenkai_core.linear import check_damping, check_finite, linear_error, ridge, ridge_normal
from zenkai_core.machine import Machine, StepTheta
from zenkai_core.rates import Rate, check_rate, clock_for, rate_at, tick
from zenkai_core.state import State
from zenkai_core.values import IO


class LeastSquares(StepTheta):
    """The dW, db of least sum |dW x + db - (t_a - a)|^2 + damping |dW|^2 over the rows accumulated since the last step.

    t_a - a is the error at the linear map's output, -(y - t) * phi' behind an activation (see `targets.LeastSquares`).
    The damping holds the weights to where they are; the bias is free. In a machine with `loss="mean"` the sum is
    divided by the number of rows, so that for large dampings the step is that of gradient descent with a rate of
    1 / damping (of the gradient that remains once the bias has moved).

    Under another criterion l than `sse` it is -dl/dy * phi': a Gauss-Newton step that takes the curvature of l for the
    identity. Where it is at most that, as for `huber`, `cross_entropy` and `binary_cross_entropy`, the sum bounds l
    from above, and without an activation no step raises l (Boehning, Lindsay 1988). `absolute_error` and `margin` have
    kinks, over which a step may leap: give it a small lr.

    Several passes before a step are solved for together, as one large batch: their losses are not to be divided.
    Rows are kept while they are fewer than the inputs, and solved on that side; more are added up to X'X and X'E.

    Args:
        damping: >= 0; with 0 the shortest least-squares change.
        lr: the share of the change that a step applies, a number or a `tansaku.Schedule`.
        calls: over which a schedule runs, from share 0 to 1: the steps of the training. Needed where there is one.

    Raises:
        TypeError: lr is neither a number nor a schedule.
        ValueError: a negative damping, an lr that is not positive and finite, or a schedule without calls.

    Reference: section 4.3 of the paper; Boehning, Lindsay (1988), Monotonicity of quadratic-approximation algorithms.

    >>> from torch import nn
    >>> from zenkai_core import targets
    >>> layer = Machine(nn.Linear(2, 1), LeastSquares(damping=0.0), targets.Null())
    >>> x = torch.randn(8, 2)
    >>> _ = layer.learn(x, x.sum(1, keepdim=True) + 3)
    >>> bool(layer.test(x, x.sum(1, keepdim=True) + 3) < 1e-8)
    True
    """

    requires = frozenset({"parameters", "linear"})
    delivers = True  # it adds no gradients

    def __init__(self, damping: float = 1.0, *, lr: Rate = 1.0, calls: int | None = None) -> None:
        super().__init__()
        self.damping = check_damping("theta.LeastSquares", damping)
        self.lr = check_rate("theta.LeastSquares", "lr", lr)
        self.clock = clock_for("theta.LeastSquares", calls, lr=lr)
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._sums: tuple[Tensor, Tensor] | None = None  # [x, 1]'[x, 1] and [x, 1]'e of the rows that are not kept
        self._count = 0

    @torch.no_grad()
    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Adds the pass's rows.

        Raises:
            ValueError: t is not what the criterion takes; NaN or infinity in the inputs or in the error.
            RuntimeError: the criterion has no gradient.
        """
        criterion = machine.local_criterion(state, t)
        linear, error = linear_error("theta.LeastSquares", machine.module, state.outputs, t, criterion)
        check_finite("theta.LeastSquares", inputs=state.inputs.f, error=error)
        x = state.inputs.f.detach().flatten(0, -2).to(torch.float64, copy=True)  # the caller may write into x
        self._rows.append((x, -error.flatten(0, -2).double()))
        self._count += t.rows
        if self._sums is not None or sum(len(x) for x, _ in self._rows) > linear.in_features:
            x, e = self._kept()
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            gram, moment = x.T @ x, x.T @ e
            if self._sums is not None:
                gram, moment = self._sums[0] + gram, self._sums[1] + moment
            self._rows, self._sums = [], (gram, moment)

    @torch.no_grad()
    def step(self, machine: Machine) -> None:
        """Solves, and moves W and b by the share `lr` of what came out; nothing where nothing was accumulated."""
        parts = linear_parts(machine.module)
        if self._count and parts is not None:
            linear, lr = parts[0], rate_at(self.lr, self.clock)
            tick(self.clock)
            damping = self.damping * (self._count if machine.loss == "mean" else 1)
            fits_bias = linear.bias is not None and linear.bias.requires_grad
            dW, db = self._solution(damping, linear.weight.requires_grad, fits_bias)
            linear.weight.add_(dW.to(linear.weight.dtype), alpha=lr)
            if fits_bias:
                linear.bias.add_(db.to(linear.bias.dtype), alpha=lr)
        self.forget()

    def forget(self) -> None:
        """Drops the rows accumulated since the last step."""
        self._rows, self._sums, self._count = [], None, 0

    def _solution(self, damping: float, of_weight: bool, of_bias: bool) -> tuple[Tensor, Tensor]:
        """Changes of W and b; a free bias takes the means along, so that W is solved on rows less their means."""
        if self._sums is None:
            x, e = self._kept()
            mean_x, mean_e = x.mean(0), e.mean(0)
            dW = ridge(x - mean_x, e - mean_e, damping) if of_bias else ridge(x, e, damping)
        else:
            gram, moment = self._sums
            total = gram[-1, :-1]
            mean_x, mean_e = total / gram[-1, -1], moment[-1] / gram[-1, -1]
            gram, moment = gram[:-1, :-1], moment[:-1]
            if of_bias:
                gram, moment = gram - total.outer(mean_x), moment - total.outer(mean_e)
            dW = ridge_normal(gram, moment, damping)
        if not of_weight:
            dW = torch.zeros_like(dW)
        return dW.T, mean_e - mean_x @ dW

    def _kept(self) -> tuple[Tensor, Tensor]:
        x, e = zip(*self._rows, strict=True)
        return torch.cat(x), torch.cat(e)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": [], "_sums": None, "_count": 0}  # a copy starts without a pass in flight

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"damping={self.damping}, lr={self.lr}"
