"""Signals that reach the commands that tests start."""

import signal
import threading

#: Shells let processes in the background ignore the first, and ``nohup`` the second.
NAMES = ("SIGINT", "SIGHUP")


def let_children_hear() -> None:
    """Replace a signal's inherited "ignore" by a handler that does nothing.

    A new program inherits that a signal is ignored. It does not inherit a handler, so that it begins with the
    default, as one in a terminal does.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
