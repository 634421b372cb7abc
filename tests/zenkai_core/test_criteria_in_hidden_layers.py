"""Which criterion a hidden layer takes: one for points among its outputs, not one for labels or probabilities."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Machine, criteria, cross_entropy, modules, sse, targets, theta

LABELS = [
    cross_entropy,
    criteria.CrossEntropy(label_smoothing=0.1),
    criteria.binary_cross_entropy,
    criteria.margin,
    zk.Weighted((1.0, sse), (0.1, cross_entropy)),
]


def head() -> Machine:
    return Machine(nn.Linear(8, 3), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient(), cross_entropy)


RULES: dict[str, Callable[[], zk.StepTheta]] = {
    "gradient": lambda: theta.Gradient(torch.optim.SGD, lr=0.1),
    "delta": lambda: theta.Delta(torch.optim.SGD, lr=0.1),
    "least squares": lambda: theta.LeastSquares(),
    "search": lambda: theta.Search(tansaku.HillClimb(k=4, std=0.1)),
}


@pytest.mark.parametrize("criterion", LABELS, ids=repr)
@pytest.mark.parametrize("rule", RULES)
def test_a_criterion_for_labels_refuses_a_point_before_anything_moves(rule: str, criterion: zk.Criterion) -> None:
    hidden = Machine(nn.Linear(4, 8), RULES[rule](), targets.Null(), criterion)
    net = Chain(hidden, head())
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(TypeError, match=r"expected labels or probabilities .* got a point .*criterion=zk\.sse"):
        net.learn(torch.randn(6, 4), torch.randint(3, (6,)))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_trees_that_class_refuse_a_point() -> None:
    trees = modules.Trees(4, 8, kind="classification")
    net = Chain(Machine(trees, theta.Fit(rows=6), targets.Null(), cross_entropy), head())
    with pytest.raises(TypeError, match=r"criterion=zk\.sse"):
        net.learn(torch.randn(6, 4), torch.randint(3, (6,)))


@pytest.mark.parametrize(
    "rule",
    [
        lambda: targets.Gradient(),
        lambda: targets.FeedbackAlignment(seed=0),
        lambda: targets.SearchX(tansaku.HillClimb(k=4, std=0.3), seed=0),
        lambda: targets.LeastSquares(),
    ],
)
def test_a_rule_for_x_refuses_a_point_under_a_criterion_for_labels(rule: Callable[[], zk.StepX]) -> None:
    below = Machine(nn.Linear(4, 8), theta.Null(), targets.Null())
    net = Chain(below, Machine(nn.Linear(8, 8), theta.Null(), rule(), cross_entropy), head())
    with pytest.raises(TypeError, match=r"criterion=zk\.sse"):
        net.learn(torch.randn(6, 4), torch.randint(3, (6,)))


def test_graphs_parallels_and_chains_inside_chains_refuse_it_too() -> None:
    def hidden(i: int, o: int) -> Machine:
        return Machine(nn.Linear(i, o), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient(), cross_entropy)

    nets = (
        zk.Graph({"h": zk.Node(hidden(4, 8), "x"), "y": zk.Node(head(), "h")}, outputs=("y",)),
        Chain(Chain(hidden(4, 8)), Chain(head())),
        Chain(zk.Parallel(hidden(2, 4), hidden(2, 4), split=(2, 2), criterion=cross_entropy), head()),
    )
    for net in nets:
        with pytest.raises((TypeError, ValueError)):
            net.learn(torch.randn(6, 4), torch.randint(3, (6,)))


def test_in_autograd_a_hidden_machine_refuses_it_and_the_last_one_goes_by_the_loss() -> None:
    hidden = Machine(nn.Linear(4, 8), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient(), cross_entropy)
    net = Chain(hidden, head())
    with pytest.raises(TypeError, match=r"criterion=zk\.sse"):
        nn.functional.cross_entropy(net(torch.randn(6, 4)), torch.randint(3, (6,))).backward()
    alone = head()
    nn.functional.cross_entropy(alone(torch.randn(6, 8)), torch.randint(3, (6,))).backward()
    assert alone.module.weight.grad is not None


def test_a_search_over_choices_gives_probabilities_that_cross_entropy_takes() -> None:
    rule = targets.SearchX(
        targets.Sampled(targets.Choices(), k=8), reduce=tansaku.WeightedMean("softmax", temperature=0.1)
    )
    box = modules.BlackBox(lambda a: a, vectorized=False, choices=True)
    below = Machine(nn.Linear(4, 3), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Null(), cross_entropy)
    net = Chain(below, Machine(box, theta.Null(), rule, criteria.absolute_error))
    assert net.learn(torch.randn(6, 4), torch.randint(3, (6,)).float()).isfinite()


def digits(hidden: zk.Criterion) -> float:
    pixels, labels = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    pixels = (pixels / 16).float()

    def layer(module: nn.Module, criterion: zk.Criterion) -> Machine:
        return Machine(module, theta.Gradient(torch.optim.Adam, lr=1e-2), targets.Gradient(), criterion)

    torch.manual_seed(0)
    net = Chain(layer(nn.Sequential(nn.Linear(64, 32), nn.ReLU()), hidden), layer(nn.Linear(32, 10), cross_entropy))
    for _ in range(10):
        for rows in torch.randperm(1400).split(64):
            net.learn(pixels[rows], labels[rows])
    with torch.no_grad():
        return float((net(pixels[1400:]).argmax(1) == labels[1400:]).float().mean())


def test_digits_are_learned_with_squared_error_in_the_hidden_layer_and_refused_with_cross_entropy() -> None:
    assert digits(sse) > 0.88
    with pytest.raises(TypeError, match=r"criterion=zk\.sse"):
        digits(cross_entropy)


def same_as_torch(criterion: zk.Criterion, loss: nn.Module, t: Tensor, shape: tuple[int, ...]) -> None:
    """20 steps of a chain by `learn`, and by `backward()`, against the plain network under torch's loss."""
    import copy

    torch.manual_seed(0)

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 3 * (shape[0] if shape else 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).unflatten(1, (3, *shape)) if shape else self.linear(x)

    below, above, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh()).double(), Scores().double(), torch.randn(12, 4).double()
    plain = copy.deepcopy(nn.Sequential(below, above))
    bridged = copy.deepcopy(nn.Sequential(below, above))

    def chain(a: nn.Module, b: nn.Module) -> Chain:
        def sgd() -> theta.Gradient:
            return theta.Gradient(torch.optim.SGD, lr=0.3)

        return Chain(Machine(a, sgd(), targets.Gradient()), Machine(b, sgd(), targets.Gradient(), criterion))

    net, other = chain(below, above), chain(*bridged)
    optimizer, own = torch.optim.SGD(plain.parameters(), lr=0.3), zk.Optimizer(other)
    for _ in range(20):
        optimizer.zero_grad()
        expected = loss(plain(x), t)
        expected.backward()
        optimizer.step()
        own.zero_grad()
        loss(other(x), t).backward()
        own.step()
        assert net.test(x, t).item() == pytest.approx(expected.item(), abs=1e-10)
        assert net.learn(x, t).item() == pytest.approx(expected.item(), abs=1e-10)
    for p, q, r in zip(plain.parameters(), net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-10)
        torch.testing.assert_close(r, p, rtol=0, atol=1e-10)


