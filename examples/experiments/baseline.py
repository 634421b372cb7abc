"""Backpropagation, layer by layer: experiment 1 of the paper (section 4.1, appendix A.1).

Pixels-128-32-10. Each hidden layer, Linear -> BatchNorm -> ReLU, is a machine of its own; parameters and targets follow
the gradient, so that the chain learns exactly as plain backpropagation would, which the control "backprop" is: the same
modules as one machine. Adam with a cosine schedule.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import Chain, Criterion, Machine, cross_entropy, sse, targets, theta

RATE = 1e-3
BATCH = {"digits": 32, "mnist": 128}  # the digits' chosen on their validation images


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" all of it at once."""
    widths = (plan.data.features, 128, 32)
    hidden = [
        # BatchNorm's shift takes the place of the bias.
        nn.Sequential(nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU())
        for before, after in itertools.pairwise(widths)
    ]
    output = nn.Linear(widths[-1], plan.data.classes)
    if control == "backprop":
        layers = {"network": by_gradient(nn.Sequential(*hidden, output), cross_entropy)}
    elif control == "frozen":
        layers = {f"hidden {i}": Machine(m, theta.Null(), targets.Null()) for i, m in enumerate(hidden, 1)}
        layers["output"] = by_gradient(output, cross_entropy)
    else:
        layers = {f"hidden {i}": by_gradient(m, sse) for i, m in enumerate(hidden, 1)}
        layers["output"] = by_gradient(output, cross_entropy)
    chain = Chain(*layers.values()).to(plan.device)
    return Network(
        machine=chain,
        layers=layers,
        batch_size=plan.default(BATCH),
        schedule=cosine_schedule(chain, RATE),
    )


def by_gradient(module: nn.Module, criterion: Criterion) -> Machine:
    """Return a machine whose parameters and targets follow the gradient."""
    return Machine(module, theta.Gradient(torch.optim.Adam, lr=RATE), targets.Gradient(), criterion)


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 20, "mnist": 20},
    controls=("frozen", "backprop"),
    floor=0.95,
    variants={"plain": Figures(paper=0.969, goal=0.982)},
)
