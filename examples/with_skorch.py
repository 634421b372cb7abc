"""A network of learning machines inside scikit-learn's world, by way of skorch (`pip install skorch`).

    python examples/with_skorch.py

The first layer's units are signs, which have no gradient: targets for them are searched. The last layer is an ordinary
`nn.Linear`. skorch runs the loop (`loss.backward()`, `optimizer.step()`) and knows nothing of machines; the one line
that it needs is the optimiser. Cross-validation and pipelines work as for any scikit-learn classifier.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

import tansaku
import zenkai_core as zk


def network(width: int = 64) -> nn.Sequential:
    """Return 64 - width - 10 with sign units: machines where no gradient exists, a plain layer where one does."""
    search = zk.targets.SearchX(tansaku.HillClimb(k=32, std=1.0))
    return nn.Sequential(
        zk.Machine(nn.Linear(64, width), zk.theta.Gradient(torch.optim.Adam, lr=3e-3), zk.targets.Null()),
        zk.Machine(zk.modules.Sign(), zk.theta.Null(), search, scale=50.0),  # far targets: a flip moves an output by 2
        nn.Linear(width, 10),
    )


class Classifier(NeuralNetClassifier):
    """skorch's classifier, with our optimiser."""

    def initialize_optimizer(self, *_: object, **__: object) -> Classifier:
        """Make the optimiser that moves machines by their own rules and the plain layer by Adam."""
        self.optimizer_ = zk.Optimizer(self.module_, lambda plain: torch.optim.Adam(plain, lr=1e-2))
        return self


def main(epochs: int = 15, folds: int = 3) -> list[float]:
    """Cross-validate on scikit-learn's digits; print and return the accuracies."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    classifier = Classifier(
        network, criterion=nn.CrossEntropyLoss, max_epochs=epochs, batch_size=64, train_split=None, verbose=0
    )
    model = make_pipeline(StandardScaler(), classifier)
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    accuracies: list[float] = cross_val_score(model, x.astype("float32"), y, cv=parts).tolist()
    print("accuracy of each fold:", ", ".join(f"{a:.3f}" for a in accuracies))
    return accuracies


if __name__ == "__main__":
    main()
