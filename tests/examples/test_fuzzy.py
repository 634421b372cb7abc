"""The neurofuzzy network: no error is passed down, and its relations learn."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

import tansaku
from common import data
from common.experiment import Plan
from common.loop import accuracy
from experiments import fuzzy
from zenkai_core import IO, modules, targets


def plan(search: str | None = None) -> Plan:
    return Plan(data.load(), epochs=2, seed=0, device=torch.device("cpu"), search=search)


def test_no_machine_passes_an_error_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient reaches the parameters of one layer at a time, never its inputs."""
    made = plan()
    network = fuzzy.build(made, None)
    pulled = torch.autograd.grad
    seen = []

    def grad(outputs: object, inputs: list[torch.Tensor], *args: object, **kwargs: object) -> object:
        seen.append(len(inputs))
        assert all(isinstance(v, torch.nn.Parameter) for v in inputs)
        return pulled(outputs, inputs, *args, **kwargs)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a whole backward pass was run")

    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    rows = slice(0, network.batch_size)
    network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    assert len(seen) == 1 + fuzzy.LAYERS
    assert all(isinstance(m.x, targets.Null) for m in network.machine.machines)


def test_relations_begin_sparse_and_stay_degrees() -> None:
    network = fuzzy.build(plan(), None)
    relations = [m for m in network.machine.modules() if isinstance(m, modules.MaxMin)]
    assert len(relations) == 3
    for relation in relations:
        assert 0.05 < relation.weight.mean() < 0.13  # 1 / 11
        assert relation.degrees.min() >= 0


@pytest.mark.parametrize("search", fuzzy.EXPERIMENT.searches)
def test_any_of_the_searches_finds_the_targets(search: str) -> None:
    made = plan(search)
    network = fuzzy.build(made, None)
    rows = slice(0, network.batch_size)
    network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    for name, layer in network.layers.items():
        assert isinstance(layer.y.algorithm, tansaku.ALGORITHMS[search]), name
        assert layer.y.moved > 0.5, name


def test_the_frozen_control_trains_its_output_layer_only() -> None:
    made = plan()
    network = fuzzy.build(made, "frozen")
    before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
    rows = slice(0, network.batch_size)
    network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    moved = {name.split(".")[0] for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"5"}


def test_it_learns_by_searched_targets_alone() -> None:
    """Three epochs; its frozen control gets 0.4 in ten."""
    made = plan()
    network = fuzzy.build(made, None)
    n, size, epochs = len(made.data.train), network.batch_size, 3
    for epoch in range(epochs):
        order = torch.randperm(n)
        for at in range(0, n - size + 1, size):
            network.schedule((epoch + at / n) / epochs)
            rows = order[at : at + size]
            network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    assert accuracy(network.machine, made.data.validation) > 0.6
