"""Digits known by their sum alone: a classifier whose choices go through a literal Python function, `sum`.

Two or four images make a row; one small network, the same for all of them, chooses a digit for each, and all it
learns from is whether `sum` of the choices is the row's label. The function has no gradient and is told nothing: a
search per row draws choices from the network's own distribution, asks the function about each (its calls are
counted), and the target of every choice is the mean of those that were right, an estimate of the posterior given the
sum. Where none was right, the nearest sums count. Towards that target the classifier's own two layers follow the
gradient of a local cross-entropy; through the function goes no gradient. Accuracy is the share of rows whose sum is
exactly right.

The images are put together once; a digit's own label is never seen. Early draws are flatter than the network's
distribution, lest it settle on a digit too soon; that, the candidates and the learning rate were chosen on the
validation images of scikit-learn's digits. The control "backprop" has what no black box offers, the function written
as a differentiable one: the exact distribution of the sum, a convolution of the digits' distributions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tansaku
from common.data import Data, Split
from common.experiment import Experiment, Figures, Network, Plan, cosine_schedule
from zenkai_core import IO, Chain, Machine, StepTheta, cross_entropy, modules, sse, targets, theta

IMAGES = {"two": 2, "four": 4}  # of a row
WIDTH = 128
RATE = {"digits": 1e-2, "mnist": 1e-3}
BATCH = {"digits": 8, "mnist": 64}
CANDIDATES = {"two": 16, "four": 64}  # choices tried per row
FLATTER = (1.5, 0.3)  # temperature of the draws at first, and the share of training until it is 1
LOGIT_STEP = 2.0  # of the algorithms that `--search` puts in place of drawing
TEMPERATURE = 0.3  # of the weights, in units of the sum: right answers outweigh all others


class PerImage(nn.Module):
    """A module for single images, applied to each image of a row: `[n, images, ...]` -> `[n, images, ...]`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module makes of every image."""
        return self.module(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))


class Choices(PerImage):
    """The same with the outputs as logits: `[n, classes, images]`, where `cross_entropy` looks for classes."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every image's choice."""
        return super().forward(x).transpose(1, 2)


class OneHot(nn.Module):
    """Whole numbers `[n]` as one-hot rows `[n, classes]`, so that the largest output is the answer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """Return the one-hot rows."""
        return F.one_hot(x.long(), self.classes).to(x.dtype)


class SumDistribution(nn.Module):
    """The distribution of the sum of independent choices, for the control."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the log-probabilities `[n, sums]` of the sums, by convolution, for logits `[n, classes, images]`."""
        p = x.softmax(1).unbind(2)
        total = p[0]
        for other in p[1:]:
            shifted = [F.pad(total * other[:, i : i + 1], (i, other.shape[1] - 1 - i)) for i in range(other.shape[1])]
            total = torch.stack(shifted).sum(0)
        return total.clamp_min(torch.finfo(total.dtype).tiny).log()


def sums(data: Data, images: int) -> Data:
    """Return rows of several images, put together once, with the sum of their labels as the label."""

    def grouped(split: Split) -> Split:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).to(split.t.device)
        rows = order[: len(split) // images * images].view(-1, images)
        return Split(split.x[rows], split.t[rows].sum(1))

    train, validation, test = (grouped(split) for split in (data.train, data.validation, data.test))
    classes = (data.classes - 1) * images + 1
    return replace(data, classes=classes, train=train, validation=validation, test=test)


def distance(y: IO, t: IO) -> Tensor:
    """Return how far the answer, the largest output, is from the label: the cost of a row."""
    return (y.f.argmax(1) - t.f).abs().to(y.f.dtype)


def right_choices(population: tansaku.Population) -> tansaku.Individual:
    """Return the mean of the candidates' choices, weighted by how near their sums came: one-hots, softened."""
    choose = modules.Argmax()
    chosen = {name: choose(x.flatten(0, 1)).view_as(x) for name, x in population.genes.items()}
    made = tansaku.Population(chosen, population.batch_ndim, assessment=population.assessment)
    return tansaku.WeightedMean("softmax", temperature=TEMPERATURE)(made)


def build(plan: Plan, control: str | None) -> Network:
    """Return the network; "frozen" trains its output layer only, "backprop" knows the function as a convolution."""
    rate, batch, k = plan.default(RATE), plan.default(BATCH), CANDIDATES[plan.variant]
    pixels, digits = plan.data.train.x.shape[2], (plan.data.classes - 1) // IMAGES[plan.variant] + 1

    def adam() -> StepTheta:
        return theta.Gradient(torch.optim.Adam, lr=rate)

    if plan.search is None:
        search: tansaku.Algorithm[Any] = targets.Sampled(targets.Choices(), k)
    else:
        search = searched(plan.search, k)
    rule = targets.SearchX(search, reduce=right_choices)
    rule.points = False  # the reducer answers with shares of choices, which cross_entropy takes
    box = modules.BlackBox(sum, vectorized=False, choices=True)
    features = PerImage(nn.Sequential(nn.Linear(pixels, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()))
    hidden = Machine(features, theta.Null() if control == "frozen" else adam(), targets.Null(), sse)
    if control == "backprop":
        output = Machine(Choices(nn.Linear(WIDTH, digits)), adam(), targets.Gradient(), sse)
        answer = Machine(SumDistribution(), theta.Null(), targets.Gradient(), cross_entropy)
    else:
        output = Machine(Choices(nn.Linear(WIDTH, digits)), adam(), targets.Gradient(), cross_entropy)
        answer = Machine(nn.Sequential(box, OneHot(plan.data.classes)), theta.Null(), rule, distance)
    machine = Chain(hidden, output, answer).to(plan.device)

    learning_rates = cosine_schedule(machine, rate)

    def schedule(done: float) -> None:
        learning_rates(done)
        if plan.search is None:
            first, share = FLATTER
            rule.algorithm = targets.Sampled(targets.Choices(max(1.0, first + (1.0 - first) * done / share)), k)

    def calls() -> int:
        return int(rule.noise.key[1]) * batch * (k + 1)  # of the function, by the search: its start and its candidates

    return Network(
        machine=machine,
        layers={"hidden": hidden, "output": output},
        batch_size=batch,
        schedule=schedule,
        evaluations=calls,
    )


def searched(name: str, k: int) -> tansaku.Algorithm[Any]:
    """Return a tansaku algorithm of that name that varies the logits, far enough to change choices."""
    settings: dict[str, Any] = {"mutate": tansaku.Gaussian(LOGIT_STEP)} if name == "ga" else {"std": LOGIT_STEP}
    return tansaku.make(name, k=k, **settings)


EXPERIMENT = Experiment(
    build,
    epochs={"digits": 20, "mnist": 10},
    controls=("frozen", "backprop"),
    variants={"two": Figures(goal=0.93), "four": Figures(goal=0.85)},
    data=lambda plan: sums(plan.data, IMAGES[plan.variant]),
    searches=("cem", "ga", "hill_climb", "openai_es", "snes"),
)
