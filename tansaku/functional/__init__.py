"""Pure kernels: tensors in, tensors out, noise as an argument."""

from tansaku.functional.perturb import flip, jitter
from tansaku.functional.recombine import blend, exchange
from tansaku.functional.rows import align, cat_rows, put_rows, select, take_rows
from tansaku.functional.shape import (
    centred_costs,
    centred_ranks,
    finite_costs,
    ranked_weights,
    ranks,
    softmax_weights,
    standardised_weights,
    weighted_sum,
)

__all__ = [
    "align",
    "blend",
    "cat_rows",
    "centred_costs",
    "centred_ranks",
    "exchange",
    "finite_costs",
    "flip",
    "jitter",
    "put_rows",
    "ranked_weights",
    "ranks",
    "select",
    "softmax_weights",
    "standardised_weights",
    "take_rows",
    "weighted_sum",
]
