"""Modules that ordinary networks lack: noise, units without a gradient, ensembles, scikit-learn's estimators, trees."""

from zenkai_core.modules import voters
from zenkai_core.modules.ensemble import Ensemble, EnsembleVoter, Stochastic
from zenkai_core.modules.estimators import Estimators, PerOutput
from zenkai_core.modules.noise import GaussianNoise
from zenkai_core.modules.sign import Sign, SignSTE
from zenkai_core.modules.trees import Tree, Trees

__all__ = [
    "Ensemble",
    "EnsembleVoter",
    "Estimators",
    "GaussianNoise",
    "PerOutput",
    "Sign",
    "SignSTE",
    "Stochastic",
    "Tree",
    "Trees",
    "voters",
]
