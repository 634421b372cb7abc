"""`Search`: why it stops, what it refuses, and that nothing is lost when it is interrupted, saved or killed."""

from __future__ import annotations

import copy
import pickle
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tansaku import (
    GA,
    PSO,
    Assessment,
    Bounds,
    HillClimb,
    Individual,
    Noise,
    Objective,
    Population,
    PSOState,
    Result,
    Search,
    checkpoint,
)
from tansaku.testing import sphere
from tansaku.testing.claims import fingerprint

SPHERE = Objective(sphere)
START = Individual({"x": torch.full((4,), 2.0)})


def search(assess: Any = SPHERE, k: int = 8, start: Any = START, **settings: Any) -> Search[Any]:
    return Search(PSO(k=k, bounds=(-5.0, 5.0)), assess, start, **settings)  # type: ignore[arg-type]


def bits(search: Search[Any]) -> str:
    return fingerprint({name: x for name, x in search.state_dict().items() if name != "history"})


# why it stops


def test_generations_are_counted_without_the_start() -> None:
    result = search().run(max_generations=7)
    assert (result.stopped, result.generations, result.evaluations) == ("max_generations", 7, 1 + 7 * 8)
    assert len(result.history) == 8
    assert result.history.evaluations == [1 + 8 * i for i in range(8)]


@pytest.mark.parametrize("budget", [1, 8, 9, 16, 17, 100])
def test_evaluations_are_never_exceeded_and_used_up(budget: int) -> None:
    calls = []
    result = search(lambda p: calls.append(p.k) or SPHERE(p)).run(max_evaluations=budget)
    assert result.stopped == "max_evaluations"
    assert result.evaluations == sum(calls) <= budget < result.evaluations + 8


def test_target_stops_in_either_direction() -> None:
    down = search().run(target=0.01, max_generations=500)
    assert down.stopped == "target"
    assert isinstance(down.value, float)
    assert down.value <= 0.01
    up = search(Objective(lambda x: -sphere(x), maximize=True)).run(target=-0.01, max_generations=500)
    assert up.stopped == "target"
    assert isinstance(up.value, float)
    assert up.value >= -0.01
    assert up.generations == down.generations


def test_target_needs_every_search_to_reach_it() -> None:
    centre = torch.tensor([0.0, 0.0, 100.0])  # the third lies outside the bounds
    fn = Objective(lambda x: (x - centre[:, None]).square().sum(-1))
    result = search(fn, start=Individual({"x": torch.ones(3, 4)}, 1)).run(target=1.0, max_generations=60)
    assert result.stopped == "max_generations"
    assert isinstance(result.value, torch.Tensor)
    assert (result.value <= 1.0).tolist() == [True, True, False]


def test_patience_counts_generations_without_a_better_value() -> None:
    values = iter([5.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 1.0])
    result = search(lambda p: p.assessed(Assessment(torch.full((p.k,), next(values))))).run(patience=3)
    assert (result.stopped, result.generations, result.value) == ("patience", 6, 3.0)


def test_seconds_stop_a_run() -> None:
    result = search().run(max_seconds=0.0)
    assert (result.stopped, result.generations) == ("max_seconds", 0)
    assert search().run(max_seconds=0.05, max_generations=10**9).stopped == "max_seconds"


def test_a_callback_stops_by_returning_true_and_all_are_called() -> None:
    seen: list[int] = []
    first = search(callbacks=[lambda s: s.generations == 3, lambda s: seen.append(s.generations)])
    assert first.run(max_generations=9).stopped == "callback"
    assert seen == [0, 1, 2, 3]  # the start is generation 0


def test_the_first_reason_in_order_is_named() -> None:
    result = search().run(max_generations=0, max_evaluations=1, target=1e9)
    assert result.stopped == "target"


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({}, "expected at least one of max_generations, .* got none; say when to stop"),
        ({"max_generations": -1}, "expected max_generations >= 0, got -1"),
        ({"max_generations": 1.5}, "expected max_generations to be an integer, got 1.5"),
        ({"max_evaluations": 0}, "expected max_evaluations >= 1, the candidates of the start, got 0"),
        ({"patience": 0}, "expected patience >= 1, got 0"),
        ({"max_seconds": -1.0}, "expected max_seconds in"),
        ({"target": float("nan")}, "expected target in .*, got nan"),
    ],
)
def test_wrong_budgets_are_refused_before_the_first_evaluation(budgets: dict[str, Any], message: str) -> None:
    def never(population: Population) -> Population:
        raise AssertionError("assessed")

    with pytest.raises((ValueError, TypeError), match=message):
        search(never).run(**budgets)


