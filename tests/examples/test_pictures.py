from __future__ import annotations

import pytest

from common import pictures
from common.checkpoints import Run
from common.experiment import PAPER, Figures
from common.table import Line


def run(experiment: str, control: str | None = None, test: tuple[float, ...] = (0.5, 0.9), seed: int = 3) -> Run:
    layers = [{"hidden": {"distance": 2.0 / (i + 1), "local": 0.1}, "output": {}} for i in range(len(test))]
    return Run(experiment, "plain", control, "mnist", seed, planned_epochs=2, test=list(test), layers=layers)


def test_curves_of_few_networks_show_accuracy_of_all_and_layers_of_experiments() -> None:
    accuracy, distance, local, whole = pictures.curves([run("sign"), run("sign", "frozen", (0.6, 0.7))]).axes
    assert {line.get_label(): list(line.get_ydata()) for line in accuracy.lines} == {
        "sign": [0.5, 0.9],
        "sign (frozen)": [0.6, 0.7],
    }
    assert [(line.get_label(), list(line.get_xydata().flat)) for line in distance.lines] == [
        ("sign: hidden", [1, 2.0, 2, 1.0])
    ]
    assert [list(line.get_ydata()) for line in local.lines] == [[0.1, 0.1]]
    assert list(whole.lines) == []


def test_every_network_has_a_point_per_epoch() -> None:
    accuracy = pictures.curves([run("baseline", test=(0.5, 0.9)), run("sign", test=(0.1, 0.2, 0.3, 0.4))]).axes[0]
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[1, 2], [1, 2, 3, 4]]
    assert accuracy.get_xlabel() == "epoch"


def test_local_error_reduction_leaves_room_below_a_great_overshoot() -> None:
    overshot = run("sign")
    overshot.layers[0]["hidden"]["local"] = -9.0
    local = pictures.curves([overshot]).axes[2]
    local.autoscale_view()
    edge, lowest = (local.transAxes.inverted().transform(local.transData.transform((1.0, y)))[1] for y in (-9.0, 0.1))
    assert 0.02 < edge < lowest < 0.98


def test_curves_name_the_paper_of_their_equations() -> None:
    figure = pictures.curves([run("sign")])
    assert PAPER in figure.get_supxlabel()
    assert "equation 5 of the paper" in figure.axes[2].get_title()


@pytest.mark.parametrize("extra", [[run("a"), run("b"), run("c")], [run("sign", seed=4)]])
def test_curves_of_many_networks_or_seeds_have_a_panel_for_each_experiment(extra: list[Run]) -> None:
    runs = [run("sign"), run("sign", "frozen", (0.6, 0.7)), *extra]
    panels = pictures.curves(runs).axes
    assert [panel.get_title() for panel in panels] == list(dict.fromkeys(each.experiment for each in runs))
    lines = [(line.get_label(), list(line.get_ydata())) for line in panels[0].lines]
    assert lines[:2] == [("sign", [0.5, 0.9]), ("frozen", [0.6, 0.7])]
    assert sum(len(panel.lines) for panel in panels) == len(runs)


def line(name: str, figures: Figures, *accuracies: float) -> Line:
    return Line(name, "mnist", figures, 20, accuracies, accuracies, 0.5, None, 1.0, 1.0, None, 0)


def test_the_tables_picture_places_every_figure_by_its_error() -> None:
    lines = [line("sign", Figures(0.9, 0.95), 0.96, 0.98), line("other", Figures())]
    (axes,) = pictures.table(lines).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sign", "other"]
    points = {
        shown.get_label(): [(round(x, 6), y) for x, y in shown.get_xydata()]
        for shown in axes.lines
        if not shown.get_label().startswith("_")
    }
    assert points == {"frozen": [(0.5, 2), (0.5, 1)], "paper": [(0.1, 2)], "goal": [(0.05, 2)]}
    (ours,) = axes.containers
    assert ours.get_label() == "ours, ± sd over seeds"
    assert ours.lines[0].get_xydata().tolist() == [[pytest.approx(0.03), 2]]
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # better is further right
