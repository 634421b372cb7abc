"""The search that experiments without gradients share: one for each sample, around a layer's own outputs."""

from __future__ import annotations

from typing import Any

import tansaku
from zenkai_core import targets

SEARCHES = ("cem", "ga", "hill_climb", "openai_es", "snes")
"""What `--search` may put in the place of `smoothed`."""
GENERATIONS = 4  # of those, with as many candidates in all: a single generation of any would be the same draws


def smoothed(std: float, k: int) -> dict[str, Any]:
    """Return the algorithm and the reducer of one step against the gradient of the loss, smoothed by noise.

    The candidates are k / 2 antithetic pairs, every output `std` away from where it was, with signs from a Hadamard
    matrix, so that the outputs' effects do not mix; their mean, weighted by plain differences of cost and divided by
    the variance, estimates that gradient (Salimans et al. 2017, equation 1).
    """
    search = tansaku.HillClimb(k=k, std=std, adapt=False, orthogonal=True)
    return {"algorithm": search, "reduce": tansaku.WeightedMean("centred", step=std**-2)}


def own_target(name: str | None, k: int, std: float, *, relative: bool = False) -> targets.SearchY:
    """Return the rule for a layer's own target: `smoothed`, or the best that the algorithm of that name finds in k.

    `relative` says that `std` is in units of each output's spread in the batch.
    """
    if name is None:
        return targets.SearchY(**smoothed(std, k), relative=relative)
    settings: dict[str, Any] = {"mutate": tansaku.Gaussian(std)} if name == "ga" else {"std": std}
    search = tansaku.make(name, k=k // GENERATIONS, **settings)
    return targets.SearchY(search, generations=GENERATIONS, relative=relative)
