"""Modules that ordinary networks lack: units without a gradient, ensembles of trees."""

from zenkai_core.modules.sign import Sign, SignSTE
from zenkai_core.modules.trees import Trees

__all__ = ["Sign", "SignSTE", "Trees"]
