"""Search algorithms: one paper, one file; `make` builds them by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tansaku.algorithms.base import Algorithm, Assessor, Needs
from tansaku.algorithms.cells import Centroids, Grid
from tansaku.algorithms.cma_me import CMAEmitter
from tansaku.algorithms.emitters import Emitter, GaussianEmitter, IsoLineEmitter
from tansaku.algorithms.ga import GA, GAState
from tansaku.algorithms.hill_climb import HillClimb, HillClimbState
from tansaku.algorithms.map_elites import MapElites, MapElitesState
from tansaku.algorithms.nsga2 import NSGA2, NSGA2State
from tansaku.algorithms.pso import PSO, PSOState
from tansaku.algorithms.sampled import ravel, unravel

ALGORITHMS: dict[str, Any] = {"ga": GA, "hill_climb": HillClimb, "map_elites": MapElites, "nsga2": NSGA2, "pso": PSO}


def make(name: str, **settings: Any) -> Algorithm[Any]:
    """An algorithm by its name; settings that are None keep the algorithm's default.

    Args:
        name: a key of `ALGORITHMS`.
        settings: the algorithm's arguments; ``std`` is dropped for one that has no length scale.

    Raises:
        ValueError: an unknown name or setting.

    Example:
        >>> make("pso", k=10).k
        10
    """
    if name not in ALGORITHMS:
        raise ValueError(f"expected algorithm among {sorted(ALGORITHMS)}, got {name!r}; choose one or pass an instance")
    kind = ALGORITHMS[name]
    known = {field.name for field in fields(kind)}
    chosen = {key: value for key, value in settings.items() if value is not None and (key in known or key != "std")}
    unknown = sorted(set(chosen) - known)
    if unknown:
        raise ValueError(f"expected settings of {name} among {sorted(known)}, got {unknown}; see {kind.__name__}")
    algorithm: Algorithm[Any] = kind(**chosen)
    return algorithm


__all__ = [
    "ALGORITHMS",
    "GA",
    "NSGA2",
    "PSO",
    "Algorithm",
    "Assessor",
    "CMAEmitter",
    "Centroids",
    "Emitter",
    "GAState",
    "GaussianEmitter",
    "Grid",
    "HillClimb",
    "HillClimbState",
    "IsoLineEmitter",
    "MapElites",
    "MapElitesState",
    "NSGA2State",
    "Needs",
    "PSOState",
    "make",
    "ravel",
    "unravel",
]
