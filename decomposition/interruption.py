"""Ctrl-C and SIGTERM, from the first moment of a command to its last: one line and an exit code.

Light to import, because it comes before everything else. While a command starts there is nothing
to clear up, and an exception could get lost: extension modules that are being imported turn it
into errors of their own. So a signal ends the process at once. Later it raises KeyboardInterrupt,
which stops workers and removes unfinished files on its way; a second one ends at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

LINE = "interrupted; what is finished is kept, the same command resumes"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Command:
    """What this process knows of its signals."""

    name: str = "decompose"
    """At the head of the line."""
    process: int = 0
    """The one that has installed the handlers; forked children have them too."""
    works: bool = False
    """Whether an exception reaches those who clear up."""
    received: int = 0
    """The first signal; 0 if there was none."""


def install(name: str = "decompose", works: bool = False) -> None:
    """Handle both signals from now on; one that the caller of the process ignores stays ignored."""
    Command.name, Command.works, Command.process, Command.received = name, works, os.getpid(), 0
    for number in SIGNALS:
        with contextlib.suppress(ValueError):  # not in the main thread, which is another's
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)


def begin() -> None:
    """From now on a signal raises KeyboardInterrupt."""
    Command.works = True


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Around all work: whatever a signal has become on its way, it ends as an interruption.

    Without ``install`` KeyboardInterrupt ends with the same line, and exit code 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        end()
    except BaseException:
        if Command.received:
            end()
        raise
    finally:
        Command.works = False  # the interpreter ends, and with it those who clear up


def end() -> NoReturn:
    """Say the line, and end with 128 + the number of the signal."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if not Command.received:
        print(f"\n{Command.name}: {LINE}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    _end_at_once(Command.received)


def _handle(number: int, frame: object) -> None:
    if os.getpid() != Command.process:
        os._exit(128 + number)
    if Command.received or not Command.works:
        _end_at_once(Command.received or number)
    Command.received = number
    raise KeyboardInterrupt


def _end_at_once(number: int) -> NoReturn:
    for known in SIGNALS:
        signal.signal(known, signal.SIG_IGN)  # the line is said once
    with contextlib.suppress(OSError):  # nobody reads it
        os.write(2, f"\n{Command.name}: {LINE}\n".encode())
    os._exit(128 + number)
