"""A cache for small tensors that every generation would make anew."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")


def cached(size: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Remembers the last ``size`` answers of a function, but while Dynamo traces, which cannot."""

    def remembering(function: Callable[P, T]) -> Callable[P, T]:
        known = cast(Callable[P, T], lru_cache(size)(function))

        @wraps(function)
        def answer(*args: P.args, **kwargs: P.kwargs) -> T:
            return (function if torch.compiler.is_dynamo_compiling() else known)(*args, **kwargs)

        return answer

    return remembering
