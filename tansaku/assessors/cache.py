"""Answers that are known already, by the genes of the candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tansaku.assessors.failures import Fields
from tansaku.population import Population


class Cache:
    """The fields of the assessment of every distinct candidate that was added.

    Genes are compared bit by bit in the host's memory, so that genes on a GPU are copied there for every look-up.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._fields: Fields = {}
        self._layout: list[tuple[str, torch.dtype, torch.Size]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self, genes: Mapping[str, Tensor]) -> list[bytes]:
        """One key per candidate; candidates of another layout than before start an empty cache.

        Args:
            genes: name -> [k, *event_shape] of integers or booleans.
        """
        layout = [(name, x.dtype, x.shape[1:]) for name, x in genes.items()]
        if layout != self._layout:
            self._rows, self._fields, self._layout = {}, {}, layout
        parts = [x.detach().cpu().reshape(x.shape[0], -1).contiguous().view(torch.uint8) for x in genes.values()]
        octets = np.ascontiguousarray(torch.cat(parts, 1).numpy())
        rows: Any = octets.view(np.dtype((np.void, octets.shape[1]))).ravel().tolist()
        return list(rows)

    def fresh(self, keys: list[bytes]) -> list[int]:
        """The first candidate of each key that is not known."""
        first: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            if key not in self._rows:
                first.setdefault(key, i)
        return list(first.values())

    def add(self, keys: list[bytes], fields: Fields) -> None:
        """Adds candidates that are not known, with their fields [k, ...].

        Raises:
            ValueError: fields of other names than before.
        """
        if self._fields and set(self._fields) != set(fields):
            raise ValueError(
                f"expected fn to return {sorted(self._fields)} at every call, got {sorted(fields)}; "
                "return the same keys"
            )
        for key in keys:
            self._rows[key] = len(self._rows)
        self._fields = {name: torch.cat([self._fields[name], x]) if self._fields else x for name, x in fields.items()}

    def take(self, keys: list[bytes]) -> Fields:
        """The fields of candidates that are known, in this order."""
        rows = torch.tensor([self._rows[key] for key in keys])
        return {name: x[rows.to(x.device)] for name, x in self._fields.items()}


def check_discrete(population: Population, by_row: bool) -> None:
    """The candidates can be looked up.

    Args:
        population: to be assessed.
        by_row: whether the function takes single candidates, so that searches of a batch are told apart.

    Raises:
        ValueError: real genes; or a batch of searches that the function takes as one.
    """
    real = [name for name, x in population.genes.items() if x.is_floating_point()]
    if real:
        raise ValueError(
            f"expected integer or boolean genes with cache=True, got real {real}; leave cache out, "
            "since real candidates hardly ever repeat"
        )
    if population.batch_ndim and not by_row:
        raise ValueError(
            f"expected batch_shape () with cache=True and vectorized=True, got {tuple(population.batch_shape)}; "
            "write fn for one candidate and set vectorized='vmap' or False"
        )