# ask and tell


def test_ask_and_tell_by_hand_is_the_same_run() -> None:
    by_itself, by_hand = search(), search(None)
    by_itself.run(max_generations=4)
    for i in range(5):
        asked = by_hand.ask()
        told = (SPHERE(asked), SPHERE(asked).assessment, SPHERE(asked).cost)[i % 3]
        by_hand.tell(told)  # type: ignore[arg-type]
    assert bits(by_hand) == bits(by_itself)


def test_the_start_is_asked_for_first_and_holds_the_models_own_weights() -> None:
    net = torch.nn.Linear(3, 2)
    asked = Search(HillClimb(), None, Individual.from_module(net)).ask()
    assert torch.equal(asked["weight"][0], net.weight)
    assert torch.equal(asked["bias"][0], net.bias)


def test_an_assessed_start_is_not_asked_for_again() -> None:
    start = SPHERE(START.populate(1))
    begun = search(None, start=start)
    assert begun.evaluations == 1
    assert begun.ask().k == 8


def test_asking_and_telling_out_of_turn_is_refused() -> None:
    s = search(None)
    with pytest.raises(RuntimeError, match=r"expected ask\(\) before tell\(\)"):
        s.tell(torch.zeros(1))
    asked = s.ask()
    with pytest.raises(RuntimeError, match=r"expected tell\(\) after ask\(\), got a second ask\(\)"):
        s.ask()
    with pytest.raises(ValueError, match="expected the population that was asked for, got other genes"):
        s.tell(SPHERE(START.populate(1)))
    with pytest.raises(ValueError, match="expected an assessed population, got one without an assessment"):
        s.tell(asked)
    with pytest.raises(ValueError, match=r"expected value with shape .* = \[1\], got \[2\]"):
        s.tell(torch.zeros(2))
    s.tell(torch.ones(1))
    s.ask()
    with pytest.raises(ValueError, match="expected maximize=False as before, got True; keep one direction"):
        s.tell(Assessment(torch.zeros(8), maximize=True))
    s.tell(torch.zeros(8))
    assert s.generations == 1


def test_without_an_assessor_it_cannot_step() -> None:
    with pytest.raises(RuntimeError, match="expected an assessor, got None; give Search one"):
        search(None).step()


def test_before_the_start_is_assessed_there_is_no_best() -> None:
    with pytest.raises(RuntimeError, match=r"expected an assessed start, got none yet; call step\(\) or run\(\)"):
        _ = search().best
    assert len(search().history) == 0


def test_a_start_outside_its_bounds_or_a_wrong_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the start of 'x' inside its bounds, got 4 genes outside"):
        search(start=Individual({"x": torch.full((4,), 9.0)}))
    with pytest.raises(TypeError, match="expected seed to be an integer, got nan"):
        search(seed=float("nan"))
    with pytest.raises(ValueError, match=r"expected algorithm among .* got 'magic'"):
        Search("magic", SPHERE, START)


def test_a_callers_tensors_are_left_alone() -> None:
    x = torch.full((4,), 2.0, requires_grad=True)
    result = Search(HillClimb(), SPHERE, Individual({"x": x})).run(max_generations=20)
    assert x.tolist() == [2.0] * 4
    assert x.grad is None
    assert not result.best["x"].requires_grad
    assert isinstance(result.value, float)
    assert result.value < 16.0


def test_traits_of_a_start_may_come_along() -> None:
    start = START.populate(3).with_traits(age=torch.arange(3))
    for algorithm in (HillClimb(k=4), GA(k=4), PSO(k=4)):
        result: Result = Search(algorithm, SPHERE, start).run(max_generations=3)  # type: ignore[arg-type]
        assert result.generations == 3


# nothing is lost


class Fails:
    """Raises at the given calls."""

    def __init__(self, error: BaseException, *calls: int) -> None:
        self.error, self.calls, self.call = error, calls, -1

    def __call__(self, population: Population) -> Population:
        self.call += 1
        if self.call in self.calls:
            raise self.error
        return SPHERE(population)


@pytest.mark.parametrize("call", [0, 1, 4])
def test_a_run_goes_on_after_an_exception_as_if_there_had_been_none(call: int) -> None:
    whole, broken = search(), search(Fails(ZeroDivisionError("simulator"), call))
    whole.run(max_generations=6)
    with pytest.raises(ZeroDivisionError, match="simulator"):
        broken.run(max_generations=6)
    broken.run(max_generations=6)
    assert bits(broken) == bits(whole)
    assert torch.equal(broken.history.spread, whole.history.spread)


