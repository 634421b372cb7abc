"""Checkpoints: settings, versions, damage, several writers, and states read in the middle of a generation."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

import tansaku
from tansaku import (
    GA,
    LSHADE,
    PGPE,
    PSO,
    Bounds,
    Gaussian,
    Individual,
    InputObjective,
    Objective,
    Restarts,
    Search,
    checkpoint,
)
from tansaku.algorithms import ALGORITHMS
from tansaku.states import pack, state, unpack
from tansaku.testing import functions
from tansaku.testing.claims import fingerprint

DATA = Path(__file__).parent / "data"
START = Individual({"x": torch.linspace(1, 2, 4)})


def sphere(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(-1)


def other_cost(x: torch.Tensor) -> torch.Tensor:
    return x.abs().sum(-1)


def rows(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (x - t).square().sum(-1)


SPHERE = Objective(sphere)


def saved_search(name: str) -> Search[Any]:
    """The search of the files in data/."""
    return Search(tansaku.make(name, k=8), Objective(functions.sphere), START, seed=3)


def bits(search: Search[Any]) -> str:
    return fingerprint(search.state_dict())


# files


def test_the_temporary_file_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    real = os.replace
    monkeypatch.setattr(checkpoint.os, "replace", lambda a, b: (names.append(Path(a).name), real(a, b)))
    for _ in range(3):
        checkpoint.save({"a": 1}, tmp_path / "c")
    assert len(set(names)) == 3


def test_stale_temporary_files_go_and_those_of_a_live_writer_stay(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    host = checkpoint._host()
    dead = tmp_path / f".c.{host}.{child}.{'0' * 12}.part"
    earlier = tmp_path / f".c.{host}.{os.getpid()}.{'1' * 12}.part"  # of an earlier process with the same number
    live = tmp_path / f".c.{host}.{os.getppid()}.{'2' * 12}.part"
    remote = tmp_path / f".c.another-host.1.{'3' * 12}.part"
    old = tmp_path / f".c.another-host.1.{'4' * 12}.part"
    other = tmp_path / f".cc.{host}.{child}.{'5' * 12}.part"
    for path in (dead, earlier, live, remote, old, other):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    checkpoint.save({"a": 1}, tmp_path / "c")
    assert set(tmp_path.iterdir()) == {tmp_path / "c", live, remote, other}


def test_a_save_keeps_the_mode_and_the_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "c", tmp_path / "link"
    checkpoint.save({"a": 1}, target)
    target.chmod(0o600)
    link.symlink_to(target)
    checkpoint.save({"a": 2}, link)
    assert link.is_symlink()
    assert checkpoint.load(target) == {"a": 2}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["c"]


def test_the_folder_is_synchronised_after_the_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, move = os.fsync, os.replace

    def fsync(number: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        sync(number)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    monkeypatch.setattr(checkpoint.os, "replace", lambda a, b: (done.append("move"), move(a, b)))
    checkpoint.save({"a": 1}, tmp_path / "c")
    assert done == ["file", "move", "folder"]


def test_loading_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save({"a": torch.ones(3)}, tmp_path / "c")
    real = open

    def reading(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        assert not set(mode) & set("wxa+"), f"opened {file} for writing"
        return real(file, mode, *rest, **options)

    monkeypatch.setattr("builtins.open", reading)
    monkeypatch.setattr("io.open", reading)
    monkeypatch.setattr("tempfile.mkdtemp", lambda *_: pytest.fail("made a temporary folder"))
    assert torch.equal(checkpoint.load(tmp_path / "c")["a"], torch.ones(3))


def test_two_writers_and_a_reader_of_one_path_never_see_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "same"
    checkpoint.save({"a": torch.zeros(20_000)}, path)
    children = []
    for i in range(2):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(30):
                    checkpoint.save({"a": torch.full((20_000,), float(i))}, path)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    for _ in range(60):
        read = checkpoint.load(path)["a"]
        assert bool((read == read[0]).all())
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["same"]


# versions and damage


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["pso", "ga"])
def test_a_file_of_each_version_loads_and_goes_on(version: int, name: str) -> None:
    search, whole = saved_search(name), saved_search(name)
    search.load(DATA / f"version_{version}_{name}.checkpoint")
    assert (search.generations, len(search.history)) == (5, 6)
    search.run(max_generations=12)
    whole.run(max_generations=12)
    assert torch.allclose(search.value, whole.value)  # the file may be of another processor


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    data = (DATA / "version_2_pso.checkpoint").read_bytes()
    (tmp_path / "new").write_bytes(data.replace(b"checkpoint 2\n", b"checkpoint 31\n", 1))
    with pytest.raises(ValueError, match="version 1 to 2, got version 31"):
        checkpoint.load(tmp_path / "new")
    search = saved_search("pso")
    with pytest.raises(ValueError, match="version 1 to 2, got version 3"):
        search.load_state_dict({**search.state_dict(), "format": 3})


def test_states_have_names_without_their_module_and_one_class_per_name() -> None:
    search = saved_search("pso")
    search.run(max_generations=1)
    packed = search.state_dict()["state"]
    assert packed["kind"] == "tansaku.PSOState"

    @state(name="mine")
    class Mine:
        x: int

    assert pack(Mine(3)) == {"kind": "mine", "fields": {"x": 3}}
    assert unpack(pack(Mine(3))) == Mine(3)
    with pytest.raises(ValueError, match="expected one state with the name 'mine'"):

        @state(name="mine")
        class Other:
            x: int


def damages(tree: Any) -> list[Any]:
    """Copies of a tree, each with one part removed, or replaced by something of another kind."""
    found: list[Any] = []
    if isinstance(tree, dict):
        for key in tree:
            if key in ("settings", "assess", "format"):
                continue
            found.append({name: x for name, x in tree.items() if name != key})
            found += [{**tree, key: other} for other in damages(tree[key])]
    elif isinstance(tree, torch.Tensor):
        found += ["text", tree.to(torch.complex64), torch.zeros(3, 1, 2, 5, 1, dtype=tree.dtype)]
    elif isinstance(tree, list):
        found += ["text", {"kind": 3}]
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        found += ["text", torch.zeros(2)]
    return found


@pytest.mark.parametrize("name", ["pso", "ga", "cma_es", "lshade"])
def test_a_damaged_state_is_one_value_error_and_changes_nothing(name: str) -> None:
    search = saved_search(name)
    search.run(max_generations=3)
    before, tree = bits(search), search.state_dict()
    for broken in damages(tree):
        with pytest.raises(ValueError, match="expected"):
            search.load_state_dict(broken)
        assert bits(search) == before


@pytest.mark.parametrize("outline", ["[1, 2", "3", '{"dict": {"a": {"tensor": "9"}}}', '{"list": 3}', '{"tensor": []}'])
def test_a_damaged_tree_in_a_valid_file_is_a_value_error(outline: str, tmp_path: Path) -> None:
    payload = save({"0": torch.ones(2)}, {"tree": outline})
    (tmp_path / "c").write_bytes(b"tansaku checkpoint 2\n" + hashlib.sha256(payload).digest() + payload)
    with pytest.raises(ValueError, match="expected a tree of tensors and numbers"):
        checkpoint.load(tmp_path / "c")


# moments


def test_what_was_asked_and_saved_is_asked_again_after_a_load(tmp_path: Path) -> None:
    for generations in (0, 1, 3):
        one, other = Search("pso", None, START, seed=1), Search("pso", None, START, seed=9)
        for _ in range(generations):
            one.tell(sphere(one.ask()["x"]))
        asked = one.ask()
        one.save(tmp_path / "c")
        other.load(tmp_path / "c")
        again = other.ask()
        assert torch.equal(again["x"], asked["x"])
        with pytest.raises(RuntimeError, match="second ask"):
            other.ask()
        one.tell(sphere(asked["x"]))
        other.tell(sphere(again["x"]))
        assert bits(one) == bits(other)


def test_a_state_read_by_another_thread_is_the_last_complete_generation() -> None:
    whole = Search(GA(k=20), SPHERE, START, seed=1)
    whole.run(max_generations=400)
    search, found, ended = Search(GA(k=20), SPHERE, START, seed=1), [], threading.Event()

    def read() -> None:
        while not ended.is_set():
            found.append(search.state_dict())
            time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    search.run(max_generations=400)
    ended.set()
    reader.join()
    for packed in found[:: max(1, len(found) // 15)]:
        again = Search(GA(k=20), SPHERE, START, seed=5)
        again.load_state_dict(packed)
        assert len(again.history) == (again.generations + 1 if again.state is not None else 0)
        again.run(max_generations=400)
        assert torch.equal(again.value, whole.value)
        assert torch.equal(again.history.median, whole.history.median)


def test_a_state_read_in_a_signal_handler_is_the_last_complete_generation() -> None:
    def fresh() -> Search[Any]:
        return Search(GA(k=20), SPHERE, START, seed=1)

    whole, bad, tried = fresh().run(max_generations=60), 0, 0
    before = signal.getsignal(signal.SIGALRM)
    try:
        for i in range(25):
            search, got = fresh(), []
            signal.signal(signal.SIGALRM, lambda *_, s=search, g=got: g.append(s.state_dict()))
            signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.0007 * i)
            search.run(max_generations=60)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if got and got[0]["generations"] < 60:
                again = fresh()
                again.load_state_dict(got[0])
                found = again.run(max_generations=60)
                tried, bad = tried + 1, bad + (found.value != whole.value or len(found.history) != 61)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert tried > 0
    assert bad == 0


# settings


def algorithm_pairs() -> list[Any]:
    wide = torch.tensor([1.0, 2.0, 3.0, 4.0])
    return [
        pytest.param(PSO(k=8), PSO(k=8, bounds=(-3.0, 3.0)), "bounds", id="bounds"),
        pytest.param(PSO(k=8, bounds=(-3.0, 3.0)), PSO(k=8, bounds=Bounds(-3.0, 3.0, "wrap")), "repair", id="repair"),
        pytest.param(PSO(k=8, std=wide), PSO(k=8, std=wide + 1), "std", id="tensor"),
        pytest.param(PSO(k=8, std={"x": 0.5}), PSO(k=8, std={"x": 0.25}), "std", id="mapping"),
        pytest.param(PSO(k=8), PSO(k=8, social=1.0), "social", id="number"),
        pytest.param(GA(k=8, mutate=Gaussian(0.1)), GA(k=8, mutate=Gaussian(0.2)), "mutate.std", id="operator"),
        pytest.param(Restarts(PSO(k=8)), Restarts(PSO(k=8, social=1.0)), "algorithm.social", id="nested"),
    ]


@pytest.mark.parametrize(("one", "other", "word"), algorithm_pairs())
def test_other_settings_are_refused_and_both_are_shown(one: Any, other: Any, word: str, tmp_path: Path) -> None:
    search = Search(one, SPHERE, START)
    search.run(max_generations=2)
    search.save(tmp_path / "c")
    same, wrong = Search(one, SPHERE, START, seed=4), Search(other, SPHERE, START)
    same.load(tmp_path / "c")
    assert bits(same) == bits(search)
    before = bits(wrong)
    with pytest.raises(ValueError, match=rf"got others \(.*{word}.*: saved .*, here ") as error:
        wrong.load(tmp_path / "c")
    assert "algorithm." in str(error.value)
    assert bits(wrong) == before


def test_another_objective_is_refused_but_other_chunks_are_not() -> None:
    search = Search(PSO(k=8), SPHERE, START)
    search.run(max_generations=2)
    saved = search.state_dict()
    for other, word in (
        (Objective(other_cost), "saved .*sphere, here .*other_cost"),
        (Objective(sphere, maximize=True), "maximize: saved False, here True"),
    ):
        with pytest.raises(ValueError, match=word):
            Search(PSO(k=8), other, START).load_state_dict(saved)
    context = {"t": torch.zeros(5, 4)}
    start = Individual({"x": torch.ones(5, 4)}, 1)
    one = Search(PSO(k=8), InputObjective(rows, context), start)
    one.run(max_generations=1)
    other_chunks = Search(PSO(k=8, compile=False), InputObjective(rows, context, chunk=2), start)
    other_chunks.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="context"):
        Search(PSO(k=8), InputObjective(rows, {"t": torch.ones(5, 4)}), start).load_state_dict(one.state_dict())


def test_a_planning_algorithm_needs_replan_for_another_budget(tmp_path: Path) -> None:
    search = Search(LSHADE(k=8, max_evaluations=400), SPHERE, START)
    search.run(max_generations=2)
    search.save(tmp_path / "c")
    longer = Search(LSHADE(k=8, max_evaluations=800), SPHERE, START)
    with pytest.raises(ValueError, match=r"saved 400, here 800.*replan=True"):
        longer.load(tmp_path / "c")
    longer.load(tmp_path / "c", replan=True)
    assert longer.generations == 2
    longer.run(max_evaluations=800)


def test_a_larger_budget_of_the_run_needs_no_word() -> None:
    search, longer = Search(PSO(k=8), SPHERE, START), Search(PSO(k=8), SPHERE, START)
    search.run(max_evaluations=50)
    longer.load_state_dict(search.state_dict())
    assert longer.run(max_evaluations=500).evaluations > 400


def test_a_lambda_is_not_compared_and_saving_warns_once(tmp_path: Path) -> None:
    search = Search(PSO(k=8), Objective(lambda x: x.square().sum(-1)), START)
    search.run(max_generations=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.save(tmp_path / "c")
        search.save(tmp_path / "c")
        other = Search(PSO(k=8), Objective(lambda x: x.abs().sum(-1)), START)
        other.load(tmp_path / "c")
    assert [w.category for w in caught] == [UserWarning]
    assert "not comparable" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_numbers_of_numpy_are_pythons_own_in_every_algorithm(name: str) -> None:
    algorithm = ALGORITHMS[name]
    assert type(algorithm(k=np.int64(8)).k) is int


def test_counts_of_numpy_run_and_save(tmp_path: Path) -> None:
    for algorithm in (PSO(k=np.int64(8), social=np.float32(1.5)), PGPE(k=np.int32(8)), GA(k=np.uint8(8))):
        search = Search(algorithm, SPHERE, START, seed=np.int64(3))
        search.run(max_generations=np.int64(2))
        search.save(tmp_path / "c")
        search.load(tmp_path / "c")


def test_an_optimizer_refuses_other_settings() -> None:
    def optimizer(**settings: Any) -> Any:
        return tansaku.optim.PSO([torch.nn.Parameter(torch.ones(3))], k=8, **settings)

    one = optimizer()
    one.step(lambda: one.param_groups[0]["params"][0].square().sum())
    optimizer().load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match=r"algorithm.social: saved .*, here 1.0"):
        optimizer(social=1.0).load_state_dict(one.state_dict())


def test_a_step_of_an_optimizer_that_fails_draws_the_same_numbers_again() -> None:
    def run(fails: bool) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = tansaku.optim.PSO([parameter], k=8)
        optimizer.step(lambda: parameter.square().sum())
        if fails:
            with pytest.raises(ZeroDivisionError):
                optimizer.step(lambda: 1 / 0)
        optimizer.step(lambda: parameter.square().sum())
        return parameter.detach()

    assert torch.equal(run(True), run(False))


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "a b*[x]?", "-x", ".hidden"])
def test_every_file_name_that_the_system_allows_can_be_saved_and_loaded(tmp_path: Path, name: str) -> None:
    checkpoint.save({"a": 1}, tmp_path / name)
    checkpoint.save({"a": 2}, tmp_path / name)
    assert checkpoint.load(tmp_path / name) == {"a": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_saving_into_a_missing_folder_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder.*change path: '.*missing'"):
        checkpoint.save({"a": 1}, tmp_path / "missing" / "file")


def test_a_bound_for_all_genes_is_the_same_setting_as_that_bound_for_each_gene() -> None:
    number, tensor = ((-1.0, 3.0), (torch.full((4,), -1.0), torch.full((4,), 3.0)))
    for one, other in ((number, tensor), (tensor, number)):
        saved, own = (Search(PSO(k=8, bounds=bounds), SPHERE, START, seed=1) for bounds in (one, other))
        saved.run(max_generations=2)
        own.load_state_dict(saved.state_dict())
        assert own.run(max_generations=4).value == saved.run(max_generations=4).value
    with pytest.raises(ValueError, match="bounds"):
        Search(PSO(k=8, bounds=(-1.0, 2.5)), SPHERE, START).load_state_dict(saved.state_dict())
