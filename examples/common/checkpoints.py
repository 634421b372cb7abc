"""A network's training so far, and the file that keeps it: replaced after each epoch, checked by a digest."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from common.errors import UsageError
from common.experiment import name_of
from common.files import write_atomically

MAGIC = b"mnist.py checkpoint 1\n"
SETTINGS = {"data": "the data", "seed": "--seed", "planned_epochs": "--epochs"}
ANEW = "leave --resume out to start again, or give another --out"


@dataclass
class Run:
    """One network's training so far: what was asked for, and one entry per finished epoch in each list.

    `variant` is None for a control that serves all variants of its experiment.
    """

    experiment: str
    variant: str | None
    control: str | None
    data: str
    seed: int
    planned_epochs: int
    search: str | None = None  # the algorithm in place of the experiment's own
    parameters: int = 0
    commit: str | None = None  # of the program that trained its last epoch
    evaluations: int = 0  # forward evaluations of a row, in training
    seconds: float = 0.0  # of training, without the accuracies
    cost: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    layers: list[dict[str, dict[str, float]]] = field(default_factory=list)  # layer -> quantity -> mean

    @property
    def name(self) -> str:
        """Return the experiment's name, with its variant behind a colon, and search and control in brackets."""
        return name_of(self.experiment, self.variant, self.search, self.control)

    @property
    def file(self) -> str:
        """Return the name of the checkpoint's file, another one for each network, data set and seed."""
        data = re.sub(r"[^a-z0-9.]+", "-", self.data.lower())
        parts = (data, self.experiment, self.variant or "any", self.control, self.search, str(self.seed))
        return f"{'_'.join(filter(None, parts))}.pt"

    @property
    def epochs(self) -> int:
        """Return the number of finished epochs."""
        return len(self.test)

    @property
    def finished(self) -> bool:
        """Return whether no epoch is left."""
        return self.epochs == self.planned_epochs

    def enter(self, saved: Mapping[str, Any]) -> None:
        """Take over what another `Run` of the same network holds, as a dict of its fields."""
        for entry, value in saved.items():
            setattr(self, entry, value)


class OtherSettings(UsageError):
    """A checkpoint of the same network, made with other options; `found` says which."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"{path}: expected a checkpoint of the same options, got one that {found}; repeat that, {ANEW}"
        )
        self.found = f"its checkpoint {found}"


def save(path: Path, run: Run, machine: torch.nn.Module) -> None:
    """Replace a checkpoint: `MAGIC`, the SHA-256 of what follows, and torch's archive of the run and its machine.

    Raises:
        UsageError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"run": asdict(run), "machine": machine.state_dict()}, buffer)
    payload = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload)


def load(path: Path) -> tuple[Run, dict[str, Any]]:
    """Return the run and the machine's state that a checkpoint holds.

    Raises:
        UsageError: the file cannot be read, is damaged or of another program.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, got {error.strerror}; {ANEW}") from error
    start = len(MAGIC) + hashlib.sha256().digest_size
    payload = content[start:]
    if content[:start] != MAGIC + hashlib.sha256(payload).digest():
        raise UsageError(
            f"{path}: expected a checkpoint, got a file that is damaged, or not of this program; {ANEW}, "
            "or remove the file: then --resume trains this network anew"
        )
    saved = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    if saved["run"].keys() != {entry.name for entry in fields(Run)}:
        raise UsageError(f"{path}: expected a checkpoint of this version, got one of another; {ANEW}")
    return Run(**saved["run"]), saved["machine"]


def restore(run: Run, path: Path) -> None:
    """Enter into a run the epochs that its checkpoint holds, where it exists.

    Raises:
        UsageError: the checkpoint is damaged, or was made with other settings.
    """
    if not path.exists():
        return
    saved, _ = load(path)
    if saved.file != run.file:
        raise UsageError(f"{path}: expected a checkpoint of {run.name}, got one of {saved.name}; {ANEW}")
    for entry, option in SETTINGS.items():
        if getattr(saved, entry) != getattr(run, entry):
            raise OtherSettings(path, f"was made with {option} {getattr(saved, entry)}")
    run.enter(vars(saved))


def found(folder: Path) -> Iterator[Run]:
    """Yield the runs of all checkpoints in a folder, but for damaged ones."""
    for path in sorted(folder.glob("*.pt")):
        try:
            yield load(path)[0]
        except UsageError:
            continue
