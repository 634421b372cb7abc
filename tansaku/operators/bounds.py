"""`Bounds`: the box that genes live in, and how a gene outside is repaired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tansaku import checks
from tansaku.population import Individual, Population
from tansaku.storage import buffer_like

Limits = float | Tensor | Mapping[str, float | Tensor]
Repair = Literal["clip", "reflect", "wrap", "resample"]


@dataclass(frozen=True)
class Bounds:
    """A closed box, ``lower <= gene <= upper``, and the repair of what leaves it.

    Boolean genes have no bounds and pass through. For integers both ends are included.

    Args:
        lower, upper: a number, a tensor that broadcasts against [*event_shape] (or a list or an array of numpy), or a
            mapping from names to either; names that a mapping leaves out are unbounded.
        repair: ``"clip"`` to the nearest end; ``"reflect"`` at the ends, as often as needed; ``"wrap"`` around, as
            on a circle; ``"resample"``, an algorithm draws a candidate outside anew, at most 10 times, and then
            clips it (where nothing is drawn, as in ``Bounds(...)(population)``, it clips at once). An infinite gene
            is clipped by all of them, for it has no place on a circle; NaN stays NaN.

    Raises:
        ValueError: lower > upper anywhere, NaN, an unknown repair, or names in only one of the two mappings.

    Example:
        >>> Bounds(0.0, 1.0, "reflect").repaired("x", torch.tensor([-0.25, 0.5, 1.25]))
        tensor([0.2500, 0.5000, 0.7500])
    """

    lower: Limits
    upper: Limits
    repair: Repair = "clip"
    _endless: ClassVar[frozenset[str]]  # of an instance: the names with an infinite end
    _moving: ClassVar[Mapping[str, float]]  # of an instance: the share of each name's genes with different ends

    def __post_init__(self) -> None:
        for side in ("lower", "upper"):
            given = getattr(self, side)
            made = checks.limit(given)
            if made is not given:
                object.__setattr__(self, side, made)
        if self.repair not in ("clip", "reflect", "wrap", "resample"):
            raise ValueError(
                f"expected repair 'clip', 'reflect', 'wrap' or 'resample', got {self.repair!r}; choose one of them"
            )
        if isinstance(self.lower, Mapping) or isinstance(self.upper, Mapping):
            if not (isinstance(self.lower, Mapping) and isinstance(self.upper, Mapping)) or set(self.lower) != set(
                self.upper
            ):
                raise ValueError("expected lower and upper to name the same genes, got different names; give both ends")
            pairs = [(repr(name), self.lower[name], self.upper[name]) for name in self.lower]
        else:
            pairs = [("all genes", self.lower, self.upper)]
        endless, moving = set(), {}
        for name, low, high in pairs:
            for end in (low, high):
                if isinstance(end, bool) or not isinstance(end, int | float | Tensor):
                    raise TypeError(
                        f"expected lower and upper of {name} as numbers or tensors, got {end!r}; bounds are (lower, "
                        "upper) for all genes, not a list of (low, high) pairs: pass (torch.tensor(lows), "
                        "torch.tensor(highs)) for one pair per gene"
                    )
            below, above = _as_tensor(low), _as_tensor(high)
            try:
                ordered = bool((below <= above).all())
            except RuntimeError as error:
                raise ValueError(
                    f"expected lower and upper of {name} to broadcast, got {checks.shape_text(below.shape)} and "
                    f"{checks.shape_text(above.shape)}; give both one shape"
                ) from error
            if not ordered:
                raise ValueError(f"expected lower <= upper for {name}, got lower {low} and upper {high}; swap them")
            moving[name] = float((below < above).double().mean())
            if not bool((torch.isfinite(below) & torch.isfinite(above)).all()):
                endless.add(name)
                if self._folds:
                    raise ValueError(
                        f"expected finite bounds to {self.repair} at for {name}, got {low}, {high}; use 'clip'"
                    )
        object.__setattr__(self, "_endless", frozenset(endless))  # known here, so that no generation has to look
        object.__setattr__(self, "_moving", moving)

    @classmethod
    def of(cls, bounds: Bounds | tuple[Limits, Limits] | None) -> Bounds | None:
        """``bounds`` itself, a pair (lower, upper) as clipping bounds, or None.

        Raises:
            TypeError: anything else.
        """
        if bounds is None or isinstance(bounds, Bounds):
            return bounds
        if isinstance(bounds, tuple | list) and len(bounds) == 2:
            _refuse_pairs(bounds)
            return cls(bounds[0], bounds[1])
        raise TypeError(f"expected bounds as (lower, upper) or Bounds, got {bounds!r}; pass e.g. (-1.0, 1.0)")

    @classmethod
    def needed(cls, who: str, bounds: Bounds | tuple[Limits, Limits] | None) -> Bounds:
        """As `of`, for ``who`` cannot work without bounds.

        Raises:
            TypeError: None, or anything else that is no bounds.
        """
        box = cls.of(bounds)
        if box is None:
            raise TypeError(f"expected bounds for {who}, got None; pass e.g. (-1.0, 1.0)")
        return box

    def ends(self, name: str, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Lower and upper end for the genes ``name``, of the dtype and on the device of ``like``; None if unbounded.

        Raises:
            ValueError: a number that the dtype cannot hold.
        """
        if like.dtype == torch.bool:
            return None
        limits = self.limits(name)
        if limits is None:
            return None
        ends = []
        for end, rounding in zip(limits, (torch.ceil, torch.floor), strict=True):
            if not like.is_floating_point():
                end = _as_tensor(end)
                end = _whole(rounding(end) if end.is_floating_point() else end, like.dtype)
            elif not isinstance(end, Tensor):
                end = _filled(name, end, like)
            ends.append(end.to(like.device, like.dtype))
        return ends[0], ends[1]

    def limits(self, name: str) -> tuple[float | Tensor, float | Tensor] | None:
        """Both ends of the genes ``name`` as they were given; None if unbounded."""
        lower, upper = self.lower, self.upper
        if isinstance(lower, Mapping) or isinstance(upper, Mapping):
            return (lower[name], upper[name]) if name in lower else None  # type: ignore[index, operator]
        return lower, upper

    def finite(self, name: str) -> bool:
        """Whether the genes ``name``, if not boolean, have a lower and an upper end."""
        if isinstance(self.lower, Mapping):
            return name in self.lower and repr(name) not in self._endless
        return not self._endless

    def moving_share(self, name: str) -> float:
        """The share of the genes ``name`` whose two ends differ; 1 if unbounded."""
        if isinstance(self.lower, Mapping):
            return self._moving.get(repr(name), 1.0)
        return self._moving["all genes"]

    def check(self, individual: Individual | Population, inside: bool = True) -> None:
        """The bounds fit the genes, and (unless ``inside`` is False) the genes lie within them.

        Raises:
            ValueError: names that the genes lack, ends of a shape that does not broadcast against the genes, no
                whole number between the ends of integer genes, or genes outside.
        """
        checks.names("bounds", self.lower, individual.genes)
        for name, x in individual.genes.items():
            ends = self.ends(name, x)
            if ends is None:
                continue
            event = x.shape[individual.batch_ndim + isinstance(individual, Population) :]
            fits(name, ends, event)
            if not x.is_floating_point() and bool((ends[0] > ends[1]).any()):
                raise ValueError(f"expected a whole number within the bounds of {name!r}, got none; widen them")
            outside = ~((x >= ends[0]) & (x <= ends[1]))
            if inside and bool(outside.any()):
                raise ValueError(
                    f"expected the start of {name!r} inside its bounds, got {int(outside.sum())} genes outside or NaN; "
                    "move the start or widen the bounds"
                )

    def span(self, name: str, like: Tensor) -> Tensor | None:
        """Upper - lower for the genes ``name`` in floating point; None if unbounded or infinite."""
        ends = self.ends(name, like)
        if ends is None:
            return None
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return ends[1].to(dtype) - ends[0].to(dtype)

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Both ends where they are two numbers for all genes, which compute faster than tensors; else None."""
        lower, upper = self.lower, self.upper
        return (lower, upper) if isinstance(lower, int | float) and isinstance(upper, int | float) else None

    def repaired(self, name: str, x: Tensor, overwrite: bool = False) -> Tensor:
        """``x`` [..., *event_shape] with all but NaN inside; ``overwrite``: in its memory, if need be."""
        numbers = self.numbers
        if numbers is not None and not self._folds and x.is_floating_point():
            return torch.clamp(x, *numbers, out=x if overwrite else buffer_like(x))
        ends = self.ends(name, x)
        if ends is None:
            return x
        low, high = ends
        if self._folds:
            outside = (x < low) | (x > high)
            if x.is_floating_point():
                folded = self._folded(x, low, high)
                outside &= torch.isfinite(folded)  # an infinite gene, or one too far away to be folded, is clipped
            else:
                folded = self._folded_whole(x.long(), low.long(), high.long()).to(x.dtype)
            x = torch.where(outside, folded, x)
        return torch.clamp(x, low, high, out=buffer_like(x))

    @property
    def _folds(self) -> bool:
        return self.repair in ("reflect", "wrap")

    def inside(self, population: Population) -> Tensor:
        """[k, *batch_shape] whether all genes of a candidate lie within."""
        lead = 1 + population.batch_ndim
        within = torch.ones((population.k, *population.batch_shape), dtype=torch.bool, device=population.device)
        for name, x in population.genes.items():
            ends = self.ends(name, x)
            if ends is not None:
                fits = (x >= ends[0]) & (x <= ends[1])
                within = within & (fits.flatten(lead).all(-1) if fits.ndim > lead else fits)
        return within

    def _folded(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Real genes outside, folded from the end that they crossed, which keeps the precision of a short way."""
        below, span = x < low, high - low
        beyond = torch.where(below, low - x, x - high)
        if self.repair == "wrap":
            beyond = torch.remainder(beyond, torch.where(span > 0, span, 1))
            return torch.where(below & (beyond > 0), high - beyond, low + beyond)
        width = torch.where(span > 0, 2 * span, 1)
        beyond = torch.remainder(beyond, width)
        beyond = torch.minimum(beyond, width - beyond)
        return torch.where(below, low + beyond, high - beyond)

    def _folded_whole(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Integer genes outside, folded; both ends are different integers."""
        span = high - low
        if self.repair == "wrap":
            return low + torch.remainder(x - low, torch.where(span + 1 > 0, span + 1, 1))  # it may overflow
        width = torch.where(span > 0, 2 * span, 1)
        offset = torch.remainder(x - low, width)
        return low + torch.minimum(offset, width - offset)

    def __call__(self, population: Population) -> Population:
        """Every gene repaired; the assessment is dropped.

        Raises:
            ValueError: ends that do not broadcast against the genes' event_shape.
        """
        if self.numbers is None:
            for name, x in population.genes.items():
                if x.dtype != torch.bool:
                    fits(name, self.limits(name), population.event_shape(name))
        return population.with_genes({name: self.repaired(name, x) for name, x in population.genes.items()})


class OpenBounds(Bounds):
    """Bounds that repair nothing: what an algorithm draws before candidates outside are drawn anew."""

    def repaired(self, name: str, x: Tensor, overwrite: bool = False) -> Tensor:
        """``x`` itself."""
        return x

    def __call__(self, population: Population) -> Population:
        """The population as it is."""
        return population


def fits(name: str, ends: tuple[float | Tensor, float | Tensor] | None, event_shape: Iterable[int]) -> None:
    """The ends of the genes ``name`` broadcast against their [*event_shape], or a ValueError."""
    for end in ends or ():
        checks.fits_event(f"bounds of {name!r}", end, event_shape)


def _refuse_pairs(bounds: tuple[Any, ...] | list[Any]) -> None:
    """Two genes' (low, high) pairs, which look like (lower, upper) of two genes, are a TypeError."""
    first, second = bounds
    pairs = all(isinstance(end, tuple | list) and len(end) == 2 for end in bounds)
    if pairs and ((isinstance(bounds, list) and isinstance(first, tuple)) or first[0] == second[0]):
        raise TypeError(
            f"expected bounds as (lower, upper) for all genes, got {bounds!r}, which reads as a list of (low, high) "
            "pairs; pass (lows, highs) as two tensors"
        )


def _as_tensor(end: float | Tensor) -> Tensor:
    """A number without loss: as int64 where that holds it, else as float64."""
    if isinstance(end, Tensor):
        return end
    whole = isinstance(end, int) and -(2**63) <= end < 2**63
    return torch.tensor(end, dtype=torch.int64 if whole else torch.float64)


def _filled(name: str, end: float, like: Tensor) -> Tensor:
    """A number as a tensor that is made where ``like`` is: nothing is sent to the device."""
    most = torch.finfo(like.dtype).max
    if most < abs(end) < float("inf"):
        raise ValueError(
            f"expected bounds of {name!r} within {most:.4g}, the largest {like.dtype}, got {end:g}; "
            "use a wider dtype, or an infinite end for none"
        )
    return torch.full((), end, dtype=like.dtype, device=like.device)


def _whole(end: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers as ``dtype``, those beyond its range (infinite ones too) as its first or last number."""
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    below, above = end <= least, end >= most
    inside = torch.where(below | above, torch.zeros_like(end), end).to(dtype)
    return inside.masked_fill(below, least).masked_fill(above, most)
