"""No rule: the parameters stay as they are."""

from __future__ import annotations

from zenkai_core.machine import Machine, StepTheta
from zenkai_core.state import State
from zenkai_core.values import IO


class Null(StepTheta):
    """For a layer without parameters, or one that is left as initialised."""

    by_gradient = delivers = True
    learns = False

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Nothing."""

    def step(self, machine: Machine) -> None:
        """Nothing."""
