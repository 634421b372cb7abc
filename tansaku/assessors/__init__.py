"""Assessors: a user's function becomes ``population -> assessed population``."""

from tansaku.assessors.failures import Failure, Failures, OnFailure
from tansaku.assessors.function import Objective, Vectorized
from tansaku.assessors.inputs import InputObjective
from tansaku.assessors.modules import ModuleObjective

__all__ = ["Failure", "Failures", "InputObjective", "ModuleObjective", "Objective", "OnFailure", "Vectorized"]
