"""`convert`: an ordinary `nn.Sequential` becomes a chain of machines, with one call that says the rule per layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from zenkai_core.chain import Chain
from zenkai_core.container import Order
from zenkai_core.criteria import Criterion, sse
from zenkai_core.learning import LearningMachine, LMode, Loss
from zenkai_core.machine import Machine, StepTheta, StepX, StepY
from zenkai_core.targets.gradient import Gradient
from zenkai_core.theta.null import Null
from zenkai_core.values import IO

Rules = tuple[StepTheta, StepX] | tuple[StepTheta, StepX, StepY]
Recipe = Callable[[nn.Module], "Rules | LearningMachine"]
"""A layer -> (theta, x) or (theta, x, y), new rules for it; or a machine of one's own."""
Key = int | str | type[nn.Module]

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


def convert(
    model: nn.Sequential,
    rules: Recipe | Mapping[Key, Recipe],
    criterion: Criterion = sse,
    *,
    group: bool | Sequence[int] = False,
    order: Order = "accumulate step_x step",
    loss: Loss = "mean",
    scale: float = 1.0,
    lmode: LMode = "accumulate",
) -> Chain:
    """A `Chain` of machines around the layers of a model: the very same modules, so that parameters are shared.

    Args:
        model: its children are the layers; one that is a machine already is taken as it is. One that stands at several
            places (shared weights) is one machine there, so it has to be grouped alike at each, and not to be the last.
        rules: layer -> (theta, x), or (theta, x, y), or a machine. One callable for all layers with parameters; or a
            mapping whose keys are positions (from 0, negative ones from the end), names or types. A position or a name
            goes before a type, and a type before those that it inherits from, so that `nn.Module` is "any other". Rules
            serve one machine, so the callable makes new ones at each call. A layer without parameters that no key but
            `nn.Module` names passes its target on by gradient: (theta.Null(), targets.Gradient()).
        criterion: of the last machine, the task's.
        group: True puts what follows a layer with parameters (normalisation, activation, dropout, pooling, whatever has
            no parameters) into one machine with it, whose rule is that layer's. Numbers say how many layers each
            machine takes; the first of them with parameters gives the rule.
        order: of the chain.
        scale: of the chain.
        lmode: of the chain.
        loss: of all machines.

    Raises:
        TypeError: the model is no `nn.Sequential`; a callable gives something else; a rule cannot take its layer.
        ValueError: an empty model, a key that names no layer, a layer without a rule, numbers that are not the layers';
            parameters, or fitted members, that the rules of two machines would move.

    >>> import torch
    >>> from zenkai_core import cross_entropy, targets, theta
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    >>> net = convert(
    ...     model,
    ...     {
    ...         nn.Linear: lambda m: (theta.Gradient(torch.optim.Adam, lr=1e-3), targets.Gradient()),
    ...         -1: lambda m: (theta.Delta(torch.optim.SGD, lr=0.1), targets.Gradient()),
    ...     },
    ...     cross_entropy,
    ...     group=True,
    ... )
    >>> len(net), net[0].module[0] is model[0]
    (2, True)
    """
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        raise TypeError(
            f"convert expected an nn.Sequential with its own forward, got {type(model).__name__}: put its layers into "
            "one, in order"
        )
    layers = [(name, layer) for name, layer in model._modules.items() if layer is not None]  # one may stand there twice
    if not layers:
        raise ValueError("convert expected a model with layers, got an empty one: give it some")
    found = _by_layer(rules, layers)
    made: dict[tuple[tuple[nn.Module, ...], Criterion], LearningMachine] = {}
    machines = []
    groups = _groups(layers, group)
    for i, members in enumerate(groups):
        own = criterion if i == len(groups) - 1 else sse
        key = tuple(layer for _, layer in members), own
        if key not in made:
            made[key] = _machine(members, found, own, loss)
        machines.append(made[key])
    _check_movers(groups, machines)
    return Chain(*machines, order=order, scale=scale, lmode=lmode)


Layers = list[tuple[str, nn.Module]]


