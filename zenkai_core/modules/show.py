"""One fitted tree in words, as `sklearn.tree.export_text` writes it, and as a picture. matplotlib loads when used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shown:
    """One tree and how to name what is in it.

    Attributes:
        branches: per node where (left, right) lead; a leaf leads to itself.
        feature, threshold: per node; the left branch is taken where the feature is at most the threshold.
        value: per node, one number per output, or the shares of the classes.
        features: names of the inputs.
        outputs: names of the outputs or classes; None shows them without.
        classifies: whether the values are shares of classes.
        decimals: of numbers.
        max_depth: below which a branch is cut off; None shows all.
    """

    branches: Sequence[Sequence[int]]
    feature: Sequence[int]
    threshold: Sequence[float]
    value: Sequence[Sequence[float]]
    features: Sequence[str]
    outputs: Sequence[str] | None
    classifies: bool
    decimals: int
    max_depth: int | None

    def is_leaf(self, node: int) -> bool:
        """Whether the node has no branches."""
        return self.branches[node][0] == node

    def is_cut(self, node: int, depth: int) -> bool:
        """Whether the branch that begins here, depth below the root, is cut off."""
        return self.max_depth is not None and depth > self.max_depth and not self.is_leaf(node)

    def depth_of(self, node: int) -> int:
        """Levels of nodes from here to the deepest leaf."""
        return 1 if self.is_leaf(node) else 1 + max(map(self.depth_of, self.branches[node]))

    def answer(self, node: int) -> str:
        """What a leaf says."""
        values = self.value[node]
        if self.classifies:
            top = max(range(len(values)), key=values.__getitem__)
            return f"class: {top if self.outputs is None else self.outputs[top]}"
        numbers = [f"{v:.{self.decimals}f}" for v in values]
        if self.outputs is None:
            return f"value: [{', '.join(numbers)}]"
        return ", ".join(f"{name}: {number}" for name, number in zip(self.outputs, numbers, strict=True))

    def question(self, node: int) -> tuple[str, str]:
        """The feature's name and the threshold that a node compares."""
        return self.features[self.feature[node]], f"{self.threshold[node]:.{self.decimals}f}"


def text(tree: Shown) -> str:
    """The tree as lines, the left branch first."""
    lines: list[str] = []

    def write(node: int, depth: int) -> None:
        indent = "|   " * depth + "|---"
        if tree.is_cut(node, depth):
            lines.append(f"{indent} truncated branch of depth {tree.depth_of(node)}")
        elif tree.is_leaf(node):
            lines.append(f"{indent} {tree.answer(node)}")
        else:
            name, threshold = tree.question(node)
            for sign, child in zip(("<=", "> "), tree.branches[node], strict=True):
                lines.append(f"{indent} {name} {sign} {threshold}")
                write(child, depth + 1)

    write(0, 0)
    return "\n".join(lines)


def draw(tree: Shown) -> Any:
    """The tree as a `matplotlib.figure.Figure`: questions in boxes, to the left where the answer is yes."""
    from matplotlib.figure import Figure

    places: dict[int, tuple[float, int]] = {}
    columns = 0

    def place(node: int, depth: int) -> float:
        nonlocal columns
        if tree.is_leaf(node) or tree.is_cut(node, depth):
            across, columns = float(columns), columns + 1
        else:
            across = sum(place(child, depth + 1) for child in tree.branches[node]) / 2
        places[node] = across, depth
        return across

    place(0, 0)
    levels = 1 + max(depth for _, depth in places.values())
    wide = 1.0 + 0.06 * max(len(_label(tree, node, depth)) for node, (_, depth) in places.items())
    figure = Figure(figsize=(min(max(4.0, wide * columns), 100.0), 1.1 * levels + 0.4), layout="tight")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(-levels + 0.5, 0.5)
    for node, (across, depth) in places.items():
        if not tree.is_leaf(node) and not tree.is_cut(node, depth):
            for child, word in zip(tree.branches[node], ("yes", "no"), strict=True):
                end, below = places[child]
                axes.plot([across, end], [-depth, -below], color="0.6", linewidth=1, zorder=1)
                axes.text((across + end) / 2, -(depth + below) / 2, word, size=7, color="0.4", ha="center")
        colour = "#dbe9f6" if tree.is_leaf(node) else "white"
        box = {"boxstyle": "round", "facecolor": colour, "edgecolor": "0.4"}
        axes.text(across, -depth, _label(tree, node, depth), size=8, ha="center", va="center", bbox=box, zorder=2)
    return figure


def _label(tree: Shown, node: int, depth: int) -> str:
    if tree.is_cut(node, depth):
        return f"({tree.depth_of(node)} levels)"
    return tree.answer(node) if tree.is_leaf(node) else "{} <= {}".format(*tree.question(node))
