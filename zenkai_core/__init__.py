"""zenkai_core: deep networks whose layers each have their own target and their own learning rule."""

from . import criteria, modules, targets, testing, theta
from .chain import Chain
from .criteria import Criterion, cross_entropy, sse
from .diagnostics import Recorder
from .learning import LearningMachine, set_lmode
from .machine import Machine, StepTheta, StepX, StepY
from .noise import NoiseKey
from .optimizer import Optimizer, plain_parameters
from .state import State
from .values import IO, as_io

__all__ = [
    "IO",
    "Chain",
    "Criterion",
    "LearningMachine",
    "Machine",
    "NoiseKey",
    "Optimizer",
    "Recorder",
    "State",
    "StepTheta",
    "StepX",
    "StepY",
    "as_io",
    "criteria",
    "cross_entropy",
    "modules",
    "plain_parameters",
    "set_lmode",
    "sse",
    "targets",
    "testing",
    "theta",
]
