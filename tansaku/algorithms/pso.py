"""Particle swarm optimisation with inertia or constriction, in a global, a ring or a von Neumann neighbourhood.

J. Kennedy and R. Eberhart, Particle Swarm Optimization, 1995; inertia, and its linear decrease, are those of Y. Shi and
R. Eberhart, Empirical Study of Particle Swarm Optimization, 1999; the coefficients are those of M. Clerc and
J. Kennedy, The particle swarm: explosion, stability, and convergence in a multidimensional complex space, 2002,
written as inertia and accelerations; the neighbourhoods are those of J. Kennedy and R. Mendes, Population structure and
particle swarm performance, 2002. The default coefficients are those of M. Clerc, Stagnation Analysis in Particle Swarm
Optimisation, 2006; with them the von Neumann neighbourhood did best on BBOB among those compared. Velocities start at
zero (A. Engelbrecht, Particle Swarm Optimization: Velocity Initialization, 2012) and stop at the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tansaku import checks, draws, host
from tansaku.algorithms.base import Algorithm, Needs, budget_spent, check_budget, check_std, step_size
from tansaku.caching import cached
from tansaku.compiling import run_compiled
from tansaku.draws import Noise
from tansaku.functional import jitter, lowest, take_rows
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import shapes
from tansaku.population import Population
from tansaku.states import state
from tansaku.storage import buffer_like

Factors = tuple[float, float, float]
"""Of the old velocity and of the ways to a particle's own best position and to its leader's."""


@state
class PSOState:
    """The swarm, its velocities as traits ``velocity.<name>``, every particle's best position, assessed, and how many
    ``evaluations`` each search has made.
    """

    swarm: Population
    personal: Population
    evaluations: int


@dataclass(frozen=True)
class PSO(Algorithm[PSOState]):
    """Particles are drawn to their own best position and to the best in their neighbourhood.

    Args:
        k: particles.
        inertia: share of the velocity that is kept.
        cognitive: largest acceleration towards a particle's own best position.
        social: largest acceleration towards the neighbourhood's best position.
        neighbourhood: ``"global"``, all particles; ``"ring"``, a particle and its two neighbours by number, which is
            slower and harder to trap; ``"von_neumann"``, a particle and its four neighbours on a grid of about
            sqrt(k) columns, whose rows join end to end so that any k fills it.
        last_inertia: what the inertia falls to, in equal steps over ``max_evaluations``; it stays if not given.
        max_evaluations: evaluations of each search over which the inertia falls to ``last_inertia``; it has no other
            effect. If not given, a `Search` (and so `minimize`) fills in the budget of its first run; 10,000 if there
            is none.
        std: first velocities of the particles that have to be added to a start of fewer than ``k`` candidates, in
            units of the genes; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).
        compile: whether the move is one compiled kernel, equal to the plain one to rounding. The first generation then
            takes seconds; later ones are faster, large swarms several times. It needs a C++ compiler (on a GPU
            Triton): without one the first generation raises a RuntimeError that says so.
    """

    k: int = 30
    inertia: float = 1 / (2 * math.log(2))
    cognitive: float = 0.5 + math.log(2)
    social: float = 0.5 + math.log(2)
    neighbourhood: Literal["global", "ring", "von_neumann"] = "von_neumann"
    last_inertia: float | None = None
    max_evaluations: int | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    compile: bool = False
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self.check_settings()
        if not isinstance(self.compile, bool):
            raise TypeError(f"expected compile as True or False, got {self.compile!r}; pass compile=True")
        check_std(self.std)
        for name in ("inertia", "cognitive", "social"):
            checks.number(name, getattr(self, name), 0.0)
        if self.last_inertia is not None:
            checks.number("last_inertia", self.last_inertia, 0.0)
            object.__setattr__(self, "needs", replace(self.needs, plans=True))
        check_budget(self)
        if self.neighbourhood not in ("global", "ring", "von_neumann"):
            raise ValueError(
                f"expected neighbourhood 'global', 'ring' or 'von_neumann', got {self.neighbourhood!r}; choose one"
            )

    @classmethod
    def constricted(cls, cognitive: float = 2.05, social: float = 2.05, **settings: Any) -> PSO:
        """A swarm whose whole velocity is multiplied by the factor that just keeps it from exploding.

        Args:
            cognitive: phi_1, the acceleration before constriction.
            social: phi_2, the same.
            settings: all others, but for ``inertia``, which follows.

        Raises:
            ValueError: accelerations whose sum is not above 4, which need no constriction.

        Example:
            >>> round(PSO.constricted(k=40, neighbourhood="global").inertia, 5)
            0.72984

        Reference: M. Clerc and J. Kennedy, 2002, equation 4 with kappa = 1.
        """
        phi = cognitive + social
        if not phi > 4:
            raise ValueError(f"expected cognitive + social > 4 for constriction, got {phi:g}; use PSO(inertia=...)")
        chi = 2 / (phi - 2 + math.sqrt(phi * phi - 4 * phi))
        return cls(inertia=chi, cognitive=chi * cognitive, social=chi * social, **settings)

    def init(self, start: Population) -> PSOState:
        """The start (its best k, if there are more) is the swarm, at rest."""
        self.check_start(start)
        evaluations = start.k
        if start.k > self.k:
            start = start.take(start.cost.argsort(dim=0, stable=True)[: self.k])
        personal = Population(start.genes, start.batch_ndim, {}, start.assessment)
        rest = {f"velocity.{name}": torch.zeros_like(x) for name, x in start.genes.items()}
        return PSOState(Population(start.genes, start.batch_ndim, rest), personal, evaluations)

    def ask(self, state: PSOState, noise: Noise) -> Population:
        """The swarm, moved on by one velocity (Shi & Eberhart, equations 1 and 2)."""
        swarm, personal = self._full(state, noise)
        leaders, inertia = self._leaders(personal.cost), self._inertia(state.evaluations)
        move = self._compiled if self.compile and not torch.compiler.is_dynamo_compiling() else self._moved
        genes, velocities = {}, {}
        for name, x in swarm.genes.items():
            own, old = personal.genes[name], f"velocity.{name}"
            lead, batch_shape, event_shape = shapes(x, swarm.batch_ndim)
            r, most = draws.fractions((2, *lead), batch_shape, event_shape, x, noise)
            factors = (inertia, self.cognitive / most, self.social / most)
            genes[name], velocities[old] = move(name, factors, x, swarm.traits[old], own, take_rows(own, leaders), r)
        return Population._made(genes, swarm.batch_ndim, velocities)

    def _inertia(self, evaluations: int) -> float:
        if self.last_inertia is None:
            return self.inertia
        passed = budget_spent(self.max_evaluations, evaluations)
        return self.inertia + (self.last_inertia - self.inertia) * passed

    def _leaders(self, cost: Tensor) -> Tensor:
        """The best of each neighbourhood by number: [1, *batch_shape] of a global one, else [k, *batch_shape]."""
        if self.neighbourhood == "global":
            return lowest(cost)
        columns = round(math.sqrt(self.k))
        steps = (0, 1, -1) if self.neighbourhood == "ring" else (0, 1, -1, columns, -columns)
        near = _near(steps, self.k, cost.device)
        if cost.ndim == 1 and host.numeric(cost):
            known = host.array(near)
            best = host.array(cost)[known].argmin(1)
            return torch.from_numpy(known[np.arange(self.k), best])
        theirs = cost.index_select(0, near.flatten()).view(*near.shape, *cost.shape[1:])
        near = near.view(*near.shape, *(1,) * (cost.ndim - 1)).expand(theirs.shape)
        return near.gather(1, theirs.min(1, keepdim=True).indices)[:, 0]

    def _moved(
        self, name: str, factors: Factors, x: Tensor, old: Tensor, own: Tensor, leader: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Positions and velocities: inertia * v + cognitive * r1 * (own - x) + social * r2 * (leader - x)."""
        inertia, cognitive, social = factors
        velocity = torch.mul(old, _number(inertia, x.dtype), out=buffer_like(x))
        way = torch.sub(own, x, out=buffer_like(x))
        velocity.addcmul_(r[0], way, value=cognitive)
        velocity.addcmul_(r[1], torch.sub(leader, x, out=way), value=social)
        return self._stopped(name, torch.add(x, velocity, out=way), velocity)

    def _stopped(self, name: str, moved: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Positions within the bounds; a particle that is stopped loses its velocity. Both arguments are used up."""
        inside = moved if self.bounds is None else self.bounds.repaired(name, moved)
        return inside, velocity if inside is moved else velocity.mul_(moved.eq_(inside))

    def _compiled(
        self, name: str, factors: Factors, x: Tensor, old: Tensor, own: Tensor, leader: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`_moved` in one pass."""
        moved, velocity = (
            torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
            for out in (buffer_like(x), buffer_like(x))
        )
        box = self._box()
        constants = (*factors[1:], box)
        kept = _number(factors[0], x.dtype)
        run_compiled(("pso", *constants), lambda: _kernel(*constants), x, old, own, leader, r, kept, moved, velocity)
        return self._stopped(name, moved, velocity) if box is None else (moved, velocity)

    def _box(self) -> tuple[float, float] | None:
        """Bounds that the kernel itself keeps: two numbers to clip to."""
        bounds = self.bounds
        return bounds.numbers if type(bounds) is Bounds and bounds.repair == "clip" else None

    def _full(self, state: PSOState, noise: Noise) -> tuple[Population, Population]:
        """The swarm and its memory with k particles; those added to a smaller start get random velocities."""
        if state.swarm.k == self.k:
            return state.swarm, state.personal
        copies = torch.arange(self.k, device=state.swarm.device) % state.swarm.k
        swarm = state.swarm.take(copies)
        velocities = {}
        for name, x in swarm.genes.items():
            normal = draws.normal(*shapes(x, swarm.batch_ndim), x, noise)
            rest = swarm.traits[f"velocity.{name}"]
            velocities[f"velocity.{name}"] = jitter(rest, normal, step_size(self.std, self.bounds, name, x))
        return swarm.with_traits(**velocities), self._memory(state)

    def _memory(self, state: PSOState) -> Population:
        if state.personal.k == self.k:
            return state.personal
        return state.personal.take(torch.arange(self.k, device=state.personal.device) % state.personal.k)

    def tell(self, state: PSOState, asked: Population) -> PSOState:
        """Every particle remembers its best position."""
        memory = self._memory(state)
        personal = asked.without_traits().where(asked.cost < memory.cost, memory)
        return PSOState(asked.unassessed(), personal, state.evaluations + asked.k)

    def best(self, state: PSOState) -> Population:
        """The best of what the particles remember."""
        return state.personal.best()


@cached(16)
def _near(steps: tuple[int, ...], k: int, device: torch.device) -> Tensor:
    """[k, neighbours] the numbers of each particle's neighbours, itself first."""
    return torch.remainder(torch.arange(k, device=device)[:, None] + torch.tensor(steps, device=device), k)


@cached(16)
def _number(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def _kernel(cognitive: float, social: float, box: tuple[float, float] | None) -> Callable[..., None]:
    """What `run_compiled` compiles: the move of one tensor, clipped to ``box``."""

    def move(
        x: Tensor,
        old: Tensor,
        own: Tensor,
        leader: Tensor,
        r: Tensor,
        inertia: Tensor,
        moved: Tensor,
        velocity: Tensor,
    ) -> None:
        towards = cognitive * r[0] * (own - x) + social * r[1] * (leader - x)
        speed = inertia * old + towards
        place = x + speed
        if box is not None:
            free, place = place, torch.clamp(place, *box)
            speed = speed * (free == place)
        moved.copy_(place)
        velocity.copy_(speed)

    return move
