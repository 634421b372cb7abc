"""What a recorder's rows become: words, a picture, a frame, TensorBoard's scalars."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zenkai_core import Chain, Machine, Recorder, cross_entropy, targets, theta
from zenkai_core.diagnostics import read

WELL = {"cost": 1.0, "local_theta": 0.1, "relative": 0.5, "update_ratio": 1e-3, "dead": 0.0, "update_angle": 20.0}


def verdicts(**changed: Any) -> list[tuple[str, str]]:
    rows = [{"step": i, "layer": "hidden", **WELL, **changed} for i in range(4)]
    return [(f.verdict, f.reason) for f in read(rows)]


@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, "well", "takes 0.1 of its own cost, its update lies 20 degrees"),
        ({"cost": float("nan")}, "unstable", "not a finite number in 4 of 4"),
        ({"local_theta": -0.1}, "unstable", "raised its own cost in 100 % of updates"),
        ({"update_ratio": 0.5}, "unstable", "an update is 0.5 of the parameters"),
        ({"relative": 0.0}, "starved", "its target lies 0 of its output away"),
        ({"update_ratio": 1e-9}, "starved", "stands still"),
        ({"y_acceptance": 0.0}, "starved", "the search of its y rule accepted nothing"),
        ({"dead": 0.75}, "dead", "75 % of its units"),
        ({"update_angle": 120.0}, "misled", "its update lies 120 degrees"),
        ({"target_angle": 95.0}, "misled", "its target lies 95 degrees"),
    ],
)
def test_each_complaint_names_its_figure(changed: dict[str, Any], verdict: str, words: str) -> None:
    ((found, reason),) = verdicts(**changed)
    assert found == verdict
    assert words in reason


def test_a_layer_may_have_several_complaints() -> None:
    assert [v for v, _ in verdicts(dead=1.0, update_angle=100.0)] == ["dead", "misled"]


def test_a_frozen_layer_is_not_said_to_stand_still() -> None:
    assert [v for v, _ in verdicts(update_ratio=0.0)] == ["well"]


def test_a_fine_run_raises_no_alarm() -> None:
    torch.manual_seed(0)
    layer = Machine(nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    nn.init.zeros_(layer.module.weight)  # the first update is infinitely long beside it
    nn.init.zeros_(layer.module.bias)
    x = torch.randn(50, 3)
    t = x @ torch.randn(3, 2) + torch.randn(50, 2)
    with Recorder(layer) as recorder:
        for _ in range(60):
            layer.learn(x, t)
        assert recorder.read().startswith("Machine: well")
        for _ in range(200):  # nothing is left but rounding
            layer.learn(x, t)
        recorder.clear()
        for _ in range(60):
            layer.learn(x, t)
    assert "unstable" not in recorder.read()


def test_steps_beyond_a_near_target_to_a_lower_loss_are_no_instability() -> None:
    def of(whole: float | None) -> str:
        return read([{"step": 0, "layer": "0", **WELL, "local_theta": -3.0, "global_theta": whole}])[0].verdict

    assert (of(0.01), of(-0.01), of(None)) == ("well", "unstable", "unstable")


@pytest.mark.parametrize(("falls", "verdict"), [([-0.5, 0.1, 0.1], "unstable"), ([-0.1, 0.2, 0.2], "well")])
def test_a_third_of_rising_steps_is_unstable_where_they_raise_more_than_the_others_lower(
    falls: list[float], verdict: str
) -> None:
    assert read([{"step": 0, "layer": "0", **WELL, "local_theta": f} for f in falls])[0].verdict == verdict


def test_angles_that_scatter_around_ninety_degrees_mislead_nobody() -> None:
    def of(angles: list[float]) -> str:
        return read([{"step": i, "layer": "0", **WELL, "update_angle": a} for i, a in enumerate(angles)])[0].verdict

    assert of([80.0, 103.0] * 4) == "well"
    assert of([95.0, 103.0] * 4) == "misled"


def test_only_the_newest_rows_are_read() -> None:
    rows = [{"step": i, "layer": "0", **WELL, "local_theta": -1.0 if i < 8 else 1.0} for i in range(10)]
    assert read(rows)[0].verdict == "unstable"
    assert read(rows, last=2)[0].verdict == "well"


def test_reading_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected rows of a Recorder and last >= 1, got 0 rows"):
        read([])
    with pytest.raises(ValueError, match="last=0"):
        read([{"step": 0, "layer": "0"}], last=0)


@pytest.fixture
def recorded() -> Recorder:
    torch.manual_seed(0)
    net = Chain(
        Machine(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), theta.Gradient(lr=1e-2), targets.Gradient()),
        Machine(nn.Linear(3, 2), theta.Gradient(lr=1e-2), targets.Gradient(), cross_entropy),
    )
    with Recorder(net) as recorder:
        for _ in range(5):
            net.learn(torch.randn(8, 4), torch.randint(2, (8,)))
    return recorder


def test_one_call_reads_a_run_in_words(recorded: Recorder) -> None:
    assert [line.split(": ")[:2] for line in recorded.read().splitlines()] == [["1", "well"], ["0", "well"]]


def test_a_diverging_run_is_said_to_be_unstable() -> None:
    torch.manual_seed(0)
    net = Machine(nn.Linear(3, 3), theta.Gradient(torch.optim.SGD, lr=10.0), targets.Null())
    x, t = torch.randn(8, 3), torch.randn(8, 3)
    with Recorder(net) as recorder:
        for _ in range(10):
            net.learn(x, t)
    assert "raised its own cost in 100 %" in recorder.read()


def test_one_call_draws_a_panel_for_each_quantity(recorded: Recorder, tmp_path: Path, monkeypatch: Any) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    recorded.plot(tmp_path / "layers.png", "a run")
    titles = {axes.get_title() for axes in drawn[0].axes if axes.get_title()}
    assert {"cost", "distance", "update angle", "local theta", "global x"} <= titles
    cost = next(axes for axes in drawn[0].axes if axes.get_title() == "cost")
    assert [line.get_label() for line in cost.lines] == ["1", "0"]
    assert cost.lines[1].get_ydata().tolist() == [r["cost"] for r in recorded.rows() if r["layer"] == "0"]
    assert (tmp_path / "layers.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plot expected recorded rows, got none"):
        Recorder(nn.Sequential(Machine(nn.Linear(1, 1), theta.Null(), targets.Null()))).plot(tmp_path / "x.png")


def test_a_frame_has_a_row_for_each_row(recorded: Recorder) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = recorded.frame()
    assert isinstance(table, pandas.DataFrame)
    assert table["cost"].tolist() == [r["cost"] for r in recorded.rows()]
    assert list(table.columns[:3]) == ["step", "layer", "cost"]


def test_without_pandas_the_remedy_is_named(recorded: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="frame expected pandas, got no such package"):
        recorded.frame()


def test_tensorboard_gets_every_figure_at_its_update(recorded: Recorder) -> None:
    class Writer:
        def __init__(self) -> None:
            self.scalars: dict[tuple[str, int], float] = {}

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.scalars[tag, step] = value

        def flush(self) -> None: ...

    writer = Writer()
    recorded.to_tensorboard(writer)
    expected = {
        (f"{row['layer']}/{name}", row["step"]): value
        for row in recorded.rows()
        for name, value in row.items()
        if name not in ("step", "layer") and value is not None
    }
    assert writer.scalars == expected


def test_a_directory_gets_tensorboards_own_files(recorded: Recorder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        recorded.to_tensorboard(tmp_path)
        written = EventAccumulator(str(tmp_path)).Reload().Scalars("0/cost")
    assert [event.value for event in written] == pytest.approx(
        [r["cost"] for r in recorded.rows() if r["layer"] == "0"]
    )


def test_without_tensorboard_the_remedy_is_named(
    recorded: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="expected tensorboard, got no such package: pip install tensorboard"):
        recorded.to_tensorboard(tmp_path)
