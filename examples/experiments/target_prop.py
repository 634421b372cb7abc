"""Target propagation by learned inverses: experiment 4 of the paper (section 4.4, appendix A.4).

Pixels-128-128-128-10. The output layer's target for its input follows the gradient; the second and third hidden layer
have a module each that learns to be their inverse, and the target for the layer below is what it makes of the layer's
own target. On even epochs the inverses learn, on odd ones the layers; Adam with a cosine schedule.

- "plain" is the paper's (after Bengio 2014). What an inverse fails to reconstruct becomes a part of the target, and
  soon exceeds the error that is passed on: as the paper has it, the network falls to chance. Three things keep it
  from that: the output layer puts its target `FAR` gradients away, so that the error prevails; the layers have
  BatchNorm, so that they cannot shrink to please their inverses; and an inverse is one linear layer.
- "difference" (Lee et al. 2015) takes off the target what the inverse fails to reconstruct. Its inverses are the
  paper's, two layers of Linear, BatchNorm and ReLU.

The inverses learn from inputs with noise, for targets lie beside the data. All this was chosen on MNIST's validation
images. There "plain" has 0.981; with `FAR` at a tenth 0.973, and with the paper's inverses too 0.946.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import Chain, Machine, StepTheta, StepX, cross_entropy, sse, targets, theta

WIDTH = 128
RATE = 1e-3
BATCH = {"digits": 32, "mnist": 128}
FAR = 1000.0
NOISE = 0.6  # standard deviation


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" takes every target from the gradient."""
    plain = plan.variant == "plain"
    widths = (plan.data.features, WIDTH, WIDTH, WIDTH)
    hidden = [
        Machine(
            layer(before, after),
            theta.Null() if control == "frozen" else adam(),
            targets.Null() if i == 0 else targets.Gradient() if control else by_inverse(plain),
            sse,
        )
        for i, (before, after) in enumerate(itertools.pairwise(widths))
    ]
    last = targets.Gradient(scale=FAR if plain and control is None else 1.0)
    output = Machine(nn.Linear(WIDTH, plan.data.classes), adam(), last, cross_entropy)
    chain = Chain(*hidden, output).to(plan.device)
    learning_rates = cosine_schedule(chain, RATE)

    def schedule(done: float) -> None:
        learning_rates(done)
        if control is None:
            inverses = int(done * plan.epochs + 1e-6) % 2 == 0  # of two epochs, the first is theirs
            for machine in (*hidden, output):
                machine.theta.learning, machine.x.learning = not inverses, inverses

    return Network(
        machine=chain,
        layers={**{f"hidden {i}": machine for i, machine in enumerate(hidden, 1)}, "output": output},
        batch_size=plan.default(BATCH),
        schedule=schedule,
    )


def layer(before: int, after: int) -> nn.Module:
    """Return a hidden layer, or one of an inverse."""
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())


def adam() -> StepTheta:
    """Return a rule that follows the gradient of a layer's own cost."""
    return theta.Gradient(torch.optim.Adam, lr=RATE)


def by_inverse(plain: bool) -> StepX:
    """Return a rule that learns the inverse of a hidden layer."""
    inverse = nn.Linear(WIDTH, WIDTH) if plain else nn.Sequential(layer(WIDTH, WIDTH), layer(WIDTH, WIDTH))
    kind = targets.Reverse if plain else targets.Difference
    return kind(inverse, torch.optim.Adam, lr=RATE, std=NOISE)


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 30, "mnist": 40},
    controls=("frozen", "backprop"),
    variants={"plain": Figures(paper=0.929, goal=0.950), "difference": Figures(goal=0.975)},
    shared_controls=True,
)
