"""End of a worker process together with its parent.

A worker imports this module before all heavy ones. So it ends with its parent even if that is
killed while the worker imports PyTorch.
"""

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

#: The ``prctl`` option of Linux for the signal that a process gets when the one that started it
#: ends.
PR_SET_PDEATHSIG = 1


def serve_with_lifeline(connection: Connection, root: str, threads: int) -> None:
    """Tie the lifeline, then call :func:`wemem.execution.processes.serve` with the same arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    tie_lifeline()
    from wemem.execution.processes import serve

    serve(connection, root, threads)


def tie_lifeline() -> None:
    """End this process at once when its parent ends, however that happens.

    On Linux the kernel does it, even in the middle of a computation that holds the interpreter;
    elsewhere a thread waits for the parent's end.
    """
    parent = parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent.pid:  # it ended before the call
            os._exit(1)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
