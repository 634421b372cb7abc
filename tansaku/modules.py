"""`ModuleState`: what forward passes change in modules, kept so that it can be put back."""

from __future__ import annotations

import copy
import threading
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy


class ModuleState:
    """Notes the state of every module that is called inside the ``with`` block, before its first call there.

    The state of a module is its buffers (the statistics of BatchNorm, the vectors of spectral normalisation), the
    tensors and numbers that it keeps as plain attributes, and its extra state (`torch.nn.Module.get_extra_state`). A
    module is noted together with the modules inside it. A module whose ``forward`` is called directly is not noted.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with ModuleState() as before:
        ...     _ = norm(torch.randn(4, 2))
        ...     before.restore()
        >>> int(norm.num_batches_tracked)
        0
    """

    def __init__(self) -> None:
        self._notes: dict[int, _Note] = {}
        self._thread = threading.get_ident()

    def __enter__(self) -> ModuleState:
        self._hook = register_module_forward_pre_hook(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        self.restore()

    def _called(self, module: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread or id(module) in self._notes:
            return
        for part in module.modules():
            if id(part) not in self._notes:
                self._notes[id(part)] = _Note(part)

    def restore(self) -> None:
        """Puts back the state of all modules noted so far."""
        with torch.no_grad():
            for note in self._notes.values():
                note.restore()


class _Note:
    """The state of one module; it keeps the module alive, so that its id stays its own."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._buffers = {
            name: (buffer, None if buffer is None or is_lazy(buffer) else buffer.detach().clone())
            for name, buffer in module._buffers.items()
        }
        self._attributes: dict[str, tuple[Any, tuple[int, Tensor] | None]] = {
            name: (value, _kept(value) if _written(value) else None)
            for name, value in module.__dict__.items()
            if name != "training" and (value is None or isinstance(value, int | float | Tensor))
        }
        own = type(module).get_extra_state is not nn.Module.get_extra_state
        self._extra = [copy.deepcopy(module.get_extra_state())] if own else []

    def restore(self) -> None:
        module = self._module
        for name, (buffer, values) in self._buffers.items():
            if name in module._buffers:
                module._buffers[name] = buffer
            if buffer is not None and values is not None:
                buffer.copy_(values)  # always: BatchNorm's kernel writes without a new version number
        for name, (value, kept) in self._attributes.items():
            if name in module.__dict__:
                module.__dict__[name] = value
            if kept is not None and value._version != kept[0]:
                value.copy_(kept[1])
                self._attributes[name] = (value, (value._version, kept[1]))
        for extra in self._extra:
            module.set_extra_state(copy.deepcopy(extra))


def _kept(value: Any) -> tuple[int, Tensor]:
    return value._version, value.detach().clone()


def _written(value: Any) -> bool:
    """Whether ``value`` is a tensor whose version number shows that somebody wrote into it."""
    return isinstance(value, Tensor) and not value.is_inference()
