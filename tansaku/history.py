"""`History`: what every generation was like, kept on the device and read only when somebody asks."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, overload

import torch
from torch import Tensor

_CHUNK = 64  # generations summed up together: one pass in place of sixty-four


class History:
    """Best, median and spread of every generation's values, in the user's own sign.

    Recording costs no host synchronisation and next to no time: the costs of the last few generations are kept as they
    are and summed up many generations at once. Memory is three numbers per generation and search. Several objectives
    are summed up one by one, in a trailing dimension.
    """

    def __init__(self, maximize: bool = False) -> None:
        self.maximize = maximize
        self.evaluations: list[int] = []
        self._done: list[Tensor] = []  # each [generations, 3, *batch_shape]: lowest, median, standard deviation
        self._waiting: list[Tensor] = []
        self._volumes: list[Tensor] = []

    def record(self, cost: Tensor, evaluations: int, volume: Tensor | None = None) -> None:
        """One more generation.

        Args:
            cost: [k, *batch_shape] of the candidates assessed in it, or [k, *batch_shape, m].
            evaluations: made so far, per search.
            volume: [*batch_shape] the hypervolume of the front found so far, in every generation or in none.
        """
        if volume is not None:
            self._volumes.append(volume)
        if self._waiting and (len(self._waiting) == _CHUNK or self._waiting[-1].shape != cost.shape):
            self._sum_up()
        self._waiting.append(cost)
        self.evaluations.append(evaluations)

    def __len__(self) -> int:
        return len(self.evaluations)

    def __repr__(self) -> str:
        return f"History({len(self)} generations, maximize={self.maximize})"

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """The row of one generation, as iteration gives it; a slice gives a list of rows.

        Raises:
            IndexError: no such generation.
            TypeError: neither an integer nor a slice.
        """
        if isinstance(index, slice):
            return list(self)[index]
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(
                f"expected a generation in [{-len(self)}, {len(self) - 1}], got {number}; see len(history)"
            )
        return list(self)[number]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One dictionary per generation: generation, evaluations, best (so far), median, spread, any hypervolume."""
        names = ("best", "median", "spread", *(["hypervolume"] if self._volumes else []))
        columns = {name: getattr(self, name).tolist() for name in names}
        for generation, evaluations in enumerate(self.evaluations):
            row = {name: column[generation] for name, column in columns.items()}
            yield {"generation": generation, "evaluations": evaluations, **row}

    @property
    def best(self) -> Tensor:
        """[generations, *batch_shape] the best value found so far."""
        return self._signed(self._table()[:, 0].cummin(0).values)

    @property
    def median(self) -> Tensor:
        """[generations, *batch_shape] the median value of each generation's candidates (the lower of two middles)."""
        return self._signed(self._table()[:, 1])

    @property
    def spread(self) -> Tensor:
        """[generations, *batch_shape] standard deviation of each generation's finite values; 0 for fewer than two."""
        return self._table()[:, 2]

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the values; None before the first."""
        last = self._waiting[-1] if self._waiting else self._done[-1] if self._done else None
        return None if last is None else last.dtype

    @property
    def hypervolume(self) -> Tensor | None:
        """[generations, *batch_shape] of the front found so far; None without a reference point."""
        return torch.stack(self._volumes) if self._volumes else None

    def _signed(self, cost: Tensor) -> Tensor:
        return -cost if self.maximize else cost

    def _table(self) -> Tensor:
        self._sum_up()
        if len(self._done) > 1:
            self._done = [torch.cat(self._done)]
        return self._done[0] if self._done else torch.empty(0, 3)

    def _sum_up(self) -> None:
        if not self._waiting:
            return
        cost = torch.stack(self._waiting)
        finite = torch.isfinite(cost)
        number = finite.sum(1, keepdim=True)
        mean = torch.where(finite, cost, 0).sum(1, keepdim=True) / number.clamp(min=1)
        square = torch.where(finite, cost - mean, 0).square().sum(1) / (number[:, 0] - 1).clamp(min=1)
        done = [*self._done, torch.stack([cost.amin(1), cost.median(1).values, square.sqrt()], 1)]
        if len(done) > _CHUNK:
            done = [torch.cat(done)]
        self._done, self._waiting = done, []  # together, so that an interrupt before it loses nothing

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes."""
        return {
            "maximize": self.maximize,
            "evaluations": list(self.evaluations),
            "table": self._table(),
            "volumes": self.hypervolume,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.maximize = state["maximize"]
        self.evaluations = list(state["evaluations"])
        self._waiting = []
        self._done = [state["table"]] if len(self.evaluations) else []
        self._volumes = [] if state["volumes"] is None else list(state["volumes"].unbind())
