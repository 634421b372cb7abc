"""Feedback alignment reports the linear maps that it does not reach."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import Machine


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


class Unrolled(nn.Module):
    """A cell that is called three times on one input."""

    def __init__(self, kind: type[nn.RNNCellBase], **kw: object) -> None:
        super().__init__()
        self.cell = kind(8, 8, **kw)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for _ in range(3):
            h = self.cell(x, h)
        return h if isinstance(h, Tensor) else torch.cat(h, 1)


CELLS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: Unrolled(nn.GRUCell),
    "lstm": lambda: Unrolled(nn.LSTMCell),
    "rnn": lambda: Unrolled(nn.RNNCell),
    "rnn, relu, no bias": lambda: Unrolled(nn.RNNCell, nonlinearity="relu", bias=False),
}


class Functional(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear, self.how = nn.Linear(8, 8), how

    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear.weight
        if self.how == "linear":
            return F.linear(x, weight)
        if self.how == "matmul":
            return x @ weight.T
        if self.how == "einsum":
            return torch.einsum("ni,oi->no", x, weight)
        return F.linear(self.linear(x), weight.t())  # tied: once as a module, once transposed


UNREACHED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "attention": (Attention, (4, 5, 8), "attention.in_proj_weight"),
    "gru": (Recurrent, (4, 5, 8), "gru.weight_ih_l0"),
    "matmul": (lambda: Functional("matmul"), (4, 8), "linear.weight"),
    "einsum": (lambda: Functional("einsum"), (4, 8), "linear.weight"),
    "tied": (lambda: Functional("tied"), (4, 8), "linear.weight"),
}


@pytest.mark.parametrize("name", UNREACHED)
@pytest.mark.parametrize("kind", ["random", "sign", "fresh", "uniform"])
def test_a_linear_map_that_is_not_called_as_a_module_is_named_once(name: str, kind: str) -> None:
    make, shape, weight = UNREACHED[name]
    machine = Machine(make(), zk.theta.Null(), zk.targets.FeedbackAlignment(kind, seed=0))  # type: ignore[arg-type]
    x = torch.randn(shape, requires_grad=True)
    with pytest.warns(UserWarning, match=rf"expected linear maps that are called as modules, got .*{weight}"):
        machine(x).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        machine(x).sum().backward()


@pytest.mark.parametrize("module", [nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))])
def test_a_module_whose_maps_are_all_reached_gives_no_warning(module: nn.Module) -> None:
    machine = Machine(copy.deepcopy(module), zk.theta.Null(), zk.targets.FeedbackAlignment(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        machine(torch.randn(4, 8, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("how", ["attention", "linear"])
@pytest.mark.parametrize("eval_mode", [False, True])
@pytest.mark.filterwarnings("ignore:targets.FeedbackAlignment expected linear maps")
def test_a_layer_whose_weight_a_function_applies_hands_errors_back_by_feedback(how: str, eval_mode: bool) -> None:
    torch.manual_seed(0)
    module = Attention() if how == "attention" else Functional("linear")
    shape = (4, 5, 8) if how == "attention" else (4, 8)
    x = torch.randn(shape)
    layer = module.attention.out_proj if isinstance(module, Attention) else module.linear
    found = []
    for rule in (zk.targets.Gradient(), zk.targets.FeedbackAlignment(seed=0), zk.targets.FeedbackAlignment(seed=0)):
        machine = Machine(copy.deepcopy(module), zk.theta.Gradient(torch.optim.SGD, lr=0.1), rule).train(not eval_mode)
        if len(found) == 2:  # with the weights for B it is backpropagation
            rule.feedback_0.copy_(layer.weight.detach())
        for _ in range(2):  # the first pass, and one after the report
            machine.forget()
            v = x.clone().requires_grad_()
            y = machine(v)
            y.square().sum(-1).mean().backward()
        found.append((y.detach(), v.grad, [p.grad for p in machine.parameters() if p.grad is not None]))
    exact, feedback, with_weights = found
    assert torch.allclose(exact[0], feedback[0], atol=1e-6)
    assert not torch.allclose(exact[1], feedback[1], atol=1e-4)
    assert torch.allclose(exact[1], with_weights[1], atol=1e-6)
    for a, b in zip(exact[2], feedback[2], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_a_recurrent_cell_hands_errors_back_by_feedback(name: str) -> None:
    torch.manual_seed(0)
    module, x = CELLS[name](), torch.randn(4, 8)
    found = []
    for b in (None, "drawn", "weights"):
        rule = zk.targets.Gradient() if b is None else zk.targets.FeedbackAlignment(seed=0)
        machine = Machine(copy.deepcopy(module), zk.theta.Gradient(torch.optim.SGD, lr=0.1), rule)
        if b == "weights":  # then it is backpropagation
            rule.feedback_0.copy_(machine.module.cell.weight_ih.detach())
            rule.feedback_1.copy_(machine.module.cell.weight_hh.detach())
        machine = copy.deepcopy(machine)
        for _ in range(2):
            machine.forget()
            v = x.clone().requires_grad_()
            y = machine(v)
            y.square().sum(1).mean().backward()
        found.append((y.detach(), v.grad, [p.grad for p in machine.module.parameters()]))
    exact, feedback, with_weights = found
    assert torch.allclose(exact[0], feedback[0], atol=1e-6)
    assert not torch.allclose(exact[1], feedback[1], atol=1e-3)
    assert torch.allclose(exact[1], with_weights[1], atol=1e-6)
    for a, b in zip(exact[2], feedback[2], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


class Binary(nn.Module):
    """A linear map by the signs of its weights, with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.position = nn.Parameter(torch.randn(1, 8))
        self.map = nn.Linear(8, 8)
        self.register_buffer("mask", torch.ones(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.map(x + 2 * self.position), self.weight.sign() * self.mask + 0.0)


def test_a_map_by_numbers_computed_from_a_weight_is_reported_by_the_name_of_the_weight() -> None:
    for rule in (zk.targets.FeedbackAlignment(seed=0), zk.targets.KolenPollack(seed=0)):
        machine = Machine(Binary(), zk.theta.Null(), rule)
        with pytest.warns(UserWarning, match="got weight of Binary, which are applied by functions"):
            machine(torch.randn(4, 8, requires_grad=True)).sum().backward()


def test_maps_inside_vmap_are_no_error() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.func.vmap(lambda row: self.weight @ row)(x)

    machine = Machine(Mapped(), zk.theta.Null(), zk.targets.FeedbackAlignment(seed=0))
    with pytest.warns(UserWarning, match="got weight of Mapped"):
        machine(torch.randn(4, 8, requires_grad=True)).sum().backward()
