"""Particle swarm optimisation with constriction and a global neighbourhood.

J. Kennedy and R. Eberhart, Particle Swarm Optimization, 1995; the coefficients are those of M. Clerc and J. Kennedy,
The particle swarm: explosion, stability, and convergence in a multidimensional complex space, 2002, written as
inertia and accelerations. Velocities start at zero (A. Engelbrecht, Particle Swarm Optimization: Velocity
Initialization, 2012) and stop at the bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """The swarm, its velocities as traits ``velocity.<name>``, and every particle's best position, assessed."""

    swarm: Population
    personal: Population


@dataclass(frozen=True)
class PSO(Algorithm[PSOState]):
    """Particles are drawn to their own best position and to the swarm's.

    Args:
        k: particles.
        inertia: share of the velocity that is kept.
        cognitive: largest acceleration towards a particle's own best position.
        social: largest acceleration towards the swarm's best position.
        std: first velocities of the particles that have to be added to a start of fewer than ``k`` candidates, in
            units of the genes; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).
    """

    k: int = 40
    inertia: float = 0.7298437881283576
    cognitive: float = 1.496179765663133
    social: float = 1.496179765663133
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self._check()
        check_std(self.std)
        for name in ("inertia", "cognitive", "social"):
            checks.number(name, getattr(self, name), 0.0)

    def init(self, start: Population) -> PSOState:
        """The start (its best k, if there are more) is the swarm, at rest."""
        self._check_start(start)
        if start.k > self.k:
            start = start.take(start.cost.argsort(dim=0, stable=True)[: self.k])
        personal = Population(start.genes, start.batch_ndim, {}, start.assessment)
        rest = {f"velocity.{name}": torch.zeros_like(x) for name, x in start.genes.items()}
        return PSOState(Population(start.genes, start.batch_ndim, rest), personal)

    def ask(self, state: PSOState, noise: Noise) -> Population:
        """The swarm, moved on by one velocity (Clerc & Kennedy, equation 2 with constriction)."""
        swarm, personal = self._full(state, noise)
        lowest = personal.cost.argmin(0, keepdim=True)
        genes, velocities = {}, {}
        for name, x in swarm.genes.items():
            velocity = self._velocity(name, swarm, personal[name], take_rows(personal[name], lowest), noise)
            moved = torch.add(x, velocity, out=buffer_like(x))
            inside = moved if self.bounds is None else self.bounds.repaired(name, moved)
            if inside is not moved:
                velocity = velocity.mul_(moved.eq_(inside))  # a particle that is stopped loses its velocity
            genes[name], velocities[f"velocity.{name}"] = inside, velocity
        return Population(genes, swarm.batch_ndim, velocities)

    def _velocity(self, name: str, swarm: Population, own: Tensor, leader: Tensor, noise: Noise) -> Tensor:
        """Inertia * v + cognitive * r1 * (own - x) + social * r2 * (leader - x), in memory of its own."""
        x = swarm[name]
        velocity = torch.mul(swarm.traits[f"velocity.{name}"], self.inertia, out=buffer_like(x))
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
        return PSOState(asked.unassessed(), personal)

    def best(self, state: PSOState) -> Population:
        """The best of what the particles remember."""
        return state.personal.best()
