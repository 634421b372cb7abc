"""Operators: hyper-parameters and no memory. Noise is an argument; names are the field's."""

from tansaku.operators.bounds import Bounds
from tansaku.operators.crossover import Blend, Crossover, UniformCrossover
from tansaku.operators.limits import Limit
from tansaku.operators.mutation import BitFlip, Gaussian, Mutation, PerName, UniformReset
from tansaku.operators.reduction import Best, BestPerSample, Mean, WeightedMean
from tansaku.operators.sampling import GaussianSampler, UniformSampler
from tansaku.operators.selection import LinearRank, Roulette, Tournament, Truncation
from tansaku.operators.survival import Comma, Greedy, Plus

__all__ = [
    "Best",
    "BestPerSample",
    "BitFlip",
    "Blend",
    "Bounds",
    "Comma",
    "Crossover",
    "Gaussian",
    "GaussianSampler",
    "Greedy",
    "Limit",
    "LinearRank",
    "Mean",
    "Mutation",
    "PerName",
    "Plus",
    "Roulette",
    "Tournament",
    "Truncation",
    "UniformCrossover",
    "UniformReset",
    "UniformSampler",
    "WeightedMean",
]
