"""Each inverse leads back to where the forward map came from, alone, in sequence, and in the pass of a machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Machine, State, modules
from zenkai_core.capabilities import capabilities, linear_parts, slope

TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-10}


def unlike(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """The norm with statistics and weights that no two features share."""
    with torch.no_grad():
        for i, v in enumerate((norm.running_mean, norm.running_var, norm.weight, norm.bias)):
            v.copy_(torch.linspace(0.5 + i, 2.0 + i, v.numel()))
    norm.weight.data[0] = -0.7
    return norm


def deep() -> nn.Module:
    parts = (modules.Tanh(), modules.InvertibleLinear(4), unlike(modules.BatchNorm1d(4)), modules.LeakyReLU(0.2))
    return modules.Sequential(modules.Reshape((2, 2), (4,)), *parts, modules.Permute(1))


INVERTIBLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "batch norm": (lambda: unlike(modules.BatchNorm1d(4)), (4,)),
    "batch norm of sequences": (lambda: unlike(modules.BatchNorm1d(4)), (4, 3)),
    "batch norm without weights": (lambda: modules.BatchNorm1d(4, affine=False), (4,)),
    "batch norm of images": (lambda: unlike(modules.BatchNorm2d(2)), (2, 3, 3)),
    "leaky relu": (lambda: modules.LeakyReLU(0.1), (4,)),
    "sigmoid": (modules.Sigmoid, (4,)),
    "tanh": (modules.Tanh, (4,)),
    "linear": (lambda: modules.InvertibleLinear(4), (4,)),
    "linear of sequences": (lambda: modules.InvertibleLinear(4, bias=False), (3, 4)),
    "reshape": (lambda: modules.Reshape((4, 3), (2, 6)), (4, 3)),
    "permute": (lambda: modules.Permute(3, 1, 2), (2, 3, 4)),
    "signed": (modules.BoolToSigned, (4,)),
    "bool": (modules.SignedToBool, (4,)),
    "sequence": (deep, (2, 2)),
    "sequence of none": (modules.Sequential, (4,)),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", INVERTIBLE)
def test_the_inverse_of_the_output_is_the_input_and_back(name: str, dtype: torch.dtype) -> None:
    make, shape = INVERTIBLE[name]
    torch.manual_seed(0)
    module, x = make().to(dtype).eval(), torch.randn(6, *shape, dtype=dtype)
    y = module(x)
    torch.testing.assert_close(module.inverse(y), x, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(module(module.inverse(y)), y, rtol=0, atol=TOLERANCE[dtype])
    assert "invertible" in capabilities(module)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", INVERTIBLE)
def test_a_machine_inverts_its_pass_in_training_and_in_evaluation(
    name: str, dtype: torch.dtype, training: bool
) -> None:
    make, shape = INVERTIBLE[name]
    torch.manual_seed(0)
    machine = Machine(make().to(dtype), zk.theta.Null(), zk.targets.Null()).train(training)
    x, state = IO(3 * torch.randn(6, *shape, dtype=dtype) + 1), State()
    if name in ("tanh", "sigmoid", "sequence"):
        x = IO(x.f.clamp(-3, 3))
    y = machine.remember(x, state).detach()
    machine.remember(IO(torch.randn(6, *shape, dtype=dtype)), State())  # another pass moves the running statistics
    back = machine.inverse(y, state)
    torch.testing.assert_close(back.f, x.f, rtol=0, atol=10 * TOLERANCE[dtype])
    torch.testing.assert_close(machine.frozen(back, state).f, y.f, rtol=0, atol=10 * TOLERANCE[dtype])
    assert machine.training is training
    assert not back.f.requires_grad


def test_a_softmax_comes_back_but_for_a_constant(float64: None) -> None:
    module, x = modules.Softmax(), torch.randn(5, 4)
    back = module.inverse(module(x))
    difference = x - back
    torch.testing.assert_close(difference, difference[:, :1].expand(5, 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(difference[:, 0], x.logsumexp(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(module(back), module(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_targets_that_no_input_reaches_have_finite_inverses(dtype: torch.dtype) -> None:
    y = torch.tensor([[-7.0, 0.0, 1.0, 1.2]], dtype=dtype)
    for module in (modules.Sigmoid(), modules.Tanh(), modules.Softmax()):
        assert module.inverse(y).isfinite().all()
    eps = modules.Sigmoid(eps=0.1).inverse(torch.tensor([-1.0, 0.1, 0.9, 2.0]))
    torch.testing.assert_close(eps, torch.logit(torch.tensor([0.1, 0.1, 0.9, 0.9])))


def test_an_invertible_linear_begins_as_a_rotation(float64: None) -> None:
    weight = modules.InvertibleLinear(5).weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(5))


def test_booleans_are_coded_in_floats_and_back() -> None:
    x = torch.tensor([[True, False]])
    module = modules.BoolToSigned()
    assert module(x).tolist() == [[1.0, -1.0]]
    assert module(x).dtype == torch.get_default_dtype()
    assert torch.equal(module.inverse(module(x)).bool(), x)
    assert torch.equal(modules.SignedToBool()(module(x)), module.inverse(module(x)))


def test_the_delta_rule_reads_the_slopes_of_tanh_and_sigmoid(float64: None) -> None:
    for activation in (modules.Tanh(), modules.Sigmoid()):
        assert linear_parts(modules.Sequential(modules.InvertibleLinear(3), activation)) is not None
        x = torch.randn(4, 3, requires_grad=True)
        y = activation(x)
        (wanted,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(slope(activation, y.detach()), wanted)


def test_a_batch_norm_in_training_says_where_its_inverse_is() -> None:
    with pytest.raises(RuntimeError, match=r"evaluation mode, got training.*Machine.inverse"):
        modules.BatchNorm1d(3).inverse(torch.zeros(2, 3))


def test_a_singular_weight_is_named() -> None:
    layer = modules.InvertibleLinear(2)
    layer.weight.data.zero_()
    with pytest.raises(RuntimeError, match=r"expected a regular weight, got a singular one of \[2, 2\]"):
        layer.inverse(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: modules.Sequential(modules.Tanh(), nn.ReLU()), TypeError, "got ReLU at position 1"),
        (lambda: modules.LeakyReLU(0.0), ValueError, "slope > 0, got 0.0"),
        (lambda: modules.Sigmoid(0.5), ValueError, "Sigmoid expected 0 < eps < 0.5, got 0.5"),
        (lambda: modules.Tanh(0.0), ValueError, "Tanh expected 0 < eps < 0.5, got 0.0"),
        (lambda: modules.Softmax(0), ValueError, "got 0, which is the row"),
        (lambda: modules.Reshape((2, 3), (5,)), ValueError, r"got \(2, 3\) and \(5,\)"),
        (lambda: modules.Reshape((-1, 3), (-3,)), ValueError, "write every size"),
        (lambda: modules.Permute(0, 1), ValueError, r"each of 1, 2, ... once, got \(0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], nn.Module], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_batch_norm_without_running_statistics_is_inverted_in_its_pass(float64: None) -> None:
    machine = Machine(modules.BatchNorm1d(3, track_running_stats=False), zk.theta.Null(), zk.targets.Null())
    x, state = IO(torch.randn(6, 3) + 2), State()
    y: Tensor = machine.remember(x, state).f.detach()
    torch.testing.assert_close(machine.inverse(IO(y), state).f, x.f)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_linear_layer_in_a_short_dtype_is_inverted(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = zk.modules.InvertibleLinear(3).to(dtype)
    x = torch.randn(4, 3, dtype=dtype)
    back = layer.inverse(layer(x))
    assert back.dtype == dtype
    torch.testing.assert_close(back, x, rtol=0.05, atol=0.05)
