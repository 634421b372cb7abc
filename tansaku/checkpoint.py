"""Nested dictionaries of tensors and numbers on disk: no code inside, whole or not at all, checked by a digest.

The file is a header line, the SHA-256 of what follows, and a safetensors archive whose metadata holds the tree. It is
written to a temporary file beside its place, synchronised, and moved there, so that a run that is killed while it
saves leaves the last checkpoint as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

_HEADER = b"tansaku checkpoint 1\n"


def save(tree: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes ``tree`` (dictionaries, lists, tensors, numbers, strings, None) to ``path``.

    Raises:
        TypeError: something else in the tree.
        OSError: the folder does not exist or cannot be written.
    """
    from safetensors.torch import save as archive

    tensors: dict[str, Tensor] = {}
    outline = json.dumps(_outline(tree, tensors))
    payload = archive(tensors, {"tree": outline})
    target = Path(path)
    temporary = target.with_name(f".{target.name}.part")  # one name: a killed save leaves at most one of them
    try:
        with open(temporary, "wb") as file:
            file.write(_HEADER + hashlib.sha256(payload).digest() + payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or one that was cut short or changed.
    """
    from safetensors import safe_open

    data = Path(path).read_bytes()
    digest, payload = data[len(_HEADER) : len(_HEADER) + 32], data[len(_HEADER) + 32 :]
    if not data.startswith(_HEADER):
        raise ValueError(f"expected a tansaku checkpoint, got another kind of file at {path}; pass what save() wrote")
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError(f"expected a whole checkpoint at {path}, got one cut short or changed; use an earlier one")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "payload.safetensors"
        copy.write_bytes(payload)
        with safe_open(copy, framework="pt") as archive:
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
            outline = json.loads(archive.metadata()["tree"])
    tree: dict[str, Any] = _fill(outline, tensors)
    return tree


def _outline(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree as JSON, every tensor replaced by its number in ``tensors``."""
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": {str(key): _outline(value, tensors) for key, value in tree.items()}}
    if isinstance(tree, list | tuple):
        return [_outline(value, tensors) for value in tree]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(
        f"expected tensors, numbers, strings, lists and dictionaries, got {type(tree).__name__}; convert it"
    )


def _fill(outline: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(outline, dict):
        if "tensor" in outline:
            return tensors[outline["tensor"]]
        return {key: _fill(value, tensors) for key, value in outline["dict"].items()}
    if isinstance(outline, list):
        return [_fill(value, tensors) for value in outline]
    return outline
