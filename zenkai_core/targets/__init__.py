"""Rules for targets: of the incoming layer (`StepX`), and of the layer itself (`StepY`)."""

from zenkai_core.targets.gradient import Gradient
from zenkai_core.targets.null import Null
from zenkai_core.targets.search import SearchX, SearchY

__all__ = ["Gradient", "Null", "SearchX", "SearchY"]