WEIGHT = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("places", [(), (5,)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": WEIGHT},
        {"label_smoothing": 0.2},
        {"ignore_index": 1},
        {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 1},
        {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": -1},
    ],
    ids=str,
)
def test_cross_entropy_with_options_learns_as_torchs(options: dict[str, object], places: tuple[int, ...]) -> None:
    labels = torch.randint(3, (12, *places), generator=torch.Generator().manual_seed(1))
    if options.get("ignore_index") == -1:
        labels[0] = -1
    ours, theirs = criteria.CrossEntropy(**options), nn.CrossEntropyLoss(**options)  # type: ignore[arg-type]
    same_as_torch(ours, theirs, labels, places)
    if "ignore_index" not in options:
        some = labels.clone()
        some[::3] = -100
        same_as_torch(ours, theirs, some, places)
        shares = torch.rand(12, 3, *places, generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(1)
        same_as_torch(ours, theirs, shares, places)


def test_binary_cross_entropy_with_weights_is_torchs_sum_over_the_rows() -> None:
    weight, positive = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 1.0, 0.2]).double()
    ours = criteria.BinaryCrossEntropy(weight, positive)

    class PerRow(nn.BCEWithLogitsLoss):
        def forward(self, y: Tensor, t: Tensor) -> Tensor:
            return super().forward(y, t) / len(y)

    theirs = PerRow(weight, pos_weight=positive, reduction="sum")
    same_as_torch(ours, theirs, torch.rand(12, 3, generator=torch.Generator().manual_seed(1)).double(), ())


def test_huber_with_a_delta_is_torchs_sum_over_the_rows() -> None:
    class PerRow(nn.HuberLoss):
        def forward(self, y: Tensor, t: Tensor) -> Tensor:
            return super().forward(y, t) / len(y)

    t = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)).double()
    same_as_torch(criteria.Huber(0.3), PerRow(reduction="sum", delta=0.3), t, ())


def test_a_batch_without_a_counted_label_costs_nothing_and_moves_nothing() -> None:
    machine = head()
    before = machine.module.weight.detach().clone()
    assert machine.learn(torch.randn(4, 8), torch.full((4,), -100)).item() == 0.0
    assert torch.equal(machine.module.weight, before)


