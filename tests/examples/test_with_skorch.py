"""The example for skorch runs, and its machines learn there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("skorch", reason="skorch is not installed: pip install -e '.[dev]'")

import with_skorch


def test_cross_validation_finds_a_good_classifier() -> None:
    accuracies = with_skorch.main(epochs=5, folds=2)
    assert len(accuracies) == 2
    assert min(accuracies) > 0.85


def test_one_epoch_of_skorch_moves_machines_and_plain_layers() -> None:
    torch.manual_seed(0)
    net = with_skorch.Classifier(
        with_skorch.network, criterion=nn.CrossEntropyLoss, max_epochs=1, batch_size=32, train_split=None, verbose=0
    ).initialize()
    before = [p.detach().clone() for p in net.module_.parameters()]
    net.fit(torch.randn(64, 64), torch.randint(10, (64,)))
    after = list(net.module_.parameters())
    assert len(before) == 4
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
