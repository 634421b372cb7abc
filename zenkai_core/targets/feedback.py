"""Feedback alignment: the error travels down by fixed feedback weights B instead of the transposed forward weights.

Lillicrap, Cownden, Tweed, Akerman (2016), Random synaptic feedback weights support error backpropagation for deep
learning, Nature Communications 7; sign-symmetric feedback: Liao, Leibo, Poggio (2016), How important is weight symmetry
in backpropagation?, and for convolutions Moskovitz, Litwin-Kumar, Abbott (2018), Feedback alignment in deep
convolutional networks. Where backpropagation has delta_below = (W' delta) * phi', here it is (B delta) * phi'
(equation 6 of the paper).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import grad as conv_grad
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from zenkai_core import passes
from zenkai_core.capabilities import qualified
from zenkai_core.compiled import original, uncompiled
from zenkai_core.machine import Machine, StepX
from zenkai_core.noise import NoiseKey
from zenkai_core.rates import Rate, check_rate, clock_for, rate_at, tick
from zenkai_core.state import State
from zenkai_core.targets.unreached import calling, maps_of_cell
from zenkai_core.values import IO, Target

Kind = Literal["random", "sign", "fresh", "uniform"]
Feedback = dict[nn.Module, Tensor]  # layer -> what stands for its weight on the way back, shaped as that weight

_KINDS = ("random", "sign", "fresh", "uniform")
_CONV = (F.conv1d, F.conv2d, F.conv3d)
_CONV_INPUT = (conv_grad.conv1d_input, conv_grad.conv2d_input, conv_grad.conv3d_input)


class FeedbackAlignment(StepX):
    """t_x = x - the error that comes down when every linear map in the module hands it back by B in place of W.

    Linear maps are `nn.Linear` and torch's convolutions, transposed ones too, wherever they stand in the module and
    however often they are called. All else, BatchNorm, activations, dropout, sums of branches, passes the error on by
    its own derivative in the pass. With B = W this is `targets.Gradient()`. Gradients of parameters are those of the
    layer's own loss, as without the rule; feedback decides what the layers below are told. For a network trained by
    feedback alignment throughout, make each layer a machine of its own.

    Recurrent cells, the `out_proj` of `nn.MultiheadAttention`, and `F.linear` with the weight of an `nn.Linear` inside
    (tied weights) are reached as well. Other linear maps that are not called as modules (the projections of attention's
    inputs, `nn.GRU`, products of matrices) hand errors back by their own weights; the first pass warns and names them.

    A module whose first layer with parameters is its only linear map (Linear -> BatchNorm -> ReLU) costs one backward,
    shared with `theta.Gradient`; another costs a second one, which leaves out the gradients of parameters.

    Args:
        kind: "random": B fixed, drawn as torch initialises W, uniform within 1 / sqrt(fan_in). "sign": |R| * sign(W) of
            the present W, with R drawn so, once. "fresh": the same with |R| drawn anew for each backward. "uniform":
            sign(W) times the root mean square of R, 1 / sqrt(3 fan_in).
        scale: a factor of B, a number or a `tansaku.Schedule`.
        calls: over which a schedule runs, from share 0 to 1: batches times epochs. Needed where there is a schedule.
        seed: of the noise key; one draw of torch's global generator if None.

    Raises:
        TypeError: scale is neither a number nor a schedule.
        ValueError: an unknown kind, a scale that is not positive and finite, or a schedule without calls.

    R (or B) of layer i is the buffer `feedback_i`. `feedback(machine)` gives B by layer. The rule notes `angle`, in
    degrees between B and the weights, and `ratio`, of their norms, as means over the linear maps.

    >>> from zenkai_core import theta
    >>> layer = Machine(nn.Linear(3, 2), theta.Null(), FeedbackAlignment("sign", seed=0))
    >>> (B,) = layer.x.feedback(layer).values()
    >>> bool((B.sign() == layer.module.weight.sign()).all())
    True
    """

    requires = frozenset({"differentiable"})
    uses_graph = True

    def __init__(
        self, kind: Kind = "random", *, scale: Rate = 1.0, calls: int | None = None, seed: int | None = None
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise ValueError(
                f"targets.FeedbackAlignment expected a kind of {', '.join(_KINDS)}, got {kind!r}: choose one"
            )
        name = f"targets.{type(self).__name__}"
        self.kind: Kind = kind
        self.scale = check_rate(name, "scale", scale)
        self.clock = clock_for(name, calls, scale=scale)
        self.noise = NoiseKey(seed)
        self._by_function: bool | None = None  # whether functions apply layers' weights; None before a pass
        self._route: Feedback = {}  # what a backward in progress goes by; the graphs of this rule's passes look here

    def bind(self, machine: Machine) -> None:
        """Draws what is fixed, one buffer for each linear map."""
        super().bind(machine)
        if self.kind in ("random", "sign"):
            drawn = self._drawn(machine.module, self.noise)
            for i, values in enumerate(drawn):
                self._keep(f"feedback_{i}", values)

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The moved inputs, detached; a `Target`, from which the layer below reads the whole error exactly."""
        found = machine.gradients(t, state)[0]
        if state.notes is not None and (by_map := self.feedback(machine)):
            pairs = [
                (B.detach().flatten().double(), cast(Tensor, m.weight).detach().flatten()) for m, B in by_map.items()
            ]
            cosines = torch.stack([F.cosine_similarity(B, W.double(), 0) for B, W in pairs])
            ratio = torch.stack([B.norm() / W.norm() for B, W in pairs]).mean()
            self.note(state, angle=cosines.clamp(-1, 1).arccos().rad2deg().mean(), ratio=ratio)
        return Target.away_from(state.inputs, found)

    @torch.no_grad()
    def feedback(self, machine: Machine) -> Feedback:
        """Linear map -> the B in use for it, shaped as its weight; for "fresh", what the next backward will draw."""
        return self._feedback(machine.module, copy.deepcopy(self.noise))

    def passing(self, machine: Machine, state: State) -> Any:
        """Around a pass that a target for x will be asked of: its linear maps can hand errors back either way."""
        if not state.wants_x:
            return super().passing(machine, state)
        return self._watched(machine.module)

    @contextmanager
    def _watched(self, module: nn.Module) -> Iterator[None]:
        """As `routed`; a compiled module runs uncompiled, for compiled code does not call hooks that come later."""
        with uncompiled(), routed(module, self._route):
            if self._by_function is False:
                yield
                return
            rule = qualified(self) if self._by_function is None else None
            with calling(rule, module, linear_maps(module)) as calls:
                yield
                self._by_function = calls.replaced

    def pull(
        self, machine: Machine, x: IO, y: IO, errors: Iterable[Tensor | None], params: list[nn.Parameter], n: int
    ) -> passes.Gradients:
        """Exact for params, by feedback for x; one backward where that is the same to the params."""
        errors = list(errors)
        if not any(v.requires_grad for v in x):
            return passes.pull(machine.module, x, y, errors, params, n)
        exact = []
        if params and not _first_and_only(machine.module):
            exact = passes.pull(machine.module, IO(), y, errors, params, n, retain=True)[1]
            params = []
        with torch.no_grad():
            self._route.update(self._feedback(machine.module, self.noise))
            tick(self.clock)
        try:
            of_x, of_params = passes.pull(machine.module, x, y, errors, params, n)
        finally:
            self._route.clear()
        return of_x, exact or of_params

    def identity(self) -> str:
        """The rule and its kind: what is kept of a random B and of a sign-symmetric one differs."""
        return f"{super().identity()} {self.kind!r}"

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values)

    def _feedback(self, module: nn.Module, noise: NoiseKey) -> Feedback:
        layers = linear_maps(module)
        if self.kind == "uniform":
            return {
                m: m.weight.sign() * (rate_at(self.scale, self.clock) / (3 * _fan_in(m.weight)) ** 0.5) for m in layers
            }
        if self.kind == "fresh":
            held = self._drawn(module, noise)
        else:
            held = [cast(Tensor, getattr(self, f"feedback_{i}")) for i in range(len(layers))]
        if self.clock is not None:  # what is held was drawn without the scale
            held = [values * rate_at(self.scale, self.clock) for values in held]
        if self.kind == "random":
            return dict(zip(layers, held, strict=True))
        return {m: r.abs() * m.weight.sign() for m, r in zip(layers, held, strict=True)}

    def _drawn(self, module: nn.Module, noise: NoiseKey) -> list[Tensor]:
        layers = linear_maps(module)
        generator = noise.next(layers[0].weight.device) if layers else None
        scale = rate_at(self.scale, self.clock) if self.clock is None else 1.0
        return [_uniform(m.weight, generator) * scale for m in layers]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_route": {}}  # a copy has graphs of its own

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.kind!r}, scale={self.scale}"