def test_ctrl_c_returns_the_best_so_far_and_the_run_can_go_on() -> None:
    whole, broken = search(), search(Fails(KeyboardInterrupt(), 4))
    whole.run(max_generations=6)
    result = broken.run(max_generations=6)
    assert (result.stopped, result.generations) == ("interrupted", 3)
    assert result.value == float(result.history.best[-1]) == float(sphere(result.best["x"]))
    broken.run(max_generations=6)
    assert bits(broken) == bits(whole)


def test_ctrl_c_before_anything_was_found_is_not_hidden() -> None:
    with pytest.raises(KeyboardInterrupt):
        search(Fails(KeyboardInterrupt(), 0)).run(max_generations=1)


@pytest.mark.parametrize("algorithm", [PSO(k=8), GA(k=8), HillClimb(k=8)])
def test_a_saved_search_goes_on_bit_for_bit(algorithm: Any, tmp_path: Path) -> None:
    def fresh(seed: int) -> Search[Any]:
        return Search(algorithm, SPHERE, START, seed=seed)

    whole = fresh(1)
    whole.run(max_generations=9)
    for generations in (0, 1, 5):
        part = fresh(1)
        part.run(max_generations=generations)
        part.save(tmp_path / "run")
        resumed = fresh(2)
        resumed.load(tmp_path / "run")
        assert resumed.generations == generations
        result = resumed.run(max_generations=9)
        assert bits(resumed) == bits(whole)
        assert torch.equal(result.history.best, whole.history.best)
        assert torch.equal(result.history.median, whole.history.median)
        assert result.history.evaluations == whole.history.evaluations
    state = fresh(1)
    state.load_state_dict(part.state_dict())
    state.run(max_generations=9)
    assert bits(state) == bits(whole)


def test_a_search_saved_before_its_start_was_assessed_goes_on(tmp_path: Path) -> None:
    whole, part, resumed = search(seed=1), search(seed=1), search(seed=2, start=START.populate(3))
    whole.run(max_generations=3)
    part.save(tmp_path / "run")
    resumed.load(tmp_path / "run")
    resumed.run(max_generations=3)
    assert bits(resumed) == bits(whole)


def test_a_pending_ask_is_saved_too(tmp_path: Path) -> None:
    s = search(None)
    s.tell(SPHERE(s.ask()))
    asked = s.ask()
    s.save(tmp_path / "run")
    other = search(None, seed=5)
    other.load(tmp_path / "run")
    assert torch.equal(other.ask()["x"], asked["x"])
    with pytest.raises(RuntimeError, match="got a second ask"):
        other.ask()
    other.tell(SPHERE(asked).cost)
    s.tell(SPHERE(asked))
    assert bits(other) == bits(s)


def test_a_state_of_another_algorithm_or_k_is_refused() -> None:
    state = search().state_dict()
    with pytest.raises(ValueError, match="expected the state of PSO with k = 9, got PSO with k = 8"):
        search(k=9).load_state_dict(state)
    with pytest.raises(ValueError, match="expected the state of GA with k = 8, got PSO with k = 8"):
        Search(GA(k=8), SPHERE, START).load_state_dict(state)


def test_a_state_kept_in_memory_is_not_changed_by_going_on() -> None:
    s = search()
    s.run(max_generations=3)
    state = s.state_dict()
    before = fingerprint(state)
    s.run(max_generations=6)
    assert fingerprint(state) == before


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copied_search_goes_on_by_itself(clone: Any) -> None:
    s = search()
    s.run(max_generations=3)
    other = clone(s)
    other.run(max_generations=6)
    assert (s.generations, other.generations) == (3, 6)
    s.run(max_generations=6)
    assert bits(s) == bits(other)


def test_a_progress_bar_counts_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    search().run(max_generations=5, progress=True)
    search().run(max_evaluations=50, progress=True)
    search().run(max_generations=5, progress=None)  # no terminal, no bar
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "49/50" in shown
    assert "best=" in shown


# checkpoints


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path) -> None:
    tree = {
        "tensor": torch.arange(3),
        "tensors": [torch.tensor(True), torch.zeros(0, 2), torch.tensor(1.5, dtype=torch.bfloat16)],
        "dict": {"a": None, "b": True, "c": 3, "d": 0.1, "e": "text"},
        "inf": float("inf"),
    }
    checkpoint.save(tree, tmp_path / "c")
    assert fingerprint(checkpoint.load(tmp_path / "c")) == fingerprint(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_checkpoint_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    s = search()
    s.run(max_generations=2)
    s.save(tmp_path / "run")
    whole = (tmp_path / "run").read_bytes()
    for length in (0, 1, 10, 21, 40, 60, len(whole) // 2, len(whole) - 1):
        (tmp_path / "run").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"expected a (tansaku|whole) checkpoint"):
            s.load(tmp_path / "run")


def test_one_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    s = search()
    s.run(max_generations=2)
    s.save(tmp_path / "run")
    whole = (tmp_path / "run").read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 97)):
        for bit in (0, 7):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            (tmp_path / "run").write_bytes(changed)
            with pytest.raises(ValueError, match=r"expected a (tansaku|whole) checkpoint"):
                s.load(tmp_path / "run")


