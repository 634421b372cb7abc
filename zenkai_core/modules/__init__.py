"""Modules that ordinary networks lack: noise, units without a gradient, ensembles of trees."""

from zenkai_core.modules.noise import GaussianNoise
from zenkai_core.modules.sign import Sign, SignSTE
from zenkai_core.modules.trees import Trees

__all__ = ["GaussianNoise", "Sign", "SignSTE", "Trees"]
