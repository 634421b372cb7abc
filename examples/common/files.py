"""Files that are either the old ones or the new ones, never half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from common.errors import UsageError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of a file: a reader, or a crash, meets the old or the new content and nothing between.

    Raises:
        UsageError: the file cannot be written; the old one is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path}: expected to write this file, got {error.strerror or error}; "
            "make room for it, then --resume continues after the last finished epoch"
        ) from error


def check_writable(directory: Path, *names: str) -> None:
    """Make a directory where it is missing, and see that these files can be written to it.

    Raises:
        UsageError: one cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(
            f"expected a directory to write to, got {directory} ({error.strerror}); give another --out"
        ) from error
    for path in (directory / name for name in names):
        if path.is_dir():
            raise UsageError(f"{path}: expected a file or nothing, got a directory; move it, or give another --out")
