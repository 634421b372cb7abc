"""Nested dictionaries of tensors and numbers on disk: no code inside, whole or not at all, checked by a digest.

The file is a header line with the format's version, the SHA-256 of what follows, and a safetensors archive whose
metadata holds the tree. It is written to a temporary file beside its place, synchronised, and moved there, so that a
run that is killed while it saves leaves the last checkpoint as it was. Every save has a temporary file of its own, so
that several processes may save to one path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import time
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor

VERSION = 2
"""The version of the format that `save` writes. `load` also reads version 1, which has no settings."""

_HEADER = b"tansaku checkpoint %d\n"
_DIGEST = 32
_LONGEST = 180  # octets of a name; file systems allow 255, of which the temporary file's ending takes up to 75
_DAY = 24 * 3600.0
_writing: set[str] = set()  # names of this process's temporary files; a signal handler may save during a save


def save(tree: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes ``tree`` (dictionaries, lists, tensors, numbers, strings, None) to ``path``.

    A file that exists keeps its mode. If ``path`` is a symbolic link, its target is written and the link stays.

    Raises:
        TypeError: something else in the tree.
        OSError: the folder does not exist or cannot be written.
    """
    from safetensors.torch import save as archive

    tensors: dict[str, Tensor] = {}
    outline = json.dumps(_outline(tree, tensors))
    payload = archive(tensors, {"tree": outline})
    target = Path(os.path.realpath(path))
    _remove_stale(target)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT,
            "expected a folder to save the checkpoint in, got none there; create it, or change path",
            str(target.parent),
        )
    temporary = target.with_name(f".{_short(target.name)}.{_host()}.{os.getpid()}.{secrets.token_hex(6)}.part")
    _writing.add(temporary.name)
    try:
        with open(temporary, "xb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            file.write(_HEADER % VERSION + hashlib.sha256(payload).digest() + payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _writing.discard(temporary.name)
    _sync_folder(target.parent)


def _short(name: str) -> str:
    """The name of a file, or a digest of it where the name of the temporary file would be too long."""
    octets = name.encode(errors="surrogateescape")
    return name if len(octets) <= _LONGEST else hashlib.sha256(octets).hexdigest()


def _host() -> str:
    """The computer's name, for file names: process numbers mean nothing on another computer with the same folder."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]


def _remove_stale(target: Path) -> None:
    """Removes temporary files of ``target`` that no process writes any more.

    A writer on this computer is looked up by its process number. One on another computer counts as dead if its file
    has not changed for a day.
    """
    pattern = re.compile(rf"\.{re.escape(_short(target.name))}\.(?:(.+)\.(\d+)\.[0-9a-f]{{12}}\.)?part")
    with contextlib.suppress(OSError):  # a folder that cannot be listed: the write itself raises
        for entry in os.scandir(target.parent):
            found = pattern.fullmatch(entry.name)
            if found is None or entry.name in _writing:
                continue
            with contextlib.suppress(OSError):
                if found[1] == _host():
                    stale = int(found[2]) == os.getpid() or not _alive(int(found[2]))
                else:
                    stale = time.time() - entry.stat().st_mtime > _DAY
                if stale:
                    os.unlink(entry.path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of another user
    return True


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power failure, where the system can do so for a folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):  # some file systems refuse; the file itself is whole
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, one of a newer version of the format, or one that was cut short or changed.
    """
    data = Path(path).read_bytes()
    header = re.match(rb"tansaku checkpoint (\d{1,9})\n", data)
    if header is None:
        raise ValueError(f"expected a tansaku checkpoint, got another kind of file at {path}; pass what save() wrote")
    payload = data[header.end() + _DIGEST :]
    if not 1 <= int(header[1]) <= VERSION:
        raise ValueError(
            f"expected a tansaku checkpoint of version 1 to {VERSION}, got version {int(header[1])} at {path}; "
            "load it with a newer version of the package"
        )
    if hashlib.sha256(payload).digest() != data[header.end() : header.end() + _DIGEST]:
        raise ValueError(f"expected a whole checkpoint at {path}, got one cut short or changed; use an earlier one")
    try:
        return _parsed(payload)
    except Exception as error:
        raise ValueError(
            f"expected a tree of tensors and numbers in the checkpoint at {path}, got a damaged one "
            f"({type(error).__name__}: {error}); use an earlier one"
        ) from error


def _parsed(payload: bytes) -> dict[str, Any]:
    from safetensors.torch import load as archived

    tensors = archived(payload)
    length = int.from_bytes(payload[:8], "little")
    outline = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["tree"])
    tree = _fill(outline, tensors)
    if not isinstance(tree, dict):
        raise TypeError(f"the tree is a {type(tree).__name__}, not a dictionary")
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
    if isinstance(tree, Integral):
        return int(tree)
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
