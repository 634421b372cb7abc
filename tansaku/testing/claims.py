"""What both suites share: claims with their checks, fingerprints of tensors, and random numbers left alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from tansaku.states import pack

T = TypeVar("T")


class Suite(Generic[T]):
    """Checks in the order in which they run, each with the claim that it puts to the test."""

    def __init__(self) -> None:
        self.checks: dict[str, tuple[str, Callable[[T], None]]] = {}

    def claim(self, words: str) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
        """Decorator: the function raises AssertionError, or anything else, if ``words`` do not hold."""

        def register(check: Callable[[T], None]) -> Callable[[T], None]:
            self.checks[check.__name__.lstrip("_")] = (words, check)
            return check

        return register

    def run(self, who: str, subject: T, only: Iterable[str]) -> None:
        """Runs all checks, or those named.

        Raises:
            AssertionError: the first claim that fails, in words.
            ValueError: no check of that name.
        """
        names = list(only)
        unknown = sorted(set(names) - set(self.checks))
        if unknown:
            raise ValueError(f"expected checks among {list(self.checks)}, got {unknown}; see the suite's docstring")
        for name in names or self.checks:
            words, check = self.checks[name]
            try:
                check(subject)
            except AssertionError as error:
                raise AssertionError(f"{who}: expected that {words} [{name}]; {error}") from error
            except Exception as error:
                got = f"got {type(error).__name__}: {error}"
                raise AssertionError(f"{who}: expected that {words} [{name}]; {got}") from error


def require(holds: bool | Tensor, detail: str) -> None:
    """An AssertionError with ``detail`` unless ``holds``."""
    if not bool(holds):
        raise AssertionError(detail)


def refused(kinds: type[Exception] | tuple[type[Exception], ...], call: Callable[[], Any], *words: str) -> None:
    """``call`` raises one of ``kinds`` with a message that contains one of ``words``.

    Raises:
        AssertionError: it does not.
    """
    try:
        call()
    except kinds as error:
        if not any(word in str(error) for word in words):
            raise AssertionError(f"the error should mention {' or '.join(words)}, got: {error}") from error
    except Exception as error:
        _wrong(kinds, error)
    else:
        _wrong(kinds, None)


def _wrong(kinds: type[Exception] | tuple[type[Exception], ...], error: Exception | None) -> NoReturn:
    names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    got = "nothing was raised" if error is None else f"got {type(error).__name__}: {error}"
    raise AssertionError(f"expected {names}, {got}") from error


def fingerprint(value: Any) -> str:
    """A digest of every bit of a population, a state, or anything else that `tansaku.states.pack` takes."""
    digest = hashlib.blake2b()
    for part in _bytes(pack(value)):
        digest.update(part)
    return digest.hexdigest()


def _bytes(packed: Any) -> Iterator[bytes | memoryview]:
    if isinstance(packed, Tensor):
        yield f"{packed.dtype}{tuple(packed.shape)}".encode()
        whole = packed.detach().cpu().clone(memory_format=torch.contiguous_format)  # of one element too
        yield whole.flatten().view(torch.uint8).numpy().data
    elif isinstance(packed, Mapping):
        for key in packed:
            yield f"{key}:".encode()
            yield from _bytes(packed[key])
    elif isinstance(packed, list):
        yield f"{len(packed)}".encode()
        for item in packed:
            yield from _bytes(item)
    else:
        yield repr(packed).encode()


def tensors_of(packed: Any) -> Iterator[Tensor]:
    """Every tensor in what `tansaku.states.pack` gave."""
    if isinstance(packed, Tensor):
        yield packed
    elif isinstance(packed, Mapping | list):
        for item in packed.values() if isinstance(packed, Mapping) else packed:
            yield from tensors_of(item)


@contextmanager
def nothing_drawn_elsewhere(what: str) -> Iterator[None]:
    """Within, no global random state moves: torch's, numpy's or Python's.

    Raises:
        AssertionError: one did.
    """
    before = _global_states()
    yield
    moved = [name for name, state in _global_states().items() if state != before[name]]
    require(not moved, f"{what} drew from the global random state of {' and '.join(moved)}; use the noise passed in")


def _global_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is what is watched
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (name, np.asarray(keys).tobytes(), *rest),
        "random": random.getstate(),
    }


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether all genes agree: booleans and integers exactly, real ones within ``tolerance`` of the largest."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = max(1.0, float(b.abs().max()))
    return bool(((a - b).abs() <= tolerance * scale).all())