def test_a_criterion_of_ones_own_may_give_its_normaliser() -> None:
    class Masked:
        distance = True

        def __call__(self, y: zk.IO, t: zk.IO) -> Tensor:
            return (y.f - t.f).square().sum(1) * (t.f[:, 0] > 0)

        def normaliser(self, y: zk.IO, t: zk.IO) -> Tensor:
            return (t.f[:, 0] > 0).sum()

    machine = Machine(nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Null(), Masked())
    x, t = torch.randn(6, 3), torch.randn(6, 2)
    some = t[:, 0] > 0
    expected = (machine(x) - t).square().sum(1)[some].mean()
    assert machine.learn(x, t).item() == pytest.approx(expected.item())


def test_settings_of_criteria_are_checked() -> None:
    with pytest.raises(ValueError, match="label_smoothing in"):
        criteria.CrossEntropy(label_smoothing=2.0)
    with pytest.raises(TypeError, match="weight as a floating tensor"):
        criteria.CrossEntropy(weight=[1.0, 2.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weight \[classes\]"):
        criteria.CrossEntropy(weight=torch.ones(2, 2))
    with pytest.raises(ValueError, match="a weight for each of 3 classes, got 2"):
        Machine(nn.Linear(2, 3), theta.Null(), targets.Null(), criteria.CrossEntropy(torch.ones(2))).test(
            torch.randn(4, 2), torch.randint(3, (4,))
        )
    with pytest.raises(ValueError, match="delta > 0"):
        criteria.Huber(0.0)
    with pytest.raises(ValueError, match="margin > 0"):
        criteria.Margin(-1.0)
    with pytest.raises(TypeError, match=r"the class CrossEntropy: call it"):
        Machine(nn.Linear(2, 3), theta.Null(), targets.Null(), criteria.CrossEntropy)  # type: ignore[arg-type]


def test_criteria_with_options_copy_pickle_and_print_on_one_line() -> None:
    import copy
    import pickle

    ours = criteria.CrossEntropy(weight=torch.ones(3), ignore_index=2)
    assert repr(ours) == "CrossEntropy(weight=tensor[3], ignore_index=2)"
    again = pickle.loads(pickle.dumps(ours))
    y, t = zk.IO(torch.randn(4, 3)), zk.IO(torch.tensor([0, 1, 2, 1]))
    assert torch.equal(again(y, t), ours(y, t))
    assert copy.deepcopy(ours) is ours
    assert pickle.loads(pickle.dumps(cross_entropy)) is cross_entropy


OWN: dict[str, zk.Criterion] = {
    "cross entropy": lambda y, t: F.cross_entropy(y.f, t.f, reduction="none"),
    "by keyword": lambda y, t: F.cross_entropy(input=y.f, target=t.f, reduction="none"),
    "binary": lambda y, t: F.binary_cross_entropy_with_logits(y.f, t.f, reduction="none").sum(1),
    "a term": zk.Weighted((1.0, sse), (0.1, lambda y, t: F.cross_entropy(y.f, t.f, reduction="none"))),
}


@pytest.mark.parametrize("place", ["chain", "graph", "parallel", "chains"])
@pytest.mark.parametrize("name", OWN)
def test_a_function_that_hands_a_point_to_a_loss_for_labels_is_refused_before_anything_moves(
    name: str, place: str
) -> None:
    hidden = Machine(nn.Linear(4, 8), RULES["gradient"](), targets.Gradient(), OWN[name])
    nets: dict[str, Callable[[], zk.LearningMachine]] = {
        "chain": lambda: Chain(hidden, head()),
        "graph": lambda: zk.Graph({"h": zk.Node(hidden, "x"), "y": zk.Node(head(), "h")}, outputs=("y",)),
        "parallel": lambda: Chain(
            zk.Parallel(Machine(nn.Linear(4, 8), RULES["delta"](), targets.Null()), criterion=OWN[name]), head()
        ),
        "chains": lambda: Chain(Chain(hidden), Chain(head())),
    }
    net = nets[place]()
    before = [p.detach().clone() for p in net.parameters()]
    x, labels = torch.randn(6, 4), torch.randint(3, (6,))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"expected labels or probabilities .* got a point .*criterion=zk\.sse"):
            net.learn(x, labels)
        with pytest.raises(TypeError, match=r"criterion=zk\.sse"):
            F.cross_entropy(net(x), labels).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_function_that_makes_probabilities_of_a_point_or_is_a_distance_learns() -> None:
    for criterion in (
        lambda y, t: F.cross_entropy(y.f, t.f.softmax(1), reduction="none"),
        lambda y, t: F.mse_loss(y.f, t.f, reduction="none").sum(1),
    ):
        hidden = Machine(nn.Linear(4, 8), RULES["gradient"](), targets.Gradient(), criterion)
        before = hidden.module.weight.detach().clone()
        Chain(hidden, head()).learn(torch.randn(6, 4), torch.randint(3, (6,)))
        assert not torch.equal(before, hidden.module.weight)
