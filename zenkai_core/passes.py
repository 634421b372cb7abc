"""Ways through a module: the remembered pass, and two more for rules that ask "what if".

`replay`: the same rows again, with fresh batch statistics of those rows and the pass's dropout masks; buffers stay.
`frozen`: any rows, under `vmap` too; BatchNorm is this pass's affine map and dropout is off, so that candidates and
samples do not vote on each other. `inverse` leads back through the same map, where the module has an inverse.

All of them run under the pass's autocast, wherever they are asked, and none lets the module write into its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from zenkai_core.compiled import uncompiled
from zenkai_core.context import Context
from zenkai_core.gradients import has_hooks, without_hooks
from zenkai_core.state import State
from zenkai_core.values import IO

Gradients = tuple[tuple[Tensor | None, ...], list[tuple[nn.Parameter, Tensor | None]]]  # per input, per parameter


@dataclass(frozen=True)
class RandomState:
    """torch's global random state, on the CPU and on the device of a pass."""

    cpu: Tensor
    device: torch.device
    cuda: Tensor | None

    @staticmethod
    def now(device: torch.device) -> RandomState:
        """What the generators hold at this moment."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return RandomState(torch.get_rng_state(), device, cuda)


def redrawn(state: State, generator: torch.Generator) -> State:
    """The pass with masks of its own, drawn from the generator, where it has any: for a minibatch of its rows."""
    random: RandomState | None = state.data.get("random")
    if random is None:
        return state
    seed = int(torch.randint(2**62, (), generator=generator))
    cuda = torch.Generator(random.device).manual_seed(seed).get_state() if random.cuda is not None else None
    drawn = RandomState(torch.Generator().manual_seed(seed).get_state(), random.device, cuda)
    return replace(state, data={**state.data, "random": drawn})


@dataclass(frozen=True)
class Statistics:
    """Mean and biased variance that one BatchNorm saw in a pass, each `[features]`."""

    module: _BatchNorm
    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class Autocast:
    """Whether a pass ran under `torch.autocast`, and in which dtype."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def now(device: str) -> Autocast:
        """What holds at this moment."""
        if not torch.amp.is_autocast_available(device):
            return Autocast(device, False, torch.float32)
        return Autocast(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    @contextmanager
    def again(self) -> Iterator[None]:
        """As it was; casts of weights are not cached, for a step may have moved them since."""
        if self == Autocast.now(self.device) and not self.enabled:
            yield
            return
        with torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False):
            yield


@dataclass(frozen=True)
class Seen:
    """What one BatchNorm was given: a tensor that autograd keeps anyway, and its count of writes."""

    module: _BatchNorm
    value: Tensor
    version: int | None

    @property
    def changed(self) -> bool:
        """Whether somebody has written into the tensor since."""
        return self.version != _version(self.value)


def outputs(module: nn.Module, x: IO, params: Mapping[str, Tensor] | None = None, context: Context | None = None) -> IO:
    """The module's outputs for x; a submodule that works in place gets a copy of x to write into.

    With a context, several copies of its rows are passed one after another, so that the module sees it unchanged.

    Raises:
        TypeError: the module returns something other than tensors.
        RuntimeError: the module wrote into its input.
    """
    if context is not None and x.rows != context.rows:
        copies, rest = divmod(x.rows, context.rows) if context.rows else (0, 1)
        if rest:
            raise ValueError(
                f"{type(module).__name__} expected the {context.rows} rows of its pass, or whole copies of them, "
                f"beside its other arguments, got {x.rows} rows: leave batch_size out"
            )
        rows = zip(*(v.chunk(copies) for v in x), strict=True)
        parts = [outputs(module, IO(*part), params, context) for part in rows]
        return IO(*(torch.cat(values) for values in zip(*parts, strict=True)))
    given = IO(*(v.clone() for v in x)) if any(m.__dict__.get("inplace") for m in module.modules()) else x
    versions = [_version(v) for v in x]
    arguments: Any = tuple(given) if context is None else tuple(context.arguments(tuple(given)))
    named = {} if context is None else dict(context.named)
    if params is not None:
        y = torch.func.functional_call(module, dict(params), arguments, named)
    else:
        y = module(*arguments, **named)
    if versions != [_version(v) for v in x]:
        raise RuntimeError(
            f"a machine expected a module that leaves its input as it is, got {type(module).__name__}, which writes "
            "into it: begin its forward with x = x.clone(), or set inplace = True on the submodule that does"
        )
    return _wrapped(y, module)


