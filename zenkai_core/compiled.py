"""What machines do under `torch.compile`: the machine itself runs uncompiled, a module inside it compiled.

Autograd's node of a machine keeps the state of a pass, which the compiler cannot trace. Passes that need hooks or other
buffers inside the module run the module as it was before it was compiled, since compiled code may not call its hooks.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn


def uncompiled() -> AbstractContextManager[Any]:
    """What was compiled by `torch.compile` runs inside as it was before."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes seconds
        return nullcontext()
    return cast(AbstractContextManager[Any], torch.compiler.set_stance("force_eager"))


def exporting() -> bool:
    """Whether `torch.export` traces the present call."""
    known = getattr(torch.compiler, "is_exporting", None)
    if known is not None:
        return bool(known())
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


def original(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given, if it made this one; else the module.

    >>> layer = nn.Linear(2, 1)
    >>> original(layer) is layer
    True
    """
    return cast(nn.Module, module.__dict__.get("_modules", {}).get("_orig_mod", module))
