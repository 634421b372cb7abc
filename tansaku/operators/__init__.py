"""Operators: hyper-parameters and no memory. Noise is an argument; names are the field's."""

from tansaku.operators.bounds import Bounds
from tansaku.operators.constraints import EQ, GT, GTE, LT, LTE, Constrained, Constraint, Feasibility, Penalty, Rule
from tansaku.operators.crossover import ArithmeticCrossover, Blend, Crossover, PerNameCrossover, UniformCrossover
from tansaku.operators.designs import LatinHypercubeSampler, SobolSampler
from tansaku.operators.limits import Limit
from tansaku.operators.mutation import BitFlip, Cauchy, Creep, Gaussian, Mutation, PerName, UniformReset
from tansaku.operators.permutation import Inversion, OrderCrossover, PermutationSampler, Swap
from tansaku.operators.points import NPointCrossover, OnePointCrossover, TwoPointCrossover
from tansaku.operators.polynomial import Polynomial
from tansaku.operators.reduction import (
    Best,
    BestPerSample,
    BinaryProbability,
    Mean,
    Momentum,
    MomentumMemory,
    Slope,
    WeightedMean,
)
from tansaku.operators.sampling import BernoulliSampler, GaussianSampler, UniformSampler
from tansaku.operators.sbx import SBX
from tansaku.operators.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    Schedule,
    Scheduled,
)
from tansaku.operators.selection import (
    Boltzmann,
    ExponentialRank,
    Lexicase,
    LinearRank,
    Roulette,
    StochasticUniversal,
    Tournament,
    Truncation,
)
from tansaku.operators.survival import Age, Comma, Crowding, Greedy, Plus

__all__ = [
    "Age",
    "ArithmeticCrossover",
    "BernoulliSampler",
    "Best",
    "BestPerSample",
    "BinaryProbability",
    "BitFlip",
    "Blend",
    "Boltzmann",
    "Bounds",
    "Cauchy",
    "Comma",
    "ConstantSchedule",
    "Constrained",
    "Constraint",
    "CosineSchedule",
    "Creep",
    "Crossover",
    "Crowding",
    "EQ",
    "ExponentialRank",
    "ExponentialSchedule",
    "Feasibility",
    "GT",
    "GTE",
    "Gaussian",
    "GaussianSampler",
    "Greedy",
    "Inversion",
    "LT",
    "LTE",
    "LatinHypercubeSampler",
    "Lexicase",
    "Limit",
    "LinearRank",
    "LinearSchedule",
    "Mean",
    "Momentum",
    "MomentumMemory",
    "Mutation",
    "NPointCrossover",
    "OnePointCrossover",
    "OrderCrossover",
    "Penalty",
    "PerName",
    "PerNameCrossover",
    "PermutationSampler",
    "Plus",
    "Polynomial",
    "Roulette",
    "Rule",
    "SBX",
    "Schedule",
    "Scheduled",
    "Slope",
    "SobolSampler",
    "StochasticUniversal",
    "Swap",
    "Tournament",
    "Truncation",
    "TwoPointCrossover",
    "UniformCrossover",
    "UniformReset",
    "UniformSampler",
    "WeightedMean",
]
