"""Learn through a function that has no gradient: search beside two estimators of one, on the same budget of calls.

    python examples/black_box_gradients.py [--calls N] [--seeds S]

A classifier looks at two handwritten digits (scikit-learn's); its two choices go through a literal Python function, and
what that returns is all it is ever told to get right. The table says how often it does on test images;
`docs/black_box.md` explains the methods and shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tansaku
from zenkai_core import IO, Chain, Criterion, Machine, cross_entropy, modules, sse, targets, theta

CLASSES = 10
ROWS = 8  # pairs of a mini-batch
SAMPLES = 16  # choices tried per pair
RATES = {"posterior": 0.01, "hill climbing": 0.003, "REINFORCE": 0.005, "straight-through": 0.03}
"""Learning rates, chosen for `a + b` on 118 pairs held out from training."""
FUNCTIONS: dict[str, Callable[[list[int]], int]] = {
    "a + b": sum,
    "max(a, b)": max,
    "a * b % 10": lambda digits: digits[0] * digits[1] % 10,
}


@dataclass(frozen=True)
class Task:
    """Pairs of images `[n, 2, 64]` and the function's answers for their labels `[n]`, to learn from and to test by."""

    fn: Callable[[list[int]], int]
    x: Tensor
    t: Tensor
    test_x: Tensor
    test_t: Tensor


def task(fn: Callable[[list[int]], int]) -> Task:
    """Return fixed pairs of the digits: 718 from the first 1,436 images, 180 from the others."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x, labels = (torch.tensor(digits.data, dtype=torch.float32)[order] - 4.9) / 6.0, torch.tensor(digits.target)[order]
    pairs, chosen = x[:1796].view(898, 2, 64), labels[:1796].view(898, 2)
    answers = torch.tensor([float(fn(row)) for row in chosen.tolist()])
    return Task(fn, pairs[:718], answers[:718], pairs[718:], answers[718:])


class Classifier(nn.Module):
    """The same small network on each image: `[n, 2, 64]` -> logits `[n, 10, 2]`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, the classes along dimension 1."""
        return self.net(x.flatten(0, 1)).unflatten(0, (-1, 2)).transpose(1, 2)


def wrong(y: IO, t: IO) -> Tensor:
    """The cost of an answer: 0 if it is right, else 1."""
    return (y.f != t.f).to(y.f.dtype)


def batches(task: Task, calls: int, each: int, size: int = ROWS) -> list[Tensor]:
    """Return the rows of as many mini-batches as the budget of calls allows, with `each` calls per row."""
    count = calls // (each * size)
    epochs = [torch.randperm(len(task.x)) for _ in range(count * size // len(task.x) + 1)]
    return list(torch.cat(epochs)[: count * size].split(size))


def by_posterior(task: Task, box: modules.BlackBox, calls: int) -> nn.Module:
    """Search: each choice's target is the mean of the drawn choices that were right, an estimate of its posterior.

    Draws are wide at first, three times flatter than the network's own distribution, so that it does not settle early.
    """
    choices = tansaku.Scheduled(targets.Choices, temperature=tansaku.LinearSchedule(3.0, 1.0))
    drawn = tansaku.Scheduled(targets.Sampled, sampler=choices, k=SAMPLES)
    right = tansaku.WeightedMean("softmax", temperature=0.05)
    rule = targets.SearchX(drawn, reduce=right, calls=calls // ((SAMPLES + 2) * ROWS))
    return _searched(task, box, calls, rule, cross_entropy, "posterior")


def by_hill_climbing(task: Task, box: modules.BlackBox, calls: int) -> nn.Module:
    """Search: the logits' target is the best of some random steps from them; any tansaku algorithm can stand here."""
    return _searched(task, box, calls, targets.SearchX(tansaku.HillClimb(k=SAMPLES, std=1.0)), sse, "hill climbing")


def _searched(
    task: Task, box: modules.BlackBox, calls: int, rule: targets.SearchX, criterion: Criterion, rate: str
) -> nn.Module:
    classifier = Classifier()
    network = Chain(
        Machine(classifier, theta.Gradient(torch.optim.Adam, lr=RATES[rate]), targets.Null(), criterion),
        Machine(box, theta.Null(), rule, wrong),
    )
    for rows in batches(task, calls, SAMPLES + 2):  # the pass, the start of the search, its candidates
        network.learn(task.x[rows], task.t[rows])
    return classifier


def by_reinforce(task: Task, box: modules.BlackBox, calls: int) -> nn.Module:
    """REINFORCE: gradient of log p(choices), times how much less wrong they were than the other samples' mean."""
    classifier = Classifier()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=RATES["REINFORCE"])
    for rows in batches(task, calls, SAMPLES):
        chances = torch.distributions.Categorical(logits=classifier(task.x[rows]).transpose(1, 2))
        choices = chances.sample((SAMPLES,))  # [k, rows, 2]
        one_hots = torch.nn.functional.one_hot(choices, CLASSES).transpose(2, 3).float()
        right = (box(one_hots.flatten(0, 1)).view(SAMPLES, ROWS) == task.t[rows]).float()
        others = (right.sum(0) - right) / (SAMPLES - 1)
        loss = -((right - others) * chances.log_prob(choices).sum(2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier


def by_straight_through(task: Task, box: modules.BlackBox, calls: int) -> nn.Module:
    """Straight-through: backward takes the argmax for a softmax and the function for the sum of its arguments."""
    classifier, choose = Classifier(), modules.ArgmaxSTE()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=RATES["straight-through"])
    values = torch.arange(CLASSES, dtype=torch.float32)
    for rows in batches(task, calls, 1, 4 * ROWS):  # one call a row leaves steps enough
        one_hots = choose(classifier(task.x[rows]))
        as_if = (values @ one_hots).sum(1)
        answers = box(one_hots) + as_if - as_if.detach()
        loss = torch.nn.functional.smooth_l1_loss(answers, task.t[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier


METHODS: dict[str, Callable[[Task, modules.BlackBox, int], nn.Module]] = {
    "search, posterior of the choices": by_posterior,
    "search, best of hill climbing": by_hill_climbing,
    "REINFORCE": by_reinforce,
    "straight-through": by_straight_through,
}


def score(task: Task, classifier: nn.Module) -> float:
    """Return the share of right answers on the test pairs."""
    classifier.eval()
    with torch.no_grad():
        answers = modules.BlackBox(task.fn, vectorized=False, choices=True)(classifier(task.test_x))
    return (answers == task.test_t).float().mean().item()


def table(calls: int, seeds: int) -> str:
    """Train everything; return the table in Markdown.

    Raises:
        RuntimeError: a method has used more calls than it was given.
    """
    tasks = {name: task(fn) for name, fn in FUNCTIONS.items()}
    lines = ["| method | " + " | ".join(f"`{name}`" for name in tasks) + " |", "|---" * (1 + len(tasks)) + "|"]
    for method, train in METHODS.items():
        cells = []
        for each in tasks.values():
            scores = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                box = modules.BlackBox(each.fn, vectorized=False, choices=True)
                scores.append(score(each, train(each, box, calls)))
                if box.calls > calls:
                    raise RuntimeError(f"{method} made {box.calls} calls of the {calls} that it was given")
            found = torch.tensor(scores)
            cells.append(f"{found.mean():.3f} ± {found.std(correction=0):.3f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=40_000, help="calls of the function per training")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(table(options.calls, options.seeds))


if __name__ == "__main__":
    main()
