"""`check_machine`: the published conformance suite of learning machines, for ours and for a user's own."""

from __future__ import annotations

from collections.abc import Collection

import torch

from zenkai_core.state import NeedsLabels
from zenkai_core.testing.autograd_claims import AUTOGRAD_CLAIMS
from zenkai_core.testing.claims import CLAIMS
from zenkai_core.testing.subject import ClaimError, Make, expect_made

__all__ = ["CLAIMS", "ClaimError", "check_machine"]


def check_machine(make: Make, *, skip: Collection[str] = ()) -> None:
    """Runs every claim of the suite (the keys of `CLAIMS`) on fresh machines.

    Args:
        make: `make()` -> (machine, x, t): a new machine with a batch and the targets that its `learn` takes. Given a
            parameter n, `make(n=2)` makes it with two iterations in a rule: then the claim on iterations runs too.
        skip: names of claims that the machine does not make, for example {"learning lowers the mean cost"} for one that
            does not learn.

    Raises:
        ClaimError: naming the first claim that fails, or whose check the machine breaks off by an error of its own.
        TypeError: make is no function, or gives something else than a machine with a batch.
        ValueError: skip names an unknown claim.
    """
    for name in [name for name in skip if name not in CLAIMS]:
        raise ValueError(f"check_machine expected names of claims to skip, got {name!r}: choose from {list(CLAIMS)}")
    with torch.random.fork_rng():
        expect_made(make)
    for name, claim in CLAIMS.items():
        if name in skip:
            continue
        with torch.random.fork_rng():
            try:
                claim(make)
            except NeedsLabels as error:
                if name not in AUTOGRAD_CLAIMS:  # a machine that needs labels has no claim to make about autograd
                    raise ClaimError(f"{name}: its check was broken off by {error}") from error
            except ClaimError as broken:
                raise ClaimError(f"{name}: {broken}") from broken
            except Exception as error:
                raise ClaimError(f"{name}: its check was broken off by {type(error).__name__}: {error}") from error