def _wrapped(y: object, module: nn.Module) -> IO:
    if isinstance(y, Tensor):
        return IO(y)
    if isinstance(y, (tuple, list)) and all(isinstance(v, Tensor) for v in y):
        if len({v.shape[0] if v.ndim else -1 for v in y}) > 1:
            raise ValueError(
                f"a module in a Machine expected to return tensors with the rows first, got shapes "
                f"{[list(v.shape) for v in y]} from {type(module).__name__}: wrap it in a module that returns those "
                "with the rows first"
            )
        return IO(*y)
    got = f"({', '.join(type(v).__name__ for v in y)})" if isinstance(y, (tuple, list)) else type(y).__name__
    raise TypeError(
        f"a module in a Machine expected to return a tensor or a tuple of tensors, got {got} from "
        f"{type(module).__name__}: wrap it in a module that picks tensors"
    )


def remembered(module: nn.Module, x: IO, state: State) -> IO:
    """The pass itself, with what the other ways will need noted in `state.data`."""
    device = x.f.device if x else torch.device("cpu")
    state.data["autocast"] = Autocast.now(device.type)
    state.data["random"] = RandomState.now(device) if state.training and x else None
    norms = _normalising(module)
    with uncompiled() if norms else nullcontext(), watching(norms) as seen:
        y = outputs(module, x, context=state.context)
    if any(s.changed for s in seen):  # the module wrote into what a BatchNorm was given: look again, and copy
        with torch.no_grad(), replaying(module, state.data["random"], device), watching(norms, copy=True) as seen:
            outputs(module, x, context=state.context)
    state.data["norms"] = seen
    return y


def replay(module: nn.Module, x: IO, state: State) -> IO:
    """The pass's rows once more, on the present parameters, differentiable."""
    with torch.enable_grad(), _autocast(state), replaying(module, state.data.get("random"), x.f.device):
        return outputs(module, x, context=state.context)


def frozen(module: nn.Module, x: IO, state: State, params: Mapping[str, Tensor] | None) -> IO:
    """Any rows, and candidates for the parameters, through the module as it is in this pass."""
    with _autocast(state), freezing(module, statistics(state)):
        return outputs(module, x, params, state.context)


def inverse(module: nn.Module, y: IO, state: State) -> IO:
    """What the module's own inverse makes of any rows y, with the module as it is in this pass."""
    with torch.no_grad(), _autocast(state), freezing(module, statistics(state)):
        return _wrapped(cast(Callable[..., object], module.inverse)(*y), module)


def propose(module: nn.Module, x: IO, state: State, k: int, seed: int) -> IO:
    """Stochastic passes of the rows, k of them: y `[k * n, ...]`; torch's generators stay where they were."""
    with torch.no_grad(), drawing_from(None, x.f.device):
        torch.manual_seed(seed)
        with _autocast(state), freezing(module, statistics(state), stochastic=True):
            return outputs(module, x.tile(k), context=state.context)


@contextmanager
def drawing_from(random: RandomState | None, device: torch.device) -> Iterator[None]:
    """The global generators start at `random` (None: where they are), and return to where they were."""
    before = RandomState.now(device)
    try:
        if random is not None:
            _restore(random)
        yield
    finally:
        _restore(before)


@contextmanager
def replaying(module: nn.Module, random: RandomState | None, device: torch.device) -> Iterator[None]:
    """Passes made inside draw the masks of `random` and write into copies of the module's buffers."""
    kept = [(m, name, b) for m in module.modules() for name, b in m.named_buffers(recurse=False)]
    try:
        for m, name, b in kept:
            setattr(m, name, b.clone())
        with uncompiled(), drawing_from(random, device):
            yield
    finally:
        for m, name, b in kept:
            setattr(m, name, b)


