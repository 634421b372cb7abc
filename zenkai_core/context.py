"""Arguments of a module that are not rows, such as masks, edge lists and None; they pass through unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from zenkai_core.values import IO


@dataclass(frozen=True)
class Context:
    """What a module is called with beside its inputs.

    Args:
        rows: of the inputs, for which the arguments hold.
        places: position -> value, for positional arguments that are not rows.
        named: keyword arguments.
    """

    rows: int
    places: tuple[tuple[int, Any], ...]
    named: Mapping[str, Any]

    def arguments(self, inputs: tuple[Tensor, ...]) -> list[Any]:
        """The positional arguments, with the inputs in their places."""
        arguments: list[Any] = list(inputs)
        for place, value in self.places:
            arguments.insert(place, value)
        return arguments


def split_arguments(owner: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[IO, Context | None]:
    """The inputs, and everything else.

    Inputs are the tensors with as many rows as the first one; a target is made for them. All other arguments are
    context: None, numbers, tensors of other sizes, and every keyword argument.

    Args:
        owner: what is called, for the error.
        arguments: positional ones; the first is an input.
        named: keyword arguments.

    Raises:
        TypeError: keyword arguments alone.
        ValueError: a keyword argument, or an argument that is no row, asks for a gradient, which context does not get,
            or holds a tensor that does.
    """
    inputs: list[Tensor] = []
    places: list[tuple[int, Any]] = []
    for place, value in enumerate(arguments):
        if isinstance(value, Tensor) and value.ndim and (not inputs or value.shape[0] == inputs[0].shape[0]):
            inputs.append(value)
        elif inputs and not (isinstance(value, Tensor) and value.ndim == 0):
            places.append((place, value))
        else:
            inputs.append(value)  # IO says what is wrong with it
    for name, value in [*((f"argument {place}", value) for place, value in places), *named.items()]:
        for held in _pytree.tree_leaves(value):  # also tensors inside lists and dictionaries
            if isinstance(held, Tensor) and held.requires_grad and torch.is_grad_enabled():
                raise ValueError(
                    f"{owner} expected context without a gradient, got {name} {list(held.shape)} that asks for one: "
                    "give it as an input with as many rows as x, or detach it"
                )
    if named and not inputs:
        raise TypeError(
            f"{owner} expected its inputs as positional arguments, got keyword arguments {list(named)} alone: write "
            "machine(x, ...), since no target is made for a keyword argument"
        )
    x = IO(*inputs)
    return x, Context(x.rows, tuple(places), dict(named)) if places or named else None
