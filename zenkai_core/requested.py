"""`Requested`: which parameters a running backward pass wants gradients of, and whether it stores or returns them.

`loss.backward()` stores all gradients. `loss.backward(inputs=[...])` stores those of the tensors it names, and
`torch.autograd.grad(loss, [...])` returns them and stores none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge


@dataclass(frozen=True)
class Requested:
    """What a running backward pass wants of the parameters below it.

    Attributes:
        everything: it stores the gradients of all tensors that it reaches.
        stored: otherwise, the parameters whose gradients it stores.
        returned: the parameters whose gradients it returns to the caller.
        parameters: all that it could be asked for.
    """

    everything: bool = True
    stored: frozenset[Tensor] = field(default_factory=frozenset)
    returned: frozenset[Tensor] = field(default_factory=frozenset)
    parameters: tuple[Tensor, ...] = ()

    def learns(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the pass updates what holds these parameters: it stores the gradient of one of them at least."""
        return self.everything or any(p in self.stored for p in parameters)

    def differentiates(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the pass stores or returns the gradient of one of them."""
        return self.everything or any(p in self.stored or p in self.returned for p in parameters)


def requested(anchor: Tensor, parameters: tuple[Tensor, ...]) -> Requested:
    """What the running backward pass wants; to be called in the `backward` of a custom function.

    Args:
        anchor: a leaf, an input of the function, that no caller can name.
        parameters: leaves, inputs of the function.
    """
    if _fate(anchor) == "stored":
        return Requested(parameters=parameters)
    fates = [(p, _fate(p)) for p in parameters if p.requires_grad]
    stored, returned = ([p for p, fate in fates if fate == kind] for kind in ("stored", "returned"))
    return Requested(False, frozenset(stored), frozenset(returned), parameters)


def _fate(leaf: Tensor) -> str:
    try:
        executed = torch._C._will_engine_execute_node(get_gradient_edge(leaf).node)
    except RuntimeError:  # torch's answer for a leaf whose gradient `torch.autograd.grad` returns
        return "returned"
    return "stored" if executed else "none"
