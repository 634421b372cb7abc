"""`IO`: the tensors of one input, output or target, whose dimension 0 is the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, cast, overload

import torch
from torch import Tensor
from torch.utils import _pytree


class IO(tuple[Tensor, ...]):
    """The tensors that enter or leave a layer, as one value.

    A tuple of tensors in which dimension 0 of each is the row (sample). An index gives a tensor, a slice an `IO`.

    Args:
        tensors: each `[n, *event_shape]` with the same n; event shapes and dtypes are free.

    Raises:
        TypeError: something other than a tensor is given.
        ValueError: a tensor without dimensions, or tensors that disagree in their rows.

    >>> io = IO(torch.zeros(4, 3), torch.ones(4))
    >>> io.rows, len(io), tuple(io.f.shape)
    (4, 2, (4, 3))
    """

    __slots__ = ()

    def __new__(cls, *tensors: Tensor) -> IO:
        """Checks and wraps the tensors."""
        rows = -1
        for i, value in enumerate(tensors):
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"IO expected tensors, got {type(value).__name__} at position {i}: write IO(a, b), "
                    "with torch.as_tensor for arrays and IO(*values) for a sequence"
                )
            if value.ndim == 0:
                raise ValueError(
                    f"IO expected tensors [n, ...] with the rows first, got a scalar at position {i}: "
                    "unsqueeze(0) makes one row of it"
                )
            if rows >= 0 and value.shape[0] != rows:
                raise ValueError(
                    f"IO expected {rows} rows in every tensor, got {value.shape[0]} at position {i}: "
                    "dimension 0 is the row"
                )
            rows = value.shape[0]
        return super().__new__(cls, tensors)

    def __getnewargs__(self) -> Any:  # copy and pickle call __new__ with these, one argument per tensor
        return tuple(self)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> IO: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Tensor | IO:
        value = super().__getitem__(index)
        return IO(*value) if isinstance(value, tuple) else value

    def __repr__(self) -> str:
        return "IO(" + ", ".join(str(v.dtype).removeprefix("torch.") + str(list(v.shape)) for v in self) + ")"

    @property
    def f(self) -> Tensor:
        """The first tensor.

        Raises:
            ValueError: the IO is empty.
        """
        if not self:
            raise ValueError("expected an IO with a tensor, got an empty one: there is no first tensor")
        return super().__getitem__(0)

    @property
    def rows(self) -> int:
        """The number of rows n; 0 for an empty IO."""
        return super().__getitem__(0).shape[0] if self else 0

    def map(self, fn: Callable[[Tensor], Tensor]) -> IO:
        """The IO of fn(tensor) for every tensor."""
        return IO(*(fn(v) for v in self))

    def detach(self) -> IO:
        """The same values outside any graph; storage is shared."""
        return self.map(Tensor.detach)

    def clone(self) -> IO:
        """A detached copy with storage of its own."""
        return self.map(lambda v: v.detach().clone())

    def to(self, *args: Any, **kwargs: Any) -> IO:
        """Every tensor moved as by `Tensor.to`."""
        return self.map(lambda v: v.to(*args, **kwargs))

    def take(self, index: Tensor) -> IO:
        """The rows named by index: `[m]` positions or `[n]` booleans."""
        return self.map(lambda v: v[index])

    def tile(self, k: int) -> IO:
        """All rows k times, copy after copy, `[k * n, ...]`: row r belongs to sample r % n.

        >>> IO(torch.tensor([1, 2])).tile(2).f.tolist()
        [1, 2, 1, 2]
        """
        return self if k == 1 else self.map(lambda v: v.expand(k, *v.shape).flatten(0, 1))

    def leaves(self, requires_grad: bool) -> IO:
        """Detached leaves over the same storage; floating ones ask for a gradient if `requires_grad`."""
        if not requires_grad:
            return self.detach()
        return self.map(lambda v: v.detach().requires_grad_(v.is_floating_point()))

    def same(self, other: object) -> bool:
        """Whether other holds the very same tensor objects (not merely equal ones)."""
        return self is other or (
            isinstance(other, IO) and len(self) == len(other) and all(a is b for a, b in zip(self, other, strict=True))
        )


class Target(IO):
    """A target that is a point among the outputs of a layer, such as y - error; labels and probabilities are not.

    What `step_x` returns is one, so that a criterion for labels can refuse it. `away_from` also keeps the exact error:
    where |y| is far above |error|, the subtraction y - error rounds the error away. As a value it is the IO of the
    point. What `map`, `detach` or `to` makes is a point without an exact error; a pickled copy is a plain IO.

    >>> y = IO(torch.tensor([1e8]))
    >>> t = Target.away_from(y, [torch.tensor([1.0])])
    >>> (y.f - t.f).item(), t.error_of(y.detach())[0].item()
    (0.0, 1.0)
    """

    _y: tuple[Tensor, ...] = ()
    _errors: tuple[Tensor | None, ...] | None = None

    @classmethod
    def at(cls, values: IO) -> Target:
        """The same tensors, marked as a point among the outputs; a `Target` is returned as it is."""
        return values if isinstance(values, cls) else cls(*values)

    @classmethod
    def away_from(cls, y: IO, errors: Iterable[Tensor | None]) -> Target:
        """The target y - error; y itself where an error is None. The errors are kept, so nobody may write into them."""
        errors, values = tuple(errors), tuple(v.detach() for v in y)
        target = cls(*(v if e is None else v - e for v, e in zip(values, errors, strict=True)))
        target._y, target._errors = values, errors
        return target

    def map(self, fn: Callable[[Tensor], Tensor]) -> Target:
        """The point of fn(tensor) for every tensor."""
        return Target(*(fn(v) for v in self))

    def error_of(self, y: IO) -> tuple[Tensor | None, ...] | None:
        """The errors, if the target was made from this very y (the same memory); else None."""
        if self._errors is None:
            return None
        made = len(y) == len(self._y) and all(_same_memory(a, b) for a, b in zip(y, self._y, strict=True))
        return self._errors if made else None

    def __reduce__(self) -> tuple[type[IO], tuple[Tensor, ...]]:
        return IO, tuple(self)


class Probabilities(IO):
    """A target for the layer below that holds class probabilities or choices, which a criterion for labels takes."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> Probabilities:
        """The probabilities fn(tensor) for every tensor."""
        return Probabilities(*(fn(v) for v in self))

    def __reduce__(self) -> tuple[type[IO], tuple[Tensor, ...]]:
        return IO, tuple(self)


