"""Whether a pass runs inside torch's `DistributedDataParallel`, which averages gradients over processes."""

from __future__ import annotations

import torch


def in_data_parallel() -> bool:
    """Whether `DistributedDataParallel` runs the present pass."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return getattr(torch.nn.parallel.DistributedDataParallel, "_active_ddp_module", None) is not None
