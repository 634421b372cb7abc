"""Pure kernels: tensors in, tensors out, noise as an argument."""

from tansaku.functional.archive import Shelf, Version, nth_member
from tansaku.functional.copies import lazy_copy, shares_memory
from tansaku.functional.pareto import crowding_distances, dominates, pareto_ranks
from tansaku.functional.perturb import flip, jitter
from tansaku.functional.real_coded import polynomial, sbx
from tansaku.functional.recombine import blend, exchange
from tansaku.functional.repeats import keys, repeats
from tansaku.functional.rows import align, cat_rows, lowest, put_rows, select, take_rows
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
from tansaku.functional.volume import hypervolume

__all__ = [
    "Shelf",
    "Version",
    "align",
    "blend",
    "cat_rows",
    "centred_costs",
    "centred_ranks",
    "crowding_distances",
    "dominates",
    "exchange",
    "finite_costs",
    "flip",
    "hypervolume",
    "jitter",
    "keys",
    "lazy_copy",
    "lowest",
    "nth_member",
    "pareto_ranks",
    "polynomial",
    "put_rows",
    "ranked_weights",
    "ranks",
    "repeats",
    "sbx",
    "select",
    "shares_memory",
    "softmax_weights",
    "standardised_weights",
    "take_rows",
    "weighted_sum",
]
