"""One experiment a file; the file's name, with `-` for `_`, is the experiment's name on the command line."""

from __future__ import annotations

import importlib
import pkgutil

from common.experiment import Experiment

DEFAULT = ("baseline", "sign")


def known() -> list[str]:
    """Return the names of all experiments."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Experiment:
    """Return the experiment of this name, one of `known()`."""
    experiment: Experiment = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").EXPERIMENT
    return experiment
