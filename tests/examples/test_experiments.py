"""Every experiment there is: what it learns of the digits in its own budget, and that it runs on other data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import experiments
from common import data
from common.checkpoints import Run
from common.data import Data, Split
from common.experiment import Experiment, Plan
from common.loop import train
from zenkai_core import IO

NAMES = experiments.known()
NETWORKS = [
    (name, variant, control)
    for name in NAMES
    for variant in experiments.get(name).variants
    for control in (None, *experiments.get(name).controls)
]


@pytest.fixture(scope="module")
def digits() -> Data:
    return data.load()


@pytest.mark.parametrize("name", NAMES)
def test_experiment_learns_the_digits_in_its_budget_and_beats_its_frozen_control(
    name: str, digits: Data, tmp_path: Path
) -> None:
    experiment = experiments.get(name)
    variant = next(iter(experiment.variants))
    found = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for control in (None, "frozen"):
            run = Run(name, variant, control, "digits", 0, experiment.epochs["digits"])
            plan = Plan(digits, run.planned_epochs, 0, torch.device("cpu"), variant)
            train(experiment, run, plan, tmp_path / run.file, report=lambda: None)
            found.append(run)
    finally:
        torch.set_num_threads(threads)
    own, frozen = found
    assert own.test[-1] > experiment.floor
    assert own.test[-1] > frozen.test[-1]
    assert own.evaluations > 0


@pytest.fixture(scope="module")
def letters() -> Data:
    """Images of another size, and another number of classes, than MNIST's or the digits'."""
    generator = torch.Generator().manual_seed(0)
    part = Split(torch.randn(300, 12 * 11, generator=generator), torch.arange(300) % 13)
    return Data("idx:letters", (12, 11), 13, part, part, part)


def planned(experiment: Experiment, images: Data, variant: str, search: str | None = None) -> Plan:
    plan = Plan(images, experiment.epochs["mnist"], 0, torch.device("cpu"), variant, search)
    return replace(plan, data=experiment.data(plan)) if experiment.data else plan


@pytest.mark.parametrize(("name", "variant", "control"), NETWORKS)
def test_network_learns_from_images_of_another_size_with_mnists_settings(
    name: str, variant: str, control: str | None, letters: Data
) -> None:
    experiment = experiments.get(name)
    torch.manual_seed(0)
    plan = planned(experiment, letters, variant)
    network = experiment.build(plan, control)
    network.schedule(0.0)
    rows = slice(0, (network.batches or (lambda _: network.batch_size))(0.0))
    x, t = IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows])
    cost = network.learn(x, t, 0.0) if network.learn else network.machine.learn(x, t)
    assert math.isfinite(cost)
    network.machine.eval()
    assert network.machine(plan.data.test.x[:20]).shape == (20, plan.data.classes)


@pytest.mark.parametrize("name", [name for name in NAMES if experiments.get(name).searches])
def test_every_search_of_an_experiment_learns(name: str, letters: Data) -> None:
    experiment = experiments.get(name)
    for search in experiment.searches:
        plan = planned(experiment, letters, next(iter(experiment.variants)), search)
        network = experiment.build(plan, None)
        network.schedule(0.0)
        before = [p.detach().clone() for p in network.machine.parameters()]
        rows = slice(0, network.batch_size)
        x, t = IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows])
        cost = network.learn(x, t, 0.0) if network.learn else network.machine.learn(x, t)
        assert math.isfinite(cost)
        assert any(not torch.equal(p, q) for p, q in zip(before, network.machine.parameters(), strict=True))


def test_settings_for_other_data_are_those_for_mnist(digits: Data) -> None:
    plan = Plan(digits, epochs=1, seed=0, device=torch.device("cpu"))
    other = replace(plan, data=replace(digits, name="letters"))
    assert [each.default({"digits": 1, "mnist": 2}) for each in (plan, other)] == [1, 2]
    with pytest.raises(KeyError, match="mnist"):
        other.default({"digits": 1})
