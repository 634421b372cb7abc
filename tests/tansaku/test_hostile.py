"""Users' functions and callers that do what they should not: a clear error, or no harm."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tansaku
from tansaku import (
    ALGORITHMS,
    GA,
    Bounds,
    Gaussian,
    HillClimb,
    Individual,
    ModuleObjective,
    Objective,
    Population,
    Search,
)
from tansaku.functional import standardised_weights
from tansaku.storage import Storages, buffer
from tansaku.testing import sphere


def test_an_objective_that_changes_its_argument_is_refused() -> None:
    def shifting(x: Tensor) -> Tensor:
        x -= 1.0
        return sphere(x)

    with pytest.raises(RuntimeError, match=r"expected fn to leave its argument as it is, got it changed in place"):
        tansaku.minimize(shifting, x0=torch.ones(5), algorithm="ga", max_generations=3)


def test_an_objective_that_writes_by_numpy_is_refused_at_its_first_call() -> None:
    def shifting(x: Tensor) -> Tensor:
        array = x.numpy()
        array -= 1.0  # torch counts no version
        return sphere(x)

    with pytest.raises(RuntimeError, match=r"expected fn to leave its argument as it is, got it changed in place"):
        tansaku.minimize(shifting, x0=torch.ones(5), algorithm="pso", max_generations=3)


def test_a_function_of_one_candidate_may_write_to_it() -> None:
    def shifted(x: Tensor) -> float:
        array = x.numpy()
        array -= 3.0
        return float((array**2).sum())

    result = tansaku.minimize(shifted, shape=3, algorithm="pso", vectorized=False, max_evaluations=500)
    assert result.value == shifted(result.best["x"].clone())


def test_candidates_assessed_one_by_one_answer_alike() -> None:
    answers = iter([{"value": 1.0, "violation": torch.zeros(1)}, {"value": 1.0}])
    with pytest.raises(ValueError, match=r"expected fn to return \['value', 'violation'\] for every candidate, got "):
        Objective(lambda x: next(answers), vectorized=False)(Individual({"x": torch.ones(2)}).populate(2))


@pytest.mark.parametrize("algorithm", ["pso", "ga", "hill_climb", "cma_es"])
def test_an_objective_answers_every_generation_alike(algorithm: str) -> None:
    calls = []

    def changing(x: Tensor) -> Tensor:
        calls.append(1)
        return x if len(calls) == 3 else sphere(x)

    with pytest.raises(ValueError, match=r"expected values \[k, \*batch_shape\] as before, got shape"):
        tansaku.minimize(changing, shape=3, algorithm=algorithm, max_generations=9)


@pytest.mark.parametrize("x0", [torch.tensor([math.nan, 1.0]), {"w": torch.tensor([-math.inf])}])
def test_a_start_that_is_not_finite_is_refused(x0: Any) -> None:
    with pytest.raises(ValueError, match=r"expected finite genes to start from, got 1 of '[xw]' that are NaN or inf"):
        tansaku.minimize(sphere, x0=x0)


def test_a_start_without_genes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a start with genes, got 'x' of shape \[1, 0\]; give it some"):
        Search("pso", Objective(sphere), Individual({"x": torch.ones(0)}))


@pytest.mark.parametrize("name", [name for name, make in ALGORITHMS.items() if "real" in make.needs.dtypes])
def test_no_algorithm_stays_at_a_start_of_one_candidate(name: str) -> None:
    needs = ALGORITHMS[name].needs
    if needs.objectives == "many" or needs.descriptor:
        pytest.skip("asks for more than a cost")
    whole = Objective(lambda genes: sphere(genes["x"]) + sphere(genes["w"][..., 0]))
    search = Search(name, whole, Individual({"x": torch.ones(4), "w": torch.ones(2, 1)}))
    search.run(max_generations=40)
    assert float(search.value) < 6.0
    assert len({tuple(x) for x in search.ask()["x"].tolist()}) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GA(select=3), "expected select to be an operator, got 3; pass an instance"),  # type: ignore[arg-type]
        (lambda: HillClimb(mutate=Gaussian), "expected mutate to be an operator, got the class Gaussian"),  # type: ignore[arg-type]
        (lambda: GA(mutate={"x": Gaussian}), "expected mutate to be an operator, got the class Gaussian"),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_operator_is_refused_when_the_algorithm_is_made(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_a_plain_function_as_an_assessor_fails_with_a_hint() -> None:
    with pytest.raises(TypeError) as caught:
        Search("pso", lambda x: x**2, Individual({"x": torch.ones(2)})).step()  # type: ignore[operator]
    assert caught.value.__notes__ == [
        "A search hands its assessor a Population: wrap a function of tensors in Objective."
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2**70}, r"expected seed < 2\*\*64, got 1180591620717411303424; take a smaller one"),
        ({"std": math.inf}, "expected a finite std > 0, got inf"),
        ({"std": {"x": 1.0, "zz": 2.0}}, r"expected std for names among \['x'\], got \['zz'\]; drop these"),
        ({"shape": 0}, "expected every size of shape >= 1, got 0; pass 1 or more"),
    ],
)
def test_settings_that_no_search_could_use_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tansaku.minimize(sphere, **{"shape": 2, **options})


def test_an_objective_that_asks_for_gradients_marks_no_gene() -> None:
    def marking(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x.requires_grad_()
            return sphere(x)

    search = Search(GA(k=6), Objective(marking), Individual({"x": torch.ones(3)}))
    for _ in range(4):
        search.step()
    assert not search.ask()["x"].requires_grad
    assert not search.state.parents["x"].requires_grad


@pytest.mark.parametrize("answer", [None, "a"])
def test_an_answer_that_is_no_number_is_refused_in_words(answer: Any) -> None:
    with pytest.raises(TypeError, match="expected fn to return a number for each candidate, got"):
        Objective(lambda x: answer, vectorized=False)(Individual({"x": torch.ones(2)}).populate(2))


def test_a_large_cost_of_half_precision_genes_stays_finite() -> None:
    population = Individual({"x": torch.ones(2, dtype=torch.float16)}).populate(2)
    assert Objective(lambda x: 1e5, vectorized=False)(population).cost.tolist() == [1e5, 1e5]


@pytest.mark.parametrize("value", [1, "loop", None])
def test_vectorized_is_one_of_three_values(value: Any) -> None:
    with pytest.raises(ValueError, match="expected vectorized True, False or 'vmap'"):
        Objective(sphere, vectorized=value)


@pytest.mark.parametrize("scale", [1e20, 1e-23, 1.0])
def test_standardised_weights_do_not_depend_on_the_unit_of_cost(scale: float) -> None:
    cost = torch.tensor([1.0, 2.0, 4.0, 8.0])
    torch.testing.assert_close(standardised_weights(cost * scale), standardised_weights(cost))


def test_standardised_weights_of_half_precision_costs_are_right() -> None:
    cost = torch.tensor([100.0, 400.0, 900.0, 1600.0])
    expected = standardised_weights(cost)
    torch.testing.assert_close(standardised_weights(cost.half()).float(), expected, rtol=2e-3, atol=2e-3)


def test_genes_that_the_module_lacks_are_refused() -> None:
    net = nn.Linear(3, 1)
    objective = ModuleObjective(net, lambda run: run(torch.ones(1, 3)).square().mean())
    with pytest.raises(ValueError, match=r"expected a parameter 'weigth' of shape \[1, 3\], got none among"):
        objective(Population({"weigth": torch.zeros(4, 1, 3)}))
    with pytest.raises(ValueError, match=r"expected a parameter 'weight' of shape \[3, 1\], got \[1, 3\]"):
        objective(Population({"weight": torch.zeros(4, 3, 1)}))


@pytest.mark.parametrize("bounds", [[(-5, 5), (10, 20)], ("a", 1), (None, 1.0), (True, 2.0)])
def test_bounds_that_are_no_numbers_or_tensors_are_refused(bounds: Any) -> None:
    message = r"expected (lower and upper of all genes as numbers or tensors|bounds as \(lower, upper\)).*, got"
    with pytest.raises((TypeError, ValueError), match=message):
        tansaku.minimize(sphere, shape=2, bounds=bounds, max_generations=1)


@pytest.mark.parametrize("std", [torch.tensor(-1.0), torch.tensor([1.0, float("nan")]), -1.0])
def test_a_negative_standard_deviation_is_refused(std: Any) -> None:
    with pytest.raises(ValueError, match="expected std"):
        Gaussian(std)
    with pytest.raises(ValueError, match="expected std"):
        tansaku.GaussianSampler(std)


def test_a_standard_deviation_per_candidate_is_refused() -> None:
    start = Individual({"x": torch.ones(3)})
    with pytest.raises(ValueError, match=r"expected std of 'x' to broadcast against event_shape \[3\], got \[16, 1\]"):
        Search(HillClimb(k=16, std=torch.ones(16, 1)), Objective(sphere), start).step()
    with pytest.raises(ValueError, match=r"expected std to broadcast against event_shape \[3\], got \[4, 1, 3\]"):
        Gaussian(torch.ones(4, 1, 3))(start.populate(16), torch.Generator())
    with pytest.raises(ValueError, match=r"expected std of 'x' to broadcast"):
        tansaku.minimize(sphere, shape=3, std=torch.ones(16, 1), max_generations=1)


@pytest.mark.parametrize("algorithm", [tansaku.PSO, 5])
def test_an_algorithm_that_is_none_is_refused_in_words(algorithm: Any) -> None:
    with pytest.raises(TypeError, match="expected an algorithm's name or an instance, got"):
        tansaku.minimize(sphere, shape=2, algorithm=algorithm, max_generations=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_device_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"expected a device that is here, got cuda: [^\n]*; leave device out"):
        tansaku.minimize(sphere, shape=2, device="cuda", max_generations=1)


def test_names_of_genes_are_strings() -> None:
    with pytest.raises(TypeError, match="expected names in genes to be strings, got 0; use '0'"):
        Individual({0: torch.ones(1)})  # type: ignore[dict-item]


def test_a_limit_may_stand_for_one_name_of_several() -> None:
    mutate = tansaku.PerName({"x": tansaku.Limit(Gaussian(1.0), {"x": torch.tensor([1])}), "y": Gaussian(1.0)})
    before = Individual({"x": torch.zeros(3), "y": torch.zeros(2)}).populate(4)
    after = mutate(before, torch.Generator().manual_seed(0))
    assert (after["x"][:, [0, 2]] == 0).all()
    assert (after["x"][:, 1] != 0).all()
    assert (after["y"] != 0).all()


def test_memory_that_another_process_may_hold_is_not_handed_out_again() -> None:
    storages, shape = Storages(), (1 << 19,)
    with storages:
        first = buffer(shape, torch.float32, torch.device("cpu"))
        assert first is not None
        place = first.data_ptr()
        del first
        again = buffer(shape, torch.float32, torch.device("cpu"))
        assert again is not None
        assert again.data_ptr() == place
        again.untyped_storage().share_memory_()
        place = again.data_ptr()
        del again
        other = buffer(shape, torch.float32, torch.device("cpu"))
        assert other is not None
        assert other.data_ptr() != place


def test_memory_held_by_others_is_forgotten_by_the_pool() -> None:
    storages = Storages()
    with storages:
        held = [buffer((1 << 19,), torch.float32, torch.device("cpu")) for _ in range(60)]
    assert sum(len(pool) for pool in storages._pool.values()) <= 16
    assert len({x.data_ptr() for x in held if x is not None}) == 60


def test_a_checkpoint_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    tansaku.checkpoint.save({"a": 1}, tmp_path / "checkpoint")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("plain", "checkpoint")]
    assert modes[0] == modes[1]


def test_a_killed_save_leaves_at_most_one_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *paths: os._exit(9))
    for _ in range(3):
        child = os.fork()
        if child == 0:
            tansaku.checkpoint.save({"a": 1}, tmp_path / "checkpoint")
        os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_while_the_history_is_summed_up_loses_no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    history = tansaku.History()
    for i in range(5):
        history.record(torch.tensor([float(i), 2.0]), 2 * i)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "isfinite", lambda x: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            _ = history.best
    assert history.best.shape[0] == len(history) == 5


def test_objects_say_what_they_are() -> None:
    search = Search(HillClimb(k=4), Objective(sphere), Individual({"x": torch.ones(3)}))
    assert "HillClimb" in repr(search)
    assert "x: torch.float32 [3]" in repr(search)
    search.step()
    assert repr(search.history) == "History(2 generations, maximize=False)"
    assert Bounds(0, 1) == Bounds(0, 1)


def test_a_cost_on_another_device_is_refused() -> None:
    message = r"expected value on cpu like the genes, got meta; return it with .to\(genes.device\)"
    with pytest.raises(ValueError, match=message):
        tansaku.minimize(lambda x: sphere(x).to("meta"), shape=2, max_generations=1)


@pytest.mark.parametrize(
    "repeated", [{"x0": torch.zeros(2), "shape": 2}, {"x0": Individual({"x": torch.zeros(2)}), "shape": 3}]
)
def test_genes_that_are_given_twice_are_refused(repeated: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected (either shape= or x0=, got both; give one|x0 with one tensor of)"):
        tansaku.minimize(sphere, max_generations=1, **repeated)


def test_a_module_parameter_that_is_named_wrongly_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"expected names among \['bias', 'weight'\], got 'weigth'"):
        Individual.from_module(nn.Linear(2, 1), ["weigth"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda x: {"value": sphere(x), "descriptor": x[:2, :2]},
            r"expected descriptor with shape .* = \[30, d\], got",
        ),
        (lambda x: {"value": sphere(x), "violation": x[:2, :2]}, r"expected violation with shape .* = \[30, v\], got"),
        (lambda x: {"value": sphere(x)[:, None, None]}, r"expected value with shape .* = \[30\], got \[30, 1, 1\]"),
    ],
)
def test_an_answer_of_a_wrong_shape_is_refused_at_the_start(answer: Any, message: str) -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Any:
        calls.append(len(x))
        return answer(x)

    with pytest.raises(ValueError, match=message):
        tansaku.minimize(counted, shape=2, algorithm="pso", max_generations=9)
    assert len(calls) == 1
