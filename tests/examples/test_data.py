from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from common import data
from common import idx as files
from common.errors import UsageError

RNG = np.random.default_rng(0)
SHAPES = {"train_x": (60, 4, 6), "train_t": (60,), "test_x": (10, 4, 6), "test_t": (10,)}


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Four IDX files of 60 and 10 images, every second one gzipped, in a directory called "shapes"."""
    directory = tmp_path / "shapes"
    directory.mkdir()
    arrays = {}
    for number, (name, file) in enumerate(files.FILES.items()):
        arrays[name] = RNG.integers(0, 7 if name.endswith("t") else 256, SHAPES[name]).astype(np.uint8)
        content = idx(arrays[name])
        if number % 2:
            (directory / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (directory / file).write_bytes(content)
    return directory, arrays


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
    rows = rows - rows.amin(0)  # every pixel is black somewhere
    back = (rows * (pixels.max() / rows.max())).round()
    assert sorted(map(tuple, back.tolist())) == sorted(map(tuple, pixels.tolist()))


def test_pixels_are_standardised_by_the_training_part_alone() -> None:
    digits = data.load()
    assert digits.train.x.mean(0).abs().max() < 1e-5
    assert (digits.train.x.std() - 1).abs() < 1e-6
    assert digits.test.x.mean().abs() > 1e-4


def test_idx_files_of_any_size_are_read_gzipped_or_not_and_the_last_training_rows_validate(
    small: tuple[Path, dict[str, np.ndarray]],
) -> None:
    directory, arrays = small
    read = data.load(directory=directory)
    assert (read.name, read.shape, read.features) == ("idx:shapes", (4, 6), 24)
    assert read.classes == 1 + max(arrays["train_t"].max(), arrays["test_t"].max())
    assert read.train.t.tolist() == arrays["train_t"][:55].tolist()
    assert read.validation.t.tolist() == arrays["train_t"][55:].tolist()
    assert read.test.t.tolist() == arrays["test_t"].tolist()
    train = torch.tensor(arrays["train_x"][:55].reshape(55, 24), dtype=torch.float32)
    for part, name, rows in ((read.train, "train_x", slice(0, 55)), (read.test, "test_x", slice(None))):
        expected = torch.tensor(arrays[name][rows].reshape(-1, 24), dtype=torch.float32)
        torch.testing.assert_close(part.x, (expected - train.mean(0)) / (train - train.mean(0)).std())


@pytest.mark.parametrize(("old", "new"), [("-idx", ".idx"), ("t10k", "test"), ("t", "emnist-letters-t")])
def test_usual_other_spellings_of_the_files_are_found(
    old: str, new: str, small: tuple[Path, dict[str, np.ndarray]]
) -> None:
    directory, arrays = small
    for path in list(directory.iterdir()):
        path.rename(directory / path.name.replace(old, new, 1))
    assert data.load(directory=directory).test.t.tolist() == arrays["test_t"].tolist()


def test_a_file_unpacked_beside_the_packed_one_is_no_riddle(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, arrays = small
    (directory / "train-labels-idx1-ubyte").write_bytes(idx(arrays["train_t"]))
    assert data.load(directory=directory).train.t.tolist() == arrays["train_t"][:55].tolist()


def test_two_data_sets_in_one_directory_are_refused(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, arrays = small
    (directory / "other-train-labels-idx1-ubyte").write_bytes(idx(arrays["train_t"]))
    with pytest.raises(UsageError, match=r"one file like train-labels-idx1-ubyte, got other-.*; put the four files of"):
        data.load(directory=directory)


def test_missing_file_is_named_with_the_remedy(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, _ = small
    (directory / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UsageError, match=r"train-labels-idx1-ubyte or .*\.gz in .*, got neither; give --data-dir"):
        data.load(directory=directory)


def test_labels_of_other_images_are_refused(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, arrays = small
    path = next(directory.glob("t10k-labels-idx1-ubyte*"))
    path.write_bytes(idx(arrays["test_t"][:9]))
    with pytest.raises(UsageError, match=r"expected a label for each of the 10 images .*, got 9; fetch the file again"):
        data.load(directory=directory)


def few(directory: Path, rows: int, pixel: int | None = None) -> Path:
    """Write a data set of so many training images, all of one pixel where it is given."""
    for part, file in files.FILES.items():
        n = rows if part.startswith("train") else 4
        values = RNG.integers(0, 2 if part.endswith("t") else 256, (n,) if part.endswith("t") else (n, 3, 3))
        made = np.full_like(values, pixel) if pixel is not None and part.endswith("x") else values
        (directory / file).write_bytes(idx(made.astype(np.uint8)))
    return directory


@pytest.mark.parametrize("rows", [3, 4, 5, 7])
def test_of_few_images_one_validates(rows: int, tmp_path: Path) -> None:
    read = data.load(directory=few(tmp_path, rows))
    assert (len(read.train), len(read.validation)) == (rows - 1, 1)


@pytest.mark.parametrize(
    ("rows", "pixel", "message"),
    [
        (1, None, r"expected at least 3 training images in idx:.*, got 1; give another data set"),
        (9, 0, r"expected training images that differ in idx:.*, got none"),
    ],
)
def test_images_that_nothing_can_be_learned_from_are_refused(
    rows: int, pixel: int | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        data.load(directory=few(tmp_path, rows, pixel))


def test_test_images_of_another_size_are_refused(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, arrays = small
    path = next(directory.glob("t10k-images-idx3-ubyte*"))
    path.write_bytes(idx(arrays["test_x"][:, :, :5]))
    with pytest.raises(UsageError, match=r"expected images of \[4, 6\] as in .*, got \[4, 5\]; put the four"):
        data.load(directory=directory)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


GOOD = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)


@pytest.mark.parametrize("zipped", [False, True])
def test_whole_file_gives_its_array(tmp_path: Path, zipped: bool) -> None:
    content = gzip.compress(idx(GOOD)) if zipped else idx(GOOD)
    assert np.array_equal(files.read_idx(write(tmp_path / "x", content), labels=False), GOOD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(GOOD))[:-12], "whole gzip file, got one cut short or damaged"),
        (gzip.compress(idx(GOOD))[:5], "whole gzip file, got one cut short or damaged"),
        (gzip.compress(idx(GOOD))[:-8] + bytes(8), "whole gzip file, got one cut short or damaged"),
        (idx(GOOD)[:-1], "expected 24 bytes after the header, got 23"),
        (idx(GOOD) + b"0", "expected 24 bytes after the header, got 25"),
        (idx(GOOD)[:9], "expected a header of 16 bytes, got a file of 9"),
        (idx(GOOD)[:4] + b"\xff" * 12 + idx(GOOD)[16:], r"expected \d+ bytes after the header, got 24"),
        (idx(GOOD.reshape(24)), "begins with 00000803, got 00000801"),
        (b"<html>not found</html>", "begins with 00000803, got 3c68746d"),
        (b"", "got an empty file"),
    ],
    ids=["zip cut", "zip header", "zip check", "short", "long", "header", "sizes", "kind", "page", "empty"],
)
def test_damaged_file_is_refused_with_what_was_found(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message + ".*; fetch the file again"):
        files.read_idx(write(tmp_path / "x", content), labels=False)


def test_images_in_place_of_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected an IDX file of labels, which begins with 00000801, got 00000803"):
        files.read_idx(write(tmp_path / "x", idx(GOOD)), labels=True)


def test_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a readable file, got Is a directory; check --data-dir"):
        files.read_idx(tmp_path, labels=True)


def test_openml_rows_beyond_sixty_thousand_are_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(70_000) % 10
    images = np.repeat(labels[:, None], 2, axis=1).astype(np.float64)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: (images, labels.astype(str)))
    read = data.load("openml")
    assert [len(part) for part in (read.train, read.validation, read.test)] == [55_000, 5_000, 10_000]
    assert read.name == "mnist"
    assert torch.equal(read.test.t, torch.arange(60_000, 70_000) % 10)
    assert (read.test.x[:, 0].diff()[:9] > 0).all()


def test_another_data_set_of_openml_is_divided_with_every_class_in_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    labels = np.array(["cat", "dog", "eel"] * 100)
    images = np.repeat(np.arange(300.0)[:, None], 9, axis=1)

    def fetch(name: str, **options: object) -> tuple[np.ndarray, np.ndarray]:
        asked.append((name, options["version"]))
        return images, labels

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    read = data.load("openml:animals")
    assert asked == [("animals", "active")]
    assert (read.name, read.shape, read.classes) == ("openml:animals", (3, 3), 3)
    assert [part.t.bincount().tolist() for part in (read.train, read.validation, read.test)] == [
        [68, 68, 68], [12, 12, 12], [20, 20, 20],
    ]  # fmt: skip
    for part in (read.train, read.validation, read.test):
        order = part.x[:, 0].argsort()  # the pixels are the rows' numbers: 0 cat, 1 dog, 2 eel, 3 cat, ...
        assert part.x[order].diff(dim=0).min() > 0
    assert torch.equal(data.load("openml:animals").test.x, read.test.x)


def test_features_that_are_no_square_are_one_row_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = np.arange(120.0).reshape(60, 2), np.array(["a", "b"] * 30)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: (images, labels))
    assert data.load("openml:pairs").shape == (1, 2)


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (np.full((60, 2), np.nan), np.arange(60) % 2, "missing values among its numbers"),
        (np.zeros((60, 2)), np.arange(60), "a class of less than three rows"),
        (np.full((60, 2), "word"), np.arange(60) % 2, "could not convert string to float"),
    ],
)
def test_openml_data_that_are_no_labelled_numbers_are_refused(
    images: np.ndarray, labels: np.ndarray, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: (images, labels))
    with pytest.raises(UsageError, match=rf"expected to fetch words from .*{reason}.*; check the connection"):
        data.load("openml:words")


def test_failed_download_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        warnings.warn("A network error occurred. Retrying...", UserWarning, stacklevel=2)  # an error in these tests
        raise OSError("no route\nto host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(UsageError, match=r"got OSError \(no route to host\); check the connection"):
        data.load("openml")


def test_mnist_files_hold_sixty_thousand_and_ten_thousand_images(mnist_dir: Path) -> None:
    read = data.load(directory=mnist_dir)
    assert (read.name, read.shape, read.classes) == ("mnist", (28, 28), 10)
    assert [len(part) for part in (read.train, read.validation, read.test)] == [55_000, 5_000, 10_000]
    assert torch.cat([read.train.t, read.validation.t]).bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert read.test.t[:5].tolist() == [7, 2, 1, 0, 4]
