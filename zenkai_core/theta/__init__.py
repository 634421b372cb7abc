"""Rules for the parameters of a machine."""

from .delta import Delta
from .fit import Fit
from .gradient import Gradient
from .null import Null
from .search import Search

__all__ = ["Delta", "Fit", "Gradient", "Null", "Search"]
