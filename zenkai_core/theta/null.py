"""No rule: the parameters stay as they are."""

from __future__ import annotations

from ..machine import Machine, StepTheta
from ..state import State
from ..values import IO


class Null(StepTheta):
    """For a layer without parameters, or one that is left as initialised."""

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Nothing."""

    def step(self, machine: Machine) -> None:
        """Nothing."""
