"""A directory of IDX files: MNIST, or any other set of labelled images in MNIST's format."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UsageError

FILES = {  # part -> the name of its files, behind the prefix that some sets put in front
    "train_x": "train-images-idx3-ubyte",
    "train_t": "train-labels-idx1-ubyte",
    "test_x": "t10k-images-idx3-ubyte",
    "test_t": "t10k-labels-idx1-ubyte",
}
MNIST_LABELS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # how often each stands among 60,000
REMEDY = "fetch the file again"


@dataclass(frozen=True)
class Images:
    """x: [n, *shape] unsigned bytes, t: [n] labels from 0, of the training and of the test images."""

    train_x: NDArray[Any]
    train_t: NDArray[Any]
    test_x: NDArray[Any]
    test_t: NDArray[Any]

    @property
    def are_mnist(self) -> bool:
        """Return whether these are MNIST's handwritten digits, as far as the labels tell."""
        return tuple(np.bincount(self.train_t).tolist()) == MNIST_LABELS


def read(directory: Path) -> Images:
    """Read the four files of a directory: training and test images, and their labels.

    Raises:
        UsageError: a file is missing, cut short or no IDX file, or two of them do not fit together.
    """
    paths = {part: _find(directory, name) for part, name in FILES.items()}
    arrays = {part: read_idx(path, labels=part.endswith("_t")) for part, path in paths.items()}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_x"], arrays[f"{part}_t"]
        if not len(images) or len(images) != len(labels):
            raise UsageError(
                f"{paths[f'{part}_t']}: expected a label for each of the {len(images)} images in "
                f"{paths[f'{part}_x'].name}, got {len(labels)}; {REMEDY}"
            )
    train, test = (arrays[part].shape[1:] for part in ("train_x", "test_x"))
    if train != test:
        raise UsageError(
            f"{paths['test_x']}: expected images of {list(train)} as in {paths['train_x'].name}, got {list(test)}; "
            "put the four files of one data set into a directory"
        )
    return Images(**arrays)


def read_idx(path: Path, *, labels: bool) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not: labels, one dimension, or images, at least two.

    Raises:
        UsageError: the file cannot be read, is cut short, or holds something else.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(
            f"{path}: expected a whole gzip file, got one cut short or damaged ({error}); {REMEDY}"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, got {error.strerror}; check --data-dir") from error
    dimensions = content[3] if len(content) > 3 else 0
    if content[:3] != bytes((0, 0, 8)) or (dimensions != 1 if labels else dimensions < 2):
        expected = "labels, which begins with 00000801" if labels else "images, which begins with 00000803"
        raise UsageError(
            f"{path}: expected an IDX file of {expected}, got {content[:4].hex() or 'an empty file'}; {REMEDY}"
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise UsageError(f"{path}: expected a header of {header} bytes, got a file of {len(content)}; {REMEDY}")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    size, body = int(np.prod(shape, dtype=np.float64)), len(content) - header  # no overflow, whatever the header says
    if body != size:
        raise UsageError(f"{path}: expected {size} bytes after the header, got {body}; {REMEDY}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _find(directory: Path, name: str) -> Path:
    """Return the one file of a part; `.` may stand for `-` before idx, "test" for "t10k", a prefix before all."""
    start, kind = name.rsplit("-idx", 1)
    start = start.replace("t10k", "(t10k|test)")
    pattern = re.compile(rf"(.*[-_.])?{start}[-.]idx{kind[0]}-ubyte(\.gz)?")
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    found = [entry for entry in names if pattern.fullmatch(entry)]
    found = [entry for entry in found if entry.removesuffix(".gz") == entry or entry.removesuffix(".gz") not in found]
    if not found:
        raise UsageError(
            f"expected {name} or {name}.gz in {directory}, got neither; "
            "give --data-dir a directory with four IDX files, or leave it out for scikit-learn's digits"
        )
    if len(found) > 1:
        raise UsageError(
            f"{directory}: expected one file like {name}, got {', '.join(found)}; "
            "put the four files of one data set into a directory"
        )
    return directory / found[0]
