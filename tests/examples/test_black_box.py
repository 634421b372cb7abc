"""Digits learned from their sums alone: what the function is asked, what a control knows, and what comes of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import tansaku
from common import data
from common.experiment import Plan
from common.loop import accuracy
from experiments import black_box
from zenkai_core import IO

VARIANTS = list(black_box.IMAGES)


def plan(variant: str, search: str | None = None) -> Plan:
    made = Plan(data.load(), epochs=2, seed=0, device=torch.device("cpu"), variant=variant, search=search)
    return replace(made, data=black_box.EXPERIMENT.data(made))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_are_images_put_together_with_the_sum_of_their_labels(variant: str) -> None:
    images, whole, rows = black_box.IMAGES[variant], data.load(), plan(variant).data
    known = {tuple(x.tolist()): int(t) for x, t in zip(whole.train.x, whole.train.t, strict=True)}
    assert rows.train.x.shape[1:] == (images, 64)
    for x, t in zip(rows.train.x[:50], rows.train.t[:50], strict=True):
        assert sum(known[tuple(image.tolist())] for image in x) == t
    assert len(rows.train) == len(whole.train) // images
    assert rows.classes == 9 * images + 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_controls_distribution_is_that_of_the_sum_by_enumeration(variant: str) -> None:
    images = black_box.IMAGES[variant]
    logits = torch.randn(3, 4, images, dtype=torch.float64)
    found = black_box.SumDistribution()(logits).exp()
    expected, p = torch.zeros(3, 3 * images + 1, dtype=torch.float64), logits.softmax(1)
    for choice in itertools.product(range(4), repeat=images):
        expected[:, sum(choice)] += torch.stack([p[:, c, i] for i, c in enumerate(choice)]).prod(0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_call_of_the_function_is_counted(variant: str) -> None:
    made = plan(variant)
    network = black_box.build(made, None)
    box = network.machine[2].module[0]
    rows = slice(0, network.batch_size)
    for _ in range(3):
        network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    assert network.evaluations is not None
    assert box.calls == network.evaluations() + 3 * network.batch_size  # and the pass itself


def test_the_target_is_the_mean_of_the_right_choices() -> None:
    one_hots = torch.eye(3)[torch.tensor([[0, 2], [1, 1], [2, 2]])].transpose(1, 2)  # [k, classes, images]
    population = tansaku.Population(
        {"0": one_hots.unsqueeze(1)}, 1, assessment=tansaku.Assessment(torch.tensor([[0.0], [0.0], [9.0]]))
    )
    torch.testing.assert_close(
        black_box.right_choices(population)["0"],
        torch.tensor([[[0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]]),
    )


@pytest.mark.parametrize("search", black_box.EXPERIMENT.searches)
def test_any_of_the_searches_takes_the_place_of_drawing(search: str) -> None:
    made = plan("two", search)
    network = black_box.build(made, None)
    network.schedule(0.5)
    rows = slice(0, network.batch_size)
    before = [p.detach().clone() for p in network.machine.parameters()]
    network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    assert all(not torch.equal(p, q) for p, q in zip(before, network.machine.parameters(), strict=True))
    assert isinstance(network.machine[2].x.algorithm, tansaku.ALGORITHMS[search])


def test_the_frozen_control_trains_its_output_layer_only() -> None:
    made = plan("two")
    network = black_box.build(made, "frozen")
    before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
    rows = slice(0, network.batch_size)
    network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    moved = {name.split(".")[0] for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"1"}


def test_two_digits_are_learned_from_their_sums() -> None:
    made = plan("two")
    network, epochs = black_box.build(made, None), 8
    n, size = len(made.data.train), network.batch_size
    for epoch in range(epochs):
        order = torch.randperm(n)
        for at in range(0, n - size + 1, size):
            network.schedule((epoch + at / n) / epochs)
            rows = order[at : at + size]
            network.machine.learn(IO(made.data.train.x[rows]), IO(made.data.train.t[rows]))
    assert accuracy(network.machine, made.data.validation) > 0.75
