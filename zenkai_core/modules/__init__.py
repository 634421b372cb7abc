"""Modules that ordinary networks lack: inverses, noise, units without a gradient, ensembles of trees."""

from zenkai_core.modules.coding import BoolToSigned, Permute, Reshape, SignedToBool
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
from zenkai_core.modules.trees import Trees

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BoolToSigned",
    "GaussianNoise",
    "InvertibleLinear",
    "LeakyReLU",
    "Permute",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "Sign",
    "SignSTE",
    "SignedToBool",
    "Softmax",
    "Tanh",
    "Trees",
]
