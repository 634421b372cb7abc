"""Direct feedback alignment: experiment 6 of the paper (section 4.6, appendix A.6), in two readings.

Pixels-32-32-10, each hidden layer Linear -> BatchNorm -> ReLU. No layer asks the one above for a target. "noekland",
as published (Noekland, 2016): the error e at the network's outputs goes to every hidden layer through fixed random
weights, delta = (B e) * phi', exactly through ReLU and BatchNorm. "local-readout", the paper's code as it appears to
have been: each hidden layer lowers the cross entropy of a fixed random readout of itself, and e never enters. Adam with
a cosine schedule; its rate, three times the paper's, was chosen on the validation images.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import Chain, Machine, StepTheta, StepX, StepY, cross_entropy, sse, targets, theta

WIDTH = 32
RATE = {"digits": 1e-2, "mnist": 3e-3}
BATCH = {"digits": 32, "mnist": 128}


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" passes targets from layer to layer."""
    rate = plan.default(RATE)

    def learning() -> StepTheta:
        return theta.Gradient(torch.optim.Adam, lr=rate)

    def below() -> StepX:
        return targets.Gradient() if control == "backprop" else targets.Null()

    def own() -> StepY | None:
        if control is not None:
            return None
        return targets.DirectFeedback() if plan.variant == "noekland" else targets.LocalReadout(cross_entropy)

    layers = {}
    for i, (before, after) in enumerate(itertools.pairwise((plan.data.features, WIDTH, WIDTH)), 1):
        module = nn.Sequential(nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU())
        rule = theta.Null() if control == "frozen" else learning()
        layers[f"hidden {i}"] = Machine(module, rule, below(), sse, y=own())
    layers["output"] = Machine(nn.Linear(WIDTH, plan.data.classes), learning(), below(), cross_entropy)
    machine = Chain(*layers.values()).to(plan.device)
    return Network(
        machine=machine,
        layers=layers,
        batch_size=plan.default(BATCH),
        schedule=cosine_schedule(machine, rate),
    )


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 20, "mnist": 20},
    controls=("frozen", "backprop"),
    variants={"noekland": Figures(paper=0.940, goal=0.965), "local-readout": Figures(paper=0.940)},
    shared_controls=True,
    floor=0.93,
)
