"""Search algorithms: one paper, one file; `make` builds them by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tansaku.algorithms.annealing import Annealing, AnnealingState
from tansaku.algorithms.base import Algorithm, Assessor, Needs
from tansaku.algorithms.de import DE, DEState
from tansaku.algorithms.ga import GA, GAState
from tansaku.algorithms.hill_climb import HillClimb, HillClimbState
from tansaku.algorithms.lshade import LSHADE, LSHADEState
from tansaku.algorithms.pso import PSO, PSOState
from tansaku.algorithms.sampled import ravel, unravel
from tansaku.algorithms.shade import SHADE, SHADEState

ALGORITHMS: dict[str, Any] = {
    "annealing": Annealing,
    "de": DE,
    "ga": GA,
    "hill_climb": HillClimb,
    "lshade": LSHADE,
    "pso": PSO,
    "shade": SHADE,
}


def make(name: str, **settings: Any) -> Algorithm[Any]:
    """An algorithm by its name; settings that are None keep the algorithm's default.

    Args:
        name: a key of `ALGORITHMS`.
        settings: the algorithm's arguments; ``std`` is dropped for one that has no length scale, ``max_evaluations``
            for one that does not plan its budget.

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
    optional = {"std", "max_evaluations"}
    chosen = {
        key: value for key, value in settings.items() if value is not None and (key in known or key not in optional)
    }
    unknown = sorted(set(chosen) - known)
    if unknown:
        raise ValueError(f"expected settings of {name} among {sorted(known)}, got {unknown}; see {kind.__name__}")
    algorithm: Algorithm[Any] = kind(**chosen)
    return algorithm


__all__ = [
    "ALGORITHMS",
    "DE",
    "GA",
    "LSHADE",
    "PSO",
    "SHADE",
    "Algorithm",
    "Annealing",
    "AnnealingState",
    "Assessor",
    "DEState",
    "GAState",
    "HillClimb",
    "HillClimbState",
    "LSHADEState",
    "Needs",
    "PSOState",
    "SHADEState",
    "make",
    "ravel",
    "unravel",
]
