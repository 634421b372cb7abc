"""`History`: what every generation was like, kept on the device and read only when somebody asks."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
        self._rows = _Rows()  # replaced by one assignment, so that a signal handler or a thread reads whole generations

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
        rows = self._rows
        if feasible is not None:
            rows = rows.with_share()
            feasible = feasible if feasible.ndim == cost.ndim else feasible.unsqueeze(-1)
            cost = torch.where(feasible, cost, float("nan"))
        if rows.waiting and (len(rows.waiting) == _CHUNK or rows.waiting[-1].shape != cost.shape):
            rows = rows.summed_up()
        self._rows = rows.plus(cost, evaluations, volume)

    def copied(self) -> History:
        """A history that can go on by itself; the rows so far are shared."""
        copy = History(self.maximize)
        copy._rows = self._rows
        return copy

    @property
    def evaluations(self) -> list[int]:
        """Evaluations made by the end of each generation, per search."""
        rows = self._rows
        return rows.evaluations[: rows.length]

    @property
    def _done(self) -> tuple[Tensor, ...]:
        return self._rows.done

    @property
    def _waiting(self) -> tuple[Tensor, ...]:
        return self._rows.waiting

    def __len__(self) -> int:
        return self._rows.length

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
        """One dictionary per generation: generation, evaluations, best (so far), median, spread.

        With violations it has ``feasible``, and with a reference point ``hypervolume``.
        """
        more = {"feasible": self.constrained, "hypervolume": self.hypervolume is not None}
        names = ("best", "median", "spread", *(name for name, present in more.items() if present))
        columns = {name: getattr(self, name).tolist() for name in names}
        for generation, evaluations in enumerate(self.evaluations):
            row = {name: column[generation] for name, column in columns.items()}
            yield {"generation": generation, "evaluations": evaluations, **row}

    @property
    def best(self) -> Tensor:
        """[generations, *batch_shape] the best feasible value found so far; NaN before the first."""
        lowest = self._table()[:, 0]
        if not self.constrained or not len(lowest):
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
        return table[:, 3] if self.constrained else torch.ones_like(table[:, 0])

    @property
    def constrained(self) -> bool:
        """Whether any candidates came with violations."""
        return self._rows.constrained

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the values; None before the first."""
        last = self._waiting[-1] if self._waiting else self._done[-1] if self._done else None
        return None if last is None else last.dtype

    @property
    def hypervolume(self) -> Tensor | None:
        """[generations, *batch_shape] of the front found so far; None without a reference point."""
        return self._rows.stacked_volumes()

    def _signed(self, cost: Tensor) -> Tensor:
        return -cost if self.maximize else cost

    def _table(self) -> Tensor:
        rows = self._rows
        table = rows.table()
        if rows is self._rows and len(table) == rows.length:  # the next call starts from these sums
            self._rows = rows.summed_as(table)
        return table

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes."""
        rows = self._rows
        return {
            "maximize": self.maximize,
            "evaluations": rows.evaluations[: rows.length],
            "table": rows.table(),
            "volumes": rows.stacked_volumes(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave.

        Raises:
            ValueError: numbers and tensors that do not belong together; the history is then as before.
        """
        maximize, evaluations, table, volumes = (state[n] for n in ("maximize", "evaluations", "table", "volumes"))
        sound = (
            isinstance(maximize, bool)
            and isinstance(evaluations, list)
            and all(isinstance(n, int) and not isinstance(n, bool) for n in evaluations)
            and isinstance(table, Tensor)
            and table.ndim >= 2
            and table.shape[:2] in ((len(evaluations), 3), (len(evaluations), 4))
            and table.is_floating_point()
            and (volumes is None or (isinstance(volumes, Tensor) and len(volumes) == len(evaluations)))
        )
        if not sound:
            raise ValueError(
                "expected a history with a row [3 or 4, *batch_shape] per generation, got tensors and numbers that do "
                "not belong together; use an undamaged checkpoint"
            )
        self.maximize = maximize
        kept = [] if volumes is None else list(volumes.unbind())
        done = (table,) if evaluations else ()
        self._rows = _Rows(len(evaluations), done, (), list(evaluations), kept, table.shape[1] > 3)


