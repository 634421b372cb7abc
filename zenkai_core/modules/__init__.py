"""Modules that ordinary networks lack: inverses, noise, units without gradient, black boxes, fuzzy relations, trees."""

from zenkai_core.modules.black_box import BlackBox
from zenkai_core.modules.coding import BoolToSigned, Permute, Reshape, SignedToBool
from zenkai_core.modules.discrete import Argmax, ArgmaxSTE, Step, StepSTE
from zenkai_core.modules.dropout import FreezableDropout
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
from zenkai_core.modules.stochastic import Stochastic
from zenkai_core.modules.trees import Trees

__all__ = [
    "Argmax",
    "ArgmaxSTE",
    "BatchNorm1d",
    "BatchNorm2d",
    "BlackBox",
    "BoolToSigned",
    "FreezableDropout",
    "GaussianNoise",
    "InvertibleLinear",
    "LeakyReLU",
    "MaxMin",
    "MinMax",
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
    "Trees",
]
