"""Published conformance suites for your own algorithms and operators, and functions to try a search on."""

from tansaku.testing.algorithm import ALGORITHM_CHECKS, check_algorithm
from tansaku.testing.functions import ackley, ellipsoid, rastrigin, rosenbrock, sphere, zeros
from tansaku.testing.many import dtlz2, zdt1, zdt2, zdt3, zdt4, zdt6
from tansaku.testing.operator import OPERATOR_CHECKS, check_operator

__all__ = [
    "ALGORITHM_CHECKS",
    "OPERATOR_CHECKS",
    "ackley",
    "check_algorithm",
    "check_operator",
    "dtlz2",
    "ellipsoid",
    "rastrigin",
    "rosenbrock",
    "sphere",
    "zdt1",
    "zdt2",
    "zdt3",
    "zdt4",
    "zdt6",
    "zeros",
]
