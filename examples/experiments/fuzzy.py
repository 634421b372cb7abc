"""A deep neurofuzzy network: three layers of "or of ands" between linear ones, every target found by a search.

Pixels-32-32-32-32-10. A linear layer, normalised and squashed to [0, 1], turns pixels into degrees of truth; three
max-min layers (y_j = max_i min(x_i, w_ij), `modules.MaxMin`) reason on them; a linear layer reads the classes. Max
and min pass a gradient to one input in thirty-two and none where a weight decides, so that the layers below hear
little. Here no error is passed down at all: each layer perturbs its own outputs, scores each candidate by the
network's loss, sample by sample, and learns from the mean of the candidates weighted by how good they are, as in the
experiment `sign`. The weights then follow a local rule: the delta rule for the output, and for each layer below the
gradient of its own squared error.

Chosen on the validation images of scikit-learn's digits: relations that begin sparse, tenth powers of uniform
numbers, since the largest of thirty-two uniform degrees is nearly always near 1 and tells nothing; steps of a fifth
of the outputs' spread.
"""

from __future__ import annotations

import torch
from torch import nn

from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from common.searching import SEARCHES, own_target
from zenkai_core import Chain, Criterion, Machine, StepTheta, cross_entropy, modules, sse, targets, theta

WIDTH = 32
LAYERS = 3
SPARSITY = 10  # the power of the uniform numbers with which relations begin
RATE = {"digits": 1e-2, "mnist": 5e-3}
BATCH = {"digits": 32, "mnist": 128}
CANDIDATES = {"digits": 32, "mnist": 32}  # in antithetic pairs
STEP = 0.2  # of each output's spread in the batch
OUTPUT_STEP = 0.1  # of the logits


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" sends the gradient through all layers."""
    rate, batch, k = plan.default(RATE), plan.default(BATCH), plan.default(CANDIDATES)
    rules: list[targets.SearchY] = []

    def machine(module: nn.Module, rule: StepTheta, step: float | None, criterion: Criterion = sse) -> Machine:
        if control is not None or step is None:
            return Machine(module, rule, targets.Gradient() if control == "backprop" else targets.Null(), criterion)
        rules.append(own_target(plan.search, k, step, relative=criterion is sse))
        return Machine(module, rule, targets.Null(), criterion, y=rules[-1])

    def hidden() -> StepTheta:
        return theta.Null() if control == "frozen" else theta.Gradient(torch.optim.Adam, lr=rate)

    def relation() -> modules.MaxMin:
        module = modules.MaxMin(WIDTH, WIDTH)
        with torch.no_grad():
            module.weight.pow_(SPARSITY)
        return module

    first = nn.Sequential(nn.Linear(plan.data.features, WIDTH, bias=False), nn.BatchNorm1d(WIDTH))
    output = theta.Gradient(torch.optim.Adam, lr=rate) if control else theta.Delta(torch.optim.Adam, lr=rate)
    relations = {f"relation {i + 1}": machine(relation(), hidden(), STEP) for i in range(LAYERS)}
    layers = {
        "degrees": machine(first, hidden(), STEP),
        **relations,
        "output": machine(nn.Linear(WIDTH, plan.data.classes), output, OUTPUT_STEP, cross_entropy),
    }
    squash = machine(nn.Sigmoid(), theta.Null(), None)
    chain = Chain(layers["degrees"], squash, *relations.values(), layers["output"]).to(plan.device)

    def evaluations() -> int:
        return sum(int(rule.noise.key[1]) for rule in rules) * batch * (k + 1)

    return Network(
        machine=chain,
        layers=layers,
        batch_size=batch,
        schedule=cosine_schedule(chain, rate),
        evaluations=evaluations,
    )


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 10, "mnist": 4},
    controls=("frozen", "backprop"),
    variants={"plain": Figures()},
    searches=SEARCHES,
)
