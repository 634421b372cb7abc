"""Published conformance suites for your own algorithms and operators, and functions to try a search on."""

from tansaku.testing.algorithm import ALGORITHM_CHECKS, check_algorithm
from tansaku.testing.functions import ackley, ellipsoid, rastrigin, rosenbrock, sphere, zeros

__all__ = [
    "ALGORITHM_CHECKS",
    "ackley",
    "check_algorithm",
    "ellipsoid",
    "rastrigin",
    "rosenbrock",
    "sphere",
    "zeros",
]
