"""Seeds the global generators around a call of a user's function from the search that asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from tansaku.assessors.asking import asking
from tansaku.population import Population


def seed_of(population: Population) -> int | None:
    """A seed that depends on the random numbers and the generation of the search that asked; None without a search.

    The generator of the search is read and not advanced, so that a search draws the same with and without this.
    """
    search = asking(population)
    if search is None:
        return None
    digest = hashlib.blake2b(search.generator.get_state().numpy().data, digest_size=8)
    digest.update(str(search.generations).encode())
    return int.from_bytes(digest.digest(), "big") >> 1  # below 2**63


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators of the CPU and of ``device``, and restores them at the end.

    Args:
        seed: None leaves the generators alone.
        device: where the genes are.
    """
    if seed is None:
        yield
        return
    with ExitStack() as stack:
        stack.callback(torch.default_generator.set_state, torch.default_generator.get_state())
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            module = torch.get_device_module(device)
            stack.callback(module.set_rng_state, module.get_rng_state(device), device)
            if device.index is not None and hasattr(module, "device"):
                stack.enter_context(module.device(device))
            module.manual_seed(seed)
        yield
