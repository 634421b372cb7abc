"""Saves and restores the global random states of torch, numpy and Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def restored() -> Iterator[None]:
    """Restores the global random states of torch (of all GPUs in use), numpy and Python at the end."""
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's function may draw from it
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if used else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002
