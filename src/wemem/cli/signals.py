"""Stop in one line and with the usual exit code when a signal asks for it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: Printed when a signal ends a command; what was finished is in the store.
STOPPED = "wemem: stopped; the same command goes on from here"
#: Signals that end a command, where the system has them.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(SystemExit):
    """Raised by SIGTERM and SIGHUP; its code is 128 plus the signal's number, as in a shell."""


@contextmanager
def signals_handled() -> Iterator[None]:
    """End the process in one line on Ctrl-C, SIGTERM and SIGHUP while the body runs.

    A signal that is ignored already, as under ``nohup``, stays ignored. During an import,
    and at a second signal, the process ends immediately, because a half-imported library cannot be
    unwound. Otherwise Ctrl-C raises KeyboardInterrupt and the others raise :class:`Stopped`, so that
    a live display and the workers are closed. Worker processes end with this one in every
    case (:mod:`wemem.execution.lifeline`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows handlers in the main thread only
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    handler = _Handler()
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


class _Handler:
    """Ends a command at a signal; it remembers whether one has come already."""

    def __init__(self) -> None:
        self._pending = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._pending or _importing(frame):
            with suppress(OSError, ValueError, RuntimeError):  # a write that was interrupted cannot be entered again
                os.write(2, f"{STOPPED}\n".encode())
            os._exit(128 + number)
        self._pending = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(128 + number)


def _importing(frame: FrameType | None) -> bool:
    """True if an import was going on when a signal arrived."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def say(line: str) -> None:
    """Write a line to standard error; nothing where that is closed or full."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
