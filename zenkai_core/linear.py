"""What rules for linear layers share: the error at the linear map, and ridge regression.

min |A Z - B|^2 + damping |Z|^2 has the solution (A'A + damping I)^-1 A'B = A'(AA' + damping I)^-1 B (Hoerl, Kennard,
1970); the Cholesky factor is that of the smaller of the two. Without damping it is the shortest of the least-squares
solutions, by the pseudoinverse. All of it in float64: the condition of A'A is that of A squared, and in float32 a
layer's inputs of condition 1e4 would leave no digit.
"""

from __future__ import annotations

import math
import numbers
from typing import cast

import torch
from torch import Tensor, nn

from zenkai_core.capabilities import linear_parts, slope
from zenkai_core.criteria import Criterion, output_gradient
from zenkai_core.values import IO


def linear_error(rule: str, module: nn.Module, y: IO, t: IO, criterion: Criterion) -> tuple[nn.Linear, Tensor]:
    """The linear map of a "linear" module, and the error at its output: dl/dy per row times the activation's slope.

    l is the criterion, whose gradient is y - t for squared error. It is the closed form where there is one; another
    criterion is differentiated by autograd, the module never is.

    Args:
        rule: its name, for errors.
        module: that the rule was bound to.
        y: the layer's output, `[n, ..., out]`.
        t: what the criterion takes.
        criterion: of the layer in the pass.

    Returns:
        The map, and the error `[n, ..., out]`, exact for a `Target`.

    Raises:
        TypeError: the module is not "linear" any more.
        ValueError: t is not what the criterion takes.
        RuntimeError: the criterion has no gradient.
    """
    parts = linear_parts(module)
    if parts is None:
        raise TypeError(
            f"{rule} expected a linear module, got {type(module).__name__}: the module was changed after it was bound"
        )
    linear, activation = parts
    out = y.detach()
    error = cast(Tensor, output_gradient(criterion, out, t)[0])
    return linear, error if activation is None else error * slope(activation, out.f)


def check_damping(rule: str, damping: float) -> float:
    """The damping, if it can be one.

    Raises:
        ValueError: it is negative or not finite.
    """
    if not isinstance(damping, numbers.Real) or not (math.isfinite(damping) and damping >= 0):
        raise ValueError(
            f"{rule} expected a finite damping >= 0, got {damping!r}: 0 takes the least-squares solution, 1 is a start"
        )
    return float(damping)


def check_finite(rule: str, **values: Tensor) -> None:
    """Refuses what no system of equations takes, before LAPACK does; all values are added up and read once.

    Raises:
        ValueError: NaN or infinity, with the name of what holds it.
    """
    if math.isfinite(float(sum(value.sum(dtype=torch.float64) for value in values.values()))):
        return
    for what, value in values.items():
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{rule} expected finite numbers, got NaN or infinity in the {what}: look at the data, the loss and "
                "the layers around; a larger damping holds steps back"
            )


def ridge(a: Tensor, b: Tensor, damping: float) -> Tensor:
    """The Z with the least |A Z - B|^2 + damping |Z|^2.

    Args:
        a: `[*batch_shape, m, n]`.
        b: `[*batch_shape, m, k]`.
        damping: >= 0; with 0 the shortest least-squares solution.

    Returns:
        `[*batch_shape, n, k]`, in float64.

    >>> a, b = torch.tensor([[2.0]]), torch.tensor([[4.0]])
    >>> round(ridge(a, b, 0.0).item(), 6), round(ridge(a, b, 4.0).item(), 6)
    (2.0, 1.0)
    """
    a, b = a.double(), b.double()
    if damping == 0:
        return torch.linalg.pinv(a) @ b
    if a.shape[-2] < a.shape[-1]:
        return a.mT @ _solve(a @ a.mT, b, damping)
    return _solve(a.mT @ a, a.mT @ b, damping)


def ridge_normal(gram: Tensor, moment: Tensor, damping: float) -> Tensor:
    """As `ridge`, from the normal equations alone: gram A'A `[*batch_shape, n, n]`, moment A'B `[*batch_shape, n, k]`.

    Without damping, singular values of A below 1e-7 of the greatest count as zero, since squared they are rounding.
    """
    gram, moment = gram.double(), moment.double()
    if damping == 0:
        return torch.linalg.pinv(gram, hermitian=True, rtol=1e-14) @ moment
    return _solve(gram, moment, damping)


def _solve(gram: Tensor, right: Tensor, damping: float) -> Tensor:
    """(gram + damping I)^-1 right; where the damping is lost in the gram's rounding, by the pseudoinverse."""
    damped = gram + damping * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, info = torch.linalg.cholesky_ex(damped)
    if bool((info > 0).any()):
        return torch.linalg.pinv(damped, hermitian=True) @ right
    return torch.cholesky_solve(right, factor)
