"""Masks, edge lists, keyword arguments and None reach the module of a machine unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.svm import SVR
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Machine, modules, targets, theta
from zenkai_core.context import Context


class Noting(nn.Module):
    """A linear layer that notes what it is called with beside x."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.seen: list[tuple[Any, ...]] = []

    def forward(self, x: Tensor, edges: Any = None, mask: Any = None, scale: float = 1.0) -> Tensor:
        self.seen.append((edges, mask, scale))
        y = self.linear(x) * scale
        if edges is not None:
            y = y.index_add(0, edges[1], self.linear(x)[edges[0]])
        return y if mask is None else y * mask.unsqueeze(1)


EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
MASK = torch.tensor([True, False, True, True, True])

RULES: dict[str, Callable[[], tuple[zk.StepTheta, zk.StepX]]] = {
    "gradient": lambda: (theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient()),
    "several updates": lambda: (theta.Gradient(torch.optim.SGD, lr=0.1, n=2), targets.Gradient(n=3)),
    "search": lambda: (
        theta.Search(tansaku.HillClimb(k=4, std=0.1)),
        targets.SearchX(tansaku.HillClimb(k=4, std=0.3), seed=0),
    ),
    "feedback": lambda: (theta.Gradient(torch.optim.SGD, lr=0.1), targets.FeedbackAlignment(seed=0)),
}


@pytest.mark.parametrize("name", RULES)
def test_every_call_of_the_module_sees_them_as_they_were_given(name: str) -> None:
    module = Noting()
    machine = Machine(module, *RULES[name]())
    x = torch.randn(5, 4, requires_grad=True)
    machine(x, EDGES, mask=MASK, scale=2.0).square().mean().backward()
    zk.Optimizer(machine).step()
    machine.learn(x.detach(), torch.randn(5, 2), edges=EDGES, mask=MASK, scale=2.0)
    machine.test(x.detach(), torch.randn(5, 2), edges=EDGES, mask=MASK, scale=2.0)
    assert x.grad is not None
    assert len(module.seen) >= 3
    assert all(edges is EDGES and mask is MASK and scale == 2.0 for edges, mask, scale in module.seen)


def test_none_among_the_inputs_is_passed_on_and_gradients_are_the_modules() -> None:
    module = Noting()
    machine = Machine(module, theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    x, plain = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    machine(x, None, MASK).square().mean().backward()
    assert module.seen[-1][0] is None
    assert torch.equal(module.seen[-1][1], MASK)
    plain = x.detach().clone().requires_grad_()
    Noting.forward(module, plain, None, MASK).square().mean().backward()
    assert torch.allclose(x.grad, plain.grad, atol=1e-7)


def test_copies_of_the_rows_are_passed_one_after_another() -> None:
    module = Noting()
    machine = Machine(module, theta.Null(), targets.Null())
    x = torch.randn(5, 4)
    state = zk.State(context=Context(5, ((1, EDGES),), {"mask": MASK}))
    y = machine.remember(zk.IO(x), state)
    again = machine.frozen(zk.IO(x).tile(3), state)
    assert torch.allclose(again.f, y.f.repeat(3, 1))
    with pytest.raises(ValueError, match=r"the 5 rows of its pass, or whole copies of them.*leave batch_size out"):
        machine.frozen(zk.IO(x[:3]), state)


def test_an_argument_that_asks_for_a_gradient_is_refused() -> None:
    machine = Machine(Noting(), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    with pytest.raises(ValueError, match=r"expected context without a gradient, got mask \[5\]"):
        machine(torch.randn(5, 4), mask=torch.ones(5, requires_grad=True))


def test_a_container_says_that_only_a_machine_hands_them_on() -> None:
    net = Chain(Machine(Noting(), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient()))
    for call in (lambda: net(torch.randn(5, 4), mask=MASK), lambda: net(torch.randn(5, 4), None)):
        with pytest.raises(TypeError, match="only a Machine hands other arguments to its module"):
            call()


@pytest.mark.parametrize("module", [nn.LSTM(4, 3, batch_first=True), nn.GRU(4, 3), nn.RNN(4, 3)], ids=str)
def test_a_recurrent_module_is_refused_by_name_with_the_remedy(module: nn.Module) -> None:
    with pytest.raises(TypeError, match=rf"got {type(module).__name__}, which also returns its hidden state"):
        Machine(module, theta.Null(), targets.Null())


def test_outputs_that_are_no_rows_are_refused_by_the_modules_name() -> None:
    class Nested(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x, (x, x)

    class Moved(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x, x.T

    with pytest.raises(TypeError, match=r"got \(Tensor, tuple\) from Nested"):
        Machine(Nested(), theta.Null(), targets.Null())(torch.randn(5, 4))
    with pytest.raises(ValueError, match=r"shapes \[\[5, 4\], \[4, 5\]\] from Moved"):
        Machine(Moved(), theta.Null(), targets.Null())(torch.randn(5, 4))


def test_an_estimator_of_one_output_is_refused_for_several_with_the_remedy() -> None:
    machine = Machine(modules.Estimators(4, 2), theta.Fit(SVR, rows=5), targets.Null())
    with pytest.raises(TypeError, match=r"expected an estimator of 2 outputs, got SVR.*modules\.PerOutput\(SVR\(\)\)"):
        machine.learn(torch.randn(5, 4), torch.randn(5, 2))
    wrapped = Machine(modules.Estimators(4, 2), theta.Fit(lambda: modules.PerOutput(SVR()), rows=5), targets.Null())
    wrapped.learn(torch.randn(5, 4), torch.randn(5, 2))
    assert len(wrapped.module) == 1


def test_a_tensor_inside_a_list_or_a_dictionary_that_asks_for_a_gradient_is_refused() -> None:
    machine = Machine(Noting(), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    x, f = torch.randn(5, 4), torch.randn(5, requires_grad=True)
    for given in ({"mask": [f]}, {"mask": {"a": (f, 1)}}):
        with pytest.raises(ValueError, match=r"expected context without a gradient, got mask \[5\]"):
            machine(x, **given)
    with pytest.raises(ValueError, match=r"expected context without a gradient, got argument 1 \[5\]"):
        machine(x, [f])


def test_inputs_given_by_keyword_alone_are_refused() -> None:
    machine = Machine(Noting(), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    with pytest.raises(TypeError, match=r"inputs as positional arguments, got keyword arguments \['x', 'mask'\] alone"):
        machine(x=torch.randn(5, 4), mask=MASK)
