"""Rules for targets: of the incoming layer (`StepX`), and of the layer itself (`StepY`)."""

from .gradient import Gradient
from .null import Null
from .search import SearchX, SearchY

__all__ = ["Gradient", "Null", "SearchX", "SearchY"]
