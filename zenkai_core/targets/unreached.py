"""Linear maps that a module computes without calling them as modules, so that feedback rules cannot replace them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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


class _Calls(TorchFunctionMode):
    """Notes the weights that enter linear functions outside the layers that are reached."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {p.untyped_storage().data_ptr(): name for name, p in module.named_parameters() if p.ndim > 1}
        self.inside = 0  # layers that are reached, and whose forward is running
        self.found: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside and getattr(func, "__name__", "") in _LINEAR:
            for v in _pytree.tree_leaves((args, kwargs)):
                if isinstance(v, Tensor) and (name := self.names.get(v.untyped_storage().data_ptr())) is not None:
                    self.found[name] = None
        return func(*args, **kwargs)


@contextmanager
def reporting(rule: str, module: nn.Module, reached: Iterable[nn.Module]) -> Iterator[None]:
    """Warns of the weights that the passes inside apply otherwise than by calling one of the layers.

    Args:
        rule: its name, for the warning.
        module: whose passes are watched.
        reached: the layers inside that the rule replaces on the way back.
    """
    calls = _Calls(module)

    def enter(*_: Any) -> None:
        calls.inside += 1

    def leave(*_: Any) -> None:
        calls.inside -= 1

    handles = [h for m in reached for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    try:
        with calls:
            yield
    finally:
        for handle in handles:
            handle.remove()
    if calls.found:
        warnings.warn(
            f"{rule} expected linear maps that are called as modules, got {', '.join(calls.found)} of "
            f"{type(module).__name__}, which are applied by functions: their errors come back by the weights "
            "themselves, as in backpropagation; call nn.Linear or a convolution as a submodule instead",
            stacklevel=2,
        )
