"""Backpropagation, layer by layer: experiment 1 of the paper (section 4.1, appendix A.1).

Pixels-128-32-10. Each hidden layer, Linear -> BatchNorm -> ReLU, is a machine of its own; parameters and targets follow
the gradient, so that the chain learns exactly as plain backpropagation would. Adam with a cosine schedule.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from common.data import CLASSES
from common.experiment import Experiment, Network, Plan, cosine_schedule
from zenkai_core import Chain, Machine, cross_entropy, sse, targets, theta

RATE = 1e-3
BATCH = {"digits": 32, "mnist": 128}  # the digits' chosen on their validation images


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; there is no control."""
    widths = (plan.data.features, 128, 32)
    hidden = [
        # BatchNorm's shift takes the place of the bias.
        nn.Sequential(nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU())
        for before, after in itertools.pairwise(widths)
    ]
    modules = [*hidden, nn.Linear(widths[-1], CLASSES)]
    layers = [
        Machine(
            module,
            theta.Gradient(torch.optim.Adam, lr=RATE),
            targets.Gradient(),
            cross_entropy if module is modules[-1] else sse,
        )
        for module in modules
    ]
    machine = Chain(*layers).to(plan.device)
    return Network(
        machine=machine,
        layers=dict(zip(("hidden 1", "hidden 2", "output"), layers, strict=True)),
        batch_size=BATCH[plan.data.name],
        schedule=cosine_schedule(machine, RATE),
    )


EXPERIMENT = Experiment(build, epochs={"digits": 20, "mnist": 20}, paper=0.969)
