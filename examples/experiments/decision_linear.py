"""Trees below a linear layer: experiment 2 of the paper (section 4.2, appendix A.2).

Pixels-32-10. The hidden layer is an ensemble of the nine most recent members, whose outputs are averaged; a member is
one regression tree of depth 11 at most for each of the 32 outputs or, in the variant "multi-output", a single tree for
all of them. Every step fits one new member on its batch and drops the oldest. The output layer, BatchNorm -> Linear,
learns by gradient in minibatches of 128, and 40 iterations of gradient descent on its inputs give the trees' targets.
The batch starts at 128 rows and grows to the full set; at the end the trees stay and the output layer settles on them.
Before the first fit a random linear map stands in for the trees: that is what the control "frozen" keeps.

Read as: A.2's "BatchNorm -> 32 Unit Linear -> ReLU" under cross entropy cannot put out classes, so BatchNorm(32)
-> Linear(32, 10).
Unlike scikit-learn's default, a split looks at a random share of the pixels, and a member is fitted on a random share
of its batch, so that in training a row is answered by the members that have not seen it.

Measured on MNIST's validation images (one seed): 0.979 after 12 epochs, and rising. Where a row is answered by all
members and a member is fitted on 0.8 of the rows, the output layer learns to trust answers that trees know by heart:
0.976 after ten epochs, then falling to 0.973; with 20 epochs 0.972 after seven and 0.965 at the end. With 6,000 of the
training images and nine fits: 0.945 out of bag, 0.939 with all answers, 0.944 with members fitted on all rows, boosted
increments in place of the mean 0.881 to 0.896.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import IO, Chain, Machine, cross_entropy, modules, sse, targets, theta

WIDTH = 32
MEMBERS = 9
DEPTH = 11
FEATURES: dict[str, str | float] = {"digits": "sqrt", "mnist": 0.06}  # of the pixels, for each split
SHARE = 0.65  # of a batch, on which a member is fitted
RATE = {"digits": 1e-2, "mnist": 1e-3}
BATCH = 128
ITERATIONS = 40  # on the inputs of the output layer
STEP = {"digits": 1.0, "mnist": 1.0}  # of each iteration
GROWING = 0.4  # the share of training in which the batch grows
SETTLING = 0.85  # the share of training after which only the output layer learns
SWEEPS = {"digits": 10, "mnist": 3}  # of the output layer over each batch
TWIN = {"digits": 128, "mnist": 1440}  # hidden units with about as many weights as 288 trees have splits and leaves


def estimator(plan: Plan) -> Callable[[], Any]:
    """Return what makes an unfitted member."""
    from sklearn.tree import DecisionTreeRegressor

    def one() -> Any:
        return DecisionTreeRegressor(max_depth=DEPTH, max_features=plan.default(FEATURES))

    return one if plan.variant == "multi-output" else lambda: modules.PerOutput(one())


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" keeps its first layer, "backprop" has a smooth one of as many parameters."""
    rows, rate, growing = len(plan.data.train), plan.default(RATE), control is None
    output = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, plan.data.classes))
    if growing:
        rule = theta.Gradient(torch.optim.Adam, n=plan.default(SWEEPS), batch_size=BATCH, lr=rate)
        step = targets.Gradient(ITERATIONS, scale=plan.default(STEP))
    else:
        rule, step = theta.Gradient(torch.optim.Adam, lr=rate), targets.Gradient()
    head = Machine(output, rule, step, cross_entropy)
    if control == "backprop":
        wide = plan.default(TWIN)
        smooth = nn.Sequential(
            nn.Linear(plan.data.features, wide), nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, WIDTH)
        )
        first = Machine(smooth, theta.Gradient(torch.optim.Adam, lr=rate), targets.Null(), sse)
    else:
        per_output = plan.variant != "multi-output"
        trees = modules.Trees(plan.data.features, WIDTH, members=MEMBERS, per_output=per_output, out_of_bag=True)
        fit = theta.Fit(estimator(plan), rows=BATCH, share=SHARE) if growing else theta.Null()
        first = Machine(trees, fit, targets.Null(), sse)
    chain = Chain(first, head).to(plan.device)

    def batches(done: float) -> int:
        if done >= SETTLING:
            return BATCH
        minibatches = round((rows / BATCH) ** min(done / GROWING, 1))  # of the output layer, none of a single row
        return rows - (rows % BATCH == 1) if done >= GROWING else min(rows, BATCH * minibatches)

    def learn(x: IO, t: IO, done: float) -> Tensor:
        if done < SETTLING:
            return chain.learn(x, t)
        with torch.no_grad():
            settled = IO(first(x.f))
        return head.learn(settled, t)

    return Network(
        machine=chain,
        layers={"trees" if control != "backprop" else "hidden": first, "output": head},
        batch_size=BATCH,
        schedule=cosine_schedule(chain, rate),
        learn=learn if growing else None,
        batches=batches if growing else None,
    )


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 12, "mnist": 12},
    controls=("frozen", "backprop"),
    variants={"plain": Figures(paper=0.967, goal=0.972), "multi-output": Figures()},
    shared_controls=True,
)
"""The experiment."""
