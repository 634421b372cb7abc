"""The training loop of all experiments: seeded per epoch, resumable after each."""

from __future__ import annotations

import io
import pickle
import random
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from zenkai_core import IO

from common.data import Split
from common.diagnostics import watch
from common.errors import UsageError
from common.experiment import Experiment, Network, Plan
from common.files import write_atomically

SETTINGS = ("experiment", "control", "data", "seed", "planned_epochs")
EVALUATION_ROWS = 4096
WATCHED_BATCHES = 8  # per epoch: equations 4 and 5 cost further forward passes


@dataclass
class Run:
    """One network's training so far: what was asked for, and one entry per finished epoch in each list."""

    experiment: str
    control: str | None
    data: str
    seed: int
    planned_epochs: int
    parameters: int = 0
    seconds: float = 0.0  # of training, without the evaluations
    cost: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    layers: list[dict[str, dict[str, float]]] = field(default_factory=list)  # layer -> quantity -> mean

    @property
    def name(self) -> str:
        """Return the experiment's name, with its control in brackets."""
        return self.experiment if self.control is None else f"{self.experiment} ({self.control})"

    @property
    def epochs(self) -> int:
        """Return the number of finished epochs."""
        return len(self.test)

    @property
    def finished(self) -> bool:
        """Return whether no epoch is left."""
        return self.epochs == self.planned_epochs


def train(experiment: Experiment, run: Run, plan: Plan, checkpoint: Path) -> None:
    """Train one network to the end of its budget, entering each finished epoch in `run` and in the checkpoint.

    Where the checkpoint exists, training continues after the last epoch that it holds. Every epoch starts from a random
    state of its own, so that a resumed run equals an uninterrupted one.

    Raises:
        UsageError: the checkpoint is damaged, or was made with other settings.
    """
    saved = _read(checkpoint, run) if checkpoint.exists() else None
    if saved is not None:
        for entry in fields(run):
            setattr(run, entry.name, saved["run"][entry.name])
        if run.finished:
            return
    _seed(plan.seed, 0)
    network = experiment.build(plan, run.control)
    machine = network.machine
    if saved is not None:
        machine.load_state_dict(saved["machine"])
    run.parameters = sum(parameter.numel() for parameter in machine.parameters())
    batches = max(1, len(plan.data.train) // network.batch_size)
    with tqdm(
        total=run.planned_epochs * batches, initial=run.epochs * batches, desc=run.name, unit="batch", mininterval=0.5
    ) as bar:
        while not run.finished:
            _epoch(network, run, plan, bar)
            bar.set_postfix(test=f"{run.test[-1]:.4f}")
            _write(checkpoint, run, machine)


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
    batches = _whole(order, network.batch_size)
    every = max(1, len(batches) // WATCHED_BATCHES)
    costs = []
    machine.train()
    start = time.perf_counter()
    with watch(network, every) as record:
        for number, rows in enumerate(batches):
            network.schedule((done + number / len(batches)) / run.planned_epochs)
            costs.append(machine.learn(IO(data.train.x[rows]), IO(data.train.t[rows])))
            bar.update()
    run.cost.append(torch.stack(costs).mean().item())
    run.seconds += time.perf_counter() - start
    run.layers.append(record())
    run.validation.append(accuracy(machine, data.validation))
    run.test.append(accuracy(machine, data.test))


def _whole(order: Tensor, batch_size: int) -> list[Tensor]:
    """Return the mini-batches of an epoch; a shorter last one is left out, since BatchNorm would weigh its rows more."""
    batches = list(order.split(batch_size))
    return batches if len(batches) == 1 or len(batches[-1]) == batch_size else batches[:-1]


def _seed(seed: int, epoch: int) -> torch.Generator:
    """Set every global random state from `(seed, epoch)`; return a generator, apart from them, that is set so too."""
    own, common = np.random.SeedSequence([seed, epoch]).generate_state(2).tolist()
    random.seed(common)
    np.random.seed(common)  # noqa: NPY002 - scikit-learn's default random_state is numpy's global one
    torch.manual_seed(common)
    return torch.Generator().manual_seed(own)


def _write(path: Path, run: Run, machine: torch.nn.Module) -> None:
    buffer = io.BytesIO()
    torch.save({"run": asdict(run), "machine": machine.state_dict()}, buffer)
    write_atomically(path, buffer.getvalue())


def _read(path: Path, run: Run) -> dict[str, Any]:
    remedy = "leave --resume out to start again, or give another --out"
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: saved["run"][name] for name in SETTINGS}
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path}: expected a checkpoint of this program, got {type(error).__name__}; {remedy}") from error
    for name, value in found.items():
        if value != getattr(run, name):
            raise UsageError(f"{path}: expected a checkpoint with {name} = {getattr(run, name)}, got {value}; {remedy}")
    return saved
