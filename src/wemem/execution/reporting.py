"""Progress of tasks in other processes, as messages that JSON holds."""

from collections.abc import Callable
from typing import Any

from wemem.execution.graph import Node
from wemem.pipeline.progress import Progress, Silent


class Reporting(Silent):
    """Sends progress reports as messages.

    Args:
        send: sends one message, a list of JSON-able values.
    """

    def __init__(self, send: Callable[[list[Any]], object]) -> None:
        self._send = send

    def send(self, *message: object) -> None:
        """Send one message."""
        self._send(list(message))

    def begin(self, stage: str, work: float) -> None:
        self.send("begin", stage, work)

    def advance(self, fraction: float, detail: str) -> None:
        self.send("advance", fraction, detail)

    def end(self, *, stored: bool) -> None:
        self.send("end", stored)

    def tell(self, message: str) -> None:
        self.send("tell", message)

    def warn(self, message: str) -> None:
        self.send("warn", message)


class TaskProgress:
    """Shows the reports of one task: its own stage, or those that a search goes through.

    What the task looks up in the store was shown by the task that computed it.

    Args:
        progress: the display of the worker.
        node: the task; None before the first one.
    """

    def __init__(self, progress: Progress, node: Node | None = None) -> None:
        self._progress, self._node, self.stage = progress, node, ""

    def show(self, kind: str, *payload: Any) -> None:
        """Show one message of :class:`Reporting`."""
        match kind:
            case "begin":
                of_task = self._node is not None and (payload[0] == self._node.title or not self._node.stores)
                self.stage = payload[0] if of_task else ""
                if of_task:
                    self._progress.begin(*payload)
            case "advance" if self.stage:
                self._progress.advance(*payload)
            case "end" if self.stage:
                self._progress.end(stored=payload[0])
                self.stage = ""
            case "tell":
                self._progress.tell(*payload)
            case "warn":
                self._progress.warn(*payload)
