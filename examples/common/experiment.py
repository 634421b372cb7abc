"""What an experiment is: a file that says how to build its network and its controls.

`examples/experiments/my_net.py` is the experiment `my-net` (or `my_net`) of the command line, as soon as it holds

    EXPERIMENT = Experiment(build, epochs={"digits": 20, "mnist": 20})

with a function `build(plan, control)` that returns a `Network`. Nothing else is asked of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from common.data import Data
from zenkai_core import IO, LearningMachine, Optimizer

PAPER = '"Zenkai: Framework for Exploring Beyond Backpropagation" (Short, 2023)'
PLAIN = "plain"  # the variant that a name alone means, where an experiment has one of this name
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What a network is built for; torch's global generator already stands at `seed`.

    `search` is the name of the tansaku algorithm that takes the place of the experiment's own, if any; a control is
    built without one.
    """

    data: Data
    epochs: int
    seed: int
    device: torch.device
    variant: str = PLAIN
    search: str | None = None

    def default(self, settings: Mapping[str, T]) -> T:
        """Return the setting for these data, by the name of a data set: MNIST's, for those that have no own.

        Raises:
            KeyError: there is none for MNIST either.
        """
        return settings[self.data.name] if self.data.name in settings else settings["mnist"]


@dataclass(frozen=True)
class Network:
    """A machine that learns from `(images, labels)`, and how to train it.

    Args:
        machine: on `plan.device`. All that training changes is in its `state_dict`, so that a run can be resumed.
        layers: name -> machine, from the input to the output: the layers whose targets the report draws.
        batch_size: rows of a mini-batch.
        schedule: called before each mini-batch with the share of training that is done, in [0, 1): sets learning
            rates, noise and the like from that number alone.
        learn: `(images, labels, share done)` -> mean cost, a loop of the experiment's own in place of `machine.learn`.
        batches: share done -> rows of a mini-batch, where `batch_size` is not all of them; never more than there are.
        evaluations: -> forward evaluations of a row since the network was built, beyond one for each row of a
            mini-batch: of candidates, say. None: there are none.
    """

    machine: LearningMachine
    layers: Mapping[str, LearningMachine]
    batch_size: int
    schedule: Callable[[float], None]
    learn: Callable[[IO, IO, float], Tensor] | None = None
    batches: Callable[[float], int] | None = None
    evaluations: Callable[[], int] | None = None


@dataclass(frozen=True)
class Figures:
    """Accuracies on MNIST's test images: the one that `PAPER` gives, the one to reach; None, where there is none."""

    paper: float | None = None
    goal: float | None = None


@dataclass(frozen=True)
class Experiment:
    """An experiment, its variants, and the controls that run with it on the same data and budget.

    Args:
        build: `(plan, control)` -> network; `control` is None for the experiment itself, else one of `controls`.
        epochs: the default budget, by the name of the data set ("digits", "mnist"); MNIST's serves all that it does
            not name.
        controls: "frozen", the same network with its hidden layers left as initialised, and "backprop", the same by
            plain backpropagation. Each becomes an entry of the results, its accuracy on the test images.
        variants: name -> figures, in order; `plan.variant` says which one to build. The first is what the
            experiment's name alone means.
        shared_controls: whether all variants are of one network, so that one set of controls, built as the first
            variant's, serves them all.
        floor: the accuracy on the test images of the digits that the first variant must surpass.
        searches: names of the tansaku algorithms that may take the place of the experiment's own as `plan.search`.
        data: plan -> the data that this experiment, its controls included, makes of the plan's; None: those.

    Raises:
        ValueError: there is no variant, or "plain" is not the first.
    """

    build: Callable[[Plan, str | None], Network]
    epochs: Mapping[str, int]
    controls: tuple[str, ...] = ()
    variants: Mapping[str, Figures] = field(default_factory=lambda: {PLAIN: Figures()})
    shared_controls: bool = False
    searches: tuple[str, ...] = ()
    data: Callable[[Plan], Data] | None = None
    floor: float = 0.8

    def __post_init__(self) -> None:
        names = list(self.variants)
        if not names or PLAIN in names[1:]:
            raise ValueError(
                f"an experiment expected at least one variant, {PLAIN!r} before all others, got {names}: "
                "a name without a variant means the first"
            )


def name_of(experiment: str, variant: str | None, *inside: str | None) -> str:
    """Return the name of a network: the variant behind a colon, the rest in brackets.

    >>> name_of("sign", "width-32", "pso", None), name_of("baseline", "plain")
    ('sign:width-32 (pso)', 'baseline')
    """
    name = experiment if variant in (None, PLAIN) else f"{experiment}:{variant}"
    brackets = ", ".join(filter(None, inside))
    return f"{name} ({brackets})" if brackets else name


def cosine(start: float, done: float) -> float:
    """Return `start` decayed along half a cosine wave to zero; `done` is the share of training behind us.

    >>> cosine(1.0, 0.0), round(cosine(1.0, 0.5), 12)
    (1.0, 0.5)
    """
    return start * 0.5 * (1.0 + math.cos(math.pi * done))


def cosine_schedule(machine: nn.Module, rate: float) -> Callable[[float], None]:
    """Return a schedule that gives every torch optimiser in `machine` a learning rate decaying from `rate` to zero."""
    optimizer = Optimizer(machine)

    def schedule(done: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = cosine(rate, done)

    return schedule
