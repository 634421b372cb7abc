"""The operators pass the conformance suite, and each of its checks finds the defect that it is there for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import (
    SBX,
    Age,
    ArithmeticCrossover,
    BernoulliSampler,
    Best,
    BestPerSample,
    BinaryProbability,
    BitFlip,
    Blend,
    Boltzmann,
    Bounds,
    Cauchy,
    Comma,
    Creep,
    Crossover,
    Crowding,
    ExponentialRank,
    Gaussian,
    GaussianSampler,
    Greedy,
    Individual,
    Inversion,
    LatinHypercubeSampler,
    Lexicase,
    Limit,
    LinearRank,
    Mean,
    Momentum,
    Mutation,
    Noise,
    NPointCrossover,
    OnePointCrossover,
    OrderCrossover,
    PermutationSampler,
    PerName,
    PerNameCrossover,
    Plus,
    Polynomial,
    Population,
    Roulette,
    Slope,
    SobolSampler,
    StochasticUniversal,
    Swap,
    Tournament,
    Truncation,
    TwoPointCrossover,
    UniformCrossover,
    UniformReset,
    UniformSampler,
    WeightedMean,
    draws,
)
from tansaku.testing import OPERATOR_CHECKS, check_operator

BOX = Bounds(-3.0, 3.0)
OPERATORS: dict[str, Any] = {
    "tournament": Tournament,
    "tournament of 1": lambda: Tournament(1),
    "tournament of 5": lambda: Tournament(5),
    "truncation": Truncation,
    "linear rank": LinearRank,
    "weak linear rank": lambda: LinearRank(1.2),
    "roulette": Roulette,
    "uniform crossover": UniformCrossover,
    "blend": Blend,
    "blend inside": lambda: Blend(0.0),
    "gaussian": Gaussian,
    "gaussian, some genes": lambda: Gaussian(0.2, 0.3),
    "gaussian per gene": lambda: Gaussian(torch.tensor(0.2)),
    "bit flip": BitFlip,
    "uniform reset": lambda: UniformReset(BOX),
    "per name": lambda: PerName({"x": Gaussian()}),
    "limit": lambda: Limit(Gaussian(1.0), {"x": torch.tensor([0])}),
    "gaussian sampler": GaussianSampler,
    "antithetic sampler": lambda: GaussianSampler(antithetic=True),
    "uniform sampler": lambda: UniformSampler(BOX),
    "plus": Plus,
    "plus, keep 3": lambda: Plus(3),
    "comma": Comma,
    "comma without elites": lambda: Comma(0),
    "comma with 3 elites": lambda: Comma(3),
    "greedy": Greedy,
    "strict greedy": lambda: Greedy(True),
    "best": Best,
    "best per sample": BestPerSample,
    "mean": Mean,
    "softmax mean": WeightedMean,
    "ranks mean": lambda: WeightedMean("ranks"),
    "standardised mean": lambda: WeightedMean("standardised"),
    "sbx": SBX,
    "sbx, all genes": lambda: SBX(2.0, 1.0, 0.0),
    "arithmetic": ArithmeticCrossover,
    "arithmetic, given": lambda: ArithmeticCrossover(0.25),
    "one point": OnePointCrossover,
    "two points": TwoPointCrossover,
    "nine points": lambda: NPointCrossover(9),
    "crossover per name": lambda: PerNameCrossover({"x": Blend()}),
    "order crossover": OrderCrossover,
    "swap": Swap,
    "swap, some": lambda: Swap(0.3),
    "inversion": Inversion,
    "permutation sampler": PermutationSampler,
    "cauchy": Cauchy,
    "cauchy, some genes": lambda: Cauchy(0.2, 0.3),
    "polynomial": lambda: Polynomial(Bounds(-4.0, 4.0)),
    "creep": Creep,
    "creep far": lambda: Creep(5, 1.0),
    "limit, a dictionary": lambda: Limit({"x": Gaussian(1.0)}, {"x": torch.tensor([0])}),
    "stochastic universal": StochasticUniversal,
    "stochastic universal ranks": lambda: StochasticUniversal(LinearRank(1.5)),
    "stochastic universal exponential": lambda: StochasticUniversal(ExponentialRank(0.7)),
    "exponential rank": ExponentialRank,
    "boltzmann": Boltzmann,
    "lexicase": Lexicase,
    "epsilon lexicase": lambda: Lexicase(0.1),
    "age": Age,
    "age 1": lambda: Age(1),
    "crowding": Crowding,
    "slope": lambda: Slope(0.01),
    "binary probability": BinaryProbability,
    "momentum": Momentum,
    "bernoulli sampler": lambda: BernoulliSampler(0.3),
    "latin hypercube": lambda: LatinHypercubeSampler(BOX),
    "sobol": lambda: SobolSampler(BOX),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_keeps_its_promises(name: str) -> None:
    check_operator(OPERATORS[name])


broken: list[tuple[str, type]] = []


def found_by(check: str) -> Any:
    """Class decorator: this defect must fail this check."""

    def register(cls: type) -> type:
        made = dataclass(frozen=True)(cls)
        broken.append((check, made))
        return made

    return register


@found_by("shapes_are_right")
class SqueezesSizeOneAway(Tournament):
    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        return super().__call__(population, count, noise).squeeze()


@found_by("shapes_are_right")
class KeepsTheOldCost(Gaussian):
    def __call__(self, population: Population, noise: Noise) -> Population:
        changed = super().__call__(population, noise)
        assert population.assessment is not None
        return changed.assessed(population.assessment)


@found_by("shapes_are_right")
class ReturnsNaNChildrenForIntegers(Crossover):
    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        return a / 0 * b


@found_by("other_dtypes_are_refused")
class RefusesWithoutARemedy(Gaussian):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        if not x.is_floating_point():
            raise TypeError("no")
        return super().mutate(name, x, batch_ndim, noise)


@found_by("inputs_stay_as_they_were")
class MutatesInPlace(Mutation):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        return x.copy_(~x) if x.dtype == torch.bool else x.add_(1)


@found_by("inputs_stay_as_they_were")
class GivesTheSameMemoryAgain(Mutation):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        memory = _memory.setdefault((tuple(x.shape), x.dtype), torch.empty_like(x))
        return memory.copy_(draws.coins(0.5, (), (), tuple(x.shape), x, noise))


_memory: dict[Any, Tensor] = {}


@found_by("noise_decides")
class DrawsFromTheGlobalGenerator(Mutation):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        return torch.where(torch.rand(x.shape) < 0.5, x, x.flip(-1))


@found_by("batch_equals_separate")
class RanksOverTheBatch(Truncation):
    def __call__(self, population: Population, count: int, noise: Noise | None = None) -> Tensor:
        order = population.cost.flatten(1).mean(1) if population.batch_ndim else population.cost
        return order.argsort()[:count].view(-1, *(1,) * population.batch_ndim).expand(-1, *population.batch_shape)


@found_by("traits_stay_with_their_candidate")
class TakesTheSecondParentsTraits(UniformCrossover):
    def __call__(self, a: Population, b: Population, noise: Noise) -> Population:
        return super().__call__(a, b, noise).with_genes({}, **b.traits)


@found_by("traits_stay_with_their_candidate")
class LeavesTraitsBehind(Greedy):
    def __call__(self, parents: Population, children: Population) -> Population:
        survivors = super().__call__(parents, children)
        return survivors.with_traits(velocity=parents.traits["velocity"])


@found_by("nan_is_never_preferred")
class PicksNaN(Truncation):
    def __call__(self, population: Population, count: int, noise: Noise | None = None) -> Tensor:
        assert population.assessment is not None
        return (-population.assessment.value).argsort(dim=0, descending=True, stable=True)[:count]  # NaN sorts first


@found_by("nan_is_never_preferred")
class RanksTheWrongWay(LinearRank):
    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        assert population.assessment is not None
        return super().__call__(population.assessed(type(population.assessment)(-population.cost)), count, noise)


@found_by("nan_is_never_preferred")
class LetsNaNIn(Greedy):
    def __call__(self, parents: Population, children: Population) -> Population:
        return children.where(~(children.cost > parents.cost) | torch.isinf(children.cost), parents)


@found_by("nan_is_never_preferred")
class MeanOfValues(Mean):
    def __call__(self, population: Population) -> Individual:
        assert population.assessment is not None
        weight = torch.softmax(-population.assessment.value, 0)
        genes = {
            n: (weight.view(weight.shape + (1,) * (x.ndim - weight.ndim)) * x).sum(0).to(x.dtype)
            for n, x in population.genes.items()
        }
        return Individual(genes, population.batch_ndim)


@found_by("rates_are_what_they_say")
class FlipsAllButTheRate(BitFlip):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        return ~super().mutate(name, x, batch_ndim, noise)


@found_by("rates_are_what_they_say")
class DrawsTheRateFromANormal(UniformCrossover):
    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        like = torch.zeros((), dtype=torch.float64)
        return torch.where(draws.normal((), (), tuple(a.shape), like, noise) < self.rate, b, a)


@found_by("rates_are_what_they_say")
class FlipsWithTheRateSquared(BitFlip):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        return BitFlip(self.rate**2).mutate(name, x, batch_ndim, noise)


@found_by("rates_are_what_they_say")
class MovesLessOftenThanItSays(Creep):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        return Creep(self.step, self.rate if self.rate == 1.0 else 0.8 * self.rate).mutate(name, x, batch_ndim, noise)


@found_by("every_place_may_be_cut")
class NeverCutsBeforeTheLastGene(Crossover):
    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        k, batch_shape, n = a.shape[0], tuple(a.shape[1 : 1 + batch_ndim]), a.shape[-1]
        cut = draws.integers(max(1, n - 2), (k,), batch_shape, (1,), a, noise) + 1
        return torch.where(torch.arange(n) >= cut, b, a)


@found_by("every_place_may_be_cut")
class SeldomCutsBeforeTheLastGene(OnePointCrossover):
    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        k, batch_shape, n = a.shape[0], tuple(a.shape[1 : 1 + batch_ndim]), a.shape[-1]
        cut = draws.integers(2 * n - 3, (k,), batch_shape, (1,), a, noise) // 2 + 1 if n > 1 else n
        return torch.where(torch.arange(n) >= cut, b, a)


@found_by("precision_is_kept_near_a_bound")
class StepsFromTheMiddle(SBX):
    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        spread = draws.uniform(
            (len(a),), tuple(a.shape[1 : 1 + batch_ndim]), tuple(a.shape[1 + batch_ndim :]), a, noise
        )
        return (a + b) / 2 + spread * (a - b) / 2


@found_by("permutations_stay_permutations")
class CrossesPermutationsAsIfTheyWereNumbers(UniformCrossover):
    permutes = True

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        if a.is_floating_point() or a.dtype == torch.bool:
            raise TypeError(f"expected integers, got {a.dtype}; use UniformCrossover")
        return super().cross(name, a, b, batch_ndim, noise)


@pytest.mark.parametrize(("check", "operator"), broken, ids=[cls.__name__ for _, cls in broken])
def test_each_defect_is_found_by_its_check(check: str, operator: type) -> None:
    with pytest.raises(AssertionError, match=rf"{operator.__name__}: expected that .* \[{check}\]"):
        check_operator(operator, only=[check])


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {check for check, _ in broken} == set(OPERATOR_CHECKS)


def plain_mutation(population: Population, noise: Noise) -> Population:
    return population.with_genes(
        {n: draws.coins(0.5, (), (), tuple(x.shape), x, noise).to(x.dtype) for n, x in population.genes.items()}
    )


def test_a_plain_function_is_an_operator_too() -> None:
    check_operator(lambda: plain_mutation, only=["noise_decides", "traits_stay_with_their_candidate"])


def test_a_kind_that_cannot_be_told_must_be_named() -> None:
    with pytest.raises(TypeError, match=r"expected the signature of an operator, got \(a, b\).*pass kind="):
        check_operator(lambda: lambda a, b: a)
    check_operator(lambda: lambda a, b: a, kind="survival", only=["traits_stay_with_their_candidate"])
    with pytest.raises(ValueError, match=r"expected kind among .* got 'magic'"):
        check_operator(lambda: lambda a, b: a, kind="magic")  # type: ignore[arg-type]
