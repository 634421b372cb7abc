from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from common import data
from common.errors import UsageError

RNG = np.random.default_rng(0)
SHAPES = {"train_x": (30, 4, 4), "train_t": (30,), "test_x": (10, 4, 4), "test_t": (10,)}


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, np.ndarray]]:
    """Four IDX files of 30 and 10 images, every second one gzipped, which `load` takes for MNIST."""
    arrays = {}
    files = {name: (data.MNIST_FILES[name][0], shape) for name, shape in SHAPES.items()}
    for number, (name, (file, shape)) in enumerate(files.items()):
        arrays[name] = RNG.integers(0, 10 if name.endswith("t") else 256, shape).astype(np.uint8)
        content = idx(arrays[name])
        if number % 2:
            (tmp_path / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / file).write_bytes(content)
    monkeypatch.setattr(data, "MNIST_FILES", files)
    monkeypatch.setattr(data, "VALIDATION_ROWS", 5)
    return tmp_path, arrays


def test_digits_are_split_the_same_way_each_time_with_every_class_in_each_part() -> None:
    first, second = data.load(), data.load()
    assert [len(part) for part in (first.train, first.validation, first.test)] == [1221, 216, 360]
    assert torch.equal(first.train.x, second.train.x)
    assert torch.equal(first.test.t, second.test.t)
    for part in (first.train, first.validation, first.test):
        counts = part.t.bincount(minlength=10)
        assert counts.min() >= 0.8 * counts.max()


def test_digits_of_the_three_parts_are_all_the_images_once() -> None:
    from sklearn.datasets import load_digits

    digits = data.load()
    rows = torch.cat([digits.train.x, digits.validation.x, digits.test.x])
    pixels = torch.tensor(load_digits().data, dtype=torch.float32)
    scale = pixels.max() / (rows.max() - rows.min())
    back = ((rows - rows.min()) * scale).round()
    assert sorted(map(tuple, back.tolist())) == sorted(map(tuple, pixels.tolist()))


def test_pixels_are_standardised_by_the_training_part_alone() -> None:
    digits = data.load()
    assert digits.train.x.mean().abs() < 1e-6
    assert (digits.train.x.std() - 1).abs() < 1e-6
    assert digits.test.x.mean().abs() > 1e-4


def test_idx_files_are_read_gzipped_or_not_and_the_last_training_rows_validate(
    small: tuple[Path, dict[str, np.ndarray]],
) -> None:
    directory, arrays = small
    read = data.load(directory=directory)
    assert read.name == "mnist"
    assert read.features == 16
    assert read.train.t.tolist() == arrays["train_t"][:25].tolist()
    assert read.validation.t.tolist() == arrays["train_t"][25:].tolist()
    assert read.test.t.tolist() == arrays["test_t"].tolist()
    train = torch.tensor(arrays["train_x"][:25].reshape(25, 16), dtype=torch.float32)
    for part, name, rows in ((read.train, "train_x", slice(0, 25)), (read.test, "test_x", slice(None))):
        expected = torch.tensor(arrays[name][rows].reshape(-1, 16), dtype=torch.float32)
        torch.testing.assert_close(part.x, (expected - train.mean()) / train.std())


def test_missing_file_is_named_with_the_remedy(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, _ = small
    (directory / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UsageError, match=r"train-labels-idx1-ubyte or .*\.gz in .*, got neither; give --data-dir"):
        data.load(directory=directory)


def test_label_that_is_no_digit_is_refused(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, arrays = small
    labels = arrays["test_t"].copy()
    labels[3] = 77
    path = next(directory.glob("t10k-labels-idx1-ubyte*"))
    path.write_bytes(idx(labels))
    with pytest.raises(UsageError, match=rf"{path}: expected labels in 0\.\.9, got 77; fetch the file again"):
        data.load(directory=directory)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


GOOD = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)


@pytest.mark.parametrize("zipped", [False, True])
def test_whole_file_gives_its_array(tmp_path: Path, zipped: bool) -> None:
    content = gzip.compress(idx(GOOD)) if zipped else idx(GOOD)
    assert np.array_equal(data.read_idx(write(tmp_path / "x", content), (6, 2, 2)), GOOD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(GOOD))[:-12], "whole gzip file, got one cut short or damaged"),
        (gzip.compress(idx(GOOD))[:5], "whole gzip file, got one cut short or damaged"),
        (gzip.compress(idx(GOOD))[:-8] + bytes(8), "whole gzip file, got one cut short or damaged"),
        (idx(GOOD)[:-1], "expected 24 bytes after the header, got 23"),
        (idx(GOOD) + b"0", "expected 24 bytes after the header, got 25"),
        (idx(GOOD)[:9], "expected a header of 16 bytes, got a file of 9"),
        (idx(GOOD.reshape(3, 4, 2)), r"expected MNIST's shape \[6, 2, 2\], got \[3, 4, 2\]"),
        (idx(GOOD.reshape(6, 4)), "begins with 00000803, got 00000802"),
        (b"<html>not found</html>", "begins with 00000803, got 3c68746d"),
        (b"", "got an empty file"),
    ],
)
def test_damaged_file_is_refused_with_what_was_found(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message + ".*; fetch the file again"):
        data.read_idx(write(tmp_path / "x", content), (6, 2, 2))


def test_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a readable file, got Is a directory; check --data-dir"):
        data.read_idx(tmp_path, (6, 2, 2))


def test_openml_rows_beyond_sixty_thousand_are_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(70_000) % 10
    images = np.repeat(labels[:, None], 2, axis=1).astype(np.float64)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: (images, labels.astype(str)))
    read = data.load("openml")
    assert [len(part) for part in (read.train, read.validation, read.test)] == [55_000, 5_000, 10_000]
    assert read.name == "mnist"
    assert torch.equal(read.test.t, torch.arange(60_000, 70_000) % 10)
    assert (read.test.x[:, 0].diff()[:9] > 0).all()


def test_failed_download_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        warnings.warn("A network error occurred. Retrying...", UserWarning, stacklevel=2)  # an error in these tests
        raise OSError("no route\nto host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(UsageError, match=r"got OSError \(no route to host\); check the connection"):
        data.load("openml")


def test_mnist_files_hold_sixty_thousand_and_ten_thousand_images(mnist_dir: Path) -> None:
    read = data.load(directory=mnist_dir)
    assert [len(part) for part in (read.train, read.validation, read.test)] == [55_000, 5_000, 10_000]
    assert torch.cat([read.train.t, read.validation.t]).bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert read.test.t[:5].tolist() == [7, 2, 1, 0, 4]
