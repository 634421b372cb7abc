"""zenkai_core: deep networks whose layers each have their own target and their own learning rule."""

from zenkai_core import criteria, diagnostics, modules, parameters, targets, testing, theta
from zenkai_core.chain import Chain
from zenkai_core.criteria import Criterion, cross_entropy, sse
from zenkai_core.diagnostics import Recorder
from zenkai_core.graph import Graph, Node
from zenkai_core.learning import LearningMachine, set_lmode
from zenkai_core.machine import Machine, StepTheta, StepX, StepY
from zenkai_core.noise import NoiseKey
from zenkai_core.optimizer import Optimizer, plain_parameters
from zenkai_core.state import State
from zenkai_core.values import IO, as_io

__all__ = [
    "IO",
    "Chain",
    "Criterion",
    "Graph",
    "LearningMachine",
    "Machine",
    "Node",
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
    "diagnostics",
    "modules",
    "parameters",
    "plain_parameters",
    "set_lmode",
    "sse",
    "targets",
    "testing",
    "theta",
]
