"""`load_weights`: a model's weights out of a `state_dict`, without what learning rules and optimisers remember."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from zenkai_core.container import Container
from zenkai_core.learning import LearningMachine
from zenkai_core.machine import Machine

_SLOTS = ("theta", "x", "y")


def load_weights(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Loads parameters, buffers and fitted members of the modules; rules and their optimisers stay as they are.

    Args:
        model: any module with machines in it.
        state_dict: of a model with the same modules, whatever its rules were.

    Raises:
        ValueError: the modules' entries are not those of the model.
        RuntimeError: an entry has another shape (torch's own error).

    >>> import torch
    >>> from zenkai_core import targets, theta
    >>> a = Machine(nn.Linear(2, 1), theta.Gradient(torch.optim.Adam), targets.Null())
    >>> b = Machine(nn.Linear(2, 1), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Null())
    >>> load_weights(b, a.state_dict())
    >>> torch.equal(a.module.weight, b.module.weight)
    True
    """
    given, own = _weights(model, state_dict), _weights(model, model.state_dict())
    if given.keys() != own.keys():
        missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        raise ValueError(
            f"load_weights expected the entries of the model's modules, got none for {missing} and unknown {unknown}: "
            "make the model with the modules that were saved"
        )
    model.load_state_dict(given, strict=False)


def _weights(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    left_out = tuple(_of_rules(model))
    return {key: value for key, value in state_dict.items() if not f"{key}.".startswith(left_out)}


def _of_rules(model: nn.Module) -> Iterable[str]:
    """The beginnings of the names of what rules, and machines of one's own, remember."""
    yield "\0"  # matches nothing, where there is no machine
    for name, m in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(m, Machine):
            yield from (f"{prefix}{slot}." for slot in _SLOTS)
        if isinstance(m, LearningMachine) and not isinstance(m, Container):
            yield f"{prefix}_extra_state."
