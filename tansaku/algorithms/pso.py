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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Needs, check_std, step_size
from tansaku.draws import Noise
from tansaku.functional import jitter, take_rows
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import shapes
from tansaku.population import Population
from tansaku.states import state
from tansaku.storage import buffer_like


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
        max_evaluations: of each search: the budget, of which only ``last_inertia`` takes notice. `minimize` passes its
            own on.
        std: first velocities of the particles that have to be added to a start of fewer than ``k`` candidates, in
            units of the genes; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).
    """

    k: int = 30
    inertia: float = 1 / (2 * math.log(2))
    cognitive: float = 0.5 + math.log(2)
    social: float = 0.5 + math.log(2)
    neighbourhood: Literal["global", "ring", "von_neumann"] = "von_neumann"
    last_inertia: float | None = None
    max_evaluations: int = 10_000
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        for name in ("inertia", "cognitive", "social"):
            checks.number(name, getattr(self, name), 0.0)
        if self.last_inertia is not None:
            checks.number("last_inertia", self.last_inertia, 0.0)
        checks.count("max_evaluations", self.max_evaluations)
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
        genes, velocities = {}, {}
        for name, x in swarm.genes.items():
            leader = take_rows(personal[name], leaders)
            velocity = self._velocity(name, swarm, personal[name], leader, inertia, noise)
            moved = torch.add(x, velocity, out=buffer_like(x))
            inside = moved if self.bounds is None else self.bounds.repaired(name, moved)
            if inside is not moved:
                velocity = velocity.mul_(moved.eq_(inside))  # a particle that is stopped loses its velocity
            genes[name], velocities[f"velocity.{name}"] = inside, velocity
        return Population(genes, swarm.batch_ndim, velocities)

    def _inertia(self, evaluations: int) -> float:
        if self.last_inertia is None:
            return self.inertia
        return self.inertia + (self.last_inertia - self.inertia) * min(1.0, evaluations / self.max_evaluations)

    def _leaders(self, cost: Tensor) -> Tensor:
        """The best of each neighbourhood by number: [1, *batch_shape] of a global one, else [k, *batch_shape]."""
        if self.neighbourhood == "global":
            return cost.argmin(0, keepdim=True)
        columns = round(math.sqrt(self.k))
        steps = [0, 1, -1] if self.neighbourhood == "ring" else [0, 1, -1, columns, -columns]
        near = torch.stack([cost.roll(-step, 0) for step in steps]).argmin(0)
        own = torch.arange(self.k, device=cost.device).view(self.k, *(1,) * (cost.ndim - 1))
        return torch.remainder(own + torch.tensor(steps, device=cost.device)[near], self.k)

    def _velocity(
        self, name: str, swarm: Population, own: Tensor, leader: Tensor, inertia: float, noise: Noise
    ) -> Tensor:
        """Inertia * v + cognitive * r1 * (own - x) + social * r2 * (leader - x), in memory of its own."""
        x = swarm[name]
        velocity = torch.mul(swarm.traits[f"velocity.{name}"], inertia, out=buffer_like(x))
        lead, batch_shape, event_shape = shapes(x, swarm.batch_ndim)
        r1, r2 = draws.weights((2, *lead), batch_shape, event_shape, x, noise).unbind()
        velocity.addcmul_(r1, torch.sub(own, x, out=buffer_like(x)), value=self.cognitive)
        return velocity.addcmul_(r2, torch.sub(leader, x, out=buffer_like(x)), value=self.social)

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