@contextmanager
def watching(norms: Iterable[nn.Module], *, copy: bool = False) -> Iterator[list[Seen]]:
    """Notes what each of these BatchNorms is given inside."""
    seen: list[Seen] = []

    def watch(m: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(m, _BatchNorm):
            value = args[0].detach()
            value = value.clone() if copy else value
            seen.append(Seen(m, value, _version(value)))

    handles = [m.register_forward_pre_hook(watch) for m in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _normalising(module: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm inside that normalises by its batch."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)]


def statistics(state: State) -> list[Statistics]:
    """The statistics by which each BatchNorm normalised the pass; the last time, where it was asked twice.

    Raises:
        RuntimeError: what a BatchNorm was given has been written into since the pass.
    """
    held: list[Statistics] | None = state.data.get("statistics")
    if held is not None:
        return held
    found: dict[_BatchNorm, Statistics] = {}
    seen: list[Seen] = state.data.pop("norms", [])
    with torch.no_grad():
        for s in seen:
            if s.changed:
                raise RuntimeError(
                    "a frozen pass expected the tensors of its pass as they were, got one that was changed in place "
                    "since: clone it before writing, or ask for the target first"
                )
            value = s.value.to(torch.promote_types(s.value.dtype, torch.float32))
            var, mean = torch.var_mean(value, [d for d in range(value.ndim) if d != 1], correction=0)
            own = s.module.weight if s.module.running_mean is None else s.module.running_mean
            dtype = s.value.dtype if own is None else own.dtype
            found[s.module] = Statistics(s.module, mean.to(dtype), var.to(dtype))
    state.data["statistics"] = list(found.values())
    return state.data["statistics"]


@contextmanager
def freezing(module: nn.Module, statistics: list[Statistics], *, stochastic: bool = False) -> Iterator[None]:
    """Passes made inside treat rows one by one: BatchNorm is an affine map, dropout is off unless `stochastic`."""
    modes = [(m, m.training) for m in module.modules()]
    kept = [(s.module, s.module.running_mean, s.module.running_var) for s in statistics]
    try:
        for m, mode in modes:
            if not isinstance(m, _InstanceNorm):  # it treats rows one by one in training, and only there uses the row
                m.training = mode and stochastic and not isinstance(m, _BatchNorm)
        for s in statistics:
            s.module.running_mean, s.module.running_var = s.mean, s.var
        with uncompiled():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
        for norm, mean, var in kept:
            norm.running_mean, norm.running_var = mean, var


def pull(
    module: nn.Module,
    x: IO,
    y: IO,
    errors: Iterable[Tensor | None],
    params: list[nn.Parameter],
    n: int,
    *,
    retain: bool = False,
) -> Gradients:
    """What the errors at y, as costs per row give them, are at x (per row) and at params (over n), through their graph.

    The graph is used up unless `retain`.

    Raises:
        RuntimeError: y has no graph.
    """
    pairs = [(v, e if n == 1 else e / n) for v, e in zip(y, errors, strict=True) if e is not None and v.requires_grad]
    if not pairs:
        raise RuntimeError(
            f"a gradient rule expected outputs with autograd's graph, got {y} without from "
            f"{type(module).__name__}: drop .detach() and no_grad from it, and run it outside inference_mode()"
        )
    outputs = [v for v, _ in pairs]
    reduced = [e if e.dtype == v.dtype else e.to(v.dtype) for v, e in pairs]
    leaves = [v for v in (*x, *params) if v.requires_grad]
    with without_hooks(params) if any(map(has_hooks, params)) else nullcontext():  # they run when gradients are stored
        grads = iter(torch.autograd.grad(outputs, leaves, reduced, retain_graph=retain, allow_unused=True))
    of_x = [next(grads) if v.requires_grad else None for v in x]
    of_rows = tuple(of_x) if n == 1 else tuple(None if g is None else g * n for g in of_x)
    return of_rows, list(zip(params, grads, strict=True))


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """The module in training or evaluation mode; afterwards every submodule is as it was.

    A module already in training keeps the submodules that its user has set to evaluation.
    """
    if module.training is training and training:
        yield
        return
    modes = [(m, m.training) for m in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for m, before in modes:
            m.training = before


def _autocast(state: State) -> AbstractContextManager[None]:
    held: Autocast | None = state.data.get("autocast")
    return nullcontext() if held is None else held.again()


def _version(value: Tensor) -> int | None:
    """How often the tensor was written into; None where torch does not count, and while `torch.export` traces."""
    return None if torch.compiler.is_compiling() or value.is_inference() else value._version


def _restore(random: RandomState) -> None:
    torch.set_rng_state(random.cpu)
    if random.cuda is not None:
        torch.cuda.set_rng_state(random.cuda, random.device)
