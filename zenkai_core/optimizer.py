"""`Optimizer`: one line that lets any training loop move a model with machines in it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from zenkai_core.describe import optimizer_text
from zenkai_core.learning import LearningMachine, outermost
from zenkai_core.loss_scale import LossScale, Scale
from zenkai_core.machine import Machine
from zenkai_core.theta import Fit, Null, Search
from zenkai_core.theta.optimized import without_closure

_WITHOUT_OPTIMISER = (Fit, Null, Search)  # they move parameters by other means, or none: no scheduler is expected there


def plain_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of model that belong to no machine, which a torch optimiser should move."""
    owned = {p for m in outermost(model) for p in m.parameters()}
    return [p for p in model.parameters() if p not in owned]


def _optimizers_of(part: nn.Module) -> Iterator[torch.optim.Optimizer]:
    for value in vars(part).values():
        several = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
        for each in several:
            each = each.torch_optimizer if isinstance(each, Optimizer) else each
            if isinstance(each, torch.optim.Optimizer):
                yield each


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of module, less those of the machines inside."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if not isinstance(child, LearningMachine):
            yield from _own_parameters(child)


class _Rest(dict[str, Any]):
    """A group without the parameters that stand in an earlier one; every other entry is read and written there."""

    def __init__(self, group: dict[str, Any], params: list[nn.Parameter]) -> None:
        super().__init__(group, params=params)
        self.group = group

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.group[name] = value

    def setdefault(self, name: str, value: Any = None) -> Any:
        if name not in self:
            self[name] = value
        return self[name]


