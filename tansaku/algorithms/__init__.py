"""Search algorithms: one paper, one file; `make` builds them by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tansaku.algorithms.annealing import Annealing, AnnealingState
from tansaku.algorithms.base import Algorithm, Assessor, Needs
from tansaku.algorithms.bipop_cma_es import BIPOPCMAES
from tansaku.algorithms.cells import Centroids, Grid
from tansaku.algorithms.cem import CEM, CEMState
from tansaku.algorithms.cma_base import CMAState
from tansaku.algorithms.cma_es import CMAES
from tansaku.algorithms.cma_me import CMAEmitter
from tansaku.algorithms.de import DE, DEState
from tansaku.algorithms.emitters import Emitter, GaussianEmitter, IsoLineEmitter
from tansaku.algorithms.es import ES, ESState
from tansaku.algorithms.ga import GA, GAState
from tansaku.algorithms.hill_climb import HillClimb, HillClimbState
from tansaku.algorithms.ipop_cma_es import IPOPCMAES
from tansaku.algorithms.lm_ma_es import LMMAES, LMMAESState
from tansaku.algorithms.lshade import LSHADE, LSHADEState
from tansaku.algorithms.map_elites import MapElites, MapElitesState
from tansaku.algorithms.nsga2 import NSGA2, NSGA2State
from tansaku.algorithms.openai_es import OpenAIES, OpenAIESState
from tansaku.algorithms.pbil import PBIL, PBILState
from tansaku.algorithms.permutation_ga import PermutationGA, SwapOrInversion
from tansaku.algorithms.pgpe import PGPE, PGPEState
from tansaku.algorithms.pso import PSO, PSOState
from tansaku.algorithms.restarts import Restarts, RestartsState
from tansaku.algorithms.sampled import ravel, unravel
from tansaku.algorithms.sep_cma_es import SepCMAES
from tansaku.algorithms.shade import SHADE, SHADEState
from tansaku.algorithms.snes import SNES, SNESState
from tansaku.algorithms.steps import SGD, Adam, ClipUp, StepRule, TorchStep
from tansaku.algorithms.xnes import XNES, XNESState

ALGORITHMS: dict[str, Any] = {
    "annealing": Annealing,
    "bipop_cma_es": BIPOPCMAES,
    "cem": CEM,
    "cma_es": CMAES,
    "de": DE,
    "es": ES,
    "ga": GA,
    "hill_climb": HillClimb,
    "ipop_cma_es": IPOPCMAES,
    "lm_ma_es": LMMAES,
    "lshade": LSHADE,
    "map_elites": MapElites,
    "nsga2": NSGA2,
    "openai_es": OpenAIES,
    "pbil": PBIL,
    "permutation_ga": PermutationGA,
    "pgpe": PGPE,
    "pso": PSO,
    "sep_cma_es": SepCMAES,
    "shade": SHADE,
    "snes": SNES,
    "xnes": XNES,
}


def make(name: str, **settings: Any) -> Algorithm[Any]:
    """An algorithm by its name; settings that are None keep the algorithm's default.

    Args:
        name: a key of `ALGORITHMS`.
        settings: the algorithm's arguments; ``std`` is dropped for one that has no length scale, ``max_evaluations``
            for one that does not plan its course over a budget.

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
    "Adam",
    "Algorithm",
    "Annealing",
    "AnnealingState",
    "Assessor",
    "BIPOPCMAES",
    "CEM",
    "CEMState",
    "CMAES",
    "CMAEmitter",
    "CMAState",
    "Centroids",
    "ClipUp",
    "DE",
    "DEState",
    "ES",
    "ESState",
    "Emitter",
    "GA",
    "GAState",
    "GaussianEmitter",
    "Grid",
    "HillClimb",
    "HillClimbState",
    "IPOPCMAES",
    "IsoLineEmitter",
    "LMMAES",
    "LMMAESState",
    "LSHADE",
    "LSHADEState",
    "MapElites",
    "MapElitesState",
    "NSGA2",
    "NSGA2State",
    "Needs",
    "OpenAIES",
    "OpenAIESState",
    "PBIL",
    "PBILState",
    "PGPE",
    "PGPEState",
    "PSO",
    "PSOState",
    "PermutationGA",
    "Restarts",
    "RestartsState",
    "SGD",
    "SHADE",
    "SHADEState",
    "SNES",
    "SNESState",
    "SepCMAES",
    "StepRule",
    "SwapOrInversion",
    "TorchStep",
    "XNES",
    "XNESState",
    "make",
    "ravel",
    "unravel",
]
