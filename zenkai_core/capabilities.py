"""What a module offers to rules: the five names that a rule may require.

- "parameters": at least one parameter that asks for a gradient.
- "differentiable": no submodule says `differentiable = False` (`modules.Sign` does; write it into your own).
- "linear": an `nn.Linear`, alone or followed by one activation whose slope can be read from its output.
- "estimator": it takes fitted scikit-learn estimators as members (`add_member`).
- "invertible": it has `inverse(y)`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zenkai_core.compiled import original
from zenkai_core.modules import reversible
from zenkai_core.modules.discrete import Step, StepSTE
from zenkai_core.modules.sign import Sign, SignSTE

_SLOPES: dict[type[nn.Module], Callable[[nn.Module, Tensor], Tensor]] = {
    nn.Identity: lambda m, y: torch.ones_like(y),
    nn.ReLU: lambda m, y: (y > 0).to(y.dtype),
    nn.Tanh: lambda m, y: 1 - y.square(),
    nn.Sigmoid: lambda m, y: y * (1 - y),
    reversible.Tanh: lambda m, y: 1 - y.square(),
    reversible.Sigmoid: lambda m, y: y * (1 - y),
    Sign: lambda m, y: torch.ones_like(y),  # the perceptron's rule: the error reaches the sum as it is
    SignSTE: lambda m, y: torch.ones_like(y),
    Step: lambda m, y: torch.ones_like(y),  # as for a sign
    StepSTE: lambda m, y: torch.ones_like(y),
}


_NAMES = frozenset({"differentiable", "parameters", "linear", "estimator", "invertible"})


def capabilities(module: nn.Module) -> frozenset[str]:
    """The names of {"differentiable", "parameters", "linear", "estimator", "invertible"} that hold.

    >>> sorted(capabilities(nn.Linear(2, 1)))
    ['differentiable', 'linear', 'parameters']
    """
    found = set()
    if any(p.requires_grad for p in module.parameters()):
        found.add("parameters")
    if _blocking(module) is None:
        found.add("differentiable")
    if linear_parts(module) is not None:
        found.add("linear")
    if callable(getattr(module, "add_member", None)):
        found.add("estimator")
    if callable(getattr(module, "inverse", None)):
        found.add("invertible")
    return frozenset(found)


def linear_parts(module: nn.Module) -> tuple[nn.Linear, nn.Module | None] | None:
    """The linear map and its activation (None: none) of a "linear" module; None for another."""
    module = original(module)
    if isinstance(module, nn.Linear):
        return module, None
    if isinstance(module, nn.Sequential) and 0 < len(module) <= 2 and isinstance(module[0], nn.Linear):
        if len(module) == 1:
            return module[0], None
        return (module[0], module[1]) if type(module[1]) in _SLOPES else None
    return None


def slope(activation: nn.Module, y: Tensor) -> Tensor:
    """The derivative of the activation where its output is y; 1 for a sign, as in the perceptron's rule."""
    return _SLOPES[type(activation)](activation, y)


def check_kind(owner: str, name: str, given: object, kind: type) -> None:
    """Refuses what is no rule of the kind that a slot of a machine, or of another rule, takes.

    Raises:
        TypeError: it is something else, or its `__init__` left out the base class's.
    """
    if not isinstance(given, kind):
        raise TypeError(
            f"{owner} expected {name} to be a {kind.__name__}, got {type(given).__name__}: rules for "
            "theta are in zenkai_core.theta, rules for targets in zenkai_core.targets"
        )
    if "_modules" not in given.__dict__:  # nn.Module's own __init__ makes it
        raise TypeError(
            f"{owner} expected {name} to be a ready {kind.__name__}, got {type(given).__name__}, whose __init__ does "
            "not call super().__init__(): call it first"
        )


def qualified(rule: object) -> str:
    """The name of a rule in messages, as users import it: "theta.Delta"; a user's own is named in full."""
    package, *modules = type(rule).__module__.split(".")
    return ".".join(
        [modules[0] if package == "zenkai_core" and modules else type(rule).__module__, type(rule).__name__]
    )


def check(rule: str, requires: frozenset[str], module: nn.Module) -> None:
    """Refuses a module that lacks what a rule of that name requires.

    Raises:
        TypeError: naming the first that it lacks.
        ValueError: the rule requires what is no capability.
    """
    if unknown := requires - _NAMES:
        raise ValueError(f"{rule} expected requires among {sorted(_NAMES)}, got {sorted(unknown)}: name one of them")
    for need in sorted(requires - capabilities(module)):
        raise TypeError(
            f"{rule} expected a module that is '{need}', got {type(module).__name__}: {_remedy(need, module)}"
        )


def _remedy(need: str, module: nn.Module) -> str:
    """How to give a module what it lacks, in half a sentence."""
    blocking = _blocking(module)
    return {
        "differentiable": f"{type(blocking).__name__} has no gradient; take a straight-through variant or a rule that "
        "searches",
        "parameters": "no parameter asks for a gradient; use theta.Null",
        "linear": "use nn.Linear, alone or in a Sequential with one of "
        + ", ".join(sorted({kind.__name__ for kind in _SLOPES})),
        "estimator": "use modules.Trees or modules.Estimators, which take fitted scikit-learn estimators",
        "invertible": "give it an inverse(y), as modules.Sequential has; or give the rule a module that learns it",
    }[need]


def _blocking(module: nn.Module) -> nn.Module | None:
    return next((m for m in module.modules() if getattr(m, "differentiable", True) is False), None)
