"""Train networks on handwritten digits, each layer by a rule of its own.

    python examples/mnist.py [NAMES] [--data-dir DIR | --data openml] [--epochs N] [--seed S] [--out DIR] [--resume]

Every name is a file in `examples/experiments/`. Results: `DIR/results.json`, `DIR/curves.png` and a table; an
experiment's controls (the same network, hidden layers frozen, for one) train beside it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """End the process at Ctrl-C with one line: imports turn a KeyboardInterrupt into tracebacks of their own."""

    def leave(*_: object) -> None:
        os.write(2, b"mnist.py: stopped by Ctrl-C before training; nothing was written\n")
        os._exit(INTERRUPTED)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where the shell has it ignored
    if usual:
        signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2."""
    try:
        with quiet_interrupts():
            from common import command
            from common.errors import UsageError
        try:
            return command.work(arguments)
        except UsageError as error:
            print(f"mnist.py: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        print("mnist.py: stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
