"""Feedback alignment: experiment 5 of the paper (section 4.5, appendix A.5).

Pixels-32-10, the hidden layer Linear -> BatchNorm -> ReLU. The parameters of both layers follow the gradient of their
own loss; the error that the output layer hands down goes through feedback weights B in place of its transposed weights,
and from there exactly through ReLU and BatchNorm. "plain": B is fixed and random (Lillicrap et al., 2016).
"sign-symmetric": B has the signs of the present weights and one magnitude (Liao, Leibo, Poggio, 2016). Adam with a
cosine schedule; its rate, three times the paper's, was chosen on the validation images. On MNIST the random B begins
at 92 degrees from the output layer's weights, which turn to 40 degrees within the first epoch.
"""

from __future__ import annotations

import torch
from torch import nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import Chain, Machine, StepTheta, cross_entropy, sse, targets, theta

WIDTH = 32
KIND: dict[str, targets.feedback.Kind] = {"plain": "random", "sign-symmetric": "uniform"}
RATE = {"digits": 1e-2, "mnist": 3e-3}
BATCH = {"digits": 32, "mnist": 128}


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" has the weights' own transpose for B."""
    rate = plan.default(RATE)

    def adam() -> StepTheta:
        return theta.Gradient(torch.optim.Adam, lr=rate)

    features = nn.Sequential(nn.Linear(plan.data.features, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU())
    if control == "backprop":
        x: targets.Gradient | targets.FeedbackAlignment = targets.Gradient()
    else:
        x = targets.FeedbackAlignment(KIND[plan.variant])
    hidden = Machine(features, theta.Null() if control == "frozen" else adam(), targets.Null(), sse)
    output = Machine(nn.Linear(WIDTH, plan.data.classes), adam(), x, cross_entropy)
    machine = Chain(hidden, output).to(plan.device)
    return Network(
        machine=machine,
        layers={"hidden": hidden, "output": output},
        batch_size=plan.default(BATCH),
        schedule=cosine_schedule(machine, rate),
    )


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 20, "mnist": 20},
    controls=("frozen", "backprop"),
    variants={"plain": Figures(paper=0.958, goal=0.962), "sign-symmetric": Figures(goal=0.967)},
    shared_controls=True,
    floor=0.93,
)