def linear_maps(module: nn.Module) -> list[Any]:
    """The layers in the module whose output is linear in the input (and a bias), each once."""
    found: list[Any] = []
    for m in module.modules():
        if isinstance(m, (nn.Linear, _ConvNd)):
            found.append(m)
        elif isinstance(m, nn.RNNCellBase):
            found += maps_of_cell(m)
    return found


@contextmanager
def routed(module: nn.Module, route: Feedback) -> Iterator[None]:
    """Passes made inside hand errors back through each linear map by `route[map]` as it is then, or by the weight."""
    given: dict[nn.Module, Tensor] = {}

    def before(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not torch.is_grad_enabled():
            return None
        x = given[m] = args[0] if args else kwargs["input"]
        return ((x.detach(), *args[1:]), kwargs) if args else (args, {**kwargs, "input": x.detach()})

    def after(m: nn.Module, args: tuple[Any, ...], y: Tensor) -> Any:
        x = given.pop(m, None)
        return None if x is None else _Transport.apply(m, route, x, y, cast(Tensor, m.weight).detach())

    handles = [
        handle
        for m in linear_maps(module)
        for handle in (m.register_forward_pre_hook(before, with_kwargs=True), m.register_forward_hook(after))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Transport(torch.autograd.Function):
    """y, computed from a cut x, joined to x again: y's parameters get the error as it is, x by feedback."""

    @staticmethod
    def forward(ctx: Any, layer: nn.Module, route: Feedback, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        ctx.layer, ctx.route, ctx.shape = layer, route, x.shape
        ctx.save_for_backward(weight)
        return y.clone()  # what follows may work in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[2]:
            of_x = transposed(ctx.layer, ctx.route.get(ctx.layer, weight), error, ctx.shape)
        return None, None, of_x, error if ctx.needs_input_grad[3] else None, None


def transposed(layer: Any, weight: Tensor, error: Tensor, shape: torch.Size) -> Tensor:
    """The error at the layer's input, of the given shape, if `weight` were the layer's own."""
    weight = weight.to(error.dtype)
    if isinstance(layer, nn.Linear):
        return error @ weight
    d = len(layer.kernel_size) - 1
    if isinstance(layer, _ConvTransposeNd):
        return _CONV[d](error, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and len(shape) == d + 3:
        return _CONV_INPUT[d](shape, weight, error, layer.stride, layer.padding, layer.dilation, layer.groups)
    by_weight = torch.func.vjp(partial(layer._conv_forward, weight=weight, bias=None), error.new_zeros(shape))[1]
    return by_weight(error)[0]


def _first_and_only(module: nn.Module) -> bool:
    """Whether no parameter's gradient passes a linear map: there is one, called once, with no parameter below it."""
    layers, steps = linear_maps(module), _steps(module)
    if len(layers) != 1 or steps.count(layers[0]) != 1:
        return not layers
    below = steps[: steps.index(layers[0])]
    return not any(True for m in below for _ in m.parameters())


def _steps(module: nn.Module) -> list[nn.Module]:
    """The module taken apart into what it calls one after another, where it is a Sequential."""
    module = original(module)
    return [s for m in module for s in _steps(m)] if type(module) is nn.Sequential else [module]


def _uniform(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """A tensor shaped as the weight, uniform within 1 / sqrt(fan_in), as torch initialises it."""
    return nn.init.kaiming_uniform_(torch.empty_like(weight), a=5**0.5, generator=generator)


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()
