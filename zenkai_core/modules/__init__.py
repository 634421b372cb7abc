"""Modules that ordinary networks lack: inverses, noise, units without gradient, fuzzy relations, ensembles, trees."""

from zenkai_core.modules import voters
from zenkai_core.modules.black_box import BlackBox
from zenkai_core.modules.coding import BoolToSigned, Permute, Reshape, SignedToBool
from zenkai_core.modules.discrete import Argmax, ArgmaxSTE, Step, StepSTE
from zenkai_core.modules.dropout import FreezableDropout
from zenkai_core.modules.ensemble import Ensemble, Stochastic
from zenkai_core.modules.estimators import Estimators, PerOutput
from zenkai_core.modules.fitted import EnsembleVoter
from zenkai_core.modules.fuzzy import MaxMin, MinMax
from zenkai_core.modules.noise import GaussianNoise
from zenkai_core.modules.reversible import (
    BatchNorm1d,
    BatchNorm2d,
    InvertibleLinear,
    LeakyReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from zenkai_core.modules.sign import Sign, SignSTE
from zenkai_core.modules.trees import Tree, Trees

__all__ = [
    "Argmax",
    "ArgmaxSTE",
    "BatchNorm1d",
    "BatchNorm2d",
    "BlackBox",
    "BoolToSigned",
    "Ensemble",
    "EnsembleVoter",
    "Estimators",
    "FreezableDropout",
    "GaussianNoise",
    "InvertibleLinear",
    "LeakyReLU",
    "MaxMin",
    "MinMax",
    "PerOutput",
    "Permute",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "Sign",
    "SignSTE",
    "SignedToBool",
    "Softmax",
    "Step",
    "StepSTE",
    "Stochastic",
    "Tanh",
    "Tree",
    "Trees",
    "voters",
]
