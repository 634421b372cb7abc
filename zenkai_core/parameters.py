"""Parameters and gradients of a module as one vector, and back; minibatches of rows.

Vectors are laid out as `torch.nn.utils.parameters_to_vector` lays them out: parameter after parameter in the order of
`named_parameters()`, each flattened. `where` picks parameters by name; what it leaves out is neither read nor written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from zenkai_core.checks import check_whole
from zenkai_core.values import IO, as_io

Where = Callable[[str, nn.Parameter], bool]


def trainable(name: str, parameter: nn.Parameter) -> bool:
    """A `where` that picks the parameters that ask for a gradient."""
    return parameter.requires_grad


def named(module: nn.Module, where: Where | None = None) -> dict[str, nn.Parameter]:
    """Name -> parameter, those that `where` picks; all if None.

    >>> list(named(nn.Linear(2, 1), lambda name, p: name.endswith("bias")))
    ['bias']
    """
    return {name: p for name, p in module.named_parameters() if where is None or where(name, p)}


def to_vector(module: nn.Module, where: Where | None = None) -> Tensor:
    """The parameters, `[size]`, a copy without a graph.

    Raises:
        ValueError: nothing is picked.
    """
    with torch.no_grad():
        return torch.cat([p.reshape(-1) for p in _picked(module, where)])


def set_vector(module: nn.Module, vector: Tensor, where: Where | None = None) -> None:
    """Writes a vector `[size]` into the parameters, in place.

    Raises:
        ValueError: nothing is picked, or another size.

    >>> net = nn.Linear(2, 1)
    >>> set_vector(net, torch.tensor([1.0, 2.0, 3.0]))
    >>> net.weight.tolist(), net.bias.tolist(), to_vector(net).tolist()
    ([[1.0, 2.0]], [3.0], [1.0, 2.0, 3.0])
    """
    picked = _sized(module, vector, where)
    with torch.no_grad():
        for p, value in zip(picked, _parts(picked, vector), strict=True):
            p.copy_(value)


def add_vector(module: nn.Module, vector: Tensor, where: Where | None = None, *, scale: float = 1.0) -> None:
    """Adds scale * vector, `[size]`, to the parameters, in place.

    Raises:
        ValueError: nothing is picked, or another size.
    """
    picked = _sized(module, vector, where)
    with torch.no_grad():
        for p, value in zip(picked, _parts(picked, vector), strict=True):
            p.add_(value.to(p), alpha=scale)


def gradient_to_vector(module: nn.Module, where: Where | None = None) -> Tensor:
    """The gradients, `[size]`, a copy; zeros for a parameter that has none.

    Raises:
        ValueError: nothing is picked.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in _picked(module, where)]
    return torch.cat([g.detach().reshape(-1) for g in grads])


def set_gradient(module: nn.Module, vector: Tensor, where: Where | None = None) -> None:
    """Makes a vector `[size]` the gradients, each with storage of its own.

    Raises:
        ValueError: nothing is picked, or another size.
    """
    picked = _sized(module, vector, where)
    for p, value in zip(picked, _parts(picked, vector), strict=True):
        p.grad = value.detach().to(p, copy=True)


def add_gradient(module: nn.Module, vector: Tensor, where: Where | None = None) -> None:
    """Adds a vector `[size]` to the gradients; a parameter without one gets it.

    Raises:
        ValueError: nothing is picked, or another size.

    >>> net = nn.Linear(1, 1)
    >>> add_gradient(net, torch.tensor([1.0, 2.0]))
    >>> add_gradient(net, torch.tensor([1.0, 2.0]))
    >>> gradient_to_vector(net).tolist()
    [2.0, 4.0]
    """
    picked = _sized(module, vector, where)
    for p, value in zip(picked, _parts(picked, vector), strict=True):
        value = value.detach().to(p, copy=True)
        p.grad = value if p.grad is None else p.grad + value


def set_gradient_towards(module: nn.Module, target: Tensor, where: Where | None = None) -> None:
    """Makes parameters less target, `[size]`, the gradients: a step of SGD with lr = 1 then lands on the target.

    Raises:
        ValueError: nothing is picked, or another size.
    """
    _sized(module, target, where)  # nothing is broadcast
    set_gradient(module, to_vector(module, where) - target, where)


def minibatches(
    x: IO | Tensor,
    t: IO | Tensor,
    size: int,
    *,
    generator: torch.Generator | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Iterator[tuple[IO, IO]]:
    """(inputs, targets) of `size` rows each; a whole pass over the rows. For a data set, take torch's `DataLoader`.

    Args:
        x: inputs, `[n, ...]`.
        t: targets, `[n, ...]`.
        size: rows of a minibatch; the last one may have fewer.
        generator: of the shuffle; torch's global one if None.
        shuffle: whether rows are drawn in random order.
        drop_last: whether a shorter last minibatch is left out.

    Raises:
        TypeError: size is no whole number.
        ValueError: size < 1, or targets for another number of rows; at once, before the first minibatch.

    >>> [len(b.f) for b, _ in minibatches(torch.zeros(5, 2), torch.zeros(5), 2)]
    [2, 2, 1]
    """
    x, t = as_io(x, "x of minibatches"), as_io(t, "t of minibatches")
    check_whole("minibatches", size=size)
    if size < 1 or x.rows != t.rows:
        raise ValueError(
            f"minibatches expected size >= 1 and as many targets as inputs, got size={size}, {x.rows} inputs and "
            f"{t.rows} targets: dimension 0 is the row"
        )
    device = x.f.device if x else torch.device("cpu")
    order = torch.randperm(x.rows, generator=generator).to(device) if shuffle else torch.arange(x.rows, device=device)
    parts = [part for part in order.split(int(size)) if len(part) == size or not drop_last]
    return ((x.take(part), t.take(part.to(t.f.device))) for part in parts)


def _picked(module: nn.Module, where: Where | None) -> list[nn.Parameter]:
    picked = list(named(module, where).values())
    if not picked:
        raise ValueError(
            f"expected parameters to make a vector of, got none from {type(module).__name__}: give a module that has "
            "some, or a `where` that picks some"
        )
    return picked


def _sized(module: nn.Module, vector: Tensor, where: Where | None) -> list[nn.Parameter]:
    picked = _picked(module, where)
    size = sum(p.numel() for p in picked)
    if vector.shape != (size,):
        raise ValueError(
            f"expected a vector [{size}], one number for each entry of the parameters, got {list(vector.shape)}: "
            "to_vector(module) shows the layout"
        )
    return picked


def _parts(picked: list[nn.Parameter], vector: Tensor) -> list[Tensor]:
    parts = vector.split([p.numel() for p in picked])
    return [v.view(p.shape) for v, p in zip(parts, picked, strict=True)]
