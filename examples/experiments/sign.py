"""Sign units, every layer's target found by a search per sample: no gradient is taken anywhere.

Pixels-32-10 or pixels-128-10, hidden outputs in {-1, 1}, so that backpropagation has nothing to pass on; the control
"backprop" passes the gradient straight through the signs. The paper (section 2): "perturb the outputs of a layer and
set the target to the candidate that produces the best results". Here every layer perturbs its own outputs, the hidden
one those of its linear part, scores each candidate by the network's loss, sample by sample, and takes as its target
the mean of the candidates weighted by how good they are. The weights follow by a local delta rule.

What pays, measured on MNIST's validation images: weights that are the plain differences of cost (standardised per
sample, or the best candidate alone, stay 0.02 to 0.04 behind); steps of a third to a seventh of the outputs' spread,
whose pairs follow a design, 0.962 for 0.957 in 4 epochs; noise before the signs in training, which the layer above
learns to bear. No gain beyond the seeds' own spread, 0.961 to 0.968 at width 32: noise that falls to a quarter with a
decay of 0.3, pixels dropped, images shifted by a pixel, a bounded loss in place of cross-entropy, batches of 256,
averaged weights, 36 epochs; at width 128 pixels dropped give 0.971 for 0.974. `--search NAME` puts another of tansaku's
algorithms in the place of these steps; then the target is the best candidate.
"""

from __future__ import annotations

import torch
from torch import nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from common.searching import SEARCHES, own_target, smoothed
from zenkai_core import Chain, Machine, StepTheta, cross_entropy, modules, sse, targets, theta

WIDTH = {"width-32": 32, "width-128": 128}
RATE = 1e-2
STE_RATE = 3e-3  # of the straight-through control: 0.964 on MNIST's validation images, where 1e-3 reaches 0.961
BATCH = 128
PAIRS = {"digits": 32, "mnist": 64}  # antithetic candidates per sample
HIDDEN_STEP = (0.3, 0.15)  # of each pre-activation's spread in the batch, at the beginning and at the end
OUTPUT_STEP = 0.1  # of the logits
DECAY = 1.0  # of the hidden weights, times the learning rate


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" is `straight_through`."""
    if control == "backprop":
        return straight_through(plan)
    width, rate, pairs = WIDTH[plan.variant], RATE, plan.default(PAIRS)
    first, last = HIDDEN_STEP
    own = own_target(plan.search, 2 * pairs, first, relative=True)
    noise = modules.GaussianNoise(first, relative=True)
    if control == "frozen":
        hidden = Machine(nn.Linear(plan.data.features, width), theta.Null(), targets.Null())
    else:
        rule = theta.Delta(torch.optim.AdamW, lr=rate, weight_decay=DECAY)
        hidden = Machine(nn.Linear(plan.data.features, width), rule, targets.Null(), sse, y=own)
    signs = Machine(nn.Sequential(noise, modules.Sign()), theta.Null(), targets.Null())
    rule = theta.Delta(torch.optim.Adam, lr=rate)
    logits = own_target(plan.search, 2 * pairs, OUTPUT_STEP)
    output = Machine(nn.Linear(width, plan.data.classes), rule, targets.Null(), cross_entropy, y=logits)
    machine = Chain(hidden, signs, output).to(plan.device)
    learning_rates = cosine_schedule(machine, rate)

    def schedule(done: float) -> None:
        learning_rates(done)
        noise.std = first * (last / first) ** done
        if plan.search is None:
            own.algorithm, own.reduce = smoothed(noise.std, 2 * pairs).values()

    def evaluations() -> int:
        return sum(int(rule.noise.key[1]) for rule in (own, logits)) * BATCH * (2 * pairs + 1)

    return Network(
        machine=machine,
        layers={"hidden": hidden, "output": output},
        batch_size=BATCH,
        schedule=schedule,
        evaluations=evaluations,
    )


def straight_through(plan: Plan) -> Network:
    """Return the same network by gradient, which passes the signs as if they were not there."""
    width = WIDTH[plan.variant]

    def adam() -> StepTheta:
        return theta.Gradient(torch.optim.Adam, lr=STE_RATE)

    hidden = Machine(nn.Linear(plan.data.features, width), adam(), targets.Gradient(), sse)
    signs = Machine(modules.SignSTE(), theta.Null(), targets.Gradient(), sse)
    output = Machine(nn.Linear(width, plan.data.classes), adam(), targets.Gradient(), cross_entropy)
    machine = Chain(hidden, signs, output).to(plan.device)
    return Network(
        machine=machine,
        layers={"hidden": hidden, "output": output},
        batch_size=BATCH,
        schedule=cosine_schedule(machine, STE_RATE),
    )


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 45, "mnist": 20},
    controls=("frozen", "backprop"),
    floor=0.95,
    searches=SEARCHES,
    variants={"width-32": Figures(goal=0.960), "width-128": Figures(goal=0.968)},
)
