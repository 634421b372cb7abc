"""Rules for the parameters of a machine."""

from zenkai_core.theta.delta import Delta
from zenkai_core.theta.fit import Fit
from zenkai_core.theta.gradient import Gradient
from zenkai_core.theta.null import Null
from zenkai_core.theta.search import Search

__all__ = ["Delta", "Fit", "Gradient", "Null", "Search"]
