"""Direct feedback: every layer learns from the network's own outputs or labels, through fixed random weights.

`DirectFeedback` is the published rule: Noekland (2016), Direct feedback alignment provides learning in deep neural
networks, where the error at the network's outputs goes to each hidden layer at once, delta_l = (B_l e) * phi'(a_l).
`LocalReadout` is another rule, the one that the paper's software ran under that name: the layer lowers the loss of a
fixed random readout of itself, and the network's output error never enters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from zenkai_core.criteria import Criterion, checked, cross_entropy, output_gradient, sse
from zenkai_core.host_copy import HostCopy
from zenkai_core.machine import Machine, StepY
from zenkai_core.noise import NoiseKey
from zenkai_core.rates import Rate, check_rate, clock_for, rate_at, tick
from zenkai_core.state import State
from zenkai_core.values import IO, Target


class _FixedWeights(StepY):
    """One fixed random matrix between all features of the layer's outputs and all of the network's.

    It is a function of the seed and of the numbers of features, which a pass tells: the noise key is all that has to be
    saved, and a copy on another device has the same weights.

    Args: see `DirectFeedback`.
    """

    points = True

    def __init__(self, *, scale: Rate = 1.0, calls: int | None = None, seed: int | None = None) -> None:
        super().__init__()
        name = f"targets.{type(self).__name__}"
        self.scale = check_rate(name, "scale", scale)
        self.clock = clock_for(name, calls, scale=scale)
        self.noise = NoiseKey(seed)
        self._seed = HostCopy()
        self._drawn: tuple[Any, Tensor] | None = None

    def weights(self, state: State) -> Tensor:
        """B, `[features of the layer's outputs, features of the network's outputs]`, for a pass that has its target."""
        return self._weights(_flat(state.outputs), _flat(state.output_error()))

    def _bound(self, layer: int, network: int) -> float:
        """Where the weights end, for these numbers of features."""
        raise NotImplementedError

    def _weights(self, y: Tensor, e: Tensor) -> Tensor:
        seed = self._seed.read(self.noise.key)
        shape = y.shape[1], e.shape[1]
        what = seed, shape, y.dtype, y.device  # a pass in a shorter dtype leaves nothing rounded behind
        if self._drawn is None or self._drawn[0] != what:
            bound = self._bound(*shape)
            values = torch.empty(shape, dtype=torch.float64)
            self._drawn = what, values.uniform_(-bound, bound, generator=NoiseKey(seed).next()).to(y)
        scale = rate_at(self.scale, self.clock)
        return self._drawn[1] if scale == 1 else self._drawn[1] * scale

    def _tick(self) -> None:
        tick(self.clock)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"scale={self.scale}"


class DirectFeedback(_FixedWeights):
    """t = y - B e, with e = dl/dy per row at the network's own outputs.

    The layer's loss, 0.5 * the sum of squared errors, then has the gradient B e at its output, and (B e) * phi' below
    its activation (and BatchNorm): the published update, with any gradient rule for theta. The targets of the layers
    above do not enter; give every layer of such a network `targets.Null()` for x, and the last one no y rule.
    Where the network has several outputs, their errors are laid side by side.

    Args:
        scale: B is uniform within scale / sqrt(features of the network's outputs); a number or a `tansaku.Schedule`.
        calls: over which a schedule runs, from share 0 to 1: batches times epochs. Needed where there is a schedule.
        seed: of the noise key; one draw of torch's global generator if None.

    Raises:
        TypeError: scale is neither a number nor a schedule.
        ValueError: a scale that is not positive and finite, or a schedule without calls.

    >>> from torch import nn
    >>> from zenkai_core import Chain, cross_entropy, targets, theta
    >>> hidden = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
    >>> net = Chain(
    ...     Machine(hidden, theta.Gradient(), targets.Null(), y=DirectFeedback()),
    ...     Machine(nn.Linear(8, 3), theta.Gradient(), targets.Null(), cross_entropy),
    ... )
    >>> net.learn(torch.ones(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])).shape
    torch.Size([])
    """

    def _bound(self, layer: int, network: int) -> float:
        return network**-0.5

    @torch.no_grad()
    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        """A `Target`, whose error B e is exact."""
        y, e = _flat(state.outputs), _flat(state.output_error())
        B = self._weights(y, e)
        self._tick()
        return Target.away_from(state.outputs, _shaped(e.to(y) @ B.T, state.outputs))


class LocalReadout(_FixedWeights):
    """t = y - dc/dy, for the cost c of a fixed random linear readout y B against the network's own target.

    Not direct feedback alignment: each layer is a classifier of its own, and learns without the layers above.

    Args:
        criterion: (readout, the network's target) -> cost per row; the readout is shaped as the network's outputs.
        scale: B is uniform within scale / sqrt(features of the layer's outputs); a number or a `tansaku.Schedule`.
        calls: over which a schedule runs, from share 0 to 1: batches times epochs. Needed where there is a schedule.
        seed: of the noise key; one draw of torch's global generator if None.

    Raises:
        TypeError: scale is neither a number nor a schedule; the criterion is one of torch's losses.
        ValueError: a scale that is not positive and finite, or a schedule without calls.

    Reference: the layers of section 4.6 of the paper, as its software appears to have computed them.
    """

    def __init__(
        self,
        criterion: Criterion = cross_entropy,
        *,
        scale: Rate = 1.0,
        calls: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(scale=scale, calls=calls, seed=seed)
        self.criterion = checked(criterion)

    def _bound(self, layer: int, network: int) -> float:
        return layer**-0.5

    @torch.no_grad()
    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        """A `Target`, whose error dc/dy is exact.

        Raises:
            NeedsLabels: under autograd, which knows no labels, with a criterion other than `sse`.
        """
        errors, goal = state.output_error(), state.goal
        if goal is None or self.criterion is not sse:
            goal = state.labels(f"targets.LocalReadout with criterion={self.criterion!r}")
        y = _flat(state.outputs)
        B = self._weights(y, _flat(errors))
        self._tick()
        readout = IO(*(v for v in _shaped(y @ B, errors) if v is not None))
        e = _flat(output_gradient(self.criterion, readout, goal))
        return Target.away_from(state.outputs, _shaped(e.to(y) @ B.T, state.outputs))


def _flat(values: Iterable[Tensor | None]) -> Tensor:
    """The features of a row side by side, `[n, features]`; what is None or an integer is left out."""
    parts = [v.detach() for v in values if v is not None and v.is_floating_point()]
    return torch.cat([v.flatten(1) if v.ndim > 1 else v.unsqueeze(1) for v in parts], 1)


def _shaped(flat: Tensor, like: Sequence[Tensor | None]) -> list[Tensor | None]:
    """What `_flat` laid side by side, in shapes and dtypes of their own; None for what was left out."""
    found: list[Tensor | None] = []
    for v in like:
        if v is None or not v.is_floating_point():
            found.append(None)
            continue
        width = math.prod(v.shape[1:])
        found.append(flat[:, :width].reshape(v.shape).to(v.dtype))
        flat = flat[:, width:]
    return found