@dataclass(frozen=True)
class _Rows:
    """The rows of a history, which never change: `plus` makes longer ones that share all earlier parts.

    Args:
        length: generations.
        done: each [generations, 3, *batch_shape]: lowest, median, standard deviation of the cost; with violations
            [generations, 4, *batch_shape], the last of which is the share of feasible candidates.
        waiting: costs of the latest generations, which are not summed up yet.
        evaluations: made by the end of each generation. Longer histories share the list and append to it, so that
            only the first ``length`` belong to this one.
        volumes: hypervolumes, shared in the same way; empty without a reference point.
        constrained: whether any candidates came with violations; then NaN among the costs marks an infeasible one.
    """

    length: int = 0
    done: tuple[Tensor, ...] = ()
    waiting: tuple[Tensor, ...] = ()
    evaluations: list[int] = field(default_factory=list)
    volumes: list[Tensor] = field(default_factory=list)
    constrained: bool = False

    def with_share(self) -> _Rows:
        """The same rows with a share of feasible candidates, which is 1 in the generations so far."""
        if self.constrained:
            return self
        rows = self.summed_up()
        done = tuple(torch.cat([x, torch.ones_like(x[:, :1])], 1) for x in rows.done)
        return replace(rows, done=done, constrained=True)

    def plus(self, cost: Tensor, evaluations: int, volume: Tensor | None) -> _Rows:
        """One generation more; see `History.record`."""
        made, volumes = self.evaluations, self.volumes
        if len(made) != self.length:  # another history has gone on from here
            made = made[: self.length]
        if volume is not None and len(volumes) != self.length:
            volumes = volumes[: self.length]
        made.append(evaluations)
        if volume is not None:
            volumes.append(volume)
        return _Rows(self.length + 1, self.done, (*self.waiting, cost), made, volumes, self.constrained)

    def stacked_volumes(self) -> Tensor | None:
        """[generations, *batch_shape]; None without a reference point."""
        return torch.stack(self.volumes[: self.length]) if self.volumes and self.length else None

    def table(self) -> Tensor:
        """[generations, 3 or 4, *batch_shape] of all generations."""
        done = self.summed_up().done
        return torch.cat(done) if len(done) > 1 else done[0] if done else torch.empty(0, 3 + self.constrained)

    def summed_as(self, table: Tensor) -> _Rows:
        """The same rows with ``table`` in place of the sums and of the waiting costs."""
        return replace(self, done=(table,) if self.length else (), waiting=())

    def summed_up(self) -> _Rows:
        """The same rows with the waiting costs summed up in one pass."""
        if not self.waiting:
            return self
        cost = torch.stack(self.waiting)
        finite = torch.isfinite(cost)
        number = finite.sum(1, keepdim=True)
        mean = torch.where(finite, cost, 0).sum(1, keepdim=True) / number.clamp(min=1)
        square = torch.where(finite, cost - mean, 0).square().sum(1) / (number[:, 0] - 1).clamp(min=1)
        if self.constrained:
            known = ~torch.isnan(cost)
            share = known.to(cost.dtype).mean(1)
            lowest = torch.where(known, cost, float("inf")).amin(1)
            summary = [lowest, cost.nanmedian(1).values, square.sqrt()]
            columns = [*(torch.where(share > 0, x, float("nan")) for x in summary), share]
        else:
            columns = [cost.amin(1), cost.median(1).values, square.sqrt()]
        done = (*self.done, torch.stack(columns, 1))
        if len(done) > _CHUNK:
            done = (torch.cat(done),)
        return replace(self, done=done, waiting=())
