"""The claims of `check_machine` about a machine in torch's autograd, each with its check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core import passes
from zenkai_core.learning import LearningMachine
from zenkai_core.loss_scale import LossScale
from zenkai_core.testing.subject import Make, claim, differing, equal, fresh, gradients_of, tensors
from zenkai_core.values import IO, as_io

_FACTOR = 8.0


def _input_alone(make: Make) -> None:
    machine, x, _ = fresh(make)
    leaves = x.leaves(requires_grad=True)
    asked = [v for v in leaves if v.requires_grad]
    if not asked or _needs_labels(make):
        return
    before, kept = tensors(machine), _extra(machine)
    with passes.replaying(machine, None, x.f.device):  # a pass may move buffers; only learning is looked for
        torch.autograd.grad(_loss(machine, leaves), asked, allow_unused=True)
    grown = [name for name, p in machine.named_parameters() if p.grad is not None]
    claim(not grown, f"torch.autograd.grad(loss, x) wrote .grad of {grown}: write it in accumulate alone")
    claim(equal(kept, _extra(machine)), "torch.autograd.grad(loss, x) let a rule keep something of the pass")
    machine.step_told()
    moved = [name for name in differing(before, tensors(machine)) if not name.endswith(".key")]
    claim(not moved, f"torch.autograd.grad(loss, x) and a step moved {moved}; nothing was to be learned")


def _hooks_run_once(make: Make) -> None:
    if _needs_labels(make):
        return
    machine, x, _ = fresh(make)
    calls: dict[str, list[str]] = {}

    def listen(name: str, p: nn.Parameter) -> None:
        calls[name] = []
        p.register_hook(lambda g: calls[name].append("gradient"))
        p.register_post_accumulate_grad_hook(lambda p: calls[name].append("accumulated"))

    for name, p in machine.named_parameters():
        if p.requires_grad:
            listen(name, p)
    _loss(machine, x.leaves(requires_grad=True)).backward()
    for name, p in machine.named_parameters():
        expected = [] if p.grad is None else ["gradient", "accumulated"]
        got = calls.get(name, expected)
        claim(got == expected, f"backward() ran the hooks of {name} as {got}, not as {expected}")


def _factor(make: Make) -> None:
    if _needs_labels(make):
        return
    found: list[tuple[Any, ...]] = []
    for factor in (1.0, _FACTOR):
        machine, x, _ = fresh(make)
        if factor != 1:
            machine.loss_scale = LossScale(factor)
        leaves = x.leaves(requires_grad=True)
        (_loss(machine, leaves) * factor).backward()
        asked = [None if v.grad is None else v.grad / factor for v in leaves]
        grads = {name: g / factor for name, g in gradients_of(machine).items()}
        found.append((asked, grads, _extra(machine)))
    for what, a, b in zip(("dL/dx", ".grad", "a rule's state"), *found, strict=True):
        claim(_close(a, b), f"a factor on the loss, given as grad_scale, changes {what} by more than the factor")


def _needs_labels(make: Make) -> bool:
    """Whether `backward()` refuses the machine, as it does one whose rules need labels; other claims report why."""
    machine, x, _ = fresh(make)
    try:
        _loss(machine, x).backward()
    except RuntimeError:
        return True
    return False


def _loss(machine: LearningMachine, x: IO) -> Tensor:
    return torch.stack([v.square().mean() for v in as_io(machine(*x))]).sum()


def _extra(machine: LearningMachine) -> dict[str, Any]:
    return {name: m.get_extra_state() for name, m in machine.named_modules() if _has_extra(m)}


def _has_extra(m: nn.Module) -> bool:
    return type(m).get_extra_state is not nn.Module.get_extra_state


def _close(a: Any, b: Any) -> bool:
    """As `equal`, up to rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point() and a.shape == b.shape:
        bound = 1e-4 * (1 + a.abs())
        return bool(((a - b).abs().nan_to_num() <= bound).all())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_close(x, y) for x, y in zip(a, b, strict=True))
    return equal(a, b)


AUTOGRAD_CLAIMS: dict[str, Callable[[Make], None]] = {
    "the gradient of the input alone lets nothing learn": _input_alone,
    "backward runs the hooks of parameters once": _hooks_run_once,
    "a factor on the loss scales gradients alone": _factor,
}
"""Claim -> its check."""
