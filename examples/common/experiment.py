"""What an experiment is: a file that says how to build its network and its controls.

`examples/experiments/my_net.py` is the experiment `my-net` (or `my_net`) of the command line, as soon as it holds

    EXPERIMENT = Experiment(build, epochs={"digits": 20, "mnist": 20})

with a function `build(plan, control)` that returns a `Network`. Nothing else is asked of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from common.data import Data
from zenkai_core import LearningMachine, Optimizer

PAPER = '"Zenkai: Framework for Exploring Beyond Backpropagation" (Short, 2023)'


@dataclass(frozen=True)
class Plan:
    """What a network is built for; torch's global generator already stands at `seed`."""

    data: Data
    epochs: int
    seed: int
    device: torch.device


@dataclass(frozen=True)
class Network:
    """A machine that learns from `(images, labels)`, and how to train it.

    Args:
        machine: on `plan.device`. All that training changes is in its `state_dict`, so that a run can be resumed.
        layers: name -> machine, from the input to the output: the layers whose targets the report draws.
        batch_size: rows of a mini-batch.
        schedule: called before each mini-batch with the share of training that is done, in [0, 1): sets learning
            rates, noise and the like from that number alone.
    """

    machine: LearningMachine
    layers: Mapping[str, LearningMachine]
    batch_size: int
    schedule: Callable[[float], None]


@dataclass(frozen=True)
class Experiment:
    """An experiment and the controls that run with it on the same data and budget.

    Args:
        build: `(plan, control)` -> network; `control` is None for the experiment itself, else one of `controls`.
        epochs: the default budget, by the name of the data set ("digits", "mnist"); on data that it does not name,
            the command asks for --epochs.
        controls: for example "frozen", the same network with its hidden layers left as initialised. Each becomes
            an entry of the experiment's results, its accuracy on the test images.
        paper: the accuracy on MNIST's test images that `PAPER` gives, where it gives one.
    """

    build: Callable[[Plan, str | None], Network]
    epochs: Mapping[str, int]
    controls: tuple[str, ...] = ()
    paper: float | None = None


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
