"""The training loop of all experiments: seeded per epoch, resumable after each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common import checkpoints, version
from common.checkpoints import Run
from common.data import Split
from common.diagnostics import watch
from common.errors import UsageError
from common.experiment import Experiment, Network, Plan
from zenkai_core import IO

EVALUATION_ROWS = 4096
WATCHED_BATCHES = 8  # per epoch: equations 4 and 5 cost further forward passes


def train(
    experiment: Experiment, run: Run, plan: Plan, checkpoint: Path, report: Callable[[], None] | None = None
) -> None:
    """Train one network to the end of its budget, entering each finished epoch in `run` and in the checkpoint.

    `report`, called after each epoch, takes the place of the progress bar.

    A run that `restore` has filled continues after its last epoch. Every epoch starts from a random state of its own,
    so that a resumed run equals an uninterrupted one.

    Raises:
        UsageError: the checkpoint is damaged or of another network, or cannot be written.
    """
    if run.finished:
        return
    if experiment.data is not None:
        plan = replace(plan, data=experiment.data(plan))
    _seed(plan.seed, 0)
    network = experiment.build(plan, run.control)
    machine = network.machine
    if run.epochs:
        _, state = checkpoints.load(checkpoint)
        try:
            machine.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            reason = f"expected a checkpoint of the network that {run.name} is now, got one of another"
            raise UsageError(f"{checkpoint}: {reason}; {checkpoints.ANEW}") from error
    run.parameters = sum(parameter.numel() for parameter in machine.parameters())
    rows = len(plan.data.train)
    run.commit = version.commit()
    total, done = run.planned_epochs * rows, run.epochs * rows
    with tqdm(total=total, initial=done, desc=run.name, unit="row", mininterval=0.5, disable=report is not None) as bar:
        while not run.finished:
            _epoch(network, run, plan, bar)
            bar.n = run.epochs * rows  # a mini-batch that an epoch leaves out counts too
            bar.set_postfix(validation=f"{run.validation[-1]:.4f}")
            checkpoints.save(checkpoint, run, machine)
            if report:
                report()


def accuracy(machine: torch.nn.Module, split: Split) -> float:
    """Return the share of rows whose largest output is their label, in evaluation mode."""
    machine.eval()
    right = torch.zeros((), dtype=torch.int64, device=split.t.device)
    with torch.no_grad():
        for x, t in zip(split.x.split(EVALUATION_ROWS), split.t.split(EVALUATION_ROWS), strict=True):
            right += (machine(x).argmax(dim=1) == t).sum()
    machine.train()
    return right.item() / len(split)


def _epoch(network: Network, run: Run, plan: Plan, bar: tqdm[Any]) -> None:
    data, machine, done = plan.data, network.machine, run.epochs
    generator = _seed(plan.seed, done + 1)
    order = torch.randperm(len(data.train), generator=generator).to(data.train.t.device)
    size = network.batches or (lambda _: network.batch_size)
    every = max(1, len(order) // size(done / run.planned_epochs) // WATCHED_BATCHES)
    further = network.evaluations or (lambda: 0)
    costs, evaluations = [], -further()
    machine.train()
    start = time.perf_counter()
    with watch(network, every) as record:
        for share, rows in _batches(order, size, done, run.planned_epochs):
            network.schedule(share)
            x, t = IO(data.train.x[rows]), IO(data.train.t[rows])
            costs.append(network.learn(x, t, share) if network.learn else machine.learn(x, t))
            evaluations += len(rows)
            bar.update(len(rows))
    cost = torch.stack(costs).mean().item()
    seconds = time.perf_counter() - start
    layers, validation, test = record(), accuracy(machine, data.validation), accuracy(machine, data.test)
    run.evaluations += evaluations + further()
    run.seconds += seconds  # all entries together at the end: Ctrl-C may come anywhere above
    run.cost.append(cost)
    run.layers.append(layers)
    run.validation.append(validation)
    run.test.append(test)


def _batches(order: Tensor, size: Callable[[float], int], epoch: int, epochs: int) -> Iterator[tuple[float, Tensor]]:
    """Yield the share of training that is done and the rows of each mini-batch of an epoch.

    A shorter last one is left out, since BatchNorm would weigh its rows more; the only one is not.
    """
    at = 0
    while at < len(order):
        done = (epoch + at / len(order)) / epochs
        rows = order[at : at + size(done)]
        if at and at + size(done) > len(order):
            return
        yield done, rows
        at += len(rows)


def _seed(seed: int, epoch: int) -> torch.Generator:
    """Set every global random state from `(seed, epoch)`; return a generator, apart from them, that is set so too."""
    own, common = np.random.SeedSequence([seed, epoch]).generate_state(2).tolist()
    random.seed(common)
    np.random.seed(common)  # noqa: NPY002 - scikit-learn's default random_state is numpy's global one
    torch.manual_seed(common)
    return torch.Generator().manual_seed(own)
