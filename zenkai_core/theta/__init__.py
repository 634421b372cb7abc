"""Rules for the parameters of a machine."""

from zenkai_core.theta.delta import Delta
from zenkai_core.theta.fit import Fit
from zenkai_core.theta.gradient import Gradient
from zenkai_core.theta.least_squares import LeastSquares
from zenkai_core.theta.null import Null
from zenkai_core.theta.search import Search
from zenkai_core.theta.wrappers import Filtered, Limited, Postponed

__all__ = ["Delta", "Filtered", "Fit", "Gradient", "LeastSquares", "Limited", "Null", "Postponed", "Search"]
