"""Modules that ordinary networks lack: units without a gradient, ensembles of trees."""

from .sign import Sign, SignSTE
from .trees import Trees

__all__ = ["Sign", "SignSTE", "Trees"]
