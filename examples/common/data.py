"""Handwritten digits from three places: scikit-learn's 8 x 8 images, MNIST's IDX files, MNIST by name from OpenML."""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UsageError

CLASSES = 10
MNIST_FILES = {
    "train_x": ("train-images-idx3-ubyte", (60_000, 28, 28)),
    "train_t": ("train-labels-idx1-ubyte", (60_000,)),
    "test_x": ("t10k-images-idx3-ubyte", (10_000, 28, 28)),
    "test_t": ("t10k-labels-idx1-ubyte", (10_000,)),
}
VALIDATION_ROWS = 5_000  # the last rows of MNIST's training images
VALIDATION_SHARE = 0.15  # of the digits' training images


@dataclass(frozen=True)
class Split:
    """x: [n, *features] standardised pixels. t: [n] labels in 0..9."""

    x: Tensor
    t: Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.t)


@dataclass(frozen=True)
class Data:
    """The three parts of a data set: `test` is for the reported accuracy alone, choices are made on `validation`."""

    name: str
    shape: tuple[int, ...]  # of one image, before it was flattened
    classes: int
    train: Split
    validation: Split
    test: Split

    @property
    def features(self) -> int:
        """Return the number of pixels of an image."""
        return self.train.x.shape[1]

    def to(self, device: torch.device) -> Data:
        """Return the same data on another device."""
        parts = (Split(part.x.to(device), part.t.to(device)) for part in (self.train, self.validation, self.test))
        return Data(self.name, self.shape, self.classes, *parts)


def load(source: str = "digits", directory: Path | None = None) -> Data:
    """Read a data set: MNIST's IDX files where a directory is given, else `source`, "digits" or "openml".

    Raises:
        UsageError: a file is missing, cut short or no IDX file, or holds other labels; the download failed.
    """
    if directory is not None:
        return _mnist(**{name: _find_idx(directory, *expected) for name, expected in MNIST_FILES.items()})
    if source == "openml":
        return _openml()
    return _digits()


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not, that must hold an array of this shape.

    Raises:
        UsageError: the file cannot be read, is cut short, or holds something else.
    """
    remedy = "fetch the file again"
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(
            f"{path}: expected a whole gzip file, got one cut short or damaged ({error}); {remedy}"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, got {error.strerror}; check --data-dir") from error
    magic = bytes((0, 0, 8, len(shape)))
    if content[:4] != magic:
        raise UsageError(
            f"{path}: expected an IDX file of unsigned bytes with {len(shape)} dimension(s), which begins with "
            f"{magic.hex()}, got {content[:4].hex() or 'an empty file'}; {remedy}"
        )
    header = 4 + 4 * len(shape)
    if len(content) < header:
        raise UsageError(f"{path}: expected a header of {header} bytes, got a file of {len(content)}; {remedy}")
    found = struct.unpack(f">{len(shape)}I", content[4:header])
    if found != shape:
        raise UsageError(f"{path}: expected MNIST's shape {list(shape)}, got {list(found)}; {remedy}")
    body = len(content) - header
    if body != np.prod(shape):
        raise UsageError(f"{path}: expected {np.prod(shape)} bytes after the header, got {body}; {remedy}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _find_idx(directory: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    for path in (directory / name, directory / f"{name}.gz"):
        if path.exists():
            content = read_idx(path, shape)
            if len(shape) == 1 and content.max() >= CLASSES:
                raise UsageError(
                    f"{path}: expected labels in 0..{CLASSES - 1}, got {content.max()}; fetch the file again"
                )
            return content
    raise UsageError(
        f"expected {name} or {name}.gz in {directory}, got neither; "
        "give --data-dir a directory with MNIST's four IDX files, or leave it out for scikit-learn's digits"
    )


def _mnist(train_x: NDArray[Any], train_t: NDArray[Any], test_x: NDArray[Any], test_t: NDArray[Any]) -> Data:
    rows = len(train_x) - VALIDATION_ROWS
    train, validation = (train_x[:rows], train_t[:rows]), (train_x[rows:], train_t[rows:])
    return _standardised("mnist", (28, 28), train, validation, (test_x, test_t))


def _openml() -> Data:
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a failed try: the error below says it once
            x, t = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"expected to fetch mnist_784 from openml.org, got {type(error).__name__} ({reason}); "
            "check the connection, or give --data-dir a directory with MNIST's IDX files"
        ) from error
    t = t.astype(np.int64)
    return _mnist(x[:60_000], t[:60_000], x[60_000:], t[60_000:])


def _digits() -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, t = load_digits(return_X_y=True)
    fit_x, test_x, fit_t, test_t = train_test_split(x, t, test_size=0.2, stratify=t, random_state=0)
    train_x, validation_x, train_t, validation_t = train_test_split(
        fit_x, fit_t, test_size=VALIDATION_SHARE, stratify=fit_t, random_state=0
    )
    return _standardised("digits", (8, 8), (train_x, train_t), (validation_x, validation_t), (test_x, test_t))


def _standardised(name: str, shape: tuple[int, ...], *parts: tuple[NDArray[Any], NDArray[Any]]) -> Data:
    """Flatten the images; subtract and divide by the mean and the deviation of all pixels of the first part."""
    pixels = [torch.tensor(x.reshape(len(x), -1), dtype=torch.float32) for x, _ in parts]
    mean, deviation = pixels[0].mean(), pixels[0].std()
    labels = [torch.tensor(t, dtype=torch.int64) for _, t in parts]
    splits = (Split((x - mean) / deviation, t) for x, t in zip(pixels, labels, strict=True))
    return Data(name, shape, CLASSES, *splits)
