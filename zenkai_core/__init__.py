"""zenkai_core: deep networks whose layers each have their own target and their own learning rule."""

from zenkai_core import criteria, diagnostics, modules, parameters, targets, testing, theta
from zenkai_core.chain import Chain
from zenkai_core.convert import convert
from zenkai_core.criteria import Criterion, CrossEntropy, SeesInputs, Utility, Weighted, cross_entropy, sse
from zenkai_core.diagnostics import Recorder
from zenkai_core.global_targets import GlobalTargets
from zenkai_core.graph import Graph
from zenkai_core.learning import LearningMachine, set_lmode
from zenkai_core.machine import Machine, StepTheta, StepX, StepY
from zenkai_core.noise import NoiseKey
from zenkai_core.optimizer import Optimizer, plain_parameters
from zenkai_core.parallel import Parallel
from zenkai_core.state import State
from zenkai_core.swap import Swap
from zenkai_core.values import IO, as_io
from zenkai_core.weights import load_weights
from zenkai_core.wiring import Node

__all__ = [
    "IO",
    "Chain",
    "Criterion",
    "CrossEntropy",
    "GlobalTargets",
    "Graph",
    "LearningMachine",
    "Machine",
    "Node",
    "NoiseKey",
    "Optimizer",
    "Parallel",
    "Recorder",
    "SeesInputs",
    "State",
    "StepTheta",
    "StepX",
    "StepY",
    "Swap",
    "Utility",
    "Weighted",
    "as_io",
    "convert",
    "criteria",
    "cross_entropy",
    "diagnostics",
    "modules",
    "load_weights",
    "parameters",
    "plain_parameters",
    "set_lmode",
    "sse",
    "targets",
    "testing",
    "theta",
]
