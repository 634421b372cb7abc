"""Search algorithms: one paper, one file; `make` builds them by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tansaku.algorithms.base import Algorithm, Assessor, Needs
from tansaku.algorithms.cem import CEM, CEMState
from tansaku.algorithms.es import ES, ESState
from tansaku.algorithms.ga import GA, GAState
from tansaku.algorithms.hill_climb import HillClimb, HillClimbState
from tansaku.algorithms.openai_es import OpenAIES, OpenAIESState
from tansaku.algorithms.pgpe import PGPE, PGPEState
from tansaku.algorithms.bipop_cma_es import BIPOPCMAES
from tansaku.algorithms.cma_base import CMAState
from tansaku.algorithms.cma_es import CMAES
from tansaku.algorithms.ipop_cma_es import IPOPCMAES
from tansaku.algorithms.lm_ma_es import LMMAES, LMMAESState
from tansaku.algorithms.pso import PSO, PSOState
from tansaku.algorithms.restarts import Restarts, RestartsState
from tansaku.algorithms.sampled import ravel, unravel
from tansaku.algorithms.snes import SNES, SNESState
from tansaku.algorithms.steps import SGD, Adam, ClipUp, StepRule, TorchStep
from tansaku.algorithms.xnes import XNES, XNESState

ALGORITHMS: dict[str, Any] = {
    "cem": CEM,
    "es": ES,
    "ga": GA,
    "hill_climb": HillClimb,
    "openai_es": OpenAIES,
    "pgpe": PGPE,
    "pso": PSO,
    "snes": SNES,
    "xnes": XNES,
from tansaku.algorithms.sep_cma_es import SepCMAES
    "bipop_cma_es": BIPOPCMAES,
    "cma_es": CMAES,
    "ipop_cma_es": IPOPCMAES,
    "lm_ma_es": LMMAES,
    "sep_cma_es": SepCMAES,
}


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
    "CEM",
    "ES",
    "GA",
    "PGPE",
    "BIPOPCMAES",
    "CMAES",
    "IPOPCMAES",
    "LMMAES",
    "PSO",
    "SGD",
    "SNES",
    "XNES",
    "Adam",
    "Algorithm",
    "Assessor",
    "CEMState",
    "ClipUp",
    "ESState",
    "CMAState",
    "GAState",
    "HillClimb",
    "HillClimbState",
    "LMMAESState",
    "Needs",
    "OpenAIES",
    "OpenAIESState",
    "PGPEState",
    "PSOState",
    "SNESState",
    "StepRule",
    "TorchStep",
    "XNESState",
    "Restarts",
    "RestartsState",
    "SepCMAES",
    "make",
    "ravel",
    "unravel",
]