def exact_error(y: IO, t: IO) -> tuple[Tensor | None, ...] | None:
    """What separates y from t, where t is a `Target` made from y; else None."""
    return t.error_of(y) if isinstance(t, Target) else None


def errors_of(y: IO, t: IO) -> tuple[Tensor | None, ...]:
    """What separates y from t, per tensor: the exact error where t was made from y, else y - t; None for integers.

    >>> errors_of(IO(torch.ones(2)), IO(torch.zeros(2)))[0].tolist()
    [1.0, 1.0]
    """
    exact = exact_error(y, t)
    if exact is not None:
        return exact
    return tuple(a.detach() - b if a.is_floating_point() else None for a, b in zip(y, t, strict=True))


def asks_nothing(y: IO, t: IO) -> bool:
    """Whether t is a target that no error was given for: the loss does not use the outputs y.

    An error of zero is asked for; no error is not, and an integer output never has one.

    >>> y = IO(torch.ones(2))
    >>> asks_nothing(y, Target.away_from(y, [None])), asks_nothing(y, Target.away_from(y, [torch.zeros(2)]))
    (True, False)
    """
    exact = exact_error(y, t)
    return exact is not None and all(e is None for e in exact) and any(v.is_floating_point() for v in y)


def nothing_asked(x: IO) -> Target:
    """The target that asks nothing of x."""
    return Target.away_from(x, [None] * len(x))


def target_of_part(y: IO, t: IO, index: int) -> IO:
    """The target of the one tensor y[index] out of t, as exact as t is."""
    exact = exact_error(y, t)
    part = slice(index, index + 1)
    if exact is not None:
        return Target.away_from(y[part], exact[part])
    return Target.at(t[part]) if isinstance(t, Target) else t[part]


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.shape == b.shape
        and a.dtype == b.dtype
        and a.data_ptr() == b.data_ptr()
        and a.stride() == b.stride()
        and a.device == b.device
    )


def as_io(value: IO | Tensor | Iterable[Tensor], what: str | None = None) -> IO:
    """An IO of a tensor or of several; an IO is handed back as it is.

    Args:
        value: the tensor, the tensors or the IO.
        what: names the argument in the error.

    Raises:
        TypeError: value is something else.

    >>> as_io(torch.zeros(2, 3))
    IO(float32[2, 3])
    """
    if isinstance(value, IO):
        return value
    if what is not None and not isinstance(value, (Tensor, tuple, list)):
        raise TypeError(
            f"{what} expected a tensor [n, ...] or an IO, got {type(value).__name__}: give rows, torch.as_tensor makes "
            "a tensor of an array"
        )
    return IO(*value) if isinstance(value, (tuple, list)) else IO(cast(Tensor, value))


def no_io(what: str, name: str, value: object) -> TypeError:
    """The error for something else, a bare tensor mostly, where an IO belongs."""
    return TypeError(
        f"{what} expected {name} as an IO, got {type(value).__name__}: write IO({name}) for a tensor; learn, test and "
        "calling the machine take tensors as they are"
    )


def _unflatten(children: Iterable[Any], _: Any) -> IO:
    return tuple.__new__(IO, children)  # torch.func also builds trees of dimensions and specs, which are no tensors


for _kind in (IO, Target, Probabilities):
    _pytree.register_pytree_node(
        _kind, lambda io: (list(io), None), _unflatten, serialized_type_name=f"zenkai_core.{_kind.__name__}"
    )
torch.serialization.add_safe_globals([IO])
