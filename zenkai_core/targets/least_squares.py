"""Targets by ridge regression: the change of x that brings a linear layer's output to its target (section 4.3).

The paper solves for the change of x, so that the damping pulls towards the x of the pass, not towards zero. Roulet,
Harchaoui (2021), Target propagation via regularized inversion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from zenkai_core.linear import check_damping, check_finite, linear_error, ridge
from zenkai_core.machine import Machine, StepX
from zenkai_core.rates import Rate, check_rate, clock_for, rate_at, tick
from zenkai_core.state import State
from zenkai_core.values import IO, Target


class LeastSquares(StepX):
    """t_x = x + d, where d has the least |W d - (t_a - a)|^2 + damping |d|^2: d = (W'W + damping I)^-1 W'(t_a - a).

    For `nn.Linear` alone, t_a - a = t - y. Behind it stands an activation a layer may have: the target of its input is
    t_a = a - (y - t) * phi', a gradient step as in the paper, since an inverse, (t - y) / phi', has no bound where the
    activation is flat. For other activations, or BatchNorm, make two machines: the linear map with this rule, the rest
    with `targets.Gradient()`. Under another criterion l than `sse`, dl/dy stands for y - t, as in `theta.LeastSquares`:
    without an activation no row's cost rises where the curvature of l is at most 1.

    With damping 0 and W square and invertible, the layer maps t_x to t exactly. Towards infinite damping, d turns into
    the direction of the gradient, W'(t_a - a) / damping. One Cholesky factor for all rows, on W's smaller side. The
    rule notes `angle`, in degrees between d and that direction, over all rows together. After the layer's own step, W
    and a are those of the present parameters.

    Args:
        damping: >= 0; with 0 the shortest least-squares change.
        scale: the share of d that is applied, a number or a `tansaku.Schedule`.
        calls: over which a schedule runs, from share 0 to 1: batches times epochs. Needed where there is a schedule.

    Raises:
        TypeError: scale is neither a number nor a schedule.
        ValueError: a negative damping, a scale that is not positive and finite, or a schedule without calls.

    >>> from torch import nn
    >>> from zenkai_core import theta
    >>> layer, state = Machine(nn.Linear(3, 3), theta.Null(), LeastSquares(damping=0.0)), State()
    >>> y, t = layer.remember(IO(torch.randn(4, 3)), state), IO(torch.randn(4, 3))
    >>> bool(torch.allclose(layer.module(layer.step_x(state.inputs, t, state).f), t.f, atol=1e-3))
    True
    """

    requires = frozenset({"linear"})

    def __init__(self, damping: float = 1.0, *, scale: Rate = 1.0, calls: int | None = None) -> None:
        super().__init__()
        self.damping = check_damping("targets.LeastSquares", damping)
        self.scale = check_rate("targets.LeastSquares", "scale", scale)
        self.clock = clock_for("targets.LeastSquares", calls, scale=scale)

    @torch.no_grad()
    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The moved inputs; a `Target`, whose error -d is exact.

        Raises:
            ValueError: t is not what the criterion takes; NaN or infinity in the weights or in the error.
            RuntimeError: the criterion has no gradient.
        """
        criterion = machine.local_criterion(state, t)
        linear, error = linear_error("targets.LeastSquares", machine.module, machine.present(state), t, criterion)
        check_finite("targets.LeastSquares", weights=linear.weight, error=error)
        weight = linear.weight.double()
        one = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
        scale = rate_at(self.scale, self.clock)
        back = ridge(weight, one, self.damping).T * scale  # [out, in]: from a row's error to its change
        tick(self.clock)
        change = error.double() @ back
        if state.notes is not None:
            cosine = F.cosine_similarity(change.flatten(), (error.double() @ weight).flatten(), 0)
            self.note(state, angle=cosine.clamp(-1, 1).arccos().rad2deg())
        return Target.away_from(state.inputs, [change.to(state.inputs.f.dtype)])

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"damping={self.damping}, scale={self.scale}"
