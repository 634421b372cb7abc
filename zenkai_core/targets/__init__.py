"""Rules for targets: of the incoming layer (`StepX`), and of the layer itself (`StepY`)."""

from zenkai_core.targets.difference import Difference
from zenkai_core.targets.direct import DirectFeedback, LocalReadout
from zenkai_core.targets.feedback import FeedbackAlignment
from zenkai_core.targets.gradient import Gradient
from zenkai_core.targets.kolen_pollack import KolenPollack
from zenkai_core.targets.least_squares import LeastSquares
from zenkai_core.targets.null import Null
from zenkai_core.targets.reverse import Reverse
from zenkai_core.targets.sampled import Choices, Sampled
from zenkai_core.targets.search import SearchX, SearchY
from zenkai_core.targets.stochastic import Proposals
from zenkai_core.targets.wrappers import Limited, LimitedY

__all__ = [
    "Choices",
    "Difference",
    "DirectFeedback",
    "FeedbackAlignment",
    "Gradient",
    "KolenPollack",
    "LeastSquares",
    "Limited",
    "LimitedY",
    "LocalReadout",
    "Null",
    "Proposals",
    "Reverse",
    "Sampled",
    "SearchX",
    "SearchY",
]