class Optimizer(torch.optim.Optimizer):
    """Steps every machine of a model once, by its own rule, and then a torch optimiser for the plain parameters.

    `backward()` only accumulates; this moves. `param_groups` are those of all optimisers inside, the very same
    dictionaries, so that a scheduler of `torch.optim.lr_scheduler` schedules them all. What the machines' rules
    remember is saved with the model; `state_dict()` here holds the torch optimiser's.

    Args:
        model: any module with machines in it.
        torch_optimizer: for the parameters outside machines: an optimiser, or a callable that makes one of them, for
            example `lambda params: torch.optim.Adam(params, lr=1e-3)`.
        grad_scale: a factor that you put on the loss before `backward()`: a number (0.25 for `loss / 4`), or the
            `torch.amp.GradScaler` that scales it. What arrives at the machines is divided by it, so that every rule
            learns as without, and `.grad` stays scaled, for `scaler.unscale_` and clipping. With a scaler and rules
            that keep no gradients, `param_groups` ends with one more group, in which the scaler sees an overflow.

    Raises:
        ValueError: the torch optimiser also holds parameters of a machine, which would move twice.
        TypeError: model is no module; torch_optimizer is something else, or one whose `step` needs a closure, as
            LBFGS's does; grad_scale is no number and no GradScaler.

    Warns where parameters outside machines ask for a gradient and nobody moves them; and when `param_groups` is first
    read, by a scheduler say, while a machine's trainable parameters stand in no group. A machine's optimisers are those
    among the attributes of the machine, its rules and its modules, also inside a list, tuple or dictionary.
    """

    def __init__(
        self,
        model: nn.Module,
        torch_optimizer: torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
        *,
        grad_scale: Scale | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"Optimizer expected a model, got {type(model).__name__}: machines move by their own rules, so give it "
                "the network itself, Optimizer(model), and not its parameters"
            )
        self.machines = outermost(model)
        plain = plain_parameters(model)
        if torch_optimizer is not None and not isinstance(torch_optimizer, torch.optim.Optimizer):
            if not callable(torch_optimizer):
                raise TypeError(
                    f"Optimizer expected a torch optimiser or a callable that makes one, got "
                    f"{type(torch_optimizer).__name__}: for example lambda ps: torch.optim.Adam(ps, lr=1e-3)"
                )
            torch_optimizer = torch_optimizer(plain)
        self.torch_optimizer = None if torch_optimizer is None else without_closure(torch_optimizer)
        moved = {p for group in torch_optimizer.param_groups for p in group["params"]} if torch_optimizer else set()
        if any(p in moved for m in self.machines for p in m.parameters()):
            raise ValueError(
                "Optimizer expected a torch optimiser for the parameters outside machines, got one that also "
                "holds a machine's: they would move twice; give it zenkai_core.plain_parameters(model)"
            )
        if any(p.requires_grad and p not in moved for p in plain):
            warnings.warn(
                "parameters outside machines ask for a gradient and nobody moves them: give Optimizer a torch "
                "optimiser for zenkai_core.plain_parameters(model), or freeze them",
                stacklevel=2,
            )
        self._join(None if grad_scale is None else LossScale(grad_scale), looked=False)

    _step_supports_amp_scaling = True  # GradScaler.step then calls `step` with what it found in attributes

    def _join(self, scale: LossScale | None, *, looked: bool) -> None:
        """Sets the base class up, and the factor on the loss in every machine."""
        self._ready, self._looked = False, looked
        self._rest: dict[str, Any] | None = None
        self._zeroes = False  # whether `zero_grad` was called with set_to_none=False
        self._cleared: set[nn.Parameter] = set()  # parameters whose gradients a step has used up and set to None
        super().__init__([torch.zeros(0)], {})  # torch refuses an empty list, and a model of trees has no parameters
        self._ready = True
        self._scale = scale
        for m in self.machines:
            m.loss_scale = scale

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a file takes along: the machines, the torch optimiser and the factor; no hooks."""
        scale = self._scale and (self._scale.scaler or self._scale.number)
        own = {"machines": self.machines, "torch_optimizer": self.torch_optimizer, "looked": self._looked}
        return {**own, "grad_scale": scale}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.machines, self.torch_optimizer = state["machines"], state["torch_optimizer"]
        scale = state["grad_scale"]
        self._join(None if scale is None else LossScale(scale), looked=state["looked"])

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that all optimisers inside have, with the values of the first; schedulers look for them here."""
        inner = self._inner
        shared = set.intersection(*(set(o.defaults) for o in inner)) if inner else set()
        return {name: value for name, value in inner[0].defaults.items() if name in shared} if inner else {}

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        """Nothing: torch's constructor sets its own."""

    @property
    def _inner(self) -> list[torch.optim.Optimizer]:
        found = [o for m in self.machines for part in m.modules() for o in _optimizers_of(part)]
        return list(dict.fromkeys([*found, *([self.torch_optimizer] if self.torch_optimizer is not None else [])]))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimisers inside; changing an entry changes it there."""
        if not self._ready:
            return self._base
        groups = [group for o in self._inner for group in o.param_groups]
        if not self._looked and (self._scale is None or self._scale.scaler is None):  # a scaler reads them at each step
            self._looked = True
            self._warn_of_groupless(groups)
        return self._each_once(groups) + self._looked_at(groups)

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self._base = groups  # torch's constructor sets its own list, which nobody reads

    def _each_once(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For a GradScaler, which divides the gradients of every group: each parameter in one group alone."""
        if self._scale is None or self._scale.scaler is None:
            return groups
        seen: set[Any] = set()
        result = []
        for group in groups:
            rest = [p for p in group["params"] if p not in seen]
            seen.update(rest)
            result.append(group if len(rest) == len(group["params"]) else _Rest(group, rest))
        return result

    def _looked_at(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A group for a GradScaler alone, of parameters that are in no other; none where the others say everything."""
        scale = self._scale
        if scale is None or scale.scaler is None:
            return []
        if self._rest is None:
            held = {p for group in groups for p in group["params"]}
            free = [p for m in self.machines for p in m.parameters() if p.requires_grad and p not in held]
            needed = bool(free) or not held or any(m._keeps_rows() for m in self.machines)
            self._rest = {**self.defaults, "lr": 0.0, "params": [scale.marker, *free]} if needed else {}
        return [self._rest] if self._rest else []

    def _warn_of_groupless(self, groups: list[dict[str, Any]]) -> None:
        held = {p for group in groups for p in group["params"]}
        inside = [part for m in self.machines for part in m.modules() if isinstance(part, LearningMachine)]
        names = [
            type(m).__name__
            for m in dict.fromkeys(inside)
            if not (isinstance(m, Machine) and isinstance(m.theta, _WITHOUT_OPTIMISER))
            and (own := [p for p in _own_parameters(m) if p.requires_grad])
            and held.isdisjoint(own)
        ]
        if names:
            warnings.warn(
                f"Optimizer.param_groups expected an optimiser in every machine with trainable parameters, got none in "
                f"{', '.join(names)}, which no scheduler reaches: keep the torch optimiser as an attribute of the "
                "machine or of its rule",
                stacklevel=3,
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Every machine that a backward pass has told a target steps; then the torch optimiser does.

        Args:
            closure: computes the loss and calls `backward()`; called once, first.

        Returns:
            What the closure returned.

        Raises:
            RuntimeError: a GradScaler calls it, rules inside learn from rows, and the factor was not given as
                `grad_scale`.
        """
        if "found_inf" in vars(self) and not self._unscaled():
            return None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._zeroes:
            self._cleared.update(p for m in self.machines for p in m.parameters() if p.grad is not None)
        for machine in self.machines:
            for m in machine.modules():  # one inside may have been told by an earlier backward pass than the last
                if isinstance(m, LearningMachine):
                    m.step_told()
        if self.torch_optimizer is not None:
            self.torch_optimizer.step()
        return loss

    def _unscaled(self) -> bool:
        """Divides gradients by the factor of the GradScaler that is calling; False where it found an overflow."""
        rules = [
            name
            for m in self.machines
            for part in m.modules()
            if isinstance(part, LearningMachine)
            for name in part.local_only()
        ]
        if rules and (self._scale is None or self._scale.scaler is None):
            raise RuntimeError(
                f"GradScaler.step expected an Optimizer that knows of the factor on the loss, got one with "
                f"{', '.join(dict.fromkeys(rules))} that does not, which would learn it: make it with grad_scale=scaler"
            )
        if bool(vars(self)["found_inf"]):
            return False
        scale = vars(self)["grad_scale"]
        if scale is not None:  # the user has not called scaler.unscale_
            inverse = scale.double().reciprocal().float()
            params = dict.fromkeys(p for group in self.param_groups for p in group["params"] if p.grad is not None)
            for p in params:
                p.grad.mul_(inverse.to(p.grad.device))
        return True

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters, and every machine forgets the passes it was told since its last step.

        Rows that a rule collects over many steps stay.
        """
        params = [p for m in self.machines for p in m.parameters()]
        params += [p for g in (self.torch_optimizer.param_groups if self.torch_optimizer else []) for p in g["params"]]
        held = [p for p in params if p.grad is not None or p in self._cleared]
        self._zeroes = not set_to_none
        if set_to_none:
            self._cleared.clear()
        for m in self.machines:
            m.forget()
        if self._scale is not None:
            self._scale.clear()
        for p in held:
            p.grad = None if set_to_none else torch.zeros_like(p)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Hands further parameters outside machines to the torch optimiser.

        Raises:
            ValueError: there is none, or they are a machine's.
        """
        if not self._ready:  # torch's constructor
            super().add_param_group(param_group)
            return
        params = param_group["params"]
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        if self.torch_optimizer is None or any(p is q for m in self.machines for q in m.parameters() for p in params):
            raise ValueError(
                "Optimizer.add_param_group expected parameters outside machines and a torch optimiser for them, got "
                f"{'none' if self.torch_optimizer is None else 'those of a machine'}: give Optimizer a torch "
                "optimiser; a machine's parameters are moved by its own rule"
            )
        self.torch_optimizer.add_param_group({**param_group, "params": params})

    def state_dict(self) -> dict[str, Any]:
        """The torch optimiser's state; the machines' is in the model's `state_dict`."""
        inner = self.torch_optimizer
        if inner is None:
            return {"torch_optimizer": None}
        return {"torch_optimizer": inner.state_dict(), "kind": type(inner).__name__}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the torch optimiser's state back.

        Raises:
            ValueError: it is no state of an `Optimizer`; it has a torch optimiser and this has none, or the other way
                round; it is that of another torch optimiser.
        """
        if "torch_optimizer" not in state_dict:
            raise ValueError(
                f"Optimizer expected what its own state_dict() gave, with the entry 'torch_optimizer', got the entries "
                f"{list(state_dict)}: a torch optimiser's own state goes to optimizer.torch_optimizer"
            )
        held = state_dict["torch_optimizer"]
        if (held is None) != (self.torch_optimizer is None):
            raise ValueError(
                "Optimizer expected the state of one that was made alike, got one "
                f"{'without' if held is None else 'with'} a torch optimiser: make it with the same arguments"
            )
        if self.torch_optimizer is not None:
            own = type(self.torch_optimizer).__name__
            if state_dict.get("kind", own) != own:
                raise ValueError(
                    f"Optimizer expected the state of {own}, got that of {state_dict['kind']}: make it with the torch "
                    "optimiser that was saved, or load the model's weights alone"
                )
            self.torch_optimizer.load_state_dict(copy.deepcopy(held))  # torch would share the moments with the giver

    def __repr__(self) -> str:
        plain = self.torch_optimizer
        own = "" if plain is None else f", {optimizer_text(plain, type(plain), {})} for the plain parameters"
        return f"Optimizer({', '.join(map(repr, self.machines))}{own})"
