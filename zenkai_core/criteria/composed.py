"""Criteria made of others: sums of several, utilities, and one that also sees the layer's inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zenkai_core.criteria.base import Criterion, averaged, checked, is_distance, output_gradient, per_row
from zenkai_core.values import IO


class Weighted:
    """The weighted sum of criteria of one output and target.

    Args:
        terms: (weight, criterion) pairs.

    Raises:
        ValueError: no term.
        TypeError: a criterion is one of torch's losses, or none.

    >>> from zenkai_core.criteria import absolute_error, sse
    >>> both = Weighted((1.0, sse), (0.5, absolute_error))
    >>> both(IO(torch.tensor([[2.0]])), IO(torch.tensor([[0.0]]))).item()
    3.0
    """

    def __init__(self, *terms: tuple[float, Criterion]) -> None:
        if not terms:
            raise ValueError("Weighted expected at least one (weight, criterion), got none: for example (1.0, sse)")
        self.terms = tuple((float(weight), checked(criterion)) for weight, criterion in terms)

    def __call__(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`."""
        first, *others = (weight * per_row(criterion(y, t), y) for weight, criterion in self.terms)
        return sum(others, first)

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """dcost/dy per tensor of y, None for an integer output."""
        columns = zip(*(output_gradient(criterion, y, t) for _, criterion in self.terms), strict=True)
        return tuple(self._sum(column) for column in columns)

    @property
    def distance(self) -> bool | None:
        """Whether a target is a place among the outputs: if it is for every term."""
        said = {is_distance(criterion) for _, criterion in self.terms}
        return said.pop() if len(said) == 1 else False if False in said else None

    def averaged(self) -> Weighted:
        """The same sum with each term divided by its own normaliser; see `zenkai_core.criteria`."""
        terms = [(weight, averaged(criterion)) for weight, criterion in self.terms]
        unchanged = all(new is old for (_, new), (_, old) in zip(terms, self.terms, strict=True))
        return self if unchanged else Weighted(*terms)

    def _sum(self, values: tuple[Tensor | None, ...]) -> Tensor | None:
        kept = [weight * v for (weight, _), v in zip(self.terms, values, strict=True) if v is not None]
        return torch.stack(kept).sum(0) if kept else None

    def __repr__(self) -> str:
        return "Weighted(" + ", ".join(f"({weight}, {criterion!r})" for weight, criterion in self.terms) + ")"


class Utility:
    """What is to be raised, as a cost: the negative of (y, t) -> `[n]`.

    Reports of `learn` and `test` are costs, so they have the other sign.

    Args:
        utility: (y, t) -> `[n]`, more is better.

    >>> right = Utility(lambda y, t: (y.f.argmax(1) == t.f).float())
    >>> right(IO(torch.tensor([[0.0, 1.0]])), IO(torch.tensor([1]))).item()
    -1.0
    """

    def __init__(self, utility: Callable[[IO, IO], Tensor]) -> None:
        self.utility = checked(utility)

    def __call__(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`."""
        return -per_row(self.utility(y, t), y, "utility")

    def __repr__(self) -> str:
        return f"Utility({self.utility!r})"


class SeesInputs:
    """A criterion that also sees the inputs of the layer, as they were in the pass: (x, y, t) -> `[n]`.

    In a `Machine` on its own or anywhere in a `Chain`, alone or as a term of `Weighted`; for the output of a `Graph` or
    of machines side by side, let the module put out what is needed of x. In autograd the last layer sees gradients
    alone, and this is not asked.

    Args:
        criterion: (x, y, t) -> `[n]` cost per row.

    Raises:
        TypeError: it is no callable, or is asked without inputs.
        ValueError: asked for other rows than those of the pass, as local minibatches do.

    >>> from torch import nn
    >>> from zenkai_core import Machine, SeesInputs, sse, targets, theta
    >>> near_input = SeesInputs(lambda x, y, t: sse(y, t) + 0.1 * sse(y, x))
    >>> layer = Machine(nn.Linear(3, 3), theta.Gradient(), targets.Gradient(), near_input)
    >>> layer.learn(torch.randn(4, 3), torch.randn(4, 3)).shape
    torch.Size([])
    """

    def __init__(self, criterion: Callable[[IO, IO, IO], Tensor]) -> None:
        if not callable(criterion):
            raise TypeError(
                f"SeesInputs expected a criterion (x, y, t) -> [n] cost per row, got {type(criterion).__name__}: write "
                "a function of three IOs"
            )
        self.criterion = criterion

    def at(self, x: IO) -> Criterion:
        """The criterion of y and t for these inputs, or for k whole copies of their rows."""

        def cost(y: IO, t: IO) -> Tensor:
            if y.rows % max(x.rows, 1):
                raise ValueError(
                    f"SeesInputs expected outputs for the {x.rows} rows of the pass, got {y.rows}: leave batch_size out"
                )
            return per_row(self.criterion(x.tile(y.rows // x.rows) if x.rows else x, y, t), y)

        return cost

    def __call__(self, y: IO, t: IO) -> Tensor:
        """Refuses: without the inputs there is no cost."""
        raise TypeError(
            "SeesInputs expected the inputs of a pass, got y and t alone: ask learn, test or Machine.cost(y, t, state) "
            "of a Machine on its own or in a Chain"
        )


def at_inputs(criterion: Criterion, x: IO) -> Criterion | None:
    """The criterion for the inputs of a pass, where it, or a term of it, sees them; else None."""
    if isinstance(criterion, SeesInputs):
        return criterion.at(x)
    if isinstance(criterion, Weighted):
        seen = [at_inputs(term, x) for _, term in criterion.terms]
        if any(term is not None for term in seen):
            pairs = zip(criterion.terms, seen, strict=True)
            return Weighted(*((weight, given if term is None else term) for (weight, given), term in pairs))
    return None
