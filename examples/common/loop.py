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

from common.data import Split
from common.diagnostics import watch
from common.errors import UsageError
from common.experiment import Experiment, Network, Plan
from common.files import write_atomically
from zenkai_core import IO

SETTINGS = ("experiment", "control", "data", "seed", "planned_epochs")
ANEW = "leave --resume out to start again, or give another --out"
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


def restore(run: Run, checkpoint: Path) -> None:
    """Enter into a run the epochs that its checkpoint holds, where it exists.

    Raises:
        UsageError: the checkpoint is damaged, or was made with other settings.
    """
    if not checkpoint.exists():
        return
    saved = _read(checkpoint)["run"]
    for name in SETTINGS:
        if saved[name] != getattr(run, name):
            expected = f"expected a checkpoint with {name} = {getattr(run, name)}, got {saved[name]}"
            raise UsageError(f"{checkpoint}: {expected}; {ANEW}")
    for entry in fields(run):
        setattr(run, entry.name, saved[entry.name])


def train(experiment: Experiment, run: Run, plan: Plan, checkpoint: Path) -> None:
    """Train one network to the end of its budget, entering each finished epoch in `run` and in the checkpoint.

    A run that `restore` has filled continues after its last epoch. Every epoch starts from a random state of its own,
    so that a resumed run equals an uninterrupted one.
    """
    if run.finished:
        return
    _seed(plan.seed, 0)
    network = experiment.build(plan, run.control)
    machine = network.machine
    if run.epochs:
        machine.load_state_dict(_read(checkpoint)["machine"])
    run.parameters = sum(parameter.numel() for parameter in machine.parameters())
    batches = max(1, len(plan.data.train) // network.batch_size)
    with tqdm(
        total=run.planned_epochs * batches, initial=run.epochs * batches, desc=run.name, unit="batch", mininterval=0.5
    ) as bar:
        while not run.finished:
            _epoch(network, run, plan, bar)
            bar.set_postfix(validation=f"{run.validation[-1]:.4f}")
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
    cost = torch.stack(costs).mean().item()
    seconds = time.perf_counter() - start
    layers, validation, test = record(), accuracy(machine, data.validation), accuracy(machine, data.test)
    run.seconds += seconds  # all entries together at the end: Ctrl-C may come anywhere above
    run.cost.append(cost)
    run.layers.append(layers)
    run.validation.append(validation)
    run.test.append(test)


def _whole(order: Tensor, batch_size: int) -> list[Tensor]:
    """Return an epoch's mini-batches; a shorter last one is left out, since BatchNorm would weigh its rows more."""
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


def _read(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = ({entry.name for entry in fields(Run)} - saved["run"].keys()) | ({"machine"} - saved.keys())
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = f"expected a checkpoint of this program, got one that gives {type(error).__name__}"
        raise UsageError(f"{path}: {reason}; {ANEW}") from error
    if missing:
        raise UsageError(f"{path}: expected a checkpoint of this program, got one without {sorted(missing)}; {ANEW}")
    return saved
