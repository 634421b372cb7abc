"""The conformance suites once more, with every tensor on another device: `pytest tests/device --device cuda`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tansaku import ALGORITHMS, Bounds, Individual, Objective, Population, Search, minimize
from tansaku.testing import ALGORITHM_CHECKS, check_algorithm, check_operator, sphere
from zenkai_core.testing import check_machine

pytestmark = pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # torch's own, once a process
TESTS = Path(__file__).parents[1]
MACHINES = ("normed", "chain", "delta", "trees", "searched", "searched_outputs")
COMPILED = "tell_is_deterministic_and_compiles"  # a minute for all algorithms; once more on a GPU says nothing new


def beside(name: str) -> ModuleType:
    """Another file of tests, for the operators and machines that it names."""
    path = TESTS / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPERATORS: dict[str, Any] = beside("tansaku/test_testing_operator.py").OPERATORS
CONFORMANCE = beside("zenkai_core/test_conformance.py")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    name = request.config.getoption("--device")
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError) as error:
        pytest.skip(f"needs a device {name}: {str(error).splitlines()[0]}")
    return torch.device(name)


@pytest.mark.parametrize("check", [check for check in ALGORITHM_CHECKS if check != COMPILED])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_keeps_its_promises(name: str, check: str, device: torch.device) -> None:
    check_algorithm(ALGORITHMS[name], device=device, only=[check])


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_keeps_its_promises(name: str, device: torch.device) -> None:
    check_operator(OPERATORS[name], device=device)


@pytest.mark.parametrize("name", MACHINES)
def test_our_machines_conform(name: str, device: torch.device) -> None:
    make = getattr(CONFORMANCE, name)

    def there(*args: Any, **settings: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
        machine, x, t = make(*args, **settings)
        return machine.to(device), x.to(device), t.to(device)

    check_machine(there)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_search_saved_there_goes_on_here_and_there(name: str, device: torch.device, tmp_path: Path) -> None:
    algorithm = ALGORITHMS[name]()
    if algorithm.needs.objectives == "many" or algorithm.needs.descriptor or "real" not in algorithm.needs.dtypes:
        pytest.skip("the others are covered by the suite")
    start = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    there = Search(algorithm, Objective(sphere), Population({"x": start.to(device)}))
    there.run(max_generations=3)
    there.save(tmp_path / "saved")
    again = Search(algorithm, Objective(sphere), Population({"x": start.to(device)}))
    again.load(tmp_path / "saved")
    there.step()
    again.step()
    assert torch.equal(there.best["x"], again.best["x"])
    assert again.best["x"].device.type == device.type


def test_minimize_stays_where_it_is_told(device: torch.device) -> None:
    result = minimize(sphere, shape=4, device=device, bounds=(-5.0, 5.0), max_evaluations=2000, progress=False)
    assert isinstance(result.best, Individual)
    assert result.best["x"].device.type == device.type
    assert float(result.value) < 1e-6


def test_a_cost_on_another_device_is_refused(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("needs two devices")
    with pytest.raises(ValueError, match=r"expected value on .* like the genes, got cpu; return it with .to"):
        minimize(lambda x: sphere(x).cpu(), shape=2, device=device, max_generations=1)
    box = Bounds(torch.zeros(2), torch.ones(2))  # ends may be anywhere: they follow the genes
    assert minimize(sphere, shape=2, device=device, bounds=box, max_evaluations=200, progress=False).evaluations > 0
