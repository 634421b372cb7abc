"""`History`: what every generation was like, kept on the device and read only when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_CHUNK = 64  # generations summed up together: one pass in place of sixty-four


class History:
    """Best, median and spread of every generation's values, in the user's own sign, and the share that is feasible.

    Infeasible candidates are left out of best, median and spread. Best is NaN until a feasible candidate was found;
    median and spread are NaN in a generation without one.

    Recording costs no host synchronisation and next to no time: the costs of the last few generations are kept as they
    are and summed up many generations at once. Memory is three numbers per generation and search, or four with
    violations. Several objectives are summed up one by one, in a trailing dimension.
    """

    def __init__(self, maximize: bool = False) -> None:
        self.maximize = maximize
        self.evaluations: list[int] = []
        # each [generations, 3 or 4, *batch_shape]: lowest, median, standard deviation, any share of feasible ones
        self._done: list[Tensor] = []
        self._constrained = False
        self._waiting: list[Tensor] = []
        self._volumes: list[Tensor] = []

    def record(
        self, cost: Tensor, evaluations: int, volume: Tensor | None = None, feasible: Tensor | None = None
    ) -> None:
        """One more generation.

        Args:
            cost: [k, *batch_shape] of the candidates assessed in it, or [k, *batch_shape, m]; without NaN.
            evaluations: made so far, per search.
            volume: [*batch_shape] the hypervolume of the front found so far, in every generation or in none.
            feasible: [k, *batch_shape] which candidates are feasible; all if not given.
        """
        if feasible is not None:
            self._constrain()
            feasible = feasible if feasible.ndim == cost.ndim else feasible.unsqueeze(-1)
            cost = torch.where(feasible, cost, float("nan"))
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

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One dictionary per generation: generation, evaluations, best (so far), median, spread.

        With violations it has ``feasible``, and with a reference point ``hypervolume``.
        """
        more = {"feasible": self._constrained, "hypervolume": bool(self._volumes)}
        names = ("best", "median", "spread", *(name for name, present in more.items() if present))
        columns = {name: getattr(self, name).tolist() for name in names}
        for generation, evaluations in enumerate(self.evaluations):
            row = {name: column[generation] for name, column in columns.items()}
            yield {"generation": generation, "evaluations": evaluations, **row}

    @property
    def best(self) -> Tensor:
        """[generations, *batch_shape] the best feasible value found so far; NaN before the first."""
        lowest = self._table()[:, 0]
        if not self._constrained or not len(lowest):
            return self._signed(lowest.cummin(0).values)
        known = ~torch.isnan(lowest)
        best = torch.where(known, lowest, float("inf")).cummin(0).values
        return self._signed(torch.where(known.cumsum(0) > 0, best, float("nan")))

    @property
    def median(self) -> Tensor:
        """[generations, *batch_shape] the median value of each generation's feasible candidates.

        It is the lower of two middles, and NaN in a generation without a feasible candidate.
        """
        return self._signed(self._table()[:, 1])

    @property
    def spread(self) -> Tensor:
        """[generations, *batch_shape] standard deviation of each generation's finite feasible values.

        It is 0 for fewer than two, and NaN in a generation without a feasible candidate.
        """
        return self._table()[:, 2]

    @property
    def feasible(self) -> Tensor:
        """[generations, *batch_shape] the share of each generation's candidates that is feasible, 0 to 1.

        It is 1 without violations. Several objectives have the same share each.
        """
        table = self._table()
        return table[:, 3] if self._constrained else torch.ones_like(table[:, 0])

    @property
    def constrained(self) -> bool:
        """Whether any candidates came with violations."""
        return self._constrained

    def _constrain(self) -> None:
        """From here on the table has a share; 1 for the generations before."""
        if not self._constrained:
            self._sum_up()
            self._done = [torch.cat([x, torch.ones_like(x[:, :1])], 1) for x in self._done]
            self._constrained = True

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
        return self._done[0] if self._done else torch.empty(0, 4 if self._constrained else 3)

    def _sum_up(self) -> None:
        if not self._waiting:
            return
        cost = torch.stack(self._waiting)
        finite = torch.isfinite(cost)
        number = finite.sum(1, keepdim=True)
        mean = torch.where(finite, cost, 0).sum(1, keepdim=True) / number.clamp(min=1)
        square = torch.where(finite, cost - mean, 0).square().sum(1) / (number[:, 0] - 1).clamp(min=1)
        if self._constrained:
            known = ~torch.isnan(cost)  # NaN marks an infeasible candidate
            share = known.to(cost.dtype).mean(1)
            lowest = torch.where(known, cost, float("inf")).amin(1)
            summary = [lowest, cost.nanmedian(1).values, square.sqrt()]
            columns = [*(torch.where(share > 0, x, float("nan")) for x in summary), share]
        else:
            columns = [cost.amin(1), cost.median(1).values, square.sqrt()]
        done = [*self._done, torch.stack(columns, 1)]
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
        self._constrained = state["table"].shape[1] > 3
        self._volumes = [] if state["volumes"] is None else list(state["volumes"].unbind())
