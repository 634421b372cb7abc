"""Costs per row: how far the outputs of a layer or network are from their target.

A criterion maps an output and its target to `[n]`, one cost per row, and never reduces over rows. Inside a network the
target of a layer is t = y - dL/dy (equation 2 of the paper), and 0.5 * the sum of squared errors (equation 3) has
exactly dL/dy as its gradient: therefore `sse` sums and halves.

A plain function (y, t) -> `[n]` is a criterion. An object may offer more, by these attributes:

- `gradient(y, t)`: the closed form of dcost/dy per tensor of y. Without it autograd differentiates the cost.
- `distance`: True if the target is a point among the outputs, where the cost is least; False for labels and
  probabilities. Without it the machine looks whether the criterion hands the target to a loss of torch for labels,
  such as `F.cross_entropy`.
- `normaliser(y, t)`: `[]`, what the sum of the costs is divided by to get their mean, if that is not the number of
  rows. torch divides a weighted cross entropy by the sum of the weights.
"""

from zenkai_core.criteria.base import (
    Cost,
    Criterion,
    averaged,
    checked,
    is_distance,
    output_gradient,
    per_row,
    unsuitable_target,
)
from zenkai_core.criteria.composed import SeesInputs, Utility, Weighted, at_inputs
from zenkai_core.criteria.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    Margin,
    SquaredError,
    ZeroOne,
    absolute_error,
    binary_cross_entropy,
    cross_entropy,
    huber,
    margin,
    sse,
    zero_one,
)
from zenkai_core.criteria.watched import takes_labels

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "Cost",
    "Criterion",
    "CrossEntropy",
    "Huber",
    "Margin",
    "SeesInputs",
    "SquaredError",
    "Utility",
    "Weighted",
    "ZeroOne",
    "absolute_error",
    "at_inputs",
    "averaged",
    "binary_cross_entropy",
    "checked",
    "cross_entropy",
    "huber",
    "is_distance",
    "margin",
    "output_gradient",
    "per_row",
    "sse",
    "takes_labels",
    "unsuitable_target",
    "zero_one",
]
