"""All weights of a network as the genes of one evolution strategy: no target inside, no gradient anywhere.

Pixels-32-10, ReLU, is one machine, whose rule for its parameters is a search: every mini-batch is one generation, whose
candidates are networks, all scored on that batch. The paper promises "population-based optimizers" and shows none.
The strategy is OpenAI-ES: antithetic pairs, centred ranks, one step of Adam, a rate that falls along a cosine; the
pairs' signs are rows of a Hadamard matrix, which is cheaper than normal numbers and no worse. What is written back is
the mean of the distribution, since the cost of any one candidate on one batch is noise.

What pays, measured on MNIST's validation images with as many evaluations: many candidates on small batches, 0.962 with
1,024 on 256 rows (2,048 on 128: 0.961) against 0.957 with 512 on 512; narrow ones, 0.957 with a standard deviation of
0.01 against 0.952 with 0.02; not a higher rate, 0.950 with twice it. `--search NAME` puts another of tansaku's
algorithms in its place, with as many candidates.
"""

from __future__ import annotations

import torch
from torch import nn

import tansaku
from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import Machine, cross_entropy, targets, theta

WIDTH = 32
CANDIDATES = {"digits": 128, "mnist": 1024}
BATCH = {"digits": 128, "mnist": 256}
STD = {"digits": 0.02, "mnist": 0.01}  # of the candidates around the mean, in units of the weights
RATE = {"digits": 1.0, "mnist": 0.5}  # of Adam at the beginning, in these standard deviations
BACKPROP_RATE = 1e-3


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains the output layer only and "backprop" all of it, both by gradient."""
    hidden = nn.Sequential(nn.Linear(plan.data.features, WIDTH), nn.ReLU())
    module = nn.Sequential(*hidden, nn.Linear(WIDTH, plan.data.classes))
    batch, k = plan.default(BATCH), plan.default(CANDIDATES)
    if control is not None:
        hidden.requires_grad_(control == "backprop")
        machine = Machine(module, theta.Gradient(torch.optim.Adam, lr=BACKPROP_RATE), targets.Null(), cross_entropy)
        machine.to(plan.device)
        return Network(machine, {"network": machine}, batch, cosine_schedule(machine, BACKPROP_RATE))
    generations = plan.epochs * (len(plan.data.train) // batch)
    search = theta.Search(algorithm(plan, k), calls=max(1, generations))
    machine = Machine(module, search, targets.Null(), cross_entropy).to(plan.device)
    return Network(
        machine=machine,
        layers={"network": machine},
        batch_size=batch,
        schedule=lambda done: None,
        evaluations=lambda: int(search.noise.key[1]) * (k + 1) * batch,
    )


def algorithm(plan: Plan, k: int) -> tansaku.Scheduled:
    """Return the strategy, with the rate of the moment; or the one that the command names."""
    std, rate = plan.default(STD), plan.default(RATE)
    if plan.search is None or plan.search == "openai_es":
        return tansaku.Scheduled(tansaku.OpenAIES, k=k, std=std, lr=tansaku.CosineSchedule(rate, 0.0), orthogonal=True)
    return tansaku.Scheduled(SEARCHES[plan.search], k=k, std=std)


SEARCHES = {
    "openai_es": tansaku.OpenAIES,
    "pgpe": tansaku.PGPE,
    "snes": tansaku.SNES,
    "sep_cma_es": tansaku.SepCMAES,
    "cem": tansaku.CEM,
    "hill_climb": tansaku.HillClimb,
}

EXPERIMENT = Experiment(
    build,
    epochs={"digits": 60, "mnist": 8},
    controls=("frozen", "backprop"),
    variants={"plain": Figures(goal=0.950)},
    searches=tuple(SEARCHES),
    floor=0.9,
)
