"""Step rules: what to add to a parameter vector, given the gradient of the cost and what the rule remembers.

Written as functions of tensors over [*batch_shape, n], one rule a class, so that independent searches step at once, a
state can be saved, and `tell` compiles. `TorchStep` takes any optimiser of `torch.optim` instead.

References: D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, 2015; N. E. Toklu, P. Liskowski and
R. K. Srivastava, ClipUp: A Simple and Powerful Optimizer for Distribution-based Policy Evolution, 2020.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tansaku import checks

Memory = Mapping[str, Tensor]


class StepRule(ABC):
    """A step against the gradient; hyper-parameters only, what changes is in the memory."""

    @abstractmethod
    def init(self, x: Tensor) -> Memory:
        """What is remembered before the first step from ``x`` [*batch_shape, n]."""

    @abstractmethod
    def step(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The change [*batch_shape, n] to add, and the next memory; the old one is not written to."""


@dataclass(frozen=True)
class SGD(StepRule):
    """``-lr * gradient``, with momentum as in `torch.optim.SGD`.

    Example:
        >>> rule = SGD(0.1)
        >>> rule.step(torch.ones(2), rule.init(torch.zeros(2)))[0]
        tensor([-0.1000, -0.1000])
    """

    lr: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        checks.number("lr", self.lr, 0.0)
        checks.probability("momentum", self.momentum)

    def init(self, x: Tensor) -> Memory:
        """A velocity of zero, if there is momentum."""
        return {"velocity": torch.zeros_like(x)} if self.momentum else {}

    def step(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step."""
        if not self.momentum:
            return -self.lr * gradient, {}
        velocity = self.momentum * memory["velocity"] + gradient
        return -self.lr * velocity, {"velocity": velocity}


@dataclass(frozen=True)
class Adam(StepRule):
    """Kingma & Ba 2015, Algorithm 1; its default parameters, but for the learning rate, which has none here."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        checks.number("lr", self.lr, 0.0)
        checks.number("eps", self.eps, 0.0)
        for beta in self.betas:
            checks.probability("betas", beta)

    def init(self, x: Tensor) -> Memory:
        """Both moments at zero."""
        return {"first": torch.zeros_like(x), "second": torch.zeros_like(x), "count": x.new_zeros(())}

    def step(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step."""
        b1, b2 = self.betas
        count = memory["count"] + 1
        first = torch.lerp(memory["first"], gradient, 1 - b1)
        second = torch.addcmul(b2 * memory["second"], gradient, gradient, value=1 - b2)
        unbiased = first / (1 - b1**count), second / (1 - b2**count)
        change = -self.lr * unbiased[0] / (unbiased[1].sqrt() + self.eps)
        return change, {"first": first, "second": second, "count": count}


@dataclass(frozen=True)
class ClipUp(StepRule):
    """Toklu et al. 2020, Algorithm 1: a velocity fed with normalised gradients and clipped, search by search.

    Args:
        lr: length of what a gradient adds to the velocity.
        momentum: share of the velocity that is kept.
        max_speed: longest velocity; twice ``lr`` if not given (the paper's rule).
    """

    lr: float
    momentum: float = 0.9
    max_speed: float | None = None

    def __post_init__(self) -> None:
        checks.number("lr", self.lr, 0.0)
        checks.probability("momentum", self.momentum)
        if self.max_speed is not None:
            checks.number("max_speed", self.max_speed, 0.0)

    def init(self, x: Tensor) -> Memory:
        """A velocity of zero."""
        return {"velocity": torch.zeros_like(x)}

    def step(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step; a gradient of zero adds nothing."""
        limit = 2 * self.lr if self.max_speed is None else self.max_speed
        velocity = self.momentum * memory["velocity"] - self.lr * _unit(gradient)
        speed = torch.linalg.vector_norm(velocity, dim=-1, keepdim=True)
        velocity = torch.where(speed > limit, velocity * (limit / speed), velocity)
        return velocity, {"velocity": velocity}


@dataclass(frozen=True)
class TorchStep(StepRule):
    """Any optimiser of `torch.optim` that needs no closure; the searches of a batch are one tensor to it.

    A step is not compiled, since torch's optimisers write into their state. The parameter that the optimiser sees is
    zero, so decoupled weight decay (AdamW) has no effect: give ``weight_decay`` to the algorithm.

    Args:
        make: list of parameters -> optimiser.

    Example:
        >>> rule = TorchStep(lambda parameters: torch.optim.RMSprop(parameters, lr=0.1))
        >>> change, memory = rule.step(torch.ones(2), rule.init(torch.zeros(2)))
        >>> sorted(memory)
        ['square_avg', 'step']
    """

    make: Callable[[list[Tensor]], torch.optim.Optimizer]

    def init(self, x: Tensor) -> Memory:
        """Nothing: the optimiser makes its memory in the first step."""
        return {}

    def step(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step."""
        parameter = torch.zeros_like(gradient).requires_grad_()
        parameter.grad = gradient.clone()
        optimizer = self.make([parameter])
        if memory:
            optimizer.state[parameter] = {name: x.clone() for name, x in memory.items()}
        optimizer.step()
        return parameter.detach(), dict(optimizer.state[parameter])


STEP_RULES: Mapping[str, Callable[[float], StepRule]] = {
    "sgd": SGD,
    "momentum": lambda lr: SGD(lr, momentum=0.9),
    "adam": Adam,
    "clipup": ClipUp,
}


def step_rule(optimizer: str | StepRule, lr: float) -> StepRule:
    """A rule by its name, with this learning rate, or the rule itself.

    Raises:
        TypeError, ValueError: neither.
    """
    if isinstance(optimizer, StepRule):
        return optimizer
    return STEP_RULES[check_optimizer(optimizer)](lr)


def check_optimizer(optimizer: Any) -> Any:
    """``optimizer`` if it is a `StepRule` or the name of one.

    Raises:
        ValueError: neither.
    """
    if isinstance(optimizer, StepRule) or (isinstance(optimizer, str) and optimizer in STEP_RULES):
        return optimizer
    raise ValueError(
        f"expected optimizer among {sorted(STEP_RULES)} or a StepRule, got {optimizer!r}; "
        "wrap one of torch.optim with TorchStep"
    )


def _unit(x: Tensor) -> Tensor:
    """``x`` with length 1 in its last dimension; zero stays zero."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(length > 0, x / length, torch.zeros_like(x))