def _by_layer(rules: Recipe | Mapping[Key, Recipe], layers: Layers) -> dict[str, Recipe | None]:
    """Name of a layer -> its recipe; None where there is none."""
    table: Mapping[Key, Recipe] = rules if isinstance(rules, Mapping) else {nn.Module: rules}
    for key, recipe in table.items():
        if not callable(recipe) or isinstance(recipe, nn.Module):
            raise TypeError(
                f"convert expected a callable for {_shown(key)}, got {type(recipe).__name__}: rules serve one machine, "
                "so write lambda m: (theta.Gradient(...), targets.Gradient())"
            )
    names = [name for name, _ in layers]
    named: dict[str, Recipe] = {}
    for key, recipe in table.items():
        if isinstance(key, int) and -len(layers) <= key < len(layers):
            named[names[key]] = recipe
        elif isinstance(key, str) and key in names:
            named[key] = recipe
        elif not (isinstance(key, type) and issubclass(key, nn.Module)):
            raise ValueError(
                f"convert expected a type of module, or a layer among {names}, got {key!r}: name one of them"
            )
    result: dict[str, Recipe | None] = {}
    for name, layer in layers:
        kinds = [
            kind for kind in type(layer).__mro__ if kind in table and (kind is not nn.Module or _has_weights(layer))
        ]
        result[name] = named.get(name) or (table[kinds[0]] if kinds else None)
    return result


def _groups(layers: Layers, group: bool | Sequence[int]) -> list[Layers]:
    if not isinstance(group, bool):
        sizes = list(group)
        if sum(sizes) != len(layers) or any(size < 1 for size in sizes):
            raise ValueError(f"convert expected group to share out {len(layers)} layers, got {sizes}: add up to them")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [layers[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    groups: list[Layers] = []
    open_ = False  # whether the last group has a layer with parameters, to which what follows belongs
    for name, layer in layers:
        leads = _has_weights(layer) and not isinstance(layer, _NORMS)
        if group and open_ and not leads and not isinstance(layer, LearningMachine):
            groups[-1].append((name, layer))
        else:
            groups.append([(name, layer)])
            open_ = leads and not isinstance(layer, LearningMachine)
    return groups


def _machine(members: Layers, found: Mapping[str, Recipe | None], criterion: Criterion, loss: Loss) -> LearningMachine:
    name, leader = next(((n, m) for n, m in members if _has_weights(m)), members[0])
    module = members[0][1] if len(members) == 1 else nn.Sequential(OrderedDict(members))
    shown = f"layer {name!r} ({type(leader).__name__})"
    if isinstance(module, LearningMachine):
        return module
    recipe = found[name]
    if recipe is None and any(_has_weights(m) for _, m in members):
        raise ValueError(
            f"convert expected a rule for {shown}, got none: add its name, its type or nn.Module to the rules"
        )
    made: Any = (Null(), Gradient()) if recipe is None else recipe(module)
    if isinstance(made, LearningMachine):
        return made
    kinds = (StepTheta, StepX, StepY)
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not all(map(isinstance, made, kinds)):
        raise TypeError(
            f"convert expected (theta, x), (theta, x, y) or a machine for {shown}, got {_kinds(made)}: rules for theta "
            "are in zenkai_core.theta, rules for targets in zenkai_core.targets"
        )
    theta, x, *y = made
    try:
        return Machine(module, theta, x, criterion, y=y[0] if y else None, loss=loss)
    except (TypeError, RuntimeError) as error:
        raise type(error)(f"convert, {shown}: {error}") from error


def _check_movers(groups: list[Layers], machines: list[LearningMachine]) -> None:
    """Refuses parameters, and members of estimators, in two machines whose rules both move them."""
    movers: dict[object, tuple[str, LearningMachine]] = {}
    for members, machine in zip(groups, machines, strict=True):
        if isinstance(machine, Machine) and isinstance(machine.theta, Null):
            continue
        for name, layer in members:
            taking = [m for m in layer.modules() if callable(getattr(m, "add_member", None))]
            for moved in (*layer.parameters(), *taking):
                place, other = movers.setdefault(moved, (name, machine))
                if other is not machine:
                    raise ValueError(
                        f"convert expected each layer's parameters in one machine, got those of layer {name!r} "
                        f"({type(layer).__name__}) in another, with layer {place!r}, too, which would move them twice: "
                        "group both places alike, end the model by nn.Identity() if one of them is the last, or give "
                        "one of them theta.Null()"
                    )


def _has_weights(layer: nn.Module) -> bool:
    return next(layer.parameters(), None) is not None or callable(getattr(layer, "add_member", None))


def _shown(key: object) -> str:
    return key.__name__ if isinstance(key, type) else repr(key)


def _kinds(made: object) -> str:
    if isinstance(made, tuple) and not isinstance(made, IO):
        return "(" + ", ".join(type(m).__name__ for m in made) + ")"
    return type(made).__name__