def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = search()
    s.run(max_generations=2)
    s.save(tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    s.run(max_generations=4)
    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, name, lambda *args: (_ for _ in ()).throw(OSError("killed")))
            with pytest.raises(OSError, match="killed"):
                s.save(tmp_path / "run")
        assert (tmp_path / "run").read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1


def test_other_files_and_other_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"PK" + bytes(100))
    with pytest.raises(ValueError, match=r"expected a tansaku checkpoint, got another kind of file at .*other"):
        search().load(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        search().load(tmp_path / "none")
    with pytest.raises(TypeError, match=r"expected tensors, numbers, strings, .* got set; convert it"):
        checkpoint.save({"a": {1, 2}}, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(FileNotFoundError):
        checkpoint.save({}, tmp_path / "nowhere" / "c")


def test_bounds_hold_for_every_candidate_that_was_assessed() -> None:
    seen = []
    s = Search(GA(k=8, bounds=Bounds(-1.0, 2.0, "reflect")), lambda p: seen.append(p) or SPHERE(p), START)
    s.run(max_generations=20)
    assert all(bool(((p["x"] >= -1) & (p["x"] <= 2)).all()) for p in seen)


def test_what_the_caller_writes_into_the_start_later_does_not_reach_the_search() -> None:
    x0 = torch.ones(3)
    search = Search(PSO(k=6), Objective(lambda x: x.square().sum(-1)), Individual({"x": x0}))
    search.run(max_generations=1)
    x0.fill_(float("nan"))
    assert torch.isfinite(search.ask()["x"]).all()


def press_at(moment: str, pressed: dict[str, bool]) -> Search[PSOState]:
    """A search whose algorithm sends a real SIGINT in ``ask`` or ``tell`` once ``pressed`` says so."""

    @dataclass(frozen=True)
    class Interrupted(PSO):
        def ask(self, state: PSOState, noise: Noise) -> Population:
            asked = super().ask(state, noise)  # the random numbers have moved on
            if moment == "ask" and pressed.pop("now", None):
                signal.raise_signal(signal.SIGINT)
            return asked

        def tell(self, state: PSOState, asked: Population) -> PSOState:
            if moment == "tell" and pressed.pop("now", None):
                signal.raise_signal(signal.SIGINT)
            return super().tell(state, asked)

    return Search(Interrupted(k=6), SPHERE, START)


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("moment", ["ask", "tell"])
def test_ctrl_c_within_a_generation_waits_until_it_is_whole(moment: str) -> None:
    """A real signal that arrives inside the algorithm: the run ends, and going on equals an uninterrupted run."""
    pressed: dict[str, bool] = {}
    whole, parts = press_at(moment, {}), press_at(moment, pressed)
    expected = whole.run(max_generations=8)
    parts.run(max_generations=3)
    pressed["now"] = True
    assert parts.run(max_generations=8).stopped == "interrupted"
    result = parts.run(max_generations=8)
    assert result.stopped == "max_generations"
    assert result.value == expected.value
    assert result.evaluations == expected.evaluations
    assert torch.equal(result.history.median, expected.history.median)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("moment", ["ask", "tell"])
def test_ctrl_c_within_a_step_by_hand_waits_until_it_is_whole(moment: str) -> None:
    pressed: dict[str, bool] = {}
    search, whole = press_at(moment, pressed), press_at(moment, {})
    for _ in range(6):
        whole.step()
    search.step()
    pressed["now"] = True
    with pytest.raises(KeyboardInterrupt):
        search.step()
    while search.generations < 6:
        search.step()
    assert torch.equal(search.value, whole.value)
    assert search.evaluations == whole.evaluations
    assert len(search.history) == len(whole.history)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_in_a_search_inside_an_objective_ends_the_outer_run_too() -> None:
    pressed = {"now": False}

    def inner(x: torch.Tensor) -> torch.Tensor:
        if pressed.pop("now", None):
            signal.raise_signal(signal.SIGINT)
        return sphere(x)

    def outer(x: torch.Tensor) -> torch.Tensor:
        return sphere(x) + Search(PSO(k=4), Objective(inner), START, seed=1).run(max_generations=3).value

    search = Search(PSO(k=4), Objective(outer), START)
    search.run(max_generations=2)
    pressed["now"] = True
    assert search.run(max_generations=9).stopped == "interrupted"
    assert search.generations == 2


def test_a_users_own_handler_of_ctrl_c_is_left_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        pressed = {"now": True}
        search = press_at("tell", pressed)
        search.run(max_generations=3)
        assert heard == [signal.SIGINT]
        assert search.generations == 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reused_output_buffer_of_the_objective_changes_nothing_that_is_remembered() -> None:
    out = torch.empty(6)
    plain = Search(PSO(k=6), SPHERE, START.populate(6), seed=1)
    reused = Search(PSO(k=6), Objective(lambda x: torch.sum(x**2, -1, out=out)), START.populate(6), seed=1)
    for _ in range(5):
        plain.step()
        reused.step()
    assert torch.equal(plain.state.personal.cost, reused.state.personal.cost)


def test_an_assessed_start_is_copied() -> None:
    start = SPHERE(START.populate(3))
    search = Search(PSO(k=6), SPHERE, start)
    start.assessment.value.fill_(-100.0)
    assert float(search.value) == float(sphere(START["x"]))


def test_the_graph_of_a_told_cost_is_not_kept() -> None:
    search = Search(PSO(k=6), None, START)
    weight = torch.ones((), requires_grad=True)
    for _ in range(3):
        search.tell(weight * sphere(search.ask()["x"]))
    assert search.value.grad_fn is None
    assert not search.history.best.requires_grad


def test_a_told_population_needs_its_assessment_only() -> None:
    search = Search(PSO(k=6), None, START)
    search.tell(sphere(search.ask()["x"]))
    asked = search.ask()
    search.tell(SPHERE(Population(asked.genes)))  # without the velocities
    assert set(search.ask().traits) == {"velocity.x"}


def test_an_objective_whose_dtype_changes_is_cast_to_the_first() -> None:
    dtypes = iter([torch.float32, torch.float64] * 5)
    search = Search(GA(k=6), Objective(lambda x: sphere(x).to(next(dtypes))), START)
    result = search.run(max_generations=4)
    assert search.value.dtype == torch.float32
    assert result.generations == 4


@pytest.mark.parametrize("told", [[1.0], None, 3])
def test_telling_something_else_is_refused_in_words(told: Any) -> None:
    search = Search(PSO(k=6), None, START)
    search.ask()
    with pytest.raises((TypeError, ValueError), match=r"expected an assessed population.* got"):
        search.tell(told)


def test_a_state_over_other_genes_is_refused_and_changes_nothing() -> None:
    search = Search(PSO(k=6), SPHERE, START)
    search.run(max_generations=3)
    value = search.value
    other = Search(PSO(k=6), SPHERE, Individual({"x": torch.zeros(5, 4)}, 1))
    other.run(max_generations=1)
    with pytest.raises(ValueError, match=r"expected the state of a search over \{x: torch.float32 \[4\]\}"):
        search.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"expected what state_dict\(\) gave, got a dictionary without"):
        search.load_state_dict({})
    broken = {**search.state_dict(), "generator": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises((RuntimeError, TypeError)):
        search.load_state_dict({**broken, "generations": 77})
    assert torch.equal(search.value, value)
    assert search.generations == 3


def test_a_gene_may_have_any_name_and_be_loaded_again() -> None:
    names = {"kind": torch.ones(2), "mapping": torch.ones(1), "fields": torch.ones(3), "a.b": torch.ones(1)}
    cost = Objective(lambda genes: sum(sphere(x) for x in genes.values()))
    search = Search(GA(k=6), cost, Individual(names))
    search.run(max_generations=2)
    twin = Search(GA(k=6), cost, Individual(names))
    twin.load_state_dict(search.state_dict())
    assert torch.equal(twin.run(max_generations=4).history.median, search.run(max_generations=4).history.median)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, SPHERE, START), "expected an algorithm or its name, got 5"),
        ((PSO, SPHERE, START), "expected an algorithm or its name, got <class"),
        ((PSO(), 3, START), "expected an assessor such as Objective"),
        ((PSO(), SPHERE, torch.zeros(2)), r"expected a start as an Individual or a Population, got Tensor"),
    ],
)
def test_a_search_over_something_else_is_refused_in_words(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Search(*arguments)


def test_a_single_callback_outside_a_list_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match=r"expected callbacks as a list of functions, got .*; pass \[callback\]"):
        Search(PSO(), SPHERE, START, callbacks=print)  # type: ignore[arg-type]
