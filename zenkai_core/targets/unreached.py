"""Linear maps that a module computes without calling them as modules, so that feedback rules cannot replace them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

# fmt: off
_LINEAR = frozenset(
    {
        "linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addmv", "addbmm",
        "baddbmm", "einsum", "tensordot", "inner", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
        "conv_transpose2d", "conv_transpose3d", "conv_tbc", "gru_cell", "lstm_cell", "rnn_tanh_cell",
        "rnn_relu_cell", "gru", "lstm", "rnn_tanh", "rnn_relu", "multi_head_attention_forward",
        "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
    }
)
# fmt: on


_ARITHMETIC = frozenset(
    {f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "pow") for side in ("", "r")} | {"__neg__"}
)
_CELLS = ("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell")


class Calls(TorchFunctionMode):
    """Calls layers whose weights enter functions, and notes the weights of which it cannot.

    `F.linear` with the weight of a layer becomes a call of that layer without its bias, so that its hooks see it. A
    `nn.MultiheadAttention` applies its `out_proj` by a function, too: the function gets the identity instead, and the
    layer is called on what comes out.

    Args:
        module: whose passes are watched.
        reached: the layers inside whose calls count as reached.
    """

    def __init__(self, module: nn.Module, reached: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = {id(m.weight): m for m in reached if isinstance(m, nn.Linear)}
        self.replaced = False  # whether a function was replaced by the call of a layer
        self.names = {_storage(p): name for name, p in module.named_parameters() if p.ndim > 1}
        self.own = {_storage(v) for v in (*module.parameters(), *module.buffers())}
        self.derived: list[Tensor] = []  # kept, so that no other tensor takes the memory that `names` knows
        self.inside = 0  # layers that are reached, and whose forward is running
        self.found: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not self.inside and name in ("linear", "multi_head_attention_forward"):
            bound = _bound(func, args, kwargs)
            weight: Any = bound.arguments.get("weight" if name == "linear" else "out_proj_weight")
            layer = self.layers.get(id(weight))
            if layer is not None and name == "linear":
                self.replaced = True
                bias, own = bound.arguments.get("bias"), layer.bias
                try:
                    layer._parameters["bias"] = None
                    y = layer(bound.arguments["input"])
                finally:
                    layer._parameters["bias"] = own
                return y if bias is None else y + bias
            if layer is not None:
                self.replaced = True
                bound.arguments["out_proj_weight"] = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
                bound.arguments["out_proj_bias"] = None
                args, kwargs = bound.args, bound.kwargs
                self._note(args, kwargs)
                y, attention = func(*args, **kwargs)
                return layer(y), attention
        if not self.inside and name in _CELLS:
            weights = [v for v in args if isinstance(v, Tensor) and id(v) in self.layers]
            if len(weights) == 2:
                self.replaced = True
                ih, hh = (self.layers[id(w)] for w in weights)
                return _cell(name, args[0], args[1], args[-2], args[-1], ih, hh)
        result = func(*args, **kwargs)
        if not self.inside:
            if name in _LINEAR:
                self._note(args, kwargs)
            elif not name.startswith("__") or name in _ARITHMETIC:
                self._follow(args, kwargs, result)
        return result

    def _note(self, args: Any, kwargs: Any) -> None:
        for v in _tensors((args, kwargs)):
            if (name := self._name(v)) is not None:
                self.found[name] = None

    def _follow(self, args: Any, kwargs: Any, result: Any) -> None:
        """Gives what was computed from weights alone, such as `weight.sign()` or `weight * mask`, the weight's name."""
        given = [v for v in _tensors((args, kwargs)) if v.ndim]
        names = [name for v in given if (name := self._name(v)) is not None]
        if names and all(self._name(v) is not None or _storage(v) in self.own for v in given):
            for v in _tensors(result):
                if v.ndim > 1 and self._name(v) is None:
                    self.derived.append(v)
                    self.names[_storage(v)] = names[0]

    def _name(self, v: Tensor) -> str | None:
        return self.names.get(_storage(v))


def _tensors(tree: Any) -> list[Tensor]:
    return [v for v in _pytree.tree_leaves(tree) if isinstance(v, Tensor)]


def _storage(v: Tensor) -> int:
    """Where the tensor's numbers are; its identity under `torch.func`, which hides the memory."""
    try:
        return v.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return -id(v)


def _cell(name: str, x: Tensor, h: Any, b_ih: Tensor | None, b_hh: Tensor | None, ih: nn.Module, hh: nn.Module) -> Any:
    """What torch's cell of that name computes, with its two linear maps as calls of layers."""
    before = h[0] if name == "lstm_cell" else h
    of_x, of_h = ih(x), hh(before)
    of_x, of_h = (v if b is None else v + b for v, b in ((of_x, b_ih), (of_h, b_hh)))
    if name == "gru_cell":
        (r, z, n), (h_r, h_z, h_n) = of_x.chunk(3, -1), of_h.chunk(3, -1)
        new = torch.tanh(n + torch.sigmoid(r + h_r) * h_n)
        return (before - new) * torch.sigmoid(z + h_z) + new
    if name == "lstm_cell":
        i, f, g, o = (of_x + of_h).chunk(4, -1)
        c = torch.sigmoid(f) * h[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    return torch.tanh(of_x + of_h) if name == "rnn_tanh_cell" else torch.relu(of_x + of_h)


def maps_of_cell(cell: nn.RNNCellBase) -> tuple[nn.Linear, nn.Linear]:
    """The two linear maps of a recurrent cell, as layers without a bias that hold the cell's own weights."""
    held: tuple[nn.Linear, nn.Linear] | None = cell.__dict__.get("_linear_maps")
    if held is None or held[0].weight is not cell.weight_ih or held[1].weight is not cell.weight_hh:
        held = cell.__dict__["_linear_maps"] = (_layer(cell.weight_ih), _layer(cell.weight_hh))
    return held


def _layer(weight: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=False, device="meta")
    layer.weight = cast(nn.Parameter, weight)
    return layer


def _bound(func: Any, args: Any, kwargs: Any) -> inspect.BoundArguments:
    if getattr(func, "__name__", "") == "linear":
        return _LINEAR_CALL.bind(*args, **kwargs)
    return inspect.signature(func).bind(*args, **kwargs)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """The arguments of `F.linear`, which has no signature of its own."""


_LINEAR_CALL = inspect.signature(_linear)


@contextmanager
def calling(rule: str | None, module: nn.Module, reached: list[nn.Module]) -> Iterator[Calls]:
    """Calls layers whose weights the passes inside apply by functions; warns of those that cannot be called.

    Args:
        rule: its name, for the warning; None for no warning.
        module: whose passes are watched.
        reached: the layers inside that the rule replaces on the way back.
    """
    calls = Calls(module, reached)

    def enter(*_: Any) -> None:
        calls.inside += 1

    def leave(*_: Any) -> None:
        calls.inside -= 1

    handles = [h for m in reached for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    try:
        with calls:
            yield calls
    finally:
        for handle in handles:
            handle.remove()
    if calls.found and rule is not None:
        warnings.warn(
            f"{rule} expected linear maps that are called as modules, got {', '.join(calls.found)} of "
            f"{type(module).__name__}, which are applied by functions: their errors come back by the weights "
            "themselves, as in backpropagation; call nn.Linear or a convolution as a submodule instead",
            stacklevel=2,
        )
