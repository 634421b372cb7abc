"""Decision trees on top of a convolutional network: experiment 7 of the paper (section 4.7, appendix A.7).

Convolution (32 channels, kernel 4, stride 2) -> BatchNorm -> ReLU -> dropout -> Linear -> BatchNorm, and as the head
nine classification trees of depth 10 at most, the newest of which is fitted on the most recent rows. No gradient
passes the trees. The layer below is stochastic: it is asked K times, every pass is scored by the trees' margin (the
share of votes of the right class less that of the best wrong one), and of these candidates, a search per sample, comes
the target. Variants: "plain", the candidate with the best margin, ties keeping the pass itself, as in the paper; and
"mean", the mean of all of them weighted by their margins, which points where the trees grow surer.

Dropout takes whole channels, so a pass of the stochastic part is a sum of the parts that the channels add to the linear
layer: these are computed once, and K passes cost little more than one.

A.7 leaves the width, the rate of dropout, K and the times of the fits open. Measured with 12,800 of MNIST's training
images in four epochs, on the validation images (one seed): a frozen network 0.50, the best candidate 0.878, the mean of
the best quarter 0.909 after three epochs, the weighted mean of all 0.913 to 0.924,
the 0.913 becoming 0.923 at a width of 64 in place of 32. A step of the mean that does not outweigh the way from the
pass to the middle of the candidates: 0.877; a dropout of 0.3 with it: 0.855.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import tansaku
from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import Chain, Machine, StepX, cross_entropy, modules, sse, targets, theta
from zenkai_core.criteria import margin

CHANNELS, KERNEL, STRIDE = 32, 4, 2
WIDTH = 64
DROPOUT = 0.5
TREES, DEPTH = 9, 10
CANDIDATES = 32
STEP = 100.0  # of the weighted mean, so long that it outweighs the difference between a pass and the middle of them
ROWS = {"digits": 1200, "mnist": 18_000}  # between two fits; fewer at first, see `waits`
RATE = {"digits": 3e-3, "mnist": 1e-3}
BATCH = {"digits": 64, "mnist": 128}


class Parts(nn.Module):
    """A linear layer over a flattened image, told apart by channels: `[n, channels, pixels]` -> `[n, channels, width]`.

    The sum over the channels is the layer's output, without bias.
    """

    def __init__(self, channels: int, pixels: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(channels * pixels)  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(channels, pixels, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """What each channel adds."""
        return (x.transpose(0, 1) @ self.weight).transpose(0, 1)


class Sum(nn.Module):
    """The sum over the channels: `[n, channels, width]` -> `[n, width]`."""

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x.sum(1)


def tree() -> Any:
    """Return an unfitted member of the head."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=DEPTH)


def waits(rows: int, fits: int) -> int:
    """Return how many rows the next fit waits for: an eighth at first, twice as many each time, then `rows`."""
    return min(rows // 8 * 2**fits, rows)


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" fits its trees only, "backprop" has a linear layer in their place."""
    rate, (*planes, height, width) = plan.default(RATE), plan.data.shape
    colours = math.prod(planes)
    pixels = math.prod((side - KERNEL) // STRIDE + 1 for side in (height, width))
    convolution = nn.Sequential(
        nn.Unflatten(1, (colours, height, width)),
        nn.Conv2d(colours, CHANNELS, KERNEL, STRIDE),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
        nn.Flatten(2),
        Parts(CHANNELS, pixels, WIDTH),
    )
    stochastic = nn.Sequential(nn.Dropout1d(DROPOUT), Sum(), nn.BatchNorm1d(WIDTH))

    def by_gradient(module: nn.Module, x: StepX) -> Machine:
        frozen = control == "frozen"
        return Machine(module, theta.Null() if frozen else theta.Gradient(torch.optim.Adam, lr=rate), x, sse)

    if control == "backprop":
        rule = theta.Gradient(torch.optim.Adam, lr=rate)
        head = Machine(nn.Linear(WIDTH, plan.data.classes), rule, targets.Gradient(), cross_entropy)
    else:
        trees = modules.Trees(WIDTH, plan.data.classes, members=TREES, kind="classification")
        reduce = None if plan.variant == "plain" else tansaku.WeightedMean("standardised", step=STEP)
        search = targets.Proposals(CANDIDATES, reduce=reduce)
        up = targets.Null() if control == "frozen" else search
        head = Machine(trees, theta.Fit(tree, rows=partial(waits, plan.default(ROWS))), up, margin)
    layers = {
        "convolution": by_gradient(convolution, targets.Null()),
        "linear": by_gradient(stochastic, targets.Null() if control == "frozen" else targets.Gradient()),
        "head": head,
    }
    chain = Chain(*layers.values()).to(plan.device)
    searched = isinstance(head.x, targets.Proposals)
    return Network(
        machine=chain,
        layers=layers,
        batch_size=plan.default(BATCH),
        schedule=cosine_schedule(chain, rate),
        evaluations=(lambda: int(search.noise.key[1]) * CANDIDATES * plan.default(BATCH)) if searched else None,
    )


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 10, "mnist": 12},
    controls=("frozen", "backprop"),
    variants={"plain": Figures(paper=0.939), "mean": Figures(goal=0.970)},
    shared_controls=True,
)
"""The experiment."""
