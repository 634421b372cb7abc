"""Target propagation: the target for the incoming layer is the inverse of this layer's target.

The inverse is the module's own, exact, or another module that learns to be it. A learned inverse g belongs to the rule,
as do its optimiser and its noise; it moves in the rule's `step` and nowhere else.

References: Bengio (2014), How auto-encoders could provide credit assignment in deep networks via target propagation;
Lee, Zhang, Fischer, Bengio (2015), Difference target propagation.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from zenkai_core import passes
from zenkai_core.checks import check_whole
from zenkai_core.criteria import is_distance, sse
from zenkai_core.describe import module_text
from zenkai_core.machine import Machine, StepX
from zenkai_core.noise import NoiseKey
from zenkai_core.state import State
from zenkai_core.theta.optimized import Factory, Optimizing
from zenkai_core.values import IO


class Rows(NamedTuple):
    """What one update of the inverse learns from, of one pass.

    Attributes:
        x, y: the disturbed inputs x + e, and what the layer makes of them.
        x_0, y_0: those of the pass.
        share: of each row in the loss.
    """

    x: IO
    y: IO
    x_0: IO
    y_0: IO
    share: float


class Reverse(Optimizing, StepX):
    """t_x = g(t), where g is the module's own `inverse`, or a module that learns to be it.

    A learned g lowers half of |g(f(x + e)) - (x + e)|^2 with normal noise e (L^inv of Lee et al. 2015), as the mean
    over rows or, in a machine with `loss="sum"`, as their sum. f is the pass with its dropout masks, as the layer was
    before its step. Targets are asked of g in evaluation mode, so that rows do not see each other.

    Args:
        inverse: g, from tensors shaped as the layer's outputs to tensors shaped as its inputs. None: the module's own
            inverse, which is `Machine.inverse`; the module must be "invertible", as those of `zenkai_core.modules` are.
        factory: a `torch.optim` class or a callable (parameters, **options) -> optimiser, for g.
        n: updates of g per `step`, each with noise of its own.
        std: of the noise e; 0 adds none.
        seed: of the noise; one draw of torch's global generator if None.
        options: for the factory, for example `lr=1e-3`.

    Raises:
        TypeError: inverse is no module, n no whole number; the machine's module has no inverse where none is given; a
            criterion whose targets are no places among the outputs, such as `cross_entropy` (at the call).
        ValueError: n < 1, or a negative std; a target that is not shaped as the output, such as labels; an inverse
            whose outputs are not shaped as the inputs.

    Notes `reconstruction`, the distance of g(y) to x, mean over rows, where a recorder asks.

    To train the layer and its inverse on alternate epochs, set `machine.theta.learning` and `machine.x.learning`.
    An input that is not floating has no noise; a learned g leaves it as it is.

    >>> from zenkai_core import modules, theta
    >>> layer = Machine(modules.Sequential(modules.InvertibleLinear(2), modules.Tanh()), theta.Gradient(), Reverse())
    >>> x, t, state = IO(torch.randn(4, 2)), IO(torch.full((4, 2), 0.5)), State()
    >>> y = layer.forward_nn(x, state)
    >>> torch.allclose(layer.frozen(layer.step_x(x, t, state), state).f, t.f)
    True
    >>> learned = Reverse(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.optim.Adam, lr=1e-3, std=0.3)
    >>> layer = Machine(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), theta.Gradient(), learned)
    """

    def __init__(
        self,
        inverse: nn.Module | None = None,
        factory: Factory = torch.optim.Adam,
        *,
        n: int = 1,
        std: float = 0.1,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(factory, **options)
        name = f"targets.{type(self).__name__}"
        if inverse is not None and not isinstance(inverse, nn.Module):
            raise TypeError(
                f"{name} expected a module as the inverse, got {type(inverse).__name__}: for example "
                "nn.Sequential(nn.Linear(outputs, inputs), nn.Tanh()), or None for the module's own inverse"
            )
        check_whole(name, n=n)
        if n < 1 or not std >= 0:
            raise ValueError(
                f"{name} expected n >= 1 and std >= 0, got n={n} and std={std}: learning = False holds the inverse"
            )
        if inverse is None:
            self.requires = frozenset({"invertible"})
        self.inverse = inverse
        self.n = n
        self.std = std
        self.noise = NoiseKey(seed)
        self._pending: list[list[Rows]] = []

    delivers = True

    @property
    def by_gradient(self) -> bool:  # type: ignore[override]
        """Whether nothing is learned: the module's own inverse is used."""
        return self.inverse is None

    def moves(self, machine: Machine) -> list[nn.Parameter]:
        """The parameters of the learned inverse."""
        return [] if self.inverse is None else list(self.inverse.parameters())

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The inverse of t, detached."""
        self._expect_place(machine, t, state)
        if state.notes is not None:
            self._note(state, self._reversed(machine, state.outputs.detach(), state))
        return self._reversed(machine, t, state)

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Notes what the inverse will be trained on: x + e, n times, and what the layer makes of it."""
        if self._optimizer is not None and any(v.is_floating_point() for v in state.inputs):
            self._pending.append([self._disturbed(machine, state) for _ in range(self.n)])

    def step(self, machine: Machine) -> None:
        """The inverse moves n times, by its loss on the passes that were accumulated."""
        pending, self._pending = self._pending, []
        params = [p for p in self.moves(machine) if p.requires_grad]
        for update in zip(*pending, strict=False):
            for rows in update if params else ():
                with torch.enable_grad():
                    loss = self._loss(rows)
                self.add(zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True))
            super().step(machine)

    def forget(self) -> None:
        """Drops the passes accumulated since the last step."""
        self._pending = []

    def _disturbed(self, machine: Machine, state: State) -> Rows:
        """The inputs x + e and f(x + e); without noise, the pass itself."""
        x_0, y_0 = state.inputs.detach(), state.outputs.detach()
        share = 1 / max(x_0.rows, 1) if machine.loss == "mean" else 1.0
        if self.std == 0:
            return Rows(x_0, y_0, x_0, y_0, share)
        generator = self.noise.next(x_0.f.device)
        x = x_0.map(lambda v: v + self.std * _normal(v, generator) if v.is_floating_point() else v)
        return Rows(x, machine.replay(x, state).detach(), x_0, y_0, share)

    def _loss(self, rows: Rows) -> Tensor:
        """Half of |reconstruction - (x + e)|^2, over all rows, of the inputs that are floating."""
        pairs = [(a, b) for a, b in zip(self._reconstruction(rows), rows.x, strict=True) if b.is_floating_point()]
        return sse(IO(*(a for a, _ in pairs)), IO(*(b for _, b in pairs))).sum() * rows.share

    def _reconstruction(self, rows: Rows) -> IO:
        return self._through(rows.y, rows.x)

    def _expect_place(self, machine: Machine, t: IO, state: State) -> None:
        """Refuses a criterion whose targets are no places among the outputs: the inverse is asked of places."""
        criterion = machine.local_criterion(state, t)
        if is_distance(criterion) is False:
            raise TypeError(
                f"targets.{type(self).__name__} expected a criterion whose target is a place among the outputs (sse, "
                f"huber, absolute_error), got {criterion}: take targets.Gradient for this layer, or give it a y rule"
            )

    def _reversed(self, machine: Machine, y: IO, state: State) -> IO:
        """g(y), shaped as the inputs of the pass, in their dtypes."""
        self._expect(y, state.outputs, "a target shaped as the output", "targets.Gradient takes labels")
        x = state.inputs.detach()
        if self.inverse is None:
            back = self._shaped(machine.inverse(y, state), x)
            return IO(*(a.to(b.dtype) if b.is_floating_point() else a for a, b in zip(back, x, strict=True)))
        with torch.no_grad(), passes.mode(self.inverse, False):
            back = self._through(y, x)
        return IO(*(a.to(b.dtype) if b.is_floating_point() else b for a, b in zip(back, x, strict=True)))

    def _through(self, y: IO, x: IO) -> IO:
        """The learned inverse, in the dtype of its own parameters."""
        inverse = cast(nn.Module, self.inverse)
        own = next((p for p in inverse.parameters() if p.is_floating_point()), None)
        y = y.map(lambda v: v if own is None or not v.is_floating_point() else v.to(own.dtype))
        return self._shaped(passes.outputs(inverse, y), x)

    def _note(self, state: State, back: IO) -> None:
        """Notes what the inverse makes of the outputs: the mean distance of a row to its input."""
        pairs = [(a, b) for a, b in zip(back, state.inputs.detach(), strict=True) if b.is_floating_point()]
        squares = [(a - b).square().reshape(b.shape[0], -1).sum(1) for a, b in pairs]
        self.note(state, reconstruction=torch.stack(squares).sum(0).sqrt().mean() if squares else 0.0)

    def _shaped(self, back: IO, x: IO) -> IO:
        self._expect(back, x, "an inverse whose answer is shaped as the input", "give it one tensor for each input")
        return back

    def _expect(self, got: IO, like: IO, what: str, remedy: str) -> None:
        if [v.shape for v in got] != [v.shape for v in like]:
            raise ValueError(f"targets.{type(self).__name__} expected {what}, {like}, got {got}: {remedy}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": []}  # a pass in flight belongs to its graph: copies start without

    def extra_repr(self) -> str:
        """What `print` shows."""
        if self.inverse is None:
            return ""
        return f"{module_text(self.inverse)}, {super().extra_repr()}, n={self.n}, std={self.std}"


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)
