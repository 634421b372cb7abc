"""The algorithms pass the conformance suite, and each of its checks finds the defect that it is there for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from tansaku import (
    ALGORITHMS,
    CEM,
    CMAES,
    DE,
    ES,
    GA,
    LSHADE,
    NSGA2,
    PBIL,
    PGPE,
    PSO,
    SHADE,
    Age,
    Algorithm,
    Annealing,
    Assessment,
    Bounds,
    Comma,
    Crowding,
    ExponentialRank,
    GAState,
    HillClimb,
    HillClimbState,
    Individual,
    LinearRank,
    Needs,
    Noise,
    NSGA2State,
    OpenAIES,
    PermutationGA,
    Plus,
    Population,
    Restarts,
    Roulette,
    StochasticUniversal,
    UniformCrossover,
    draws,
)
from tansaku.testing import ALGORITHM_CHECKS, check_algorithm


def antithetic(**settings: Any) -> HillClimb:
    return HillClimb(antithetic=True, **settings)


VARIANTS: dict[str, Any] = {
    "annealing at a given temperature": lambda **settings: Annealing(
        cooling="linear", temperature=0.5, adapt=False, std=0.2, **settings
    ),
    "fast annealing": lambda **settings: Annealing(cooling="fast", **settings),
    "L-SHADE that shrinks": lambda **settings: LSHADE(**{"max_evaluations": 200, **settings}),
    "SHADE without an archive": lambda **settings: SHADE(archive=0.0, memory=3, **settings),
    "DE from the best, exponential": lambda **settings: DE(base="best", crossover="exponential", **settings),
    "antithetic hill climbing": antithetic,
    "orthogonal hill climbing": lambda **settings: HillClimb(orthogonal=True, **settings),
    "hill climbing with one step length": lambda **settings: HillClimb(adapt=False, std=0.3, **settings),
    "steady GA": lambda **settings: GA(select=LinearRank(1.7), survive=Plus(20), **settings),
    "GA in which candidates age": lambda **settings: GA(select=ExponentialRank(0.9), survive=Age(3), **settings),
    "crowding GA": lambda **settings: GA(select=StochasticUniversal(LinearRank()), survive=Crowding(), **settings),
    "PBIL without mutation": lambda **settings: PBIL(mutation=0.0, **settings),
    "roulette GA": lambda **settings: GA(select=Roulette(), survive=Comma(3), **settings),
    "OpenAI-ES with momentum": lambda **settings: OpenAIES(optimizer="momentum", std_decay=0.98, std=0.5, **settings),
    "OpenAI-ES with orthogonal steps": lambda **settings: OpenAIES(orthogonal=True, **settings),
    "OpenAI-ES with weight decay": lambda **settings: OpenAIES(weight_decay=0.01, **settings),
    "PGPE with Adam": lambda **settings: PGPE(optimizer="adam", lr=0.1, **settings),
    "ES with two parents": lambda **settings: ES(parents=2, **settings),
    "CEM with a small elite": lambda **settings: CEM(elite=0.1, **settings),
    "PSO on a ring": lambda **settings: PSO(neighbourhood="ring", last_inertia=0.4, **settings),
    "PSO on a grid": lambda **settings: PSO(neighbourhood="von_neumann", **settings),
    "PSO with given velocities": lambda **settings: PSO(std=0.5, **settings),
    "CMA-ES without negative weights": lambda **settings: CMAES(active=False, std=0.5, **settings),
    "restarted GA": lambda **settings: Restarts(GA(**settings)),
    "restarted antithetic hill climbing": lambda **settings: Restarts(antithetic(**settings), growth=1.5, start_k=3),
    "restarted CMA-ES": lambda **settings: Restarts(CMAES(**settings), growth=2.0),
}
SLOW = {
    "large_populations_stay_as_they_were",
    "tell_is_deterministic_and_compiles",
    "saved_searches_continue_exactly",
    "convergence_does_no_harm",
}


@pytest.mark.parametrize("check", ALGORITHM_CHECKS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_keeps_its_promises(name: str, check: str) -> None:
    check_algorithm(ALGORITHMS[name], only=[check])


@pytest.mark.parametrize("name", VARIANTS)
def test_algorithms_keep_their_promises_with_other_settings(name: str) -> None:
    left_out = SLOW | ({"only_ranks_matter"} if name == "roulette GA" else set())  # a roulette reads costs
    check_algorithm(VARIANTS[name], only=[check for check in ALGORITHM_CHECKS if check not in left_out])


# Each defect below was found in a well-known library, or is easily made.

broken: list[tuple[str, type]] = []


def found_by(check: str) -> Any:
    """Class decorator: this defect must fail this check."""

    def register(cls: type) -> type:
        made = dataclass(frozen=True)(cls)
        broken.append((check, made))
        return made

    return register


@found_by("beats_random_search")
class NeverLearns(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        return state


@found_by("translates")
class ClampsVelocityToThePositionBox(PSO):
    def ask(self, state: Any, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        if self.bounds is None:
            return asked
        return asked.with_traits(
            **{f"velocity.{n}": self.bounds.repaired(n, asked.traits[f"velocity.{n}"]) for n in asked.genes}
        )


@found_by("only_ranks_matter")
class UsesRawCosts(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        moved = {
            n: x + 1e-3 * state.incumbent.cost[0].to(x.dtype) if x.is_floating_point() else x
            for n, x in asked.genes.items()
        }
        return asked.with_genes(moved)


@found_by("both_directions_agree")
class ReadsTheValue(GA):
    def tell(self, state: GAState, asked: Population) -> GAState:
        assert asked.assessment is not None
        lowest = asked.take(asked.assessment.value.argmin(0, keepdim=True))
        return GAState(asked, lowest)


@found_by("ask_is_a_query")
class AsksForMoreThanItSays(HillClimb):
    def next_k(self, state: HillClimbState) -> int:
        return self.k - 1


@found_by("batch_equals_separate")
class MixesTheBatch(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        told = super().tell(state, asked)
        return replace(told, scale=torch.full_like(told.scale, 1.0) * told.scale.mean())


@found_by("violations_affect_the_ranking")
class RanksByTheValue(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        both = state.incumbent.cat(asked)
        assert both.assessment is not None
        return replace(state, incumbent=both.take(both.assessment.objective_cost.argmin(0, keepdim=True)))


@found_by("violations_affect_the_ranking")
class LosesTheViolation(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        told = super().tell(state, asked)
        assert told.incumbent.assessment is not None
        return replace(told, incumbent=told.incumbent.assessed(replace(told.incumbent.assessment, violation=None)))


@found_by("failed_evaluations_do_no_harm")
class NaNRanksBest(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        assert asked.assessment is not None
        value = -asked.assessment.value if asked.assessment.maximize else asked.assessment.value
        child = asked.take(value.argmin(0, keepdim=True))  # argmin picks NaN
        return HillClimbState(child.where(~(state.incumbent.cost < child.cost), state.incumbent), state.scale)


@found_by("failed_evaluations_do_no_harm")
class NaNSpreadsToTheCentre(HillClimb):
    def estimate(self, state: HillClimbState) -> Individual:
        assert state.incumbent.assessment is not None
        weight = state.incumbent.assessment.value / state.incumbent.assessment.value
        return Individual(
            {n: x[0] * weight.view(1) if x.is_floating_point() else x[0] for n, x in state.incumbent.genes.items()}
        )


@found_by("bounds_hold")
class IgnoresTheBounds(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        return HillClimb(self.k, 3.0).ask(state, noise)


@found_by("bounds_hold")
class SetsOneEntryOfAPermutation(PermutationGA):
    def ask(self, state: GAState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        return asked.with_genes({n: torch.cat([x[..., 1:2], x[..., 1:]], -1) for n, x in asked.genes.items()})


@found_by("rescaled_genes_give_the_same_run")
class StepsOfOne(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        return HillClimb(self.k, 1.0, bounds=self.bounds).ask(state, noise)


@found_by("fixed_genes_give_the_same_run")
class DrawsForFixedGenes(HillClimb):
    weights: torch.Tensor = field(default_factory=lambda: torch.ones(1))  # a setting that may be for all genes


@found_by("any_size_works")
class SqueezesOneGeneAway(HillClimb):
    def best(self, state: HillClimbState) -> Population:
        best = state.incumbent
        return (
            best.assessed(best.assessment).with_genes({n: x.squeeze() for n, x in best.genes.items()})
            if best.event_shape("x") == (1,)
            else best
        )  # type: ignore[arg-type]


@found_by("several_tensors_work")
class SearchesTheFirstTensorOnly(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        _, *others = asked.genes
        return asked.with_genes({n: asked[n].float() if asked[n].is_floating_point() else asked[n] for n in others})


@found_by("unmet_needs_are_refused")
class TakesAnyK(HillClimb):
    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", Bounds.of(self.bounds))


@found_by("unmet_needs_are_refused")
class TakesAnyStart(HillClimb):
    needs = Needs()

    def init(self, start: Population) -> HillClimbState:
        return HillClimbState(start.best(), torch.ones_like(start.cost[0]))


@found_by("inputs_stay_as_they_were")
class WritesToTheState(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        told = super().tell(state, asked)
        state.scale.copy_(told.scale)
        return replace(told, scale=state.scale)


@found_by("large_populations_stay_as_they_were")
class ReusesABuffer(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        buffer = _buffers.setdefault(str(asked["x"].shape), torch.empty_like(asked["x"]))
        return asked.with_genes({"x": buffer.copy_(asked["x"])})


_buffers: dict[str, torch.Tensor] = {}


@found_by("dtype_and_device_are_kept")
class WorksInDouble(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        return asked.with_genes({n: x.double() if x.is_floating_point() else x for n, x in asked.genes.items()})


@found_by("same_seed_same_run")
class DrawsFromTheGlobalGenerator(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        return asked.with_genes(
            {n: x + 1e-6 * torch.rand_like(x) if x.is_floating_point() else x for n, x in asked.genes.items()}
        )


@found_by("same_seed_same_run")
class IgnoresTheSeed(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        return super().ask(state, torch.Generator().manual_seed(0))


@found_by("best_is_never_lost")
class ForgetsTheBest(GA):
    def tell(self, state: GAState, asked: Population) -> GAState:
        return GAState(asked, asked.best())


@found_by("best_is_never_lost")
class BeginsWithTheFirstCandidate(HillClimb):
    def init(self, start: Population) -> HillClimbState:
        self.check_start(start)
        return HillClimbState(
            start.take(torch.zeros_like(start.cost[:1], dtype=torch.int64)), torch.ones_like(start.cost[0])
        )


@found_by("best_is_never_lost")
class KeepsDominatedCandidatesInTheFront(NSGA2):
    def best(self, state: NSGA2State) -> Population:
        return state.parents


@found_by("best_is_never_lost")
class TruncationKeepsTheWrongHalf(NSGA2):
    def tell(self, state: NSGA2State, asked: Population) -> NSGA2State:
        both = self.init(state.parents.cat(asked))
        order = both.crowding.argsort(dim=0)[: self.k]
        return NSGA2State(both.parents.take(order), both.rank.gather(0, order), both.crowding.gather(0, order))


@found_by("unmet_needs_are_refused")
class TakesOneObjectiveForSeveral(NSGA2):
    def init(self, start: Population) -> NSGA2State:
        cost = start.cost if start.cost.ndim > 1 else start.cost[:, None]
        return super().init(start.assessed(Assessment(cost)))


@found_by("unmet_needs_are_refused")
class TakesAnAssessmentWithoutDescriptor(HillClimb):
    needs = Needs(dtypes=frozenset({"real", "integer", "boolean"}), descriptor=True)

    def init(self, start: Population) -> HillClimbState:
        return HillClimb(self.k, bounds=self.bounds).init(start)


@found_by("ask_is_a_query")
class AskMovesTheState(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        state.scale.mul_(0.99)
        return super().ask(state, noise)


@found_by("ask_is_a_query")
class AsksForFewer(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        return super().ask(state, noise).take(torch.arange(1, self.k))


@found_by("tell_is_deterministic_and_compiles")
class TellTossesACoin(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        told = super().tell(state, asked)
        return replace(told, scale=told.scale * (1 + 0.1 * torch.rand(())))


@found_by("tell_is_deterministic_and_compiles")
class TellBranchesOnAValue(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        told = super().tell(state, asked)
        return told if bool((told.scale < 1e6).all()) else replace(told, scale=told.scale / 2)


@found_by("refresh_assesses_what_is_remembered")
class KeepsOldCosts(HillClimb):
    def refresh(self, state: HillClimbState, assess: Any) -> HillClimbState:
        assess(state.incumbent)
        return state


@found_by("saved_searches_continue_exactly")
class RemembersOutsideTheState(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        _asked.append(1)
        asked = super().ask(state, noise)
        shrink = 1.0 - 0.01 * len(_asked)
        return asked.with_genes({n: x * shrink if x.is_floating_point() else x for n, x in asked.genes.items()})


_asked: list[int] = []


@found_by("states_are_complete_generations")
class CountsOutsideTheState(RemembersOutsideTheState):
    pass


@found_by("other_settings_are_refused")
class HidesItsBounds(Algorithm[Any]):
    """Its bounds are no setting that a checkpoint could describe."""

    needs = HillClimb.needs

    def __init__(self, k: int = 8, bounds: Any = None) -> None:
        object.__setattr__(self, "_inside", HillClimb(k=k, bounds=bounds))

    k = property(lambda self: self._inside.k)  # type: ignore[assignment]
    bounds = property(lambda self: self._inside.bounds)  # type: ignore[assignment]

    def init(self, start: Population) -> Any:
        return self._inside.init(start)

    def ask(self, state: Any, noise: Any) -> Population:
        return self._inside.ask(state, noise)

    def tell(self, state: Any, asked: Population) -> Any:
        return self._inside.tell(state, asked)

    def best(self, state: Any) -> Population:
        return self._inside.best(state)


@found_by("saved_searches_continue_exactly")
class StateCannotBeSaved(HillClimb):
    def init(self, start: Population) -> Any:
        @dataclass(frozen=True)
        class Hidden:
            incumbent: Population
            scale: torch.Tensor

        told = super().init(start)
        return Hidden(told.incumbent, told.scale)

    def tell(self, state: Any, asked: Population) -> Any:
        told = super().tell(state, asked)
        return type(state)(told.incumbent, told.scale)


@found_by("convergence_does_no_harm")
class DividesByTheSpread(GA):
    def ask(self, state: GAState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        real = {n: x for n, x in asked.genes.items() if x.is_floating_point()}
        return asked.with_genes({n: x + 1e-7 * (x - x.mean(0)) / x.std(0) for n, x in real.items()})


@found_by("flat_objectives_do_no_harm")
class DividesByTheSpreadOfCosts(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        cost = state.incumbent.cost[0]
        return asked.with_genes({n: x * (cost / cost) if x.is_floating_point() else x for n, x in asked.genes.items()})


@found_by("no_hidden_synchronisation")
class ReadsACost(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        float(asked.cost.min())
        return super().tell(state, asked)


@found_by("no_hidden_synchronisation")
class ListsTheCosts(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        asked.cost.tolist()
        return super().tell(state, asked)


@found_by("no_hidden_synchronisation")
class IndexesByAMask(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        asked.cost[asked.cost < 1.0].sum()
        return super().tell(state, asked)


@found_by("memory_is_a_multiple_of_the_population")
class BuildsKTimesGenesTimesGenes(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        x = asked["x"]
        (x[..., None] * x[..., None, :]).sum(0)
        return super().tell(state, asked)


@found_by("memory_is_flat")
class RemembersACostOfEveryGeneration(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        told = super().tell(replace(state, incumbent=state.incumbent.without_traits()), asked)
        seen = [*state.incumbent.traits.values(), asked.cost.amin(0, keepdim=True)[..., None]]
        return replace(told, incumbent=told.incumbent.with_traits(log=torch.cat(seen, -1)))


@found_by("fronts_are_distinct")
class FrontWithCopies(NSGA2):
    def best(self, state: NSGA2State) -> Population:
        front = super().best(state)
        return front.cat(front)


class Marked(torch.Tensor):
    """A tensor whose memory the suite cannot compare."""


@found_by("writes_are_refused")
class AsksForTensorsOfItsOwnKind(HillClimb):
    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        asked = super().ask(state, noise)
        return Population({name: x.as_subclass(Marked) for name, x in asked.genes.items()})


@found_by("failures_cost_the_worst")
class RefusesAnInfiniteCost(HillClimb):
    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        if bool(torch.isinf(asked.cost).any()):
            raise ValueError("an infinite cost")
        return super().tell(state, asked)


@pytest.mark.parametrize(("check", "algorithm"), broken, ids=[f"{cls.__name__}" for _, cls in broken])
def test_each_defect_is_found_by_its_check(check: str, algorithm: type[Algorithm[Any]]) -> None:
    with pytest.raises(AssertionError, match=rf"{algorithm.__name__}: expected that .* \[{check}\]"):
        check_algorithm(algorithm, only=[check])


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {check for check, _ in broken} == set(ALGORITHM_CHECKS)


def test_make_may_be_an_importable_name() -> None:
    check_algorithm("tansaku:PSO", only=["same_seed_same_run", "saved_searches_continue_exactly"])
    check_algorithm("tansaku.algorithms.ga:GA", only=["same_seed_same_run"])


def test_a_wrong_make_or_check_is_refused() -> None:
    with pytest.raises(ValueError, match="expected make as 'module:name', got 'PSO'"):
        check_algorithm("PSO")
    with pytest.raises(TypeError, match="expected make to build an Algorithm, got Comma"):
        check_algorithm(lambda: Comma())  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"expected checks among .*, got \['beauty'\]"):
        check_algorithm(PSO, only=["beauty"])


def test_the_fresh_process_is_really_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import tansaku.testing.resume as resume

    commands = []
    run = resume.subprocess.run
    monkeypatch.setattr(resume.subprocess, "run", lambda *args, **kw: commands.append(args) or run(*args, **kw))
    check_algorithm(HillClimb, only=["saved_searches_continue_exactly"])
    assert len(commands) == 1
    check_algorithm(lambda **settings: HillClimb(**settings), only=["saved_searches_continue_exactly"])
    assert len(commands) == 1


@dataclass(frozen=True)
class OneAtATime(Algorithm[HillClimbState]):
    """An own algorithm with needs: pairs, at least 6, booleans only, one search."""

    k: int = 6
    bounds: Bounds | None = None
    needs = Needs(min_k=6, k_multiple=2, dtypes=frozenset({"boolean"}), batched=False)

    def __post_init__(self) -> None:
        self.check_settings()

    def init(self, start: Population) -> HillClimbState:
        self.check_start(start)
        return HillClimbState(start.best(), torch.ones_like(start.cost[0]))

    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        parents = state.incumbent.individual().populate(self.k)
        genes = {}
        for name, x in parents.genes.items():
            rate = 1.5 / max(1, x[0].numel())
            genes[name] = x ^ draws.coins(min(rate, 0.9), (self.k,), (), tuple(x.shape[1:]), x, noise)
        return parents.with_genes(genes)

    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        child = asked.best()
        return HillClimbState(child.where(child.cost <= state.incumbent.cost, state.incumbent), state.scale)

    def best(self, state: HillClimbState) -> Population:
        return state.incumbent


def test_a_users_algorithm_with_own_needs_passes() -> None:
    check_algorithm(OneAtATime)


def test_uniform_crossover_is_checked_in_a_ga_too() -> None:
    check_algorithm(
        lambda **settings: GA(crossover=UniformCrossover(0.3), **settings),
        only=["batch_equals_separate", "bounds_hold", "best_is_never_lost"],
    )
